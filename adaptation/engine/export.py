"""Write a network as two ONNX graphs: the source with its shift measures, and the network adapted by LeanTTA.

The graphs are built node by node, so that each operation is one whose result for a window does not depend on its place
in a batch. ONNX Runtime's ``ReduceMean``, ``ReduceSum`` and ``Log`` fail that: their vector loops start at an aligned
address, so the order of a sum, or which elements the scalar tail gets, moves with the position (measured on 1.31.1:
most rows differ where a row is not a multiple of 16 bytes). Means are therefore ``GlobalAveragePool``, and a
logarithm is ``ReduceLogSum`` over an axis of one element; both passed every odd shape tried. A power is exp(b log a):
``Pow`` takes short cuts for a shared exponent of 2 or 3 that it does not take for one exponent per row.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.engine.engine import ADAPTED_OUTPUTS, SOURCE_OUTPUTS, parameter_shapes
from acclimate.adaptation.engine.onnx_graph import Axes, Graph
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.lean.shift_calibration import ShiftCalibration
from acclimate.adaptation.model.spec import BATCH_NORM_EPS, SCALED_LIMIT, NetworkSpec

__all__ = ["export_adapted", "export_source", "feature_map", "scaled_input"]

FloatArray = npt.NDArray[np.float32]


def export_source(tensors: Mapping[str, FloatArray], spec: NetworkSpec, calibration: ShiftCalibration) -> bytes:
    """Return the source graph: ``windows`` (n, C, L) to the outputs
    `acclimate.adaptation.engine.engine.SOURCE_OUTPUTS`.

    Args:
        tensors: State dict as `acclimate.adaptation.model.nets.to_tensors` gives it.
        spec: The network.
        calibration: Constants of the shift magnitude, see `acclimate.adaptation.lean.shift`.
    """
    g = Graph()
    means, variances = [], []
    x = scaled_input(g, tensors, spec)
    for index in range(spec.layers):
        h = feature_map(g, x, index, tensors, spec)  # (n, C, T), or (n, C)
        gamma, beta, mean_s, var_s = _stored_norm(g, index, tensors)  # (1, C) each
        mean_t, var_t = _statistics(g, h, spec)  # (n, C) each
        step = g.op("Sub", mean_t, mean_s)
        means.append(_mean_over_last(g, g.op("Div", g.op("Mul", step, step), _plus_eps(g, var_s))))  # (n, 1)
        if spec.adaptable:
            score = g.op("Sub", _log(g, _plus_eps(g, var_t)), g.row(calibration.log_variance_mean[index]))
            spread = g.row(calibration.log_variance_variance[index])
            variances.append(_mean_over_last(g, g.op("Div", g.op("Mul", score, score), spread)))  # (n, 1)
        x = _activate(g, _normalise(g, h, gamma, beta, mean_s, var_s, spec), spec)
    _answer(g, x, g.constant(tensors["head.weight"][None]), g.row(tensors["head.bias"]), spec)
    mean = g.op("Concat", *means, axis=1)  # (n, layers)
    variance = g.op("Concat", *variances, axis=1) if variances else _zeros_like(g, mean)
    g.op("Div", mean, g.row(calibration.layer_mean_quantile), name="shift_mean")
    g.op("Div", variance, g.row(calibration.layer_variance_quantile), name="shift_variance")
    for part, values, quantile in (
        ("mean_part", mean, calibration.mean_quantile),
        ("variance_part", variance, calibration.variance_quantile),
    ):
        whole = g.op("Squeeze", _mean_over_last(g, values), g.constant(np.array([1], np.int64)))  # (n,)
        g.op("Div", whole, g.constant(quantile), name=part)
    g.op("Max", "mean_part", "variance_part", name="magnitude")
    return g.to_bytes("source", {"windows": ("n", spec.channels, spec.length)}, _sized(SOURCE_OUTPUTS, spec))


def export_adapted(tensors: Mapping[str, FloatArray], spec: NetworkSpec, settings: LeanSettings) -> bytes:
    """Return the adapted graph: windows and per-window parameters to
    `acclimate.adaptation.engine.engine.ADAPTED_OUTPUTS`.

    Direction and division by channels are part of the graph; tau, lambda, the layer mask, BatchNorm parameters and the
    head are inputs with first axis n or 1 (see `acclimate.adaptation.engine.engine.parameter_shapes`), so that windows
    of devices with different parameters share a batch. Equation numbers are those of
    `acclimate.adaptation.lean.leantta`.
    """
    g = Graph()
    distances, gains = [], []
    x = scaled_input(g, tensors, spec)
    last = g.constant(np.array([1], np.int64))
    tau, lam = g.op("Unsqueeze", "tau", last), g.op("Unsqueeze", "lambda", last)  # (m, 1) each
    remainder = g.op("Sub", g.number(1.0), tau)  # (m, 1): 1 - tau
    for index, width in enumerate(spec.widths):
        h = feature_map(g, x, index, tensors, spec)
        mean, var = f"mean_{index}", f"var_{index}"  # (m, C) each
        if spec.adaptable:
            mean_t, var_t = _statistics(g, h, spec)  # (n, C) each: (1)
            step = g.op("Sub", mean_t, mean)  # (n, C)
            on = g.op("Gather", "mask", g.constant(np.array([index], np.int64)), axis=1)  # (m, 1)
            distance = _distance(g, step, _plus_eps(g, var), remainder, 1 if settings.normalize_by_channels else width)
            large = g.op("Exp", g.op("Mul", lam, _log(g, distance)))  # (n, 1): d^lambda; log(0) gives 0
            # The weight of the step is 1 - w: in direction B large itself, in A what is left of it. (4)
            weight = large if settings.direction == "target_on_large" else g.op("Sub", g.number(1.0), large)
            gain = g.op("Mul", g.op("Mul", remainder, weight), on)  # (n, 1): a
            distances.append(g.op("Mul", distance, on))
            gains.append(gain)
            var = g.op("Add", var, g.op("Mul", gain, g.op("Sub", var_t, var)))  # (n, C): (7)
            mean = g.op("Add", mean, g.op("Mul", gain, step))  # (n, C): (7)
        normal = _normalise(g, h, f"gamma_{index}", f"beta_{index}", mean, var, spec)  # (5)
        x = _activate(g, normal, spec)
    _answer(g, x, "head_weight", "head_bias", spec)
    if spec.adaptable:
        g.op("Concat", *distances, axis=1, name="distance")
        g.op("Concat", *gains, axis=1, name="gain")
    else:  # no time axis: the answer is the source's, and distance and gain say so
        rows = g.op("Shape", "windows", start=0, end=1)
        size = g.op("Concat", rows, g.constant(np.array([spec.layers], np.int64)), axis=0)
        for name in ("distance", "gain"):
            g.op("ConstantOfShape", size, name=name)
    inputs: dict[str, tuple[str | int, ...]] = {"windows": ("n", spec.channels, spec.length)}
    inputs |= {name: ("m", *shape) for name, shape in parameter_shapes(spec).items()}
    return g.to_bytes("adapted", inputs, _sized(ADAPTED_OUTPUTS, spec))


def _sized(outputs: Mapping[str, tuple[str, ...]], spec: NetworkSpec) -> dict[str, Axes]:
    sizes: dict[str, str | int] = {"n": "n", "classes": spec.classes, "layers": spec.layers}
    return {output: tuple(sizes[axis] for axis in axes) for output, axes in outputs.items()}


def scaled_input(g: Graph, tensors: Mapping[str, FloatArray], spec: NetworkSpec) -> str:
    """Transform, scale and clip: (n, C, L), flattened to (n, C * L) for an mlp."""
    x = "windows"
    if spec.transform == "signedlog":
        x = g.op("Mul", g.op("Sign", x), _log1p(g, g.op("Abs", x)))
    x = g.op("Sub", x, g.constant(tensors["scaling.mean"][None, :, None]))
    x = g.op("Div", x, g.constant(tensors["scaling.std"][None, :, None]))
    x = g.op("Clip", x, g.number(-SCALED_LIMIT), g.number(SCALED_LIMIT))
    return x if spec.kind == "conv1d" else g.op("Flatten", x, axis=1)


def feature_map(g: Graph, x: str, index: int, tensors: Mapping[str, FloatArray], spec: NetworkSpec) -> str:
    """Return what enters BatchNorm layer `index`: (n, C, T), or (n, C)."""
    weight = tensors[f"blocks.{index}.map.weight"]
    if spec.kind == "mlp":
        return g.op("MatMul", x, g.constant(weight.T))
    half = spec.kernels[index] // 2
    return g.op("Conv", x, g.constant(weight), kernel_shape=[spec.kernels[index]], pads=[half, half])


def _stored_norm(g: Graph, index: int, tensors: Mapping[str, FloatArray]) -> tuple[str, str, str, str]:
    """Return gamma, beta, mean and variance of the source, (1, C) each."""
    gamma, beta, mean, var = (
        g.row(tensors[f"blocks.{index}.norm.{name}"]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma, beta, mean, var


def _statistics(g: Graph, h: str, spec: NetworkSpec) -> tuple[str, str]:
    """Return mean and biased variance of each window, (n, C) each; without a time axis the value itself, twice."""
    if not spec.adaptable:
        return h, h
    axis = g.constant(np.array([2], np.int64))
    mean = g.op("GlobalAveragePool", h)  # (n, C, 1)
    centred = g.op("Sub", h, mean)  # (n, C, T)
    var = g.op("GlobalAveragePool", g.op("Mul", centred, centred))  # (n, C, 1)
    return g.op("Squeeze", mean, axis), g.op("Squeeze", var, axis)


def _distance(g: Graph, step: str, var_plus_eps: str, remainder: str, times: int) -> str:
    """Return d of equation (3), (n, 1), from mu_t - mu_s (n, C); ``times`` is C for the plain sum, 1 for the mean.

    1 - exp(-D) = 2 t / (1 + t) with t = tanh(D / 2), which keeps small D where the left side cancels to 0.
    """
    small = g.op("Mul", remainder, step)  # (n, C): mu_b - mu_s of (2)
    mean = _mean_over_last(g, g.op("Div", g.op("Mul", small, small), var_plus_eps))  # (n, 1)
    t = g.op("Tanh", g.op("Mul", mean, g.number(times / 2.0)))  # (n, 1)
    return g.op("Div", g.op("Mul", t, g.number(2.0)), g.op("Add", t, g.number(1.0)))


def _normalise(g: Graph, h: str, gamma: str, beta: str, mean: str, var: str, spec: NetworkSpec) -> str:
    """Return gamma (h - mean) / sqrt(var + eps) + beta as one scale and one shift per channel.

    Both graphs come through here, so that a window that is not adapted gets the same bits from both.
    """
    scale = g.op("Div", gamma, g.op("Sqrt", _plus_eps(g, var)))  # (n, C)
    shift = g.op("Sub", beta, g.op("Mul", mean, scale))  # (n, C)
    if spec.adaptable:
        axis = g.constant(np.array([2], np.int64))
        scale, shift = g.op("Unsqueeze", scale, axis), g.op("Unsqueeze", shift, axis)  # (n, C, 1)
    return g.op("Add", g.op("Mul", h, scale), shift)


def _activate(g: Graph, x: str, spec: NetworkSpec) -> str:
    x = g.op("Relu", x)
    return g.op("MaxPool", x, kernel_shape=[2], strides=[2]) if spec.kind == "conv1d" else x


def _answer(g: Graph, x: str, weight: str, bias: str, spec: NetworkSpec) -> None:
    """Append mean over time, head and softmax; weight (m, K, F), bias (m, K)."""
    axis = g.constant(np.array([1], np.int64))
    if spec.kind == "conv1d":
        x = g.op("Squeeze", g.op("GlobalAveragePool", x), g.constant(np.array([2], np.int64)))  # (n, F)
    terms = g.op("Mul", g.op("Unsqueeze", x, axis), weight)  # (n, K, F)
    mean = g.op("Squeeze", g.op("GlobalAveragePool", terms), g.constant(np.array([2], np.int64)))  # (n, K)
    logits = g.op("Add", g.op("Mul", mean, g.number(float(spec.features))), bias)  # (n, K)
    g.op("Softmax", logits, axis=-1, name="probabilities")


def _mean_over_last(g: Graph, x: str) -> str:
    """Return the mean (n, 1) of each row of x (n, C)."""
    axis = g.constant(np.array([1], np.int64))
    return g.op("Squeeze", g.op("GlobalAveragePool", g.op("Unsqueeze", x, axis)), g.constant(np.array([2], np.int64)))


def _plus_eps(g: Graph, var: str) -> str:
    return g.op("Add", var, g.number(BATCH_NORM_EPS))


def _log(g: Graph, x: str) -> str:
    """Return the logarithm of each element of x, of any rank; see the top of the file."""
    last = g.constant(np.array([-1], np.int64))
    return g.op("ReduceLogSum", g.op("Unsqueeze", x, last), last, keepdims=0)


def _log1p(g: Graph, x: str) -> str:
    """Return log(1 + x) for x >= 0 without losing small x (Kahan): log(u) * x / (u - 1) with u = 1 + x as rounded."""
    one = g.number(1.0)
    u = g.op("Add", x, one)
    tiny = g.op("Equal", u, one)
    rounded = g.op("Where", tiny, one, g.op("Sub", u, one))
    return g.op("Where", tiny, x, g.op("Mul", _log(g, u), g.op("Div", x, rounded)))


def _zeros_like(g: Graph, x: str) -> str:
    return g.op("ConstantOfShape", g.op("Shape", x))
