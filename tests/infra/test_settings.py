"""A wrong setting must stop a process at its start, with a text that names it, and no secret may be printed."""

from pathlib import Path

import pytest

from acclimate.infra.errors import SettingsError
from acclimate.infra.settings import load_settings, settings_page


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("ACCLIMATE_"):
            monkeypatch.delenv(name)


def test_a_misspelt_variable_is_refused_and_the_right_name_suggested(monkeypatch):
    monkeypatch.setenv("ACCLIMATE_BOOTSTRP", "kafka:9092")
    with pytest.raises(SettingsError, match=r"ACCLIMATE_BOOTSTRP.*did you mean ACCLIMATE_BOOTSTRAP"):
        load_settings()


def test_an_unknown_variable_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.setenv("ACCLIMATE_QQQQQQQQ", "1")
    with pytest.raises(SettingsError, match=r"known are .*ACCLIMATE_FLEET"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("MODE", "sometimes"), ("WATCHDOG_S", "0"), ("IN_FLIGHT_MAX", "many"), ("FLEET", "a/b"), ("BOOTSTRAP", "")],
)
def test_a_value_that_does_not_fit_is_refused_by_name(monkeypatch, name, value):
    monkeypatch.setenv(f"ACCLIMATE_{name}", value)
    with pytest.raises(SettingsError, match=f"ACCLIMATE_{name}"):
        load_settings()


def test_an_option_wins_over_the_environment_and_none_leaves_it(monkeypatch):
    monkeypatch.setenv("ACCLIMATE_FLEET", "north")
    monkeypatch.setenv("ACCLIMATE_MODE", "observe")
    settings = load_settings(fleet="south", mode=None)
    assert (settings.fleet, settings.mode) == ("south", "observe")


def test_sasl_without_a_password_is_refused(monkeypatch):
    monkeypatch.setenv("ACCLIMATE_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("ACCLIMATE_SASL_USERNAME", "worker")
    with pytest.raises(SettingsError, match="ACCLIMATE_SASL_MECHANISM, ACCLIMATE_SASL_PASSWORD"):
        load_settings()


def test_a_client_certificate_without_its_key_is_refused(monkeypatch):
    monkeypatch.setenv("ACCLIMATE_SSL_CERTFILE", "client.pem")
    with pytest.raises(SettingsError, match="belong together"):
        load_settings()


def test_secrets_are_masked_wherever_settings_are_printed(monkeypatch):
    monkeypatch.setenv("ACCLIMATE_SASL_PASSWORD", "canary-secret")
    monkeypatch.setenv("ACCLIMATE_SSL_KEYPASSWORD", "canary-secret")
    settings = load_settings()
    assert "canary-secret" not in f"{settings!r} {settings.masked()} {settings.model_dump_json()}"


def test_the_page_of_settings_equals_the_settings():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == settings_page(), "run: python -m acclimate.infra.settings > docs/settings.md"
