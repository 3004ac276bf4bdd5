"""The graph of an MGG's step, on ONNX Runtime, against torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from acclimate.adaptation.generators.export_mgg import export_mgg
from acclimate.adaptation.generators.generator import VARIANTS
from acclimate.adaptation.generators.mgg import Mgg, MggSettings, moments_start, moments_step
from tests.adaptation.on_onnx_runtime import answers
from tests.adaptation.tiny_generators import disturbed

MGGS = [name for name, settings in VARIANTS.items() if isinstance(settings, MggSettings)]


@pytest.mark.parametrize("name", MGGS)
def test_three_steps_of_an_mgg_are_torch_s(name: str) -> None:
    mgg = Mgg(replace(VARIANTS[name], alpha=0.02))  # type: ignore[arg-type]
    mgg.load_state_dict(disturbed(mgg, 1, 0.3))
    mgg.requires_grad_(False)
    runner, p = export_mgg(mgg, 11), torch.randn(11, generator=torch.Generator().manual_seed(0))
    moments, memory = moments_start((11,)), mgg.start(11)
    state = {"coordinates": p, **moments, **memory}
    for seed in range(3):
        gradient = torch.randn(11, generator=torch.Generator().manual_seed(seed + 1)) * 10**seed
        found = answers(runner, {**state, "gradient": gradient})
        moments, x = moments_step(moments, gradient)
        u, memory = mgg(x, memory)
        p = p - 0.02 * u
        for key, value in {"coordinates": p, **moments, **memory}.items():
            np.testing.assert_allclose(found[f"{key}_new"], value.numpy(), atol=1e-4, rtol=1e-4, err_msg=key)
        state = {key.removesuffix("_new"): value for key, value in found.items()}


def test_equal_generators_give_equal_files() -> None:
    mgg = Mgg(MggSettings())
    assert export_mgg(mgg, 11) == export_mgg(mgg, 11)
