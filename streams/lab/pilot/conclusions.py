"""Draw conclusions from a pilot's findings: a year of each rung, thresholds, the mode to start with, risks."""

from collections.abc import Sequence
from dataclasses import dataclass

from acclimate.streams.lab.pilot.advice import choose_mode, risks
from acclimate.streams.lab.pilot.economics import LabelPrice, Yearly, label_break_even, yearly
from acclimate.streams.lab.pilot.findings import Findings, SourceDevice, TargetDevice
from acclimate.streams.lab.pilot.gains import RUNGS, DeviceScore, Gain, gain_of
from acclimate.streams.lab.pilot.options import Costs
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["Best", "Report", "Risk", "Thresholds", "complete_report", "expected_robust", "likely_gain"]


@dataclass(frozen=True)
class Thresholds:
    """The limits that follow from the source, and how often they are passed.

    Attributes:
        magnitude: The limit of the shift magnitude.
        magnitude_above_source, magnitude_above_target: The share of windows above it, 0 to 1.
        windows_above_per_device_and_day: The number of windows above it without any shift.
        leantta: The magnitude from which LeanTTA answers.
        gate_mean_limit, gate_variance_limit: The limits of the gate's parts.
        agreement_limits: The limits of a rung that answers without a gate; None where it has one.
        devices_outside: The devices of the target that opened the gate.
    """

    magnitude: float
    magnitude_above_source: float
    magnitude_above_target: float
    windows_above_per_device_and_day: float
    leantta: float
    gate_mean_limit: float
    gate_variance_limit: float
    agreement_limits: tuple[float, ...] | None
    devices_outside: tuple[str, ...]


@dataclass(frozen=True)
class Best:
    """The rung with the largest mean gain of those that harmed nobody, and that gain, 0 to 1."""

    rung: str
    mean: float


@dataclass(frozen=True)
class Risk:
    """What could go wrong: a tone, ``bad`` or ``plain``, and a sentence."""

    tone: str
    text: str


@dataclass(frozen=True)
class Report(Findings):
    """The findings and what follows from them.

    Attributes:
        costs: The prices and the size of the fleet.
        years: A year of every rung whose gain is known.
        labels: What labels cost, and when they pay.
        thresholds: The limits that follow.
        mode, reasons: The mode to start with, and why.
        best: The best rung that harmed nobody; None where there is none.
        start_net_per_year: What the start nets in a year; None where it is not known.
        risks: What could go wrong, the worst first.
        command: The command line.
        seconds: The time that it all took.
    """

    costs: Costs
    years: tuple[Yearly, ...]
    labels: tuple[LabelPrice, ...]
    thresholds: Thresholds
    mode: str
    reasons: list[str]
    best: Best | None
    start_net_per_year: float | None
    risks: tuple[Risk, ...]
    command: str
    seconds: float


def complete_report(findings: Findings, costs: Costs, command: str, seconds: float) -> Report:
    """Add to the findings what follows from them: years, thresholds, the mode to start with, risks."""
    mode, reasons = choose_mode(findings)
    years = _years(findings, costs)
    start = [year for year in years if year.rung == "robust" or (year.rung == "leantta" and mode == "always")]
    return Report(
        **vars(findings),
        costs=costs,
        years=years,
        labels=label_break_even(costs),
        thresholds=_thresholds(findings, costs),
        mode=mode,
        reasons=reasons,
        best=_best(findings),
        start_net_per_year=sum(year.net[0] for year in start) if start else None,
        risks=tuple(Risk(tone, text) for tone, text in risks(findings)),
        command=command,
        seconds=seconds,
    )


def likely_gain(findings: Findings, name: str) -> tuple[Gain | None, str]:
    """Return a rung's gain, measured where there are labels, else expected; and which of the two."""
    if name == "robust" and findings.recipe == PLAIN:
        return None, ""
    if findings.measured is not None:
        return findings.measured.get(name), "measured"
    if name == "robust":
        return expected_robust(findings), "expected"
    return findings.expected.get(name), "expected"


def expected_robust(findings: Findings) -> Gain | None:
    """Read from the choice of the recipe what it gained on source devices that were left out."""
    if findings.choice is None:
        return None
    table = findings.choice.table
    plain = {row.condition: row.accuracy for row in table if row.candidate == PLAIN}
    scores = [
        DeviceScore.without_interval(row.condition, plain[row.condition], row.accuracy)
        for row in table
        if row.candidate == findings.recipe
    ]
    return gain_of(scores, findings.seed)


def _years(findings: Findings, costs: Costs) -> tuple[Yearly, ...]:
    """Work out a year for every rung whose gain is known: measured where there are labels, else expected."""
    source = findings.cost["source"]
    assert source is not None  # the source always answers
    years = []
    for name in ("robust", *RUNGS):
        gain, by = likely_gain(findings, name)
        cost = findings.cost["source" if name == "robust" else name]
        if gain is None or cost is None:
            continue
        interval = (gain.mean, gain.low, gain.high)
        years.append(yearly(name, by, costs, interval, cost.seconds_per_window, source.seconds_per_window))
    return tuple(years)


def _thresholds(findings: Findings, costs: Costs) -> Thresholds:
    def above(devices: Sequence[SourceDevice | TargetDevice]) -> float:
        return sum(device.shift.above * device.windows for device in devices) / sum(
            device.windows for device in devices
        )

    policy = findings.policy
    return Thresholds(
        magnitude=1.0,
        magnitude_above_source=above(findings.source_devices),
        magnitude_above_target=above(findings.devices),
        windows_above_per_device_and_day=above(findings.source_devices) * costs.windows_per_day,
        leantta=findings.sources[findings.recipe].threshold,
        gate_mean_limit=policy.mean_limit,
        gate_variance_limit=policy.variance_limit,
        agreement_limits=None if policy.gated else policy.agreement_limits,
        devices_outside=tuple(device.device for device in findings.devices if device.gate.largest > 1.0),
    )


def _best(findings: Findings) -> Best | None:
    gains = {name: likely_gain(findings, name)[0] for name in RUNGS}
    safe = {name: gain.mean for name, gain in gains.items() if gain and not gain.harmed and gain.mean > 0}
    if not safe:
        return None
    rung = max(safe, key=lambda name: safe[name])
    return Best(rung, safe[rung])
