"""Gate ``shadow``: what would change for the fleet's newest windows? No label is known here."""

import numpy as np
import numpy.typing as npt

from acclimate.registry.gates.evaluation import figure, in_one_line
from acclimate.registry.gates.rules import ShadowRules
from acclimate.registry.releases.verdict import Finding

__all__ = ["shadow"]

_MOST_DEVICES = 100  # in the figures: those with the most changes

FloatArray = npt.NDArray[np.float32]


def shadow(
    devices: npt.NDArray[np.str_], candidate: FloatArray, champion: FloatArray | None, refused: int, rules: ShadowRules
) -> Finding:
    """Compare the answers to the same windows.

    Args:
        devices: (n,) of each window.
        candidate: Probabilities (n, K).
        champion: The same of what is in force; None where nothing is.
        refused: Records that could not be read.
        rules: The limits.
    """
    if champion is None:
        return Finding(gate="shadow", outcome="skipped", message="nothing in force to compare with")
    if not len(devices):
        message = f"no traffic that this model can read; {refused} records were passed over"
        return Finding(gate="shadow", outcome="skipped", message=message)
    if not np.isfinite(candidate).all():
        message = "expected finite probabilities, found NaN or infinity"
        return Finding(gate="shadow", outcome="failed", message=message)
    changed = candidate.argmax(axis=1) != champion.argmax(axis=1)
    fall = champion.max(axis=1).astype(np.float64) - candidate.max(axis=1)
    names, counts = np.unique(devices, return_counts=True)
    figures: dict[str, float | int | str] = {
        "windows": len(devices),
        "devices": len(names),
        "records passed over": refused,
        "changed": figure(changed.mean()),
        "confidence": figure(candidate.max(axis=1).mean(dtype=np.float64)),
        "champion's confidence": figure(champion.max(axis=1).mean(dtype=np.float64)),
    }
    failures = _failures("fleet", changed, fall, rules.changed_share, rules.confidence_loss)
    by_device = {str(name): devices == name for name in names[counts >= rules.device_windows_min]}
    for name in sorted(by_device, key=lambda name: -changed[by_device[name]].mean()):
        mask = by_device[name]
        limits = (rules.device_changed_share, rules.device_confidence_loss)
        failures += _failures(name[:80], changed[mask], fall[mask], *limits)
        if len(figures) < _MOST_DEVICES:
            figures[f"changed at {name[:80]}"] = figure(changed[mask].mean())
    if failures:
        return Finding(gate="shadow", outcome="failed", message=in_one_line(failures), figures=figures)
    message = f"{changed.mean():.1%} of {len(devices)} answers change, mean confidence falls by {fall.mean():.4f}"
    return Finding(gate="shadow", outcome="passed", message=message, figures=figures)


def _failures(
    who: str, changed: npt.NDArray[np.bool_], fall: npt.NDArray[np.float64], share_max: float | None, fall_max: float
) -> list[str]:
    failures = []
    if share_max is not None and changed.mean() > share_max:
        failures.append(f"{who}: found {changed.mean():.4f} of the answers changed, allowed {share_max:g}")
    if fall.mean() > fall_max:
        failures.append(f"{who}: found mean confidence {fall.mean():.4f} lower, allowed {fall_max:g}")
    return failures
