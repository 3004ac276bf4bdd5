"""Records that an older version published are still read."""

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from acclimate.streams.wire.codec import decode_features, encode_features
from acclimate.streams.wire.predictions import answered_probabilities, parse_prediction
from tests.support.models import CHANNELS, LENGTH, windows

KEPT = Path(__file__).parents[2] / "kept" / "f03a09a"


def test_a_record_of_windows_has_the_windows_that_were_sent():
    raw = (KEPT / "features.json").read_bytes()
    batch = decode_features(b"pump-7", raw, channels=CHANNELS, length=LENGTH, bytes_max=1_000_000)
    assert (batch.device, batch.seq) == ("pump-7", 5)
    assert (batch.windows == windows(3, seed=3, scale=2.0)).all()
    assert (batch.sampling_rate_hz, batch.step_samples) == (None, None)
    assert encode_features(batch) == raw  # what says nothing of its sampling has the bytes from before


def test_all_that_is_said_of_each_window_is_there():
    raw = (KEPT / "predictions.json").read_bytes()
    entries, record = json.loads(raw)["windows"], parse_prediction(raw)
    assert record is not None
    assert [each["event_id"].rpartition("/")[2] for each in entries] == ["5", "6", "7"]
    assert (record.device, record.seq, record.adapted_by, record.flags) == ("pump-7", 5, "leantta", {})
    assert record.receipt.code_contract_version == 1
    for i, entry in enumerate(entries):
        found = (record.event_times_ms[i], record.input_digests[i], record.answered_by[i], record.labels[i])
        assert found == tuple(entry[name] for name in ("event_time_ms", "input_digest", "answered_by", "label"))
        assert record.class_names[record.labels[i]] == entry["class_name"]
        for part, output in (("source", record.source), ("adapted", record.adapted)):
            assert {"label": output.labels[i], "probabilities": output.probabilities[i]} == entry[part]
        assert {name: column[i] for name, column in record.shift.model_dump().items()} == entry["shift"]
        assert (record.distance[i], record.gain[i]) == (entry["distance"], entry["gain"])
        answered = entry["source" if entry["answered_by"] == "source" else "adapted"]
        assert answered_probabilities(record)[i] == answered["probabilities"]


def test_its_published_schema_stays():
    schema = json.loads((KEPT.parents[2] / "docs" / "schemas" / "predictions.v1.json").read_text())
    Draft202012Validator(schema).validate(json.loads((KEPT / "predictions.json").read_bytes()))
