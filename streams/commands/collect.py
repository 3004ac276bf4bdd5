"""``acclimate collect``: join predictions with the truth and write a report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.data_options import data_options
from acclimate.streams.lab.study.selection import selected_dataset

if TYPE_CHECKING:
    from acclimate.streams.audit.summary import OfflineFigures

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate collect --ledger out/ledger.jsonl --data chest_har.npz --label y4 --source device=1-5 "
    "--target device=6-12"
)
@connection_options
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    required=True,
    help="File that `acclimate fleet` wrote: what it published.",
)
@data_options
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Seed of the simulated fleet.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="Compare the answers with a direct run of the bundle in this folder.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("out/report"),
    show_default=True,
    help="Folder to write the report to.",
)
@click.option(
    "--idle-s",
    default=30.0,
    show_default=True,
    help="Seconds without a new answer after which missing answers count as lost.",
)
@json_option
def command(
    bootstrap: str | None,
    fleet: str | None,
    ledger: Path,
    seed: int,
    bundle: Path | None,
    out: Path,
    idle_s: float,
    as_json: bool,
    **selection: Any,
) -> int:
    """Join predictions with the truth and write a report.

    The command waits until every window of the ledger is answered or in a dead letter. Give it the data options that
    `acclimate fleet` got. It exits with 1 if a window was lost or an answer is not what it should be.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet)
    dataset = selected_dataset(seed, **selection)
    if dataset.target is None:
        raise ConfigError("the truth lies in the target: give the --target that was published")

    from acclimate.streams.audit.collect import collect
    from acclimate.streams.audit.join import read_ledger
    from acclimate.streams.audit.report import Story, verdicts, write_report
    from acclimate.streams.audit.summary import latency_figures, summarise
    from acclimate.streams.commands.shared.device_table import print_report, progress_bar

    labels = dict(zip(dataset.target.rows.tolist(), dataset.target.labels.tolist(), strict=True))
    with progress_bar(not as_json) as progress:
        joined = collect(
            settings,
            read_ledger(ledger),
            labels,
            idle_s=idle_s,
            progress=lambda done, of: progress("collecting", done, of),
        )
    report = summarise(joined)
    report["latency_ms"] = latency_figures(joined, None)
    if bundle is not None:
        report["offline"] = _offline(bundle, dataset.target, joined)
    story = Story(
        f"What the fleet {settings.fleet} was answered",
        f"{dataset.name}: {len(report['per_device'])} devices, {joined.windows:,} windows.",
        facts={name: value for name, value in {"data": dataset.name, **dataset.selection}.items() if value},
    )
    paths = write_report(out, report, joined, story)
    if as_json:
        click.echo(json.dumps(report))
    else:
        print_report(report, verdicts(report), {})
        click.echo(f"report  {paths['html']}")
    equal = report["offline"]["equal"] if "offline" in report else True
    return int(bool(report["lost"] or report["conflicts"] or not equal))


def _offline(folder: Path, target: Any, joined: Any) -> "OfflineFigures":
    from acclimate.registry.bundles.source_bundle import read_bundle
    from acclimate.streams.audit.offline import compare_offline, offline_figures
    from acclimate.streams.serving.served import serve

    bundle = read_bundle(folder)
    modes = {receipt.mode for receipt, _ in joined.receipts}
    bundles = {receipt.bundle for receipt, _ in joined.receipts}
    if bundles - {bundle.digest} or len(modes) > 1:
        raise ConfigError(
            f"--bundle is {bundle.digest}, the answers name bundles {', '.join(sorted(bundles))} and modes "
            f"{', '.join(sorted(modes))}; one bundle in one mode can be compared"
        )
    mode = next(iter(modes), "observe")
    if mode not in ("observe", "always"):
        raise ConfigError(f"the answers name mode {mode!r}; only those of observe and always can be computed again")
    return offline_figures(compare_offline(serve(bundle, mode), target, joined))
