"""Compare what came back through Kafka with the same model run directly on the same rows of the data."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.data.dataset import Split
from acclimate.streams.audit.join import Joined
from acclimate.streams.audit.summary import OfflineFigures
from acclimate.streams.serving.served import Served, rungs

__all__ = ["Offline", "compare_offline", "offline_figures"]

_BATCH = 2048  # bounds the memory; the engine has its own chunk


@dataclass(frozen=True)
class Offline:
    """What the direct run gives on the answered rows.

    Attributes:
        accuracy_source, accuracy_adapted, accuracy_answered: Shares of right labels, None without any window.
        differing: Windows where one of the three labels is another one.
        differing_columns: Windows that differ, by the column of the record; columns without any are left out.
            Probabilities and the shift magnitude are compared as float32 numbers, bit for bit.
    """

    accuracy_source: float | None
    accuracy_adapted: float | None
    accuracy_answered: float | None
    differing: int
    differing_columns: Mapping[str, int]

    @property
    def equal(self) -> bool:
        """Say whether all three labels of every window are those that came back."""
        return not self.differing

    @property
    def bit_equal(self) -> bool:
        """Say whether every column is the one that came back."""
        return not self.differing_columns


def compare_offline(served: Served, split: Split, joined: Joined) -> Offline:
    """Run the bundle that answered on the rows of ``joined`` and compare column by column.

    Args:
        served: The bundle in the mode that the workers had.
        split: Data that was published.
        joined: What came back; rows must be of ``split``.
    """
    if not len(joined):
        return Offline(None, None, None, differing=0, differing_columns={})
    place = {int(row): i for i, row in enumerate(split.rows)}
    rows = np.array([place[int(row)] for row in joined.row])
    windows, truth = split.windows[rows], split.labels[rows]
    runs = [served.engine.run(windows[start : start + _BATCH]) for start in range(0, len(windows), _BATCH)]
    source = np.concatenate([run.source_probabilities for run in runs])
    adapted = np.concatenate([run.adapted_probabilities for run in runs]) if served.spec.adaptable else source
    magnitude = np.concatenate([run.magnitude for run in runs])
    answered = np.concatenate([served.probabilities(run) for run in runs])
    labels = [probabilities.argmax(axis=1) for probabilities in (source, adapted, answered)]
    label_columns = {
        "source.labels": labels[0] != joined.source_label,
        "adapted.labels": labels[1] != joined.adapted_label,
        "labels": labels[2] != joined.answered_label,
    }
    columns = label_columns | {
        "answered_by": np.array(rungs(served.adapts(magnitude))) != joined.answered_by,
        "source.probabilities": _rows_differ(source, joined.source_probabilities),
        "adapted.probabilities": _rows_differ(adapted, joined.adapted_probabilities),
        "shift.magnitude": magnitude != joined.magnitude,
    }
    shares = [round(float((own == truth).mean()), 5) for own in labels]
    return Offline(
        accuracy_source=shares[0],
        accuracy_adapted=shares[1],
        accuracy_answered=shares[2],
        differing=int(np.any(list(label_columns.values()), axis=0).sum()),
        differing_columns={name: int(differs.sum()) for name, differs in columns.items() if differs.any()},
    )


def _rows_differ(own: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Return (n,) which rows are not the same numbers; all of them where the widths differ."""
    same_width = own.shape == other.shape
    differs: npt.NDArray[np.bool_] = (own != other).any(axis=1) if same_width else np.ones(len(own), dtype=np.bool_)
    return differs


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
        "differing_columns": dict(offline.differing_columns),
        "bit_equal": offline.bit_equal,
    }
