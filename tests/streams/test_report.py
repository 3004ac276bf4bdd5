"""The report page: self-contained, safe against hostile names, and honest about harm."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streams.join import Joined, Published, join
from streams.metrics import latency_figures, summarise
from streams.report import Story, verdicts, write_report
from tests.support.answers import SESSION, two_devices

HOSTILE = '<script>alert("x")</script>&\'$x_1$'


def hostile() -> Joined:
    found = two_devices()
    names = np.where(found.device == "a", HOSTILE, found.device)
    return Joined(**{**vars(found), "device": names})


def page(tmp_path: Path, joined: Joined, **more: Any) -> tuple[str, dict[str, Any]]:
    report = summarise(joined) | {"latency_ms": latency_figures(joined, None)} | more
    notes = {HOSTILE: "<b>bold</b>"}
    paths = write_report(tmp_path, report, joined, Story("A <i>title</i>", HOSTILE, [HOSTILE], notes, {"<u>": "</dd>"}))
    return paths["html"].read_text(), report


def test_the_page_refers_to_nothing_outside_of_itself(tmp_path: Path) -> None:
    html, _ = page(tmp_path, two_devices())
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b", html)
    assert not re.search(r'(src|href)="(?!#)', html)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_hostile_names_are_escaped_everywhere(tmp_path: Path) -> None:
    html, _ = page(tmp_path, hostile())
    assert "<script" not in html
    assert "alert(" in html
    assert "<b>bold" not in html
    assert "<i>title" not in html
    assert "&lt;u&gt;" in html


def test_drawings_on_one_page_share_no_id(tmp_path: Path) -> None:
    html, _ = page(tmp_path, two_devices())
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_no_stand_in_colour_is_left(tmp_path: Path) -> None:
    html, _ = page(tmp_path, two_devices())
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", html)
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", (tmp_path / "overview.svg").read_text())
    assert "var(--" not in (tmp_path / "overview.svg").read_text()


def test_report_json_is_strict_json_with_the_figures(tmp_path: Path) -> None:
    _, report = page(tmp_path, two_devices())
    assert json.loads((tmp_path / "report.json").read_text()) == report


def test_the_picture_for_a_readme_is_small(tmp_path: Path) -> None:
    page(tmp_path, two_devices())
    assert (tmp_path / "overview.svg").stat().st_size < 200_000


def test_harm_is_said_and_named() -> None:
    report = summarise(two_devices())
    bad = [text for tone, text in verdicts(report) if tone == "bad"]
    assert any("b (\N{MINUS SIGN}50.0)" in text for text in bad)


def test_loss_conflicts_and_an_unequal_offline_run_are_bad_news() -> None:
    report = summarise(two_devices()) | {"lost": 3, "conflicts": 1}
    report["offline"] = {"equal": False, "differing": 2, "bit_equal": False}
    bad = " ".join(text for tone, text in verdicts(report) if tone == "bad")
    assert "3 of 6 windows were lost" in bad
    assert "other bytes" in bad
    assert "other labels for 2 of the 6 windows" in bad


@pytest.mark.parametrize("seconds", [None, 40.0])
def test_a_run_without_any_answer_still_makes_a_page(tmp_path: Path, seconds: float | None) -> None:
    nothing = join([Published("a", SESSION, 0, (0, 1))], [], [], [], {0: 0, 1: 0})
    html, _ = page(tmp_path, nothing, throughput_windows_per_s=seconds)
    assert "2 of 2 windows were lost" in html
