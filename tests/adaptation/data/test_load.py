"""Selection of rows: what is taken, in which order, and which wrong options and files are refused by name."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.adaptation.data.load import load, load_labelled
from acclimate.adaptation.data.npz_file import read_arrays
from acclimate.adaptation.data.selectors import match_rows, parse_integers, parse_selector, summarise_values
from acclimate.adaptation.errors import ConfigError, DataError

SHARED = Path(__file__).parents[3].parent / "shared/data"


def write_npz(path: Path, **changes: Any) -> Path:
    """Twelve rows of 2x4 windows: devices 1, 2, 3 interleaved; labels 0, 1, 2; time running backwards."""
    rows = 12
    arrays: dict[str, Any] = {
        "X": np.arange(rows * 8, dtype=np.float32).reshape(rows, 2, 4),
        "y": np.repeat([0, 1, 2, 0], 3),
        "device": np.tile([1, 2, 3], 4).astype(np.int16),
        "site": np.tile(["north", "south", "north"], 4),
        "t": np.arange(rows)[::-1].astype(np.int32),
        "part": np.repeat([0, 1], 6),
        "one": np.zeros(rows, dtype=np.int64),
    }
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "rig.npz")


def test_rows_of_a_stream_keep_their_stored_order_and_groups_lie_together(npz: Path) -> None:
    data = load(npz, source="device=1", target="device=2-3")
    assert data.target is not None
    assert data.target.rows.tolist() == [1, 4, 7, 10, 2, 5, 8, 11]
    assert data.target.groups.tolist() == ["2"] * 4 + ["3"] * 4
    assert [(name, part.start, part.stop) for name, part in data.target.streams()] == [("2", 0, 4), ("3", 4, 8)]
    stored = np.load(npz)["X"]
    np.testing.assert_array_equal(data.target.windows, stored[data.target.rows])
    assert data.target.windows.dtype == np.float32
    assert (data.channels, data.length, data.classes, data.group_key) == (2, 4, 3, "device")


def test_order_sorts_within_a_group_only(npz: Path) -> None:
    data = load(npz, source="device=1", target="device=2,3", order=["t"])
    assert data.target is not None
    assert data.target.rows.tolist() == [10, 7, 4, 1, 11, 8, 5, 2]


def test_order_by_several_keys_takes_the_first_as_most_significant(npz: Path) -> None:
    data = load(npz, source="device=1", target="device=2", order=["part", "t"])
    assert data.target is not None
    assert data.target.rows.tolist() == [4, 1, 10, 7]


def test_a_tie_in_the_order_names_the_first_tied_rows(npz: Path) -> None:
    with pytest.raises(ConfigError, match=r"rows 0 and 3 of device=1 are tied"):
        load(npz, source="device=1", target="device=2", order=["part"])


def test_conditions_on_different_keys_must_all_hold(npz: Path) -> None:
    data = load(npz, source="device=1", target="site=north;device=2-3")
    assert data.target is not None
    assert data.target.rows.tolist() == [2, 5, 8, 11]
    assert data.group_key == "site"


def test_channels_are_taken_in_the_order_given_and_the_target_may_use_another_sensor(npz: Path) -> None:
    stored = np.load(npz)["X"]
    swapped = load(npz, source="device=1", channels=[1, 0])
    np.testing.assert_array_equal(swapped.source.windows, stored[swapped.source.rows][:, ::-1])
    other = load(npz, source="device=1", target="device=1", channels=[0], target_channels=[1])
    assert other.target is not None
    np.testing.assert_array_equal(other.source.windows[:, 0], stored[other.source.rows][:, 0])
    np.testing.assert_array_equal(other.target.windows[:, 0], stored[other.target.rows][:, 1])


def test_label_minus_one_is_dropped_and_counted(tmp_path: Path) -> None:
    labels = np.repeat([0, 1, -1, 0], 3)
    data = load(write_npz(tmp_path / "rig.npz", y=labels), source="device=1", target="device=2-3")
    assert data.target is not None
    assert (len(data.source), data.source.dropped) == (3, 1)
    assert (len(data.target), data.target.dropped) == (6, 2)
    assert data.classes == 2


def test_feature_rows_become_windows_of_length_one(tmp_path: Path) -> None:
    data = load(write_npz(tmp_path / "rig.npz", X=np.ones((12, 5))), source="device=1", transform="signedlog")
    assert data.source.windows.shape == (4, 5, 1)
    assert (data.transform, data.target) == ("signedlog", None)


def test_names_from_the_description_are_used_only_where_their_number_fits(npz: Path) -> None:
    described = {
        "channels": ["axial", "radial"],
        "class_names": ["a", "b"],
        "y_names": ["p", "q", "r"],
        "sampling_rate": 50,
        "window": {"length": 4, "stride": 2},
    }
    npz.with_suffix(".json").write_text(json.dumps(described))
    data = load(npz, source="device=1", channels=[1])
    assert data.channel_names == ("radial",)
    assert data.class_names == ("p", "q", "r")
    assert (data.sampling_rate_hz, data.step_samples) == (50.0, 2)
    other = {"channels": "two of them", "class_names": ["a", "b"], "window": {"length": 99, "stride": 2}}
    npz.with_suffix(".json").write_text(json.dumps(other))
    data = load(npz, source="device=1")
    assert (data.sampling_rate_hz, data.step_samples) == (None, None)
    assert data.channel_names == ("channel 0", "channel 1")
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"source": "gadget=1"}, r"no array 'gadget'; it has: X, device, one, part, site, t, y"),
        ({"source": "device=1", "label": "truth"}, r"no array 'truth'"),
        ({"source": "device=1", "order": ["u"]}, r"no array 'u'"),
        ({"source": "X=1"}, r"X holds the windows"),
        ({"source": "device=1,7"}, r"device=7 matches no row; values of 'device': 1-3"),
        ({"source": "site=1"}, r"site=1 matches no row; values of 'site': north, south"),
        ({"source": "device=2;site=north"}, r"is empty.*'device': 1-3; 'site': north, south"),
        ({"source": "device=1-2", "target": "device=2-3"}, r"share 4 rows \(first: row 1\)"),
        ({"source": "device=1", "channels": [0, 2]}, r"--channels: the file has channels 0 to 1, got 2"),
        ({"source": "device=1", "channels": [0, 0]}, r"comes twice"),
        ({"source": "device=1", "target": "device=2", "target_channels": [1]}, r"names 1 channels, the source has 2"),
        ({"source": "device=1", "target_channels": [1]}, r"needs --target"),
        ({"source": "device=1", "transform": "sqrt"}, r"'sqrt' is unknown; choose one of none, signedlog"),
        ({"source": "device=1", "label": "one"}, r"one class only"),
        ({"source": "part=0", "target": "part=1"}, r"the target has y=2, which the source \(labels 0-1\) never shows"),
        ({"source": "part=1"}, r"labels 0, 2 but none of 1"),
        ({"source": "t=6-11", "target": "t=3-5"}, r"makes 3 streams of one window each; name the devices' key"),
    ],
)
def test_a_wrong_option_is_refused_with_what_the_file_has(npz: Path, options: dict[str, Any], text: str) -> None:
    if "3-5" in str(options.get("target")):
        write_npz(npz, y=np.tile([0, 1], 6))
    with pytest.raises(ConfigError, match=text):
        load(npz, **options)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"y": np.full(12, -2)}, "label_out_of_range"),
        ({"y": np.full(12, 10**6)}, "label_out_of_range"),
        ({"y": np.full(12, 2**64 - 5, dtype=np.uint64)}, "label_out_of_range"),
        ({"y": np.linspace(0, 2, 12)}, "wrong_label_type"),
        ({"y": np.zeros(11, dtype=np.int64)}, "wrong_shape"),
        ({"device": np.zeros((12, 1), dtype=np.int64)}, "wrong_shape"),
        ({"X": np.zeros(12)}, "wrong_shape"),
        ({"X": np.zeros((12, 0, 4))}, "wrong_shape"),
        ({"X": np.array(["a"] * 12)[:, None]}, "wrong_shape"),
        ({"X": np.full((12, 2, 4), np.nan)}, "not_finite"),
        ({"X": np.full((12, 2, 4), 1e300)}, "not_finite"),
        ({"y": np.array([0, 1, {}] * 4, dtype=object)}, "bad_array"),
    ],
)
def test_wrong_content_is_a_data_error_with_a_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = write_npz(tmp_path / "rig.npz", **changes)
    with pytest.raises(DataError) as caught:
        load(path, source="part=0-1" if "device" in changes else "device=1", group="device")
    assert caught.value.reason == reason
    assert str(path) in str(caught.value)


def test_nan_outside_the_selection_does_no_harm_and_inside_names_its_row(npz: Path) -> None:
    windows = np.zeros((12, 2, 4), dtype=np.float32)
    windows[4, 1, 3] = np.inf
    write_npz(npz, X=windows)
    assert len(load(npz, source="device=1").source) == 4
    with pytest.raises(DataError, match=r"1 of the source's windows .* first rows: 4"):
        load(npz, source="device=2")


def test_a_file_that_is_missing_or_no_npz_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no file"):
        load(tmp_path / "none.npz", source="device=1")
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(DataError, match="is not an"):
        load(tmp_path / "text.npz", source="device=1")


def test_an_array_that_declares_terabytes_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**9, 1000)})
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("X.npy", header.getvalue())
    with pytest.raises(DataError, match="declares 4000000000000 bytes"):
        read_arrays(tmp_path / "bomb.npz", ["X"])


def test_a_truncated_array_is_refused(npz: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(npz) as archive, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        for name in archive.namelist():
            content = archive.read(name)
            cut.writestr(name, content[:-10] if name == "X.npy" else content)
    with pytest.raises(DataError, match="array 'X' cannot be read"):
        load(tmp_path / "cut.npz", source="device=1")


def test_a_description_that_is_not_json_is_refused(npz: Path) -> None:
    npz.with_suffix(".json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        load(npz, source="device=1")


@pytest.mark.parametrize(
    "text", ["", "device", "=1", "device=", "device=1,,2", "device=5-1", "1x=2", "device=1;", "device=1;device=2"]
)
def test_a_broken_selector_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_selector(text)


@pytest.mark.parametrize("text", ["", "a", "-1", "3-1", "1,1", "0-2,1", "99999999999"])
def test_a_broken_list_of_channels_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_integers(text)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 20)), min_size=1, max_size=6))
def test_a_selector_matches_exactly_the_union_of_its_ranges(ranges: list[tuple[int, int]]) -> None:
    text = "k=" + ",".join(f"{low}-{low + extent}" if extent else str(low) for low, extent in ranges)
    values = np.arange(-60, 80)
    expected = [value for value in values.tolist() if any(low <= value <= low + extent for low, extent in ranges)]
    selector = parse_selector(text)
    assert values[match_rows(selector, {"k": values})].tolist() == expected
    assert parse_selector(str(selector)) == selector


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused_as_a_configuration_error(text: str) -> None:
    try:
        selector = parse_selector(text)
    except ConfigError:
        return
    assert parse_selector(str(selector)) == selector


@given(st.text(alphabet="0123456789-,. ", max_size=12))
def test_any_list_of_channels_is_parsed_or_refused(text: str) -> None:
    try:
        numbers = parse_integers(text)
    except ConfigError:
        return
    assert numbers
    assert all(number >= 0 for number in numbers)


def test_long_lists_of_values_are_cut_in_error_texts() -> None:
    assert summarise_values(np.arange(0, 100, 2), limit=3) == "0, 2, 4, ... (up to 98)"


def test_selections_on_the_recordings_give_the_known_counts() -> None:
    chest = load(SHARED / "chest_har.npz", label="y4", source="device=1-5", target="device=6-12")
    stored = np.load(SHARED / "chest_har.npz")
    assert chest.target is not None
    kept = (stored["y4"] >= 0) & (stored["device"] >= 6)
    np.testing.assert_array_equal(chest.target.rows, np.flatnonzero(kept))
    assert chest.target.dropped == int(((stored["y4"] == -1) & (stored["device"] >= 6)).sum())
    assert chest.class_names == ("0", "1", "2", "3")
    assert chest.channel_names == ("acc_x", "acc_y", "acc_z")
    gas = load(SHARED / "gas_drift.npz", source="batch=1-2", target="batch=3-6", transform="signedlog")
    assert (gas.channels, gas.length, gas.class_names[0]) == (128, 1, "Ethanol")
    bearing = load(SHARED / "cwru_bearing.npz", source="load=0", target="load=1", channels=[0], target_channels=[1])
    assert (bearing.channels, bearing.channel_names, bearing.group_key) == (1, ("DE accelerometer",), "load")
    with pytest.raises(ConfigError, match="are tied"):
        load(SHARED / "cwru_bearing.npz", source="load=0", order=["t"])


def test_rows_to_judge_by_need_not_show_every_class(npz: Path):
    found = load_labelled(npz, where="device=2", label="y")
    assert found.labels.tolist() == [0, 1, 2, 0]
    assert found.rows.tolist() == [1, 4, 7, 10]
    one = load_labelled(npz, where="part=1", label="y", group="device", channels=(1,))
    assert set(one.labels) == {0, 2}
    assert [name for name, _ in one.streams()] == ["1", "2", "3"]
    assert one.windows.shape == (6, 1, 4)
    whole = load_labelled(npz)
    assert (len(whole), [name for name, _ in whole.streams()]) == (12, ["all"])


def test_rows_to_judge_by_must_be_new_to_the_model(npz: Path):
    assert len(load_labelled(npz, where="device=2-3", apart_from=("device=1",))) == 8
    with pytest.raises(ConfigError, match=r"4 of the 8 rows .* the model was trained on"):
        load_labelled(npz, where="device=2-3", apart_from=("device=1-2",))
    with pytest.raises(ConfigError, match="has no array 'z'"):
        load_labelled(npz, where="z=1")
