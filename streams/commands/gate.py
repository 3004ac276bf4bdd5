"""``acclimate gate``: judge a registered version again."""

from pathlib import Path

import click

from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.commands.shared.judging_options import judging_options, make_desk, report
from acclimate.streams.commands.shared.release_options import kind_argument, to_kind

__all__ = ["command"]


@click.command(epilog="Example: acclimate gate source 7 --force 'sensor 4 was replaced'")
@kind_argument
@click.argument("version", type=click.IntRange(1))
@judging_options
@connection_options
@json_option
def command(
    kind: str,
    version: int,
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
    """Judge VERSION of KIND against what is in force now, and sign a new verdict.

    Use it when another version was released since, or when `register` was killed before its verdict. The exit code is 3
    when a gate fails.
    """
    settings = load_settings(bootstrap=bootstrap, fleet=fleet, policy=policy, gate_key=key)
    from acclimate.streams.releases.judging.register import judge_again

    verdict = judge_again(make_desk(settings, validation, label, where, group, force), to_kind(kind), version, force)
    return report(verdict, False, as_json)
