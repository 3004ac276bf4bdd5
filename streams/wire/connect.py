"""Client options for kafka-python, aiokafka and Faust from the one settings object.

Every connection of the project is opened with these options, so that TLS and SASL work everywhere or nowhere.
"""

import ssl
from typing import Any

from acclimate.infra.settings import Settings

__all__ = ["aiokafka_options", "faust_broker", "faust_credentials", "kafka_python_options", "ssl_context"]


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context of a client, None where the protocol is not encrypted; host names are checked."""
    if "SSL" not in settings.security_protocol:
        return None
    context = ssl.create_default_context(cafile=str(settings.ssl_cafile) if settings.ssl_cafile else None)
    if settings.ssl_certfile and settings.ssl_keyfile:
        password = settings.ssl_keypassword.get_secret_value() if settings.ssl_keypassword else None
        context.load_cert_chain(str(settings.ssl_certfile), str(settings.ssl_keyfile), password)
    return context


def kafka_python_options(settings: Settings) -> dict[str, Any]:
    """Return the options that every kafka-python client takes."""
    return {
        "bootstrap_servers": settings.bootstrap.split(","),
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
        "sasl_mechanism": settings.sasl_mechanism,
        "bootstrap_timeout_ms": 5_000,
        **_sasl_user(settings),
    }


def aiokafka_options(settings: Settings) -> dict[str, Any]:
    """Return the options that every aiokafka client takes."""
    return {
        "bootstrap_servers": settings.bootstrap.split(","),
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
        "sasl_mechanism": settings.sasl_mechanism or "PLAIN",
        **_sasl_user(settings),
    }


def faust_broker(settings: Settings) -> str:
    """Return the broker address list as Faust spells it."""
    return ";".join(f"kafka://{address}" for address in settings.bootstrap.split(","))


def faust_credentials(settings: Settings) -> Any:
    """Return Faust credentials, None where the listener asks for nothing."""
    import faust

    context = ssl_context(settings)
    if settings.security_protocol.startswith("SASL") and settings.sasl_password is not None:
        return faust.SASLCredentials(
            mechanism=settings.sasl_mechanism,
            username=settings.sasl_username,
            password=settings.sasl_password.get_secret_value(),
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None


def _sasl_user(settings: Settings) -> dict[str, str | None]:
    password = settings.sasl_password
    return {
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else None,
    }
