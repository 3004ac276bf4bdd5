"""The answer to a batch of windows, byte for byte the same whether a worker or a device computes it."""

import hashlib

import numpy as np
import numpy.typing as npt
import orjson

from adaptation.engine.engine import Outputs
from streams.serving.served import Served, canonical
from streams.wire.codec import FeatureBatch, input_digest
from streams.wire.messages import SCHEMA_VERSION

__all__ = ["PLAUSIBLE_MS", "answer", "prediction"]

# 2000-01-01 to 2100-01-01 UTC. A fixed range: "near now" would make the answer depend on a clock.
PLAUSIBLE_MS = (946_684_800_000, 4_102_444_800_000)


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
    identity = hashlib.sha256(canonical([events, digests, receipt])).hexdigest()
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
