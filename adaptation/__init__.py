"""The science, pure: models, adaptation, shift, simulation, export and the ONNX Runtime engine."""

if __name__ != "acclimate.adaptation":  # found from the root of the repository: each class would exist twice
    raise ImportError("expected `import acclimate.adaptation`, found `import adaptation`; install with `make setup`")
