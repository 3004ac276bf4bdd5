"""Build an ONNX graph node by node; needs onnx, which devices do not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Axes", "Graph"]

_OPSET = 18
_IR_VERSION = 8

Axes = tuple[str | int, ...]
FloatArray = npt.NDArray[np.float32]


class Graph:
    """Nodes and constants in the order in which they were asked for, with names that repeat from run to run."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        output = name or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{len(self.nodes)}", **attributes))
        return output

    def constant(self, values: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        """Store an array and return its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name))
        return name

    def number(self, value: float) -> str:
        """Store a number and return its name."""
        return self.constant(np.array(value, np.float32))

    def row(self, values: FloatArray) -> str:
        """Store a vector (C,) as (1, C)."""
        return self.constant(values[None])

    def split(self, vector: str, sizes: str, names: Sequence[str]) -> None:
        """Append the split of a vector into parts of these stored sizes, under these names."""
        self.nodes.append(helper.make_node("Split", [vector, sizes], list(names), axis=0))

    def slice(self, x: str, start: int, stop: int, axis: int) -> str:
        """Append a slice along one axis and return its name."""
        return self.op("Slice", x, self.axes(start), self.axes(stop), self.axes(axis))

    def axes(self, *axes: int) -> str:
        """Store axes, or a shape, and return its name."""
        return self.constant(np.array(axes, np.int64))

    def to_bytes(self, name: str, inputs: Mapping[str, Axes], outputs: Mapping[str, Axes]) -> bytes:
        """Check the graph and return it as a file; the same graph gives the same bytes.

        Args:
            name: The name of the graph.
            inputs, outputs: Names and axes of float32 tensors; a text is a size that is not known yet.
        """
        given, wanted = (
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, list(axes)) for key, axes in each.items()]
            for each in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, given, wanted, self.constants)
        model = helper.make_model(
            graph,
            producer_name="acclimate",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
