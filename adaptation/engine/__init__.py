"""ONNX graphs of a network, and the engine that runs them."""
