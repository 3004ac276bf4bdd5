"""Fine-tuning on one group: what is counted as seen, unseen and the source's own."""

from acclimate.adaptation.continual.experiment import Domain
from acclimate.adaptation.continual.learner import Learner
from acclimate.adaptation.continual.settings import LearnerSettings
from benchmarks.one_group import changes, markdown
from tests.adaptation.continual.test_learner import SOURCE, accuracy, task


def domain(turned: bool, seed: int) -> Domain:
    learn, judge = task(seed, turned, 60), task(seed + 50, turned, 40)
    return Domain(str(turned), learn.windows, learn.labels, judge.windows, judge.labels)


def test_the_group_gains_and_what_is_like_the_source_loses() -> None:
    settings = LearnerSettings("naive", learning_rate=0.05, steps=60, recent=100)
    learner = Learner(SOURCE, task(0, turned=False), 2, settings, seed=0)
    domains = [domain(True, 1), domain(False, 2), domain(True, 3)]
    assert accuracy(SOURCE, task(9, turned=True)) == 0.0
    found = list(changes(learner, domains, domain(False, 4), groups=1))
    own, unseen, at_source = found[0]
    assert len(found) == 1
    assert own > 0.9  # turned; fine-tuned on
    assert at_source < -0.1
    assert own / 2 - 1 < unseen < own  # of the two others one is turned and gains, one is as the source and loses


def test_the_table_has_a_row_per_line() -> None:
    page = markdown([{"recordings": "x", "the group": "+1.0"}, {"recordings": "y", "the group": "-1.0"}])
    assert page.splitlines() == ["| recordings | the group |", "|---|---|", "| x | +1.0 |", "| y | -1.0 |"]
