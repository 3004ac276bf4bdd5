"""Find the remembered windows that are like those that have just come without a label.

After IWMS, importance weighted memory sampling: "Label Delay in Online Continual Learning", Csaba et al., NeurIPS 2024.
Labels that arrive are of the past; windows without them are of now:

    (1) a new window is given the label that the model predicts
    (2) of what is remembered with this label it takes the window with the most similar features (cosine)

Where nothing of that label is remembered, the most similar of all is taken.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from acclimate.adaptation.model.network import Network

__all__ = ["alike"]


@torch.no_grad()
def alike(model: nn.Module, remembered: Tensor, labels: Tensor, new: Tensor) -> Tensor:
    """Return for each new window (m, C, L) the row of the remembered one that it takes, (m,): (1), (2).

    Args:
        model: The network in evaluation mode.
        remembered: (M, C, L), M at least 1.
        labels: (M,) of these.
        new: (m, C, L), m at least 1.
    """
    network = Network(model)
    seen, held = network.forward(new), network.forward(remembered)
    similar = normalize(seen.features, dim=1) @ normalize(held.features, dim=1).T  # (m, M)
    other = seen.logits.argmax(dim=1)[:, None] != labels  # (m, M)
    return (similar - 2.0 * other.to(similar.dtype)).argmax(dim=1)  # cosines of features differ by at most 2
