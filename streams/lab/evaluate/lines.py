"""Lines of the tables: one method on one kind of source in one setting, over groups and seeds."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from acclimate.adaptation.evaluation.harm import share_interval
from acclimate.streams.lab.evaluate.results import Results
from acclimate.streams.lab.evaluate.rows import Row
from acclimate.streams.lab.study.tables import grouped

__all__ = ["Line", "summarise_lines"]


class Line:
    """One method on one kind of source in one setting, over groups and seeds.

    Args:
        rows: Its rows, at least one.
        expected_pairs: Pairs of group and seed that the line has when it is finished.
    """

    def __init__(self, rows: Sequence[Row], expected_pairs: int) -> None:
        self.expected_pairs = expected_pairs
        self.rows = rows
        self.method, self.augment = rows[0].method, rows[0].augment
        self.stream, self.batch_size = rows[0].stream, rows[0].batch_size
        self.pairs = len(rows)
        by_seed = grouped(rows, lambda row: row.seed)
        self.seeds = len(by_seed)
        means = [statistics.fmean(row.accuracy for row in part) for _, part in by_seed]
        self.accuracy = statistics.fmean(means)
        self.spread = statistics.stdev(means) if len(means) > 1 else None
        by_group = [(str(name), part) for name, part in grouped(rows, lambda row: row.group)]
        self.groups = len(by_group)
        worst = min(by_group, key=lambda item: statistics.fmean(row.accuracy for row in item[1]))
        self.worst_group, self.worst_accuracy = worst[0], statistics.fmean(row.accuracy for row in worst[1])
        self.change = _mean(row.change for row in rows)
        self.gain = _mean(row.gain for row in rows)
        self.macro_f1 = statistics.fmean(row.macro_f1 for row in rows)
        self.nll = statistics.fmean(row.nll for row in rows)
        self.ece = statistics.fmean(row.ece for row in rows)
        self.harmed = _mean(None if row.harmed is None else float(row.harmed) for row in rows)
        self.undecided = sum(row.harmed is None and row.change is not None for row in rows)
        self.narrow = sum(row.label_run > row.block for row in rows)
        self.adapted_share = _mean(row.adapted_share for row in rows)
        self.gain_harmed = _mean(None if row.gain_harmed is None else float(row.gain_harmed) for row in rows)
        self.collapsed = sum(row.collapsed for row in rows)
        self.resets = sum(row.resets for row in rows)
        self.milliseconds = 1e3 * statistics.fmean(row.seconds_per_window for row in rows)
        self.state_bytes = max(row.state_bytes for row in rows)
        self.returned_accuracy = _mean(row.returned_accuracy for row in rows)
        self.returned_change = _mean(row.returned_change for row in rows)

    @property
    def harmed_interval(self) -> tuple[float, float] | None:
        """Wilson's interval of the harmed share; its units are the groups with a verdict."""
        units = len({row.group for row in self.rows if row.harmed is not None})
        return None if self.harmed is None else share_interval(self.harmed, units)

    def figures(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {name: value for name, value in vars(self).items() if name != "rows"} | {
            "harmed_interval": self.harmed_interval
        }


def summarise_lines(results: Results) -> list[Line]:
    """Return the lines of all tables, in the order of the rows."""
    pairs = results.about["pairs"]
    return [
        Line(part, pairs)
        for _, part in grouped(results.rows, lambda row: (row.stream, row.batch_size, row.augment, row.method))
    ]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
