"""Run a graph on ONNX Runtime."""

from typing import Any

import numpy as np
import onnxruntime as ort


def answers(graph: bytes, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return all outputs by name; inputs that the graph has not are left out."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    runner = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    wanted = {each.name for each in runner.get_inputs()}
    given = {name: np.asarray(value, np.float32) for name, value in inputs.items() if name in wanted}
    return dict(zip((each.name for each in runner.get_outputs()), runner.run(None, given), strict=True))
