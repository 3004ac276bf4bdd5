"""A run over domains: nothing is known before its time, and what a frozen model forgets is nothing."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from acclimate.adaptation.continual.experiment import Domain, Feedback, Outcome, run
from acclimate.adaptation.continual.learner import Arrived, Learner
from acclimate.adaptation.continual.settings import LearnerSettings
from tests.adaptation.continual.test_learner import SOURCE, task


def domain(name: str, turned: bool, seed: int, count: int = 60) -> Domain:
    learn, judge = task(seed, turned, count), task(seed + 50, turned, 40)
    return Domain(name, learn.windows, learn.labels, judge.windows, judge.labels)


DOMAINS = (domain("a", True, 1), domain("b", False, 2))


def ran(
    method: str = "naive", domains: tuple[Domain, ...] = DOMAINS, feedback: Feedback | None = None, steps: int = 40
) -> Outcome:
    settings = LearnerSettings(method, learning_rate=0.05, steps=steps, batch=16, recent=16, memory=60)
    learner = Learner(SOURCE, task(0, turned=False), 2, settings, seed=0)
    ticks = itertools.count()
    feedback = feedback or Feedback(share=0.5, delay=10, every=4)
    return run(learner, domains, domain("source", False, 0), feedback, 2, 0, clock=lambda: float(next(ticks)))


def test_an_answer_does_not_know_a_label_before_it_has_arrived() -> None:
    first = domain("a", True, 1, count=160)
    changed = first.labels.clone()
    changed[30:] = 1 - changed[30:]
    plain = ran(domains=(first,)).right[0]
    other = ran(domains=(replace(first, labels=changed),)).right[0]
    known_at = 30 + 10  # the label of window 30 is there once window 40 has come
    assert np.array_equal(plain[:30], other[:30])
    assert np.array_equal(plain[30:known_at], ~other[30:known_at])  # same answers, turned truth
    assert not np.array_equal(plain[known_at:], ~other[known_at:])


def test_a_learner_that_takes_no_steps_is_the_source_throughout() -> None:
    settings = LearnerSettings("naive", learning_rate=1e-30, batch=16)
    learner = Learner(SOURCE, task(0, turned=False), 2, settings, seed=0)
    found = run(learner, DOMAINS, domain("source", False, 0), Feedback(0.5, 10, 4), 2, 0, clock=lambda: 0.0)
    assert (found.matrix.forgetting, found.matrix.backward_transfer, found.matrix.forward_transfer) == (0, 0, 0)
    assert found.source_accuracy.tolist() == [1.0, 1.0, 1.0]
    for right, source_right in zip(found.right, found.source_right, strict=True):
        assert np.array_equal(right, source_right)
    assert found.efficiency == pytest.approx(float(found.matrix.start.mean()))


def test_all_labels_are_given_and_each_update_is_counted_and_timed() -> None:
    found = ran()
    assert found.labels == 60
    assert found.steps % 40 == 0
    calls = 2 * (60 // 4 + 1)  # of `learn`; each takes one tick, and so does a step's share
    assert found.seconds_per_step == pytest.approx(calls / found.steps)


def test_replay_remembers_the_first_domain_where_naive_steps_do_not() -> None:
    naive, replayed = ran("naive"), ran("er")
    assert naive.matrix.forgetting > 0.3
    assert replayed.matrix.forgetting < 0.1
    assert replayed.source_accuracy[-1] > 0.9
    assert replayed.matrix.values[0, 0] > replayed.matrix.start[0] + 0.3


def test_wrong_labels_reach_the_learner_and_not_the_scores() -> None:
    seen: list[Arrived] = []

    class Listener(Learner):
        def learn(self, state, arrived, finish=False):  # type: ignore[no-untyped-def]
            seen.append(arrived)
            return super().learn(state, arrived, finish)

    learner = Listener(SOURCE, task(0, turned=False), 2, LearnerSettings("naive", learning_rate=1e-30), seed=0)
    big = domain("a", False, 1, count=400)
    found = run(learner, [big], domain("source", False, 0), Feedback(1.0, 0, 50, wrong=0.1), 2, 0, clock=lambda: 0.0)
    told = torch.cat([arrived.labels for arrived in seen])
    assert float((told != big.labels).float().mean()) == pytest.approx(0.1, abs=0.04)
    assert found.right[0].mean() > 0.99
