"""From records of ``.features`` to predictions or dead letters: a pure function, whatever the batch.

    decode -> source forward with shift -> LeanTTA -> who answers -> encode

No clock, worker, partition or offset enters a prediction, and the engine answers a window bit for bit the same in any
batch, so an output depends only on the event and on what its receipt names (G3 in docs/guarantees.md).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import orjson

from adaptation.engine.engine import CODE_CONTRACT_VERSION, Engine, Outputs
from adaptation.errors import DataError
from adaptation.lean.lean_settings import LeanSettings
from adaptation.model.spec import NetworkSpec
from registry.bundles.source_bundle import Bundle
from registry.releases.release import unit_hash
from streams.wire.codec import FeatureBatch, decode_features, input_digest
from streams.wire.dead_letters import Stage, dead_letter
from streams.wire.messages import SCHEMA_VERSION, Receipt
from streams.wire.records import Incoming, Outgoing, cloud_event, header
from streams.wire.topics import topic_name

__all__ = [
    "PLAUSIBLE_MS",
    "AdaptCore",
    "Crash",
    "InForce",
    "Served",
    "answer",
    "config_digest",
    "make_receipt",
    "prediction",
    "serve",
]

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
class Served:
    """One bundle, ready to answer.

    Args:
        engine: Self-tested.
        spec: The network that the engine runs.
        class_names: One name per class.
        receipt: What every output names.
    """

    engine: Engine
    spec: NetworkSpec
    class_names: Sequence[str]
    receipt: Receipt


@dataclass(frozen=True)
class InForce:
    """Who answers which device: the candidate where a hash of the device lies below the share, else the stable one."""

    stable: Served
    candidate: Served | None = None
    salt: str = ""
    share: float = 0.0

    def served(self, device: str) -> Served:
        """Return who answers a device."""
        candidate = self.candidate
        return candidate if candidate is not None and unit_hash(self.salt, device) < self.share else self.stable


@dataclass(frozen=True)
class AdaptCore:
    """Everything that turns records into outputs.

    Args:
        fleet: Prefix of the topics.
        in_force: Who answers.
        bytes_max: Largest record value that is parsed.
    """

    fleet: str
    in_force: InForce
    bytes_max: int

    def process(self, records: Sequence[Incoming]) -> list[Outgoing | Crash]:
        """Return one output per record, in order: a prediction, a dead letter, or the bug that was met.

        All windows that one bundle answers run through its engine together. If anything raises, the records run one by
        one, so that only the guilty one is a :class:`Crash`.
        """
        try:
            return self._process_together(records)
        except Exception as error:
            if len(records) == 1:
                return [Crash(records[0], error)]
            return [output for record in records for output in self.process([record])]

    def _process_together(self, records: Sequence[Incoming]) -> list[Outgoing | Crash]:
        results: dict[int, Outgoing | Crash] = {}
        decoded: dict[int, FeatureBatch] = {}
        serves: dict[int, Served] = {}
        for place, record in enumerate(records):
            serves[place] = self.in_force.served((record.key or b"").decode("utf-8", "replace"))
            item = self._decode(record, serves[place].spec)
            if isinstance(item, FeatureBatch):
                decoded[place] = item
            else:
                results[place] = item
        for served in (self.in_force.stable, self.in_force.candidate):
            places = [place for place in decoded if serves[place] is served]
            if served is None or not places:
                continue
            outputs = served.engine.run(np.concatenate([decoded[place].windows for place in places]))
            start = 0
            for place in places:
                results[place] = self._prediction(records[place], decoded[place], served, outputs, start)
                start += len(decoded[place].windows)
        return [results[place] for place in range(len(records))]

    def park(self, crash: Crash) -> Outgoing:
        """Return the dead letter of a record that crashed the worker too often."""
        # The error's text may differ from run to run, and equal ids must mean equal bytes; it is in log and .status.
        text = "a bug in this version, the record is parked; the worker's log has the traceback"
        return self._letter(crash.record, "adapt", "bug", text, type(crash.error).__name__)

    def _decode(self, record: Incoming, spec: NetworkSpec) -> FeatureBatch | Outgoing:
        channels, length = spec.channels, spec.length
        try:
            return decode_features(record.key, record.value, channels=channels, length=length, bytes_max=self.bytes_max)
        except DataError as error:
            return self._letter(record, "decode", error.reason, str(error), "DataError")

    def _letter(self, record: Incoming, stage: Stage, reason: str, message: str, exception: str) -> Outgoing:
        return dead_letter(record, topic_name(self.fleet, "dlq"), stage, reason, message, exception)

    def _prediction(
        self, record: Incoming, batch: FeatureBatch, served: Served, outputs: Outputs, start: int
    ) -> Outgoing:
        identity, value = prediction(batch, served, outputs, start)
        headers = list(cloud_event("predictions.v1", f"/{self.fleet}/worker", identity))
        trace = header(record.headers, "traceparent")
        if trace is not None and len(trace) <= 256:
            headers.append(("traceparent", trace))
        return Outgoing(topic_name(self.fleet, "predictions"), record.key, value, tuple(headers))


def prediction(batch: FeatureBatch, served: Served, outputs: Outputs, start: int = 0) -> tuple[str, bytes]:
    """Return output id and bytes of the answer to a batch: the same whether a worker or a device computes it.

    Args:
        batch: What was asked.
        served: Who answers.
        outputs: Of its engine.
        start: Where the batch begins in them.
    """
    digests = [input_digest(w, t) for w, t in zip(batch.windows, batch.event_times_ms, strict=True)]
    events = batch.event_ids()
    receipt = served.receipt.model_dump()
    identity = hashlib.sha256(_canonical([events, digests, receipt])).hexdigest()
    value = {
        "schema_version": SCHEMA_VERSION,
        "output_id": identity,
        "device": batch.device,
        "session": batch.session,
        "seq": batch.seq,
        "windows": [
            _entry(event, time, digest, served, outputs, start + i)
            for i, (event, time, digest) in enumerate(zip(events, batch.event_times_ms, digests, strict=True))
        ],
        "receipt": receipt,
    }
    # float32 arrays are written with the shortest digits that read back to the same float32
    return identity, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def answer(served: Served, outputs: Outputs, i: int) -> tuple[str, npt.NDArray[np.float32]]:
    """Return who answers window `i`, ``source`` or ``leantta``, and its probabilities (classes,)."""
    adaptive = served.spec.adaptable and served.receipt.mode != "observe"
    if adaptive and float(outputs.magnitude[i]) >= served.engine.settings.threshold:
        return "leantta", outputs.adapted_probabilities[i]
    return "source", outputs.source_probabilities[i]


def serve(bundle: Bundle, mode: str, epoch: int = 0) -> Served:
    """Return a bundle ready to answer: its graphs have passed their self-test on this machine.

    Args:
        bundle: Of kind ``source``.
        mode: ``observe`` or ``always``.
        epoch: Of the release that it belongs to; 0 where it was given by hand.

    Raises:
        ContractError: The graphs do not load, do not fit the manifest or miss the canary's expected outputs.
    """
    engine = bundle.engine()
    return Served(engine, bundle.spec, bundle.manifest.class_names, make_receipt(bundle.digest, engine, mode, epoch))


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


def _entry(event: str, time_ms: int, digest: str, served: Served, outputs: Outputs, i: int) -> dict[str, object]:
    source = outputs.source_probabilities[i]
    adapted = outputs.adapted_probabilities[i] if served.spec.adaptable else None
    answered_by, probabilities = answer(served, outputs, i)
    label = int(probabilities.argmax())
    return {
        "event_id": event,
        "event_time_ms": time_ms,
        "input_digest": digest,
        "answered_by": answered_by,
        "label": label,
        "class_name": served.class_names[label],
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


def _canonical(value: object) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
