"""How MGG is taught: the gradient against finite differences, and steps that unshifted windows can bear."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.adaptation.generators import meta_train_mgg as module
from acclimate.adaptation.generators.affine_gradient import affine_gradient, join, look, split
from acclimate.adaptation.generators.episodes import Recordings
from acclimate.adaptation.generators.meta_task import ALONE, MetaState, MetaTask
from acclimate.adaptation.generators.meta_train_mgg import MggTraining
from acclimate.adaptation.generators.mgg import MggSettings, moments_start, moments_step
from acclimate.adaptation.model.network import Network
from tests.adaptation.methods.numpy_net import source_for
from tests.adaptation.tiny_generators import recordings
from tests.adaptation.tiny_nets import CONV, trained_on_tones, windows_for


class Watched(MetaTask):
    """Two or three batches of an episode in float64; keeps the gradient of the last step of Adam, and makes none."""

    gradient: dict[str, Tensor]

    def drawn(self, number: int, episodes: int, windows: int) -> tuple[Tensor, Tensor]:
        drawn = torch.from_numpy(windows_for(CONV, 2 * windows, seed=number)).double()
        labels = torch.arange(2 * windows).reshape(2, windows) % CONV.classes
        return drawn.reshape(2, windows, *drawn.shape[1:]), labels

    def stepped(self, state: MetaState, module: nn.Module, loss: Tensor, rate: float, decay: float = 0.0) -> MetaState:  # type: ignore[override]
        names, values = zip(*module.named_parameters(), strict=True)
        self.gradient = dict(zip(names, torch.autograd.grad(loss, values, materialize_grads=True), strict=True))
        return state


@pytest.mark.parametrize("unroll", [1, 2])
def test_the_meta_gradient_is_the_slope_of_the_next_batches_cross_entropy(
    unroll: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STREAM_BATCHES", unroll + 1)
    monkeypatch.setattr(module, "_BATCHES", (4, 4))
    context = source_for(CONV)
    many = np.repeat(context.windows.numpy(), 4, axis=0)
    source = Recordings(many, np.arange(200) % CONV.classes, np.repeat(["a", "b"], 100))
    model = copy.deepcopy(context.model)
    task = Watched(model, source, 0, "cpu", ALONE)
    task.network = Network(model.double())
    task.source = replace(task.source, **{k: v.double() for k, v in vars(task.source).items()})
    training = MggTraining(task, MggSettings(alpha=0.05, unroll=unroll))
    training.mgg.double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in training.mgg.parameters():
            value.add_(0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64))
    state = {f"weights/{name}": value.clone() for name, value in training.mgg.state_dict().items()}
    training.advance({**state, "range": torch.zeros(2, dtype=torch.float64)}, 0, 0.0)

    windows, labels = task.drawn(0, 4, (unroll + 1) * 4)
    batches = list(zip(torch.split(windows, 4, dim=1), torch.split(labels, 4, dim=1), strict=True))
    shown: list[Tensor] = []  # constant to the optimizer: recorded once, at the weights as they are

    def loss(record: bool) -> float:
        coordinates = torch.cat(list(training.start.values())).expand(2, -1)
        memory, moments = training.mgg.start(coordinates.numel()), moments_start(tuple(coordinates.shape))
        total = 0.0
        for index, (x, y) in enumerate(batches):
            flat = x.flatten(0, 1)
            if index:
                logits = look(task.network, flat, split(coordinates, training.start), 2).logits
                total += float(nn.functional.cross_entropy(logits, y.flatten()))
            if record:
                _, gradient = affine_gradient(
                    task.network, flat, split(coordinates, training.start), task.source, training.weight, 2
                )
                moments, pair = moments_step(moments, join(gradient))
                shown.append(pair)
            u, memory = training.mgg(shown[index].flatten(0, 1), memory)
            coordinates = coordinates - 0.05 * u.reshape(coordinates.shape)
        return total

    with torch.no_grad():
        loss(record=True)
        for name, value in training.mgg.named_parameters():
            flat = value.view(-1)
            for place in range(min(6, flat.numel())):
                kept = flat[place].item()
                sides = []
                for step in (1e-5, -1e-5):
                    flat[place] = kept + step
                    sides.append(loss(record=False))
                flat[place] = kept
                slope = (sides[0] - sides[1]) / 2e-5
                assert task.gradient[name].flatten()[place].item() == pytest.approx(slope, abs=1e-7, rel=1e-4)


def test_steps_at_test_are_a_share_of_those_of_meta_training() -> None:
    task = MetaTask(trained_on_tones()[0], recordings(), 0, "cpu", ALONE)
    training = MggTraining(task, MggSettings(alpha=0.02))
    generator = torch.Generator().manual_seed(0)
    best = {
        f"best/{name}": value + 0.3 * torch.randn(value.shape, generator=generator)
        for name, value in training.weights.items()
    }
    share, cost = training.finished(best, 3)
    assert cost.update == 3
    windows = task.judged.windows[:2]
    half = training._streamed(windows, 0.5)
    smaller = MggTraining(task, MggSettings(alpha=0.01))
    smaller.mgg.load_state_dict(training.mgg.state_dict())
    assert torch.equal(half, smaller._streamed(windows, 1.0))
    assert not torch.equal(half, training._streamed(windows, 1.0))
    assert share in (1.0, 0.5, 0.25, 0.125)
