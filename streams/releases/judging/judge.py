"""Run the gates on a bundle: fetch what it is compared with, let both answer the same windows, ask gate after gate."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ContractError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.aligned_bundle import AlignedBundle
from acclimate.registry.bundles.any_bundle import AnyBundle, made_for
from acclimate.registry.bundles.manifest import Card
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.registry.catalogue import Catalogue
from acclimate.registry.gates.anchor import anchor
from acclimate.registry.gates.answers import Answers, Compared
from acclimate.registry.gates.contract import contract
from acclimate.registry.gates.evaluation import evaluation
from acclimate.registry.gates.rules import GatePolicy
from acclimate.registry.gates.shadow import shadow
from acclimate.registry.gates.shifts import shifts
from acclimate.registry.releases.history import History
from acclimate.registry.releases.verdict import Finding, GateName
from acclimate.streams.releases.judging.answering import Answerer, make_answerer
from acclimate.streams.releases.judging.in_force import candidate_source, source_in_force, stable_member, stored_bundle
from acclimate.streams.releases.judging.validation import LoadedSet, load_set, shifted_sets
from acclimate.streams.wire.feature_reader import FeatureReader

__all__ = ["GATES", "Judged", "Progress", "card_of", "judge_bundle"]

GATES: tuple[GateName, ...] = get_args(GateName)
_SHADOW_BYTES = 64 * 2**20

Progress = Callable[[GateName], None]


@dataclass(frozen=True)
class Judged:
    """What came of it.

    Attributes:
        findings: One per gate, in the order of `GATES`.
        source: Digest of the source that the bundle runs with.
        champion: Digest of the bundle of its kind that is in force; None where there is none.
        compared: Answers to the validation sets.
        data: SHA-256 of every validation set's file, by name.
    """

    findings: tuple[Finding, ...]
    source: str
    champion: str | None
    compared: tuple[Compared, ...]
    data: Mapping[str, str]


@dataclass(frozen=True)
class _Pair:
    """Candidate and champion, ready to answer; the champion is None where nothing is in force."""

    candidate: Answerer
    champion: Answerer | None

    def compare(self, loaded: LoadedSet) -> Compared:
        """Let both answer a set, each device's stream from a fresh start."""
        split = loaded.split
        champion = None if self.champion is None else _answers(self.champion, split.windows, split.streams())
        candidate = _answers(self.candidate, split.windows, split.streams())
        return Compared(loaded.name, split.labels, split.groups, candidate, champion)


def judge_bundle(
    settings: Settings,
    catalogue: Catalogue,
    history: History,
    bundle: AnyBundle,
    policy: GatePolicy,
    progress: Progress = lambda gate: None,
) -> Judged:
    """Run all gates; those that come after a failed contract or canary have nothing to judge and are skipped.

    A generator or aligned encoder of which none is in force is compared with its source alone.

    Args:
        settings: Broker and fleet.
        catalogue: Has the bundles in force.
        history: Says which they are.
        bundle: The candidate.
        policy: Rules.
        progress: Called before each gate.

    Raises:
        CatalogueError: MLflow does not answer.
        ConfigError: A validation set does not fit.
        ContractError: MLflow holds something else than what is in force, or that fails its self-test here.
        KafkaError: The broker does not answer.
    """
    progress("contract")
    kind = bundle.manifest.kind
    in_force = source_in_force(catalogue, history)
    offered = {"itself": bundle} if isinstance(bundle, Bundle) else _offered(catalogue, history, in_force)
    wanted = bundle.digest if isinstance(bundle, Bundle) else made_for(bundle)[1] or ""
    source = next((each for each in offered.values() if each.digest == wanted), None)
    own = stable_member(history, kind)
    champion = in_force if kind == "source" else stored_bundle(catalogue, kind, own) if own else None
    found = [contract(bundle, source, in_force, {what: each.digest for what, each in offered.items()})]
    answerer = None
    if source is not None and found[0].outcome != "failed":
        progress("canary")
        answerer, finding = _canary(bundle, source)
        found.append(finding)
    told = Judged((), wanted, own.digest if own else None, (), {})
    if source is None or answerer is None:
        why = f"gate {found[-1].gate} failed"
        skipped = [Finding(gate=gate, outcome="skipped", message=why) for gate in GATES[len(found) :]]
        return Judged((*found, *skipped), told.source, told.champion, (), {})

    pair = _Pair(answerer, _champion(champion, in_force, None if kind == "source" else source))
    progress("evaluation")
    cards = [card_of(bundle), *([] if kind == "source" else [card_of(source)])]
    loaded = [load_set(each, source, cards) for each in policy.validation]
    compared = [pair.compare(each) for each in loaded]
    names = source.manifest.class_names
    found.append(_finding("evaluation", lambda: evaluation(compared, names, policy.evaluation)))
    progress("shifts")
    shifted = (pair.compare(each) for whole in loaded for each in shifted_sets(whole, policy.shifts))
    found.append(_finding("shifts", lambda: shifts(list(shifted), policy.shifts)))
    progress("anchor")
    found.append(anchor(_weights(bundle), _weights(champion) if champion else None, policy.anchor))
    progress("shadow")
    found.append(_shadow(settings, source, pair, policy))
    data = {each.name: each.sha256 for each in loaded}
    return Judged(tuple(found), told.source, told.champion, tuple(compared), data)


def card_of(bundle: AnyBundle) -> Card:
    """Return what a manifest remembers of the training."""
    return bundle.manifest.training if isinstance(bundle, Bundle) else bundle.manifest.card


def _offered(catalogue: Catalogue, history: History, in_force: Bundle | None) -> Mapping[str, Bundle]:
    """Return the sources that a generator or an aligned encoder may be made for."""
    offered = {} if in_force is None else {"the source in force": in_force}
    candidate = candidate_source(catalogue, history)
    if candidate is not None:
        offered[f"candidate version {candidate[0]}"] = candidate[1]
    return offered


def _canary(bundle: AnyBundle, source: Bundle) -> tuple[Answerer | None, Finding]:
    try:
        answerer = make_answerer(bundle, source)
    except ContractError as error:
        return None, Finding(gate="canary", outcome="failed", message=str(error)[:1000])
    windows = len(bundle.canary["windows"])
    message = f"{windows} windows are answered as when it was made"
    return answerer, Finding(gate="canary", outcome="passed", message=message, figures={"windows": windows})


def _champion(champion: AnyBundle | None, in_force: Bundle | None, alone: Bundle | None) -> Answerer | None:
    """Return who answers today: the champion, else the source alone (``alone``) where a source is no candidate."""
    if champion is not None and in_force is not None:
        return make_answerer(champion, in_force)
    return None if alone is None else make_answerer(alone, alone)


def _answers(answerer: Answerer, windows: npt.NDArray[np.float32], streams: Iterable[tuple[str, slice]]) -> Answers:
    parts = [answerer(windows[part]) for _, part in streams]
    return Answers(np.concatenate([p.answered for p in parts]), np.concatenate([p.plain for p in parts]))


def _finding(gate: GateName, judged: Callable[[], Finding]) -> Finding:
    """Return what a gate finds; answers that are not finite fail it."""
    try:
        return judged()
    except ContractError as error:
        return Finding(gate=gate, outcome="failed", message=str(error)[:1000])


def _weights(bundle: AnyBundle) -> Mapping[str, npt.NDArray[np.float32]]:
    return bundle.tensors if isinstance(bundle, Bundle | AlignedBundle) else bundle.weights


def _shadow(settings: Settings, source: Bundle, pair: _Pair, policy: GatePolicy) -> Finding:
    rules = policy.shadow
    if not rules.windows:
        return Finding(gate="shadow", outcome="skipped", message="the policy asks for no windows")
    of: dict[str, list[npt.NDArray[np.float32]]] = defaultdict(list)
    seen: set[str] = set()
    spec = source.spec
    with FeatureReader(settings, spec.channels, spec.length, source.manifest.sampling_rate_hz) as reader:
        for placed in reader.recent(rules.windows, _SHADOW_BYTES):
            events = placed.batch.event_ids()
            fresh = [i for i, event in enumerate(events) if event not in seen]  # records may come twice
            seen.update(events)
            if fresh:
                of[placed.batch.device].append(placed.batch.windows[fresh])
        refused = reader.refused.total()
    streams = {device: np.concatenate(parts) for device, parts in sorted(of.items())}
    devices = np.repeat(np.array([*streams], dtype=np.str_), [len(windows) for windows in streams.values()])
    empty = np.zeros((0, source.spec.classes), np.float32)
    champion = None if pair.champion is None else _stacked(pair.champion, [*streams.values()], empty)
    return shadow(devices, _stacked(pair.candidate, [*streams.values()], empty), champion, refused, rules)


def _stacked(
    answerer: Answerer, streams: Sequence[npt.NDArray[np.float32]], empty: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    return np.concatenate([empty, *(answerer(windows).answered for windows in streams)])
