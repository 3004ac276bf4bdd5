"""What event times tell of a sampling rate that the device has not named."""

from itertools import pairwise
from statistics import median

from acclimate.streams.wire.codec import FeatureBatch
from acclimate.streams.wire.sampling_rate import same_rate

__all__ = ["rate_flag"]

_RESOLUTION_MS = 1  # of event times


def rate_flag(batch: FeatureBatch, rate_hz: float | None, step_samples: int | None) -> bool:
    """Tell whether the event times of a record contradict the model's rate; they only hint, so nothing is refused.

    The median time from window to window is compared with the time that a step takes at the model's rate; the step is
    the record's own, else that of the training. It sees nothing where the record names its rate, has one window or one
    time for all, or where a step or the model's rate is unknown.

    Args:
        batch: The record.
        rate_hz, step_samples: What the model's manifest names.
    """
    step = step_samples if batch.step_samples is None else batch.step_samples
    if batch.sampling_rate_hz is not None or rate_hz is None or step is None or len(batch.event_times_ms) < 2:
        return False
    spacing_ms = median(later - earlier for earlier, later in pairwise(batch.event_times_ms))
    if spacing_ms <= 0:
        return False
    expected_ms = 1000 * step / rate_hz
    return abs(spacing_ms - expected_ms) > _RESOLUTION_MS and not same_rate(1000 * step / spacing_ms, rate_hz)
