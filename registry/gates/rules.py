"""The rules of a fleet, from one TOML file: what the gates ask of a bundle, and how it is rolled out.

Without a file every rule has its default. A verdict names the rules that it was made by: the SHA-256 of their canonical
form.
"""

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from acclimate.adaptation.data.corruptions import EVALUATION, mixture
from acclimate.adaptation.errors import ConfigError
from acclimate.registry.canonical import Name, Strict, canonical_bytes
from acclimate.registry.releases.rollout import RolloutPolicy

__all__ = [
    "AnchorRules",
    "EvaluationRules",
    "GatePolicy",
    "Policy",
    "ShadowRules",
    "ShiftRules",
    "ValidationSet",
    "gates_digest",
    "read_policy",
]

Share = Annotated[float, Field(ge=0, le=1)]
_Windows = Annotated[int, Field(ge=1, le=1_000_000)]


class ValidationSet(Strict):
    """Labelled windows that neither champion nor candidate was trained on.

    Attributes:
        name: The name in figures and messages.
        path: An npz file as `acclimate train` takes it; from the working directory where it is relative.
        label, group, order, channels: The same as the options of `acclimate train`; None: as the candidate was trained.
        where: The rows to use, as ``device=6-8``; empty for all.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,40}$")]
    path: Annotated[str, Field(min_length=1)]
    label: str | None = None
    where: str = ""
    group: str | None = None
    order: tuple[str, ...] | None = None
    channels: tuple[Annotated[int, Field(ge=0)], ...] | None = None


class EvaluationRules(Strict):
    """The limits for answers on validation sets.

    Attributes:
        accuracy_margin: The largest loss of accuracy on a set against the champion.
        group_margin: The same of any one group (device).
        group_windows_min: Smaller groups are not judged one by one.
        protected: Classes whose recall may not be lower than the champion's.
        recall_margin: The loss of recall that is allowed all the same; 0 takes "not lower" at its word.
        protected_windows_min: A protected class needs so many windows in some set, or the gate fails.
    """

    accuracy_margin: Share = 0.01
    group_margin: Share = 0.05
    group_windows_min: _Windows = 50
    protected: tuple[Name, ...] = ()
    recall_margin: Share = 0.0
    protected_windows_min: _Windows = 20


class ShiftRules(Strict):
    """The limits for answers under simulated sensor faults.

    Attributes:
        kinds: Names in `acclimate.adaptation.data.corruptions`, mixtures as ``gain+noise``. By default the half that no
            training uses. Those that make no sense for the windows are left out.
        severities: Above 0 to 5.
        accuracy_margin: The largest loss of accuracy against the champion, in the mean over all of them.
        worst_margin: The same under any one of them: two trainings differ widely there.
        windows_max: The most windows of a validation set; where it has more, every k-th is taken.
    """

    kinds: tuple[str, ...] = EVALUATION
    severities: tuple[Annotated[float, Field(gt=0, le=5)], ...] = (3.0,)
    accuracy_margin: Share = 0.05
    worst_margin: Share = 0.15
    windows_max: _Windows = 4000

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(mixture(kind.split("+")) for kind in kinds)
        except ConfigError as error:
            raise ValueError(str(error)) from error


class AnchorRules(Strict):
    """The limits for the distance of the weights from the champion's.

    Attributes:
        distance_max: ||W - W0|| / ||W0|| of any layer; None measures and does not judge, because a model that was
            trained from other random numbers lies at about 1.4 whatever it is worth.
    """

    distance_max: Annotated[float, Field(ge=0)] | None = None


class ShadowRules(Strict):
    """The limits for changes of the answers to recent traffic, whose true classes are not known.

    Attributes:
        windows: The number of recent windows to answer; 0 leaves the gate out.
        changed_share: Largest share with another answer than the champion's; None measures and does not judge, because
            a better model changes answers, too.
        confidence_loss: Largest fall of the mean confidence.
        device_windows_min: Devices with fewer are not judged one by one.
        device_changed_share, device_confidence_loss: The same for any one device.
    """

    windows: Annotated[int, Field(ge=0, le=100_000)] = 2000
    changed_share: Share | None = None
    confidence_loss: Share = 0.05
    device_windows_min: _Windows = 50
    device_changed_share: Share | None = None
    device_confidence_loss: Share = 0.15


class GatePolicy(Strict):
    """Table ``[gates]``."""

    validation: Annotated[tuple[ValidationSet, ...], Field(max_length=16)] = ()
    evaluation: EvaluationRules = EvaluationRules()
    shifts: ShiftRules = ShiftRules()
    anchor: AnchorRules = AnchorRules()
    shadow: ShadowRules = ShadowRules()

    @field_validator("validation")
    @classmethod
    def _distinct(cls, sets: tuple[ValidationSet, ...]) -> tuple[ValidationSet, ...]:
        names = [each.name for each in sets]
        if len(set(names)) < len(names):
            raise ValueError(f"two validation sets have one name: {', '.join(sorted(names))}")
        return sets


class Policy(Strict):
    """The whole file, a field per table."""

    gates: GatePolicy = GatePolicy()
    rollout: RolloutPolicy = RolloutPolicy()


def read_policy(path: Path | None) -> Policy:
    """Return the rules in a TOML file, or the defaults where there is no file.

    Raises:
        ConfigError: The file cannot be read, or a key or value does not fit; the message names all three.
    """
    if path is None:
        return Policy()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: expected the rules of gates and roll-outs, found: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: expected TOML, found: {error}") from error
    try:
        # Through JSON, because a strict model takes no list for a tuple otherwise.
        return Policy.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        if problem["type"] == "extra_forbidden":
            raise ConfigError(f"{path}: {key}: there is no such key; docs/gates.md lists them") from error
        found = f"{problem['input']!r}"[:200]
        message = problem["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{path}: {key}: {message}; found {found}") from error


def gates_digest(policy: GatePolicy) -> str:
    """Return the SHA-256 of the gates' rules, as a verdict names it.

    >>> gates_digest(GatePolicy()) == gates_digest(GatePolicy(anchor=AnchorRules(distance_max=None)))
    True
    """
    return hashlib.sha256(canonical_bytes(policy)).hexdigest()
