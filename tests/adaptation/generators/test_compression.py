"""Fewer bits: how far a weight may move, and that nothing else changes."""

import pytest
import torch

from acclimate.adaptation.generators.compression import compressed, stored_bytes
from acclimate.adaptation.generators.generator import VARIANTS
from tests.adaptation.tiny_generators import drawn_generators
from tests.adaptation.tiny_nets import CONV

EVERY = pytest.mark.parametrize("name", VARIANTS)


@EVERY
def test_no_weight_moves_by_more_than_half_a_step(name: str) -> None:
    whole = drawn_generators(CONV)[name]
    for key, value in compressed(whole, "int8").weights.items():
        given = whole.weights[key]
        if given.dim() > 1:
            step = given.flatten(1).abs().amax(dim=1) / 127
            assert ((value - given).flatten(1).abs() <= 0.501 * step[:, None] + 1e-12).all()
            assert len(torch.unique(value.flatten(1)[0])) <= 255
    for key, value in compressed(whole, "fp16").weights.items():
        torch.testing.assert_close(value, whole.weights[key], rtol=1e-3, atol=1e-6)


@EVERY
def test_fewer_bits_are_fewer_bytes_and_the_whole_stays_whole(name: str) -> None:
    whole = drawn_generators(CONV)[name]
    sizes = [stored_bytes(whole, precision) for precision in ("fp32", "fp16", "int8")]
    assert sizes[0] == 2 * sizes[1]
    assert sizes[2] < sizes[0]
    assert all(torch.equal(value, whole.weights[key]) for key, value in compressed(whole, "fp32").weights.items())
    assert compressed(whole, "int8").valid_range == whole.valid_range


def test_a_row_of_zeros_stays_zero() -> None:
    whole = drawn_generators(CONV)["mgg"]
    weights = {**whole.weights, "query": torch.zeros_like(whole.weights["query"])}
    from dataclasses import replace

    assert (compressed(replace(whole, weights=weights), "int8").weights["query"] == 0).all()
