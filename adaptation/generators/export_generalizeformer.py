"""GeneralizeFormer as an ONNX graph, equations as in `acclimate.adaptation.generators.generalizeformer`."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.engine.onnx_graph import Axes, Graph
from acclimate.adaptation.generators.generalizeformer import GeneralizeFormer
from acclimate.adaptation.model.spec import NetworkSpec

__all__ = ["export_generalizeformer"]

Arrays = Mapping[str, npt.NDArray[np.float32]]


def export_generalizeformer(former: GeneralizeFormer, tensors: Arrays, spec: NetworkSpec, features: Arrays) -> bytes:
    """Return the graph from what a pass showed to parameters.

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
