"""The task of meta-training, which both ways of teaching share: episodes, a step of Adam, and the judgement."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acclimate.adaptation.errors import ConfigError, DataError
from acclimate.adaptation.generators.affine_gradient import source_features
from acclimate.adaptation.generators.episodes import Episodes, Recordings, part_groups, unshifted_streams
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.state.optimizers import adam_step, all_finite

__all__ = ["ALONE", "CHECK_WINDOWS", "Check", "Judged", "MetaState", "MetaTask", "Share", "cosine", "state_part"]

MetaState = Mapping[str, Tensor]

CHECK_WINDOWS = 64  # of a batch that is judged
_AT_ONCE, _CHECK_BATCHES = 8, 8  # episodes that are judged, and batches of each
_MOST_HARM = 0.005  # share of right answers that a generator may cost where nothing is shifted; ours
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
    """The figures of a generator on fixed episodes.

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


@dataclass(frozen=True, eq=False)
class Judged:
    """Fixed streams: windows (e, n, C, L), labels (e, n), and logits (e, n, K) of the source."""

    windows: Tensor
    labels: Tensor
    source: Tensor

    def check(self, update: int, logits: Tensor) -> Check:
        """Compare logits (e, n, K) to the source's."""
        truth = self.labels.flatten()
        pairs = [each.flatten(0, 1) for each in (logits, self.source)]
        losses = [float(nn.functional.cross_entropy(each, truth)) for each in pairs]
        right = [float((each.argmax(dim=1) == truth).float().mean()) for each in pairs]
        return Check(update, losses[0], losses[1], right[0], right[1])

    def harm(self, logits: Tensor) -> float:
        """Return the share of right answers lost to the source, in that half of the streams where it is larger."""
        right = [(each.argmax(dim=2) == self.labels).float() for each in (logits, self.source)]
        halves = zip(*(torch.chunk(each, 2) for each in right), strict=True)
        return max(float(theirs.mean() - ours.mean()) for ours, theirs in halves)


class MetaTask:
    """The frozen network on its device, episodes to learn from, and fixed ones of other groups to be judged by.

    Args:
        model: Trained classifier in evaluation mode.
        source: All labelled source windows.
        seed: The seed of the groups held out and of all episodes.
        device: The device on which torch computes.
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
        judging = Episodes(held_out, source.windows, seed + 1_000_003)
        self.judged = self._judged(*judging.draw(range(_AT_ONCE), _CHECK_BATCHES * CHECK_WINDOWS))
        self._recordings = source
        self.source = source_features(self.network, torch.from_numpy(source.windows).to(device))

    def bearable(
        self, shares: Sequence[float], answered: Callable[[Tensor, float], Tensor], update: int
    ) -> tuple[float, Check]:
        """Return the first share of a generator's steps that costs the unshifted source at most half a point.

        That is in the mean of its devices, in recorded order and shuffled alike; the last share where none is so good.

        Args:
            shares: The shares, from large to small.
            answered: A function to logits (e, n, K) of streams (e, n, C, L), with this share of every step.
            update: The number of the update that made the weights.
        """
        streams = self._judged(*unshifted_streams(self._recordings, self.seed, CHECK_WINDOWS))
        for share in shares:
            logits = torch.cat([answered(part, share) for part in torch.split(streams.windows, _AT_ONCE)])
            if streams.harm(logits) <= _MOST_HARM:
                break
        return share, streams.check(update, logits)

    @torch.no_grad()
    def _judged(self, windows: Tensor, labels: Tensor) -> Judged:
        windows, labels = windows.to(self.device), labels.to(self.device)
        logits = [
            self.network.forward(x.flatten(0, 1)).logits.reshape(*x.shape[:2], -1)
            for x in torch.split(windows, CHECK_WINDOWS, dim=1)
        ]
        return Judged(windows, labels, torch.cat(logits, dim=1))

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


def state_part(state: MetaState, prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a state whose names begin with the prefix, by the rest of their names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
