"""``acclimate dlq``: look at refused records and send them again."""

import json
from collections import Counter
from typing import Any

import click

from adaptation.errors import ConfigError
from infra.settings import load_settings
from streams.commands.connection_options import connection_options, json_option
from streams.dead_letters import DeadLetter, read_letters, redrive

__all__ = ["command"]


@click.group(name="dlq")
def command() -> None:
    """Look at refused records and send them again.

    A record that cannot be served ends in the dead letter topic with its original key and bytes, and the reason.
    """


@command.command("list", epilog="Example: acclimate dlq list --last 20")
@connection_options
@click.option("--last", default=50, show_default=True, help="How many of the newest letters to list.")
@json_option
def list_letters(bootstrap: str | None, fleet: str | None, last: int, as_json: bool) -> None:
    """List the newest dead letters and count all of them by reason."""
    letters = list(read_letters(load_settings(bootstrap=bootstrap, fleet=fleet)))
    reasons = Counter(letter.reason for letter in letters)
    if as_json:
        rows = [_row(letter) for letter in letters[-last:]]
        click.echo(json.dumps({"letters": len(letters), "reasons": dict(reasons), "last": rows}))
        return
    click.echo(f"{len(letters)} dead letters" + "".join(f", {reason} {n}" for reason, n in reasons.most_common()))
    for letter in letters[-last:]:
        key = (letter.key or b"").decode("utf-8", "backslashreplace")[:24]
        click.echo(
            f"{letter.partition}/{letter.offset}  {key:24}  {letter.stage}  {letter.reason:16}  {letter.message}"
        )


@command.command("show", epilog="Example: acclimate dlq show 3/17 --raw > record.bin")
@connection_options
@click.argument("place", metavar="PARTITION/OFFSET")
@click.option("--raw", is_flag=True, help="Write the original bytes to standard output and nothing else.")
@json_option
def show(bootstrap: str | None, fleet: str | None, place: str, raw: bool, as_json: bool) -> None:
    """Show one dead letter: where it came from, why it was refused, its headers and the start of its bytes."""
    partition, _, offset = place.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise ConfigError(f"expected PARTITION/OFFSET such as 3/17, got {place!r}; `acclimate dlq list` shows them")
    wanted = (int(partition), int(offset))
    letters = read_letters(load_settings(bootstrap=bootstrap, fleet=fleet))
    letter = next((item for item in letters if (item.partition, item.offset) == wanted), None)
    if letter is None:
        raise ConfigError(f"no dead letter at {place}; `acclimate dlq list` shows them")
    if raw:
        click.get_binary_stream("stdout").write(letter.value or b"")
        return
    row = _row(letter) | {
        "headers": {name: value.decode("utf-8", "backslashreplace") for name, value in letter.headers},
        "value_start": (letter.value or b"")[:200].decode("utf-8", "backslashreplace"),
    }
    click.echo(json.dumps(row) if as_json else "\n".join(f"{name}: {value}" for name, value in row.items()))


@command.command("redrive", epilog="Example: acclimate dlq redrive --attempts 3")
@connection_options
@click.option("--attempts", default=3, show_default=True, help="Records re-driven so often already stay parked.")
@json_option
def redrive_letters(bootstrap: str | None, fleet: str | None, attempts: int, as_json: bool) -> None:
    """Send refused records to their topic again, each letter once.

    Useful after a fix. Equal records give equal outputs, so sending one twice does no harm.
    """
    done = redrive(load_settings(bootstrap=bootstrap, fleet=fleet), attempts)
    if as_json:
        click.echo(json.dumps({"sent": done.sent, "parked": done.parked, "truncated": done.truncated}))
    else:
        click.echo(
            f"{done.sent} sent again, {done.parked} parked at the cap, {done.truncated} truncated ones left alone"
        )


def _row(letter: DeadLetter) -> dict[str, Any]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "origin": f"{letter.origin_topic}/{letter.origin_partition}/{letter.origin_offset}",
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "bytes": None if letter.value is None else len(letter.value),
        "stage": letter.stage,
        "reason": letter.reason,
        "message": letter.message,
        "attempt": letter.attempt,
        "truncated": letter.truncated,
    }
