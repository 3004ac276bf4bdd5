"""``acclimate register``: judge a bundle and put it into the catalogue."""

from pathlib import Path

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.judging_options import judging_options, make_desk, report

__all__ = ["command"]


@click.command(
    epilog="Example: acclimate register bundles/pumps --validation pumps.npz --where device=7-9 --key gate.pem"
)
@click.argument("folder", type=click.Path(path_type=Path))
@judging_options
@connection_options
@json_option
def command(
    folder: Path,
    policy: str | None,
    validation: Path | None,
    label: str | None,
    where: tuple[str, ...],
    group: str | None,
    force: str | None,
    key: str | None,
    bootstrap: str | None,
    fleet: str | None,
    as_json: bool,
) -> int:
    """Sign the bundle in FOLDER, judge it against what is in force, and register it in MLflow.

    The signed verdict goes to the fleet's history; a version that passes gets the alias `candidate`. The command also
    registers a bundle that fails, and then exits with 3. After a kill, the same command goes on where it was.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, policy=policy, gate_key=key)
    from acclimate.streams.releases.judging.register import register

    verdict, new = register(make_desk(settings, validation, label, where, group, force), folder, force)
    return report(verdict, new, as_json)
