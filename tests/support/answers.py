"""Predictions made by hand: values a test can count, without an engine."""

import hashlib
import json
from typing import Any

from acclimate.registry.releases.mode import Mode
from acclimate.streams.audit.join import Answer, Arrival, Joined, Published, join
from acclimate.streams.wire.messages import Receipt

__all__ = ["SESSION", "answer", "receipt", "two_devices", "window"]

SESSION = "00ff00ff00ff00ff"
_CLASSES = 3


def window(source: int, adapted: int | None, answered: int, magnitude: float) -> dict[str, Any]:
    """Return one entry without its event; LeanTTA answered where the shift is at least 1."""
    return {
        "event_time_ms": 1_700_000_000_000,
        "input_digest": "d" * 64,
        "answered_by": "leantta" if adapted is not None and magnitude >= 1 else "source",
        "label": answered,
        "class_name": str(answered),
        "source": _output(source),
        "adapted": None if adapted is None else _output(adapted),
        "shift": {"magnitude": magnitude, "mean": magnitude, "variance": 0.0, "layers_mean": [], "layers_variance": []},
        "distance": None,
        "gain": None,
        "flags": [],
    }


def receipt(bundle: str, epoch: int = 0, mode: Mode = "always") -> Receipt:
    """Return what a worker with this bundle and release says."""
    return Receipt(
        bundle=bundle,
        adapter=None,
        epoch=epoch,
        mode=mode,
        config="c" * 64,
        code_contract_version=1,
        engine="onnxruntime 1",
        instruction_set="test",
    )


def answer(
    partition: int,
    offset: int,
    time_ms: int,
    device: str,
    seq: int,
    windows: list[dict[str, Any]],
    bundle: str = "a" * 64,
) -> Answer:
    """Return a prediction record as it was read from Kafka."""
    value = {
        "schema_version": 1,
        "output_id": hashlib.sha256(f"{device}/{seq}/{bundle}".encode()).hexdigest(),
        "device": device,
        "session": SESSION,
        "seq": seq,
        "windows": [{"event_id": f"{device}/{SESSION}/{seq + i}", **entry} for i, entry in enumerate(windows)],
        "receipt": receipt(bundle).model_dump(),
    }
    parsed = Answer.parse(partition, offset, time_ms, json.dumps(value).encode())
    assert parsed is not None
    return parsed


def two_devices() -> Joined:
    """Return a joined run: of a, 1 of 4 is right as trained, 3 adapted, 2 as answered; of b, 2, 0 and 1 of 2."""
    ledger = [Published("a", SESSION, 0, (0, 1, 2, 3)), Published("b", SESSION, 0, (4, 5))]
    arrivals = [Arrival(0, 0, 1_000, ("a", SESSION, 0)), Arrival(1, 0, 1_100, ("b", SESSION, 0))]
    answers = [
        answer(
            0,
            0,
            1_500,
            "a",
            0,
            [window(0, 0, 0, 0.5), window(1, 0, 0, 3.0), window(1, 0, 1, 0.9), window(1, 1, 1, 1.0)],
        ),
        answer(1, 0, 2_000, "b", 0, [window(2, 1, 1, 4.0), window(2, 1, 2, 0.2)]),
    ]
    return join(ledger, arrivals, answers, [], {0: 0, 1: 0, 2: 0, 3: 0, 4: 2, 5: 2})


def _output(label: int) -> dict[str, Any]:
    return {"label": label, "probabilities": [1.0 if i == label else 0.0 for i in range(_CLASSES)]}
