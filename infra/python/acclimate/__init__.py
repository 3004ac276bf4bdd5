"""Keeps the classifiers of a sensor fleet accurate while sensors age, move and change hands, and proves what it did.

What stands in ``__all__`` is the public surface; a name below it, such as ``acclimate.streams.wire``, may move with any
version. Each name is imported when it is first asked for, so a device that only publishes pays for no engine.
"""

import importlib
from typing import TYPE_CHECKING, Any

from acclimate.infra.extras import missing_extra

if TYPE_CHECKING:
    from acclimate.adaptation.engine.engine import Engine, Outputs
    from acclimate.adaptation.errors import AcclimateError, ConfigError, ContractError, DataError
    from acclimate.adaptation.projection.ftp import AdamFTP
    from acclimate.infra.broker import LocalKafka
    from acclimate.infra.errors import BrokerError, CatalogueError, InfraError, SettingsError
    from acclimate.infra.settings import Settings, load_settings
    from acclimate.registry.bundles.generator_bundle import read_generator_bundle
    from acclimate.registry.bundles.source_bundle import Bundle, read_bundle
    from acclimate.registry.catalogue import Catalogue
    from acclimate.registry.trust.key_folder import read_trust_file
    from acclimate.streams.device.client import DeviceClient
    from acclimate.streams.device.edge import EdgeClient, UploadRule
    from acclimate.streams.device.outbox import Outbox
    from acclimate.streams.device.outbox_sender import DeliveryReport
    from acclimate.streams.device.outbox_store import OutboxFull
    from acclimate.streams.device.window_requests import request_windows
    from acclimate.streams.releases.history import read_history
    from acclimate.streams.wire.messages import PredictionRecord
    from acclimate.streams.wire.predictions import parse_prediction

__all__ = [
    "AcclimateError",
    "AdamFTP",
    "BrokerError",
    "Bundle",
    "Catalogue",
    "CatalogueError",
    "ConfigError",
    "ContractError",
    "DataError",
    "DeliveryReport",
    "DeviceClient",
    "EdgeClient",
    "Engine",
    "InfraError",
    "LocalKafka",
    "Outbox",
    "OutboxFull",
    "Outputs",
    "PredictionRecord",
    "Settings",
    "SettingsError",
    "UploadRule",
    "load_settings",
    "parse_prediction",
    "read_bundle",
    "read_generator_bundle",
    "read_history",
    "read_trust_file",
    "request_windows",
]

_HOMES = {
    "adaptation.engine.engine": ("Engine", "Outputs"),
    "adaptation.errors": ("AcclimateError", "ConfigError", "ContractError", "DataError"),
    "adaptation.projection.ftp": ("AdamFTP",),
    "infra.broker": ("LocalKafka",),
    "infra.errors": ("BrokerError", "CatalogueError", "InfraError", "SettingsError"),
    "infra.settings": ("Settings", "load_settings"),
    "registry.bundles.generator_bundle": ("read_generator_bundle",),
    "registry.bundles.source_bundle": ("Bundle", "read_bundle"),
    "registry.catalogue": ("Catalogue",),
    "registry.trust.key_folder": ("read_trust_file",),
    "streams.device.client": ("DeviceClient",),
    "streams.device.edge": ("EdgeClient", "UploadRule"),
    "streams.device.outbox": ("Outbox",),
    "streams.device.outbox_sender": ("DeliveryReport",),
    "streams.device.outbox_store": ("OutboxFull",),
    "streams.device.window_requests": ("request_windows",),
    "streams.releases.history": ("read_history",),
    "streams.wire.messages": ("PredictionRecord",),
    "streams.wire.predictions": ("parse_prediction",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'acclimate' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"acclimate.{home}")
    except ModuleNotFoundError as error:
        sentence = missing_extra(error, name)
        if sentence is None:
            raise
        raise ImportError(sentence, name=error.name) from error
    return getattr(module, name)


def __dir__() -> list[str]:
    return __all__
