"""Gate ``shifts``: is it as right as the champion where sensors have become worse?"""

from collections.abc import Sequence

from acclimate.registry.gates.answers import Compared
from acclimate.registry.gates.evaluation import ROUNDING, check_finite, figure, in_one_line
from acclimate.registry.gates.rules import ShiftRules
from acclimate.registry.releases.verdict import Finding

__all__ = ["shifts"]


def shifts(compared: Sequence[Compared], rules: ShiftRules) -> Finding:
    """Compare the answers to validation sets under simulated faults.

    Args:
        compared: One per set, fault and severity, named so.
        rules: The limits.

    Raises:
        ContractError: An answer is not finite.
    """
    figures: dict[str, float | int | str] = {}
    failures: list[str] = []
    changes: list[float] = []
    for each in compared:
        check_finite(each.name, each.candidate)
        found = float(each.right(each.candidate).mean())
        figures[each.name] = figure(found)
        figures[f"{each.name}, source alone"] = figure((each.candidate.plain.argmax(1) == each.labels).mean())
        if each.champion is None:
            continue
        before = float(each.right(each.champion).mean())
        figures[f"{each.name}, champion"] = figure(before)
        changes.append(found - before)
        if found < before - rules.worst_margin - ROUNDING:
            failures.append(f"{each.name}: found {found:.4f}, allowed {before - rules.worst_margin:.4f}")
    change = sum(changes) / max(1, len(changes))
    if change < -rules.accuracy_margin - ROUNDING:
        failures.insert(
            0, f"mean over {len(changes)} shifts: found {change:+.4f}, allowed {-rules.accuracy_margin:+.4f}"
        )
    if failures:
        return Finding(gate="shifts", outcome="failed", message=in_one_line(failures), figures=figures)
    if changes:
        message = (
            f"{change:+.4f} against the champion in the mean over {len(changes)} shifts, worst {min(changes):+.4f}"
        )
        return Finding(gate="shifts", outcome="passed", message=message, figures=figures)
    why = "nothing in force to compare with" if compared else "no validation set, or no shift that makes sense for it"
    return Finding(gate="shifts", outcome="skipped", message=why, figures=figures)
