"""What a source decided once is read as it was kept, by earlier versions too."""

import json
from pathlib import Path

import pytest

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.model.robust import Score
from acclimate.streams.lab.study.choices import KeptChoice, read_choice, read_kept_policy, recipes_of

CHOICE = {
    "recipe": "gain,noise:0.5",
    "weak": True,
    "judged_by": "simulated",
    "table": [{"candidate": "none", "condition": "a", "accuracy": 0.5, "windows": 20}],
}


def keep(folder: Path, name: str, content: object) -> None:
    (folder / "sources").mkdir(exist_ok=True)
    (folder / "sources" / name).write_text(json.dumps(content))


def test_a_choice_of_an_earlier_version_has_commas_and_no_state_of_the_code(tmp_path: Path) -> None:
    assert read_choice(tmp_path) is None
    keep(tmp_path, "choice.json", CHOICE)
    assert read_choice(tmp_path) == KeptChoice(
        "gain+noise:0.5", True, "simulated", (Score("none", "a", 0.5, 20),), None
    )
    assert recipes_of(tmp_path, ("none", "auto", "gain+noise:0.5")) == ["none", "gain+noise:0.5"]


def test_auto_has_no_recipe_before_it_has_chosen(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="has no choice of augmentation"):
        recipes_of(tmp_path, ("auto",))


def test_a_choice_with_other_fields_is_refused(tmp_path: Path) -> None:
    keep(tmp_path, "choice.json", {**CHOICE, "table": [{"candidate": "none", "score": 1}]})
    with pytest.raises(ContractError, match="another state of the code"):
        read_choice(tmp_path)


def test_a_policy_keeps_its_settings_apart_from_what_made_them(tmp_path: Path) -> None:
    row = {"device": "a", "rung": "leantta", "source_accuracy": 0.5, "accuracy": 0.75, "gate": 2.0}
    settings = {"rung": "leantta", "gated": False, "mean_limit": 1.5, "variance_limit": 2.5, "pseudo_windows": 256.0}
    content = {
        **{"seed": 3, "recipe": "none", "weak": False, "agreement_limits": [0.5] * 5},
        **settings,
        "table": [{**row, "agreement": [0.25] * 5}],
    }
    keep(tmp_path, "seed-3-none.policy", content)
    kept = read_kept_policy(tmp_path, "none", 3)
    assert kept is not None
    assert (kept.seed, kept.recipe, kept.code) == (3, "none", None)
    assert (kept.settings.mean_limit, kept.settings.agreement_limits) == (1.5, (0.5,) * 5)
    assert kept.settings.table[0].agreement == (0.25,) * 5
    assert read_kept_policy(tmp_path, "none", 4) is None
