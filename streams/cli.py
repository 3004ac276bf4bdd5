"""The command line: one lazily loaded file per command, errors as one line, exit codes that scripts can rely on."""

import importlib
import logging
import sys
import traceback
from collections.abc import Sequence

import click

from acclimate.infra.extras import missing_extra

__all__ = ["COMMANDS", "GROUPS", "main"]

# By who uses them; each command stands in one group.
GROUPS = {
    "On this machine": {
        "demo": "Run all of it, end to end, and write a report.",
        "up": "Start Kafka, MLflow and the controller.",
        "down": "Stop what `up` started.",
        "broker": "Start, stop and look at a local Apache Kafka.",
    },
    "For device engineers": {
        "fleet": "Play a recording as a fleet of devices.",
        "dlq": "List, show and send again what was refused.",
    },
    "For platform teams": {
        "pilot": "Find out on your own recordings what adaptation would do.",
        "train": "Train a source model and write its bundle.",
        "keys": "Make, rotate and revoke the keys of a fleet.",
        "register": "Judge a bundle and put it into the catalogue.",
        "gate": "Judge a registered version again.",
        "candidates": "Show what could be released and what the gates said.",
        "promote": "Ask for a version to be released.",
        "rollback": "Ask for the return to what was in force before.",
        "controller": "Release what was asked for, judged and approved.",
        "worker": "Answer what devices publish.",
        "devices": "Show what really runs where.",
    },
    "For analysts": {
        "collect": "Join predictions with the truth and write a report.",
        "history": "Show who had what, who asked, who approved, and why.",
        "diff": "Show what differs between two versions.",
    },
    "For research": {
        "evaluate": "Compare methods on recorded and disturbed streams.",
        "continual": "Compare ways of learning from delayed labels.",
        "meta-train": "Teach a generator that adapts a source model.",
        "align": "Align a self-supervised encoder with a source model.",
    },
}
COMMANDS = tuple(name for group in GROUPS.values() for name in group)


class LastWords(logging.Handler):
    """Remember the last error that a library logged, to give it as the reason of an exception without one."""

    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            self.text = record.getMessage()


_last_words = LastWords()


class LazyGroup(click.Group):
    """Import a command's file only when it is asked for: ``acclimate fleet`` must not pay for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"acclimate.streams.commands.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))  # one column for all groups
        for title, commands in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])


@click.group(cls=LazyGroup, epilog="Start here: acclimate demo")
@click.version_option(package_name="acclimate")
@click.option("-v", "--verbose", is_flag=True, help="Log what the program does, to standard error.")
def cli(verbose: bool) -> None:
    """Keep the classifiers of a sensor fleet accurate, and prove what was done.

    Settings come from ACCLIMATE_* variables; options win over them. Exit codes: 2 wrong option or setting, 3 bad data
    or artifact, 4 Kafka or MLflow cannot be reached, 70 a bug, 75 stalled or outage (restart it).
    """
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # kafka-python logs every attempt to reach a broker, and the reason of a failure only there.
    kafka = logging.getLogger("kafka")
    kafka.propagate = verbose
    kafka.addHandler(_last_words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = cli.main(args=arguments, prog_name="acclimate", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ModuleNotFoundError as error:
        sentence = missing_extra(error, "this command")
        if sentence is None:
            raise
        return _fail(sentence, 2)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            traceback.print_exc()
            return _fail("this is a bug in acclimate; the lines above tell where", 70)
        if code == 4 and "kafka.errors" in type(error).__module__:
            reason = f" ({_last_words.text})" if _last_words.text and _last_words.text not in str(error) else ""
            return _fail(
                f"Kafka does not answer as expected: {error}{reason}. Start one with `acclimate broker start`, or set "
                "ACCLIMATE_BOOTSTRAP; with TLS or SASL check ACCLIMATE_SECURITY_PROTOCOL and the credentials",
                code,
            )
        return _fail(str(error), code)


def exit_code(error: Exception) -> int | None:
    """Return the exit code of an expected error, None for a bug."""
    from acclimate.adaptation.errors import AcclimateError, ConfigError
    from acclimate.infra.errors import InfraError, SettingsError

    if isinstance(error, ConfigError | SettingsError):
        return 2
    if isinstance(error, AcclimateError):
        return 3
    if isinstance(error, InfraError):
        return 4
    if type(error).__module__.startswith(("kafka.errors", "aiokafka.errors")):
        return 4
    return None


def _fail(message: str, code: int) -> int:
    click.echo(f"error: {message}", err=True)
    return code


if __name__ == "__main__":
    main()
