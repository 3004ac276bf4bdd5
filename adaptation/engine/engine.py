"""Run a model on ONNX Runtime and numpy alone: the hot path of worker and device.

A window's output must not depend on the windows beside it, bit for bit, because an output is identified by what it
depends on. One thread and the operations chosen in `acclimate.adaptation.engine.export` give that; `Engine.self_test`
checks it on the machine at hand and falls back to one window at a time where it does not hold.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from acclimate.adaptation.errors import ContractError, DataError
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.model.spec import NetworkSpec

__all__ = [
    "ADAPTED_OUTPUTS",
    "CODE_CONTRACT_VERSION",
    "SOURCE_OUTPUTS",
    "Engine",
    "Outputs",
    "engine_parameters",
    "engine_version",
    "instruction_set",
    "parameter_shapes",
]

# Raise whenever a change of code changes the bytes of an output; part of every output id. Version 2: a prediction has a
# column per figure instead of an object per window (docs/decisions/0019-predictions-are-columns.md).
CODE_CONTRACT_VERSION = 2

# Names and axes of the graphs' outputs.
SOURCE_OUTPUTS: dict[str, tuple[str, ...]] = {
    "probabilities": ("n", "classes"),
    "shift_mean": ("n", "layers"),
    "shift_variance": ("n", "layers"),
    "mean_part": ("n",),
    "variance_part": ("n",),
    "magnitude": ("n",),
}
ADAPTED_OUTPUTS: dict[str, tuple[str, ...]] = {
    "probabilities": ("n", "classes"),
    "distance": ("n", "layers"),
    "gain": ("n", "layers"),
}

# Measured on one core: 32 windows at a time beat 256 on these nets (cache), and single windows by far.
_CHUNK = 32
_CANARY_TOLERANCE = 1e-5
# numpy 2.4 names levels, earlier releases the extension that makes them.
_LEVELS = {"x86_v2": "sse42", "x86_v3": "avx2", "x86_v4": "avx512_skx"}
_HUGE = float(np.finfo(np.float32).max)

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """The engine's answer to n windows, float32; n = 0 in the last three fields where adaptation was not asked for.

    Args:
        source_probabilities, adapted_probabilities: (n, K).
        shift_mean, shift_variance: (n, layers), calibrated per layer; see `acclimate.adaptation.lean.shift`.
        mean_part, variance_part, magnitude: (n,), calibrated; the magnitude is the larger part.
        distance, gain: (n, layers), d and a of `acclimate.adaptation.lean.leantta`; 0 where a layer is off.
    """

    source_probabilities: FloatArray
    shift_mean: FloatArray
    shift_variance: FloatArray
    mean_part: FloatArray
    variance_part: FloatArray
    magnitude: FloatArray
    adapted_probabilities: FloatArray
    distance: FloatArray
    gain: FloatArray


def parameter_shapes(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Return name and shape (without the first axis, n or 1) of the adapted graph's per-window parameters."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, width in enumerate(spec.widths):
        shapes |= {f"{name}_{index}": (width,) for name in ("gamma", "beta", "mean", "var")}
    return shapes | {
        "head_weight": (spec.classes, spec.features),
        "head_bias": (spec.classes,),
        "tau": (),
        "lambda": (),
        "mask": (spec.layers,),
    }


def engine_parameters(
    tensors: Mapping[str, FloatArray], spec: NetworkSpec, settings: LeanSettings
) -> dict[str, FloatArray]:
    """Return the source's own parameters for the adapted graph, with first axis 1: the same for every window."""
    if len(settings.layers) != spec.layers:
        raise ContractError(f"lean settings: expected {spec.layers} layer flags, found {len(settings.layers)}")
    values: dict[str, FloatArray] = {}
    for index in range(spec.layers):
        stored = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "var": "running_var"}
        values |= {f"{name}_{index}": tensors[f"blocks.{index}.norm.{key}"] for name, key in stored.items()}
    values |= {"head_weight": tensors["head.weight"], "head_bias": tensors["head.bias"]}
    for name, value in (("tau", settings.tau), ("lambda", settings.lam), ("mask", settings.layers)):
        values[name] = np.array(value, dtype=np.float32)
    return {name: np.array(value, dtype=np.float32)[None] for name, value in values.items()}


def engine_version() -> str:
    """Return the engine's name and version as outputs name it, such as ``onnxruntime 1.31.1``."""
    return f"onnxruntime {ort.__version__}"


def instruction_set() -> str:
    """Return processor family and widest vector extension, such as ``x86_64-avx2``: the bits of results vary with it.

    Read from numpy's own detection, since ONNX Runtime does not report which kernels it chose.
    """
    extensions = np.show_config(mode="dicts")["SIMD Extensions"]
    found = [*extensions.get("baseline", ()), *extensions.get("found", ())]
    widest = found[-1].lower() if found else "none"
    return f"{platform.machine() or 'unknown'}-{_LEVELS.get(widest, widest)}"


class Engine:
    """One model, ready to run in one thread.

    Args:
        source_graph, adapted_graph: ONNX files as `acclimate.adaptation.engine.export` writes them.
        parameters: The adapted graph's parameters with first axis 1, see `engine_parameters`.
        settings: The settings these parameters came from.
        chunk: Most windows in one call of ONNX Runtime; results do not depend on it.

    Raises:
        ContractError: A graph cannot be loaded, or graphs and parameters do not fit each other.
    """

    def __init__(
        self,
        source_graph: bytes,
        adapted_graph: bytes,
        parameters: Mapping[str, FloatArray],
        settings: LeanSettings,
        chunk: int = _CHUNK,
    ) -> None:
        self.settings = settings
        self.chunk = chunk
        self.batch_exact = True
        self.version = engine_version()
        self.instruction_set = instruction_set()
        self._source = _open("source graph", source_graph, SOURCE_OUTPUTS)
        self._adapted = _open("adapted graph", adapted_graph, ADAPTED_OUTPUTS)
        self._parameters = dict(parameters)
        self.channels, self.length = _window_shape("source graph", self._source)
        if _window_shape("adapted graph", self._adapted) != (self.channels, self.length):
            raise ContractError("source and adapted graph take windows of different shapes")
        shapes = {node.name: tuple(node.shape[1:]) for node in self._adapted.get_inputs() if node.name != "windows"}
        found = {name: value.shape[1:] for name, value in parameters.items()}
        if shapes != found or any(value.shape[0] != 1 for value in parameters.values()):
            raise ContractError(f"parameters of the adapted graph: expected {shapes}, found {found}")
        self.layers = shapes["mask"][0]
        self.classes = shapes["head_bias"][0]

    def run(
        self, windows: FloatArray, adapted: bool = True, parameters: Mapping[str, FloatArray] | None = None
    ) -> Outputs:
        """Return the outputs of n independent windows.

        Args:
            windows: Raw values (n, C, L), finite float32.
            adapted: False computes the source and its shift alone.
            parameters: Replaces some of the parameters, first axis n (one row per window) or 1.

        Raises:
            DataError: The windows have another shape or type, or a value is not finite.
        """
        self._check(windows)
        given = self._parameters | dict(parameters or {})
        source = {name: self._empty(axes) for name, axes in SOURCE_OUTPUTS.items()}
        lean = {name: self._empty(axes) for name, axes in ADAPTED_OUTPUTS.items()}
        for start in range(0, len(windows), self.chunk):
            rows = slice(start, start + self.chunk)
            chunk = np.ascontiguousarray(windows[rows])
            _append(source, self._source.run(list(source), {"windows": chunk}))
            if adapted:
                feed = {name: value if len(value) == 1 else value[rows] for name, value in given.items()}
                _append(lean, self._adapted.run(list(lean), {"windows": chunk, **feed}))
        joined = {name: np.concatenate(parts) for name, parts in source.items()}
        joined["source_probabilities"] = joined.pop("probabilities")
        joined["adapted_probabilities"] = np.concatenate(lean.pop("probabilities"))
        joined |= {name: np.concatenate(parts) for name, parts in lean.items()}
        return Outputs(**joined)

    def self_test(self, windows: FloatArray, expected: Mapping[str, FloatArray]) -> None:
        """Check the engine on this machine with canary windows; call it once before use.

        Compares with expected outputs, then batches of several sizes with single windows bit for bit; where these
        differ, sets ``batch_exact`` False and ``chunk`` 1. Also runs the largest finite inputs.

        Args:
            windows: Canary windows (k, C, L), k at least 1.
            expected: Fields of `Outputs` for them, from the torch reference.

        Raises:
            ContractError: An output is farther than 1e-5 (relative above 1) from the expected one, or not finite.
        """
        singles = self._in_chunks_of(1, windows)
        for field in fields(Outputs):
            found, wanted = getattr(singles, field.name), expected[field.name]
            if found.shape != wanted.shape:
                raise ContractError(f"canary {field.name}: expected shape {wanted.shape}, found {found.shape}")
            error = np.abs(found - wanted) / np.maximum(1.0, np.abs(wanted))
            if not error.max() <= _CANARY_TOLERANCE:
                raise ContractError(
                    f"canary {field.name}: expected outputs within {_CANARY_TOLERANCE}, found {error.max():.3g} off; "
                    f"the graphs do not compute what was recorded, or {self.version} on {self.instruction_set} does not"
                )
        extremes = np.full((2, self.channels, self.length), _HUGE, np.float32)
        extremes[1, :, ::2] = -_HUGE
        for name, values in vars(self._in_chunks_of(1, extremes)).items():
            if not np.isfinite(values).all():
                raise ContractError(f"{name}: expected finite outputs for the largest finite inputs, found {values}")
        self._choose_chunk(windows, singles)

    def _choose_chunk(self, windows: FloatArray, singles: Outputs) -> None:
        picks = np.arange(self.chunk + 1) % len(windows)  # one more than a chunk, so that a remainder of 1 occurs
        for size in (self.chunk, self.chunk // 2 + 1, 7, 3, 2):
            if size > self.chunk:
                continue
            # Parameters of one row each must give the bits of one shared row.
            rows = {name: np.repeat(value, len(picks), axis=0) for name, value in self._parameters.items()}
            for parameters in (None, rows):
                batched = self._in_chunks_of(size, windows[picks], parameters)
                for name, values in vars(batched).items():
                    if values.tobytes() != getattr(singles, name)[picks].tobytes():
                        self.batch_exact, self.chunk = False, 1
                        return

    def _in_chunks_of(
        self, size: int, windows: FloatArray, parameters: Mapping[str, FloatArray] | None = None
    ) -> Outputs:
        before, self.chunk = self.chunk, size
        try:
            return self.run(windows, parameters=parameters)
        finally:
            self.chunk = before

    def _check(self, windows: FloatArray) -> None:
        if windows.dtype != np.float32:
            raise DataError(f"windows: expected float32, got {windows.dtype}", "wrong_type")
        if windows.ndim != 3 or windows.shape[1:] != (self.channels, self.length):
            raise DataError(
                f"windows: expected (n, {self.channels}, {self.length}), got {windows.shape}", "wrong_shape"
            )
        if not np.isfinite(windows).all():
            raise DataError("windows: expected finite values, got NaN or infinity", "not_finite")

    def _empty(self, axes: tuple[str, ...]) -> list[FloatArray]:
        sizes = {"n": 0, "classes": self.classes, "layers": self.layers}
        return [np.zeros([sizes[axis] for axis in axes], np.float32)]


def _append(parts: Mapping[str, list[FloatArray]], values: list[FloatArray]) -> None:
    for part, value in zip(parts.values(), values, strict=True):
        part.append(value)


def _open(name: str, graph: bytes, outputs: Mapping[str, tuple[str, ...]]) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors reach us as exceptions
    try:
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise ContractError(f"{name}: expected a graph that {engine_version()} can load, found: {error}") from error
    found = [node.name for node in session.get_outputs()]
    if found != list(outputs):
        raise ContractError(f"{name}: expected outputs {list(outputs)}, found {found}")
    return session


def _window_shape(name: str, session: ort.InferenceSession) -> tuple[int, int]:
    first = session.get_inputs()[0]
    if first.name != "windows" or len(first.shape) != 3 or not all(isinstance(size, int) for size in first.shape[1:]):
        raise ContractError(f"{name}: expected first input windows (n, C, L), found {first.name} {first.shape}")
    return first.shape[1], first.shape[2]
