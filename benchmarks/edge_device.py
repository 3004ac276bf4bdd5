"""The device's process of `benchmarks.edge`: nothing but a device is in its memory."""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.infra.settings import Settings
from acclimate.streams.device.edge import EdgeClient


@dataclass(frozen=True)
class Plan:
    """What to do: publish `windows` windows of a file over and over, `per_call` at a time, and deliver them.

    `interval_s` is the simulated time between two windows, from `start_s` on; 0 takes the real clock.
    """

    settings: dict[str, str]
    ring: str
    file: str
    windows: int
    per_call: int
    interval_s: float
    start_s: float
    deliver: bool


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    stored = np.load(plan.file)
    now_s = plan.start_s

    def clock() -> float:
        return now_s if plan.interval_s else time.time()

    settings = Settings(**plan.settings)  # type: ignore[arg-type]
    client = EdgeClient("chest-13", settings, ring=Path(plan.ring), clock=clock)
    while client.status().receipt is None:
        time.sleep(0.05)
    say({"ready": True})
    started, cpu = time.perf_counter(), time.process_time()
    for done in range(0, plan.windows, plan.per_call):
        now_s += plan.interval_s * plan.per_call
        place = done % (len(stored) - plan.per_call)
        published = client.publish(stored[place : place + plan.per_call])
        if plan.interval_s:
            say({"last": published.event_ids[-1]})  # the parent knows what it may expect
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    waiting = client.flush(600.0) if plan.deliver else client.outbox.stats().waiting_records
    delivered = time.perf_counter() - started
    say(
        {
            "answered_windows_per_s": round(plan.windows / seconds, 1) if plan.windows else None,
            "delivered_windows_per_s": round(plan.windows / delivered, 1) if plan.deliver and plan.windows else None,
            "cpu_us_per_window": round(cpu / plan.windows * 1e6, 1) if plan.windows else None,
            "peak_rss_mb": peak_rss_mb(),
            "records_waiting": waiting,
            "counts": client.status().counts.model_dump(),
        }
    )
    client.close(30.0 if plan.deliver else 0.0)


def peak_rss_mb() -> float:
    """Return the largest resident memory of this process so far, in MB of 10^6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e6, 1)


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
