"""Decisions that the source itself makes once and a study keeps: the recipe behind ``auto``, the policy's settings.

sources/choice.json           the choice of ``auto``, with the figures that decided
sources/seed-0-none.policy    the settings of the policy for that source (JSON)
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from acclimate.adaptation.data.dataset import Dataset
from acclimate.adaptation.errors import ContractError
from acclimate.adaptation.methods.policy_calibration import calibrate_policy
from acclimate.adaptation.methods.policy_settings import PolicySettings, RungScore
from acclimate.adaptation.model.robust import Score
from acclimate.adaptation.model.train import default_spec
from acclimate.registry.folder import replace_file
from acclimate.streams.lab.making.source_model import choose_recipe
from acclimate.streams.lab.study.code_state import CHOICE_MAKERS, POLICY_MAKERS, code_digest
from acclimate.streams.lab.study.folder import source_path
from acclimate.streams.lab.study.recipes import augmentation_of, respelt

__all__ = [
    "KeptChoice",
    "KeptPolicy",
    "Progress",
    "policy_path",
    "prepare_choice",
    "prepare_policy",
    "read_choice",
    "read_kept_policy",
    "read_policy",
    "recipe_of",
    "recipes_of",
]

Progress = Callable[[int, int, str], None]  # trainings done, in all, what is next


@dataclass(frozen=True)
class KeptChoice:
    """The choice of ``auto``.

    Attributes:
        recipe: The recipe, ``none`` for the plain one.
        weak: True where the evidence is weak.
        judged_by: ``groups`` left out, or ``simulated`` shifts.
        table: The figures that decided.
        code: The state of the code that chose; None where it is not known.
    """

    recipe: str
    weak: bool
    judged_by: str
    table: tuple[Score, ...]
    code: str | None = None


@dataclass(frozen=True)
class KeptPolicy:
    """The policy's settings for one source.

    Attributes:
        seed, recipe: The source.
        settings: The settings that its own devices allow.
        code: The state of the code that found it out; None where it is not known.
    """

    seed: int
    recipe: str
    settings: PolicySettings
    code: str | None


def prepare_choice(
    folder: Path, dataset: Dataset, epochs: int | None = None, seed: int = 0, progress: Progress | None = None
) -> KeptChoice:
    """Let ``auto`` choose, once for all seeds of a study: the recipe belongs to the recordings. Keep it; minutes.

    Raises:
        DataError: The source makes no model.
    """
    choice = choose_recipe(dataset, "auto", seed, progress, epochs).choice
    if choice is None:
        raise ContractError("`auto` came without a choice")
    kept = KeptChoice(choice.name, choice.weak, choice.judged_by, choice.table, code_digest(CHOICE_MAKERS))
    _write(_choice_path(folder), asdict(kept))
    return kept


def read_choice(folder: Path) -> KeptChoice | None:
    """Return what `prepare_choice` kept, or None.

    Raises:
        ContractError: It has other fields, from a state of the code too far away.
    """
    path = _choice_path(folder)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    try:
        table = tuple(Score(**score) for score in content["table"])
        return KeptChoice(**{**content, "recipe": respelt(content["recipe"]), "table": table})
    except (KeyError, TypeError) as error:
        raise ContractError(f"{path} is from another state of the code; another --out makes it anew") from error


def recipe_of(folder: Path, kind: str) -> str:
    """Return the recipe behind a kind of source: itself, or what ``auto`` chose.

    Raises:
        ContractError: It has not chosen yet.
    """
    if kind != "auto":
        return kind
    choice = read_choice(folder)
    if choice is None:
        raise ContractError(f"{folder} has no choice of augmentation; run the evaluation again")
    return choice.recipe


def recipes_of(folder: Path, kinds: Iterable[str]) -> list[str]:
    """Return the recipes behind several kinds, each once; see `recipe_of`."""
    return list(dict.fromkeys(recipe_of(folder, kind) for kind in kinds))


def prepare_policy(
    folder: Path, dataset: Dataset, recipe: str, seed: int, progress: Progress | None = None
) -> PolicySettings:
    """Let the source's own devices decide what the policy may do on this seed, keep it and return it; minutes.

    Raises:
        ConfigError: The recipe cannot be read or does not suit the channels.
        DataError: A training leads to numbers that are not finite.
    """
    source = dataset.source
    settings = calibrate_policy(
        source.windows, source.labels, source.groups, default_spec(dataset), seed, augmentation_of(recipe), progress
    )
    made = {"seed": seed, "recipe": recipe, "code": code_digest(POLICY_MAKERS)}
    _write(policy_path(folder, recipe, seed), {**made, **asdict(settings)})
    return settings


def policy_path(folder: Path, recipe: str, seed: int) -> Path:
    """Return where the policy's settings are kept."""
    return source_path(folder, recipe, seed, "policy")


def read_kept_policy(folder: Path, recipe: str, seed: int) -> KeptPolicy | None:
    """Return what `prepare_policy` kept, or None.

    Raises:
        ContractError: It has other fields, from a state of the code too far away.
    """
    path = policy_path(folder, recipe, seed)
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    fields = {name: value for name, value in content.items() if name not in ("seed", "recipe", "code")}
    try:
        table = tuple(RungScore(**{**score, "agreement": tuple(score["agreement"])}) for score in content["table"])
        limits = tuple(fields["agreement_limits"])
        settings = PolicySettings(**{**fields, "agreement_limits": limits, "table": table})
    except (KeyError, TypeError) as error:
        raise ContractError(f"{path} is from another state of the code; --again policy makes it anew") from error
    return KeptPolicy(seed, recipe, settings, content.get("code"))


def read_policy(folder: Path, recipe: str, seed: int) -> PolicySettings | None:
    """Return the settings that `prepare_policy` kept, or None; see `read_kept_policy`."""
    kept = read_kept_policy(folder, recipe, seed)
    return None if kept is None else kept.settings


def _choice_path(folder: Path) -> Path:
    return folder / "sources" / "choice.json"


def _write(path: Path, content: dict[str, object]) -> None:
    replace_file(path, (json.dumps(content, indent=1) + "\n").encode())
