"""GeneralizeFormer at test: each batch gets parameters of its own, generated from the batch, and nothing is kept.

After Ambekar et al., WACV 2025; the transformer is `acclimate.adaptation.generators.generalizeformer`.

    (1) a pass at the source's parameters gives features, statistics and the gradient of the entropy
    (2) the transformer gives parameters;  (3) a second pass with them answers;  (4) they are dropped

An answer depends on the windows of its batch and on no other. Guards, RECONSTRUCTED: a batch of fewer than
`GeneralizeFormerSettings.least_windows`, or beyond the range that was met in meta-training, is the source's; so are
windows that no working sensor sends (`acclimate.adaptation.guards.input_sanity`), which the batch is not judged by, and
a batch whose generated parameters give anything that is not finite.
"""

import torch
from torch import Tensor

from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.generators.affine_gradient import (
    affine_gradient,
    batch_distance,
    logits_with,
    source_features,
)
from acclimate.adaptation.generators.generalizeformer import generated_tensors, named, tokens_of
from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.guards.input_sanity import InputSanity
from acclimate.adaptation.method import SourceContext, State, Step, require_adapted
from acclimate.adaptation.model.network import Network

__all__ = ["GeneratedBatches"]


class GeneratedBatches:
    """Configure generation batch by batch.

    Args:
        context: The source.
        generator: A GeneralizeFormer.

    Raises:
        ContractError: The generator is not a GeneralizeFormer.
        ConfigError: The source sample has a single window.
        NotAdaptable: The network has no BatchNorm layer, or a wider one than the generator takes.
    """

    stateless = False  # nothing is kept, but an answer depends on its batch

    def __init__(self, context: SourceContext, generator: Generator) -> None:
        if len(context.all_windows) < 2:
            raise ConfigError("source sample: expected at least 2 windows, to have a deviation, got 1")
        self._network, self._former = Network(context.model), generator.generalizeformer()
        self._settings, self._range = self._former.settings, generator.valid_range
        self._source = source_features(self._network, context.all_windows)
        self._sanity = InputSanity(context)
        self._start = generated_tensors(self._network, self._settings.classifier)
        self.adapts = require_adapted(tuple(self._start), "gamma or beta")
        self._generate(context.windows[:2])  # refuses a network that does not fit

    def reset(self) -> State:
        """Return nothing."""
        return {}

    @torch.no_grad()
    def adapt_batch(self, state: State, windows: Tensor) -> tuple[State, Step]:
        """Answer a batch by what is generated for it."""
        filled = self._sanity.fill(windows)
        rows = torch.nonzero(self._sanity.check(windows).sane).flatten()
        answers = torch.softmax(self._network.forward(filled).logits, dim=1)
        verdict, used = "input refused" if len(rows) < len(windows) else "batch too small", 0
        if len(rows) >= self._settings.least_windows:
            batch = filled[rows]
            share, generated = self._generate(batch)  # (1), (2)
            if share > 1.0:
                verdict = "outside the range"
            else:
                logits = logits_with(self._network, batch, generated)  # (3)
                if bool(torch.isfinite(logits).all()):
                    answers[rows], used = torch.softmax(logits, dim=1), len(rows)
                else:
                    verdict = "not finite"
        receipts: tuple[dict[str, str | float | None], ...] = (
            {"windows": used, "rung": "generalizeformer", "verdict": "inside the range"},
            {"windows": len(windows) - used, "rung": "source", "verdict": verdict},
        )
        return state, Step(  # (4)
            answers, selected=used, receipts=tuple(receipt for receipt in receipts if receipt["windows"])
        )

    def _generate(self, windows: Tensor) -> tuple[float, dict[str, Tensor]]:
        """Return how far out a batch is, and its tensors by name."""
        start = {name: value[None] for name, value in self._start.items()}
        seen, gradients = affine_gradient(self._network, windows, start, self._source, 0.0)
        classifier = self._settings.classifier
        tokens = tokens_of(self._network, seen, gradients, self._source, self._former.width, classifier)
        generated = named(self._former(tokens), self._network, classifier)
        mean, variance = batch_distance(seen)
        return self._range.share(float(mean), float(variance)), generated
