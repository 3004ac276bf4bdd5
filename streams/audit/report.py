"""Write a report: ``report.json`` for programs, ``report.html`` for people, ``overview.svg`` for a README.

The page is one file without any outside reference, and everything that came from devices or options is escaped.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from acclimate.streams.audit import figures
from acclimate.streams.audit.join import Joined
from acclimate.streams.audit.summary import HARM, ByOutput, ByRung, DeviceShift, Report

__all__ = ["Story", "render_html", "verdicts", "write_report"]


@dataclass(frozen=True)
class Story:
    """What surrounds the figures: plain text, escaped when it is written.

    Attributes:
        title: Heading of the page.
        subtitle: One line under it.
        steps: What was done, one sentence each, for a reader who knows neither Kafka nor the method.
        notes: What is known about single devices, e.g. what a simulation did to them.
        facts: Further names and values for the end of the page.
    """

    title: str
    subtitle: str
    steps: Sequence[str] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def write_report(
    folder: Path, report: Report, joined: Joined, story: Story, latency_joined: Joined | None = None
) -> dict[str, Path]:
    """Write the three files into ``folder`` and return their paths by kind: json, html, overview.

    Args:
        folder: Made when missing; files of an earlier report are replaced.
        report: As `acclimate.streams.audit.summary.summarise` gives it, with what the caller added.
        joined: Windows that the report is about.
        story: Words around it.
        latency_joined: Windows whose times are drawn; ``joined`` when not given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "json": ("report.json", json.dumps(report, indent=1, allow_nan=False) + "\n"),
        "html": ("report.html", render_html(report, joined, story, latency_joined or joined)),
        "overview": ("overview.svg", figures.overview(report, standalone=True)),
    }
    if not len(joined):
        del contents["overview"]
    for name, text in contents.values():
        (folder / name).write_text(text, encoding="utf-8")
    return {kind: folder / name for kind, (name, _) in contents.items()}


def render_html(report: Report, joined: Joined, story: Story, latency_joined: Joined) -> str:
    """Return the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        resources.files("acclimate.streams.audit").joinpath("templates/report.html.j2").read_text(encoding="utf-8")
    )
    drawings: dict[str, Markup | None] = dict.fromkeys(("overview", "shift", "running", "latency"))
    if len(joined):
        # Our own drawings; matplotlib escapes the names in them.
        drawings["overview"] = Markup(figures.overview(report))
        drawings["shift"] = Markup(figures.shift_over_time(joined))
        drawings["running"] = Markup(figures.accuracy_over_time(joined))
    if latency_joined.latency_ms.size:
        drawings["latency"] = Markup(figures.latency(latency_joined))
    return template.render(
        title=story.title,
        subtitle=story.subtitle,
        steps=story.steps,
        notes=story.notes,
        cards=_cards(report),
        verdicts=[{"tone": tone, "text": text} for tone, text in verdicts(report)],
        report=report,
        rows=_rows(report, story.notes),
        devices_max=figures.DEVICES_MAX,
        figures=drawings,
        latency_text=_latency_text(report),
        facts=_facts(report, story),
    )


def verdicts(report: Report) -> list[tuple[str, str]]:
    """Return what a reader must know, as tone (good, bad, plain) and sentence; what is bad is said as plainly."""
    found = [_delivery(report)]
    if report["conflicts"]:
        found.append(("bad", f"{_count(report['conflicts'], 'repeated answer')} had other bytes under the same id."))
    if report["dead_letters"]:
        reasons = ", ".join(f"{reason} {n}" for reason, n in report["dead_letter_reasons"].items())
        found.append(("bad", f"{_count(report['dead_letters'], 'record')} refused as dead letters: {reasons}."))
    found += _accuracy_verdicts(report)
    offline = report.get("offline")
    if offline is not None:
        rows = f"{report['windows']:,} windows"
        if offline["bit_equal"]:
            same = "the same labels and bit for bit the same probabilities"
            found.append(("good", f"The same model run on the same {rows} without Kafka gives {same}."))
        else:
            columns = ", ".join(f"{name} {n:,}" for name, n in offline["differing_columns"].items())
            tone = "plain" if offline["equal"] else "bad"
            what = "the same labels" if offline["equal"] else f"other labels for {offline['differing']:,} of the {rows}"
            text = f"The same model run without Kafka gives {what}; windows that differ, by column: {columns}."
            found.append((tone, text))
    return found


def _delivery(report: Report) -> tuple[str, str]:
    windows = report["windows"]
    if report["lost"]:
        return "bad", f"{report['lost']:,} of {windows:,} windows were lost: neither answered nor refused."
    repeats = (
        f" {_count(report['duplicates'], 'answer')} came twice, which is harmless." if report["duplicates"] else ""
    )
    answered = windows - report["dead_windows"]
    return "good", f"Nothing was lost: {answered:,} of {windows:,} windows published were answered.{repeats}"


def _accuracy_verdicts(report: Report) -> list[tuple[str, str]]:
    accuracy = _known(report["accuracy"])
    if accuracy is None:
        return []
    found = [("plain", f"Answered by: {_shares(report['answered_by'])}.")]
    if not report["adaptable"]:
        text = (
            "Some windows, or all, have no adapted output, as a row without a time axis has no statistics of its own. "
            "The source model answers these."
        )
        return [*found, ("plain", text)]
    found.append(_compared("What was answered", accuracy["source"], accuracy["answered"]))
    harmed = report["harmed_devices"]["answered"]
    if harmed:
        found.append(("bad", f"Harmed by adaptation, by {100 * HARM:.0f} points or more: {_named(report, harmed)}."))
    else:
        found.append(("good", f"No device lost {100 * HARM:.0f} points or more by it."))
    helped = report["helped_devices"]["answered"]
    if helped:
        found.append(("good", f"Helped, by {100 * HARM:.0f} points or more: {_named(report, helped)}."))
    everywhere = f"Adapted everywhere ({', '.join(report['adapted_by'])}), without regard to the shift, the model"
    found.append(_compared(everywhere, accuracy["source"], accuracy["adapted"]))
    worst = next(device for device in report["per_device"] if device["device"] == report["worst_device"])
    answered, source = _percent(worst["accuracy"]["answered"]), _percent(worst["accuracy"]["source"])
    text = f"Worst device: {worst['device']}, {answered} correct as answered, {source} as trained."
    return [*found, ("plain", text)]


def _compared(subject: str, source: float, other: float) -> tuple[str, str]:
    points = 100 * (other - source)
    if abs(points) < 0.05:
        return "plain", f"{subject} is as accurate as the model as trained: {_percent(source)}."
    word = "more" if points > 0 else "less"
    tone = "plain" if abs(points) < 0.5 else "good" if points > 0 else "bad"
    return tone, (
        f"{subject} is {abs(points):.1f} points {word} accurate than the model as trained: "
        f"{_percent(other)} against {_percent(source)}."
    )


def _known(accuracy: ByOutput[float | None]) -> ByOutput[float] | None:
    """Return the accuracies; None where nothing was answered."""
    source, adapted, answered = accuracy["source"], accuracy["adapted"], accuracy["answered"]
    if source is None or adapted is None or answered is None:
        return None
    return {"source": source, "adapted": adapted, "answered": answered}


def _named(report: Report, names: Sequence[str]) -> str:
    changes = {d["device"]: 100 * (d["accuracy"]["answered"] - d["accuracy"]["source"]) for d in report["per_device"]}
    ordered = sorted(names, key=lambda name: -abs(changes[name]))
    listed = ", ".join(f"{name} ({_signed(changes[name])})" for name in ordered[:8])
    return listed + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")


def _cards(report: Report) -> list[dict[str, str]]:
    accuracy, latency = report["accuracy"], report.get("latency_ms")
    known = _known(accuracy)
    change = "" if known is None else _signed(100 * (known["answered"] - known["source"])) + " points"
    cards = [{"label": "Correct as trained", "value": _percent(accuracy["source"]), "note": "source model alone"}]
    if report["adaptable"]:
        cards.append({"label": "Correct as answered", "value": _percent(accuracy["answered"]), "note": change})
    cards.append(
        {"label": "Windows lost", "value": f"{report['lost']:,}", "note": f"of {report['windows']:,} published"}
    )
    if report["throughput_windows_per_s"] is not None:
        note = "windows per second, end to end, one worker" if report.get("workers") == 1 else "windows per second"
        cards.append({"label": "Throughput", "value": f"{report['throughput_windows_per_s']:,.0f}", "note": note})
    if latency is not None:
        rate = latency["rate_windows_per_s"]
        note = f"at {rate:,.0f} windows per second" if rate is not None else "published as fast as possible"
        cards.append({"label": "99 % answered within", "value": f"{latency['p99']:,.0f} ms", "note": note})
    return cards


def _rows(report: Report, notes: Mapping[str, str]) -> list[dict[str, str | bool]]:
    rows = [
        _row(
            device["device"],
            notes.get(device["device"], ""),
            device["accuracy"],
            device["answered_by"],
            device["shift"],
        )
        for device in report["per_device"]
    ]
    accuracy = _known(report["accuracy"])
    if accuracy is not None:
        rows.append(_row("all", "", accuracy, report["answered_by"], None))
    return rows


def _row(
    name: str, note: str, accuracy: ByOutput[float], by: ByRung, shift: DeviceShift | None
) -> dict[str, str | bool]:
    """Return the texts of one row; the row of all devices has no shift."""
    points = 100 * (accuracy["answered"] - accuracy["source"])
    tone = "up" if points >= 100 * HARM else "down" if points <= -100 * HARM else ""
    return {
        "device": name,
        "note": note,
        "windows": f"{sum(by.values()):,}",
        "source": _percent(accuracy["source"]),
        "answered": _percent(accuracy["answered"]),
        "adapted": _percent(accuracy["adapted"]),
        "change": _signed(points),
        "tone": tone,
        "median": "" if shift is None else f"{shift['median']:.2f}",
        "p95": "" if shift is None else f"{shift['p95']:.2f}",
        "above": "" if shift is None else _percent(shift["share_above_1"]),
        "answered_by": _shares(by),
        "total": shift is None,
    }


def _latency_text(report: Report) -> str:
    latency = report.get("latency_ms")
    if latency is None:
        return ""
    rate = latency["rate_windows_per_s"]
    how = "published as fast as possible, so this is mostly waiting in the queue"
    if rate is not None:
        how = f"published at {rate:,.0f} windows per second, about half of the measured throughput"
    return (
        f"{latency['windows']:,} windows, {how}. Times are the broker's: "
        "from the arrival of the record to the arrival of its answer."
    )


def _facts(report: Report, story: Story) -> list[dict[str, str | bool]]:
    facts: list[dict[str, str | bool]] = [
        {"name": name, "value": value, "code": False} for name, value in story.facts.items()
    ]
    for receipt in report["receipts"]:
        facts += [
            {"name": "windows with this receipt", "value": f"{receipt['windows']:,}", "code": False},
            {"name": "model bundle", "value": receipt["bundle"], "code": True},
            {"name": "mode", "value": receipt["mode"], "code": False},
            {"name": "configuration", "value": receipt["config"], "code": True},
            {"name": "epoch", "value": str(receipt["epoch"]), "code": False},
            {"name": "engine", "value": receipt["engine"], "code": False},
            {"name": "instruction set", "value": receipt["instruction_set"], "code": False},
            {"name": "code contract version", "value": str(receipt["code_contract_version"]), "code": False},
        ]
    return facts


def _shares(by: ByRung) -> str:
    """Say which share of the windows each rung answered, whatever its name.

    >>> _shares({"source": 3, "leantta": 1})
    'source 75 %, leantta 25 %'
    """
    return ", ".join(f"{name} {100 * windows / sum(by.values()):.0f} %" for name, windows in by.items())


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _signed(points: float) -> str:
    rounded = round(points, 1)
    return "±0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
