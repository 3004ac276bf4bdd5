"""Meta-training: teach a generator on shifted, labelled source windows; stop by groups of the source held out.

An update draws episodes, lets the generator act, and asks for right answers:
`acclimate.adaptation.generators.meta_train_mgg`, `acclimate.adaptation.generators.meta_train_generalizeformer`. Every
so many updates the generator is judged on fixed episodes of the held-out groups, by cross-entropy; the best weights are
kept, and training ends when they have not changed for a while. Targets are never seen.

All that a run knows is a flat mapping of tensors (`MetaState`), so that a killed run goes on from its last checkpoint
to the same result, bit for bit on one machine. Several processes share the episodes of each update and the mean of
their gradients (`Share`), and so do what one process does, up to rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.generator import Generator, Settings
from acclimate.adaptation.generators.meta_task import ALONE, Check, MetaState, MetaTask, Share, state_part
from acclimate.adaptation.generators.meta_train_generalizeformer import GeneralizeFormerTraining
from acclimate.adaptation.generators.meta_train_mgg import MggTraining
from acclimate.adaptation.generators.mgg import MggSettings
from acclimate.adaptation.generators.valid_range import ValidRange
from acclimate.adaptation.state.optimizers import adam_start

__all__ = ["ALONE", "Check", "MetaState", "MetaTrained", "Share", "default_updates", "meta_train", "start_state"]

_PATIENCE = 8  # checks


@dataclass(frozen=True, eq=False)
class MetaTrained:
    """The result.

    Attributes:
        generator: The generator with the best weights.
        checks: All on shifted episodes of held-out groups, in order.
        best: The check whose weights were kept.
        unshifted: The figures of these weights at their share of steps, on streams of the whole source without shift.
        updates: The number of updates made.
    """

    generator: Generator
    checks: tuple[Check, ...]
    best: Check
    unshifted: Check
    updates: int

    @property
    def helps(self) -> bool:
        """Say whether it beat the source on the held-out groups."""
        return self.best.loss < self.best.source_loss


Progress = Callable[[int, int, float, Check | None], None]  # updates done, at most, loss of the last, last check


def default_updates(settings: Settings) -> int:
    """Return after how many updates a run ends at the latest."""
    return 32 if isinstance(settings, MggSettings) else 400


def meta_train(
    model: nn.Module,
    source: Recordings,
    settings: Settings,
    seed: int,
    updates: int | None = None,
    state: MetaState | None = None,
    keep: Callable[[MetaState], None] = lambda state: None,
    progress: Progress | None = None,
    device: str = "cpu",
    share: Share = ALONE,
) -> MetaTrained:
    """Meta-train a generator for a source model.

    Args:
        model: Trained classifier in evaluation mode.
        source: All labelled source windows.
        settings: The settings of the generator.
        seed: The seed of the initial weights, the groups held out, and all episodes.
        updates: The most updates, from 1; see `default_updates`.
        state: The state to go on from, given to ``keep`` by an earlier run with the same arguments.
        keep: A function called with the state after every check.
        progress: A function called after every update.
        device: The device on which torch computes.
        share: See `Share`; by default this process does everything.

    Raises:
        ConfigError: ``updates`` is below 1, the state is of another training, or processes cannot share evenly.
        DataError: The source is too small, or training leads to numbers that are not finite.
    """
    updates = default_updates(settings) if updates is None else updates
    if updates < 1:
        raise ConfigError(f"updates: expected at least 1, got {updates}")
    if not np.isfinite(source.windows).all():
        raise DataError("expected finite windows to meta-train on, found missing or infinite samples", "not_finite")
    task = MetaTask(model, source, seed, device, share)
    training: _Training
    if isinstance(settings, MggSettings):
        training = MggTraining(task, settings)
    else:
        training = GeneralizeFormerTraining(task, settings)
    state = start_state(training, seed) if state is None else _resumed(state, training, seed, device)
    while int(state["update"]) < updates and not _out_of_patience(state, training.check_every):
        number = int(state["update"])
        state, loss = training.advance(state, number, number / updates)
        state = {**state, "update": state["update"] + 1}
        check = None
        if (number + 1) % training.check_every == 0 or number + 1 == updates:
            check = training.check(state, number + 1)
            state = _judged(state, check)
            keep(state)
        if progress is not None:
            progress(number + 1, updates, loss, check)
    checks = _checks(state)
    best = min(checks, key=lambda check: check.loss)
    step_share, unshifted = training.finished(state, best.update)
    return MetaTrained(
        Generator(
            settings,
            {name: value.cpu() for name, value in state_part(state, "best/").items()},
            ValidRange(*state["range"].tolist()),
            step_share,
        ),
        checks,
        best,
        unshifted,
        int(state["update"]),
    )


_Training = MggTraining | GeneralizeFormerTraining


def start_state(training: _Training, seed: int) -> MetaState:
    """Return the state before any update."""
    weights = training.weights
    adam = adam_start(weights)
    return {
        **{f"weights/{name}": value for name, value in weights.items()},
        **{f"best/{name}": value for name, value in weights.items()},
        **{f"adam/{name}": value for name, value in adam.items()},
        "seed": torch.tensor(seed),
        "update": torch.tensor(0),
        "range": torch.zeros(2, dtype=torch.float64),
        "checks": torch.zeros(0, 5, dtype=torch.float64),
    }


def _resumed(state: MetaState, training: _Training, seed: int, device: str) -> MetaState:
    start = start_state(training, seed)
    shapes = [{name: value.shape for name, value in each.items() if name != "checks"} for each in (start, state)]
    if shapes[0] != shapes[1] or int(state["seed"]) != seed:
        raise ConfigError("the checkpoint is of another training: expected the same network, settings and seed")
    return {name: value.to(start[name].device) for name, value in state.items()}


def _judged(state: MetaState, check: Check) -> MetaState:
    best = [float(row[1]) for row in state["checks"]]
    row = torch.tensor(
        [[check.update, check.loss, check.source_loss, check.accuracy, check.source_accuracy]], dtype=torch.float64
    )
    judged = {**state, "checks": torch.cat((state["checks"], row))}
    if not best or check.loss < min(best):
        judged.update({f"best/{name}": value for name, value in state_part(state, "weights/").items()})
    return judged


def _checks(state: MetaState) -> tuple[Check, ...]:
    return tuple(Check(int(row[0]), *row[1:]) for row in state["checks"].tolist())


def _out_of_patience(state: MetaState, check_every: int) -> bool:
    checks = _checks(state)
    if not checks:
        return False
    best = min(checks, key=lambda check: check.loss)
    return checks[-1].update - best.update >= _PATIENCE * check_every
