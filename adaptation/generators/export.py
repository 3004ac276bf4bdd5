"""Write what a generator needs as ONNX graphs, so that a device can run it without torch.

Two graphs. *gradient*: windows at given gamma and beta to answers, batch statistics and the gradient of the loss, which
ONNX has no operator for: the way back through the compact networks is written out, equations as in
`adaptation.generators.affine_gradient`. *generator*: one step of MGG, or the parameters of GeneralizeFormer.

A batch is the unit here, so unlike in `adaptation.export` nothing has to be the same bit by bit in another batch.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from adaptation.export import feature_map, scaled_input
from adaptation.generators.generalizeformer import GeneralizeFormer
from adaptation.generators.mgg import HIDDEN, LSTM_HIDDEN, Mgg
from adaptation.onnx_graph import Axes, Graph
from adaptation.spec import BATCH_NORM_EPS, NetworkSpec

__all__ = ["export_generalizeformer", "export_gradient", "export_mgg"]

FloatArray = npt.NDArray[np.float32]
Arrays = Mapping[str, FloatArray]

_BETA1, _BETA2, _MOMENT_EPS = 0.9, 0.99, 1e-8
_NORM_EPS = 1e-6


def export_gradient(tensors: Arrays, spec: NetworkSpec, features: Arrays, weight: float) -> bytes:
    """Return the graph of one pass and its gradient.

    Inputs: ``windows`` (n, C, L), n at least 2; ``coordinates`` (P,), which are gamma and beta of the first layer, of
    the second, and so on; ``head_weight`` (K, F). Outputs: ``probabilities`` (n, K); ``gradient`` (P,) and
    ``head_gradient`` (K, F) of the mean entropy plus ``weight`` times the discrepancy; ``means``, ``variances`` (D,) of
    every layer's input in source units; ``features`` (F,), the mean input of the head; ``mean_part``,
    ``variance_part`` of the valid range.

    Args:
        tensors: State dict as `adaptation.nets.to_tensors` gives it.
        spec: The network.
        features: ``mean`` and ``std`` (D,) of source activations; see `SourceFeatures`.
        weight: w of (3), from 0.
    """
    g = Graph()
    in_time = spec.kind == "conv1d"
    over = g.axes(0, 2) if in_time else g.axes(0)
    one, time = g.axes(1), g.axes(2)
    total = sum(spec.widths)
    count = g.op("Cast", g.op("Shape", "windows", start=0, end=1), to=1)  # (1,): n as a number
    parts = g.axes(*[width for width in spec.widths for _ in range(2)])
    split = [f"coordinates_{index}" for index in range(2 * spec.layers)]
    g.split("coordinates", parts, split)

    def column(vector: str) -> str:
        """Return (C,) so that it goes along the channels of (n, C, T), or (n, C)."""
        return g.op("Unsqueeze", vector, one) if in_time else vector

    x = scaled_input(g, tensors, spec)
    way: list[dict[str, str]] = []
    means, variances = [], []
    for index in range(spec.layers):
        stored = {key: tensors[f"blocks.{index}.norm.{key}"] for key in ("running_mean", "running_var")}
        deviation = np.sqrt(stored["running_var"] + np.float32(BATCH_NORM_EPS))
        h = feature_map(g, x, index, tensors, spec)
        tail = (slice(None), None) if in_time else (slice(None),)
        centre, inverse = g.constant(stored["running_mean"][tail]), g.constant((1 / deviation)[tail])
        unit = g.op("Mul", g.op("Sub", h, centre), inverse)
        mean = g.op("ReduceMean", unit, over, keepdims=0)  # (C,)
        away = g.op("Sub", unit, column(mean))
        variance = g.op("ReduceMean", g.op("Mul", away, away), over, keepdims=0)  # of the source's plus eps
        means.append(mean)
        variances.append(g.op("Add", variance, g.constant(BATCH_NORM_EPS / deviation**2)))
        gamma, beta = split[2 * index], split[2 * index + 1]
        y = g.op("Add", g.op("Mul", unit, column(gamma)), column(beta))  # (1)
        seen = g.op("ReduceMean", y, time, keepdims=0) if in_time else y  # (n, C): (2)
        active = g.op("Relu", y)
        x = g.op("MaxPool", active, kernel_shape=[2], strides=[2]) if in_time else active
        way.append({"unit": unit, "y": y, "seen": seen, "active": active, "pooled": x, "gamma": gamma})
        way[-1]["inverse"] = inverse
    features_out = g.op("ReduceMean", x, time, keepdims=0) if in_time else x  # (n, F)
    by_class = g.op("MatMul", features_out, g.op("Transpose", "head_weight", perm=[1, 0]))
    logits = g.op("Add", by_class, g.row(tensors["head.bias"]))
    log_p = g.op("LogSoftmax", logits, axis=1)
    p = g.op("Exp", log_p, name="probabilities")
    entropy = g.op("Neg", g.op("ReduceSum", g.op("Mul", p, log_p), one, keepdims=1))  # (n, 1)
    # dH / dlogits = -p (log p + H), and the loss is the mean over windows
    back = g.op("Div", g.op("Neg", g.op("Mul", p, g.op("Add", log_p, entropy))), count)  # (n, K)
    g.op("MatMul", g.op("Transpose", back, perm=[1, 0]), features_out, name="head_gradient")
    d = g.op("MatMul", back, "head_weight")  # (n, F)
    lengths = [spec.length >> index for index in range(spec.layers + 1)]
    if in_time:
        d = g.op("Unsqueeze", g.op("Div", d, g.number(float(lengths[-1]))), time)  # the same at every time
    gradients: list[str] = []
    first = total
    for index in reversed(range(spec.layers)):
        step = way[index]
        first -= spec.widths[index]
        part = slice(first, first + spec.widths[index])
        if in_time:
            d = _unpooled(g, d, step, spec.widths[index], lengths[index])
        positive = g.op("Cast", g.op("Greater", step["y"], g.number(0.0)), to=1)
        d = g.op("Mul", d, positive)
        if weight > 0:
            pull = _discrepancy_gradient(g, step["seen"], features["mean"][part], features["std"][part], count)
            pull = g.op("Mul", pull, g.number(weight / total / (lengths[index] if in_time else 1)))
            d = g.op("Add", d, g.op("Unsqueeze", pull, time) if in_time else pull)
        gradients = [
            g.op("ReduceSum", g.op("Mul", d, step["unit"]), over, keepdims=0),
            g.op("ReduceSum", d, over, keepdims=0),
            *gradients,
        ]
        if index:
            d = g.op("Mul", g.op("Mul", d, column(step["gamma"])), step["inverse"])
            kernel = tensors[f"blocks.{index}.map.weight"]
            if in_time:
                half = spec.kernels[index] // 2
                d = g.op("ConvTranspose", d, g.constant(kernel), kernel_shape=[spec.kernels[index]], pads=[half, half])
            else:
                d = g.op("MatMul", d, g.constant(kernel))
    g.op("Concat", *gradients, axis=0, name="gradient")
    g.op("Concat", *means, axis=0, name="means")
    g.op("Concat", *variances, axis=0, name="variances")
    g.op("ReduceMean", features_out, g.axes(0), keepdims=0, name="features")
    for name, values in (("mean_part", means), ("variance_part", [g.op("Log", each) for each in variances])):
        squares = [g.op("ReduceMean", g.op("Mul", each, each), keepdims=0) for each in values]
        g.op("Div", g.op("Sum", *squares), g.number(float(spec.layers)), name=name)
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


def _unpooled(g: Graph, d: str, step: Mapping[str, str], width: int, length: int) -> str:
    """Take the gradient back through the halving of the length: to the first of two equals, as torch does."""
    half = length // 2
    pairs = g.op("Reshape", g.slice(step["active"], 0, 2 * half, axis=2), g.axes(0, width, half, 2))
    left, right = (g.slice(pairs, place, place + 1, axis=3) for place in (0, 1))
    to_left = g.op("Cast", g.op("GreaterOrEqual", left, right), to=1)  # (n, C, T / 2, 1)
    # At the last layer d is one number for all times; a sum with zeros gives it their shape.
    whole = g.op("Unsqueeze", g.op("Add", d, g.op("Mul", step["pooled"], g.number(0.0))), g.axes(3))
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


def export_mgg(mgg: Mgg, coordinates: int, alpha: float) -> bytes:
    """Return the graph of one step, equations as in `adaptation.generators.mgg`.

    Inputs: ``coordinates``, ``gradient``, ``m``, ``v`` (P,), ``steps`` () so far, and the memory: ``W`` (P, 8, 8) and
    ``b`` (P, 8), or ``hidden`` and ``cell`` (P, 5). Outputs: the same but the gradient, ``_new`` after their names.

    Args:
        mgg: Trained.
        coordinates: P.
        alpha: Largest step.
    """
    g, f = Graph(), HIDDEN
    w = {name: value.detach().numpy() for name, value in mgg.state_dict().items()}
    for name, rate in (("m", _BETA1), ("v", _BETA2)):
        grown = "gradient" if name == "m" else g.op("Mul", "gradient", "gradient")
        g.op(
            "Add", g.op("Mul", name, g.number(rate)), g.op("Mul", grown, g.number(1 - rate)), name=f"{name}_new"
        )  # (1)
    exponent = g.op("Add", "steps", g.number(2.0))
    g.op("Add", "steps", g.number(1.0), name="steps_new")

    def corrected(name: str, rate: float) -> str:
        shrink = g.op("Sub", g.number(1.0), g.op("Pow", g.number(rate), exponent))
        return g.op("Div", f"{name}_new", shrink)  # (2)

    scale = g.op("Add", g.op("Sqrt", corrected("v", _BETA2)), g.number(_MOMENT_EPS))
    last = g.axes(1)
    pair = [g.op("Unsqueeze", g.op("Div", each, scale), last) for each in (corrected("m", _BETA1), "gradient")]
    x = g.op("Concat", *pair, axis=1)  # (P, 2): (3)
    lstm = mgg.settings.core == "lstm"
    shapes: dict[str, Axes] = (
        dict.fromkeys(("hidden", "cell"), (coordinates, LSTM_HIDDEN))
        if lstm
        else {"W": (coordinates, f, f), "b": (coordinates, f)}
    )
    memory = {name: name for name in shapes}
    if not mgg.settings.carry_memory:
        memory = {name: g.constant(value.detach().numpy()) for name, value in mgg.start(coordinates).items()}
    cell = _lstm if lstm else _memory
    u, new = cell(g, x, memory, w, mgg.settings.layer_norm)
    for name, value in new.items():
        g.op("Identity", value, name=f"{name}_new")
    if mgg.settings.zero_correction:
        nothing = g.op("Mul", x, g.number(0.0))
        u = g.op("Sub", u, cell(g, nothing, memory, w, mgg.settings.layer_norm)[0])
    g.op("Sub", "coordinates", g.op("Mul", u, g.number(alpha)), name="coordinates_new")  # (9)
    vectors: dict[str, Axes] = dict.fromkeys(("coordinates", "m", "v"), (coordinates,))
    state: dict[str, Axes] = {**vectors, "steps": (), **shapes}
    outputs: dict[str, Axes] = {f"{name}_new": axes for name, axes in state.items()}
    return g.to_bytes("mgg", {**state, "gradient": (coordinates,)}, outputs)


def _memory(g: Graph, x: str, memory: Mapping[str, str], w: Arrays, layer_norm: bool) -> tuple[str, dict[str, str]]:
    """Write, then read: (4) to (9), u (P,)."""
    row, last = g.axes(1), g.axes(-1)
    q, k, v = (g.op("MatMul", x, g.constant(w[name].T)) for name in ("query", "key", "value"))  # (P, f): (4)
    rate = g.op(
        "Sigmoid", g.op("Add", g.op("MatMul", x, g.constant(w["rate_weight"][:, None])), g.constant(w["rate_bias"]))
    )
    eta = g.op("Mul", rate, g.number(max(1 + float(w["rate_offset"]), 0.0) / HIDDEN))  # (P, 1): (5)

    def through(vector: str, weights: str, bias: str) -> str:
        return g.op("Add", g.op("Squeeze", g.op("MatMul", g.op("Unsqueeze", vector, row), weights), row), bias)

    z, target = through(k, memory["W"], memory["b"]), g.op("Sub", v, k)
    if layer_norm:
        centred = g.op("Sub", z, g.op("ReduceMean", z, last, keepdims=1))
        sd = g.op(
            "Sqrt",
            g.op("Add", g.op("ReduceMean", g.op("Mul", centred, centred), last, keepdims=1), g.number(_NORM_EPS)),
        )
        h = g.op("Div", centred, sd)
        scale = g.row(w["inner_scale"])
        e = g.op("Mul", g.op("Sub", g.op("Add", g.op("Mul", h, scale), g.row(w["inner_shift"])), target), scale)
        along = g.op("Mul", h, g.op("ReduceMean", g.op("Mul", e, h), last, keepdims=1))
        slope = g.op("Div", g.op("Sub", g.op("Sub", e, g.op("ReduceMean", e, last, keepdims=1)), along), sd)
    else:
        slope = g.op("Sub", z, target)
    step = g.op("Mul", slope, eta)  # (P, f)
    outer = g.op("Mul", g.op("Unsqueeze", k, g.axes(2)), g.op("Unsqueeze", step, row))
    new = {"W": g.op("Sub", memory["W"], outer), "b": g.op("Sub", memory["b"], step)}  # (7)

    def norm(value: str, name: str) -> str:
        if not layer_norm:
            return value
        scale, shift = g.constant(w[f"{name}_scale"]), g.constant(w[f"{name}_shift"])
        return g.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=_NORM_EPS)

    z = g.op("Add", q, norm(through(q, new["W"], new["b"]), "inner"))  # (8)
    u = g.op("Tanh", g.op("MatMul", norm(z, "post"), g.constant(w["out"][:, None])))
    return g.op("Squeeze", u, row), new


def _lstm(g: Graph, x: str, memory: Mapping[str, str], w: Arrays, layer_norm: bool) -> tuple[str, dict[str, str]]:
    """Return u (P,) and the state of the baseline; it has no layer normalisation."""
    del layer_norm
    joined = g.op("Concat", x, memory["hidden"], axis=1)
    gates = g.op("Add", g.op("MatMul", joined, g.constant(w["gates"].T)), g.row(w["gates_bias"]))
    admit, forget, candidate, show = (
        g.slice(gates, place * LSTM_HIDDEN, (place + 1) * LSTM_HIDDEN, axis=1) for place in range(4)
    )
    kept = g.op("Mul", g.op("Sigmoid", g.op("Add", forget, g.number(1.0))), memory["cell"])
    cell = g.op("Add", kept, g.op("Mul", g.op("Sigmoid", admit), g.op("Tanh", candidate)))
    hidden = g.op("Mul", g.op("Sigmoid", show), g.op("Tanh", cell))
    u = g.op("Tanh", g.op("MatMul", hidden, g.constant(w["out"][:, None])))
    return g.op("Squeeze", u, g.axes(1)), {"hidden": hidden, "cell": cell}


def export_generalizeformer(former: GeneralizeFormer, tensors: Arrays, spec: NetworkSpec, features: Arrays) -> bytes:
    """Return the graph from what a pass showed to parameters, equations as in `adaptation.generators.generalizeformer`.

    Inputs: ``gradient`` (P,), ``head_gradient`` (K, F), ``means``, ``variances`` (D,), ``features`` (F,), all from the
    gradient graph at the source's parameters. Outputs: ``coordinates`` (P,), and ``head_weight`` (K, F), which is the
    source's where the classifier is not generated.

    Args:
        former: Trained.
        tensors: State dict of the network.
        spec: The network.
        features: ``head_mean`` and ``head_std`` (F,) of source windows.
    """
    g, c, settings = Graph(), former.width, former.settings
    w = {name: value.detach().numpy() for name, value in former.state_dict().items()}
    total, layers = sum(spec.widths), spec.layers
    affine = [tensors[f"blocks.{i}.norm.{key}"] for i in range(layers) for key in ("weight", "bias")]
    widths = [len(each) for each in affine]
    depths = [i / max(1, layers - 1) for i in range(layers) for _ in range(2)]
    kinds = [0, 1] * layers
    p = np.concatenate(affine)
    if settings.classifier:
        rows = list(tensors["head.weight"])
        widths, depths = widths + [spec.features] * spec.classes, depths + [1.0] * spec.classes
        kinds, p = kinds + [2] * spec.classes, np.concatenate((p, *rows))
    count, size = len(widths), len(p)
    places = np.full((count, c), size)  # where in (p, 0) each entry of the tokens lies; the last is padding
    first = 0
    for row, width in enumerate(widths):
        places[row, :width] = np.arange(first, first + width)
        first += width
    index = g.constant(places.astype(np.int64))
    zero = g.constant(np.zeros(1, np.float32))
    mask = (places < size).astype(np.float32)

    def as_tokens(vector: str) -> str:
        """Return (P,) as (t, c), padded."""
        return g.op("Gather", g.op("Concat", vector, zero, axis=0), index, axis=0)

    def linear(x: str, name: str) -> str:
        y = g.op("MatMul", x, g.constant(w[f"{name}.weight"].T))
        return g.op("Add", y, g.constant(w[f"{name}.bias"])) if f"{name}.bias" in w else y

    one_hot = np.eye(3, dtype=np.float32)[kinds]
    where = np.array([[depth, width / c] for depth, width in zip(depths, widths, strict=True)], np.float32)
    known = (np.append(p, np.float32(0))[places] * mask).astype(np.float32)
    fixed = one_hot @ w["kind_in.weight"].T + where @ w["place_in.weight"].T + w["parameters_in.bias"]
    if settings.parameters:
        fixed = fixed + known @ w["parameters_in.weight"].T
    e = g.constant(fixed.astype(np.float32))  # (t, d)
    last = g.axes(1)
    if settings.gradients:
        vector = "gradient"
        if settings.classifier:
            vector = g.op("Concat", "gradient", g.op("Reshape", "head_gradient", g.axes(-1)), axis=0)
        raw = as_tokens(vector)
        squares = g.op("ReduceSum", g.op("Mul", raw, raw), last, keepdims=1)
        size_of = g.constant(np.array(widths, np.float32)[:, None])
        rms = g.op("Add", g.op("Sqrt", g.op("Div", squares, size_of)), g.number(1e-12))  # (1)
        magnitude = g.op("Mul", g.op("Log", rms), g.number(1 / np.log(10)))
        e = g.op("Add", e, linear(g.op("Concat", g.op("Div", raw, rms), magnitude, axis=1), "gradients_in"))
    if settings.features:
        source = {name: np.asarray(features[name], np.float32) for name in ("head_mean", "head_std")}
        f = g.op("Div", g.op("Sub", "features", g.constant(source["head_mean"])), g.constant(source["head_std"] + 1e-5))
        f = g.op("Clip", f, g.number(-10.0), g.number(10.0))
        seen = np.zeros((spec.features, w["features_in.weight"].shape[0]), np.float32)
        seen[:] = w["features_in.weight"].T[: spec.features]
        e = g.op("Add", e, g.op("MatMul", g.op("Unsqueeze", f, g.axes(0)), g.constant(seen)))
        gammas = np.concatenate([tensors[f"blocks.{i}.norm.weight"] for i in range(layers)])
        inverse = g.op("Div", g.number(1.0), g.op("Sqrt", "variances"))
        by_gamma = g.op("Mul", g.constant(gammas), g.op("Sub", inverse, g.number(1.0)))  # (D,): (2)
        by_beta = g.op("Neg", g.op("Mul", g.constant(gammas), g.op("Mul", "means", inverse)))
        starts = np.cumsum([0, *spec.widths])
        order = np.concatenate(
            [np.arange(starts[i], starts[i + 1]) + offset for i in range(layers) for offset in (0, total)]
        )
        residual = g.op("Gather", g.op("Concat", by_gamma, by_beta, axis=0), g.constant(order.astype(np.int64)), axis=0)
        if settings.classifier:
            nothing = g.constant(np.zeros(spec.classes * spec.features, np.float32))
            residual = g.op("Concat", residual, nothing, axis=0)
        r = g.op("Clip", as_tokens(residual), g.number(-10.0), g.number(10.0))
        e = g.op("Add", e, linear(r, "residuals_in"))  # (3)
    for layer in range(len(former.encoder.layers)):
        e = _encoder_layer(g, e, w, f"encoder.layers.{layer}", count)
    step = g.op("Mul", linear(e, "head"), g.constant((one_hot @ w["scale"])[:, None] * mask))
    whole = g.op("Reshape", g.op("Add", g.constant(known), step), g.axes(-1))  # (t * c,): (4)
    flat = (np.arange(count * c).reshape(count, c)[places < size]).astype(np.int64)  # in the order of p
    g.op("Gather", whole, g.constant(flat[: 2 * total]), axis=0, name="coordinates")
    if settings.classifier:
        head = g.op("Gather", whole, g.constant(flat[2 * total :]), axis=0)
        g.op("Reshape", head, g.axes(spec.classes, spec.features), name="head_weight")
    else:
        g.op("Identity", g.constant(tensors["head.weight"]), name="head_weight")
    k_f: Axes = (spec.classes, spec.features)
    return g.to_bytes(
        "generalizeformer",
        {
            "gradient": (2 * total,),
            "head_gradient": k_f,
            "means": (total,),
            "variances": (total,),
            "features": (spec.features,),
        },
        {"coordinates": (2 * total,), "head_weight": k_f},
    )


def _encoder_layer(g: Graph, e: str, w: Arrays, name: str, tokens: int) -> str:
    """Append one pre-norm layer of the encoder: attention over all tokens, then two dense maps; e is (t, d)."""
    dimensions = w[f"{name}.norm1.weight"].shape[0]
    heads = 4
    each = dimensions // heads

    def dense(x: str, part: str) -> str:
        return g.op(
            "Add", g.op("MatMul", x, g.constant(w[f"{name}.{part}.weight"].T)), g.constant(w[f"{name}.{part}.bias"])
        )

    def norm(x: str, part: str) -> str:
        scale, shift = g.constant(w[f"{name}.{part}.weight"]), g.constant(w[f"{name}.{part}.bias"])
        return g.op("LayerNormalization", x, scale, shift, axis=-1, epsilon=1e-5)

    x = norm(e, "norm1")
    joined = w[f"{name}.self_attn.in_proj_weight"], w[f"{name}.self_attn.in_proj_bias"]
    q, k, v = (
        g.op(
            "Transpose",
            g.op(
                "Reshape",
                g.op("Add", g.op("MatMul", x, g.constant(weight.T)), g.constant(bias)),
                g.axes(tokens, heads, each),
            ),
            perm=[1, 0, 2],
        )
        for weight, bias in zip(*(np.split(part, 3) for part in joined), strict=True)
    )  # (heads, t, d / heads)
    scores = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1])), g.number(each**-0.5))
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    flat = g.op("Reshape", g.op("Transpose", mixed, perm=[1, 0, 2]), g.axes(tokens, dimensions))
    e = g.op("Add", e, dense(flat, "self_attn.out_proj"))
    return g.op("Add", e, dense(g.op("Relu", dense(norm(e, "norm2"), "linear1")), "linear2"))
