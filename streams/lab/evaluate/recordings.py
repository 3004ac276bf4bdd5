"""The recordings of an evaluation, in two halves that never meet: one makes sources, the other is streamed."""

from dataclasses import dataclass, replace

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.evaluation.streams import every
from acclimate.streams.lab.evaluate.options import EvaluationOptions
from acclimate.streams.lab.study.selection import SIMULATION_SEED, selected_dataset

__all__ = ["Recordings", "load_data"]


@dataclass(frozen=True, eq=False)
class Recordings:
    """The source and the target of an evaluation, apart.

    Attributes:
        source: The source alone, with a target of None: whatever chooses, trains or calibrates is given this.
        target: Windows to stream, thinned to the stride; their labels are for streams and scores.
    """

    source: Dataset
    target: Split


def load_data(options: EvaluationOptions) -> Recordings:
    """Load source and target.

    Raises:
        ConfigError: There is no target, or the options do not fit the file.
        DataError: The file's content is wrong.
    """
    dataset = selected_dataset(SIMULATION_SEED, **options.selection)
    if dataset.target is None:
        raise ConfigError("an evaluation needs rows to stream: add --target KEY=VALUES")
    return Recordings(replace(dataset, target=None), every(dataset.target, options.stride))
