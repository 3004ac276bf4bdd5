"""The jobs of a pilot: what is done, on what, and what to call it while it lasts."""

from dataclasses import dataclass

from adaptation.methods.policy_settings import PolicySettings
from streams.lab.study.recipes import PLAIN

__all__ = [
    "CalibratePolicy",
    "ChooseRecipe",
    "FollowDevice",
    "Job",
    "LeaveOut",
    "MakeSource",
    "MeasureSource",
]


@dataclass(frozen=True)
class ChooseRecipe:
    """Let ``auto`` choose how to train."""

    def __str__(self) -> str:
        return "choosing how to train"


@dataclass(frozen=True)
class MakeSource:
    """Train a source with this recipe and write its bundle."""

    recipe: str

    def __str__(self) -> str:
        return "training the plain source" if self.recipe == PLAIN else "training the robust source"


@dataclass(frozen=True)
class CalibratePolicy:
    """Ask the source's devices what the policy may do."""

    recipe: str

    def __str__(self) -> str:
        return "calibrating the policy"


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
