"""A generator that is saved and loaded draws on as if nothing had happened."""

import torch

from acclimate.adaptation.state.random_state import random_start, resumed


def test_draws_go_on_where_the_state_stands_and_the_global_generator_does_not_move() -> None:
    before = torch.get_rng_state()
    whole = torch.rand(10, generator=resumed(random_start(5)))
    first = resumed(random_start(5))
    head = torch.rand(4, generator=first)
    tail = torch.rand(6, generator=resumed(first.get_state().clone()))
    assert torch.equal(torch.cat((head, tail)), whole)
    assert torch.equal(torch.get_rng_state(), before)
