"""Make a bundle that workers serve from a data set: choose a recipe, train, calibrate the shift magnitude, write.

It needs the train extra.

One function serves ``acclimate train`` and the demo, so both make the same model from the same rows.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from acclimate.adaptation.data.augment import Augmentation, parse_augmentation
from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.data.selectors import parse_integers
from acclimate.adaptation.errors import ConfigError
from acclimate.adaptation.lean.lean_settings import Direction, LeanSettings
from acclimate.adaptation.lean.shift import calibrate_trained
from acclimate.adaptation.lean.shift_calibration import ShiftCalibration
from acclimate.adaptation.model.robust import Choice, choose_augmentation
from acclimate.adaptation.model.robust import Progress as ChoiceProgress
from acclimate.adaptation.model.spec import NetworkSpec
from acclimate.adaptation.model.train import Progress, Trained, default_spec, train_source
from acclimate.registry.bundles.manifest import PART_FILES
from acclimate.registry.bundles.source_bundle import build_bundle

__all__ = [
    "LeanChoice",
    "SourceModel",
    "SourceRecipe",
    "check_folder",
    "choose_recipe",
    "make_source_bundle",
    "parse_layers",
]

_CANARY_WINDOWS = 32


@dataclass(frozen=True)
class LeanChoice:
    """The settings of LeanTTA that the user gave; None keeps the default of `LeanSettings.for_layers`.

    Attributes:
        layers: ``all``, ``first-half``, ``first`` or BatchNorm layers by number from 0, such as ``0,2``.
    """

    tau: float | None = None
    lam: float | None = None
    direction: Direction | None = None
    layers: str | None = None
    threshold: float | None = None

    def settings(self, layers: int) -> LeanSettings:
        """Complete the choice for a network with this many BatchNorm layers.

        Raises:
            ConfigError: A value is out of range or a layer does not exist.
        """
        settings = LeanSettings.for_layers(layers)
        if self.layers is not None:
            settings = replace(settings, layers=parse_layers(self.layers, layers))
        chosen = {"tau": self.tau, "lam": self.lam, "direction": self.direction, "threshold": self.threshold}
        given = {name: value for name, value in chosen.items() if value is not None}
        return replace(settings, **given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SourceRecipe:
    """The augmentation of the source's training.

    Attributes:
        asked: The option's value: ``none``, ``auto`` or a list of kinds.
        augmentation: The recipe that it came to; None for the plain source.
        choice: The evidence, where ``auto`` looked for it.
    """

    asked: str = "none"
    augmentation: Augmentation | None = None
    choice: Choice | None = None


@dataclass(frozen=True, eq=False)
class SourceModel:
    """A source model and the bundle that was written from it.

    Attributes:
        folder: The bundle.
        digest: SHA-256 of its manifest.
        recipe: The augmentation of its training, and the reasons.
        sampling_rate_hz, step_samples: What its manifest names.
    """

    folder: Path
    digest: str
    trained: Trained
    calibration: ShiftCalibration
    settings: LeanSettings
    recipe: SourceRecipe
    sampling_rate_hz: float | None
    step_samples: int | None


def choose_recipe(
    dataset: Dataset,
    asked: str,
    seed: int,
    progress: ChoiceProgress | None = None,
    epochs: int | None = None,
) -> SourceRecipe:
    """Read ``none`` or a list of kinds, or find the recipe out (``auto``).

    Args:
        dataset: Recordings; the source's groups are the conditions that ``auto`` leaves out, one after another, and
            the target is not looked at.
        asked: ``none``, ``auto`` or a list in the form of `acclimate.adaptation.data.augment.parse_augmentation`.
        seed: The seed for everything random.
        progress: Called before each fit of ``auto``.
        epochs: The passes of each of those fits, see `acclimate.adaptation.model.robust.choose_augmentation`.

    Raises:
        ConfigError: The text is none of these, or does not suit the data.
        DataError: The source makes no model.
    """
    if asked == "none":
        return SourceRecipe()
    if asked == "auto":
        source = dataset.source
        spec = default_spec(dataset)
        choice = choose_augmentation(source.windows, source.labels, source.groups, spec, seed, progress, epochs)
        return SourceRecipe(asked, choice.augmentation, choice)
    try:
        augmentation = parse_augmentation(asked)
        augmentation.check_channels(dataset.channels)
    except ConfigError as error:
        raise ConfigError(f"--augment: expected none, auto or a list such as gain+noise:0.5; {error}") from error
    return SourceRecipe(asked, augmentation)


def parse_layers(text: str, layers: int) -> tuple[bool, ...]:
    """Read which BatchNorm layers are adapted.

    Raises:
        ConfigError: The text is none of the forms, or names a layer that the network does not have.

    >>> parse_layers("first-half", 3), parse_layers("0,2", 3), parse_layers("all", 2)
    ((True, True, False), (True, False, True), (True, True))
    """
    first = {"all": layers, "first-half": (layers + 1) // 2, "first": 1}.get(text)
    if first is not None:
        return tuple(layer < first for layer in range(layers))
    try:
        chosen = parse_integers(text)
    except ConfigError as error:
        raise ConfigError(f"--layers: expected all, first-half, first or numbers from 0, got {text!r}") from error
    if max(chosen) >= layers:
        raise ConfigError(f"--layers: the network has BatchNorm layers 0 to {layers - 1}, got {max(chosen)}")
    return tuple(layer in chosen for layer in range(layers))


def check_folder(folder: Path, force: bool) -> None:
    """Refuse to write over anything but, with ``force``, an older bundle.

    Raises:
        ConfigError: The folder holds something.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; choose a folder for the bundle")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not force:
        raise ConfigError(f"{folder} is not empty; choose another folder, or --force to replace the bundle in it")
    names = {entry.name for entry in folder.iterdir()}
    foreign = sorted(names - {"manifest.json", "manifest.sig", *PART_FILES})
    if foreign or "manifest.json" not in names:
        raise ConfigError(f"{folder} holds other files than a bundle ({foreign[:5]}); --force replaces bundles only")


def make_source_bundle(
    dataset: Dataset,
    folder: Path,
    seed: int,
    *,
    epochs: int | None = None,
    lean: LeanChoice = LeanChoice(),
    augment: str = "none",
    sampling_rate_hz: float | None = None,
    step_samples: int | None = None,
    progress: Progress | None = None,
    choice_progress: ChoiceProgress | None = None,
    force: bool = False,
) -> SourceModel:
    """Train on the source of a data set and write the bundle.

    The bundle is written and tested beside the folder and then moved into place. Equal arguments and an equal number of
    torch threads give an equal digest. A sampling rate or step that is given counts before what the recording says.

    Raises:
        ConfigError: Options do not fit, or the folder holds something.
        DataError: The source makes no model.
        ContractError: The exported graphs differ from the model.
    """
    check_folder(folder, force)
    spec = default_spec(dataset)
    settings = lean.settings(spec.layers)
    rate_hz, step = _sampling(dataset, spec, sampling_rate_hz, step_samples)
    source = dataset.source
    recipe = choose_recipe(dataset, augment, seed, choice_progress)
    trained = train_source(
        source.windows, source.labels, source.groups, spec, seed, epochs, progress, recipe.augmentation
    )
    held_out = source.windows[trained.held_out]
    calibration = calibrate_trained(trained, source.windows)
    picks = np.unique(np.linspace(0, len(held_out) - 1, _CANARY_WINDOWS).astype(np.int64))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        bundle = build_bundle(
            trained.model,
            settings,
            calibration,
            dataset.channel_names,
            dataset.class_names,
            _card(dataset, trained, recipe, rate_hz, step),
            held_out[picks],
            Path(scratch) / "bundle",
            rate_hz,
            step,
        )
        check_folder(folder, force)  # training took its time: whatever came meanwhile is not ours to remove
        if folder.exists():
            folder.rename(Path(scratch) / "replaced")  # removed with the scratch folder, after the new one is in place
        (Path(scratch) / "bundle").rename(folder)
    return SourceModel(folder, bundle.digest, trained, calibration, settings, recipe, rate_hz, step)


def _sampling(
    dataset: Dataset, spec: NetworkSpec, rate_hz: float | None, step_samples: int | None
) -> tuple[float | None, int | None]:
    """Complete what was given with what the recording says; rows without a time axis have neither rate nor step.

    Raises:
        ConfigError: A value is out of range, or given for rows.
    """
    given = {"--sampling-rate-hz": rate_hz, "--step-samples": step_samples}
    for option, value in given.items():
        if value is not None and not spec.adaptable:
            raise ConfigError(f"{option} is for windows in time, these are rows without a time axis: leave it out")
    if not spec.adaptable:
        return None, None
    if rate_hz is not None and not 0 < rate_hz <= 1e9:
        raise ConfigError(f"--sampling-rate-hz: expected above 0, at most 1e9; got {rate_hz}")
    if step_samples is not None and not 1 <= step_samples <= 2**31:
        raise ConfigError(f"--step-samples: expected 1 to {2**31}, got {step_samples}")
    return (
        dataset.sampling_rate_hz if rate_hz is None else rate_hz,
        dataset.step_samples if step_samples is None else step_samples,
    )


def _card(
    dataset: Dataset, trained: Trained, recipe: SourceRecipe, rate_hz: float | None, step_samples: int | None
) -> dict[str, str | bool | int | float | None]:
    """Give what the manifest remembers of the training, without anything that changes from run to run."""
    return {
        "data": dataset.name,
        **{f"selection_{name}": value for name, value in dataset.selection.items()},
        "sampling_rate_hz": rate_hz,
        "step_samples": step_samples,
        "windows_trained": len(dataset.source) if trained.refitted else int((~trained.held_out).sum()),
        "windows_held_out": int(trained.held_out.sum()),
        "refitted_on_held_out": trained.refitted,
        "held_out_by": trained.held_out_by,
        "held_out_groups": ",".join(trained.held_out_groups),
        "held_out_accuracy": trained.accuracy,
        "seed": trained.seed,
        "epochs": len(trained.losses),
        "threads": trained.threads,
        "augment": recipe.asked,
        "augmentation": "none" if recipe.augmentation is None else str(recipe.augmentation),
        **(_choice_figures(recipe.choice) if recipe.choice else {}),
    }


def _choice_figures(choice: Choice) -> dict[str, str | bool | int | float | None]:
    means = {name: choice.mean(name) for name in dict.fromkeys(score.candidate for score in choice.table)}
    return {
        "augment_judged_by": choice.judged_by,
        "augment_evidence_weak": choice.weak,
        "augment_fits": choice.fits,
        **{f"augment_accuracy {name}": mean for name, mean in means.items()},
        **{f"augment_accuracy {score.candidate} / {score.condition}"[:200]: score.accuracy for score in choice.table},
    }
