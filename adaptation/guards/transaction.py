"""The update transaction: any method behind all guards, as a method of its own.

Every batch of a device passes these steps; what stands at the end is committed whole or not at all:

    (1) frozen             the source answers until the cool-down is over
    (2) periodic reset     after so many updates the method starts again
    (3) input sanity       windows that a rule refuses are answered by the source and shown to nobody else
    (4) compute            candidate state and answers of the method; the state given is the snapshot, nothing writes it
    (5) live check         answers against the source's on the same windows (diversity guard); an alarm means that the
                           state in force, not this update alone, is wrong: it is given up for the source (restored)
    (6) finite             a candidate that holds NaN, or a tensor of the network that is not finite, is rolled back to
                           the snapshot; with no update to judge, the batch is answered and (7), (8) are left out
    (7) skip               fewer than n_min reliable windows: answer, and keep the old state; methods that replace no
                           tensor of the network learn nothing and skip nothing
    (8) canary             a candidate that fails the canary set is rolled back; any other is committed and counted
    (9) freeze             3 rollbacks or restores within 20 updates: start again, after a cool-down of the source

Whenever something is rolled back or restored, the source answers the batch. The steps are RECONSTRUCTED,
and so are the details: methods answer with the state before an update, so the live check sees
an update one batch later and gives up all of the state; a batch smaller than n_min must be reliable as a whole; the
canary judges the tensors that the method replaces, at the source's statistics, and is left out where running statistics
are among them (see `canary`). The cool-down counts windows, because a guard has no clock.

Memory per device: the method's state and, at the usual settings, 3 K + 9 values. Nested guards are refused.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.guards.canary import check_canary, choose_canary
from acclimate.adaptation.guards.diversity import Diversity, DiversityGuard
from acclimate.adaptation.guards.input_sanity import REASONS, InputSanity
from acclimate.adaptation.guards.periodic_reset import device_period, reset_due
from acclimate.adaptation.guards.record import Action, GuardSettings, Record
from acclimate.adaptation.guards.reliability import reliable
from acclimate.adaptation.guards.rollback_count import RollbackCount
from acclimate.adaptation.method import Method, SourceContext, State, Step
from acclimate.adaptation.model.network import Network

__all__ = ["Guarded", "deviation"]

_PREFIX = "guard/"


def deviation(state: State, source: State) -> float:
    """Return max ||theta - theta_source|| / ||theta_source|| over the tensors that both hold; 0 where none does.

    >>> deviation({"a": torch.tensor([3.0, 5.0])}, {"a": torch.tensor([3.0, 4.0])})
    0.2
    """
    largest = 0.0
    for name in state.keys() & source.keys():
        anchor = source[name].double()
        norm, moved = float(anchor.norm()), float((state[name].double() - anchor).norm())
        largest = max(largest, moved / norm if norm > 0 else moved)  # a tensor of zeros has no relative change
    return largest


@dataclass(frozen=True, eq=False)
class _Verdict:
    """The guards' word on one computed batch."""

    action: Action
    reasons: tuple[str, ...]
    averages: State
    live: Diversity | None = None
    reliable: int = 0
    canary: tuple[float, float] = (math.nan, math.nan)
    deviation: float = math.nan


class Guarded:
    """Put a method behind the guards.

    Args:
        method: Any method but a guarded one.
        context: The source that the method was configured from.
        settings: Strictness.
        device: Identifier of the device; it decides the jitter of the periodic reset and nothing else.

    Attributes:
        canary_judges: Whether there is something for the canary set to judge.

    Raises:
        ConfigError: A setting is out of range, or the method is guarded already.
    """

    stateless = False

    def __init__(
        self, method: Method, context: SourceContext, settings: GuardSettings | None = None, device: str = ""
    ) -> None:
        self._method, self._settings = method, settings or GuardSettings()
        self.adapts = method.adapts
        self._network, self._sanity = Network(context.model), InputSanity(context)
        self._period = device_period(device, self._settings.reset_period, self._settings.reset_jitter)
        self._fresh = method.reset()
        if any(name.startswith(_PREFIX) for name in self._fresh):
            raise ConfigError(f"a state with names that begin with {_PREFIX!r}: expected a method that is not guarded")
        replaced = set(self._network.tensors) & set(self._fresh)
        self.canary_judges = (
            self._settings.canary_size > 0 and bool(replaced) and not replaced & set(self._network.statistics)
        )
        self._canary = choose_canary(context, self._settings.canary_size or 128)
        # A method on batch statistics does not agree fully with the source on the source's own windows.
        answers = method.adapt_batch(self._fresh, self._canary.windows)[1].probabilities
        agreement = (answers.argmax(dim=1) == self._canary.probabilities.argmax(dim=1)).double().mean().item()
        classes = self._network.classes
        self._diversity = DiversityGuard(classes, max(agreement, 1 / classes), self._settings.diversity)

    def reset(self) -> State:
        """Return the state of a device that was never seen: the method's, and our own names behind ``guard/``."""
        return self._joined(self._fresh, self._diversity.start(), RollbackCount.start(self._settings))

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer windows (n, C, L), finite or not, and return the state after the transaction."""
        new, step, _ = self.transact(state, windows)
        return new, step

    def transact(self, state: State, windows: Tensor) -> tuple[State, Step, Record]:
        """Do what `adapt_batch` does and return its record as well."""
        inner = {name: value for name, value in state.items() if not name.startswith(_PREFIX)}
        own = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        averages, count = {"averages": own["averages"]}, RollbackCount.of(own)
        sanity = self._sanity.check(windows)
        sane = sanity.sane  # (n,)
        with torch.no_grad():
            source = torch.softmax(self._network.forward(self._sanity.fill(windows)).logits, dim=1)  # (n, K)
        refused = dict(zip(REASONS, sanity.refused.sum(dim=0).tolist(), strict=True))
        record = Record("frozen", len(windows), int(sane.sum()), refused, updates=count.updates)

        if count.frozen_windows > 0:  # (1)
            count = count.thawed_by(len(windows))
            record = replace(record, frozen_windows=count.frozen_windows)
            return self._joined(inner, averages, count), Step(source), record
        if reset_due(count.updates, self._period):  # (2)
            inner, averages, count = dict(self._fresh), dict(self._diversity.start()), replace(count, updates=0)
            record = replace(record, periodic_reset=True, updates=0)
        resets = int(record.periodic_reset)
        if record.sane == 0:  # (3)
            record = replace(record, action="skipped", reasons=("input",))
            return self._joined(inner, averages, count), Step(source, resets=resets), record

        candidate, step = self._method.adapt_batch(inner, windows[sane])  # (4)
        verdict = self._judge(candidate, step, source[sane], averages)
        after, count = self._count(verdict.action, count, record.sane, step)
        record = replace(
            record,
            action=verdict.action,
            reasons=verdict.reasons,
            live=verdict.live,
            reliable=verdict.reliable,
            canary_drop=verdict.canary[0],
            canary_nats=verdict.canary[1],
            deviation=verdict.deviation,
            updates=count.updates,
            frozen_windows=count.frozen_windows,
        )
        if verdict.action in ("rolled_back", "restored"):
            answer = Step(source, resets=resets + int(after == "fresh"))
        else:
            probabilities = source.clone()
            probabilities[sane] = step.probabilities.detach()
            committed = verdict.action != "skipped"
            answer = Step(
                probabilities,
                updates=step.updates if committed else 0,
                resets=resets + (step.resets if committed else 0),
                selected=step.selected if committed else 0,
                receipts=step.receipts,
            )
        if after == "fresh":
            return self._joined(self._fresh, self._diversity.start(), count), answer, record
        return self._joined(candidate if after == "candidate" else inner, verdict.averages, count), answer, record

    def _judge(self, candidate: State, step: Step, source: Tensor, averages: State) -> _Verdict:
        """Let the guards look at a computed batch: (5) to (8)."""
        probabilities = step.probabilities.detach()
        if not bool(torch.isfinite(probabilities).all()):
            return _Verdict("restored", ("not_finite",), averages)
        averages, live = self._diversity.observe(averages, probabilities, source)  # (5)
        sure = int(reliable(probabilities, self._settings.reliable_share).sum())
        verdict = _Verdict("committed", (), averages, live, sure)
        if live.alarms:
            return replace(verdict, action="restored", reasons=live.alarms)
        if not self._sound(candidate):  # (6)
            return replace(verdict, action="rolled_back", reasons=("not_finite",))
        if step.updates == 0:
            return replace(verdict, action="answered")
        if self.adapts and sure < min(self._settings.n_min, len(probabilities)):  # (7)
            return replace(verdict, action="skipped", reasons=("unreliable",))
        verdict = replace(verdict, deviation=deviation(candidate, self._network.tensors))
        if not self.canary_judges:
            return verdict
        with torch.no_grad():
            new = torch.softmax(self._network.forward(self._canary.windows, candidate).logits, dim=1)
        check = check_canary(self._canary, new, self._settings.canary_drop, self._settings.canary_nats)  # (8)
        verdict = replace(verdict, canary=(check.accuracy_drop, check.divergence_nats))
        return verdict if check.passed else replace(verdict, action="rolled_back", reasons=("canary",))

    def _sound(self, candidate: State) -> bool:
        """Tell whether no value is NaN and no tensor of the network infinite; empty slots of memories may be."""
        for name, value in candidate.items():
            sound = torch.isfinite(value) if name in self._network.tensors else ~torch.isnan(value)
            if not bool(sound.all()):
                return False
        return True

    def _count(self, action: Action, count: RollbackCount, windows: int, step: Step) -> tuple[str, RollbackCount]:
        """Return which state stands after a verdict (``old``, ``candidate``, ``fresh``) and the new count: (8), (9)."""
        if action == "skipped":
            return "old", count
        count = count.tried(windows, self._settings)
        if action in ("committed", "answered"):
            return "candidate", replace(count, updates=count.updates + step.updates)
        count = count.rolled_back(self._settings)
        if action == "restored" or count.frozen_windows > 0:
            return "fresh", replace(count, updates=0)
        return "old", count

    def _joined(self, inner: State, averages: State, count: RollbackCount) -> State:
        own = {**averages, **count.tensors()}
        return {**inner, **{f"{_PREFIX}{name}": value for name, value in own.items()}}
