"""The answer to a batch of windows, byte for byte the same whether a worker or a device computes it."""

import hashlib
from collections.abc import Sequence

import orjson

from acclimate.adaptation.engine.engine import Outputs
from acclimate.streams.serving.sampling_rate import rate_flag
from acclimate.streams.serving.served import Served, canonical
from acclimate.streams.wire.codec import FeatureBatch, input_digest
from acclimate.streams.wire.messages import SCHEMA_VERSION

__all__ = ["PLAUSIBLE_MS", "prediction"]

# 2000-01-01 to 2100-01-01 UTC. A fixed range: "near now" would make the answer depend on a clock.
PLAUSIBLE_MS = (946_684_800_000, 4_102_444_800_000)


def prediction(batch: FeatureBatch, served: Served, outputs: Outputs, start: int = 0) -> tuple[str, bytes]:
    """Return output id and bytes of the answer to a batch: the same whether a worker or a device computes it.

    Args:
        batch: What was asked.
        served: Who answers.
        outputs: The outputs of its engine.
        start: Where the batch begins in them.
    """
    digests = [input_digest(w, t) for w, t in zip(batch.windows, batch.event_times_ms, strict=True)]
    events = batch.event_ids()
    receipt = served.receipt.model_dump()
    flags = ["sampling_rate_implausible"] if rate_flag(batch, served.sampling_rate_hz, served.step_samples) else []
    # The flag depends on the record's step, which no digest names; without it the id is what it always was.
    identity = hashlib.sha256(canonical([events, digests, receipt, *flags])).hexdigest()
    adapted = served.adapts(outputs.magnitude[start : start + len(events)])
    value = {
        "schema_version": SCHEMA_VERSION,
        "output_id": identity,
        "device": batch.device,
        "session": batch.session,
        "seq": batch.seq,
        "windows": [
            _entry(event, time, digest, served, outputs, start + i, flags, adapted=bool(adapted[i]))
            for i, (event, time, digest) in enumerate(zip(events, batch.event_times_ms, digests, strict=True))
        ],
        "receipt": receipt,
    }
    # float32 arrays are written with the shortest digits that read back to the same float32
    return identity, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _entry(
    event: str,
    time_ms: int,
    digest: str,
    served: Served,
    outputs: Outputs,
    i: int,
    flags: Sequence[str],
    *,
    adapted: bool,
) -> dict[str, object]:
    by_source = outputs.source_probabilities[i]
    by_leantta = outputs.adapted_probabilities[i] if served.spec.adaptable else None
    label = int((outputs.adapted_probabilities[i] if adapted else by_source).argmax())
    return {
        "event_id": event,
        "event_time_ms": time_ms,
        "input_digest": digest,
        "answered_by": "leantta" if adapted else "source",
        "label": label,
        "class_name": served.class_names[label],
        "source": {"label": int(by_source.argmax()), "probabilities": by_source},
        "adapted": None if by_leantta is None else {"label": int(by_leantta.argmax()), "probabilities": by_leantta},
        "shift": {
            "magnitude": outputs.magnitude[i],
            "mean": outputs.mean_part[i],
            "variance": outputs.variance_part[i],
            "layers_mean": outputs.shift_mean[i],
            "layers_variance": outputs.shift_variance[i],
        },
        "distance": None if by_leantta is None else outputs.distance[i],
        "gain": None if by_leantta is None else outputs.gain[i],
        "flags": [*flags] if PLAUSIBLE_MS[0] <= time_ms < PLAUSIBLE_MS[1] else ["event_time_implausible", *flags],
    }
