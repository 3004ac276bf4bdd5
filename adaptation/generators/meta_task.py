"""What a generator is taught on, and what both ways of teaching share: episodes, a step of Adam, and the judgement."""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adaptation.errors import ConfigError, DataError
from adaptation.generators.affine_gradient import source_features
from adaptation.generators.episodes import Episodes, Recordings, part_groups
from adaptation.methods.network import Network
from adaptation.methods.optimizers import adam_step, all_finite

__all__ = ["ALONE", "CHECK_WINDOWS", "Check", "MetaState", "MetaTask", "Share", "compared", "cosine", "state_part"]

MetaState = Mapping[str, Tensor]

CHECK_WINDOWS = 64  # of a batch that is judged
_CHECK_EPISODES, _CHECK_BATCHES, _UNSHIFTED_BATCHES = 8, 8, 16
_LARGEST_NORM = 1.0
_PROCESSES = (1, 2, 4)  # updates have a multiple of four episodes


@dataclass(frozen=True)
class Share:
    """The part of every update that this process does.

    Attributes:
        rank, of: This process and how many there are.
        mean, largest: Take a tensor of every process and give all of them the mean, or the largest.
    """

    rank: int = 0
    of: int = 1
    mean: Callable[[Tensor], Tensor] = lambda tensor: tensor
    largest: Callable[[Tensor], Tensor] = lambda tensor: tensor


ALONE = Share()


@dataclass(frozen=True)
class Check:
    """How the generator did on fixed episodes.

    Attributes:
        update: After which update.
        loss, source_loss: Cross-entropy with it and of the source, nats.
        accuracy, source_accuracy: 0 to 1.
    """

    update: int
    loss: float
    source_loss: float
    accuracy: float
    source_accuracy: float


class MetaTask:
    """The frozen network on its device, episodes to learn from, and fixed ones of other groups to be judged by.

    Args:
        model: Trained classifier in evaluation mode.
        source: All labelled source windows.
        seed: Of the groups held out and all episodes.
        device: Where torch computes.
        share: See `Share`.

    Raises:
        ConfigError: Processes cannot share evenly.
        DataError: The source is too small.
    """

    def __init__(self, model: nn.Module, source: Recordings, seed: int, device: str, share: Share) -> None:
        if share.of not in _PROCESSES:
            raise ConfigError(f"processes: expected 1, 2 or 4, to share an update's episodes evenly, got {share.of}")
        self.network = Network(copy.deepcopy(model).to(device))
        self.seed, self.device, self.share = seed, device, share
        taught, held_out = part_groups(source, seed)
        self.episodes = Episodes(taught, source.windows, seed)
        self.judged = self._fixed(Episodes(held_out, source.windows, seed + 1_000_003), _CHECK_BATCHES)
        self._unshifted = Episodes(source, source.windows, seed + 2_000_003, clean_share=1.0)
        rows = torch.linspace(0, len(source.windows) - 1, min(512, len(source.windows))).long()
        self.source = source_features(self.network, torch.from_numpy(source.windows)[rows].to(device))

    def unshifted(self) -> tuple[Tensor, Tensor]:
        """Return long episodes of the whole source without shift: windows (e, n, C, L), labels (e, n)."""
        return self._fixed(self._unshifted, _UNSHIFTED_BATCHES)

    def _fixed(self, episodes: Episodes, batches: int) -> tuple[Tensor, Tensor]:
        windows, labels = episodes.draw(range(_CHECK_EPISODES), batches * CHECK_WINDOWS)
        return windows.to(self.device), labels.to(self.device)

    def drawn(self, number: int, episodes: int, windows: int) -> tuple[Tensor, Tensor]:
        """Return this process's share of the episodes of an update."""
        mine = range(number * episodes + self.share.rank, (number + 1) * episodes, self.share.of)
        drawn = self.episodes.draw(mine, windows)
        return drawn[0].to(self.device), drawn[1].to(self.device)

    def stepped(
        self, state: MetaState, module: nn.Module, loss: Tensor, rate: float, decay: float = 0.0
    ) -> dict[str, Tensor]:
        """Return the state after one step of Adam down a loss, the gradient's norm cut to 1, and move the module."""
        weights = dict(module.named_parameters())
        found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True, materialize_grads=True)
        gradients = {name: self.share.mean(value) for name, value in zip(weights, found, strict=True)}
        if not all_finite(gradients.values()):
            raise DataError("meta-training led to numbers that are not finite; expected scaled, finite windows")
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
        cut = min(1.0, _LARGEST_NORM / (norm + 1e-12))
        gradients = {name: cut * gradient for name, gradient in gradients.items()}
        old = {name: value.detach() * (1 - rate * decay) for name, value in weights.items()}
        new = adam_step(old, gradients, state_part(state, "adam/"), rate)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(new[name])
        moved = {f"weights/{name}": new[name] for name in weights}
        return {**state, **moved, **{f"adam/{name}": value for name, value in new.items() if name not in weights}}

    def widened(self, state: MetaState, distances: list[Tensor]) -> MetaState:
        """Return the state with the range of valid statistics widened to these (2,) and (2, groups)."""
        each = torch.stack([distance.amax(dim=1) for distance in distances])
        met = torch.where(torch.isfinite(each), each, 0.0).amax(dim=0)
        return {**state, "range": torch.maximum(state["range"], self.share.largest(met).cpu().double())}


def cosine(done: float) -> float:
    """Return the share of the first learning rate, from 1 to 0 as ``done`` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


def compared(update: int, logits: Tensor, source: Tensor, labels: Tensor) -> Check:
    """Compare logits (e, n, K) to the source's on labels (e, n)."""
    truth = labels.flatten()
    pairs = [each.reshape(len(truth), -1) for each in (logits, source)]
    losses = [float(nn.functional.cross_entropy(each, truth)) for each in pairs]
    right = [float((each.argmax(dim=1) == truth).float().mean()) for each in pairs]
    return Check(update, losses[0], losses[1], right[0], right[1])


def state_part(state: MetaState, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a state whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
