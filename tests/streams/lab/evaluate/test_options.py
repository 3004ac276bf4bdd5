"""Options: what they accept, and what binds a folder."""

from pathlib import Path

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.streams.lab.evaluate.options import EvaluationOptions, binding, parse_choice, parse_numbers
from acclimate.streams.lab.study.recipes import parse_sources


def test_wrong_names_numbers_and_recipes_are_refused_with_what_was_expected() -> None:
    with pytest.raises(ConfigError, match="--methods: expected all or some of a, b; got 'c'"):
        parse_choice("--methods", "a,c", ("a", "b"))
    with pytest.raises(ConfigError, match="got nothing"):
        parse_choice("--methods", " ,", ("a", "b"))
    with pytest.raises(ConfigError, match="expected numbers such as 1,8,64"):
        parse_numbers("--batch-sizes", "1,x")
    with pytest.raises(ConfigError, match="numbers from 1, got 0"):
        parse_numbers("--batch-sizes", "8,0")
    with pytest.raises(ConfigError, match=r"--augment: expected none, auto or KIND"):
        parse_sources("none,blur")


def test_all_means_all_and_repeats_count_once() -> None:
    assert parse_choice("--methods", "all", ("a", "b")) == ("a", "b")
    assert parse_choice("--methods", "b, b,a", ("a", "b")) == ("b", "a")
    assert parse_sources("auto,none,gain+offset:0.5") == ("auto", "none", "gain+offset:0.5")


def test_the_plain_source_is_always_shown_first() -> None:
    assert EvaluationOptions({}, ("source",), augment=("auto",)).shown == ("none", "auto")


def test_a_folder_is_bound_to_data_and_settings_but_not_to_what_may_be_added(tmp_path: Path) -> None:
    data = tmp_path / "x.npz"
    data.write_bytes(b"one")
    one = EvaluationOptions({"data": data, "source": ("device=1",)}, ("source",))
    more = EvaluationOptions(
        {"data": data, "source": ("device=1",)}, ("source", "tent"), ("mixed",), (8,), 7, ("none",), jobs=3
    )
    assert binding(one) == binding(more)
    for changed in ({"severity": 2.0}, {"stride": 2}, {"epochs": 1}):
        assert binding(one) != binding(EvaluationOptions(one.selection, one.methods, **changed))
    before = binding(one)
    data.write_bytes(b"two")
    assert binding(one) != before
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.npz"):
        binding(EvaluationOptions({"data": tmp_path / "nothing.npz"}, ("source",)))
