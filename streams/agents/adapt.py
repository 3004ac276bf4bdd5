"""From records of ``.features`` to predictions or dead letters: an answer is a pure function, whatever the batch.

    decode -> source forward with shift -> LeanTTA -> who answers -> encode

No clock, worker, partition or offset enters a prediction, and the engine answers a window bit for bit the same in any
batch, so an answer depends only on the event and on what its receipt names (G3 in docs/guarantees.md). One refusal
alone depends on earlier records: that of a second sampling rate in a session.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from acclimate.adaptation.engine.engine import Outputs
from acclimate.adaptation.errors import DataError
from acclimate.streams.agents.session_rates import SessionRates
from acclimate.streams.serving.prediction import prediction
from acclimate.streams.serving.served import InForce, Served
from acclimate.streams.wire.codec import FeatureBatch, decode_features
from acclimate.streams.wire.dead_letters import Stage, dead_letter
from acclimate.streams.wire.records import Incoming, Outgoing, cloud_event, header
from acclimate.streams.wire.topics import topic_name

__all__ = ["AdaptCore"]


@dataclass(frozen=True)
class AdaptCore:
    """Everything that turns records into outputs.

    Args:
        fleet: Prefix of the topics.
        in_force: Who answers.
        bytes_max: Largest record value that is parsed.
        session_rates: The rates of the sessions that were answered, kept while releases come and go.
    """

    fleet: str
    in_force: InForce
    bytes_max: int
    session_rates: SessionRates = field(default_factory=SessionRates)

    def process(self, records: Sequence[Incoming]) -> list[list[Outgoing]]:
        """Return the one output of each record, in order: a prediction or a dead letter.

        All windows that one bundle answers run through its engine together.
        """
        results: dict[int, Outgoing] = {}
        decoded: dict[int, FeatureBatch] = {}
        serves: dict[int, Served] = {}
        for place, record in enumerate(records):
            serves[place] = self.in_force.served((record.key or b"").decode("utf-8", "replace"))
            item = self._decode(record, serves[place])
            if isinstance(item, FeatureBatch):
                decoded[place] = item
            else:
                results[place] = item
        for served in (self.in_force.stable, self.in_force.candidate):
            places = [place for place in decoded if serves[place] is served]
            if served is None or not places:
                continue
            outputs = served.engine.run(np.concatenate([decoded[place].windows for place in places]))
            start = 0
            for place in places:
                results[place] = self._prediction(records[place], decoded[place], served, outputs, start)
                start += len(decoded[place].windows)
        return [[results[place]] for place in range(len(records))]

    def park(self, record: Incoming, exception: str) -> Outgoing:
        """Return the dead letter of a record that crashed the worker too often, with the name of the exception."""
        # The error's text may differ from run to run, and equal ids must mean equal bytes; it is in log and .status.
        text = "a bug in this version, the record is parked; the worker's log has the traceback"
        return self._letter(record, "adapt", "bug", text, exception)

    def _decode(self, record: Incoming, served: Served) -> FeatureBatch | Outgoing:
        try:
            batch = decode_features(
                record.key,
                record.value,
                channels=served.spec.channels,
                length=served.spec.length,
                bytes_max=self.bytes_max,
                sampling_rate_hz=served.sampling_rate_hz,
            )
            self.session_rates.check(batch)
        except DataError as error:
            return self._letter(record, "decode", error.reason, str(error), "DataError")
        return batch

    def _letter(self, record: Incoming, stage: Stage, reason: str, message: str, exception: str) -> Outgoing:
        return dead_letter(record, topic_name(self.fleet, "dlq"), stage, reason, message, exception)

    def _prediction(
        self, record: Incoming, batch: FeatureBatch, served: Served, outputs: Outputs, start: int
    ) -> Outgoing:
        identity, value = prediction(batch, served, outputs, start)
        headers = list(cloud_event("predictions.v2", f"/{self.fleet}/worker", identity))
        trace = header(record.headers, "traceparent")
        if trace is not None and len(trace) <= 256:
            headers.append(("traceparent", trace))
        return Outgoing(topic_name(self.fleet, "predictions"), record.key, value, tuple(headers))
