"""An agent with state, for tests of the host: ``python -m tests.support.toy_agent FAULT`` with ACCLIMATE_* settings.

Of each device it chains the hashes of the record values, so that a lost, repeated or swapped record shows in every
later output. The n-th record of a device has n mod 3 outputs, in ``.predictions``; the state is kept in ``.adapters``.

FAULT is ``none``, ``slow:SECONDS`` (restoring takes so long) or ``bug:TEXT`` (a record that contains TEXT raises after
the state was changed).
"""

import asyncio
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace

from acclimate.infra.settings import Settings, load_settings
from acclimate.streams.agents.host import Agent, run_agent, stop_signal
from acclimate.streams.wire.dead_letters import dead_letter
from acclimate.streams.wire.reading import committed_reader, partitions_of, read_to_end
from acclimate.streams.wire.records import Incoming, Outgoing
from acclimate.streams.wire.topics import topic_name

START = "0" * 64
log = logging.getLogger("acclimate.streams.toy")


@dataclass(frozen=True)
class Chain:
    """What is known of a device after its record at `offset`."""

    partition: int
    offset: int
    records: int
    digest: str


def follow_chain(before: Chain | None, partition: int, offset: int, value: bytes) -> Chain:
    digest = hashlib.sha256((before.digest if before else START).encode() + value).hexdigest()
    return Chain(partition, offset, (before.records if before else 0) + 1, digest)


def expected_outputs(records: Iterable[Incoming]) -> dict[tuple[str, int, int], str]:
    """Return what the toy must have said of these records, in order: device, number, output -> digest."""
    chains: dict[str, Chain] = {}
    found = {}
    for record in records:
        device = record.key.decode()
        chains[device] = chain = follow_chain(chains.get(device), record.partition, record.offset, record.value)
        found |= {(device, chain.records, i): chain.digest for i in range(chain.records % 3)}
    return found


@dataclass
class Toy:
    settings: Settings
    slow_s: float = 0.0
    bug: bytes | None = None
    chains: dict[str, Chain] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    held: set[int] = field(default_factory=set)

    def process(self, records: Sequence[Incoming]) -> list[list[Outgoing]]:
        (record,) = records
        assert record.partition in self.held, f"a record of partition {record.partition} came before its state"
        device = record.key.decode()
        before = self.chains.get(device)
        if before is not None and record.offset <= before.offset:
            return [[]]  # its outputs are in Kafka, or its state would not be
        self.chains[device] = chain = follow_chain(before, record.partition, record.offset, record.value)
        self.changed.add(device)
        if self.bug is not None and self.bug in record.value:
            raise ZeroDivisionError("a bug")
        said = [json.dumps([device, chain.records, i, chain.digest]).encode() for i in range(chain.records % 3)]
        return [[Outgoing(topic_name(self.settings.fleet, "predictions"), record.key, value, ()) for value in said]]

    def park(self, record: Incoming, exception: str) -> Outgoing:
        return dead_letter(record, topic_name(self.settings.fleet, "dlq"), "adapt", "bug", "parked", exception)

    def retain(self, partitions: Set[int]) -> None:
        log.info("event=retain partitions=%s", sorted(partitions))
        self.held = set(partitions)
        self.chains = {device: chain for device, chain in self.chains.items() if chain.partition in partitions}
        self.changed &= self.chains.keys()

    def restore(self, partitions: Set[int], progress: Callable[[int], None]) -> None:
        log.info("event=restore partitions=%s", sorted(partitions))
        until = time.monotonic() + self.slow_s
        while time.monotonic() < until:
            progress(0)
            time.sleep(0.1)
        consumer = committed_reader(self.settings)
        try:
            places = [tp for tp in partitions_of(consumer, self.settings, "adapters") if tp.partition in partitions]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            for number, message in enumerate(read_to_end(consumer, places)):
                self.chains[message.key.decode()] = Chain(message.partition, *json.loads(message.value))
                progress(number)
        finally:
            consumer.close()
        self.held |= partitions

    def snapshot(self) -> list[Outgoing]:
        topic = topic_name(self.settings.fleet, "adapters")
        kept = [(device, self.chains[device]) for device in sorted(self.changed)]
        self.changed.clear()
        return [
            Outgoing(topic, device.encode(), json.dumps([each.offset, each.records, each.digest]).encode(), ())
            for device, each in kept
        ]


def main(fault: str) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    kind, _, rest = fault.partition(":")
    toy = Toy(load_settings())
    if kind == "slow":
        toy = replace(toy, slow_s=float(rest))
    if kind == "bug":
        toy = replace(toy, bug=rest.encode())
    agent = Agent("toy", "features", toy.process, toy.park, state=toy)

    async def run() -> int:
        return await run_agent(toy.settings, agent, stop_signal())

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
