"""Publish one minute of windows from one device: `python examples/publish.py`.

Needs `pip install acclimate[device]` and a broker, for instance `acclimate broker start`.
"""

import math
import random
import time

from acclimate import DeliveryReport, DeviceClient, load_settings


def measure() -> list[list[float]]:
    """Return one window: 3 channels, 128 samples."""
    phase = random.uniform(0, 2 * math.pi)
    return [
        [math.sin(0.3 * sample + phase + channel) + random.gauss(0, 0.1) for sample in range(128)]
        for channel in range(3)
    ]


def report(delivery: DeliveryReport) -> None:
    """Print what became of a record; called from the sending thread."""
    print(delivery.event_id, f"refused: {delivery.refused}" if delivery.refused else f"offset {delivery.offset}")


if __name__ == "__main__":
    with DeviceClient("pump-7", load_settings(), on_delivery=report) as client:
        for _ in range(60):
            client.publish(measure())  # returns when the window is safe on disk
            time.sleep(1)
