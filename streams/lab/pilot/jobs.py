"""The jobs of a pilot, and the words for each while it lasts."""

from dataclasses import dataclass

from acclimate.adaptation.methods.policy_settings import PolicySettings
from acclimate.streams.lab.study.jobs import CalibratePolicy, ChooseRecipe
from acclimate.streams.lab.study.recipes import PLAIN

__all__ = ["FollowDevice", "Job", "LeaveOut", "MakeSource", "MeasureSource", "words"]


@dataclass(frozen=True)
class MakeSource:
    """Train a source with this recipe and write its bundle."""

    recipe: str

    def __str__(self) -> str:
        return "training the plain source" if self.recipe == PLAIN else "training the robust source"


@dataclass(frozen=True)
class LeaveOut:
    """Train without one fold of the source's devices, and follow these with every rung."""

    recipe: str
    fold: int

    def __str__(self) -> str:
        return f"leaving source devices out, part {self.fold + 1}"


@dataclass(frozen=True)
class MeasureSource:
    """Measure the shift of the source's own devices, and the time of the worker's engine."""

    recipe: str

    def __str__(self) -> str:
        return "measuring the source's devices"


@dataclass(frozen=True)
class FollowDevice:
    """Measure one target device and follow it with every rung."""

    recipe: str
    device: str
    policy: PolicySettings

    def __str__(self) -> str:
        return f"following device {self.device}"


Job = ChooseRecipe | MakeSource | CalibratePolicy | LeaveOut | MeasureSource | FollowDevice


def words(job: Job) -> str:
    """Say what a job does; a pilot has one seed and calibrates one source, so it names neither."""
    match job:
        case ChooseRecipe():
            return "choosing how to train"
        case CalibratePolicy():
            return "calibrating the policy"
        case _:
            return str(job)
