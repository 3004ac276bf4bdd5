"""The comparison with a direct run says which column differs, and in how many windows."""

from typing import Any

import numpy as np
import pytest

from acclimate.adaptation.data.dataset import Split
from acclimate.registry.bundles.source_bundle import Bundle
from acclimate.streams.audit.join import Answer, Joined, Published, join
from acclimate.streams.audit.offline import compare_offline
from acclimate.streams.serving.served import Served, serve
from acclimate.streams.wire.records import Incoming
from tests.support.delivery import SESSION, feature_record
from tests.support.models import core, outputs, windows

N = 24


@pytest.fixture(scope="module")
def answered(bundle: Bundle) -> tuple[Served, Split, Joined]:
    x = windows(N, seed=3)
    value = feature_record("a", 0, x)
    output = outputs(core(bundle), [Incoming("plant.features", 0, 0, 0, b"a", value, ())])[0]
    answer = Answer.parse(0, 0, 0, output.value or b"")
    assert answer is not None
    labels = dict.fromkeys(range(N), 0)
    split = Split(x, np.zeros(N, np.int64), np.repeat("a", N), np.arange(N))
    return serve(bundle, "always"), split, join([Published("a", SESSION, 0, range(N))], [], [answer], [], labels)


def test_the_same_bundle_gives_the_same_columns(answered: tuple[Served, Split, Joined]) -> None:
    found = compare_offline(*answered)
    assert (found.differing, found.differing_columns, found.equal, found.bit_equal) == (0, {}, True, True)
    assert set(answered[2].answered_by.tolist()) == {"source", "leantta"}


@pytest.mark.parametrize(
    ("field", "column", "change"),
    [
        ("source_label", "source.labels", lambda value: (value + 1) % 4),
        ("answered_label", "labels", lambda value: (value + 1) % 4),
        ("answered_by", "answered_by", lambda value: "dreams"),
        ("magnitude", "shift.magnitude", lambda value: np.nextafter(value, np.float32(99))),
        ("adapted_probabilities", "adapted.probabilities", lambda value: np.nextafter(value, np.float32(9))),
    ],
)
def test_a_column_that_differs_is_named_with_its_windows(
    field: str, column: str, change: Any, answered: tuple[Served, Split, Joined]
) -> None:
    served, split, joined = answered
    values = getattr(joined, field).copy()
    values[[2, 7]] = change(values[[2, 7]])
    found = compare_offline(served, split, Joined(**{**vars(joined), field: values}))
    assert found.differing_columns == {column: 2}
    assert found.differing == (2 if column.endswith("labels") else 0)
    assert not found.bit_equal


def test_probabilities_of_other_classes_differ_in_every_window(answered: tuple[Served, Split, Joined]) -> None:
    served, split, joined = answered
    other = Joined(**{**vars(joined), "source_probabilities": joined.source_probabilities[:, :3]})
    assert compare_offline(served, split, other).differing_columns == {"source.probabilities": N}
