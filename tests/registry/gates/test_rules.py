"""The file of rules: defaults without one, every mistake named, a digest that tells one set of rules from another."""

from pathlib import Path

import pytest

from acclimate.adaptation.errors import ConfigError
from acclimate.registry.gates.rules import GatePolicy, Policy, gates_digest, read_policy

WHOLE = """
[gates.evaluation]
accuracy_margin = 0.02
protected = ["leak"]

[gates.shifts]
kinds = ["noise+gain"]
severities = [2]

[gates.anchor]
distance_max = 1.5

[gates.shadow]
windows = 500

[[gates.validation]]
name = "east"
path = "east.npz"
where = "device=7-9"
channels = [0, 2]

[rollout]
waves = [0.1, 1.0]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rules.toml"


def test_without_a_file_every_rule_has_its_default():
    assert read_policy(None) == Policy()


def test_all_tables_are_read_and_integers_do_for_numbers(file: Path):
    file.write_text(WHOLE)
    rules = read_policy(file)
    assert rules.gates.evaluation.protected == ("leak",)
    assert (rules.gates.shifts.kinds, rules.gates.shifts.severities) == (("gain+noise",), (2.0,))
    assert rules.gates.validation[0].channels == (0, 2)
    assert rules.rollout.waves == (0.1, 1.0)
    assert rules.gates.evaluation.group_margin == GatePolicy().evaluation.group_margin


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[gates.evaluation]\nmargin = 0.1\n", "gates.evaluation.margin"),
        ("[gates.evaluation]\naccuracy_margin = 2.0\n", "gates.evaluation.accuracy_margin"),
        ('[gates.evaluation]\naccuracy_margin = "0.1"\n', "gates.evaluation.accuracy_margin"),
        ('[gates.shifts]\nkinds = ["rust"]\n', "gates.shifts.kinds"),
        ("[gates.shifts]\nseverities = [6]\n", "gates.shifts.severities"),
        ('[[gates.validation]]\nname = "a b"\npath = "x.npz"\n', "gates.validation.0.name"),
        ('[[gates.validation]]\nname = "a"\npath = "x"\n[[gates.validation]]\nname = "a"\npath = "y"\n', "one name"),
        ("[rollout]\nwaves = [0.5]\n", "rollout"),
        ("[gates\n", "TOML"),
    ],
)
def test_a_mistake_is_refused_and_named(text: str, named: str, file: Path):
    file.write_text(text)
    with pytest.raises(ConfigError, match=named.replace(".", r"\.")):
        read_policy(file)


def test_a_file_that_is_not_there_is_no_default(file: Path):
    with pytest.raises(ConfigError, match="No such file"):
        read_policy(file)


def test_the_digest_is_of_what_is_asked_and_not_of_how_it_is_written(file: Path):
    file.write_text("[gates.evaluation]\naccuracy_margin = 0.01\n")
    assert gates_digest(read_policy(file).gates) == gates_digest(GatePolicy())
    file.write_text("[gates.evaluation]\naccuracy_margin = 0.011\n")
    assert gates_digest(read_policy(file).gates) != gates_digest(GatePolicy())
    file.write_text("[rollout]\nobserve_s = 5.0\n")  # rolls out otherwise, and judges the same
    assert gates_digest(read_policy(file).gates) == gates_digest(GatePolicy())


def test_the_page_shows_the_defaults_as_they_are(file: Path):
    page = (Path(__file__).parents[3] / "docs/gates.md").read_text()
    file.write_text(page.partition("```toml\n")[2].partition("```")[0])
    shown = read_policy(file).gates
    plain = shown.model_copy(
        update={"validation": (), "evaluation": shown.evaluation.model_copy(update={"protected": ()})}
    )
    assert plain == GatePolicy()
    assert shown.evaluation.protected == ("leak",)
