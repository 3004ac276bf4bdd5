"""The demo asks for the mode that it shows; every other process begins with the source."""

from unittest.mock import patch

import pytest

from acclimate.infra.settings import Settings
from acclimate.streams import cli


class Stopped(Exception):
    """The demo would begin now."""


@pytest.mark.parametrize(
    ("options", "environment", "mode"),
    [([], None, "always"), ([], "observe", "observe"), (["--mode", "observe"], None, "observe")],
)
def test_a_demo_that_says_nothing_shows_adaptation_and_why(
    options: list[str],
    environment: str | None,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if environment is not None:
        monkeypatch.setenv("ACCLIMATE_MODE", environment)
    with (
        patch("acclimate.streams.commands.demo.selected_dataset"),
        patch("acclimate.streams.commands.demo.signal.signal"),
        patch("acclimate.streams.local.demo.run_demo", side_effect=Stopped) as run,
    ):
        assert cli._run(["demo", *options]) == 70
    settings = run.call_args.args[1]
    assert isinstance(settings, Settings)
    assert settings.mode == mode
    assert settings.fleet.startswith("demo-")
    assert ("a fleet starts with observe" in capsys.readouterr().err) == (mode == "always")
