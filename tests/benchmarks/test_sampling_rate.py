"""Windows at twice the rate are the first half of the recorded ones, in as many samples."""

import numpy as np

from benchmarks.sampling_rate import doubled


def test_a_sample_comes_between_every_two_of_the_first_half() -> None:
    windows = np.array([[[0, 2, 4, 0], [1, 1, 3, 9]]], np.float32)
    assert doubled(windows).tolist() == [[[0, 1, 2, 3], [1, 1, 1, 2]]]
