"""Write the page of a pilot: one file without any outside reference.

Everything that came from recordings is escaped.
"""

import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from acclimate.adaptation.methods.policy_settings import AGREEMENT_AGES
from acclimate.streams.lab.pilot import figures
from acclimate.streams.lab.pilot.advice import points
from acclimate.streams.lab.pilot.conclusions import Report, expected_robust, likely_gain
from acclimate.streams.lab.pilot.environment import environment_file
from acclimate.streams.lab.pilot.findings import Cost, TargetDevice
from acclimate.streams.lab.pilot.gains import RUNGS, Gain
from acclimate.streams.lab.pilot.options import BATCH_SIZE
from acclimate.streams.lab.pilot.shifts import Level
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["render_page"]


@dataclass(frozen=True)
class _RungRow:
    """A row of the table of rungs: what was measured and expected, and the cost; None where it is not known."""

    name: str
    measured: Gain | None
    expected: Gain | None
    accuracy: float | None
    cost: Cost | None


def render_page(report: Report) -> str:
    """Return the page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {
        "points": points,
        "percent": _percent,
        "amount": _amount,
        "size": _size,
        "number": _number,
        "signed": _signed,
    }
    template = environment.from_string(
        resources.files("acclimate.streams.lab.pilot").joinpath("templates/pilot.html.j2").read_text(encoding="utf-8")
    )
    drawings = {  # our own drawings; matplotlib escapes the names in them
        "shift": Markup(figures.shift_per_device(report)),
        "time": Markup(figures.over_time(report)),
        "gains": Markup(figures.gains(report)),
        "value": Markup(figures.value(report.years, report.labels, _gain_lines(report))),
    }
    return template.render(
        report=report,
        figures=drawings,
        cards=_cards(report),
        rungs=_rung_rows(report),
        shown=_shown(report),
        words={name: figures.rung_words(name) for name in ("robust", "source", *RUNGS)},
        shifts=[(device, *_largest_changes(device)) for device in report.devices],
        devices_max=figures.DEVICES_MAX,
        panels_max=figures.PANELS_MAX,
        batch_size=BATCH_SIZE,
        ages=AGREEMENT_AGES,
        env=environment_file(report, Path(report.bundle)),
    )


def _cards(report: Report) -> list[dict[str, str]]:
    devices = report.devices
    outside = len(report.thresholds.devices_outside)
    cards = [
        {
            "label": "Devices outside the source's range",
            "value": f"{outside} of {len(devices)}",
            "note": "by the gate, at any time of their recording",
        }
    ]
    if report.measured is not None:
        robust = [score for device in devices if (score := device.score("robust")) is not None]
        now = sum(score.accuracy for score in robust) / len(robust)
        plain = sum(score.source_accuracy for score in robust) / len(robust)
        note = "as trained, mean over devices"
        if report.recipe != PLAIN:
            note = f"robust source; the plain one {_percent(plain)}"
        cards.append({"label": "Correct on these devices", "value": _percent(now), "note": note})
        policy = report.measured["policy"]
        assert policy is not None  # the policy always answers
        note = f"harmed {len(policy.harmed)} of {policy.devices} devices"
        cards.append({"label": "Policy on top, points", "value": points(policy.mean), "note": note})
    else:
        made = report.sources[report.recipe]
        cards.append(
            {
                "label": "Correct on held-out source windows",
                "value": _percent(made.held_out_accuracy),
                "note": "no labels of the target were used",
            }
        )
    cards.append({"label": "Start with mode", "value": report.mode, "note": "as written in acclimate.env"})
    net = report.start_net_per_year
    if net is not None:
        note = "robust source" + (" and LeanTTA" if report.mode == "always" else "") + ", less compute"
        cards.append({"label": "Likely worth per year", "value": _amount(net), "note": note})
    return cards


def _shown(report: Report) -> list[str]:
    """Return the rungs of the table by device: those that were scored."""
    names = ["robust", *RUNGS] if report.recipe != PLAIN else list(RUNGS)
    return [name for name in names if report.measured is not None and report.measured.get(name) is not None]


def _rung_rows(report: Report) -> list[_RungRow]:
    rows = []
    for name in ("source", *(["robust"] if report.recipe != PLAIN else []), *RUNGS):
        expected = expected_robust(report) if name == "robust" else report.expected.get(name)
        rows.append(
            _RungRow(
                name="source, plain" if name == "source" else figures.rung_words(name),
                measured=None if report.measured is None or name == "source" else report.measured.get(name),
                expected=expected,
                accuracy=_accuracy(report, name),
                cost=report.cost["source" if name == "robust" else name],
            )
        )
    return rows


def _accuracy(report: Report, name: str) -> float | None:
    """Return a rung's accuracy, the mean over target devices; None where it was not scored."""
    scores = [device.score("robust" if name == "source" else name) for device in report.devices]
    found = [score.source_accuracy if name == "source" else score.accuracy for score in scores if score is not None]
    return math.fsum(found) / len(found) if len(found) == len(scores) else None


def _largest_changes(device: TargetDevice) -> tuple[Level, Level]:
    """Return the channels whose level and whose spread changed most."""
    level = max(device.levels, key=lambda item: abs(item.level))
    spread = max(device.levels, key=lambda item: abs(_log(item.spread)))
    return level, spread


def _signed(number: float) -> str:
    return f"{number:+.2f}".replace("-", "\N{MINUS SIGN}")


def _log(ratio: float) -> float:
    return math.log(max(ratio, 1e-6))


def _gain_lines(report: Report) -> dict[str, float]:
    """Return the best of the gains that the plot of labels is compared with, in points."""
    known = {year.rung: likely_gain(report, year.rung)[0] for year in report.years}
    gains = {figures.rung_words(name): 100 * gain.mean for name, gain in known.items() if gain}
    best = sorted(gains, key=lambda words: -gains[words])[:2]
    return {words: gains[words] for words in best}


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _amount(number: float | None) -> str:
    """Write an amount of money.

    >>> _amount(1234567.8), _amount(-12.3456), _amount(0.00123)
    ('1,234,568', '−12.3', '0.0012')
    """
    if number is None:
        return "n/a"
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2 if abs(number) >= 0.1 or number == 0 else 4
    return f"{number:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _number(number: float) -> str:
    return f"{number:,.3g}" if abs(number) < 1000 else f"{number:,.0f}"


def _size(size_bytes: int) -> str:
    return "none" if not size_bytes else f"{size_bytes} B" if size_bytes < 1024 else f"{size_bytes / 1024:.1f} KiB"
