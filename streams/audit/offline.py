"""Compare what came back through Kafka with the same model run directly on the same rows of the data."""

from dataclasses import dataclass

import numpy as np

from acclimate.adaptation.data.dataset import Split
from acclimate.streams.audit.join import Joined
from acclimate.streams.audit.summary import OfflineFigures
from acclimate.streams.serving.served import Served

__all__ = ["Offline", "compare_offline", "offline_figures"]

_BATCH = 2048  # bounds the memory; the engine has its own chunk


@dataclass(frozen=True)
class Offline:
    """What the direct run gives on the answered rows.

    Attributes:
        accuracy_source, accuracy_adapted, accuracy_answered: Shares of right labels, None without any window.
        equal: Whether all three labels of every window are those that came back.
        differing: Windows with another label.
        bit_equal: Whether all probabilities and shift magnitudes are the same float32 numbers.
    """

    accuracy_source: float | None
    accuracy_adapted: float | None
    accuracy_answered: float | None
    equal: bool
    differing: int
    bit_equal: bool


def compare_offline(served: Served, split: Split, joined: Joined) -> Offline:
    """Run the bundle that answered on the rows of ``joined`` and compare.

    Args:
        served: The bundle in the mode that the workers had.
        split: Data that was published.
        joined: What came back; rows must be of ``split``.
    """
    if not len(joined):
        return Offline(None, None, None, equal=True, differing=0, bit_equal=True)
    place = {int(row): i for i, row in enumerate(split.rows)}
    rows = np.array([place[int(row)] for row in joined.row])
    windows, truth = split.windows[rows], split.labels[rows]
    runs = [served.engine.run(windows[start : start + _BATCH]) for start in range(0, len(windows), _BATCH)]
    source = np.concatenate([run.source_probabilities for run in runs])
    adapted = np.concatenate([run.adapted_probabilities for run in runs]) if served.spec.adaptable else source
    magnitude = np.concatenate([run.magnitude for run in runs])
    answered = np.concatenate([served.probabilities(run) for run in runs])
    labels = [probabilities.argmax(axis=1) for probabilities in (source, adapted, answered)]
    returned = [joined.source_label, joined.adapted_label, joined.answered_label]
    differing = np.zeros(len(joined), dtype=np.bool_)
    for own, other in zip(labels, returned, strict=True):
        differing |= own != other
    same_bits = [
        np.array_equal(source, joined.source_probabilities),
        np.array_equal(adapted, joined.adapted_probabilities),
        np.array_equal(magnitude, joined.magnitude),
    ]
    shares = [round(float((own == truth).mean()), 5) for own in labels]
    return Offline(
        accuracy_source=shares[0],
        accuracy_adapted=shares[1],
        accuracy_answered=shares[2],
        equal=not differing.any(),
        differing=int(differing.sum()),
        bit_equal=all(same_bits),
    )


def offline_figures(offline: Offline) -> OfflineFigures:
    """Return the part of a report that a comparison gives."""
    return {
        "accuracy": {
            "source": offline.accuracy_source,
            "adapted": offline.accuracy_adapted,
            "answered": offline.accuracy_answered,
        },
        "equal": offline.equal,
        "differing": offline.differing,
        "bit_equal": offline.bit_equal,
    }
