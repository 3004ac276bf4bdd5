"""The conditions for asking a generator: enough windows, within the shifts of meta-training. Imports no torch.

Per batch, with the batch statistics m (in source standard deviations) and r (variance over the source's) of what enters
each BatchNorm layer:

    (1) mean part      mean over layers of mean_c m_c^2
    (2) variance part  mean over layers of mean_c log^2 r_c

Both are plain numbers whatever the network, so a range serves a network that the generator was not trained with. What
is not finite lies outside every range.
"""

import math
from dataclasses import dataclass

from acclimate.adaptation.errors import ConfigError

__all__ = ["LEAST_WINDOWS", "ValidRange"]

# Of a batch. With 16, MGG lost up to 20 points on windows of the source itself, and GeneralizeFormer 6 where they show
# one class; 1 with 32, nothing with 64 (myo_emg).
LEAST_WINDOWS = 64


@dataclass(frozen=True)
class ValidRange:
    """The largest (1) and (2) of any batch in meta-training, each above 0.

    Raises:
        ConfigError: A limit is not above 0.
    """

    mean_limit: float
    variance_limit: float

    def __post_init__(self) -> None:
        if not (self.mean_limit > 0 and self.variance_limit > 0):
            raise ConfigError(f"valid range: expected limits above 0, got {self.mean_limit} and {self.variance_limit}")

    def share(self, mean: float, variance: float) -> float:
        """Return how far out a batch with these parts is: up to 1 inside, above outside, infinite if not finite.

        >>> ValidRange(4.0, 2.0).share(2.0, 3.0)
        1.5
        """
        if not math.isfinite(mean + variance):
            return math.inf
        return max(mean / self.mean_limit, variance / self.variance_limit)
