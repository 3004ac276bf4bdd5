"""Staged roll-out as pure functions of recorded facts: is a wave good, and which release comes next?

A wave is a new epoch with the same salt and a larger share, so that the devices of a smaller wave stay in the next.
Each wave is compared with a control group of the same size, drawn by the same hash from its other end. A wave

    waits   until it has been watched for long enough and enough of its devices have answered real events with it,
    aborts  when more than a share of its devices are bad, or when its mean confidence has fallen against the control's,
    passes  else.

A device is bad whose receiver has refused the release, most of whose records have become dead letters since, or whose
confidence has fallen far. No label is known here: confidence is the mean of the answer's probability.

    (1) change_i = mean confidence of device i in the wave - before it
    (2) fall = mean of (1) over the wave - mean of (1) over the control group
    (3) interval of (2): +- 1.96 sqrt(s_w^2 / n_w + s_c^2 / n_c)
    (4) interval of the difference of two shares of bad devices: Newcombe's hybrid of Wilson's intervals (1998, method
        10); it is reported, it decides nothing: 2 bad of 20 must stop a wave, though it proves little
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from acclimate.registry.canonical import Strict
from acclimate.registry.releases.release import unit_hash

__all__ = ["Assessment", "DeviceEvidence", "RolloutPolicy", "assess", "bad_device", "group_of", "newcombe"]

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution

Share = Annotated[float, Field(ge=0, le=1)]


class RolloutPolicy(Strict):
    """The rules of a roll-out.

    Attributes:
        waves: Shares of the devices, rising, the last one 1.
        observe_s: The least time to watch a wave, in seconds.
        min_devices: The number of a wave's devices that must have answered; all of them where a wave has fewer.
        min_windows: The number of windows that make a device's confidence count.
        bad_share_max: More bad devices than this abort.
        device_fall_max: A device whose confidence falls by more is bad.
        fall_max: A wave aborts whose confidence has fallen by more against the control, interval and all.
        lifetime_days: The days in which a release may be newly installed; it is renewed at half of that.
        stale_after_s: A receiver that is behind for longer is reported.
    """

    waves: Annotated[tuple[Share, ...], Field(min_length=1, max_length=20)] = (0.05, 0.25, 1.0)
    observe_s: Annotated[float, Field(ge=0, le=30 * 86400)] = 600.0
    min_devices: Annotated[int, Field(ge=1)] = 20
    min_windows: Annotated[int, Field(ge=1)] = 20
    bad_share_max: Share = 0.05
    device_fall_max: Share = 0.3
    fall_max: Share = 0.05
    lifetime_days: Annotated[float, Field(gt=0, le=3650)] = 30.0
    stale_after_s: Annotated[float, Field(gt=0)] = 900.0

    @model_validator(mode="after")
    def _waves_rise(self) -> "RolloutPolicy":
        if list(self.waves) != sorted(set(self.waves)) or self.waves[0] <= 0 or self.waves[-1] != 1:
            raise ValueError(f"waves: expected rising shares above 0 that end with 1.0, found {list(self.waves)}")
        return self

    def wave_after(self, share: float) -> float | None:
        """Return the share of the wave after one of this share; None after the last."""
        return next((wave for wave in self.waves if wave > share), None)


@dataclass(frozen=True)
class DeviceEvidence:
    """The facts about one device in a wave.

    Attributes:
        windows_before, confidence_before: Answered by the stable bundle shortly before the wave; mean, 0 to 1.
        windows, confidence: Answered by the bundle that the device should have, in the wave.
        records_before, letters_before: Records answered, and dead letters, before the wave.
        records, letters: The same in the wave.
        refused: Why its own receiver has refused the release; None where it has not.
    """

    windows_before: int = 0
    confidence_before: float = 0.0
    windows: int = 0
    confidence: float = 0.0
    records_before: int = 0
    letters_before: int = 0
    records: int = 0
    letters: int = 0
    refused: str | None = None

    @property
    def seen(self) -> bool:
        """Say whether the device was heard of in the wave."""
        return bool(self.records or self.letters or self.refused)


@dataclass(frozen=True)
class Assessment:
    """The step to take with a wave, and the reason in one line with the figures."""

    outcome: Literal["wait", "pass", "abort"]
    message: str


def group_of(salt: str, share: float, device: str) -> Literal["wave", "control", "rest"]:
    """Return the group of a device.

    >>> group_of("00ff00ff00ff00ff", 0.4, "pump-7"), group_of("00ff00ff00ff00ff", 0.3, "pump-7")
    ('wave', 'rest')
    """
    place = unit_hash(salt, device)
    if place < share:
        return "wave"
    return "control" if place >= 1 - share else "rest"


def bad_device(evidence: DeviceEvidence, policy: RolloutPolicy) -> str | None:
    """Return what is wrong with a device; None where nothing is."""
    if evidence.refused is not None:
        return f"refused: {evidence.refused}"
    before, after = evidence.records_before, evidence.records
    if evidence.letters > after and evidence.letters_before <= before:
        return f"{evidence.letters} of {evidence.letters + after} records became dead letters"
    fall = _change(evidence, policy)
    if fall is not None and -fall > policy.device_fall_max:
        return f"confidence {evidence.confidence_before:.2f} before, {evidence.confidence:.2f} now"
    return None


def assess(
    policy: RolloutPolicy,
    salt: str,
    share: float,
    watched_s: float,
    devices: Mapping[str, DeviceEvidence],
    workers_refused: Sequence[str],
) -> Assessment:
    """Judge a wave.

    Args:
        policy: The rules of the roll-out.
        salt, share: The salt and the share of the wave.
        watched_s: Seconds since it began.
        devices: Everything that is known, by device, of all groups.
        workers_refused: Workers that have refused the release, with the reason.
    """
    wave = {d: e for d, e in devices.items() if group_of(salt, share, d) == "wave"}
    control = {d: e for d, e in devices.items() if group_of(salt, share, d) == "control"}
    seen = [evidence for evidence in wave.values() if evidence.seen]
    wrong = {device: bad_device(evidence, policy) for device, evidence in wave.items()}
    bad = {device: reason for device, reason in wrong.items() if reason is not None}
    needed = min(policy.min_devices, len(wave))
    figures = f"{len(seen)} of {len(wave)} devices seen, {len(bad)} bad"
    if len(seen) >= needed and len(bad) > policy.bad_share_max * len(seen):
        first = min(bad)
        against = _against_control(len(bad), len(seen), control, policy)
        return Assessment("abort", f"{figures} (allowed {policy.bad_share_max:.0%}){against}; {first}: {bad[first]}")
    fall = _fall(list(wave.values()), list(control.values()), policy)
    if len(seen) >= needed and fall is not None and fall[1] < -policy.fall_max:
        return Assessment(
            "abort",
            f"{figures}; confidence changed by {fall[0]:+.3f} (95 % interval up to {fall[1]:+.3f}) against the control "
            f"group, allowed {-policy.fall_max:+.3f}",
        )
    if watched_s < policy.observe_s:
        return Assessment("wait", f"{figures}; watched for {watched_s:.0f} of {policy.observe_s:.0f} s")
    if workers_refused:
        return Assessment("abort", f"{figures}; refused by {len(workers_refused)} workers, first {workers_refused[0]}")
    if len(seen) < needed:
        return Assessment("wait", f"{figures}; {needed} must have answered")
    change = "" if fall is None else f"; confidence changed by {fall[0]:+.3f} against the control group"
    return Assessment("pass", f"{figures}{_against_control(len(bad), len(seen), control, policy)}{change}")


def newcombe(bad: int, of: int, control_bad: int, control_of: int) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two shares. (4)

    >>> low, high = newcombe(56, 70, 48, 80)
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    first, second = bad / of, control_bad / control_of
    (low1, high1), (low2, high2) = _wilson(bad, of), _wilson(control_bad, control_of)
    difference = first - second
    low = difference - math.hypot(first - low1, high2 - second)
    return low, difference + math.hypot(high1 - first, second - low2)


def _wilson(count: int, of: int) -> tuple[float, float]:
    share, scale = count / of, 1 + _Z**2 / of
    centre = share + _Z**2 / (2 * of)
    half = _Z * math.sqrt(share * (1 - share) / of + _Z**2 / (4 * of**2))
    return (centre - half) / scale, (centre + half) / scale


def _against_control(bad: int, of: int, control: Mapping[str, DeviceEvidence], policy: RolloutPolicy) -> str:
    seen = [evidence for evidence in control.values() if evidence.seen]
    if not seen or not of:
        return ", no control group"
    wrong = sum(bad_device(evidence, policy) is not None for evidence in seen)
    low, high = newcombe(bad, of, wrong, len(seen))
    return f", control {wrong} of {len(seen)} (difference {low:+.2f} to {high:+.2f})"


def _change(evidence: DeviceEvidence, policy: RolloutPolicy) -> float | None:
    """Return (1); None where too few windows tell."""
    if min(evidence.windows, evidence.windows_before) < policy.min_windows:
        return None
    return evidence.confidence - evidence.confidence_before


def _fall(
    wave: Sequence[DeviceEvidence], control: Sequence[DeviceEvidence], policy: RolloutPolicy
) -> tuple[float, float] | None:
    """Return (2) and the upper end of (3); None where a group has fewer than two devices that tell."""
    changes = [[c for c in (_change(e, policy) for e in group) if c is not None] for group in (wave, control)]
    if min(map(len, changes)) < 2:
        return None
    difference = float(np.mean(changes[0]) - np.mean(changes[1]))
    error = math.sqrt(sum(float(np.var(group, ddof=1)) / len(group) for group in changes))
    return difference, difference + _Z * error
