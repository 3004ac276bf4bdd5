"""Ask for a version to be released, or for the return to an earlier one: signed, or by the alias in MLflow.

The Python side of ``acclimate promote`` and ``acclimate rollback``. Asking is all that is done here: the controller
decides (`acclimate.streams.releases.controller`).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.member import Kind
from acclimate.registry.catalogue import Catalogue, model_name
from acclimate.registry.releases.approval import Action, Approval, sign_approval
from acclimate.registry.releases.history import History
from acclimate.registry.releases.release import InMode
from acclimate.registry.trust.envelope import key_id, public_hex
from acclimate.registry.trust.trust import Trust
from acclimate.streams.releases.history import HistoryReader, read_history, send_statement

__all__ = ["Asked", "Progress", "ask", "before", "digest_of", "watch"]


@dataclass(frozen=True)
class Asked:
    """What was asked for, and how: ``approval`` or ``alias``; the mode of a kind that has none is ``observe``."""

    action: Action
    kind: Kind
    version: int
    digest: str
    by: str
    mode: str

    @property
    def key(self) -> tuple[str, str]:
        """Digest and mode, as `InMode.key`."""
        return self.digest, self.mode


@dataclass(frozen=True)
class Progress:
    """Where a request stands: the epoch in force, its step, the share of devices, and why; ``ended`` with ``good``."""

    epoch: int
    step: str
    share: float
    message: str
    ended: bool = False
    good: bool = False


def ask(
    settings: Settings,
    catalogue: Catalogue,
    trust: Trust,
    action: Action,
    kind: Kind,
    version: int,
    reason: str,
    key: Ed25519PrivateKey | None,
    who: str,
    mode: str | None = None,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
) -> Asked:
    """Ask for a version.

    Args:
        settings: Broker and fleet.
        catalogue: Has the version.
        trust: Says whether approvals are needed.
        action: ``promote`` or ``rollback``.
        kind, version: The bundle's kind and version.
        reason: For the history.
        key: An approver's; needed where the fleet asks for approvals.
        who: Asks, where nobody signs; a name for the history that nothing proves.
        mode: The mode in which a source is to answer; None for that in force. Other kinds have none.
        now_ms: Present time.

    Raises:
        CatalogueError: MLflow does not answer, or has no such version.
        ConfigError: A key is needed and was not given, or is no approver's.
        KafkaError: The broker does not answer.
    """
    digest = digest_of(catalogue, kind, version)
    if kind != "source":
        mode = "observe"
    elif mode is None:  # so that what is signed is what happens
        mode = read_history(settings, trust).mode
    if key is None and trust.approvals:
        raise ConfigError(
            f"releases of fleet {trust.fleet} need {trust.approvals} signed approvals: give --key FILE or set "
            "ACCLIMATE_APPROVER_KEY"
        )
    if key is not None:
        approval = Approval(
            fleet=settings.fleet,
            at_ms=now_ms(),
            action=action,
            kind=kind,
            name=model_name(settings.fleet, kind),
            version=version,
            digest=digest,
            reason=reason,
            mode=mode,
        )
        _check_approver(key, trust, approval.at_ms)
        send_statement(settings, sign_approval(approval, key))
    if trust.approvals == 0:
        catalogue.set_tag(kind, version, "asked_by", who)
        catalogue.set_tag(kind, version, "reason", reason)
        if kind == "source":
            catalogue.set_tag(kind, version, "mode", mode)
        catalogue.set_alias(kind, "champion", version)
    return Asked(action, kind, version, digest, "alias" if key is None else "approval", mode)


def before(history: History, kind: Kind) -> InMode:
    """Return the bundle of a kind to return to, in its mode: what all had before, or in a roll-out what they have.

    Raises:
        ContractError: There is none.
    """
    newest = history.newest
    stable = newest.release.stable_of(kind) if newest else None
    if newest is None or stable is None:
        raise ContractError(f"rollback: no {kind} is in force")
    candidate = newest.release.candidate_of(kind)
    if candidate is not None and candidate.key != stable.key:
        return stable
    older = [each for each in history.was_stable(kind) if each.key != stable.key]
    if not older:
        version = stable.member.version
        raise ContractError(f"rollback: {kind} version {version} is the first one; there is nothing before it")
    return older[-1]


def watch(settings: Settings, trust: Trust, asked: Asked, limit_s: float) -> Iterator[Progress]:
    """Yield what becomes of a request, each time that something has changed, until it has ended or the time is over.

    Raises:
        KafkaError: The broker does not answer.
    """
    reader = HistoryReader(settings)
    start = read_history(settings, trust)
    begun_ms = start.newest.at_ms if start.newest else 0
    shown: Progress | None = None
    deadline = time.monotonic() + limit_s
    try:
        while time.monotonic() < deadline and (shown is None or not shown.ended):
            now = _progress(reader.read(trust), asked, begun_ms)
            if now is not None and now != shown:
                shown = now
                yield now
            time.sleep(0.5)
    finally:
        reader.close()


def _progress(history: History, asked: Asked, since_ms: int) -> Progress | None:
    newest = history.newest
    said = [
        each.remark
        for each in history.remarks
        if (each.remark.kind, each.remark.version) == (asked.kind, asked.version) and each.at_ms >= since_ms
    ]
    if newest is not None:
        release = newest.release
        stable, candidate = release.stable_of(asked.kind), release.candidate_of(asked.kind)
        if candidate is not None and candidate.key == asked.key:
            return Progress(release.epoch, release.step, release.share, release.reason)
        is_against_rollout = asked.action == "rollback" and candidate is not None
        if stable is not None and stable.key == asked.key and not is_against_rollout:
            return Progress(release.epoch, release.step, 1.0, release.reason, ended=True, good=True)
        gone = history.aborted(asked.kind)
        if gone is not None and gone.key == asked.key and newest.at_ms > since_ms:
            return Progress(release.epoch, release.step, 0.0, release.reason, ended=True)
    epoch = newest.release.epoch if newest else 0
    if said:
        return Progress(epoch, said[-1].about, 0.0, said[-1].message, ended=said[-1].about == "refused")
    return Progress(epoch, "asked", 0.0, "the controller has not answered yet")


def digest_of(catalogue: Catalogue, kind: Kind, version: int) -> str:
    """Return the digest of a version's bundle.

    Raises:
        CatalogueError: MLflow does not answer, or has no such version.
        ContractError: It is no bundle.
    """

    return catalogue.download(kind, version).bundle.digest


def _check_approver(key: Ed25519PrivateKey, trust: Trust, at_ms: int) -> None:
    if key_id(public_hex(key)) not in trust.keys_of("approver", at_ms):
        raise ConfigError("this key is none of the fleet's approvers; `acclimate keys list` shows them")
