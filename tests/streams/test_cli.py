"""Scripts rely on exit codes, people on the text; both meet the command line at its edges."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from acclimate.streams import cli

ROOT = Path(__file__).parents[2]


def run(*arguments, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-m", "acclimate.streams.cli", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_an_example(name, capsys):
    for sub in [[], ["list"], ["show"], ["redrive"]] if name == "dlq" else [[]]:
        assert cli._run([name, *sub, "--help"]) == 0
        text = capsys.readouterr().out
        if name not in ("dlq", "broker") or sub:
            assert "Example" in text, (name, sub)


def test_every_command_file_stands_in_exactly_one_group_of_the_help(capsys):
    files = sorted(path.stem for path in (ROOT / "streams/commands").glob("*.py") if path.stem != "__init__")
    assert sorted(name.replace("-", "_") for group in cli.GROUPS.values() for name in group) == files
    assert cli._run(["--help"]) == 0
    text = capsys.readouterr().out
    titles = [text.index(f"\n{title}:\n") for title in cli.GROUPS]
    assert titles == sorted(titles)
    for name in cli.COMMANDS:
        assert text.count(f"\n  {name} ") == 1, name


def test_the_list_of_commands_imports_no_command():
    loaded = run_python("import sys; from acclimate.streams import cli; cli._run(['--help']); print(*sys.modules)")
    assert not [name for name in loaded.split() if name.startswith("acclimate.streams.commands")]


def test_a_worker_that_follows_releases_takes_no_mode_and_says_where_it_comes_from(capsys, monkeypatch):
    monkeypatch.delenv("ACCLIMATE_BUNDLE", raising=False)
    assert cli._run(["worker", "--mode", "always"]) == 2
    assert "`acclimate promote source VERSION --mode MODE`" in capsys.readouterr().err


def test_an_unknown_command_or_option_ends_with_2(capsys):
    assert cli._run(["frobnicate"]) == 2
    assert cli._run(["worker", "--frobnicate"]) == 2
    assert "No such" in capsys.readouterr().err


def test_a_worker_without_a_bundle_ends_with_2_and_says_what_to_do(capsys, monkeypatch):
    monkeypatch.delenv("ACCLIMATE_BUNDLE", raising=False)
    assert cli._run(["worker"]) == 2
    assert "acclimate train" in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_ends_with_3(capsys, tmp_path):
    assert cli._run(["worker", "--bundle", str(tmp_path)]) == 3
    assert "manifest.json" in capsys.readouterr().err


def test_an_unknown_setting_ends_with_2(capsys, monkeypatch):
    monkeypatch.setenv("ACCLIMATE_BOOTSTRP", "x")
    assert cli._run(["dlq", "list"]) == 2
    assert "ACCLIMATE_BOOTSTRAP" in capsys.readouterr().err


def test_a_wrong_place_of_a_dead_letter_ends_with_2(capsys):
    assert cli._run(["dlq", "show", "seven"]) == 2
    assert "PARTITION/OFFSET" in capsys.readouterr().err


@pytest.mark.kafka
def test_dead_letters_can_be_listed_shown_and_written_raw(kafka, fleet, bundle):
    from kafka import KafkaProducer

    from acclimate.infra.settings import load_settings
    from acclimate.streams.wire.records import Incoming
    from acclimate.streams.wire.topics import create_topics
    from tests.support.models import core, outputs
    from tests.support.poison import POISON

    create_topics(load_settings(bootstrap=kafka, fleet=fleet), partitions=1)
    letters = [
        outputs(core(bundle, fleet), [Incoming(f"{fleet}.features", 0, i, 0, p.key, p.value, ())])[0]
        for i, p in enumerate(POISON(3, 64)[1:4])
    ]
    producer = KafkaProducer(bootstrap_servers=kafka)
    for letter in letters:
        producer.send(letter.topic, key=letter.key, value=letter.value, headers=list(letter.headers))
    producer.close()
    where = ("--bootstrap", kafka, "--fleet", fleet)
    listed = json.loads(run("dlq", "list", *where, "--json").stdout)
    assert listed["letters"] == 3
    assert listed["reasons"] == {"empty": 1, "not_json": 2}
    shown = json.loads(run("dlq", "show", "0/1", *where, "--json").stdout)
    assert shown["origin"] == f"{fleet}.features/0/1"
    assert shown["reason"] == "not_json"
    assert shown["headers"]["__connect.errors.stage"] == "decode"
    assert "noise" not in run("dlq", "show", "0/9", *where).stdout
    raw = subprocess.run(
        [sys.executable, "-m", "acclimate.streams.cli", "dlq", "show", "0/1", "--raw", *where],
        cwd=ROOT,
        capture_output=True,
    )
    assert raw.stdout == b"\xff" * 512


def test_a_broker_that_is_not_there_ends_with_4_in_one_line():
    result = run("dlq", "list", "--bootstrap", "127.0.0.1:1")
    assert result.returncode == 4
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
