"""The real worker with one fault built in, for tests of delivery: ``python -m tests.support.faulty_worker FAULT ...``.

FAULT is ``slow:TEXT:SECONDS`` (processing a record that contains TEXT takes so long), ``freeze:TEXT`` (the event loop
stops for ever when such a record arrives) or ``bug:TEXT`` (it raises). The rest are arguments of ``acclimate``.
"""

import sys
import time

from acclimate.streams.agents import adapt, pipeline
from acclimate.streams.cli import main


def install(fault: str) -> None:
    kind, text, *rest = fault.split(":")
    marker = text.encode()

    def contains(record: object) -> bool:
        return marker in (record.value or b"")  # type: ignore[attr-defined]

    process = adapt.AdaptCore.process
    put = pipeline.Pipeline.put

    def faulty_process(self, records):
        if any(contains(record) for record in records):
            if kind == "slow":
                time.sleep(float(rest[0]))
            if kind == "bug":
                raise RuntimeError(f"a bug at {text}")
        return process(self, records)

    async def frozen_put(self, record):
        if contains(record):
            time.sleep(1e6)
        await put(self, record)

    adapt.AdaptCore.process = faulty_process
    if kind == "freeze":
        pipeline.Pipeline.put = frozen_put


if __name__ == "__main__":
    install(sys.argv[1])
    main(sys.argv[2:])
