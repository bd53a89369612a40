import pytest
import torch

from snnsl_plugin.core.distributions.erk import erk
from snnsl_plugin.core.layer import Layer


def layer(name: str, *shape: int) -> Layer:
    return Layer(name, torch.zeros(shape), {"mask": torch.ones(shape, dtype=torch.bool)})


def test_two_linear_layers_by_hand() -> None:
    # eps (10 + 10) + eps (10 + 30) = 30 -> eps = 1/2: 10 of 100 and 20 of 300
    assert erk([layer("a", 10, 10), layer("b", 10, 30)], {}, 30) == {"a": 10, "b": 20}


def test_a_layer_that_would_exceed_one_becomes_dense_and_leaves_the_equation() -> None:
    # sums 4 and 40; eps = 100/44 gives the first 9.1 > 4 weights; the second has the other 96
    assert erk([layer("a", 2, 2), layer("b", 20, 20)], {}, 100) == {"a": 4, "b": 96}


def search(shapes: list[tuple[int, ...]], budget: int) -> list[float]:
    """The shares by bisection of eps: slow, obvious, and nothing like the loop under test."""
    low, high = 0.0, 1e6
    for _ in range(200):
        eps = (low + high) / 2
        shares = [min(eps * sum(s), float(torch.Size(s).numel())) for s in shapes]
        low, high = (eps, high) if sum(shares) < budget else (low, eps)
    return shares


@pytest.mark.parametrize("budget", [10, 57, 400, 1500, 4000, 7000])
def test_equals_bisection_up_to_rounding(budget: int) -> None:
    shapes = [(8, 1, 3, 3), (16, 8, 3, 3), (4, 16, 1, 1), (10, 64), (64, 80)]
    counts = erk([layer(str(i), *shape) for i, shape in enumerate(shapes)], {}, budget)
    for got, want in zip(counts.values(), search(shapes, budget), strict=True):
        assert abs(got - want) < 1 + 1e-6
