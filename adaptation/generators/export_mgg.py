"""One step of MGG as an ONNX graph, equations as in `acclimate.adaptation.generators.mgg`."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.engine.onnx_graph import Axes, Graph
from acclimate.adaptation.generators.mgg import BETA1, BETA2, HIDDEN, LSTM_HIDDEN, MOMENT_EPS, NORM_EPS, Mgg

__all__ = ["export_mgg"]

Arrays = Mapping[str, npt.NDArray[np.float32]]


def export_mgg(mgg: Mgg, coordinates: int) -> bytes:
    """Return the graph of one step.

    Inputs: ``coordinates``, ``gradient``, ``m``, ``v`` (P,), ``steps`` () so far, and the memory: ``W`` (P, 8, 8) and
    ``b`` (P, 8), or ``hidden`` and ``cell`` (P, 5). Outputs: the same but the gradient, ``_new`` after their names.

    Args:
        mgg: Trained.
        coordinates: P.
    """
    g, f = Graph(), HIDDEN
    w = {name: value.detach().numpy() for name, value in mgg.state_dict().items()}
    for name, rate in (("m", BETA1), ("v", BETA2)):
        grown = "gradient" if name == "m" else g.op("Mul", "gradient", "gradient")
        g.op(
            "Add", g.op("Mul", name, g.number(rate)), g.op("Mul", grown, g.number(1 - rate)), name=f"{name}_new"
        )  # (1)
    exponent = g.op("Add", "steps", g.number(2.0))
    g.op("Add", "steps", g.number(1.0), name="steps_new")

    def corrected(name: str, rate: float) -> str:
        shrink = g.op("Sub", g.number(1.0), g.op("Pow", g.number(rate), exponent))
        return g.op("Div", f"{name}_new", shrink)  # (2)

    scale = g.op("Add", g.op("Sqrt", corrected("v", BETA2)), g.number(MOMENT_EPS))
    last = g.axes(1)
    pair = [g.op("Unsqueeze", g.op("Div", each, scale), last) for each in (corrected("m", BETA1), "gradient")]
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
    g.op("Sub", "coordinates", g.op("Mul", u, g.number(mgg.settings.alpha)), name="coordinates_new")  # (9)
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
            g.op("Add", g.op("ReduceMean", g.op("Mul", centred, centred), last, keepdims=1), g.number(NORM_EPS)),
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
        return g.op("LayerNormalization", value, scale, shift, axis=-1, epsilon=NORM_EPS)

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
