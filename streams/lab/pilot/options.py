"""The options of a pilot, and the costs that it reckons with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.errors import ConfigError

__all__ = ["BATCH_SIZE", "Costs", "PilotOptions", "complete_costs"]

BATCH_SIZE = 32

_LABEL, _ERROR, _CPU_HOUR, _WINDOWS_PER_DAY = 1.0, 0.01, 0.05, 1440.0
_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class PilotOptions:
    """Options of one pilot.

    Attributes:
        selection: The data options by name, as `acclimate.streams.lab.study.selection.selected_dataset` takes them.
        seed: The seed for everything.
        augment: ``none``, ``auto`` or a list of kinds.
        labelled: True where labels of the target may be used, for scores alone.
        epochs: The passes of source training; None is the default.
        jobs: The number of worker processes; 0 does everything in the calling one.
    """

    selection: Mapping[str, Any]
    seed: int = 0
    augment: str = "auto"
    labelled: bool = True
    epochs: int | None = None
    jobs: int = 2


@dataclass(frozen=True)
class Costs:
    """Prices in one currency, and the size of the fleet.

    Attributes:
        label: The price of one label, at least 0.
        error: The price of one wrong answer, at least 0.
        cpu_hour: The price of one core for one hour, at least 0.
        windows_per_day: The number of windows of one device, above 0.
        devices: The number of devices in the fleet, at least 1.
        assumed: The options that were not given: their values are placeholders.

    Raises:
        ConfigError: A value is out of range.
    """

    label: float
    error: float
    cpu_hour: float
    windows_per_day: float
    devices: int
    assumed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("label", "error", "cpu_hour", "windows_per_day"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1e12:  # also refuses NaN
                raise ConfigError(f"{name}: expected a number from 0 to 1e12, got {value}")
        if self.devices < 1 or self.windows_per_day <= 0:
            raise ConfigError(
                f"expected at least one device and more than 0 windows per day, got {self.devices} and "
                f"{self.windows_per_day:g}"
            )

    @property
    def windows_per_year(self) -> float:
        """The number of windows of the whole fleet."""
        return 365.0 * self.windows_per_day * self.devices


def complete_costs(
    dataset: Dataset,
    label: float | None = None,
    error: float | None = None,
    cpu_hour: float | None = None,
    windows_per_day: float | None = None,
    devices: int | None = None,
) -> Costs:
    """Fill in what was not given: placeholders, except what the recordings tell.

    Windows per day follow from the sampling rate where it is known, as if windows did not overlap; the devices are
    those of the target.

    Raises:
        ConfigError: A value is out of range.
    """
    rate, length = dataset.sampling_rate_hz, dataset.length
    told = _SECONDS_PER_DAY * rate / length if rate is not None and length > 1 else _WINDOWS_PER_DAY
    count = sum(1 for _ in dataset.target.streams()) if dataset.target is not None else 1
    given = {
        "--label-cost": label,
        "--error-cost": error,
        "--cpu-hour-cost": cpu_hour,
        "--windows-per-day": windows_per_day,
        "--devices": devices,
    }
    return Costs(
        label=_LABEL if label is None else label,
        error=_ERROR if error is None else error,
        cpu_hour=_CPU_HOUR if cpu_hour is None else cpu_hour,
        windows_per_day=told if windows_per_day is None else windows_per_day,
        devices=count if devices is None else devices,
        assumed=tuple(name for name, value in given.items() if value is None),
    )
