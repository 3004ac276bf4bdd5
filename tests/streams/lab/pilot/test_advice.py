"""Advice of a pilot: in doubt observe, and what went wrong is said with names and figures."""

from typing import Any

import pytest

from streams.lab.pilot.advice import choose_mode, risks
from streams.lab.pilot.environment import environment_file


def score(change: float, harmed: bool = False) -> dict[str, Any]:
    return {
        "source_accuracy": 0.8,
        "accuracy": 0.8 + change,
        "change": change,
        "low": change - 0.05,
        "high": change + (-0.001 if harmed else 0.05),
        "harmed": harmed,
    }


def gain(mean: float, devices: int = 5, harmed: tuple[str, ...] = (), worst: float = 0.0) -> dict[str, Any]:
    return {"mean": mean, "worst": worst, "devices": devices, "harmed": list(harmed), "undecided": []}


def device(name: str, **changes: Any) -> dict[str, Any]:
    scores = {rung: score(0.01) for rung in ("robust", "leantta", "cum-bn", "t3a", "policy")}
    return {
        "device": name,
        "windows": 1000,
        "shift": {"median": 0.5},
        "gate": {"largest": 0.4, "answered": 0.0},
        "refused": {},
        "scores": scores,
        **changes,
    }


def findings(**changes: Any) -> dict[str, Any]:
    names = ("leantta", "cum-bn", "t3a", "policy", "robust")
    return {
        "adaptable": True,
        "recipe": "none",
        "choice": None,
        "policy": {"rung": "statistics", "gated": True, "weak": False},
        "sources": {"none": {"held_out_accuracy": 0.85, "held_out_by": "groups"}},
        "source_devices": [{}] * 6,
        "devices": [device(f"t{number}") for number in range(5)],
        "expected_by": "left-out source devices",
        "expected": {name: gain(0.02) for name in names[:3]},
        "measured": {name: gain(0.02) for name in names},
        **changes,
    }


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
    hurt = device("t9")
    hurt["scores"]["t3a"] = score(-0.04, harmed=True)
    text = told("bad", devices=[device("t0"), hurt])
    assert "Prototypes harmed 1 of 2 devices" in text
    assert "t9 (\N{MINUS SIGN}4.0, 95 % interval \N{MINUS SIGN}9.0 to \N{MINUS SIGN}4.1)" in text
    assert "harmed 1 of 5 source devices that were left out: s3" in told(
        "bad", expected={"cum-bn": gain(0, 5, ("s3",))}
    )


def test_a_gate_that_never_opened_or_opened_in_vain_is_said() -> None:
    assert "The gate never opened" in told("plain")
    opened = device("t7", gate={"largest": 3.0, "answered": 0.5})
    opened["scores"]["policy"] = score(-0.02)
    assert "opened on 1 of 2 devices" in told("plain", devices=[device("t0"), opened])
    assert "accuracy fell on t7 (\N{MINUS SIGN}2.0)" in told("bad", devices=[device("t0"), opened])
    assert "never adapts" in told("plain", policy={"rung": "source", "gated": True, "weak": False})
    assert "without a gate" in told("plain", policy={"rung": "prototypes", "gated": False, "weak": False})


def test_thin_evidence_is_said() -> None:
    weak = {"rung": "statistics", "gated": True, "weak": True}
    assert "calibration is weak" in told("bad", policy=weak)
    assert "only 3 source devices" in told("bad", source_devices=[{}] * 3)
    assert "weak evidence" in told("bad", choice={"weak": True})
    assert "Only 1 target devices" in told("plain", devices=[device("t0")])
    assert "Few windows (under 200) from t0" in told("plain", devices=[device("t0", windows=50)])
    unlabelled = [device("t0", scores=None)]
    assert "Nothing was measured against the truth" in told("bad", measured=None, devices=unlabelled)


def test_a_small_magnitude_is_never_called_health() -> None:
    assert "A small magnitude does not mean health" in told("plain")
    silent = device("t8")
    silent["scores"]["robust"]["accuracy"] = 0.5
    assert "On t8 most windows lie inside the source's range" in told("bad", devices=[silent])
    broken = device("t6", refused={"flat_line": 0.3})
    assert "t6 (flat line 30 %)" in told("bad", devices=[broken])


def test_a_name_with_a_line_break_cannot_become_a_setting(tmp_path: Any) -> None:
    report = {"data": "x\nACCLIMATE_MODE=always", "mode": "observe", "reasons": ["a\nACCLIMATE_FLEET=b", "c"]}
    lines = environment_file(report, tmp_path / "it's").splitlines()
    assert [line.partition("=")[0] for line in lines if not line.startswith("#")] == [
        "ACCLIMATE_BUNDLE",
        "ACCLIMATE_MODE",
    ]
    assert lines[-1] == "ACCLIMATE_MODE=observe"
