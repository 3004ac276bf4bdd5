"""The wire contract is what is checked in; a change of it must be seen in review."""

import json
from pathlib import Path

import pytest

from acclimate.streams.wire.messages import FeatureRecord, PredictionRecord
from acclimate.streams.wire.predictions import parse_prediction
from acclimate.streams.wire.schemas import schemas

FOLDER = Path(__file__).parents[3] / "docs" / "schemas"
FROZEN = Path(__file__).parent / "frozen"
FINISHED = {"predictions.v1.json"}  # nobody writes it any more; test_kept.py holds it to a record of its time


def test_the_exported_schemas_equal_the_models():
    exported = {path.name: path.read_text() for path in FOLDER.glob("*.json") if path.name not in FINISHED}
    assert exported == schemas(), "run: python -m acclimate.streams.wire.schemas docs/schemas"


@pytest.mark.parametrize(("model", "name"), [(FeatureRecord, "features.v1"), (PredictionRecord, "predictions.v2")])
def test_the_first_record_of_a_schema_can_still_be_read(model, name):
    text = (FROZEN / f"{name}.json").read_text()
    record = model.model_validate_json(text)
    assert set(json.loads(text)) == set(record.model_dump(exclude_unset=True))


def test_a_reader_ignores_fields_that_a_newer_writer_added():
    newer = json.loads((FROZEN / "predictions.v1.json").read_text()) | {"added_later": 1}
    newer["windows"][0]["added_later"] = {"nested": True}
    newest = json.loads((FROZEN / "predictions.v2.json").read_text()) | {"added_later": 1}
    newest["source"]["added_later"] = {"nested": True}
    for record in (newer, newest):
        found = parse_prediction(json.dumps(record).encode())
        assert found is not None
        assert found.labels == [1]
