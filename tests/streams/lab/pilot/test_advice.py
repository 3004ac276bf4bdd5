"""Advice of a pilot: in doubt observe, and what went wrong is said with names and figures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.streams.lab.pilot.advice import choose_mode, risks
from acclimate.streams.lab.pilot.conclusions import complete_report
from acclimate.streams.lab.pilot.environment import environment_file
from acclimate.streams.lab.pilot.findings import Cost, EngineSeconds, Findings, MadeSource, SourceDevice, TargetDevice
from acclimate.streams.lab.pilot.gains import DeviceScore, Gain
from acclimate.streams.lab.pilot.options import Costs
from acclimate.streams.lab.pilot.shifts import Shift
from acclimate.streams.lab.pilot.watch import Gate
from acclimate.streams.lab.study.choices import KeptChoice

SHIFT = Shift(median=0.5, p95=0.8, above=0.0, mean_part=0.4, variance_part=0.5)
SOURCE_DEVICE = SourceDevice("s0", 1000, SHIFT)
POLICY = PolicySettings("statistics", True, 1.0, 1.0, 16.0, weak=False)


def score(device: str, change: float, harmed: bool = False) -> DeviceScore:
    high = change + (-0.001 if harmed else 0.05)
    return DeviceScore(device, 0.8, 0.8 + change, change, change - 0.05, high, harmed)


def gain(mean: float, devices: int = 5, harmed: tuple[str, ...] = (), worst: float = 0.0) -> Gain:
    return Gain(mean, None, None, worst, mean, devices, harmed)


def gate(largest: float, answered: float) -> Gate:
    return Gate(largest, largest, largest, largest, ([], []), answered, None, {})


def device(name: str, changed: dict[str, DeviceScore] | None = None, **changes: Any) -> TargetDevice:
    scores = {rung: score(name, 0.01) for rung in ("robust", "leantta", "cum-bn", "t3a", "policy")}
    plain = TargetDevice(
        device=name,
        windows=1000,
        shift=SHIFT,
        magnitude_curve=([], []),
        levels=(),
        refused={},
        gate=gate(0.4, 0.0),
        runs={},
        scores=scores | (changed or {}),
    )
    return replace(plain, **changes)


def findings(**changes: Any) -> Findings:
    names = ("leantta", "cum-bn", "t3a", "policy", "robust")
    found = Findings(
        data="waves",
        selection={},
        classes=("low", "high"),
        channels=("x",),
        adaptable=True,
        labelled=True,
        seed=0,
        recipe="none",
        choice=None,
        sources={"none": MadeSource("digest", 0.85, "groups", ("s5",), 0.0)},
        bundle="bundle",
        source_devices=(SOURCE_DEVICE,) * 6,
        source_windows=6000,
        engine_seconds_per_window=EngineSeconds(worker=2e-5, source=1e-5),
        policy=POLICY,
        devices=tuple(device(f"t{number}") for number in range(5)),
        cost={name: Cost(1e-5, 0, 0.0) for name in ("source", *names[:4])},
        measured={name: gain(0.02) for name in names},
        expected={name: gain(0.02) for name in names[:3]},
        expected_by="left-out source devices",
        expected_devices={},
    )
    return replace(found, **changes)


def test_always_needs_leantta_to_help_source_devices_that_were_left_out_and_harm_none() -> None:
    mode, reasons = choose_mode(findings())
    assert mode == "always"
    assert "harmed none of 5 source devices" in reasons[0]
    assert choose_mode(findings(measured=None))[0] == "always"
    # alike source devices leave nothing to gain; the target's labels then show it
    assert choose_mode(findings(expected={"leantta": gain(-0.001)}))[0] == "always"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"adaptable": False}, "does not apply"),
        ({"expected_by": "simulated shifts"}, "No source device could be left out"),
        ({"expected": {}}, "No source device could be left out"),
        ({"expected": {"leantta": gain(0.05, devices=3)}}, "Only 3 source devices"),
        ({"expected": {"leantta": gain(0.05, harmed=("s1",))}}, "harmed source devices that were left out: s1"),
        ({"expected": {"leantta": gain(0.0)}, "measured": None}, "gained nothing on source devices"),
        ({"expected": {"leantta": gain(-0.006)}}, "gained nothing on source devices"),
        ({"expected": {"leantta": gain(0.05, worst=-0.03)}}, "cost a source device that was left out"),
        ({"measured": {"leantta": gain(0.05, harmed=("t1",))}}, "harmed devices of the target: t1"),
        ({"measured": {"leantta": gain(-0.01)}}, "gained nothing on the target"),
    ],
)
def test_any_doubt_means_observe_and_is_named(changes: dict[str, Any], reason: str) -> None:
    mode, reasons = choose_mode(findings(**changes))
    assert mode == "observe"
    assert reason in " ".join(reasons)


def told(tone: str, **changes: Any) -> str:
    return " ".join(text for found, text in risks(findings(**changes)) if found == tone)


def test_harmed_devices_are_named_with_their_interval() -> None:
    hurt = device("t9", {"t3a": score("t9", -0.04, harmed=True)})
    text = told("bad", devices=[device("t0"), hurt])
    assert "Prototypes harmed 1 of 2 devices" in text
    assert "t9 (\N{MINUS SIGN}4.0, 95 % interval \N{MINUS SIGN}9.0 to \N{MINUS SIGN}4.1)" in text
    assert "harmed 1 of 5 source devices that were left out: s3" in told(
        "bad", expected={"cum-bn": gain(0, 5, ("s3",))}
    )


def test_a_gate_that_never_opened_or_opened_in_vain_is_said() -> None:
    assert "The gate never opened" in told("plain")
    opened = device("t7", {"policy": score("t7", -0.02)}, gate=gate(3.0, 0.5))
    assert "opened on 1 of 2 devices" in told("plain", devices=[device("t0"), opened])
    assert "accuracy fell on t7 (\N{MINUS SIGN}2.0)" in told("bad", devices=[device("t0"), opened])
    assert "never adapts" in told("plain", policy=replace(POLICY, rung="source"))
    assert "without a gate" in told("plain", policy=replace(POLICY, rung="prototypes", gated=False))


def test_thin_evidence_is_said() -> None:
    assert "calibration is weak" in told("bad", policy=replace(POLICY, weak=True))
    assert "only 3 source devices" in told("bad", source_devices=(SOURCE_DEVICE,) * 3)
    assert "weak evidence" in told("bad", choice=KeptChoice("none", weak=True, judged_by="simulated", table=()))
    assert "Only 1 target devices" in told("plain", devices=[device("t0")])
    assert "Few windows (under 200) from t0" in told("plain", devices=[device("t0", windows=50)])
    unlabelled = [device("t0", scores=None)]
    assert "Nothing was measured against the truth" in told("bad", measured=None, devices=unlabelled)


def test_a_small_magnitude_is_never_called_health() -> None:
    assert "A small magnitude does not mean health" in told("plain")
    silent = device("t8", {"robust": replace(score("t8", 0.01), accuracy=0.5)})
    assert "On t8 most windows lie inside the source's range" in told("bad", devices=[silent])
    broken = device("t6", refused={"flat_line": 0.3})
    assert "t6 (flat line 30 %)" in told("bad", devices=[broken])


def test_a_name_with_a_line_break_cannot_become_a_setting(tmp_path: Path) -> None:
    report = complete_report(findings(data="x\nACCLIMATE_MODE=always"), Costs(1, 1, 1, 1, 1), "acclimate pilot", 1.0)
    report = replace(report, mode="observe", reasons=["a\nACCLIMATE_FLEET=b", "c"])
    lines = environment_file(report, tmp_path / "it's").splitlines()
    assert [line.partition("=")[0] for line in lines if not line.startswith("#")] == [
        "ACCLIMATE_BUNDLE",
        "ACCLIMATE_MODE",
    ]
    assert lines[-1] == "ACCLIMATE_MODE=observe"
