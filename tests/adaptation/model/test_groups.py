"""One pass over several batches equals one pass after the other."""

import pytest
import torch

from acclimate.adaptation.model.groups import by_group, group_statistics
from acclimate.adaptation.model.network import Network, by_batch
from acclimate.adaptation.model.spec import NetworkSpec
from tests.adaptation.methods.numpy_net import shifted
from tests.adaptation.tiny_nets import SPECS, settled


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("each", [1, 4])
def test_groups_are_strangers_to_each_other(spec: NetworkSpec, each: int) -> None:
    network, batches = Network(settled(spec)[0]), [shifted(spec, each, seed) for seed in range(3)]
    together = network.forward(torch.cat(batches), normalise=by_group(3)).logits
    apart = torch.cat([network.forward(batch, normalise=by_batch).logits for batch in batches])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_statistics_are_of_each_group_and_none_of_single_values() -> None:
    x = torch.tensor([[1.0], [3.0], [10.0], [10.0]])
    mean, var = group_statistics(x, 2) or (x, x)
    assert (mean.tolist(), var.tolist()) == ([[2.0], [10.0]], [[1.0], [0.0]])
    assert group_statistics(x, 4) is None
