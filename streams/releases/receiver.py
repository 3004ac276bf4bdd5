"""Follow the releases of a fleet: check, fetch, keep, and hand over what is in force; on any doubt what runs goes on.

Workers, devices and agents use this one piece. It reads ``.releases`` without a group from the beginning to the end
before it says that it has caught up; after that it looks on. What is accepted is remembered on disk before it is used,
so that a restart continues from there, also without a broker.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.infra.settings import Settings
from acclimate.registry.bundles.member import Kind
from acclimate.registry.bundles.store import install_bundle, prune_bundles
from acclimate.registry.releases.acceptance import Offer, Refused, Seen, check_fresh, consider
from acclimate.registry.releases.receiver_state import ReceiverState, read_state, write_state
from acclimate.registry.releases.release import Release, read_release
from acclimate.registry.trust.envelope import parse_envelope
from acclimate.registry.trust.trust import Trust, read_trust
from acclimate.streams.serving.served import Loaded
from acclimate.streams.wire.artifacts import ArtifactReader
from acclimate.streams.wire.reading import committed_reader, read_to_end
from acclimate.streams.wire.topics import topic_name

__all__ = ["Receiver", "ReceiverReport"]

RETRY_S = 30.0
_POLL_MS = 500
_WAIT_MS = 5_000  # the broker answers at once when there is a release; asking less often is what idle devices save
_MAX_TRUST_BYTES = 512 * 1024

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReceiverReport:
    """What a receiver says of itself.

    Attributes:
        epoch: The epoch of the release in use; 0 for none.
        installed_ms: When it was installed, milliseconds since 1970; None for none.
        refusals: Number by reason since the start.
        last_refusal: What was wrong last.
        refused_epoch: The epoch of what was refused last, as far as it could be read; 0 for none.
        stale: The release in use has expired and no newer one has come: it goes on, but the controller is silent.
    """

    epoch: int
    installed_ms: int | None
    refusals: Mapping[str, int]
    last_refusal: str | None
    refused_epoch: int
    stale: bool


class Receiver(Generic[T]):
    """Keep up with a fleet's releases. Use it from one thread at a time.

    Args:
        settings: Broker, fleet, trust file and state folder.
        kinds: Which bundles of a set are used.
        load: Turns them into what the user works with; it may refuse them with `ContractError`.
        now_ms: Present time, milliseconds since 1970.

    Raises:
        ConfigError: Neither the state folder nor the settings say whom to believe.
        ContractError: What the state folder remembers is damaged, or is of another fleet.
    """

    def __init__(
        self,
        settings: Settings,
        kinds: Sequence[Kind],
        load: Callable[[Loaded], T],
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._settings = settings
        self._kinds = tuple(kinds)
        self._load = load
        self._now_ms = now_ms
        self._folder = settings.state
        self._state = _first_state(settings)
        self._refusals: Counter[str] = Counter()
        self._last_refusal: str | None = None
        self._refused_epoch = 0
        self._expires_ms: int | None = None
        self._stale = False
        self._installed_ms: int | None = None
        self._epoch = 0
        self._pending: Offer | None = None
        self._retry_at = 0.0
        self._consumer: KafkaConsumer | None = None
        self._artifacts = ArtifactReader(settings)
        if "mode" in settings.model_fields_set:
            log.warning("event=mode_ignored mode=%s without a bundle, the release says the mode", settings.mode)

    @property
    def report(self) -> ReceiverReport:
        """What it would say of itself now."""
        return ReceiverReport(
            self._epoch,
            self._installed_ms,
            dict(self._refusals),
            self._last_refusal,
            self._refused_epoch,
            self._stale,
        )

    def resume(self) -> T | None:
        """Return what was in use before the last stop, from disk alone; None where nothing was, or it is damaged."""
        if self._state.installed is None:
            return None
        release = read_release(self._state.installed)
        try:
            return self._use(release, None, _nothing)  # a key revoked since then stops nothing that runs
        except ContractError as error:
            self._note("artifact", str(error), release.epoch)
            return None

    def catch_up(self) -> T | None:
        """Read the releases up to their present end and return what is newly in force; None where nothing is.

        Raises:
            KafkaError: The broker does not answer.
        """
        consumer = self._connected()
        for message in read_to_end(consumer, consumer.assignment()):
            self._consider(message.value)
        return self._install()

    def poll(self) -> T | None:
        """Wait up to half a second for a release and return what is newly in force; None where nothing is.

        Raises:
            KafkaError: The broker does not answer.
        """
        for messages in self._connected().poll(timeout_ms=_POLL_MS).values():
            for message in messages:
                self._consider(message.value)
        return self._install()

    def follow(self, stop: threading.Event, on_change: Callable[[T], None], on_refusal: Callable[[], None]) -> None:
        """Keep up until ``stop``, through outages of the broker, then disconnect.

        Args:
            stop: Ends it within half a second.
            on_change: Called with what is newly in force; whatever it does comes before the next release.
            on_refusal: Called after a refusal, and when the release in use has expired; see `report`.
        """
        try:
            while not stop.is_set():
                before = self._refusals.total()
                try:
                    new = self.poll()
                except (KafkaError, OSError) as error:
                    log.warning("event=releases_unreachable error=%r", error)
                    self.close()
                    stop.wait(2.0)
                    continue
                if new is not None:
                    on_change(new)
                if self._refusals.total() != before or self._grew_stale():
                    on_refusal()
        finally:
            self.close()

    def close(self) -> None:
        """Disconnect; the next call connects anew."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        self._artifacts.close()

    def _connected(self) -> KafkaConsumer:
        if self._consumer is None:
            consumer = committed_reader(self._settings, fetch_max_wait_ms=_WAIT_MS)
            tp = TopicPartition(topic_name(self._settings.fleet, "releases"), 0)
            consumer.assign([tp])
            consumer.seek_to_beginning(tp)
            self._consumer = consumer
        return self._consumer

    def _consider(self, value: bytes | None) -> None:
        seen = Seen(self._state.trust, self._state.epoch, self._state.release_sha256)
        try:
            offer = consider(seen, value or b"", self._settings.fleet, self._now_ms())
        except Refused as refused:
            # The topic is read from its beginning at every start: what is behind us there is no news.
            if refused.reason != "rollback" or self._epoch:
                self._note(refused.reason, str(refused), refused.epoch)
            return
        if offer.seen != seen:
            accepted = {
                "trust": offer.seen.trust,
                "epoch": offer.seen.epoch,
                "release_sha256": offer.seen.release_sha256,
            }
            self._state = self._state.model_copy(update=accepted)
            write_state(self._folder, self._state)
        if offer.release.epoch != self._epoch:
            self._pending, self._retry_at = offer, 0.0

    def _install(self) -> T | None:
        if self._pending is None or time.monotonic() < self._retry_at:
            return None
        release = self._pending.release

        def fetch(digest: str) -> bytes:
            return self._artifacts.read(digest, release.artifacts[digest])

        try:
            check_fresh(release, self._now_ms())
            used = self._use(release, read_trust(self._state.trust), fetch)
        except ContractError as error:
            self._note(error.reason if isinstance(error, Refused) else "artifact", str(error), release.epoch)
            self._retry_at = time.monotonic() + RETRY_S  # parts may still be on their way through compaction or mirrors
            return None
        self._state = self._state.model_copy(update={"installed": self._pending.envelope})
        write_state(self._folder, self._state)
        prune_bundles(self._store, release.digests())
        self._pending = None
        self._installed_ms = self._now_ms()
        log.info("event=installed epoch=%d step=%s share=%g", release.epoch, release.step, release.share)
        return used

    def _use(self, release: Release, trust: Trust | None, fetch: Callable[[str], bytes]) -> T:
        bundles = {
            member.digest: install_bundle(self._store, kind, member, trust, fetch)
            for bundles in (release.stable, release.candidate)
            for kind, member in bundles.items()
            if kind in self._kinds
        }
        used = self._load(Loaded(release, bundles))
        self._epoch, self._expires_ms, self._stale = release.epoch, release.expires_ms, False
        return used

    def _grew_stale(self) -> bool:
        """Notice, once per release, that what runs should long have been renewed: someone may hold releases back."""
        if self._stale or self._expires_ms is None or self._now_ms() <= self._expires_ms:
            return False
        self._stale = True
        log.error("event=releases_stale epoch=%d expired_ms=%d alarm=1", self._epoch, self._expires_ms)
        return True

    @property
    def _store(self) -> Path:
        return self._folder / "bundles"

    def _note(self, reason: str, message: str, epoch: int) -> None:
        self._refusals[reason] += 1
        self._last_refusal, self._refused_epoch = message, epoch
        log.warning("event=release_refused reason=%s running_epoch=%d %s", reason, self._epoch, message)


def _first_state(settings: Settings) -> ReceiverState:
    state = read_state(settings.state)
    if state is None:
        if settings.trust is None:
            raise ConfigError(
                "whom to believe about releases is not said: set ACCLIMATE_TRUST to the fleet's trust.json, which "
                "`acclimate keys init` makes; a worker may be given a bundle instead: --bundle DIR, which `acclimate "
                "train` makes"
            )
        try:
            with settings.trust.open("rb") as file:
                raw = file.read(_MAX_TRUST_BYTES)
        except OSError as error:
            raise ConfigError(f"{settings.trust}: expected the fleet's trust.json, found: {error.strerror}") from error
        state = ReceiverState(trust=parse_envelope(raw, str(settings.trust)))
    found = read_trust(state.trust).fleet
    if found != settings.fleet:
        raise ContractError(f"this receiver belongs to fleet {settings.fleet}, what it believes is of fleet {found}")
    return state


def _nothing(digest: str) -> bytes:
    raise ContractError(f"artifact {digest[:12]}: expected on disk, found none")
