"""Predictions made by hand: values a test can count, without an engine; and the same values window by window."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from acclimate.registry.releases.mode import Mode
from acclimate.streams.audit.join import Answer, Arrival, Joined, Published, join
from acclimate.streams.wire.messages import Receipt, event_id

__all__ = ["SESSION", "answer", "by_window", "receipt", "record", "record_v1", "two_devices", "window"]

SESSION = "00ff00ff00ff00ff"
_CLASSES = 3


def window(
    source: int,
    adapted: int | None,
    answered: int,
    magnitude: float,
    rung: str = "leantta",
    flags: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return what is said of one window, as version 1 wrote it; the rung answered where the shift is at least 1."""
    return {
        "event_time_ms": 1_700_000_000_000,
        "input_digest": "d" * 64,
        "answered_by": rung if adapted is not None and magnitude >= 1 else "source",
        "label": answered,
        "class_name": str(answered),
        "source": _output(source),
        "adapted": None if adapted is None else _output(adapted),
        "shift": {"magnitude": magnitude, "mean": magnitude, "variance": 0.0, "layers_mean": [], "layers_variance": []},
        "distance": None,
        "gain": None,
        "flags": list(flags),
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


def record(device: str, seq: int, windows: list[dict[str, Any]], by: Receipt, rung: str = "leantta") -> dict[str, Any]:
    """Return a prediction of the present version."""

    def column(name: str, part: str | None = None) -> list[Any] | None:
        of = [w if part is None else w[part] for w in windows]
        return None if any(each is None or each[name] is None for each in of) else [each[name] for each in of]

    def output(part: str) -> dict[str, Any] | None:
        labels = column("label", part)
        return None if labels is None else {"labels": labels, "probabilities": column("probabilities", part)}

    return {
        "schema_version": 2,
        **_head(device, seq, by),
        "event_times_ms": column("event_time_ms"),
        "input_digests": column("input_digest"),
        "answered_by": column("answered_by"),
        "labels": column("label"),
        "class_names": [str(label) for label in range(len(windows[0]["source"]["probabilities"]))],
        "source": output("source"),
        "adapted": output("adapted"),
        "adapted_by": None if output("adapted") is None else rung,
        "shift": {name: column(name, "shift") for name in windows[0]["shift"]},
        "distance": column("distance"),
        "gain": column("gain"),
        "flags": {
            flag: [i for i, each in enumerate(windows) if flag in each["flags"]]
            for flag in sorted({flag for each in windows for flag in each["flags"]})
        },
    }


def record_v1(device: str, seq: int, windows: list[dict[str, Any]], by: Receipt) -> dict[str, Any]:
    """Return the same prediction as version 1 wrote it."""
    entries = [{"event_id": event_id(device, SESSION, seq + i), **entry} for i, entry in enumerate(windows)]
    return {"schema_version": 1, **_head(device, seq, by), "windows": entries}


def by_window(message: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a prediction, as JSON gives it, says of each window, by event id."""
    columns = {name: message[name] for name in ("event_times_ms", "input_digests", "answered_by", "labels")}
    columns |= {name: message[name] for name in ("distance", "gain") if message[name] is not None}
    for part in ("source", "adapted", "shift"):
        columns |= {f"{part}.{name}": column for name, column in (message[part] or {}).items()}
    return {
        event_id(message["device"], message["session"], message["seq"] + i): {
            "flags": sorted(flag for flag, places in message["flags"].items() if i in places),
            **{name: column[i] for name, column in columns.items()},
        }
        for i in range(len(message["event_times_ms"]))
    }


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
    value = json.dumps(record(device, seq, windows, receipt(bundle))).encode()
    parsed = Answer.parse(partition, offset, time_ms, value)
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


def _head(device: str, seq: int, by: Receipt) -> dict[str, Any]:
    identity = hashlib.sha256(f"{device}/{seq}/{by.bundle}".encode()).hexdigest()
    return {"output_id": identity, "device": device, "session": SESSION, "seq": seq, "receipt": by.model_dump()}
