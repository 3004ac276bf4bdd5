"""Who is like whom, against a loop in numpy."""

import numpy as np
import torch

from acclimate.adaptation.continual.similarity import alike
from acclimate.adaptation.model.network import Network
from tests.adaptation.tiny_nets import tones, trained_on_tones


def test_each_window_takes_the_most_similar_of_the_label_that_is_predicted() -> None:
    model = trained_on_tones()[0]
    remembered, labels = (torch.from_numpy(each) for each in tones(40, seed=1))
    new = torch.from_numpy(tones(12, seed=2)[0])
    found = alike(model, remembered, labels, new)
    network = Network(model)
    held, seen = network.forward(remembered), network.forward(new)
    for row in range(12):
        predicted = int(seen.logits[row].argmax())
        x = seen.features[row].numpy()
        cosines = [
            float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y))) if label == predicted else -9.0
            for y, label in zip(held.features.numpy(), labels.tolist(), strict=True)
        ]
        assert int(found[row]) == int(np.argmax(cosines))


def test_a_label_that_is_not_remembered_takes_the_most_similar_of_all() -> None:
    model = trained_on_tones()[0]
    new = torch.from_numpy(tones(12, seed=2)[0])
    predicted = Network(model).forward(new).logits.argmax(dim=1)
    remembered, labels = (torch.from_numpy(each) for each in tones(40, seed=1))
    other = labels != predicted[0]
    found = alike(model, remembered[other], labels[other], new[:1])
    assert 0 <= int(found[0]) < int(other.sum())
