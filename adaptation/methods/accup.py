"""ACCUP: prototypes or the classifier, whichever is surer, and contrastive learning on what was decided.

After "Augmented Contrastive Clustering with Uncertainty-Aware Prototyping for Time Series Test Time Adaptation", Gong
et al., KDD 2025. Each batch is seen twice, raw and magnitude-warped; BatchNorm uses the statistics of each view's
batch; gamma, beta and the kernels of convolutions learn, one Adam step per batch. The answer is from before the step.

    (1) z, q = features and logits, mean of both views;  p = softmax(q)
    (2) support (`prototypes`): per class the M windows of lowest entropy, at the start the classifier's own rows;
        s_k = tau cos(z, sum of the normalised features of class k)
    (3) answer = softmax(s) where H(softmax(s)) < H(p), else p;  its class is the pseudo-label
    (4) L = mean_i mean over j with i's pseudo-label of -ln [exp(c_ij / T) / sum over a != i of exp(c_ia / T)]
        over the 3 n logits of the raw, the warped and the mean view;  c: cosine

Defaults are those for UCI-HAR: M = 10, tau = 20, T = 0.7, Adam 3e-4 with weight decay 1e-4, warp 0.1 (0.01 for faults).

Not copied from the public code: it scales data with statistics of the target set, which hides gain and offset; here
scaling is the source's. It answers now with scores, now with probabilities; here always with probabilities.
RECONSTRUCTED: a tabular network learns the weights of its linear maps before the head, for it has no convolutions; a
class without support cannot be answered by prototypes; a batch of one has no pairs but its own views, whose loss would
only pull logits together, so the prototypes learn and the network does not.
"""

import torch
from torch import Tensor, nn

from acclimate.adaptation.data.sensor_augmentations import magnitude_warp
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.methods.prototypes import admit, head_supports, prototype_logits
from acclimate.adaptation.model.groups import by_group
from acclimate.adaptation.model.losses import entropies
from acclimate.adaptation.model.network import Network
from acclimate.adaptation.model.source_units import SourceUnits
from acclimate.adaptation.state.optimizers import adam_start, adam_step, all_finite, gradients_of
from acclimate.adaptation.state.random_state import random_start, resumed

__all__ = ["Accup", "contrastive_loss"]

_MEMORY = ("supports", "entropies")
_NONE = -1e9  # a score; minus infinity would make 0 times infinity of an entropy


def contrastive_loss(logits: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return (4) for rows (m, K) with pseudo-labels (m,); every row must share its label with another."""
    unit = nn.functional.normalize(logits, dim=1)
    alone = torch.eye(len(logits), dtype=torch.bool)
    similarity = (unit @ unit.T / temperature).masked_fill(alone, -torch.inf)  # (m, m)
    positive = (labels[:, None] == labels[None]) & ~alone
    log_share = torch.log_softmax(similarity, dim=1).masked_fill(~positive, 0.0)
    return -(log_share.sum(dim=1) / positive.sum(dim=1)).mean()


class Accup:
    """Configure ACCUP.

    Args:
        context: The source; its windows give the units of the warp.
        learning_rate: The rate of Adam. Raising it adapts, and collapses, faster; 0 leaves prototypes and statistics.
        filter_k: M, at least 1. Raising it makes prototypes steadier and less pure.
        tau: Scale of cosines. Raising it makes prototypes win more often.
        temperature: T. Raising it softens the contrast.
        warp: Deviation of the warp around 1.

    Raises:
        ConfigError: The network has no BatchNorm layer, or a setting is out of range.
    """

    stateless = False

    def __init__(
        self,
        context: SourceContext,
        learning_rate: float = 3e-4,
        filter_k: int = 10,
        tau: float = 20.0,
        temperature: float = 0.7,
        warp: float = 0.1,
    ) -> None:
        if not tau > 0 or not temperature > 0:
            raise ConfigError(f"tau, temperature: expected above 0, got {tau}, {temperature}")
        if filter_k < 1:
            raise ConfigError(f"filter_k: expected at least 1, got {filter_k}")
        self._network = Network(context.model)
        modules = dict(context.model.named_modules())
        maps = tuple(
            f"{name}.weight"
            for name, module in modules.items()
            if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
            or (isinstance(module, nn.Linear) and name != self._network.head)
        )
        self.adapts = (*require_adapted(self._network.affine, "gamma or beta"), *maps)
        self._units, self._seed = SourceUnits(context), context.seed
        self._learning_rate, self._filter_k, self._tau = learning_rate, filter_k, tau
        self._temperature, self._warp = temperature, warp

    @torch.no_grad()
    def reset(self) -> State:
        """Return the source, an optimizer that has seen nothing, and the classifier's rows as support."""
        adapted = {name: self._network.tensors[name] for name in self.adapts}
        supports = head_supports(self._network, self._filter_k)
        return {**adapted, **adam_start(adapted), **supports, "generator": random_start(self._seed)}

    def _scores(self, memory: State, features: Tensor) -> Tensor:
        """Return tau times the cosine to each class (n, K); nearly none for a class without support."""  # (2)
        cosines = prototype_logits(memory, nn.functional.normalize(features, dim=1))
        return (self._tau * cosines).masked_fill(memory["entropies"][:, 0].isinf(), _NONE)

    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer from both views, prototypes with this batch included, then take one step."""
        generator = resumed(state["generator"])
        count = len(windows)
        with torch.no_grad():
            warped = self._units.to_raw(magnitude_warp(self._units.to_units(windows), generator, self._warp))
        learns = count > 1
        adapted = {name: state[name].detach().requires_grad_(learns) for name in self.adapts}
        with torch.set_grad_enabled(learns):
            out = self._network.forward(torch.cat((windows, warped)), adapted, by_group(2))
            mean_logits = out.logits.reshape(2, count, -1).mean(dim=0)  # (1)
        with torch.no_grad():
            features = out.features.reshape(2, count, -1).mean(dim=0)
            memory, entered = admit({key: state[key] for key in _MEMORY}, features, mean_logits)
            scores = self._scores(memory, features)
            surer = entropies(scores) < entropies(mean_logits)
            answer = torch.softmax(torch.where(surer[:, None], scores, mean_logits), dim=1)  # (3)
        updated = entered > 0
        new = {**state, **memory, "generator": generator.get_state()}
        if learns:
            with torch.enable_grad():
                labels = answer.argmax(dim=1).repeat(3)
                loss = contrastive_loss(torch.cat((out.logits, mean_logits)), labels, self._temperature)  # (4)
                gradients = gradients_of(loss, adapted)
            if all_finite((loss, *gradients.values())):
                new |= adam_step(adapted, gradients, state, self._learning_rate, weight_decay=1e-4)
                updated = True
        return new, Step(answer, updates=int(updated), selected=count if updated else 0)
