"""A pass and its gradient as an ONNX graph, so that a generator can run on a device without torch.

ONNX has no operator for a gradient: the way back through the compact networks is written out, equations as in
`acclimate.adaptation.generators.affine_gradient`. A batch is the unit here, so unlike in
`acclimate.adaptation.engine.export` nothing has to be the same bit by bit in another batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.engine.export import feature_map, scaled_input
from acclimate.adaptation.engine.onnx_graph import Axes, Graph
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, NetworkSpec

__all__ = ["export_gradient"]

FloatArray = npt.NDArray[np.float32]
Arrays = Mapping[str, FloatArray]


@dataclass(frozen=True)
class _Layer:
    """The names of a layer's tensors in the graph, for the way back."""

    unit: str  # input in source units
    y: str  # (1)
    seen: str  # (2)
    active: str
    gamma: str
    inverse: str  # 1 / sqrt(running_var + eps), a constant


def export_gradient(tensors: Arrays, spec: NetworkSpec, features: Arrays, weight: float) -> bytes:
    """Return the graph of one pass and its gradient.

    Inputs: ``windows`` (n, C, L), n at least 2; ``coordinates`` (P,), which are gamma and beta of the first layer, of
    the second, and so on; ``head_weight`` (K, F). Outputs: ``probabilities`` (n, K); ``gradient`` (P,) and
    ``head_gradient`` (K, F) of the mean entropy plus ``weight`` times the discrepancy; ``means``, ``variances`` (D,) of
    every layer's input in source units; ``features`` (F,), the mean input of the head; ``mean_part``,
    ``variance_part`` of the valid range.

    Args:
        tensors: State dict as `acclimate.adaptation.model.nets.to_tensors` gives it.
        spec: The network.
        features: ``mean`` and ``std`` (D,) of source activations; see `SourceFeatures`.
        weight: w of (3), from 0.
    """
    g = Graph()
    count = g.op("Cast", g.op("Shape", "windows", start=0, end=1), to=1)  # (1,): n as a number
    layers, x = _forward(g, tensors, spec)
    in_time, total = spec.kind == "conv1d", sum(spec.widths)
    features_out = g.op("ReduceMean", x, g.axes(2), keepdims=0) if in_time else x  # (n, F)
    g.op("ReduceMean", features_out, g.axes(0), keepdims=0, name="features")
    back = _entropy_gradient(g, features_out, tensors["head.bias"], count)  # (n, K)
    g.op("MatMul", g.op("Transpose", back, perm=[1, 0]), features_out, name="head_gradient")
    d = g.op("MatMul", back, "head_weight")  # (n, F)
    if in_time:
        last = float(spec.length >> spec.layers)
        d = g.op("Unsqueeze", g.op("Div", d, g.number(last)), g.axes(2))  # the same at every time
    _backward(g, d, layers, tensors, spec, features, weight, count)
    head: Axes = (spec.classes, spec.features)
    inputs: dict[str, Axes] = {
        "windows": ("n", spec.channels, spec.length),
        "coordinates": (2 * total,),
        "head_weight": head,
    }
    return g.to_bytes(
        "gradient",
        inputs,
        {
            "probabilities": ("n", spec.classes),
            "gradient": (2 * total,),
            "head_gradient": head,
            "means": (total,),
            "variances": (total,),
            "features": (spec.features,),
            "mean_part": (),
            "variance_part": (),
        },
    )


def _forward(g: Graph, tensors: Arrays, spec: NetworkSpec) -> tuple[list[_Layer], str]:
    """Append the layers and what is measured at each; return them and the output of the last."""
    in_time = spec.kind == "conv1d"
    over, time = g.axes(0, 2) if in_time else g.axes(0), g.axes(2)
    parts = g.axes(*[width for width in spec.widths for _ in range(2)])
    split = [f"coordinates_{index}" for index in range(2 * spec.layers)]
    g.split("coordinates", parts, split)
    x = scaled_input(g, tensors, spec)
    layers, means, variances = [], [], []
    for index in range(spec.layers):
        stored = {key: tensors[f"blocks.{index}.norm.{key}"] for key in ("running_mean", "running_var")}
        deviation = np.sqrt(stored["running_var"] + np.float32(BATCH_NORM_EPS))
        h = feature_map(g, x, index, tensors, spec)
        tail = (slice(None), None) if in_time else (slice(None),)
        centre, inverse = g.constant(stored["running_mean"][tail]), g.constant((1 / deviation)[tail])
        unit = g.op("Mul", g.op("Sub", h, centre), inverse)
        mean = g.op("ReduceMean", unit, over, keepdims=0)  # (C,)
        away = g.op("Sub", unit, _column(g, mean, spec))
        variance = g.op("ReduceMean", g.op("Mul", away, away), over, keepdims=0)  # of the source's plus eps
        means.append(mean)
        variances.append(g.op("Add", variance, g.constant(BATCH_NORM_EPS / deviation**2)))
        gamma, beta = split[2 * index], split[2 * index + 1]
        y = g.op("Add", g.op("Mul", unit, _column(g, gamma, spec)), _column(g, beta, spec))  # (1)
        seen = g.op("ReduceMean", y, time, keepdims=0) if in_time else y  # (n, C): (2)
        active = g.op("Relu", y)
        x = g.op("MaxPool", active, kernel_shape=[2], strides=[2]) if in_time else active
        layers.append(_Layer(unit, y, seen, active, gamma, inverse))
    g.op("Concat", *means, axis=0, name="means")
    g.op("Concat", *variances, axis=0, name="variances")
    for name, values in (("mean_part", means), ("variance_part", [g.op("Log", each) for each in variances])):
        squares = [g.op("ReduceMean", g.op("Mul", each, each), keepdims=0) for each in values]
        g.op("Div", g.op("Sum", *squares), g.number(float(spec.layers)), name=name)
    return layers, x


def _column(g: Graph, vector: str, spec: NetworkSpec) -> str:
    """Return (C,) so that it goes along the channels of (n, C, T), or (n, C)."""
    return g.op("Unsqueeze", vector, g.axes(1)) if spec.kind == "conv1d" else vector


def _entropy_gradient(g: Graph, features: str, bias: FloatArray, count: str) -> str:
    """Append the head; return d/dlogits of the mean entropy H over windows: -p (log p + H) / n."""
    by_class = g.op("MatMul", features, g.op("Transpose", "head_weight", perm=[1, 0]))
    log_p = g.op("LogSoftmax", g.op("Add", by_class, g.row(bias)), axis=1)
    p = g.op("Exp", log_p, name="probabilities")
    entropy = g.op("Neg", g.op("ReduceSum", g.op("Mul", p, log_p), g.axes(1), keepdims=1))  # (n, 1)
    return g.op("Div", g.op("Neg", g.op("Mul", p, g.op("Add", log_p, entropy))), count)


def _backward(
    g: Graph,
    d: str,
    layers: Sequence[_Layer],
    tensors: Arrays,
    spec: NetworkSpec,
    features: Arrays,
    weight: float,
    count: str,
) -> None:
    """Append the way back from d, the gradient of the entropy at the output of the last layer."""
    in_time, total = spec.kind == "conv1d", sum(spec.widths)
    over = g.axes(0, 2) if in_time else g.axes(0)
    gradients: list[str] = []
    first = total
    for index in reversed(range(spec.layers)):
        layer, length = layers[index], spec.length >> index
        first -= spec.widths[index]
        part = slice(first, first + spec.widths[index])
        if in_time:
            d = _unpooled(g, d, layer.active, spec.widths[index], length)
        d = g.op("Mul", d, g.op("Cast", g.op("Greater", layer.y, g.number(0.0)), to=1))
        if weight > 0:
            pull = _discrepancy_gradient(g, layer.seen, features["mean"][part], features["std"][part], count)
            pull = g.op("Mul", pull, g.number(weight / total / (length if in_time else 1)))
            d = g.op("Add", d, g.op("Unsqueeze", pull, g.axes(2)) if in_time else pull)
        by_gamma = g.op("ReduceSum", g.op("Mul", d, layer.unit), over, keepdims=0)
        gradients = [by_gamma, g.op("ReduceSum", d, over, keepdims=0), *gradients]
        if index == 0:
            break
        d = g.op("Mul", g.op("Mul", d, _column(g, layer.gamma, spec)), layer.inverse)
        kernel = g.constant(tensors[f"blocks.{index}.map.weight"])
        if in_time:
            half = spec.kernels[index] // 2
            d = g.op("ConvTranspose", d, kernel, kernel_shape=[spec.kernels[index]], pads=[half, half])
        else:
            d = g.op("MatMul", d, kernel)
    g.op("Concat", *gradients, axis=0, name="gradient")


def _unpooled(g: Graph, d: str, active: str, width: int, length: int) -> str:
    """Take the gradient back through the halving of the length: to the first of two equals, as torch does."""
    half = length // 2
    pairs = g.op("Reshape", g.slice(active, 0, 2 * half, axis=2), g.axes(0, width, half, 2))
    left, right = (g.slice(pairs, place, place + 1, axis=3) for place in (0, 1))
    to_left = g.op("Cast", g.op("GreaterOrEqual", left, right), to=1)  # (n, C, T / 2, 1)
    whole = g.op("Unsqueeze", d, g.axes(3))  # (n, C, T / 2, 1); at the last layer one number for all times
    both = g.op("Concat", g.op("Mul", whole, to_left), g.op("Mul", whole, g.op("Sub", g.number(1.0), to_left)), axis=3)
    flat = g.op("Reshape", both, g.axes(0, width, 2 * half))
    return flat if length % 2 == 0 else g.op("Pad", flat, g.axes(0, 0, 0, 0, 0, 1))


def _discrepancy_gradient(g: Graph, seen: str, mean_s: FloatArray, std_s: FloatArray, count: str) -> str:
    """Return d/dF of sum_j (mean F_j - mean_s,j)^2 + (std F_j - std_s,j)^2, (n, C)."""
    zero = g.axes(0)
    mean = g.op("ReduceMean", seen, zero, keepdims=1)
    away = g.op("Sub", seen, mean)
    fewer = g.op("Sub", count, g.number(1.0))
    std = g.op("Sqrt", g.op("Div", g.op("ReduceSum", g.op("Mul", away, away), zero, keepdims=1), fewer))
    by_mean = g.op("Div", g.op("Sub", mean, g.row(mean_s)), count)
    by_std = g.op("Mul", g.op("Div", g.op("Sub", std, g.row(std_s)), g.op("Mul", std, fewer)), away)
    return g.op("Mul", g.op("Add", by_mean, by_std), g.number(2.0))
