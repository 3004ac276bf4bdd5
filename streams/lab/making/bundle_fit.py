"""Check that recordings fit the source bundle that something is made for."""

from pathlib import Path

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.errors import ConfigError
from acclimate.registry.bundles.source_bundle import Bundle

__all__ = ["check_fit"]


def check_fit(dataset: Dataset, source: Bundle, folder: Path) -> None:
    """Refuse recordings of another shape than the bundle's, and a folder that is there already.

    Raises:
        ConfigError: They do not fit, or the folder exists.
    """
    spec = source.spec
    found = (dataset.channels, dataset.length, dataset.classes, dataset.transform)
    expected = (spec.channels, spec.length, spec.classes, spec.transform)
    if found != expected:
        raise ConfigError(
            "the data do not fit the bundle: expected channels, length, classes, transform "
            f"{expected}, found {found}; select the data that the source model was trained on"
        )
    if folder.exists():
        raise ConfigError(f"{folder} exists; choose another --out, or remove it")
