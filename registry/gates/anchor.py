"""Gate ``anchor``: how far have the weights moved from the champion's?

(1) distance of a tensor = |new - old| / |old|, Euclidean norms; |new| where |old| is 0
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from acclimate.registry.gates.evaluation import figure, in_one_line
from acclimate.registry.gates.rules import AnchorRules
from acclimate.registry.releases.verdict import Finding

__all__ = ["anchor"]

_MOST_TENSORS = 200  # in the figures: those that moved most

Tensors = Mapping[str, npt.NDArray[np.float32]]


def anchor(weights: Tensors, champion: Tensors | None, rules: AnchorRules) -> Finding:
    """Measure the distance of every tensor.

    Args:
        weights: The candidate's weights, by name.
        champion: The weights of the bundle of its kind in force; None where no bundle is.
        rules: The largest distance allowed, if there is one.
    """
    if champion is None:
        return Finding(gate="anchor", outcome="skipped", message="nothing of this kind is in force to measure from")
    if {name: each.shape for name, each in weights.items()} != {name: each.shape for name, each in champion.items()}:
        return Finding(gate="anchor", outcome="skipped", message="the champion has another network")
    distances = {name: _distance(each, champion[name]) for name, each in weights.items()}
    names = sorted(distances, key=lambda name: -distances[name])
    figures: dict[str, float | int | str] = {name[:200]: figure(distances[name]) for name in names[:_MOST_TENSORS]}
    farthest = f"{names[0][:200]} moved by {distances[names[0]]:.4f} of its norm"
    limit = rules.distance_max
    if limit is None:
        message = f"{farthest}; gates.anchor.distance_max sets no limit"
        return Finding(gate="anchor", outcome="skipped", message=message, figures=figures)
    far = [f"{n[:200]}: found {distances[n]:.4f}, allowed {limit:g}" for n in names if not distances[n] <= limit]
    if far:
        return Finding(gate="anchor", outcome="failed", message=in_one_line(far), figures=figures)
    return Finding(gate="anchor", outcome="passed", message=farthest, figures=figures)


def _distance(new: npt.NDArray[np.float32], old: npt.NDArray[np.float32]) -> float:
    norm = float(np.linalg.norm(old.astype(np.float64)))
    moved = float(np.linalg.norm(new.astype(np.float64) - old.astype(np.float64)))
    return moved / norm if norm else moved
