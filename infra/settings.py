"""One typed object for everything that can be configured, read from ``ACCLIMATE_*`` variables.

Every process builds it once at its start, prints it with secrets masked and hands it on; nothing else reads the
environment. An unknown ``ACCLIMATE_`` variable is refused: a typing error must not turn into a default.
"""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from acclimate.infra.errors import SettingsError

__all__ = ["PREFIX", "Settings", "load_settings", "settings_page"]

PREFIX = "ACCLIMATE_"

FleetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class Settings(BaseSettings):
    """Settings of one process; field ``x`` is read from ``ACCLIMATE_X``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True)

    bootstrap: str = Field("127.0.0.1:9092", min_length=1, description="Kafka bootstrap servers, comma separated")
    fleet: FleetName = Field("acclimate", description="fleet name, the prefix of every topic")

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="of the listener: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    ssl_cafile: Path | None = Field(None, description="PEM file of the authority that signed the broker's certificate")
    ssl_certfile: Path | None = Field(None, description="PEM file of this client's certificate")
    ssl_keyfile: Path | None = Field(None, description="PEM file of this client's private key")
    ssl_keypassword: SecretStr | None = Field(None, description="of the private key, never printed")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    sasl_username: str | None = Field(None, description="of the SASL user")
    sasl_password: SecretStr | None = Field(None, description="of the SASL user, never printed")

    mode: Literal["observe", "always"] = Field(
        "observe",
        description="who answers under `ACCLIMATE_BUNDLE`: the source, or LeanTTA from its threshold on; without it "
        "the release says the mode",
    )
    bundle: Path | None = Field(None, description="folder of the bundle that a worker serves")
    mlflow: str = Field(
        "sqlite:///.acclimate/mlflow/mlflow.db",
        min_length=1,
        description="MLflow: a server's address, or an SQLite file",
    )
    trust: Path | None = Field(None, description="signed list of keys that a receiver starts from, `trust.json`")
    state: Path = Field(Path(".acclimate/receiver"), description="folder where a receiver keeps its epoch and bundles")
    policy: Path | None = Field(
        None, description="TOML file with the rules of gates and roll-outs; defaults without one"
    )
    release_key: Path | None = Field(None, description="PEM file of the key that signs releases, `release.pem`")
    gate_key: Path | None = Field(None, description="PEM file of the key that signs bundles and verdicts, `gate.pem`")
    approver_key: Path | None = Field(None, description="PEM file of the key that signs approvals, `approver-NAME.pem`")
    key_passphrase: SecretStr | None = Field(None, description="of private keys in files, never printed")
    record_bytes_max: int = Field(1_000_000, ge=1_024, le=100_000_000, description="largest record of .features")
    in_flight_max: int = Field(256, ge=1, le=100_000, description="input records between reading and acknowledgement")
    watchdog_s: float = Field(60.0, gt=0, description="a worker with lag and no commit for so long exits with code 75")
    session_timeout_s: float = Field(
        10.0, ge=1, le=300, description="a silent worker loses its partitions after so long"
    )
    ready_file: Path | None = Field(None, description="file touched while a worker or a controller makes progress")
    outbox: Path | None = Field(None, description="file of the device client's buffer on disk")
    outbox_bytes_max: int = Field(256 * 2**20, ge=2**20, description="size limit of that buffer")

    @model_validator(mode="after")
    def _security_is_complete(self) -> "Settings":
        if self.security_protocol.startswith("SASL"):
            missing = [n for n in ("sasl_mechanism", "sasl_username", "sasl_password") if getattr(self, n) is None]
            if missing:
                raise ValueError(f"{self.security_protocol} needs {', '.join(PREFIX + n.upper() for n in missing)}")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError(f"{PREFIX}SSL_CERTFILE and {PREFIX}SSL_KEYFILE belong together, only one is set")
        return self

    @property
    def passphrase(self) -> str | None:
        """Return the passphrase of private keys in files, in clear."""
        return self.key_passphrase.get_secret_value() if self.key_passphrase is not None else None

    def masked(self) -> dict[str, Any]:
        """Return the settings as JSON values, secrets shown as asterisks."""
        return self.model_dump(mode="json", exclude_none=True)


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment; ``overrides`` that are not None win.

    Raises:
        SettingsError: a variable is unknown or a value does not fit; the message names it.
    """
    known = sorted(name.upper() for name in Settings.model_fields)
    for variable in os.environ:
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper().startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(PREFIX + n for n in known)}"
            raise SettingsError(f"unknown setting {variable} in the environment; {hint}")
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        lines = [
            (f"{PREFIX}{str(e['loc'][0]).upper()}: " if e["loc"] else "") + e["msg"].removeprefix("Value error, ")
            for e in error.errors(include_url=False)
        ]
        raise SettingsError("wrong settings: " + "; ".join(lines)) from error


def settings_page() -> str:
    """Return ``docs/settings.md``; ``python -m acclimate.infra.settings > docs/settings.md`` writes it."""
    rows = [
        f"| `{PREFIX}{name.upper()}` | {'' if field.default is None else f'`{field.default}`'} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    head = (
        "# Settings",
        "",
        "Every process reads these variables; options of the command line win over them. An unknown variable that",
        f"starts with `{PREFIX}` is refused. The worker prints what it runs with, secrets masked.",
        "",
        "| variable | default | meaning |",
        "|---|---|---|",
    )
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    print(settings_page(), end="")
