"""The report page: self-contained, safe against hostile names, and honest about harm."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from acclimate.streams.audit.join import Joined, Published, join
from acclimate.streams.audit.report import Story, verdicts, write_report
from acclimate.streams.audit.summary import latency_figures, summarise
from tests.support.answers import SESSION, two_devices

HOSTILE = '<script>alert("x")</script>&\'$x_1$'


def hostile() -> Joined:
    found = two_devices()
    names = np.where(found.device == "a", HOSTILE, found.device)
    rungs = np.where(found.answered_by == "leantta", "<dreams>", found.answered_by)
    return Joined(**{**vars(found), "device": names, "answered_by": rungs})


def page(folder: Path, joined: Joined) -> str:
    report = summarise(joined) | {"latency_ms": latency_figures(joined, None)}
    notes = {HOSTILE: "<b>bold</b>"}
    paths = write_report(folder, report, joined, Story("A <i>title</i>", HOSTILE, [HOSTILE], notes, {"<u>": "</dd>"}))
    return paths["html"].read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the three files of a plain report: drawing takes a second."""
    made = tmp_path_factory.mktemp("report")
    page(made, two_devices())
    return made


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return (folder / "report.html").read_text()


def test_the_page_refers_to_nothing_outside_of_itself(html: str) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert not re.search(r"<(script|link|img|iframe|object|embed|base)\b", html)
    assert not re.search(r'(src|href)="(?!#)', html)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html


def test_drawings_on_one_page_share_no_id(html: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_no_stand_in_colour_is_left(folder: Path, html: str) -> None:
    picture = (folder / "overview.svg").read_text()
    assert not re.search(r"#0[1-7]0[1-7]0[1-7]", html + picture)
    assert "var(--" in html
    assert "var(--" not in picture


def test_report_json_is_strict_json_with_the_figures(folder: Path) -> None:
    expected = summarise(two_devices())
    found = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    assert {name: found[name] for name in expected} == expected


def test_the_picture_for_a_readme_is_small(folder: Path) -> None:
    assert (folder / "overview.svg").stat().st_size < 200_000


def test_hostile_and_unknown_names_are_shown_and_escaped_everywhere(tmp_path: Path) -> None:
    text = page(tmp_path, hostile())
    assert "<script" not in text
    assert "alert(" in text
    assert "<b>bold" not in text
    assert "<i>title" not in text
    assert "&lt;u&gt;" in text
    # a rung that nobody knows, in 3 of 6 windows, is shown by its name
    assert "Answered by: source 50 %, &lt;dreams&gt; 50 %." in text
    assert '<td class="text">source 50 %, &lt;dreams&gt; 50 %</td>' in text


def test_harm_is_said_and_named() -> None:
    report = summarise(two_devices())
    bad = [text for tone, text in verdicts(report) if tone == "bad"]
    assert any("b (\N{MINUS SIGN}50.0)" in text for text in bad)


def test_loss_conflicts_and_an_unequal_offline_run_are_bad_news() -> None:
    report = summarise(two_devices()) | {"lost": 3, "conflicts": 1}
    columns = {"labels": 2, "shift.magnitude": 6}
    report["offline"] = {"equal": False, "differing": 2, "differing_columns": columns, "bit_equal": False}
    bad = " ".join(text for tone, text in verdicts(report) if tone == "bad")
    assert "3 of 6 windows were lost" in bad
    assert "other bytes" in bad
    assert "other labels for 2 of the 6 windows; windows that differ, by column: labels 2, shift.magnitude 6" in bad


def test_numbers_that_differ_are_named_where_the_labels_are_the_same() -> None:
    report = summarise(two_devices())
    columns = {"source.probabilities": 1}
    report["offline"] = {"equal": True, "differing": 0, "differing_columns": columns, "bit_equal": False}
    said = [text for tone, text in verdicts(report) if tone == "plain"]
    assert any("the same labels; windows that differ, by column: source.probabilities 1" in text for text in said)


def test_a_run_without_any_answer_still_makes_a_page(tmp_path: Path) -> None:
    nothing = join([Published("a", SESSION, 0, (0, 1))], [], [], [], {0: 0, 1: 0})
    assert "2 of 2 windows were lost" in page(tmp_path, nothing)
