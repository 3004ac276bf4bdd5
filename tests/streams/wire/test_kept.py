"""Records that an older version published are still read."""

from pathlib import Path

from acclimate.streams.wire.codec import decode_features, encode_features
from acclimate.streams.wire.predictions import parse_prediction
from tests.support.models import CHANNELS, LENGTH, windows

KEPT = Path(__file__).parents[2] / "kept" / "f03a09a"


def test_a_record_of_windows_has_the_windows_that_were_sent():
    raw = (KEPT / "features.json").read_bytes()
    batch = decode_features(b"pump-7", raw, channels=CHANNELS, length=LENGTH, bytes_max=1_000_000)
    assert (batch.device, batch.seq) == ("pump-7", 5)
    assert (batch.windows == windows(3, seed=3, scale=2.0)).all()
    assert (batch.sampling_rate_hz, batch.step_samples) == (None, None)
    assert encode_features(batch) == raw  # what says nothing of its sampling has the bytes from before


def test_predictions_of_each_window_are_there():
    record = parse_prediction((KEPT / "predictions.json").read_bytes())
    assert record is not None
    assert [each.event_id.rpartition("/")[2] for each in record.windows] == ["5", "6", "7"]
    assert {each.answered_by for each in record.windows} <= {"source", "leantta"}
