"""The tensor half of the search for live connections."""

import pytest
import torch

from snnsl_plugin.core.paths import any_per_channel, connections, drawn_where, reach


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_zeros_stay_zero_and_everything_else_is_drawn_anew():
    x = torch.tensor([0.0, -3.0, 1e-30, 1e30])
    drawn = drawn_where(x, generator())
    assert drawn[0] == 0
    assert bool(((drawn[1:] >= 0.1) & (drawn[1:] < 0.9)).all())


def test_gradients_are_drawn_anew_where_they_are_not_zero():
    x = torch.ones(4, requires_grad=True)
    reach(x, generator()).backward(torch.tensor([0.0, 1e-35, -2.0, 1e20]))
    assert x.grad[0] == 0
    assert bool(((x.grad[1:] >= 0.1) & (x.grad[1:] < 0.9)).all())


def test_the_same_seed_draws_the_same_numbers():
    x = torch.ones(3, 5)
    assert torch.equal(reach(x, generator()), reach(x, generator()))


@pytest.mark.parametrize("depth", [1, 200])
def test_nothing_vanishes_or_explodes_with_depth(depth):
    g = generator()
    x = start = torch.rand(8, generator=g).requires_grad_()
    for _ in range(depth):
        x = reach((torch.ones(8, 8) * 1e-3) @ x, g)
    x.sum().backward()
    assert bool((x > 0.05).all())
    assert bool((start.grad > 0).all())


def test_a_channel_counts_if_any_of_its_entries_is_not_zero():
    x = torch.zeros(2, 3, 4, 4)
    x[1, 2, 3, 0] = -1
    assert any_per_channel(x, 1).tolist() == [False, False, True]
    assert any_per_channel(x, -3).tolist() == [False, False, True]
    assert any_per_channel(torch.tensor([0.0, 2.0]), -1).tolist() == [False, True]


def test_connections_are_counted_over_all_masks():
    assert connections([torch.ones(2, 2, dtype=torch.bool), torch.tensor([False, True])]) == 5
    assert connections([]) == 0
