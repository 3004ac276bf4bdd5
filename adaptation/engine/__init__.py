"""From a network to ONNX graphs and the engine that runs them."""
