"""Options and output that `acclimate register` and `acclimate gate` share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import Settings
from acclimate.streams.commands.shared.release_options import fleet_trust, this_user

if TYPE_CHECKING:
    from acclimate.registry.releases.verdict import Verdict
    from acclimate.streams.releases.judging.register import Desk

__all__ = ["judging_options", "make_desk", "report"]

_FAILED = 3


def judging_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the rules, one validation set by hand, ``--force`` and ``--key``."""
    for option in (
        click.option("--key", metavar="FILE", help="File of the gates' key; default ACCLIMATE_GATE_KEY."),
        click.option(
            "--force",
            metavar="REASON",
            help="Allow the release though gates fail; the reason is signed with the verdict.",
        ),
        click.option(
            "--group",
            metavar="KEY",
            help="Key that tells the devices of --validation apart; default: as in the training.",
        ),
        click.option(
            "--where",
            metavar="KEY=VALUES",
            multiple=True,
            help="Rows of --validation, such as device=7-9; default: all.",
        ),
        click.option(
            "--label", metavar="NAME", help="Array of --validation with the classes; default: as in the training."
        ),
        click.option(
            "--validation",
            metavar="FILE.npz",
            type=click.Path(path_type=Path),
            help="File of labelled windows to judge by, instead of those in the rules.",
        ),
        click.option(
            "--policy", metavar="FILE.toml", help="File of the rules; default ACCLIMATE_POLICY, else built-in rules."
        ),
    ):
        command = option(command)
    return command


def make_desk(
    settings: Settings,
    validation: Path | None,
    label: str | None,
    where: tuple[str, ...],
    group: str | None,
    force: str | None,
) -> "Desk":
    """Return all that judging needs, from settings and options.

    Raises:
        CatalogueError: MLflow does not answer.
        ConfigError: A key, trust or rules are missing or wrong, or options contradict each other.
        KafkaError: The broker does not answer.
    """
    from acclimate.registry.catalogue import Catalogue
    from acclimate.registry.gates.rules import ValidationSet, read_policy
    from acclimate.registry.trust.keys import read_key
    from acclimate.streams.releases.judging.register import Desk
    from acclimate.streams.wire.topics import create_topics

    if force is not None and not force.strip():
        raise ConfigError("--force needs a reason, for it is signed and stays: --force 'sensor 4 was replaced'")
    given = {"--label": label, "--where": where, "--group": group}
    stray = next((name for name, value in given.items() if value), None)
    if validation is None and stray is not None:
        raise ConfigError(
            f"{stray} selects from --validation FILE.npz; without one, gates.validation in the rules says"
        )
    if settings.gate_key is None:
        raise ConfigError("give --key FILE or set ACCLIMATE_GATE_KEY: the gates' key signs bundles and verdicts")
    trust = fleet_trust(settings)
    key = read_key(settings.gate_key, settings.passphrase)
    rules = read_policy(settings.policy).gates
    if validation is not None:
        asked = {"name": "given", "path": str(validation), "label": label, "where": ";".join(where), "group": group}
        rules = rules.model_copy(update={"validation": (ValidationSet.model_validate(asked),)})
    catalogue = Catalogue(settings.mlflow, settings.fleet)
    create_topics(settings)  # a new fleet's first bundle may come before anything else
    return Desk(settings, catalogue, trust, key, rules, this_user())


def report(verdict: "Verdict", new: bool, as_json: bool) -> int:
    """Show what the gates found, and return the exit code: 3 where a gate failed and nobody forced it."""
    if as_json:
        click.echo(json.dumps({**verdict.model_dump(mode="json"), "passed": verdict.passed, "new": new}))
        return 0 if verdict.passed else _FAILED
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=False)
    registered = "registered as" if new else "is"
    against = f"champion {verdict.champion[:12]}" if verdict.champion else "nothing in force"
    console.print(
        f"{verdict.kind} {verdict.digest[:12]} {registered} version {verdict.version}, judged against {against}"
    )
    colours = {"passed": "green", "failed": "red", "skipped": "yellow"}
    table = Table("gate", "outcome", "found and allowed", box=None, header_style="bold")
    for each in verdict.findings:
        table.add_row(each.gate, f"[{colours[each.outcome]}]{each.outcome}[/]", escape(each.message))
    console.print(table)
    if verdict.forced is not None:
        click.echo(f"warning: failed gates are overridden by {verdict.by}: {verdict.forced}", err=True)
    if verdict.passed:
        console.print(f"next: acclimate promote {verdict.kind} {verdict.version}")
        return 0
    click.echo(
        f"error: version {verdict.version} failed its gates and will not be released; `acclimate gate {verdict.kind} "
        f"{verdict.version} --force REASON` overrides",
        err=True,
    )
    return _FAILED
