"""Gate ``evaluation``: is it as right as the champion, over all, in each group, and in protected classes?"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.errors import ConfigError, ContractError
from acclimate.registry.gates.answers import Answers, Compared
from acclimate.registry.gates.rules import EvaluationRules
from acclimate.registry.releases.verdict import Finding

__all__ = ["ROUNDING", "check_finite", "evaluation", "figure", "in_one_line"]

ROUNDING = 1e-9  # 0.89 against 0.90 must not miss a margin of 0.01 by the last bit
_MOST_GROUPS = 30  # of a set in the figures: those that lose most

Figures = dict[str, float | int | str]


def evaluation(compared: Sequence[Compared], class_names: Sequence[str], rules: EvaluationRules) -> Finding:
    """Compare the answers to every validation set.

    Args:
        compared: One per set.
        class_names: The names of the model's classes.
        rules: The limits.

    Raises:
        ConfigError: The model does not know a protected class.
        ContractError: An answer is not finite.
    """
    unknown = [name for name in rules.protected if name not in class_names]
    if unknown:
        raise ConfigError(
            f"gates.evaluation.protected: expected classes of the model ({', '.join(class_names)}), found {unknown[0]}"
        )
    if not compared:
        if rules.protected:
            return _found("failed", "classes are protected, and no validation set can show their recall", {})
        return _found("skipped", "no validation set; give --validation, or gates.validation in the rules", {})
    figures: Figures = {}
    for each in compared:
        check_finite(each.name, each.candidate)
        figures |= _figures(each)
    told = ", ".join(f"{each.right(each.candidate).mean():.4f} on {each.name}" for each in compared)
    if any(each.champion is None for each in compared):
        return _found("skipped", f"nothing in force to compare with; accuracy {told}", figures)
    failures = [failure for each in compared for failure in _failures(each, rules)]
    failures += _recall_failures(compared, class_names, rules, figures)
    if failures:
        return _found("failed", in_one_line(failures), figures)
    before = ", ".join(f"{each.right(each.champion).mean():.4f}" for each in compared if each.champion is not None)
    return _found("passed", f"accuracy {told}; before {before}", figures)


def check_finite(name: str, answers: Answers) -> None:
    """Refuse numbers that are not probabilities.

    Raises:
        ContractError: One is not finite.
    """
    broken = int((~np.isfinite(answers.answered).all(axis=1)).sum())
    if broken:
        raise ContractError(f"{name}: expected finite probabilities, found {broken} answers with NaN or infinity")


def figure(value: float | np.floating) -> float:
    """Return a number as figures have it."""
    return round(float(value), 6)


def in_one_line(failures: Sequence[str]) -> str:
    """Return the first failures, and how many more there are."""
    more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
    return ("; ".join(failures[:5]) + more)[:1000]


def _found(outcome: str, message: str, figures: Figures) -> Finding:
    return Finding.model_validate(
        {"gate": "evaluation", "outcome": outcome, "message": message[:1000], "figures": figures}
    )


def _figures(each: Compared) -> Figures:
    right = each.right(each.candidate)
    before = None if each.champion is None else each.right(each.champion)
    figures: Figures = {
        f"{each.name}: windows": len(right),
        f"{each.name}: accuracy": figure(right.mean()),
        f"{each.name}: accuracy of the source alone": figure((each.candidate.plain.argmax(1) == each.labels).mean()),
    }
    if before is not None:
        figures[f"{each.name}: champion's accuracy"] = figure(before.mean())
    rows = [
        (name, right[mask].mean(), None if before is None else before[mask].mean()) for name, mask in each.by_group(1)
    ]
    for name, accuracy, other in sorted(rows, key=lambda row: row[1] - (row[2] or 0.0))[:_MOST_GROUPS]:
        figures[f"{each.name}: group {name[:80]}"] = figure(accuracy)
        if other is not None:
            figures[f"{each.name}: group {name[:80]}, champion"] = figure(other)
    return figures


def _failures(each: Compared, rules: EvaluationRules) -> list[str]:
    assert each.champion is not None
    right, before = each.right(each.candidate), each.right(each.champion)
    failures = _below(f"{each.name}: accuracy", right, before, rules.accuracy_margin)
    for name, mask in each.by_group(rules.group_windows_min):
        failures += _below(f"{each.name}: group {name[:80]}", right[mask], before[mask], rules.group_margin)
    return failures


def _recall_failures(
    compared: Sequence[Compared], class_names: Sequence[str], rules: EvaluationRules, figures: Figures
) -> list[str]:
    failures = []
    for name in rules.protected:
        judged = False
        for each in compared:
            assert each.champion is not None
            mask = each.labels == list(class_names).index(name)
            if not mask.any():
                continue
            right, before = each.right(each.candidate)[mask], each.right(each.champion)[mask]
            figures[f"{each.name}: recall {name[:80]}"] = figure(right.mean())
            figures[f"{each.name}: recall {name[:80]}, champion"] = figure(before.mean())
            judged = judged or len(right) >= rules.protected_windows_min
            failures += _below(f"{each.name}: recall of {name[:80]}", right, before, rules.recall_margin)
        if not judged:
            failures.append(f"protected {name[:80]}: expected {rules.protected_windows_min} windows of it in some set")
    return failures


def _below(what: str, right: npt.NDArray[np.bool_], before: npt.NDArray[np.bool_], margin: float) -> list[str]:
    found, allowed = float(right.mean()), float(before.mean()) - margin
    return [] if found >= allowed - ROUNDING else [f"{what}: found {found:.4f}, allowed {allowed:.4f}"]
