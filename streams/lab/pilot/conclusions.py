"""Draw conclusions from a pilot's findings: a year of each rung, thresholds, the mode to start with, risks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from streams.lab.pilot.advice import choose_mode, risks
from streams.lab.pilot.economics import label_break_even, yearly
from streams.lab.pilot.gains import RUNGS, DeviceScore, gain_of
from streams.lab.pilot.options import Costs
from streams.lab.study.recipes import PLAIN

__all__ = ["complete_report", "expected_robust", "likely_gain"]

Json = Mapping[str, Any]


def complete_report(findings: Json, costs: Costs) -> dict[str, Any]:
    """Add to the findings what follows from them: years, thresholds, the mode to start with, risks."""
    mode, reasons = choose_mode(findings)
    years = _years(findings, costs)
    start = [year for year in years if year["rung"] == "robust" or (year["rung"] == "leantta" and mode == "always")]
    return {
        **findings,
        "costs": asdict(costs) | {"windows_per_year": costs.windows_per_year},
        "years": years,
        "labels": label_break_even(costs),
        "thresholds": _thresholds(findings, costs),
        "mode": mode,
        "reasons": reasons,
        "best": _best(findings),
        "start_net_per_year": sum(year["net"][0] for year in start) if start else None,
        "risks": [{"tone": tone, "text": text} for tone, text in risks(findings)],
    }


def likely_gain(findings: Json, name: str) -> tuple[Json | None, str]:
    """Return a rung's gain, measured where there are labels, else expected; and which of the two."""
    if name == "robust" and findings["recipe"] == PLAIN:
        return None, ""
    if findings["measured"] is not None:
        return findings["measured"].get(name), "measured"
    if name == "robust":
        return expected_robust(findings), "expected"
    return findings["expected"].get(name), "expected"


def expected_robust(findings: Json) -> Json | None:
    """Read from the choice of the recipe what it gained on source devices that were left out."""
    if findings["choice"] is None:
        return None
    table = findings["choice"]["table"]
    plain = {row["condition"]: row["accuracy"] for row in table if row["candidate"] == PLAIN}
    scores = [
        DeviceScore.without_interval(row["condition"], plain[row["condition"]], row["accuracy"])
        for row in table
        if row["candidate"] == findings["recipe"]
    ]
    gain = gain_of(scores, findings["seed"])
    return asdict(gain) if gain else None


def _years(findings: Json, costs: Costs) -> list[dict[str, Any]]:
    """Work out a year for every rung whose gain is known: measured where there are labels, else expected."""
    source = findings["cost"]["source"]["seconds_per_window"]
    rows = []
    for name in ("robust", *RUNGS):
        gain, by = likely_gain(findings, name)
        cost = findings["cost"]["source" if name == "robust" else name]
        if gain is None or cost is None:
            continue
        year = yearly(costs, (gain["mean"], gain["low"], gain["high"]), cost["seconds_per_window"], source)
        rows.append({"rung": name, "by": by, **asdict(year)})
    return rows


def _thresholds(findings: Json, costs: Costs) -> dict[str, Any]:
    def above(devices: Sequence[Json]) -> float:
        windows = float(sum(device["windows"] for device in devices))
        return sum(float(device["shift"]["above"]) * float(device["windows"]) for device in devices) / windows

    policy = findings["policy"]
    return {
        "magnitude": 1.0,
        "magnitude_above_source": above(findings["source_devices"]),
        "magnitude_above_target": above(findings["devices"]),
        "windows_above_per_device_and_day": above(findings["source_devices"]) * costs.windows_per_day,
        "leantta": findings["sources"][findings["recipe"]]["threshold"],
        "gate_mean_limit": policy["mean_limit"],
        "gate_variance_limit": policy["variance_limit"],
        "agreement_limits": None if policy["gated"] else policy["agreement_limits"],
        "devices_outside": [device["device"] for device in findings["devices"] if device["gate"]["largest"] > 1.0],
    }


def _best(findings: Json) -> dict[str, Any] | None:
    """Return the rung with the largest mean gain of those that harmed nobody; None where there is none."""
    gains = {name: likely_gain(findings, name)[0] for name in RUNGS}
    safe = {name: gain["mean"] for name, gain in gains.items() if gain and not gain["harmed"] and gain["mean"] > 0}
    if not safe:
        return None
    rung = max(safe, key=lambda name: float(safe[name]))
    return {"rung": rung, "mean": safe[rung]}
