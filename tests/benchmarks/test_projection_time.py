"""The table of times: every optimizer really steps, and ratios are of what they say."""

import torch

from acclimate.adaptation.model.spec import NetworkSpec
from benchmarks.projection_time import _STEPS, markdown, medians

TINY = NetworkSpec("mlp", 3, 1, 2, (4,))


def test_every_optimizer_is_timed_on_the_same_batches() -> None:
    found = medians(TINY, steps=2, batch=4)
    assert set(found) == {"AdamW", "SPD", "FTP", "TPGM"}
    assert all(seconds > 0 for seconds in found.values())


def test_ratios_are_those_of_the_columns() -> None:
    page = markdown({"net": {"AdamW": 0.010, "SPD": 0.011, "FTP": 0.0112, "TPGM": 0.020}})
    assert page.splitlines()[2] == "| net | 10.00 ms | 11.00 ms | 11.20 ms | 20.00 ms | 1.12 | 0.56 |"


def test_a_step_moves_the_network() -> None:
    windows, labels = torch.randn(4, 3, 1), torch.tensor([0, 1, 0, 1])
    for name, make in _STEPS.items():
        take = make(TINY)
        model = next(cell.cell_contents for cell in take.__closure__ if hasattr(cell.cell_contents, "features"))
        before = [value.detach().clone() for value in model.parameters()]
        take(windows, labels)
        take(windows, labels)
        moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
        assert any(moved), name
