import pytest
import torch
from torch import Tensor

from snnsl_plugin.core.criteria.lamp import lamp
from snnsl_plugin.core.layer import Layer


def layer(weight: Tensor) -> Layer:
    return Layer("fc", weight, {"mask": weight != 0})


def slow_lamp(weight: Tensor) -> Tensor:
    """Weight by weight, as the paper's equation 1 writes it."""
    squares = [w * w for w in weight.double().flatten().tolist()]
    scores = [each / sum(other for other in squares if other >= each) if each else 0.0 for each in squares]
    return torch.tensor(scores, dtype=torch.float64).view_as(weight)


def test_by_hand() -> None:
    # squares 1, 4, 9, 0: 1 / 14, 4 / 13, 9 / 9
    scores = lamp(layer(torch.tensor([[1.0, -2.0, 3.0, 0.0]])))
    assert scores.flatten().tolist() == pytest.approx([1 / 14, 4 / 13, 1, 0])


def test_equals_the_equation_on_tied_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in ((7, 5), (4, 3, 3, 3)):
        weight = torch.randint(-4, 5, shape, generator=generator).float() / 2
        torch.testing.assert_close(lamp(layer(weight)).double(), slow_lamp(weight), rtol=1e-6, atol=0)


def test_equals_the_authors_sums_where_nothing_ties() -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    squares = weight.flatten().double().square()
    ascending, order = squares.sort()
    smaller = torch.cat([torch.zeros(1, dtype=torch.float64), ascending.cumsum(0)[:-1]])
    expected = torch.empty_like(squares)
    expected[order] = ascending / (squares.sum() - smaller)  # the total less the running sum of what went before
    torch.testing.assert_close(lamp(layer(weight)).double().flatten(), expected, rtol=1e-6, atol=0)


def test_a_layer_of_zeros_scores_zero() -> None:
    assert lamp(layer(torch.zeros(2, 3))).tolist() == [[0.0] * 3] * 2
