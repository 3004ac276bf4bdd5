"""Write the results of an evaluation: ``results.json``, ``summary.md`` and ``figures/``."""

from collections.abc import Sequence
from pathlib import Path

from acclimate.registry.folder import replace_file
from acclimate.streams.lab.evaluate.evaluation import list_tasks
from acclimate.streams.lab.evaluate.figures import draw_figures
from acclimate.streams.lab.evaluate.options import EvaluationOptions, binding
from acclimate.streams.lab.evaluate.recordings import load_data
from acclimate.streams.lab.evaluate.results import Results, collect_results, write_json
from acclimate.streams.lab.evaluate.summary import render_summary
from acclimate.streams.lab.study.folder import check_binding
from acclimate.streams.lab.study.processes import FailedJob

__all__ = ["write_report"]


def write_report(
    options: EvaluationOptions, folder: Path, failed: Sequence[FailedJob], command: str
) -> tuple[Results, dict[str, Path]]:
    """Write the files and return the results and the paths.

    Args:
        options: The options of the evaluation.
        folder: Its folder.
        failed: The tasks that failed in this run.
        command: The command line that made it, for the head of the summary.

    Raises:
        ConfigError: The folder holds no evaluation, or one of another configuration.
        ContractError: Results there do not belong together.
    """
    check_binding(folder, binding(options))
    target = load_data(options).target
    tasks, groups = list_tasks(options, folder, target), [name for name, _ in target.streams()]
    results = collect_results(folder, options, tasks, groups, failed)
    files = {"results": folder / "results.json", "summary": folder / "summary.md"}
    write_json(files["results"], results)
    replace_file(files["summary"], render_summary(results, command).encode())
    drawn = draw_figures(folder, options, results)
    return results, {**files, **{path.stem: path for path in drawn}}
