"""Faust as agents use it: it joins the group, reads and rebalances, and neither acknowledges nor keeps anything."""

from collections.abc import Mapping

import faust

from acclimate.infra.settings import Settings
from acclimate.streams.wire.connect import faust_broker, faust_credentials
from acclimate.streams.wire.records import Incoming

__all__ = ["COMMIT_INTERVAL_S", "incoming", "make_faust_app"]

COMMIT_INTERVAL_S = 1.0


def make_faust_app(settings: Settings, group: str, datadir: str) -> faust.App:
    """Return an app of a consumer group that writes nothing but into `datadir`."""
    return faust.App(
        group,
        broker=faust_broker(settings),
        broker_credentials=faust_credentials(settings),
        version=1,
        autodiscover=False,
        datadir=datadir,  # made by Faust even without tables
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        key_serializer="raw",
        value_serializer="raw",
        processing_guarantee="at_least_once",
        stream_buffer_maxsize=16,  # the pipeline bounds what is under way, also by bytes
        stream_wait_empty=False,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / 4,
        broker_request_timeout=max(40.0, settings.session_timeout_s),
        broker_commit_interval=COMMIT_INTERVAL_S,
        consumer_auto_offset_reset="earliest",
    )


def incoming(message: faust.types.Message) -> Incoming:
    """Return a record as the rest of the code knows it."""
    headers = message.headers or ()
    return Incoming(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=round(message.timestamp * 1000),
        key=message.key,
        value=message.value,
        headers=tuple(headers.items() if isinstance(headers, Mapping) else headers),
    )
