"""The page and the picture of the corruptions say what the code does."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from acclimate.adaptation.data.corruptions import (
    CORRUPTIONS,
    EVALUATION_MIXTURES,
    KINDS,
    TUNING_MIXTURES,
    centre_and_scale,
)
from benchmarks.corruptions import Example, draw

PAGE = Path(__file__).parents[2] / "docs" / "corruptions.md"


def test_the_page_lists_every_kind_with_its_sizes_unit_and_half() -> None:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.read_text().splitlines()]
    listed = {row[0].strip("`"): row for row in rows if len(row) == 6 and row[0].startswith("`")}
    assert list(listed) == list(CORRUPTIONS)
    for name, kind in KINDS.items():
        _, half, _, unit, sizes, _ = listed[name]
        assert half == ("tuning" if kind.tuning else "evaluation")
        assert unit == kind.unit
        assert [float(size) for size in sizes.split()] == [float(f"{size:.3g}") for size in kind.sizes]


def test_the_page_names_every_mixture() -> None:
    text = PAGE.read_text()
    assert all(f"`{name}`" in text for name in (*TUNING_MIXTURES, *EVALUATION_MIXTURES))


def test_the_picture_shows_every_kind_that_applies_and_is_equal_each_time() -> None:
    window = np.random.default_rng(0).normal(size=(1, 2, 20)).astype(np.float32)
    example = Example("two channels", window, *centre_and_scale(window))
    kinds = ("rotation", "saturation", "slow_drift+spikes")
    picture = draw(example, kinds)
    assert draw(example, kinds) == picture
    texts = {node.text for node in ElementTree.fromstring(picture).iter() if node.tag.endswith("text")}
    assert {"saturation", "0.667", "slow_drift +", "spikes"} <= texts
    assert "rotation" not in texts  # it needs axes in threes
