"""What a pilot finds out, in records that its jobs fill and its report reads.

`pilot.json` shows each record as an object with these names in this order; nothing reads that file back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.streams.lab.pilot.gains import DeviceScore, Gain
from acclimate.streams.lab.pilot.shifts import Course, Level, Shift
from acclimate.streams.lab.pilot.watch import Gate
from acclimate.streams.lab.study.choices import KeptChoice

__all__ = [
    "Cost",
    "EngineSeconds",
    "Findings",
    "MadeSource",
    "MeasuredSource",
    "RungRun",
    "SourceDevice",
    "TargetDevice",
]


@dataclass(frozen=True)
class MadeSource:
    """A source that was trained and kept as a bundle.

    Attributes:
        digest: The digest of the bundle.
        held_out_accuracy: The share of held-out windows that it classifies right, 0 to 1.
        held_out_by: ``groups`` or ``tail``, as `acclimate.adaptation.model.train` held windows out.
        held_out_groups: The devices that were held out; empty for ``tail``.
        threshold: The shift magnitude from which LeanTTA answers.
    """

    digest: str
    held_out_accuracy: float
    held_out_by: str
    held_out_groups: tuple[str, ...]
    threshold: float


@dataclass(frozen=True)
class SourceDevice:
    """A device of the source: its name, the number of its windows, and their shift."""

    device: str
    windows: int
    shift: Shift


@dataclass(frozen=True)
class EngineSeconds:
    """CPU seconds of the worker's engine per window: all that a worker computes, and source and shift alone."""

    worker: float
    source: float


@dataclass(frozen=True)
class MeasuredSource:
    """The devices of the source, and the time of the worker's engine on their windows."""

    devices: tuple[SourceDevice, ...]
    engine_seconds_per_window: EngineSeconds


@dataclass(frozen=True)
class RungRun:
    """One rung on one device.

    Attributes:
        seconds: The CPU time of all windows.
        windows: The number of windows.
        state_bytes: The largest size of the device's state.
        changed: The share of answers that differ from the source's, 0 to 1.
    """

    seconds: float
    windows: int
    state_bytes: int
    changed: float


@dataclass(frozen=True)
class TargetDevice:
    """A device of the target, followed by every rung.

    Attributes:
        device: Its name.
        windows: The number of its windows.
        shift: The shift of its windows.
        magnitude_curve: The shift magnitude over its windows.
        levels: The level and spread of each channel.
        refused: The share of windows that look like a broken sensor, 0 to 1, by reason.
        gate: What the gate of the policy saw.
        runs: Time, memory and changes, by rung; None where a rung cannot adapt this network.
        scores: The scores by rung, where labels of the target may be used. ``robust`` is the source of the recipe
            against the plain one.
    """

    device: str
    windows: int
    shift: Shift
    magnitude_curve: Course
    levels: tuple[Level, ...]
    refused: Mapping[str, float]
    gate: Gate
    runs: Mapping[str, RungRun | None]
    scores: Mapping[str, DeviceScore] | None

    def score(self, rung: str) -> DeviceScore | None:
        """Return a rung's score; None where it has none."""
        return None if self.scores is None else self.scores.get(rung)


@dataclass(frozen=True)
class Cost:
    """Time and memory of a rung over all devices.

    Attributes:
        seconds_per_window: The CPU time of one window, the mean.
        state_bytes: The largest size of a device's state.
        changed: The share of answers that differ from the source's, 0 to 1.
    """

    seconds_per_window: float
    state_bytes: int
    changed: float


@dataclass(frozen=True)
class Findings:
    """Everything that a pilot measured.

    Attributes:
        data, selection, classes, channels: The recordings: their name, the options that selected them, their names of
            classes and channels.
        adaptable: False where a row has no time axis, so that LeanTTA cannot adapt.
        labelled: True where labels of the target were used for scores.
        seed: The seed for everything.
        recipe: The recipe of the source that is followed.
        choice: The choice of ``auto``; None where the recipe was given.
        sources: The trained sources, by recipe.
        bundle: The folder of the bundle to serve.
        source_devices, source_windows: The devices of the source, and the number of its windows.
        engine_seconds_per_window: The time of the worker's engine.
        policy: The settings of the policy.
        devices: The devices of the target.
        cost: Time and memory by rung and for ``source``; None where a rung cannot adapt this network.
        measured: The gain on the target by rung and for ``robust``; None without labels.
        expected: The gain that the source's own devices let expect, by rung.
        expected_by: What that rests on: ``left-out source devices`` or ``simulated shifts``.
        expected_devices: The scores behind it, by rung.
    """

    data: str
    selection: Mapping[str, str]
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    adaptable: bool
    labelled: bool
    seed: int
    recipe: str
    choice: KeptChoice | None
    sources: Mapping[str, MadeSource]
    bundle: str
    source_devices: tuple[SourceDevice, ...]
    source_windows: int
    engine_seconds_per_window: EngineSeconds
    policy: PolicySettings
    devices: tuple[TargetDevice, ...]
    cost: Mapping[str, Cost | None]
    measured: Mapping[str, Gain | None] | None
    expected: Mapping[str, Gain]
    expected_by: str
    expected_devices: Mapping[str, list[DeviceScore]]
