"""Figures of a report against numbers worked out by hand."""

import json

from acclimate.streams.audit.join import Answer, Published, join
from acclimate.streams.audit.summary import latency_figures, summarise
from tests.support.answers import SESSION, receipt, record, two_devices, window


def test_accuracy_is_counted_per_device_and_over_all_windows() -> None:
    report = summarise(two_devices())
    assert report["accuracy"] == {"source": 0.5, "adapted": 0.5, "answered": 0.5}
    a, b = report["per_device"]
    assert a["accuracy"] == {"source": 0.25, "adapted": 0.75, "answered": 0.5}
    assert b["accuracy"] == {"source": 1.0, "adapted": 0.0, "answered": 0.5}
    assert (a["answered_by"], b["answered_by"]) == ({"source": 2, "leantta": 2}, {"source": 1, "leantta": 1})


def test_a_rung_that_nobody_knows_is_counted_by_its_name() -> None:
    entries = [window(0, 1, 1, 3.0, rung="dreams"), window(0, 0, 0, 2.0, rung="dreams"), window(1, 1, 1, 0.5)]
    value = json.dumps(record("a", 0, entries, receipt("a" * 64), rung="dreams")).encode()
    answer = Answer.parse(0, 0, 0, value)
    assert answer is not None
    report = summarise(join([Published("a", SESSION, 0, (0, 1, 2))], [], [answer], [], {0: 1, 1: 1, 2: 1}))
    assert report["answered_by"] == report["per_device"][0]["answered_by"] == {"dreams": 2, "source": 1}
    assert report["adapted_by"] == {"dreams": 3}


def test_shift_is_summarised_and_exactly_one_is_not_above_one() -> None:
    shift = summarise(two_devices())["per_device"][0]["shift"]
    # magnitudes 0.5, 0.9, 1.0, 3.0: median between 0.9 and 1.0; 95 % lies 0.85 of the way from 1.0 to 3.0
    assert shift == {"median": 0.95, "p95": 2.7, "share_above_1": 0.25}


def test_harmed_and_helped_devices_are_named() -> None:
    report = summarise(two_devices())
    assert report["harmed_devices"] == {"adapted": ["b"], "answered": ["b"]}
    assert report["helped_devices"] == {"adapted": ["a"], "answered": ["a"]}
    assert report["worst_device"] in ("a", "b")


def test_throughput_runs_from_the_first_input_to_the_last_output() -> None:
    # six windows from 1,000 ms to 2,000 ms
    assert summarise(two_devices())["throughput_windows_per_s"] == 6.0


def test_latency_quantiles_count_windows() -> None:
    # four windows took 500 ms, two took 900 ms
    found = latency_figures(two_devices(), 50.0)
    assert found == {"p50": 500.0, "p90": 900.0, "p99": 900.0, "max": 900, "rate_windows_per_s": 50.0, "windows": 6}


def test_nothing_answered_gives_no_figures_and_no_division_by_zero() -> None:
    nothing = join([Published("a", SESSION, 0, (0, 1))], [], [], [], {0: 0, 1: 0})
    report = summarise(nothing)
    assert (report["windows"], report["lost"], report["per_device"], report["worst_device"]) == (2, 2, [], None)
    assert report["accuracy"] == {"source": None, "adapted": None, "answered": None}
    assert report["throughput_windows_per_s"] is None
    assert latency_figures(nothing, None) is None
