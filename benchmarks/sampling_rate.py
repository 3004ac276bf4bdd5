"""What a device at twice the model's sampling rate costs, and whether the shift magnitude shows it.

Run ``acclimate train`` first, then ``python -m benchmarks.sampling_rate BUNDLE --data FILE.npz --target KEY=VALUES``. A
window at twice the rate is the first half of a recorded one, with samples between its own by straight lines: what a
sensor at that rate would add above the old half of the rate is missing. docs/device.md holds a run.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acclimate.adaptation.data.load import load_labelled
from acclimate.registry.bundles.source_bundle import read_bundle
from acclimate.streams.serving.served import serve


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy and shift magnitude at twice the sampling rate.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="recordings, npz")
    parser.add_argument("--target", required=True, help="rows to answer, KEY=VALUES")
    parser.add_argument("--label", default="y")
    arguments = parser.parse_args()
    rows = load_labelled(arguments.data, where=arguments.target, label=arguments.label)
    served = serve(read_bundle(arguments.bundle), "always")
    print("| sampled at | accuracy of the source | accuracy of the answer | median shift magnitude |")
    print("|---|---|---|---|")
    for name, windows in (("the model's rate", rows.windows), ("twice the rate", doubled(rows.windows))):
        outputs = served.engine.run(windows)
        source, answer = outputs.source_probabilities, served.probabilities(outputs)
        right = [100 * float((each.argmax(axis=1) == rows.labels).mean()) for each in (source, answer)]
        print(f"| {name} | {right[0]:.1f} % | {right[1]:.1f} % | {float(np.median(outputs.magnitude)):.2f} |")


def doubled(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return windows (n, channels, length) as a device at twice the rate sees their first half; length stays."""
    at = np.arange(windows.shape[2]) / 2
    before = np.floor(at).astype(np.int64)
    after = np.minimum(before + 1, windows.shape[2] - 1)
    share = (at - before).astype(np.float32)
    return (1 - share) * windows[:, :, before] + share * windows[:, :, after]


if __name__ == "__main__":
    main()
