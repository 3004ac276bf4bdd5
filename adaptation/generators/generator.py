"""A meta-trained generator as a value: what it is, its weights, and the range of shifts that it has met.

`VARIANTS` names every generator of the comparisons: the two methods and their ablations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.generators.generalizeformer import GeneralizeFormer, GeneralizeFormerSettings
from acclimate.adaptation.generators.mgg import Mgg, MggSettings
from acclimate.adaptation.generators.valid_range import ValidRange

__all__ = ["VARIANTS", "Generator", "Settings"]

Settings = MggSettings | GeneralizeFormerSettings
_Module = TypeVar("_Module", Mgg, GeneralizeFormer)

VARIANTS: Mapping[str, Settings] = {
    "mgg": MggSettings(),
    "mgg-published": MggSettings(zero_correction=False, labels=False),
    "mgg-unlabelled": MggSettings(labels=False),
    "mgg-uncorrected": MggSettings(zero_correction=False),
    "mgg-unroll-4": MggSettings(unroll=4),
    "mgg-unroll-10": MggSettings(unroll=10),
    "mgg-no-memory": MggSettings(carry_memory=False),
    "mgg-no-norm": MggSettings(layer_norm=False),
    "lstm": MggSettings(core="lstm"),
    "generalizeformer": GeneralizeFormerSettings(),
    "generalizeformer-classifier": GeneralizeFormerSettings(classifier=True),
    "generalizeformer-no-gradients": GeneralizeFormerSettings(gradients=False),
    "generalizeformer-no-features": GeneralizeFormerSettings(features=False),
    "generalizeformer-no-source": GeneralizeFormerSettings(parameters=False),
}


@dataclass(frozen=True, eq=False)
class Generator:
    """A generator.

    Attributes:
        settings: The settings, which say which of the two it is.
        weights: The state dict.
        valid_range: The range of shifts in meta-training.
        step_share: The share of its steps taken at test, above 0 to 1, so that the unshifted source can bear them.
    """

    settings: Settings
    weights: Mapping[str, Tensor]
    valid_range: ValidRange
    step_share: float = 1.0

    def mgg(self) -> Mgg:
        """Return the MGG, frozen; alpha of its settings is that at test.

        Raises:
            ContractError: The generator is not an MGG, or the weights do not fit the settings.
        """
        if not isinstance(self.settings, MggSettings):
            raise ContractError(f"expected an MGG, got a generator with {self.settings}")
        return _loaded(Mgg(replace(self.settings, alpha=self.step_share * self.settings.alpha)), self.weights)

    def generalizeformer(self) -> GeneralizeFormer:
        """Return the GeneralizeFormer, frozen; its changes are those at test.

        Raises:
            ContractError: The generator is not a GeneralizeFormer, or the weights do not fit the settings.
        """
        if not isinstance(self.settings, GeneralizeFormerSettings):
            raise ContractError(f"expected a GeneralizeFormer, got a generator with {self.settings}")
        head = self.weights.get("head.bias")
        if head is None:
            raise ContractError("generator: head.bias is missing from the weights")
        former = _loaded(GeneralizeFormer(self.settings, head.numel()), self.weights)
        former.scale.mul_(self.step_share)  # every step is in proportion to it
        return former


def _loaded(module: _Module, weights: Mapping[str, Tensor]) -> _Module:
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ContractError(f"generator: weights do not fit its settings: {error}") from error
    module.requires_grad_(False).eval()
    return module
