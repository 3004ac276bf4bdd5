"""The cosine of two gradients, and the lines about it."""

import numpy as np
import pytest
import torch

from acclimate.adaptation.data.dataset import Dataset, Split
from acclimate.adaptation.methods.prepared import Prepared
from acclimate.streams.lab.study.prepare import PreparedSource
from benchmarks.alignment import cosine_of, cosines_along, gradients
from benchmarks.generators import Evaluated
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_alignments import drawn_alignments
from tests.adaptation.tiny_nets import CONV, windows_for


def test_the_cosine_of_a_gradient_with_itself_is_one() -> None:
    context = source_for(CONV)
    aligned = drawn_alignments(context)["cta"]
    windows = torch.from_numpy(windows_for(CONV, 40, seed=3))
    labels = torch.arange(40) % 4
    look = cosine_of(context, aligned, [name for name in aligned.encoder if name.startswith("blocks")])
    one, two = (look(aligned.encoder, windows, labels, torch.Generator().manual_seed(0)) for _ in range(2))
    assert one == two
    assert -1 <= one <= 1
    assert one != pytest.approx(look(aligned.encoder, windows, labels.flip(0), torch.Generator().manual_seed(0)))


def test_a_stream_gives_a_cosine_per_whole_batch_and_one_gain() -> None:
    context = source_for(CONV)
    windows = torch.from_numpy(windows_for(CONV, 150, seed=4))
    cosines, gain = cosines_along(context, drawn_alignments(context)["cta"], windows, torch.arange(150) % 4)
    assert len(cosines) == 2
    assert -1 <= gain <= 1


def test_a_line_tells_thirds_and_signs() -> None:
    context = source_for(CONV)
    source = PreparedSource(context, {}, prepared=Prepared(alignments=drawn_alignments(context)))
    split = Split(windows_for(CONV, 420), np.arange(420) % 4, np.repeat(["a", "b"], 210), np.arange(420))
    names, classes = tuple("xyz"), tuple("0123")
    dataset = Dataset("tiny", split, split, names, classes, CONV.transform, "device", None, {})
    (line,) = gradients([Evaluated("tiny", dataset, {"none": [source, source]})])
    assert set(line) == {
        *("recordings", "source", "first third", "middle", "last", "above zero", "correlation with gain"),
    }
    assert line["above zero"].endswith("%")
