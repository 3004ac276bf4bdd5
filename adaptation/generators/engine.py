"""Run a generator on ONNX Runtime and numpy alone: on devices and in adapter agents, without torch.

An engine does what `acclimate.adaptation.methods.affine_descent` and `acclimate.adaptation.methods.generalizeformer` do
with batches of enough windows, by the graphs of `acclimate.adaptation.generators.export_gradient`, `.export_mgg` and
`.export_generalizeformer`. The caller leaves out windows that no working sensor sends.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from acclimate.adaptation.errors import ContractError, DataError
from acclimate.adaptation.generators.valid_range import LEAST_WINDOWS, ValidRange

__all__ = [
    "GeneralizeFormerEngine",
    "Generated",
    "Kind",
    "MggEngine",
    "load_graph",
    "make_engine",
    "run_graph",
]

FloatArray = npt.NDArray[np.float32]
Kind = Literal["mgg", "generalizeformer"]


@dataclass(frozen=True, eq=False)
class Generated:
    """The result for one batch.

    Attributes:
        coordinates: (P,) gamma and beta of all layers in force now: first layer's gamma, its beta, and so on.
        head_weight: (K, F) in force now; the source's where no classifier is generated.
        share: The distance of the batch, see `ValidRange.share`; above 1 nothing was generated.
        probabilities: (n, K) of the batch; MGG answers before its step, GeneralizeFormer with the batch's parameters.
    """

    coordinates: FloatArray
    head_weight: FloatArray
    share: float
    probabilities: FloatArray


class MggEngine:
    """An MGG for one network.

    Args:
        gradient_graph, generator_graph: The graphs from `export_gradient` and `export_mgg`.
        start: State of a device that was never seen: ``coordinates``, ``m``, ``v``, ``steps`` and the memory; and the
            source's ``head_weight``.
        valid_range: The range of shifts in meta-training.

    Raises:
        ContractError: A graph does not load, or does not fit the state.
    """

    def __init__(
        self, gradient_graph: bytes, generator_graph: bytes, start: Mapping[str, FloatArray], valid_range: ValidRange
    ) -> None:
        self._gradient = load_graph("gradient.onnx", gradient_graph)
        self._mgg = load_graph("generator.onnx", generator_graph)
        # A memory that is not carried on is a constant of the graph and no input.
        expected = {each.name: tuple(each.shape) for each in self._mgg.get_inputs() if each.name != "gradient"}
        found = {name: value.shape for name, value in start.items() if name in expected}
        if found != expected:
            raise ContractError(f"generator.onnx: expected a state of {expected}, found {found}")
        self._start = {name: value for name, value in start.items() if name != "head_weight"}
        self._head, self._range = start["head_weight"], valid_range

    def start(self) -> dict[str, FloatArray]:
        """Return the state of a device that was never seen."""
        return dict(self._start)

    def first(self, windows: FloatArray) -> Generated:
        """Return what comes of the first batch of a device."""
        return self.step(self.start(), windows)[1]

    def step(self, state: Mapping[str, FloatArray], windows: FloatArray) -> tuple[dict[str, FloatArray], Generated]:
        """Answer a batch with the state, then step; beyond the range nothing moves and the source answers.

        Args:
            state: The state from `start` or an earlier step.
            windows: (n, C, L) raw windows of one device, n at least 64.

        Raises:
            DataError: There are too few windows, or they have another shape.
        """
        _check(windows, LEAST_WINDOWS, self._gradient)
        given = {"windows": windows, "head_weight": self._head}
        seen = run_graph(self._gradient, {**given, "coordinates": state["coordinates"]})
        share = self._range.share(float(seen["mean_part"]), float(seen["variance_part"]))
        if share > 1.0:
            source = run_graph(self._gradient, {**given, "coordinates": self._start["coordinates"]})
            return dict(state), Generated(state["coordinates"], self._head, share, source["probabilities"])
        moved = run_graph(self._mgg, {**state, "gradient": seen["gradient"]})
        new = {**state, **{name.removesuffix("_new"): value for name, value in moved.items()}}
        if not all(np.isfinite(value).all() for value in new.values()):
            new = dict(state)
        return new, Generated(new["coordinates"], self._head, share, seen["probabilities"])


class GeneralizeFormerEngine:
    """A GeneralizeFormer for one network.

    Args:
        gradient_graph, generator_graph: The graphs from `export_gradient` with weight 0 and `export_generalizeformer`.
        source: ``coordinates`` (P,) and ``head_weight`` (K, F) of the source.
        valid_range: The range of shifts in meta-training.

    Raises:
        ContractError: A graph does not load.
    """

    def __init__(
        self, gradient_graph: bytes, generator_graph: bytes, source: Mapping[str, FloatArray], valid_range: ValidRange
    ) -> None:
        self._gradient = load_graph("gradient.onnx", gradient_graph)
        self._former = load_graph("generator.onnx", generator_graph)
        self._source, self._range = dict(source), valid_range

    def first(self, windows: FloatArray) -> Generated:
        """Return what comes of the first batch of a device, which is what comes of any."""
        return self.generate(windows)

    def generate(self, windows: FloatArray) -> Generated:
        """Give a batch its parameters and answer it; beyond the range, the source's.

        Args:
            windows: (n, C, L) raw windows of one device, n at least 64.

        Raises:
            DataError: There are too few windows, or they have another shape.
        """
        _check(windows, LEAST_WINDOWS, self._gradient)
        seen = run_graph(self._gradient, {"windows": windows, **self._source})
        share = self._range.share(float(seen["mean_part"]), float(seen["variance_part"]))
        if share <= 1.0:
            made = run_graph(self._former, seen)
            answered = run_graph(self._gradient, {"windows": windows, **made})
            if np.isfinite(answered["probabilities"]).all():
                return Generated(made["coordinates"], made["head_weight"], share, answered["probabilities"])
            share = math.inf
        return Generated(self._source["coordinates"], self._source["head_weight"], share, seen["probabilities"])


def make_engine(
    kind: Kind,
    gradient_graph: bytes,
    generator_graph: bytes,
    start: Mapping[str, FloatArray],
    valid_range: ValidRange,
) -> MggEngine | GeneralizeFormerEngine:
    """Return the engine of this kind; see `MggEngine` and `GeneralizeFormerEngine` for what ``start`` holds."""
    engine = MggEngine if kind == "mgg" else GeneralizeFormerEngine
    return engine(gradient_graph, generator_graph, start, valid_range)


def load_graph(name: str, graph: bytes) -> ort.InferenceSession:
    """Return a graph, ready to run on one thread.

    Raises:
        ContractError: The graph does not load.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ContractError(f"{name}: expected an ONNX graph, found: {error}") from error


def run_graph(session: ort.InferenceSession, values: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return all outputs by name; values that are not inputs are ignored."""
    given = {each.name: values[each.name] for each in session.get_inputs()}
    return dict(zip((each.name for each in session.get_outputs()), session.run(None, given), strict=True))


def _check(windows: FloatArray, least: int, session: ort.InferenceSession) -> None:
    shape = tuple(next(each.shape for each in session.get_inputs() if each.name == "windows")[1:])
    if windows.ndim != 3 or windows.shape[1:] != shape or len(windows) < least:
        raise DataError(
            f"expected at least {least} windows of {shape[0]} x {shape[1]}, found {windows.shape}", "wrong_shape"
        )
