"""Plots of a judgement for MLflow's page."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from acclimate.registry.gates.answers import Compared
from acclimate.streams.drawing import plot_style

__all__ = ["accuracy_per_group"]

_GROUPS_MAX = 40
_CANDIDATE, _CHAMPION, _LINE = "#0072b2", "#5c6670", "#d9dee3"


def accuracy_per_group(sets: Sequence[Compared]) -> Mapping[str, bytes]:
    """Draw each set's accuracy per group, candidate against champion, as a PNG file by name; the worst changes first.

    Of more than 40 groups the 40 with the worst change are shown.
    """
    return {f"accuracy-{each.name}.png": _drawn(each) for each in sets}


def _drawn(compared: Compared) -> bytes:
    right = compared.right(compared.candidate)
    before = right if compared.champion is None else compared.right(compared.champion)
    rows = [(name, right[mask].mean(), before[mask].mean()) for name, mask in compared.by_group(1)]
    rows = sorted(rows, key=lambda row: row[1] - row[2])[:_GROUPS_MAX][::-1]
    out = io.BytesIO()
    with mpl.rc_context(plot_style("#1c2024", "#5c6670", _LINE)):
        figure = Figure(figsize=(7, 1.2 + 0.25 * len(rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(rows))
        if compared.champion is not None:
            axes.hlines(places, [row[1] for row in rows], [row[2] for row in rows], color=_LINE, linewidth=3)
            axes.plot([row[2] for row in rows], places, "s", color=_CHAMPION, label="champion", fillstyle="none")
        axes.plot([row[1] for row in rows], places, "o", color=_CANDIDATE, label="candidate")
        axes.set_yticks(places, [row[0][:30] for row in rows])
        axes.set_xlabel(f"accuracy on {compared.name}")
        axes.legend(loc="upper left", bbox_to_anchor=(0, 1.0), ncols=2)
        figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
    return out.getvalue()
