import pytest
import torch

from snnsl_plugin.core.criteria.fisher import fisher
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic


def test_by_hand() -> None:
    weight, squares = torch.tensor([[2.0, -3.0]]), torch.tensor([[0.5, 1.0]])
    layer = Layer("fc", weight, {"mask": weight != 0}, grad_square=squares)
    assert fisher(layer).tolist() == [[2.0, 9.0]]


def test_without_squares_says_what_to_do() -> None:
    with pytest.raises(MissingStatistic, match="has no grad_square"):
        fisher(Layer("fc", torch.ones(1, 1), {"mask": torch.ones(1, 1, dtype=torch.bool)}))
