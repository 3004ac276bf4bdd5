"""Explain the tables of a summary, and name the methods in it that look ahead."""

import textwrap
from collections.abc import Iterable

from acclimate.adaptation.evaluation.harm import LEAST_BLOCKS
from acclimate.adaptation.generators.generator import VARIANTS
from acclimate.adaptation.methods.catalogue import ALIGNED

__all__ = ["SEES_ITS_BATCH", "reading_guide"]

# Methods whose answer to a window depends on later windows of its batch; a test asks every method of the catalogue.
SEES_ITS_BATCH = (
    *("bn", "bn-prior", "ema-bn", "cum-bn", "oftta", "tent", "eata", "sar", "cotta", "t3a", "lame", "accup", "foa"),
    *VARIANTS,  # MGG for the question alone whether the batch lies within its range
    *(name for name in ALIGNED if name != "cta-frozen"),
)

_TABLES = f"""\
How to read the tables. A row is a method on a source model: `none` is the plain source, the others are robust ones.
**accuracy** is the mean over groups, then over seeds; **± seeds** the standard deviation of the seeds' means; **worst
group** the lowest accuracy of a group (mean over its seeds). **change** is against the source of the same kind on the
same windows; **gain** against the plain source. **harmed** is the share of (group, seed) pairs whose whole 95 %
block-bootstrap interval of the change lies below zero, in brackets Wilson's 95 % interval with groups as units,
because seeds repeat the same recordings. Blocks are stretches of the recording, also where a stream reorders it. Pairs
of too few windows for {LEAST_BLOCKS} blocks are *undecided* and counted apart, as neither harmed nor unharmed.
**adapted** is the share of windows that another rung than the source answered, of methods that keep receipts.
**collapsed** counts pairs that, late in the stream, answer one class more than 95 % of the time where truth and source
do not. **ms** is CPU time per window in the method; **state** what a device keeps between batches.
"""


def reading_guide(methods: Iterable[str]) -> str:
    """Return the guide for a summary of these methods."""
    seen = dict.fromkeys(method for method in methods if method in SEES_ITS_BATCH)
    seeing = ", ".join(f"`{method}`" for method in seen) or "none of those below"
    order = (
        "In batches of more than one window these methods see the rest of the batch, later windows included, before "
        f"they answer its first: {seeing}. A device that must answer at once is like batch 1. All others answer a "
        "window from itself and from what came before it; `policy` answers from what it knew when the current period "
        "of windows began."
    )
    return f"{_TABLES}\n{textwrap.fill(order, 120)}\n"
