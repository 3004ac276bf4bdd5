"""The answer to a batch of windows, byte for byte the same whether a worker or a device computes it."""

import hashlib

import numpy as np
import numpy.typing as npt
import orjson

from acclimate.adaptation.engine.engine import Outputs
from acclimate.streams.serving.sampling_rate import rate_flag
from acclimate.streams.serving.served import Served, canonical, rungs
from acclimate.streams.wire.codec import FeatureBatch, input_digest

__all__ = ["PLAUSIBLE_MS", "flags", "prediction"]

# 2000-01-01 to 2100-01-01 UTC. A fixed range: "near now" would make the answer depend on a clock.
PLAUSIBLE_MS = (946_684_800_000, 4_102_444_800_000)


def prediction(batch: FeatureBatch, served: Served, outputs: Outputs, start: int = 0) -> tuple[str, bytes]:
    """Return output id and bytes of the answer to a batch: the same whether a worker or a device computes it.

    The bytes are those of a `acclimate.streams.wire.messages.PredictionRecord`.

    Args:
        batch: What was asked.
        served: Who answers.
        outputs: The outputs of its engine.
        start: Where the batch begins in them.
    """
    digests = [input_digest(w, t) for w, t in zip(batch.windows, batch.event_times_ms, strict=True)]
    receipt = served.receipt.model_dump()
    marked = flags(batch, served)
    # One flag depends on the record's step, which no digest names.
    identity = hashlib.sha256(canonical([batch.event_ids(), digests, receipt, marked])).hexdigest()
    mine = slice(start, start + len(batch.windows))
    magnitude = outputs.magnitude[mine]
    source = _output(outputs.source_probabilities[mine])
    adapted = _output(outputs.adapted_probabilities[mine]) if served.spec.adaptable else None
    labels, adapts = source["labels"], served.adapts(magnitude)
    value = {
        "schema_version": 2,
        "output_id": identity,
        "device": batch.device,
        "session": batch.session,
        "seq": batch.seq,
        "event_times_ms": batch.event_times_ms,
        "input_digests": digests,
        "answered_by": rungs(adapts),
        "labels": labels if adapted is None else np.where(adapts, adapted["labels"], labels),
        "class_names": served.class_names,
        "source": source,
        "adapted": adapted,
        "adapted_by": None if adapted is None else "leantta",
        "shift": {
            "magnitude": magnitude,
            "mean": outputs.mean_part[mine],
            "variance": outputs.variance_part[mine],
            "layers_mean": outputs.shift_mean[mine],
            "layers_variance": outputs.shift_variance[mine],
        },
        "distance": None if adapted is None else outputs.distance[mine],
        "gain": None if adapted is None else outputs.gain[mine],
        "flags": marked,
        "receipt": receipt,
    }
    # float32 arrays are written with the shortest digits that read back to the same float32
    return identity, orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def flags(batch: FeatureBatch, served: Served) -> dict[str, list[int]]:
    """Return the places of the windows that a flag marks, by flag; one that marks none is left out."""
    first, last = PLAUSIBLE_MS
    other_rate = rate_flag(batch, served.sampling_rate_hz, served.step_samples)
    found = {
        "event_time_implausible": [i for i, time_ms in enumerate(batch.event_times_ms) if not first <= time_ms < last],
        "sampling_rate_implausible": list(range(len(batch.windows))) if other_rate else [],
    }
    return {name: places for name, places in found.items() if places}


def _output(probabilities: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.generic]]:
    return {"labels": probabilities.argmax(axis=1), "probabilities": probabilities}
