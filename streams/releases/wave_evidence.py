"""What was seen of a fleet's devices since a roll-out began: from predictions, dead letters and status, read on and on.

Only records count, never what somebody says of them: a device is in a wave when it has answered real events with it,
by the bundle and in the mode of its set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from acclimate.infra.settings import Settings
from acclimate.registry.releases.history import Released
from acclimate.registry.releases.rollout import DeviceEvidence
from acclimate.streams.wire.messages import Receipt
from acclimate.streams.wire.predictions import answered_probabilities, parse_prediction
from acclimate.streams.wire.reading import committed_reader, partitions_of, read_to_end, seek_to_time
from acclimate.streams.wire.statuses import Running, parse_status
from acclimate.streams.wire.topics import topic_name

__all__ = ["WaveEvidence"]


@dataclass
class _Sums:
    """The counts of one device before a wave, or in it."""

    windows: int = 0
    confidence: float = 0.0
    records: int = 0
    letters: int = 0

    @property
    def mean(self) -> float:
        return self.confidence / self.windows if self.windows else 0.0


@dataclass
class _Device:
    before: _Sums = field(default_factory=_Sums)
    during: _Sums = field(default_factory=_Sums)


class WaveEvidence:
    """Follow the records of one wave.

    Args:
        settings: Broker and fleet.
        rollout: The release that began the roll-out: what was answered before it is the comparison.
        wave: The release that began this wave.
        before_s: How far back the comparison goes.

    Raises:
        KafkaError: The broker does not answer.
    """

    def __init__(self, settings: Settings, rollout: Released, wave: Released, before_s: float) -> None:
        self._rollout, self._wave = rollout, wave
        self._devices: dict[str, _Device] = {}
        self._refused: dict[str, str] = {}
        self._consumer = committed_reader(settings)
        self._topics = {name: topic_name(settings.fleet, name) for name in ("predictions", "dlq", "status")}
        self._before_ms = rollout.at_ms - round(before_s * 1000)
        places = {name: partitions_of(self._consumer, settings, name) for name in self._topics}
        self._places = [place for each in places.values() for place in each]
        self._consumer.assign(self._places)
        seek_to_time(self._consumer, places["predictions"] + places["dlq"], self._before_ms)
        self._consumer.seek_to_beginning(*places["status"])  # compacted: a status may be older than all this

    def look(self) -> None:
        """Read what has come until now.

        Raises:
            KafkaError: The broker does not answer.
        """
        for message in read_to_end(self._consumer, self._places):
            self._take(message.topic, message)

    def devices(self) -> Mapping[str, DeviceEvidence]:
        """Return what was seen, by device."""
        own = {name.removeprefix("device/") for name in self._refused if name.startswith("device/")}
        return {
            name: DeviceEvidence(
                windows_before=each.before.windows,
                confidence_before=each.before.mean,
                windows=each.during.windows,
                confidence=each.during.mean,
                records_before=each.before.records,
                letters_before=each.before.letters,
                records=each.during.records,
                letters=each.during.letters,
                refused=self._refused.get(f"device/{name}"),
            )
            for name, each in {**{name: _Device() for name in own}, **self._devices}.items()
        }

    def workers_refused(self) -> Sequence[str]:
        """Return the workers that have refused the wave's release, and why."""
        workers = sorted(name for name in self._refused if name.startswith("worker/"))
        return [f"{name.removeprefix('worker/')}: {self._refused[name]}" for name in workers]

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    def _take(self, topic: str, message: Any) -> None:
        key = (message.key or b"").decode("utf-8", "replace")
        if topic == self._topics["status"]:
            self._take_status(message)
        elif topic == self._topics["dlq"]:
            sums = self._sums(key, message.timestamp, None)
            if sums is not None:
                sums.letters += 1
        else:
            self._take_prediction(key, message)

    def _take_prediction(self, device: str, message: Any) -> None:
        record = parse_prediction(message.value)
        if record is None:
            return  # whoever may write the topic may write noise; `acclimate collect` counts it
        sums = self._sums(device, message.timestamp, record.receipt)
        if sums is not None:
            sums.records += 1
            sums.windows += len(record.labels)
            sums.confidence += sum(map(max, answered_probabilities(record)))

    def _sums(self, device: str, at_ms: int, receipt: Receipt | None) -> _Sums | None:
        """Return where a record counts; None where it belongs to neither time, or was not answered by its set."""
        in_wave = at_ms >= self._wave.at_ms and (receipt is None or self._is_of_its_set(device, receipt))
        before = self._before_ms <= at_ms < self._rollout.at_ms
        if not in_wave and not before:
            return None
        known = self._devices.setdefault(device, _Device())
        return known.during if in_wave else known.before

    def _is_of_its_set(self, device: str, receipt: Receipt) -> bool:
        release = self._wave.release
        wanted = (release.chosen(device)["source"].digest, release.chosen_mode(device))
        return receipt.epoch >= release.epoch and (receipt.bundle, receipt.mode) == wanted

    def _take_status(self, message: Any) -> None:
        said = parse_status(message.key, message.value)
        if not isinstance(said, Running):
            return
        self._refused.pop(said.name, None)  # the newest word counts
        status = said.status
        if status is None:
            return
        running = status.receipt.epoch if status.receipt else 0
        if status.refused_epoch >= self._wave.release.epoch > running:
            self._refused[said.name] = str(status.last_refusal)[:200]
