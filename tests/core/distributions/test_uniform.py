import pytest
import torch

from snnsl_plugin.core.distributions.uniform import uniform
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import BadOption


def layer(name: str, *shape: int, prunable: bool = True) -> Layer:
    return Layer(name, torch.zeros(shape), {"mask": torch.ones(shape, dtype=torch.bool)}, prunable)


def test_shares_in_proportion_and_gives_the_odd_weight_to_the_largest_remainder() -> None:
    assert uniform([layer("a", 2, 5), layer("b", 3, 5)], {}, 8) == {"a": 3, "b": 5}  # 3.2 and 4.8


def test_equal_remainders_go_to_the_first_layer() -> None:
    assert uniform([layer("a", 1, 5), layer("b", 1, 5)], {}, 5) == {"a": 3, "b": 2}


def test_an_excluded_layer_keeps_everything_and_counts() -> None:
    assert uniform([layer("a", 2, 5, prunable=False), layer("b", 3, 5)], {}, 12) == {"a": 10, "b": 2}


def test_a_budget_below_the_excluded_layers_says_which_and_how_much() -> None:
    with pytest.raises(BadOption, match=r"leaves 9 weights, but the excluded layers alone hold 10 \(a\)"):
        uniform([layer("a", 2, 5, prunable=False), layer("b", 3, 5)], {}, 9)
