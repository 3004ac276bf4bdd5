"""From records of ``.features`` to predictions or dead letters: a pure function, whatever the batch.

    decode -> source forward with shift -> LeanTTA -> who answers -> encode

No clock, worker, partition or offset enters a prediction, and the engine answers a window bit for bit the same in any
batch, so an output depends only on the event and on what its receipt names (G3 in docs/guarantees.md).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import orjson

from adaptation.engine import CODE_CONTRACT_VERSION, Engine, Outputs
from adaptation.errors import DataError
from adaptation.lean_settings import LeanSettings
from adaptation.spec import NetworkSpec
from streams.codec import FeatureBatch, decode_features, input_digest
from streams.dead_letters import Stage, dead_letter
from streams.messages import SCHEMA_VERSION, Receipt
from streams.records import Incoming, Outgoing, cloud_event, header
from streams.topics import topic_name

__all__ = ["PLAUSIBLE_MS", "AdaptCore", "Crash", "config_digest", "make_receipt"]

# 2000-01-01 to 2100-01-01 UTC. A fixed range: "near now" would make the answer depend on a clock.
PLAUSIBLE_MS = (946_684_800_000, 4_102_444_800_000)


@dataclass(frozen=True)
class Crash:
    """An exception that nobody expected, met while this record was processed."""

    record: Incoming
    error: Exception


def config_digest(mode: str, settings: LeanSettings) -> str:
    """Return the SHA-256 of everything configured that an answer depends on."""
    return hashlib.sha256(_canonical({"mode": mode, "leantta": asdict(settings)})).hexdigest()


@dataclass(frozen=True)
class AdaptCore:
    """Everything that turns records into outputs.

    Args:
        fleet: Prefix of the topics.
        engine: Self-tested engine of the bundle in force.
        spec: The network that the engine runs.
        class_names: One name per class of the bundle.
        receipt: What every output of this core names.
        bytes_max: Largest record value that is parsed.
    """

    fleet: str
    engine: Engine
    spec: NetworkSpec
    class_names: Sequence[str]
    receipt: Receipt
    bytes_max: int

    def process(self, records: Sequence[Incoming]) -> list[Outgoing | Crash]:
        """Return one output per record, in order: a prediction, a dead letter, or the bug that was met.

        All windows of the records run through the engine together. If that raises, the records run one by one, so
        that only the guilty one is a :class:`Crash`.
        """
        try:
            return self._process_together(records)
        except Exception as error:
            if len(records) == 1:
                return [Crash(records[0], error)]
            return [output for record in records for output in self.process([record])]

    def _process_together(self, records: Sequence[Incoming]) -> list[Outgoing | Crash]:
        decoded = [self._decode(record) for record in records]
        batches = [item for item in decoded if isinstance(item, FeatureBatch)]
        if batches:
            outputs = self.engine.run(np.concatenate([batch.windows for batch in batches]))
        results: list[Outgoing | Crash] = []
        start = 0
        for record, item in zip(records, decoded, strict=True):
            if isinstance(item, FeatureBatch):
                results.append(self._prediction(record, item, outputs, start))
                start += len(item.windows)
            else:
                results.append(item)
        return results

    def park(self, crash: Crash) -> Outgoing:
        """Return the dead letter of a record that crashed the worker too often."""
        # The error's text may differ from run to run, and equal ids must mean equal bytes; it is in log and .status.
        text = "a bug in this version, the record is parked; the worker's log has the traceback"
        return self._letter(crash.record, "adapt", "bug", text, type(crash.error).__name__)

    def _decode(self, record: Incoming) -> FeatureBatch | Outgoing:
        channels, length = self.spec.channels, self.spec.length
        try:
            return decode_features(record.key, record.value, channels=channels, length=length, bytes_max=self.bytes_max)
        except DataError as error:
            return self._letter(record, "decode", error.reason, str(error), "DataError")

    def _letter(self, record: Incoming, stage: Stage, reason: str, message: str, exception: str) -> Outgoing:
        return dead_letter(record, topic_name(self.fleet, "dlq"), stage, reason, message, exception)

    def _prediction(self, record: Incoming, batch: FeatureBatch, outputs: Outputs, start: int) -> Outgoing:
        digests = [input_digest(w, t) for w, t in zip(batch.windows, batch.event_times_ms, strict=True)]
        events = batch.event_ids()
        receipt = self.receipt.model_dump()
        identity = hashlib.sha256(_canonical([events, digests, receipt])).hexdigest()
        value = {
            "schema_version": SCHEMA_VERSION,
            "output_id": identity,
            "device": batch.device,
            "session": batch.session,
            "seq": batch.seq,
            "windows": [
                self._entry(event, time, digest, outputs, start + i)
                for i, (event, time, digest) in enumerate(zip(events, batch.event_times_ms, digests, strict=True))
            ],
            "receipt": receipt,
        }
        headers = list(cloud_event("predictions.v1", f"/{self.fleet}/worker", identity))
        trace = header(record.headers, "traceparent")
        if trace is not None and len(trace) <= 256:
            headers.append(("traceparent", trace))
        return Outgoing(topic_name(self.fleet, "predictions"), record.key, _encode(value), tuple(headers))

    def _entry(self, event: str, time_ms: int, digest: str, outputs: Outputs, i: int) -> dict[str, object]:
        source = outputs.source_probabilities[i]
        adapted = outputs.adapted_probabilities[i] if self.spec.adaptable else None
        answered_by = self._who_answers(float(outputs.magnitude[i]))
        answer = adapted if adapted is not None and answered_by == "leantta" else source
        label = int(answer.argmax())
        return {
            "event_id": event,
            "event_time_ms": time_ms,
            "input_digest": digest,
            "answered_by": answered_by,
            "label": label,
            "class_name": self.class_names[label],
            "source": {"label": int(source.argmax()), "probabilities": source},
            "adapted": None if adapted is None else {"label": int(adapted.argmax()), "probabilities": adapted},
            "shift": {
                "magnitude": outputs.magnitude[i],
                "mean": outputs.mean_part[i],
                "variance": outputs.variance_part[i],
                "layers_mean": outputs.shift_mean[i],
                "layers_variance": outputs.shift_variance[i],
            },
            "distance": None if adapted is None else outputs.distance[i],
            "gain": None if adapted is None else outputs.gain[i],
            "flags": [] if PLAUSIBLE_MS[0] <= time_ms < PLAUSIBLE_MS[1] else ["event_time_implausible"],
        }

    def _who_answers(self, magnitude: float) -> str:
        if self.receipt.mode == "observe" or not self.spec.adaptable:
            return "source"
        return "leantta" if magnitude >= self.engine.settings.threshold else "source"


def make_receipt(bundle: str, engine: Engine, mode: str, epoch: int = 0) -> Receipt:
    """Return the receipt of a worker that serves ``bundle`` (digest) without an adapter."""
    return Receipt.model_validate(
        {
            "bundle": bundle,
            "adapter": None,
            "epoch": epoch,
            "mode": mode,
            "config": config_digest(mode, engine.settings),
            "code_contract_version": CODE_CONTRACT_VERSION,
            "engine": engine.version,
            "instruction_set": engine.instruction_set,
        }
    )


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _encode(value: object) -> bytes:
    # float32 arrays are written with the shortest digits that read back to the same float32
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
