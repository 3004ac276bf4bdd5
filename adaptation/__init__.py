"""The science, pure: models, adaptation, shift, simulation, export and the ONNX Runtime engine."""
