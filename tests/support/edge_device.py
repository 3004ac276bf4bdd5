"""A device that answers itself, as its owner writes it, on any version: it must import nothing of this project by name.

``python edge_device.py EDGE SETTINGS DEVICE DATA.npz LEDGER.jsonl RING``: the modules of `EdgeClient` and
`load_settings` of the version that runs it, and its files. It publishes ten windows a second until SIGTERM.
"""

import importlib
import itertools
import json
import signal
import sys
import threading
from pathlib import Path

import numpy as np

WINDOWS = 4
PERIOD_S = 0.4


def main(edge: str, settings: str, name: str, data: str, ledger: str, ring: str) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    x = np.load(data)["X"][:1000]
    client = importlib.import_module(edge).EdgeClient
    with (
        Path(ledger).open("a") as lines,
        client(name, importlib.import_module(settings).load_settings(), ring=Path(ring)) as device,
    ):
        for turn in itertools.count():
            rows = [(WINDOWS * turn + i) % len(x) for i in range(WINDOWS)]
            seq = device.next_seq
            device.publish(x[rows])
            line = {"device": name, "session": device.session, "seq": seq, "rows": rows}
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            if stop.wait(PERIOD_S):
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
