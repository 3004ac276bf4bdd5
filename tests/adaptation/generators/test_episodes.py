"""Episodes: drawn by number, from one group each, in order or not, and shifted by the tuning half alone."""

import numpy as np
import pytest

from acclimate.adaptation.data.corruptions import EVALUATION
from acclimate.adaptation.errors import DataError
from acclimate.adaptation.generators import episodes as module
from acclimate.adaptation.generators.episodes import Episodes, Recordings, part_groups, stretches, unshifted_streams


def recordings(groups: int = 6, each: int = 40) -> Recordings:
    """Return windows whose every sample is the number of the window, counted over all groups."""
    count = groups * each
    windows = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, 3, 16)).copy()
    return Recordings(windows, np.arange(count) % 4, np.repeat([f"g{i}" for i in range(groups)], each))


def test_an_episode_depends_on_seed_and_number_alone() -> None:
    source = recordings()
    first = Episodes(source, source.windows, 1).draw(range(5), 10)
    again = Episodes(source, source.windows, 1).draw([3, 4], 10)
    assert (first[0][3:] == again[0]).all()
    assert (first[1][3:] == again[1]).all()
    assert not (Episodes(source, source.windows, 2).draw([3], 10)[0] == again[0][:1]).all()


def test_an_episode_is_one_group_in_order_or_shuffled_and_a_fifth_is_as_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = []

    def leave(windows: np.ndarray, kind: str, severity: float, *_args: object, **_kwargs: object) -> np.ndarray:
        used.append((kind, severity))
        return windows

    monkeypatch.setattr(module, "corrupt", leave)
    source = recordings()
    windows, labels = Episodes(source, source.windows, 0).draw(range(400), 12)
    number = windows[:, :, 0, 0].numpy().astype(int)
    assert (source.labels[number] == labels.numpy()).all()
    assert all(len(set(source.groups[rows])) == 1 for rows in number)
    in_order = np.array([((np.diff(rows) == 1) | (np.diff(rows) == -39)).all() for rows in number])
    assert 0.4 < in_order.mean() < 0.6
    assert all(len(set(rows)) == 12 for rows in number)
    assert 0.7 < len(used) / 400 < 0.9
    assert {part for kind, _ in used for part in kind.split("+")}.isdisjoint(EVALUATION)
    assert min(severity for _, severity in used) >= 1
    assert max(severity for _, severity in used) <= 5


def test_more_windows_than_a_group_has_come_from_it_again() -> None:
    source = recordings(groups=2, each=5)
    windows, labels = Episodes(source, source.windows, 0).draw(range(8), 20)
    assert windows.shape == (8, 20, 3, 16)
    assert labels.shape == (8, 20)


def test_groups_that_decide_when_to_stop_are_not_learned_from() -> None:
    taught, judged = part_groups(recordings(), 0)
    assert set(taught.groups).isdisjoint(judged.groups)
    assert len(taught.windows) + len(judged.windows) == 240


def test_a_single_group_is_parted_in_time() -> None:
    source = recordings(groups=1)
    taught, judged = part_groups(source, 0)
    assert judged.windows[:, 0, 0].min() > taught.windows[:, 0, 0].max() - 4  # the end of every class
    assert len(judged.windows) == 8


def test_a_source_of_one_window_per_class_is_refused() -> None:
    source = recordings(groups=1, each=4)
    with pytest.raises(DataError, match="too small"):
        part_groups(source, 0)


def test_unshifted_streams_are_every_device_as_recorded_and_then_shuffled() -> None:
    source = recordings(groups=3)
    windows, labels = unshifted_streams(source, 0, 4)
    number = windows[:, :, 0, 0].numpy().astype(int)
    assert number.shape == (6, 40)
    assert (source.labels[number] == labels.numpy()).all()
    assert (number[:3] == np.arange(120).reshape(3, 40)).all()
    assert (np.sort(number[3:]) == number[:3]).all()
    assert not (number[3:] == number[:3]).all(axis=1).any()
    assert (unshifted_streams(source, 0, 4)[0] == windows).all()
    assert not (unshifted_streams(source, 1, 4)[0] == windows).all()


def test_of_many_devices_sixteen_are_streamed_spread_over_all() -> None:
    windows, _ = unshifted_streams(recordings(groups=50), 0, 4)
    device = windows[:, 0, 0, 0].numpy().astype(int) // 40
    assert len(set(device[:16])) == 16
    assert (device[0], device[15]) == (0, 9)  # first and last by name
    assert (device[16:] == device[:16]).all()


def test_stretches_go_round_where_a_recording_is_shorter() -> None:
    assert stretches(3, 4).tolist() == [0, 1, 2, 0] * 10
    rows = stretches(100, 10)
    assert (rows == np.arange(100)).all()
