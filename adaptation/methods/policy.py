"""The default of this product: follow a device without labels, but only where its own source gave reason to.

Every published way to adapt wins on one set of recordings and wrecks another. So the source's own devices are asked
first (`acclimate.adaptation.methods.policy_calibration`), which answers what may be done here:

    a rung that surely helped devices left out of the training, and cost none more than 2 points    answers always
    else device-lifetime statistics: nobody saw them help, so they wait behind a gate               answer through it
    for a source with a single device, which can prove nothing: none, but the gate is reported      the source answers

Rungs: ``leantta`` (the window's own statistics; no calibration chooses it at present), ``statistics`` (device-lifetime
BatchNorm statistics of the first half of the layers, the source counting as N pseudo-windows), ``prototypes`` (T3A), or
the last two together.

**The gate** opens while the device is farther from the source than any source device that was left out of training was
from the others. At the first BatchNorm layer, with the device's lifetime mean mu and variance var, the source counting
as N_g pseudo-windows,

    (1) g_mean = mean_c (mu_c - mu_s,c)^2 / (var_s,c + eps)
    (2) g_var  = mean_c log^2((var_c + eps) / (var_s,c + eps))
    (3) gate   = max(g_mean / mean_limit, g_var / variance_limit);   open if gate > 1

**Guards.** Windows that no working sensor sends (`acclimate.adaptation.guards.input_sanity`) get the source's answer
and leave no trace in the state. A rung that answers always is taken back, and the source answers, while its running
agreement with the source over n windows,

    (4) a <- a + (1 if both answer the same, else 0 - a) / N_a    window after window, from a = 0
        agreement = a / (1 - (1 - 1 / N_a)^n)

is below what any source device showed at that age. Any rung is taken back while it answers far fewer classes than the
source does (`acclimate.adaptation.guards.diversity`). It is computed in the shadow all the time, so it may come back.

**Periods.** All this is decided once per PERIOD windows; in between, nothing that answers changes. So a decision is a
handful of tensors and a name, which is what an adapter record carries: `answer` gives the same output wherever it is
followed, without any state, and batches of 1 and of 64 windows get the same answers. The first period of a device is
the source's.

RECONSTRUCTED: the policy is ours, after the gate and the findings of our own reference evaluation. N_g, N_a and PERIOD
are fixed for all data sets; figures of one seed on the recordings' targets were known by then (docs/evaluation.md).
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from acclimate.adaptation.guards.diversity import DiversityGuard, DiversityLimits
from acclimate.adaptation.guards.input_sanity import InputSanity
from acclimate.adaptation.lean.lean_settings import LeanSettings
from acclimate.adaptation.method import SourceContext, State, Step
from acclimate.adaptation.methods.layer_choice import first_half
from acclimate.adaptation.methods.leantta import normalise_leantta
from acclimate.adaptation.methods.policy_settings import PolicySettings, Rung
from acclimate.adaptation.methods.prototypes import admit, head_supports, templates
from acclimate.adaptation.model.moments import blend, moments, normalise_by
from acclimate.adaptation.model.network import Layer, Network, Normalise, Pass

__all__ = ["AGREEMENT_WINDOWS", "GATE_PSEUDO_WINDOWS", "PERIOD", "Decision", "Policy", "answer"]

PERIOD = 8
GATE_PSEUDO_WINDOWS = 256.0  # N_g
AGREEMENT_WINDOWS = 256.0  # N_a
_SUPPORTS = 20  # T3A's M
_EPS = 1e-5  # of the gate: a channel that is silent on the source stays finite
_VERDICTS = ("source", "first period", "inside the range", "outside the range", "proven", "agreement", "diversity")
_ANSWERING = ("outside the range", "proven")


@dataclass(frozen=True, eq=False)
class Decision:
    """The decision who answers a device's next windows: the content of an adapter record and of a receipt.

    Attributes:
        rung: The rung that answers; ``source`` whatever the rung would be, while the verdict is not to adapt.
        gate: The gate statistic (3) when it was decided.
        limit: The value that the gate must exceed; None where the gate decides nothing.
        agreement: The agreement (4) when it was decided.
        agreement_limit: The value that the agreement must reach; 0 where it decides nothing.
        verdict: ``source`` (nothing may adapt here), ``first period``, ``inside the range``, ``outside the range``,
            ``proven`` (not gated), or the guard that took the rung back: ``agreement``, ``diversity``.
        tensors: The tensors that replace the network's own, by name: statistics, and the head's weight and bias.
    """

    rung: Rung
    gate: float
    limit: float | None
    agreement: float
    agreement_limit: float
    verdict: str
    tensors: Mapping[str, Tensor]

    def receipt(self, windows: int) -> dict[str, str | float | None]:
        """Return what a receipt says of so many windows that this decision answered; ``tensors`` is a SHA-256."""
        digest = hashlib.sha256()
        for name in sorted(self.tensors):
            digest.update(name.encode() + b"\0" + self.tensors[name].contiguous().numpy().tobytes())
        return {
            "windows": windows,
            "rung": self.rung,
            "gate": self.gate,
            "limit": self.limit,
            "agreement": self.agreement,
            "agreement_limit": self.agreement_limit,
            "verdict": self.verdict,
            "tensors": digest.hexdigest() if self.tensors else None,
        }


@torch.no_grad()
def answer(network: Network, decision: Decision, windows: Tensor, lean: LeanSettings) -> Tensor:
    """Return the probabilities (n, K) that a decision gives windows (n, C, L): a function of these alone."""
    rule = _lean_rule(lean) if decision.rung == "leantta" else None
    return torch.softmax(network.forward(windows, decision.tensors, rule).logits, dim=1)


class Policy:
    """Configure the policy.

    Args:
        context: The source.
        settings: The rung and limits that the source's own devices allow.
    """

    stateless = False

    def __init__(self, context: SourceContext, settings: PolicySettings) -> None:
        self.settings = settings
        self.network = Network(context.model)
        self.lean = LeanSettings.for_layers(len(self.network.norms))
        flags = first_half(len(self.network.norms))
        self._statistics = "statistics" in settings.rung
        # The first layer is measured in any case: the gate reads it.
        self._measured = tuple(index for index, flag in enumerate(flags) if index == 0 or (flag and self._statistics))
        names = self.network.statistics
        self._names = {index: (names[2 * index], names[2 * index + 1]) for index in self._measured}
        head, tensors = self.network.head, self.network.tensors
        self._weight = f"{head}.weight"
        self._bias = f"{head}.bias" if f"{head}.bias" in tensors else None
        self._prototypes = "prototypes" in settings.rung
        self._supports = head_supports(self.network, _SUPPORTS) if self._prototypes else {}
        self._sanity = InputSanity(context)
        self._guard = DiversityGuard(self.network.classes, limits=DiversityLimits(divergence=float("inf"), agreement=0))
        statistics = tuple(name for pair in self._names.values() for name in pair) if self._statistics else ()
        self.adapts = (*statistics, *((self._weight,) if self._prototypes else ()))

    def reset(self) -> State:
        """Return a device that was never seen: the source's statistics, the head's rows, nothing decided."""
        lifetime = {name: self.network.tensors[name] for pair in self._names.values() for name in pair}
        pending = {f"pending/{name}": torch.zeros_like(tensor) for name, tensor in lifetime.items()}
        in_force = {"templates": templates(self._supports)} if self._prototypes else {}
        counts = {name: torch.zeros((), dtype=torch.int64) for name in ("windows", "pending", "verdict")}
        agreement = {name: torch.zeros((), dtype=torch.float64) for name in ("agreement", "pending/agreement")}
        start = {**counts, **agreement, **lifetime, **pending}
        return {**start, **self._supports, **in_force, **self._guard.start()}

    def decision(self, state: State) -> Decision:
        """Return the decision in force."""
        verdict = _VERDICTS[int(state["verdict"])] if int(state["windows"]) else "first period"
        rung = self.settings.rung if verdict in _ANSWERING else "source"
        return Decision(
            rung=rung,
            gate=self.gate(state),
            limit=1.0 if self.settings.gated and self.settings.rung != "source" else None,
            agreement=self.agreement(state),
            agreement_limit=self.settings.agreement_limit(int(state["windows"])),
            verdict=verdict,
            tensors=self._tensors(state) if rung != "source" else {},
        )

    def gate(self, state: State) -> float:
        """Return the gate statistic (3) of a state."""
        g_mean, g_var = self.distances(state)
        return max(g_mean / self.settings.mean_limit, g_var / self.settings.variance_limit)

    def agreement(self, state: State) -> float:
        """Return the running agreement (4) of a state, as of the last decision; 1 before the first."""
        seen = 1.0 - (1.0 - 1.0 / AGREEMENT_WINDOWS) ** int(state["windows"])
        return round(float(state["agreement"]) / seen, 6) if seen else 1.0  # full agreement is 1, not 0.9999999

    def distances(self, state: State, pseudo_windows: float = GATE_PSEUDO_WINDOWS) -> tuple[float, float]:
        """Return (1) and (2) with the source counting as so many windows; with 0, those of the device alone."""
        names = self._names[0]
        mean_s, var_s = (self.network.tensors[name].double() for name in names)
        mean, var = (state[name].double() for name in names)
        windows = float(state["windows"])
        # From N to N_g pseudo-windows: first and second moments are sums over windows, so their steps rescale.
        rescale = (self.settings.pseudo_windows + windows) / max(1.0, pseudo_windows + windows)
        mean_g = mean_s + rescale * (mean - mean_s)
        second_s = var_s + mean_s.square()
        var_g = second_s + rescale * (var + mean.square() - second_s) - mean_g.square()
        g_mean = ((mean_g - mean_s).square() / (var_s + _EPS)).mean()
        g_var = torch.log((var_g.clamp_min(0.0) + _EPS) / (var_s + _EPS)).square().mean()
        return float(g_mean), float(g_var)

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer by the decision in force; at the end of each period, decide anew."""
        sane = self._sanity.check(windows).sane  # (n,)
        windows = self._sanity.fill(windows)
        source = torch.softmax(self.network.forward(windows).logits, dim=1)  # (n, K)
        answers = source.clone()
        receipts, updates, resets = [], 0, 0
        rest = torch.nonzero(sane).flatten()
        while len(rest) > 0:
            room = PERIOD - int(state["pending"])
            rows, rest = rest[:room], rest[room:]
            decision = self.decision(state)
            state, shadow = self._observe(state, windows[rows], source[rows])
            if decision.rung != "source":
                answers[rows] = shadow
            receipts.append(decision.receipt(len(rows)))
            if int(state["pending"]) == PERIOD:
                state, updates = self._decide(state), updates + 1
                resets += decision.rung != "source" and self.decision(state).verdict in ("agreement", "diversity")
        refused = int((~sane).sum())
        if refused:
            source_only = replace(self.decision(state), rung="source", verdict="input refused", tensors={})
            receipts.append(source_only.receipt(refused))
        selected = len(windows) - refused
        return state, Step(answers, updates=updates, resets=resets, selected=selected, receipts=tuple(receipts))

    def _observe(self, state: State, windows: Tensor, source: Tensor) -> tuple[State, Tensor]:
        """Take at most a period's rest into what is pending; return that and what the rung answers, (n, K)."""
        count = int(state["pending"])
        share = len(windows) / (count + len(windows))
        new = {**state, "pending": state["pending"] + len(windows)}

        def measured(layer: Layer, x: Tensor) -> None:
            if layer.index in self._names:
                names = [f"pending/{name}" for name in self._names[layer.index]]
                new.update(zip(names, blend(state[names[0]], state[names[1]], *moments(x), share), strict=True))

        seen = self._shadow(state, windows, measured)
        answers = torch.softmax(self._logits(state, seen), dim=1)
        agreement = state["pending/agreement"]
        for same in (answers.argmax(dim=1) == source.argmax(dim=1)).tolist():
            agreement = agreement + (float(same) - agreement) / AGREEMENT_WINDOWS  # (4)
        new["pending/agreement"] = agreement
        new.update(self._guard.observe(state, answers, source)[0])
        if self._prototypes:
            memory = {name: state[name] for name in ("supports", "entropies")}
            new.update(admit(memory, seen.features, seen.logits)[0])
        return new, answers

    def _shadow(self, state: State, windows: Tensor, measure: Callable[[Layer, Tensor], None]) -> Pass:
        """Run the rung, whether it answers or not; the head is still the source's."""
        lean = _lean_rule(self.lean) if self.settings.rung == "leantta" else None

        def rule(layer: Layer, x: Tensor) -> Tensor:
            measure(layer, x)
            return lean(layer, x) if lean is not None else normalise_by(layer, x, layer.mean, layer.var)

        return self.network.forward(windows, self._replaced_statistics(state), rule)

    def _decide(self, state: State) -> State:
        """End a period: what is pending becomes the lifetime's, and a verdict falls."""
        seen = float(state["windows"])
        share = PERIOD / (self.settings.pseudo_windows + seen + PERIOD)
        new = {**state, "windows": state["windows"] + PERIOD, "pending": torch.zeros((), dtype=torch.int64)}
        for names in self._names.values():
            pending = (state[f"pending/{names[0]}"], state[f"pending/{names[1]}"])
            new.update(zip(names, blend(state[names[0]], state[names[1]], *pending, share), strict=True))
        new["agreement"] = state["pending/agreement"]
        if self._prototypes:
            new["templates"] = templates(state)
        new["verdict"] = torch.tensor(_VERDICTS.index(self._verdict(new)))
        return new

    def _verdict(self, state: State) -> str:
        if self.settings.rung == "source":
            return "source"
        if self._guard.verdict(state).alarms:
            return "diversity"
        if self.settings.gated:
            return "outside the range" if self.gate(state) > 1.0 else "inside the range"
        enough = self.agreement(state) >= self.settings.agreement_limit(int(state["windows"]))
        return "proven" if enough else "agreement"

    def _replaced_statistics(self, state: State) -> dict[str, Tensor]:
        return {name: state[name] for pair in self._names.values() for name in pair} if self._statistics else {}

    def _tensors(self, state: State) -> dict[str, Tensor]:
        tensors = self._replaced_statistics(state)
        if self._prototypes:
            tensors[self._weight] = state["templates"]
            if self._bias is not None:
                tensors[self._bias] = torch.zeros_like(self.network.tensors[self._bias])
        return tensors

    def _logits(self, state: State, seen: Pass) -> Tensor:
        return seen.features @ state["templates"].T if self._prototypes else seen.logits


def _lean_rule(settings: LeanSettings) -> Normalise:
    return lambda layer, x: normalise_leantta(settings, layer, x, layer.mean, layer.var)
