"""The answers of two models to the same windows, as the gates compare them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Answers", "Compared"]

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of one model to n windows.

    Attributes:
        answered: (n, K), as the fleet would get them: adapted where the shift asks for it.
        plain: (n, K), of the source model alone.
    """

    answered: FloatArray
    plain: FloatArray


@dataclass(frozen=True, eq=False)
class Compared:
    """Answers of candidate and champion to the same labelled windows.

    Attributes:
        name: The name of the windows in figures and messages.
        labels: (n,) classes 0..K-1.
        groups: (n,) devices; windows of one lie together.
        candidate: The candidate's answers.
        champion: The answers of the bundle in force; None where no bundle is.
    """

    name: str
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.str_]
    candidate: Answers
    champion: Answers | None

    def right(self, answers: Answers) -> npt.NDArray[np.bool_]:
        """Return which windows (n,) are answered right."""
        right: npt.NDArray[np.bool_] = answers.answered.argmax(axis=1) == self.labels
        return right

    def by_group(self, least: int) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        """Yield name and mask (n,) of each group with at least so many windows."""
        names, counts = np.unique(self.groups, return_counts=True)
        for name in names[counts >= least]:
            yield str(name), self.groups == name
