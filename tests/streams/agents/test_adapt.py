"""An output may depend on the event and on what its receipt names, and on nothing else."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from acclimate.streams.agents.adapt import AdaptCore
from acclimate.streams.serving.served import InForce, config_digest, serve
from acclimate.streams.wire.codec import FeatureBatch, encode_features
from acclimate.streams.wire.records import Incoming, header
from tests.support.answers import by_window
from tests.support.delivery import SESSION, feature_record
from tests.support.models import CHANNELS, LENGTH, core, outputs, tiny_bundle, windows
from tests.support.poison import POISON

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"


def incoming(value, key=b"pump-7", offset=0, headers=()):
    return Incoming("plant.features", 2, offset, 1_700_000_000_000, key, value, headers)


def entries(outputs):
    return {
        name: json.dumps(entry, sort_keys=True)
        for output in outputs
        for name, entry in by_window(json.loads(output.value)).items()
    }


@pytest.mark.parametrize("kind", ["conv1d", "mlp"])
def test_a_prediction_fits_its_published_schema(kind, tmp_path):
    x = windows(3)[:, :, : LENGTH if kind == "conv1d" else 1]
    adapt = core(tiny_bundle(tmp_path / kind, kind=kind))
    output = outputs(adapt, [incoming(feature_record("pump-7", 5, x))])[0]
    record = json.loads(output.value)
    schema = json.loads((SCHEMAS / "predictions.v2.json").read_text())
    Draft202012Validator(schema | {"additionalProperties": False}).validate(record)
    assert output.topic == "plant.predictions"
    assert output.key == b"pump-7"
    assert list(by_window(record)) == [f"pump-7/{SESSION}/{seq}" for seq in (5, 6, 7)]
    assert header(output.headers, "ce_id") == record["output_id"].encode()
    assert header(output.headers, "ce_type") == b"acclimate.predictions.v2"


def test_nothing_is_written_of_what_no_code_computes_yet(bundle):
    record = json.loads(outputs(core(bundle), [incoming(feature_record("pump-7", 5, windows(1)))])[0].value)
    assert "doubt" not in record
    assert record["flags"] == {}
    assert record["receipt"].keys() == {
        "bundle", "adapter", "epoch", "mode", "config", "code_contract_version", "engine", "instruction_set"
    }  # fmt: skip


def test_answers_equal_the_engine_on_the_same_windows(bundle):
    x = windows(40, seed=3, scale=2.0)
    expected = bundle.engine().run(x)
    record = json.loads(outputs(core(bundle), [incoming(feature_record("pump-7", 0, x))])[0].value)
    columns = {
        "source.probabilities": expected.source_probabilities,
        "adapted.probabilities": expected.adapted_probabilities,
        "shift.magnitude": expected.magnitude,
        "shift.mean": expected.mean_part,
        "shift.variance": expected.variance_part,
        "shift.layers_mean": expected.shift_mean,
        "shift.layers_variance": expected.shift_variance,
        "distance": expected.distance,
        "gain": expected.gain,
    }
    assert record["class_names"] == ["normal", "imbalance", "looseness", "bearing"]
    assert len(by_window(record)) == 40
    for i, entry in enumerate(by_window(record).values()):
        for name, column in columns.items():
            assert np.float32(entry[name]).tolist() == column[i].tolist(), name
        assert entry["source.labels"] == expected.source_probabilities[i].argmax()
        assert entry["adapted.labels"] == expected.adapted_probabilities[i].argmax()
        adapts = expected.magnitude[i] >= bundle.settings.threshold
        assert entry["answered_by"] == ("leantta" if adapts else "source")
        answer = expected.adapted_probabilities[i] if adapts else expected.source_probabilities[i]
        assert entry["labels"] == answer.argmax()


def test_in_observe_mode_the_source_always_answers_and_adaptation_is_still_logged(bundle):
    x = windows(8, scale=20.0)  # far beyond every threshold
    observed = json.loads(outputs(core(bundle, mode="observe"), [incoming(feature_record("p", 0, x), b"p")])[0].value)
    adapted = json.loads(outputs(core(bundle, mode="always"), [incoming(feature_record("p", 0, x), b"p")])[0].value)
    assert observed["answered_by"] == ["source"] * 8
    assert adapted["answered_by"] == ["leantta"] * 8
    assert observed["adapted"] == adapted["adapted"]
    assert (observed["adapted_by"], adapted["adapted_by"]) == ("leantta", "leantta")
    assert observed["output_id"] != adapted["output_id"]


def test_shuffled_batched_and_single_windows_give_byte_equal_entries(bundle):
    x = windows(1000, seed=5, scale=1.5)
    adapt = core(bundle)
    records = {
        "single": [incoming(feature_record("p", i, x[i : i + 1]), b"p") for i in range(1000)],
        "sixteen": [incoming(feature_record("p", i, x[i : i + 16]), b"p") for i in range(0, 1000, 16)],
        "full": [incoming(feature_record("p", i, x[i : i + 250]), b"p") for i in range(0, 1000, 250)],
    }
    expected = entries(outputs(adapt, records["single"]))
    assert len(expected) == 1000
    rng = np.random.default_rng(0)
    for name, batch in records.items():
        shuffled = [batch[i] for i in rng.permutation(len(batch))]
        one_by_one = [output for record in shuffled for output in outputs(adapt, [record])]
        assert entries(one_by_one) == expected, name
        assert entries(outputs(adapt, shuffled)) == expected, name


def test_a_record_has_the_same_bytes_however_many_windows_the_engine_takes_at_a_time(bundle):
    record = incoming(feature_record("pump-7", 0, windows(70, seed=5, scale=1.5)))
    others = [incoming(feature_record("pump-7", 1000 + i, windows(3, seed=i))) for i in range(5)]
    adapt = core(bundle)
    expected = outputs(adapt, [record])[0]
    for chunk in (1, 7, 64):
        adapt.in_force.stable.engine.chunk = chunk
        assert outputs(adapt, [*others, record])[-1] == expected, chunk


def test_the_same_record_delivered_twice_gives_the_same_id_and_bytes(bundle):
    value = feature_record("pump-7", 5, windows(2))
    first = outputs(core(bundle), [incoming(value, offset=10)])[0]
    again = outputs(core(bundle), [incoming(feature_record("pump-7", 0, windows(9))), incoming(value, offset=99)])[1]
    assert first == again


@pytest.mark.parametrize(
    "change",
    [{"bundle": "1" * 64}, {"adapter": "1" * 64}, {"epoch": 3}, {"config": "1" * 64}, {"code_contract_version": 9},
     {"engine": "onnxruntime 9"}, {"instruction_set": "arm64"}, {"mode": "observe"}, {"adapter_counter": 1},
     {"gate": "distance"}, {"precision": "int8"}, {"placement": "device"}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_the_output_id_changes_with_everything_that_the_receipt_names(bundle, change):
    adapt = core(bundle)
    stable = adapt.in_force.stable
    changed = replace(stable, receipt=stable.receipt.model_copy(update=change))
    other = replace(adapt, in_force=InForce(changed))
    record = incoming(feature_record("pump-7", 5, windows(1)))
    ids = [json.loads(outputs(c, [record])[0].value)["output_id"] for c in (adapt, other)]
    assert ids[0] != ids[1]


def test_during_a_wave_each_device_is_answered_by_its_own_set_as_if_it_were_alone(bundle, tmp_path):
    candidate = serve(tiny_bundle(tmp_path / "candidate", data="newer"), "always", epoch=4)
    both = AdaptCore("plant", InForce(serve(bundle, "always", 4), candidate, "ab" * 8, 0.5), 1_000_000)
    keys = [f"pump-{i}" for i in range(12)]
    records = [incoming(feature_record(key, 5, windows(2, seed=i)), key.encode()) for i, key in enumerate(keys)]
    records.insert(3, incoming(b"noise", b"pump-99"))
    together = outputs(both, records)
    assert [output.value for output in together] == [outputs(both, [record])[0].value for record in records]
    answers = [json.loads(output.value) for output in together if output.topic == "plant.predictions"]
    assert [answer["device"] for answer in answers] == keys
    by = {answer["device"]: answer["receipt"]["bundle"] for answer in answers}
    assert by == {key: both.in_force.served(key).receipt.bundle for key in keys}
    assert set(by.values()) == {bundle.digest, candidate.receipt.bundle}


@pytest.mark.parametrize("event_time_ms", [0, 946_684_799_999, 4_102_444_800_000])
def test_an_implausible_event_time_is_flagged_and_served(bundle, event_time_ms):
    times = [1_700_000_000_000, event_time_ms, 1_700_000_000_001]
    value = json.loads(feature_record("pump-7", 5, windows(3))) | {"event_times_ms": times}
    output = outputs(core(bundle), [incoming(json.dumps(value).encode())])[0]
    record = json.loads(output.value)
    assert record["flags"] == {"event_time_implausible": [1]}
    assert record["event_times_ms"][1] == event_time_ms


def sampled(batch, **said):
    return encode_features(replace(batch, **said))


def seconds_apart(n, spacing_ms=1000, seq=5):
    times = [1_700_000_000_000 + spacing_ms * i for i in range(n)]
    return FeatureBatch("pump-7", SESSION, seq, times, windows(n))


def reasons(outputs):
    return [(header(output.headers, "x-acclimate-reason") or b"answered").decode() for output in outputs]


def test_windows_of_another_rate_become_a_dead_letter_that_says_both_rates(rated):
    record = incoming(sampled(seconds_apart(2), sampling_rate_hz=104.0))
    letter = outputs(core(rated), [record])[0]
    assert header(letter.headers, "x-acclimate-reason") == b"wrong_rate"
    assert header(letter.headers, "__connect.errors.exception.message") == (
        b"the windows were sampled at 104 Hz, the model takes 52 Hz (2 % at most); resample on the device, or train a "
        b"model for this rate"
    )
    assert letter.value == record.value


def test_a_session_with_a_second_rate_is_refused_whatever_the_model_in_force(bundle, rated):
    first = incoming(sampled(seconds_apart(2), sampling_rate_hz=52.0))
    second = incoming(sampled(seconds_apart(2, seq=7), sampling_rate_hz=104.0))
    third = incoming(sampled(seconds_apart(2, seq=9), sampling_rate_hz=52.5))
    adapt = core(bundle)
    assert reasons(outputs(adapt, [first, second, third])) == ["answered", "wrong_rate", "answered"]
    one_by_one = [outputs(adapt, [record])[0] for record in (first, second, third)]  # as after a crash
    assert reasons(one_by_one) == ["answered", "wrong_rate", "answered"]
    later = replace(adapt, in_force=InForce(serve(rated, "always", 2)))
    assert reasons(outputs(later, [second, third])) == ["wrong_rate", "answered"]
    # A refused record says nothing about its session.
    assert reasons(outputs(core(rated), [second, first])) == ["wrong_rate", "answered"]


def test_during_a_wave_a_rate_is_compared_with_the_model_of_the_device(bundle, rated):
    both = AdaptCore("plant", InForce(serve(bundle, "always", 4), serve(rated, "always", 4), "ab" * 8, 0.5), 1_000_000)
    keys = [f"pump-{i}" for i in range(12)]
    batch = seconds_apart(1)
    records = [incoming(sampled(batch, device=key, sampling_rate_hz=104.0), key.encode()) for key in keys]
    by = ["wrong_rate" if both.in_force.served(key) is both.in_force.candidate else "answered" for key in keys]
    assert reasons(outputs(both, records)) == by
    assert set(by) == {"wrong_rate", "answered"}


def test_event_times_of_another_rate_flag_every_window_and_change_the_id(bundle, rated):
    adapt, fast = core(rated), seconds_apart(3, 500)
    first, named = (json.loads(outputs(adapt, [incoming(value)])[0].value) for value in (
        sampled(fast), sampled(fast, step_samples=26),
    ))  # fmt: skip
    assert first["flags"] == {"sampling_rate_implausible": [0, 1, 2]}
    assert named["flags"] == {}
    assert {**first, "flags": {}, "output_id": named["output_id"]} == named
    assert first["output_id"] != named["output_id"]  # equal ids would mean equal bytes
    assert named["output_id"] == json.loads(
        outputs(adapt, [incoming(sampled(fast, sampling_rate_hz=52.0))])[0].value
    )["output_id"]  # fmt: skip
    for value in (sampled(fast), sampled(fast, step_samples=52)):
        unrated = json.loads(outputs(core(bundle), [incoming(value)])[0].value)
        assert unrated["flags"] == {}


def test_tabular_rows_are_answered_by_the_source_and_the_record_says_so(tmp_path):
    bundle = tiny_bundle(tmp_path / "rows", kind="mlp")
    rows = windows(5, scale=30.0)[:, :, :1]
    record = json.loads(outputs(core(bundle), [incoming(feature_record("p", 0, rows), b"p")])[0].value)
    assert record["answered_by"] == ["source"] * 5
    assert [record[name] for name in ("adapted", "adapted_by", "distance", "gain")] == [None] * 4
    assert min(record["shift"]["magnitude"]) > 1


@pytest.mark.parametrize("poison", POISON(CHANNELS, LENGTH), ids=lambda p: p.name)
def test_poison_becomes_a_dead_letter_and_its_neighbours_are_answered(bundle, poison):
    good = incoming(feature_record("pump-7", 5, windows(2)))
    bad = incoming(poison.value, poison.key, offset=41, headers=(("traceparent", b"00-1-2-01"), ("site", b"north")))
    before, letter, after = outputs(core(bundle), [good, bad, good])
    assert before == after
    assert letter.topic == "plant.dlq"
    assert letter.key == poison.key
    assert header(letter.headers, "x-acclimate-reason") == poison.reason.encode()
    assert header(letter.headers, "__connect.errors.topic") == b"plant.features"
    assert header(letter.headers, "__connect.errors.partition") == b"2"
    assert header(letter.headers, "__connect.errors.offset") == b"41"
    assert header(letter.headers, "__connect.errors.stage") == b"decode"
    assert header(letter.headers, "site") == b"north"
    if poison.value is not None and len(poison.value) > 1_048_588:
        assert letter.value == poison.value[:65_536]
        assert header(letter.headers, "x-acclimate-sha256") == hashlib.sha256(poison.value).hexdigest().encode()
    else:
        assert letter.value == poison.value
    assert outputs(core(bundle), [bad])[0] == letter


def test_a_parked_record_ends_in_the_dead_letters_with_its_own_bytes(bundle):
    record = incoming(feature_record("p", 0, windows(1)), b"p", offset=1)
    letter = core(bundle).park(record, "ZeroDivisionError")
    assert header(letter.headers, "x-acclimate-reason") == b"bug"
    assert letter.value == record.value


def test_a_trace_is_handed_on(bundle):
    record = incoming(feature_record("pump-7", 0, windows(1)), headers=(("traceparent", b"00-ab-cd-01"),))
    assert header(outputs(core(bundle), [record])[0].headers, "traceparent") == b"00-ab-cd-01"


def test_the_config_digest_names_mode_and_every_leantta_setting(bundle):
    base = bundle.settings
    digests = {
        config_digest("always", base),
        config_digest("observe", base),
        *(config_digest("always", replace(base, **c)) for c in
          ({"tau": 0.9}, {"lam": 3.0}, {"threshold": 9.0}, {"direction": "source_on_large"},
           {"layers": (True, True)}, {"normalize_by_channels": False})),
    }  # fmt: skip
    assert len(digests) == 8
