"""``acclimate dlq``: look at refused records and send them again."""

import heapq
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from acclimate.adaptation.errors import ConfigError
from acclimate.infra.settings import load_settings
from acclimate.streams.commands.shared.connection_options import connection_options, json_option
from acclimate.streams.wire.dead_letters import DeadLetter, read_letters, redrive

__all__ = ["command"]


@click.group(name="dlq")
def command() -> None:
    """Look at refused records and send them again.

    A record that a worker cannot answer goes to the dead letter topic with its original key and bytes, and the reason.
    """


@command.command("list", epilog="Example: acclimate dlq list --last 20")
@connection_options
@click.option(
    "--last", default=50, show_default=True, type=click.IntRange(1), help="Number of the newest letters to list."
)
@json_option
def list_letters(bootstrap: str | None, fleet: str | None, last: int, as_json: bool) -> None:
    """List the newest dead letters and count all of them by reason."""
    reasons: Counter[str] = Counter()

    def rows() -> Iterator[dict[str, Any]]:
        for letter in read_letters(load_settings(bootstrap=bootstrap, fleet=fleet)):
            reasons[letter.reason] += 1
            yield _row(letter)

    def age(row: dict[str, Any]) -> tuple[int, int, int]:
        return row["timestamp_ms"], row["partition"], row["offset"]

    newest = heapq.nlargest(last, rows(), key=age)[::-1]
    if as_json:
        click.echo(json.dumps({"letters": reasons.total(), "reasons": dict(reasons), "last": newest}))
        return
    click.echo(f"{reasons.total()} dead letters" + "".join(f", {reason} {n}" for reason, n in reasons.most_common()))
    for row in newest:
        place = f"{row['partition']}/{row['offset']}"
        click.echo(
            _shown(f"{place}  {(row['key'] or '')[:24]:24}  {row['stage']}  {row['reason']:16}  {row['message']}")
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
    click.echo(json.dumps(row) if as_json else "\n".join(_shown(f"{name}: {value}") for name, value in row.items()))


@command.command("redrive", epilog="Example: acclimate dlq redrive --attempts 3")
@connection_options
@click.option("--attempts", default=3, show_default=True, help="Number of attempts after which a record stays parked.")
@json_option
def redrive_letters(bootstrap: str | None, fleet: str | None, attempts: int, as_json: bool) -> None:
    """Send refused records to their topic again, each letter once.

    Use it after a fix. Equal records give equal outputs, so a record that is sent twice does no harm.
    """
    done = redrive(load_settings(bootstrap=bootstrap, fleet=fleet), attempts)
    if as_json:
        click.echo(json.dumps({"sent": done.sent, "parked": done.parked, "unsendable": done.unsendable}))
    else:
        click.echo(f"{done.sent} sent again, {done.parked} parked at the cap, {done.unsendable} cannot be sent")


def _shown(text: str) -> str:
    """Escape what would steer the terminal: devices choose keys and bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
        "timestamp_ms": letter.timestamp_ms,
    }
