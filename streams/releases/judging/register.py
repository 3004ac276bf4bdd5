"""Register a bundle and judge it, or judge a registered version again.

    sign manifest -> gates -> version in MLflow -> signed verdict in the history -> tag and alias in MLflow

Killed between any two steps, nothing is half true: a version without a verdict is released by nobody, and a verdict
without its tag counts all the same. `register` of the same folder goes on with the version that is there, and so does
`judge_again`; one verdict more does no harm, for the newest counts.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.any_bundle import AnyBundle, bundle_kind, manifest_signature, read_any_bundle
from acclimate.registry.bundles.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, Card
from acclimate.registry.bundles.member import Kind
from acclimate.registry.catalogue import Catalogue, model_name
from acclimate.registry.folder import read_file, replace_file
from acclimate.registry.gates.rules import GatePolicy, gates_digest
from acclimate.registry.releases.verdict import Verdict, sign_verdict
from acclimate.registry.trust.envelope import key_id, public_hex
from acclimate.registry.trust.trust import Trust
from acclimate.streams.releases.history import read_history, send_statement
from acclimate.streams.releases.judging.drawing import accuracy_per_group
from acclimate.streams.releases.judging.judge import Judged, Progress, card_of, judge_bundle

__all__ = ["Desk", "check_key", "judge_again", "register"]


@dataclass(frozen=True)
class Desk:
    """Where bundles are judged.

    Attributes:
        settings: Broker and fleet.
        catalogue: The fleet's catalogue.
        trust: Whom the fleet believes.
        key: That signs bundles and verdicts.
        policy: Rules of the gates.
        by: Who judges, for the history; a name that nothing proves.
        now_ms: Present time, milliseconds since 1970.
    """

    settings: Settings
    catalogue: Catalogue
    trust: Trust
    key: Ed25519PrivateKey
    policy: GatePolicy
    by: str
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


def check_key(desk: Desk) -> None:
    """Refuse a key that nobody would believe, before anything is computed.

    Raises:
        ConfigError: The fleet has no such gate key now.
    """
    if key_id(public_hex(desk.key)) not in desk.trust.keys_of("gate", desk.now_ms()):
        raise ConfigError(
            f"the gate key is none that fleet {desk.trust.fleet} believes now; give the gate.pem that belongs to its "
            "trust.json, or make one with `acclimate keys rotate gate`"
        )


def register(
    desk: Desk, folder: Path, force: str | None = None, progress: Progress = lambda gate: None
) -> tuple[Verdict, bool]:
    """Judge the bundle in a folder and register it; return the signed verdict, and whether the version is new.

    A bundle that fails is registered too, so that people can look at it; the verdict keeps it from being released. One
    that passes gets the alias ``candidate``.

    Args:
        desk: Where.
        folder: The bundle's folder; ``manifest.sig`` is written into it.
        force: Why it may be released although gates fail.
        progress: Called before each gate.

    Raises:
        CatalogueError: MLflow does not answer.
        ConfigError: The key is not believed, or a validation set does not fit.
        ContractError: The folder holds no whole bundle; nothing is registered.
        KafkaError: The broker does not answer; without it no verdict reaches the history, and none counts.
    """
    check_key(desk)
    kind = bundle_kind(folder)
    bundle = read_any_bundle(folder, kind)
    manifest = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    replace_file(folder / SIGNATURE_FILE, manifest_signature(manifest, desk.key))
    history = read_history(desk.settings, desk.trust)
    judged = judge_bundle(desk.settings, desk.catalogue, history, bundle, desk.policy, progress)
    version = _registered(desk.catalogue, kind, bundle.digest, folder)
    new = version is None
    if version is None:
        parameters, metrics = _training(bundle, judged)
        plots = accuracy_per_group(judged.compared)
        tags = {"bundle": bundle.digest}
        version = desk.catalogue.register(kind, folder, parameters, metrics, plots, tags).version
    return _conclude(desk, kind, version, bundle, judged, force), new


def judge_again(
    desk: Desk, kind: Kind, version: int, force: str | None = None, progress: Progress = lambda gate: None
) -> Verdict:
    """Judge a registered version: because another champion is in force now, or `register` was killed halfway.

    Args:
        desk: Where.
        kind, version: The kind and version of the registered model.
        force: Why it may be released although gates fail.
        progress: Called before each gate.

    Raises:
        CatalogueError: MLflow does not answer, or has no such version.
        ConfigError: The key is not believed, or a validation set does not fit.
        ContractError: The version is no bundle.
        KafkaError: The broker does not answer.
    """
    check_key(desk)
    bundle = desk.catalogue.download(kind, version).bundle
    history = read_history(desk.settings, desk.trust)
    judged = judge_bundle(desk.settings, desk.catalogue, history, bundle, desk.policy, progress)
    return _conclude(desk, kind, version, bundle, judged, force)


def _registered(catalogue: Catalogue, kind: Kind, digest: str, folder: Path) -> int | None:
    """Return the version that has this very bundle and signature already; None where there is none."""
    signature = read_file(folder, SIGNATURE_FILE, MAX_MANIFEST_BYTES)
    manifest = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    for each in catalogue.versions(kind):
        if each.tags.get("bundle") == digest:
            files = catalogue.download(kind, each.version).files
            if (files.get(MANIFEST_FILE), files.get(SIGNATURE_FILE)) == (manifest, signature):
                return each.version
    return None


def _conclude(desk: Desk, kind: Kind, version: int, bundle: AnyBundle, judged: Judged, force: str | None) -> Verdict:
    """Sign the verdict, append it to the history, and only then show it in MLflow."""
    failed = any(finding.outcome == "failed" for finding in judged.findings)
    verdict = Verdict(
        fleet=desk.trust.fleet,
        at_ms=desk.now_ms(),
        kind=kind,
        name=model_name(desk.settings.fleet, kind),
        version=version,
        digest=bundle.digest,
        champion=judged.champion,
        source=judged.source,
        policy=gates_digest(desk.policy),
        findings=judged.findings,
        forced=force if failed else None,
        by=desk.by,
    )
    send_statement(desk.settings, sign_verdict(verdict, desk.key))
    outcome = "forced" if verdict.forced else "passed" if verdict.passed else "failed"
    desk.catalogue.set_tag(kind, version, "gates", outcome)
    if verdict.passed:
        desk.catalogue.set_alias(kind, "candidate", version)
    return verdict


def _training(bundle: AnyBundle, judged: Judged) -> tuple[Card, dict[str, float]]:
    """Return the parameters of the training and the metrics of the gates, for MLflow's page."""
    card = card_of(bundle)
    metrics = {name: value for name, value in card.items() if isinstance(value, float)}
    parameters: Card = {name: value for name, value in card.items() if name not in metrics}
    parameters |= {"bundle": bundle.digest, "source": judged.source, "champion": judged.champion}
    parameters |= {f"validation {name} sha256": digest for name, digest in judged.data.items()}
    for finding in judged.findings:
        for name, value in finding.figures.items():
            if not isinstance(value, str):
                metrics[f"gate {finding.gate} {name}"] = float(value)
    return parameters, metrics
