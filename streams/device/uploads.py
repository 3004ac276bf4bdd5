"""Which of its windows a device that answers itself uploads: a random share, and shifted ones within a budget.

Pure functions: the share is chosen by a hash of the event id, so that anyone can tell which windows belong to it, and
what is estimated on it is unbiased.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ConfigError
from acclimate.registry.releases.release import unit_hash
from acclimate.streams.device.client import feature_batches, feature_headers, features_fitting
from acclimate.streams.device.outbox import OutboxRecord, record_bytes
from acclimate.streams.device.upload_budget import UploadBudget
from acclimate.streams.wire.codec import FeatureBatch, encode_features
from acclimate.streams.wire.topics import topic_name

__all__ = ["WHY", "Chosen", "UploadRule", "choose", "upload_record"]

WHY = "x-acclimate-why"
_SALT = "upload"

Why = Literal["sample", "shifted", "asked"]


@dataclass(frozen=True)
class UploadRule:
    """What is uploaded.

    Args:
        share: Random share of all windows, 0 to 1, outside of the budget.
        shifted_from: Shift magnitude from which a window is uploaded within the budget.
        bytes_per_day: Budget of shifted and asked windows, in bytes of their records in any 24 hours.

    Raises:
        ConfigError: A value is out of range.
    """

    share: float = 0.01
    shifted_from: float = 1.0
    bytes_per_day: int = 10 * 2**20

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share of uploads: expected 0 to 1, found {self.share}")
        if self.bytes_per_day < 0:
            raise ConfigError(f"bytes per day of uploads: expected 0 or more, found {self.bytes_per_day}")


class Chosen(NamedTuple):
    """What goes out of one batch.

    Attributes:
        records: For ``.windows``.
        uploaded: Which windows they hold, (n,).
        budget: What is left.
        budget_bytes: What was taken from it.
        over_budget: Shifted windows that did not fit.
    """

    records: list[OutboxRecord]
    uploaded: npt.NDArray[np.bool_]
    budget: UploadBudget
    budget_bytes: int
    over_budget: int


def choose(
    rule: UploadRule,
    fleet: str,
    batch: FeatureBatch,
    magnitudes: npt.NDArray[np.float32],
    budget: UploadBudget,
    bytes_max: int,
) -> Chosen:
    """Return what of a batch is uploaded.

    Args:
        rule: What is wanted.
        fleet: Prefix of the topics.
        batch: Windows (n, channels, length).
        magnitudes: Their shift, (n,).
        budget: Refilled up to now.
        bytes_max: Limit of one record.
    """
    records = []
    uploaded = np.zeros(len(batch.windows), bool)
    taken = over = 0
    for why, run in _runs(rule, batch, magnitudes):
        for part in feature_batches(_part(batch, run), bytes_max):
            start, count = part.seq - batch.seq, len(part.windows)
            if why == "shifted":
                fitting = min(count, features_fitting(budget.left_bytes, part.windows[0].size))
                over += count - fitting
                if not fitting:
                    continue
                part, count = _part(part, slice(0, fitting)), fitting
            record = upload_record(fleet, part, why)
            if why == "shifted":
                taken += record_bytes(record)
                budget = budget.without(record_bytes(record))
            records.append(record)
            uploaded[start : start + count] = True
    return Chosen(records, uploaded, budget, taken, over)


def upload_record(fleet: str, batch: FeatureBatch, why: Why) -> OutboxRecord:
    """Return the record of ``.windows`` for a batch."""
    headers = (*feature_headers(fleet, batch, "windows.v1"), (WHY, why.encode()))
    return OutboxRecord(batch.device.encode(), encode_features(batch), headers, topic_name(fleet, "windows"))


def _runs(rule: UploadRule, batch: FeatureBatch, magnitudes: npt.NDArray[np.float32]) -> Iterator[tuple[Why, slice]]:
    """Yield why and where for each run of windows that go out for one reason."""
    events = batch.event_ids()

    def why(place: int) -> Why | None:
        # The share first: it stays a fair sample of all windows only if shifted ones count in it as well.
        if unit_hash(_SALT, events[place]) < rule.share:
            return "sample"
        return "shifted" if magnitudes[place] >= rule.shifted_from else None

    for reason, places in groupby(range(len(events)), why):
        run = list(places)
        if reason is not None:
            yield reason, slice(run[0], run[-1] + 1)


def _part(batch: FeatureBatch, run: slice) -> FeatureBatch:
    times = batch.event_times_ms[run]
    return replace(batch, seq=batch.seq + run.start, event_times_ms=times, windows=batch.windows[run])
