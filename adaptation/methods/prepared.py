"""The settings, generators and encoders that were prepared for one source model; most methods need none of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from acclimate.adaptation.alignment.aligned import Aligned
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.generators.generator import Generator
from acclimate.adaptation.methods.policy_settings import PolicySettings

__all__ = ["Prepared"]


@dataclass(frozen=True, eq=False)
class Prepared:
    """The preparations that `acclimate.adaptation.methods.catalogue.make_method` hands to the methods that need them.

    Attributes:
        policy: The settings that `acclimate.adaptation.methods.policy_calibration` found; the policy needs them.
        generators: The generators that `acclimate.adaptation.generators.meta_train` made, by name; the methods of those
            names need them.
        alignments: The encoders that `acclimate.adaptation.alignment.align` made, by name; CTA and its relatives need
            them.
    """

    policy: PolicySettings | None = None
    generators: Mapping[str, Generator] = field(default_factory=dict)
    alignments: Mapping[str, Aligned] = field(default_factory=dict)

    def policy_settings(self) -> PolicySettings:
        """Return the settings of the policy.

        Raises:
            ConfigError: The policy was not calibrated.
        """
        if self.policy is None:
            raise ConfigError(
                "the policy needs settings of this source model: expected "
                "acclimate.adaptation.methods.policy_calibration to have run"
            )
        return self.policy

    def generator(self, name: str) -> Generator:
        """Return the generator of this name.

        Raises:
            ConfigError: No generator has this name.
        """
        if name not in self.generators:
            raise ConfigError(
                f"{name} needs a generator that was meta-trained on this source; there are: "
                f"{', '.join(sorted(self.generators)) or 'none'}"
            )
        return self.generators[name]

    def alignment(self, name: str) -> Aligned:
        """Return the aligned encoder of this name.

        Raises:
            ConfigError: No aligned encoder has this name.
        """
        if name not in self.alignments:
            raise ConfigError(
                f"{name} needs an encoder that was aligned with this source; there are: "
                f"{', '.join(sorted(self.alignments)) or 'none'}"
            )
        return self.alignments[name]
