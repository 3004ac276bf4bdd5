"""The controller of a fleet: takes requests, checks them, releases in waves, watches, finishes or goes back.

Everything it knows is in Kafka and MLflow: killed anywhere, the next one goes on where it was. Each turn does at most
one thing, in this order: renew what is in force, judge the wave in progress, carry out a request. A second controller
of the same fleet fences the first, which then ends (`acclimate.streams.releases.release_log`).

Requests are signed approvals in the history where the trust file asks for approvals, and else the alias ``champion`` in
MLflow. Either way a bundle needs a believed verdict of the gates; the controller runs none and needs no torch.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kafka.errors import KafkaError

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.infra.errors import CatalogueError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.member import Kind
from acclimate.registry.releases.acceptance import Refused, Seen, consider
from acclimate.registry.releases.history import History
from acclimate.registry.releases.next_release import Request, aborted, begun, finished, renewed, widened
from acclimate.registry.releases.release import (
    InMode,
    Place,
    Release,
    parse_record,
    read_release,
    record_bytes,
    sign_release,
)
from acclimate.registry.releases.remark import Remark, Topic, sign_remark
from acclimate.registry.releases.requests import Held, judge
from acclimate.registry.releases.rollout import RolloutPolicy, assess
from acclimate.registry.trust.envelope import Envelope, key_id, public_hex
from acclimate.registry.trust.key_folder import read_trust_file
from acclimate.registry.trust.trust import Trust, newer_trust
from acclimate.streams.releases.history import HistoryReader
from acclimate.streams.releases.offers import Offer, Offers, Wish
from acclimate.streams.releases.release_log import Fenced, ReleaseLog
from acclimate.streams.releases.running import behind
from acclimate.streams.releases.wave_evidence import WaveEvidence
from acclimate.streams.wire.messages import ControllerStatus

__all__ = ["Controller"]

_STALE_EVERY_S = 60.0
_BEAT_S = 10.0
_KEPT_RELEASES = 20
_SEEN_S = 30.0  # a transaction that is committed is seen a moment later

log = logging.getLogger(__name__)


class Controller:
    """Use it from one thread.

    Args:
        settings: Broker, fleet, catalogue, and the trust file.
        policy: How versions are rolled out.
        key: Signs releases.
        salt: Draws 16 hexadecimal digits for each roll-out.
        now_ms: Present time, milliseconds since 1970.

    Raises:
        ConfigError: There is no trust file, or the key is none that it names for releases.
        ContractError: The trust file is older than that of the release in force.
        KafkaError: The broker does not answer.
    """

    def __init__(
        self,
        settings: Settings,
        policy: RolloutPolicy,
        key: Ed25519PrivateKey,
        salt: Callable[[], str],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings, self._policy, self._key = settings, policy, key
        self._salt, self._now_ms = salt, now_ms
        self._offers = Offers(settings)
        self._aliases_due = False
        self._stale_at = self._beat_at = 0.0
        self._evidence: tuple[str, WaveEvidence] | None = None
        self._history = HistoryReader(settings)
        self._log = ReleaseLog(settings)
        try:
            raw = self._log.newest()
            self._told = parse_record(raw).trust if raw else None
            self._trust_envelope, self._trust = self._believed()
            if key_id(public_hex(key)) not in self._trust.keys_of("release", now_ms()):
                raise ConfigError(
                    f"{settings.release_key}: expected a key that {settings.trust} believes for releases now"
                )
            if raw:
                self._check_chain(read_release(parse_record(raw).release).epoch)
        except BaseException:
            self.close()
            raise

    def follow(self, stop: threading.Event, poll_s: float) -> None:
        """Take turns until ``stop``, through outages of Kafka and MLflow.

        Raises:
            Fenced: Another controller has begun.
        """
        while not stop.is_set():
            try:
                self._beat()
                if self._settings.ready_file is not None:
                    self._settings.ready_file.touch()
                done = self.turn()
            except Fenced:
                raise
            except (KafkaError, OSError) as error:
                log.warning("event=kafka_unreachable error=%r", error)
                self._reconnect(stop)
                continue
            except CatalogueError as error:
                log.warning("event=catalogue_unreachable error=%s", error)
                done = None
            if done is None:
                stop.wait(poll_s)

    def turn(self) -> str | None:
        """Do the next thing there is to do and return what it was; None where there is nothing.

        Raises:
            CatalogueError: MLflow does not answer; whatever needs none has been done.
            Fenced: Another controller has begun.
            KafkaError: The broker does not answer.
        """
        self._trust_envelope, self._trust = self._believed()
        history = self._history.read(self._trust)
        done = self._renew(history) or self._judge_wave(history) or self._approved(history)
        if done is not None:
            return done
        self._remark_stale(history)
        if self._aliases_due:
            self._offers.show(history, champion=self._trust.approvals > 0)
            self._clean_up(history)
            self._aliases_due = False
        return self._aliased(history)

    def close(self) -> None:
        """Disconnect."""
        self._drop_evidence()
        self._history.close()
        self._log.close()

    def _beat(self) -> None:
        if time.monotonic() < self._beat_at:
            return
        newest = self._history.read(self._trust).newest
        epoch = newest.release.epoch if newest else 0
        name = f"{socket.gethostname()}-{os.getpid()}"
        self._log.beat(ControllerStatus(schema_version=1, name=name, epoch=epoch))
        self._beat_at = time.monotonic() + _BEAT_S

    # What is in force

    def _believed(self) -> tuple[Envelope, Trust]:
        """Return the trust file's content, which must not be older than what receivers were told last."""
        path = self._settings.trust
        if path is None:
            raise ConfigError("the controller needs ACCLIMATE_TRUST, the fleet's trust.json; `acclimate keys init`")
        envelope, trust = read_trust_file(path)
        if trust.fleet != self._settings.fleet:
            raise ConfigError(f"{path}: expected fleet {self._settings.fleet}, found {trust.fleet}")
        return (envelope if self._told is None else newer_trust(self._told, envelope)), trust

    def _check_chain(self, epoch: int) -> None:
        """Refuse to begin anew below what receivers have: they would take nothing of it."""
        if not self._is_seen(epoch):
            raise ContractError(
                f"releases: epoch {epoch} is in force, and no key that {self._settings.trust} believes stands behind "
                "it; start the controller with a rotated key before the old one is revoked"
            )

    def _is_seen(self, epoch: int) -> bool:
        """Wait until the history shows an epoch; say whether it does."""

        def shows(history: History) -> bool:
            return history.newest is not None and history.newest.release.epoch >= epoch

        return self._comes(shows)

    def _comes(self, shows: Callable[[History], bool]) -> bool:
        """Wait until the history shows something; say whether it does."""
        deadline = time.monotonic() + _SEEN_S
        while time.monotonic() < deadline:
            if shows(self._history.read(self._trust)):
                return True
            time.sleep(0.01)
        return False

    def _renew(self, history: History) -> str | None:
        newest = history.newest
        if newest is None:
            return None
        release = newest.release
        half_ms = (release.expires_ms - release.issued_ms) / 2
        if self._now_ms() > release.issued_ms + half_ms:
            return self._append(history, renewed(history, "half of its life is over", self._policy, self._now_ms()))
        if self._told is not None and self._told.payload != self._trust_envelope.payload:
            return self._append(history, renewed(history, "trust.json is new", self._policy, self._now_ms()))
        return None

    def _append(self, history: History, release: Release) -> str | None:
        """Sign a release and put it in force, if a receiver would take it; return once the history shows it."""
        envelope = sign_release(release, self._key)
        newest = history.newest
        seen = Seen(self._trust_envelope, newest.release.epoch if newest else 0, newest.digest if newest else None)
        try:
            consider(seen, record_bytes(self._trust_envelope, envelope), self._settings.fleet, self._now_ms())
        except Refused as refused:
            if refused.reason != "unapproved":
                raise
            self._remark(history, "waits", None, None, None, str(refused))
            return None
        self._log.append(self._trust_envelope, envelope)
        self._told = self._trust_envelope
        if not self._is_seen(release.epoch):
            raise KafkaError(f"release {release.epoch} was committed, but is not to be seen after {_SEEN_S:.0f} s")
        self._aliases_due = self._aliases_due or release.step in ("complete", "rollback", "abort")
        said = (release.epoch, release.step, release.share, release.reason)
        log.info("event=released epoch=%d step=%s share=%g reason=%r", *said)
        return f"epoch {release.epoch}: {release.step}"

    # Waves

    def _judge_wave(self, history: History) -> str | None:
        wave, rollout = history.wave_began(), history.rollout_began()
        if wave is None or rollout is None:
            self._drop_evidence()
            return None
        if self._evidence is None or self._evidence[0] != wave.digest:
            self._drop_evidence()
            before_s = max(self._policy.observe_s, 60.0)
            self._evidence = (wave.digest, WaveEvidence(self._settings, rollout, wave, before_s))
        evidence = self._evidence[1]
        evidence.look()
        now_ms = self._now_ms()
        found = assess(
            self._policy,
            wave.release.salt,
            wave.release.share,
            (now_ms - wave.at_ms) / 1000,
            evidence.devices(),
            evidence.workers_refused(),
        )
        if found.outcome == "wait":
            return None
        if found.outcome == "abort":
            return self._append(history, aborted(history, found.message, self._policy, now_ms))
        share = self._policy.wave_after(wave.release.share)
        if share is None:
            return self._append(history, finished(history, found.message, self._policy, now_ms))
        return self._append(history, widened(history, share, found.message, self._policy, now_ms))

    def _drop_evidence(self) -> None:
        if self._evidence is not None:
            self._evidence[1].close()
            self._evidence = None

    def _clean_up(self, history: History) -> None:
        """Remove files that none of the newest releases names: a return to an older one sends them again."""
        kept = {sha for each in history.releases[-_KEPT_RELEASES:] for sha in each.release.artifacts}
        gone = self._log.remove_files(kept)
        if gone:
            log.info("event=artifacts_removed parts=%d", gone)

    # Requests

    def _approved(self, history: History) -> str | None:
        """Carry out the oldest approval that can be; without a rule for approvals, the alias is the request."""
        if self._trust.approvals == 0:
            return None
        in_force = {each.key for each in history.newest.release.in_modes()} if history.newest else set()
        for each in history.open_approvals():
            approval, kind = each.approval, each.approval.asked_kind
            if kind is None:
                continue  # `acclimate history` shows it
            asked_by = ", ".join(self._owners(each.envelope))
            if (approval.digest, approval.mode) in in_force:
                # A further signature for what is on its way, or a word against it.
                if approval.action == "rollback" and history.wave_began() is not None:
                    reason = f"{asked_by}: {approval.reason}"
                    return self._append(history, aborted(history, reason, self._policy, self._now_ms()))
                reason = f"approved by {asked_by}"
                return self._append(history, renewed(history, reason, self._policy, self._now_ms()))
            wish = Wish(asked_by, approval.reason, approval.mode)
            done = self._request(history, kind, approval.version, approval.digest, wish)
            if done is not None:
                return done
        return None

    def _aliased(self, history: History) -> str | None:
        """Look at the alias ``champion``: a request, or something to report."""
        release = history.newest.release if history.newest else None
        for kind, version in self._offers.champions().items():
            stable = release.stable_of(kind) if release else None
            candidate = release.candidate_of(kind) if release else None
            if self._trust.approvals:
                if all(each is None or each.member.version != version for each in (stable, candidate)):
                    self._differs(history, kind, version, stable)
                continue
            wish = self._wish(history, kind, version)
            wanted = (version, wish.mode)
            if candidate and (candidate.member.version, candidate.mode) == wanted:
                continue
            if stable and (stable.member.version, stable.mode) == wanted:
                if candidate and candidate.key != stable.key:
                    reason = f"{kind}: the alias champion was moved back to version {version}{_of_mode(stable)}"
                    return self._append(history, aborted(history, reason, self._policy, self._now_ms()))
                continue
            gone = history.aborted(kind)
            was_aborted = gone is not None and (gone.member.version, gone.mode) == wanted
            if stable and gone and was_aborted and not _was_reset(history, gone):
                self._offers.withdraw(kind, version, stable.member.version)
                text = (
                    f"{kind} version {version}{_of_mode(gone)}: its roll-out was aborted; the alias names version "
                    f"{stable.member.version}{_of_mode(stable)} again; ask once more to try it once more"
                )
                self._remark(history, "alias_reset", kind, version, gone.member.digest, text)
                continue
            done = self._request(history, kind, version, None, wish)
            if done is not None:
                return done
        return None

    def _wish(self, history: History, kind: Kind, version: int) -> Wish:
        """Return what the alias asks for, with the mode that is meant: sources alone have one."""
        wish = self._offers.wish(kind, version)
        return replace(wish, mode=(wish.mode or history.mode) if kind == "source" else "observe")

    def _request(self, history: History, kind: Kind, version: int, digest: str | None, wish: Wish) -> str | None:
        try:
            offer = self._offers.fetch(kind, version, self._trust)
        except ContractError as error:
            self._remark(history, "refused", kind, version, digest, f"{kind} version {version}: {error}")
            return None
        found = offer.member.digest
        if digest is not None and found != digest:
            text = f"{kind} version {version}: approved was bundle {digest[:12]}, MLflow has {found[:12]}"
            self._remark(history, "refused", kind, version, digest, text)
            return None
        wanted = InMode(offer.member, wish.mode)
        answer = judge(history, self._trust, kind, wanted, wish.asked_by, wish.reason)
        if isinstance(answer, Held):
            self._remark(history, answer.about, kind, version, found, answer.message)
            return None
        return self._begin(history, answer, offer)

    def _begin(self, history: History, request: Request, offer: Offer) -> str | None:
        known: Mapping[str, Place] = history.newest.release.artifacts if history.newest else {}
        places = self._log.publish_files(offer.files, known)
        release = begun(self._settings.fleet, history, request, places, self._policy, self._salt(), self._now_ms())
        done = self._append(history, release)
        self._offers.forget(request.kind, request.member.version)
        return done

    def _differs(self, history: History, kind: Kind, version: int, stable: InMode | None) -> None:
        before = history.releases[-2].release.stable.get(kind) if len(history.releases) > 1 else None
        if stable and before and before.version == version and before.digest != stable.member.digest:
            self._aliases_due = True  # of our own: we were killed before we had moved it
            return
        holds = f"version {stable.member.version}" if stable else "none"
        text = (
            f"{kind}: the alias champion names version {version}, in force is {holds}; releases of this fleet need "
            f"{self._trust.approvals} signed approvals: `acclimate promote {kind} {version}`"
        )
        self._remark(history, "alias_differs", kind, version, None, text)

    # Remarks

    def _remark(
        self, history: History, about: Topic, kind: Kind | None, version: int | None, digest: str | None, text: str
    ) -> None:
        """Remember a remark, once until the next release."""
        said = (about, kind, version, text[:2000])
        since = history.newest.at_ms if history.newest else 0
        earlier = [each.remark for each in history.remarks if each.at_ms >= since]
        if any((each.about, each.kind, each.version, each.message) == said for each in earlier):
            return
        remark = Remark(
            fleet=self._settings.fleet,
            at_ms=self._now_ms(),
            about=about,
            kind=kind,
            version=version,
            digest=digest,
            message=text[:2000],
        )
        self._log.note(sign_remark(remark, self._key))
        self._comes(lambda history: any(each.remark == remark for each in history.remarks))  # else it is said again
        log.warning("event=%s kind=%s version=%s %s", about, kind, version, text)

    def _remark_stale(self, history: History) -> None:
        newest = history.newest
        if newest is None or time.monotonic() < self._stale_at:
            return
        self._stale_at = time.monotonic() + _STALE_EVERY_S
        told = any(each.remark.about == "stale" and each.at_ms >= newest.at_ms for each in history.remarks)
        if told or self._now_ms() - newest.at_ms < 1000 * self._policy.stale_after_s:
            return
        epoch = newest.release.epoch
        names = behind(self._settings, epoch)
        if names:
            first = ", ".join(names[:3])
            text = f"{len(names)} receivers are behind epoch {epoch}, first: {first}; see `acclimate devices`"
            self._remark(history, "stale", None, None, None, text)

    def _owners(self, envelope: Envelope) -> list[str]:
        return sorted(self._trust.owner(signature.keyid) for signature in envelope.signatures)

    def _reconnect(self, stop: threading.Event) -> None:
        """Begin anew after an outage; this fences, as a restart would."""
        self.close()
        while not stop.is_set():
            try:
                self._log = ReleaseLog(self._settings)
                return
            except (KafkaError, OSError) as error:
                log.warning("event=kafka_unreachable error=%r", error)
                stop.wait(2.0)


def _of_mode(used: InMode) -> str:
    return f" in mode {used.mode}" if used.mode != "observe" else ""


def _was_reset(history: History, gone: InMode) -> bool:
    """Say whether the alias of an aborted version was moved back already: naming it again is a new wish."""
    since = history.newest.at_ms if history.newest else 0
    return any(
        each.remark.about == "alias_reset" and each.remark.digest == gone.member.digest and each.at_ms >= since
        for each in history.remarks
    )
