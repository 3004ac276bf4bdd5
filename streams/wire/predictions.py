"""Read ``.predictions``: one reader for all who count answers, so that they agree on what an answer is."""

from pydantic import ValidationError

from acclimate.streams.wire.messages import Output, PredictionRecord, WindowPrediction

__all__ = ["answered_output", "parse_prediction"]


def parse_prediction(value: bytes | None) -> PredictionRecord | None:
    """Return the prediction in a record's value; None where it is none: any client of the broker may write noise."""
    try:
        return PredictionRecord.model_validate_json(value or b"")
    except ValidationError:
        return None


def answered_output(window: WindowPrediction) -> Output:
    """Return the output that answered: the adapted one only where LeanTTA answered and gave one."""
    adapted = window.adapted if window.answered_by == "leantta" else None
    return adapted or window.source
