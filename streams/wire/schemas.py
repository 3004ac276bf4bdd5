"""JSON Schemas of the record values, checked in under ``docs/schemas`` so that other languages can rely on them.

``python -m acclimate.streams.wire.schemas docs/schemas`` writes them; a test fails while they differ from the models.
"""

import json
import sys
from pathlib import Path

from pydantic import BaseModel

from acclimate.streams.wire.messages import (
    ControllerStatus,
    CrashMark,
    DeviceStatus,
    FeatureRecord,
    PredictionRecord,
    WindowRequest,
    WorkerStatus,
)

__all__ = ["schemas", "write_schemas"]

# The schema of predictions.v1 stays as it was: nobody writes such records any more.
MODELS: dict[str, type[BaseModel]] = {
    "features.v1": FeatureRecord,
    "predictions.v2": PredictionRecord,
    "requests.v1": WindowRequest,
    "status.device.v1": DeviceStatus,
    "status.worker.v1": WorkerStatus,
    "status.controller.v1": ControllerStatus,
    "status.crash.v1": CrashMark,
}


def schemas() -> dict[str, str]:
    """Return file name and text of every schema."""
    return {
        f"{name}.json": json.dumps(model.model_json_schema(), indent=2, sort_keys=True) + "\n"
        for name, model in MODELS.items()
    }


def write_schemas(folder: Path) -> None:
    """Write all schemas into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in schemas().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    write_schemas(Path(sys.argv[1]))
