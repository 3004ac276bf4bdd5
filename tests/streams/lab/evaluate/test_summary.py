"""Tables from rows that do not fit each other, and verdicts that could not be reached."""

from dataclasses import replace

from acclimate.adaptation.methods.policy_settings import PolicySettings, RungScore
from acclimate.streams.lab.evaluate.lines import Line
from acclimate.streams.lab.evaluate.rows import Row
from acclimate.streams.lab.evaluate.summary import HEAD, _corruptions, _proof, cells

ROW = Row(
    method="source",
    stream="gradual",
    batch_size=8,
    seed=0,
    group="a",
    augment="none",
    recipe="none",
    source_kind="plain",
    n=40,
    accuracy=0.5,
    macro_f1=0.5,
    worst_class_recall=0.5,
    nll=1.0,
    ece=0.1,
    change=0.0,
    change_low=0.0,
    change_high=0.0,
    harmed=False,
    gain=0.0,
    gain_low=0.0,
    gain_high=0.0,
    gain_harmed=False,
    block=5,
    blocks=8,
    label_run=5,
    corruption="spikes",
    severity=5.0,
    by_severity=((0, 20, 18), (3, 20, 10)),
    returned_accuracy=None,
    returned_change=None,
    collapsed=False,
    resets=0,
    updates=0,
    selected=0,
    adapted_share=None,
    state_policy="none",
    state_bytes=0,
    seconds_per_window=0.0,
    peak_memory_bytes=None,
    working_memory_bytes=None,
)


def columns(text: str, method: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if f"| {method} | 1 |" in line]
    return [cell.strip() for cell in line.split("|")[6:-1]]  # clean, 1, ..., 5


def test_levels_are_paired_by_name_and_not_by_place() -> None:
    other = replace(ROW, method="tent", by_severity=((0, 20, 16), (2, 5, 5), (3, 20, 14)))
    text = _corruptions([ROW, other])
    assert columns(text, "source") == ["90.0", "", "", "50.0", "", ""]
    assert columns(text, "tent") == ["-10.0", "", "", "+20.0", "", ""]


def test_levels_of_other_windows_are_left_out() -> None:
    other = replace(ROW, method="tent", by_severity=((0, 19, 16), (3, 20, 10)))
    assert columns(_corruptions([ROW, other]), "tent") == ["", "", "", "0.0", "", ""]


def test_undecided_pairs_are_counted_apart() -> None:
    small = replace(ROW, group="b", change=-1.0, harmed=None)
    bad = replace(ROW, group="c", change=-1.0, harmed=True)
    line = Line([ROW, small, bad], 3)
    assert (line.harmed, line.undecided) == (0.5, 1)
    assert dict(zip(HEAD, cells(line), strict=True))["harmed"] == "50 % (9 to 91), 1 undecided"  # two units, not three
    assert dict(zip(HEAD, cells(Line([small], 1)), strict=True))["harmed"] == "1 undecided"
    unpaired = Line([replace(small, change=None)], 1)
    assert (unpaired.harmed, unpaired.undecided) == (None, 0)


def test_only_the_chosen_rung_counts_as_its_proof() -> None:
    table = (
        RungScore("1", "prototypes", 0.5, 0.6, gate=1.0, agreement=(0.9,) * 5),
        RungScore("1", "statistics", 0.5, 0.1, gate=1.0, agreement=(0.9,) * 5),
    )
    settings = PolicySettings("prototypes", True, 0.5, 0.25, 256.0, weak=False, table=table)
    told = _proof(settings)
    assert told == "; without a gate it gained +10.0 points in the mean on 1 source devices left out of training"
    assert _proof(replace(settings, rung="source")) == ""
