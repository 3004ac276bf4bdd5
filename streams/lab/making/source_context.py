"""Choose the source windows that methods may look at."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from acclimate.adaptation.evaluation.run import balanced_rows
from acclimate.adaptation.method import SourceContext

__all__ = ["source_context"]

_SAMPLE = 512  # windows that a method may look at


def source_context(
    model: nn.Module, windows: NDArray[np.float32], labels: NDArray[np.int64], seed: int
) -> SourceContext:
    """Return everything that methods may know of a source: its model, a balanced sample, and all of its windows.

    Args:
        model: The model, trained, in evaluation mode.
        windows: (n, C, L) all windows of the source.
        labels: (n,) their classes.
        seed: The seed for the sample and for everything random in a method.
    """
    rows = balanced_rows(labels, _SAMPLE, seed)
    recorded = torch.from_numpy(windows)
    return SourceContext(model, recorded[rows], torch.from_numpy(labels[rows]), seed, recorded=recorded)
