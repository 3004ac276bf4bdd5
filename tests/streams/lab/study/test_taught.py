"""What was taught for a source is used by the code that would teach it the same, and by no other."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from acclimate.adaptation.alignment.aligned import VARIANTS
from acclimate.adaptation.errors import ContractError
from acclimate.streams.lab.making.facts_file import write_facts_file
from acclimate.streams.lab.study.jobs import Teach
from acclimate.streams.lab.study.taught import ALIGNMENTS, GENERATORS

FACTS = {
    **{"name": "cta", "seed": 0, "recipe": "none", "settings": asdict(VARIANTS["cta"]), "seconds": 1.5},
    **{"code": "0" * 12, "unsafe": ["gain"], "ssl_mean": 1.0, "ssl_std": 0.5, "matched": 0.75, "mismatched": 0.25},
}


def test_facts_come_in_the_order_of_variants_and_lost_variants_are_left_out(tmp_path: Path) -> None:
    for seed, name in ((1, "rec-ttt"), (0, "rec-ttt"), (0, "cta"), (0, "gone")):
        facts = {**FACTS, "name": name, "seed": seed}
        write_facts_file(ALIGNMENTS.path(tmp_path, "none", seed, name), {"x": torch.zeros(1)}, facts)
    found = ALIGNMENTS.read_facts(tmp_path)
    assert [(facts.name, facts.seed) for facts in found] == [("cta", 0), ("rec-ttt", 0), ("rec-ttt", 1)]
    assert (found[0].matched, found[0].mismatched) == (0.75, 0.25)
    assert GENERATORS.read_facts(tmp_path) == []


@pytest.mark.parametrize("change", [{"settings": {"width": 1}}, {"figure": 1.0}])
def test_an_encoder_of_other_settings_or_fields_is_refused_with_the_way_out(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = ALIGNMENTS.path(tmp_path, "none", 0, "cta")
    write_facts_file(path, {"x": torch.zeros(1)}, {**FACTS, **change})
    with pytest.raises(ContractError, match="--again cta makes it anew"):
        ALIGNMENTS.read(tmp_path, "none", 0)


def test_methods_that_share_an_encoder_need_it_once() -> None:
    assert ALIGNMENTS.needed(["source", "cta", "cta-frozen", "rec-ttt", "mgg"]) == ["cta", "rec-ttt"]
    assert GENERATORS.needed(["source", "cta", "mgg"]) == ["mgg"]


def test_a_teaching_says_what_it_teaches_and_for_which_source() -> None:
    assert str(Teach("generator", 2, "none", "mgg")) == "meta-training of mgg for source none, seed 2"
    assert str(Teach("alignment", 0, "gain:1", "cta")) == "alignment of cta with source gain:1, seed 0"
