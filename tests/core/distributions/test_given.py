import random

import pytest
import torch

from snnsl_plugin.core.distributions.given import given
from snnsl_plugin.core.distributions.uniform import uniform
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import BadOption


def layers(*sizes: int, excluded: tuple[str, ...] = ()) -> list[Layer]:
    return [
        Layer(str(i), torch.zeros(size), {"mask": torch.ones(size, dtype=torch.bool)}, prunable=str(i) not in excluded)
        for i, size in enumerate(sizes)
    ]


def test_two_layers_by_hand() -> None:
    # odds 1/3 and 1, both times 3: 1 and 3, which is a half and three quarters
    assert given(layers(100, 100), {}, 125, densities={"0": 0.25, "1": 0.5}) == {"0": 50, "1": 75}


def test_at_its_own_budget_every_layer_has_what_is_stated() -> None:
    assert given(layers(7, 9, 11), {}, 3 + 9 + 4, densities={"0": 3 / 7, "1": 1.0, "2": 4 / 11}) == {
        "0": 3, "1": 9, "2": 4,
    }  # fmt: skip


def test_full_layers_stay_full_and_empty_ones_empty_while_the_others_can_make_up_for_it() -> None:
    stated = {"0": 1.0, "1": 0.0, "2": 0.5}
    for budget in (11, 60, 109):
        assert given(layers(10, 50, 100), {}, budget, densities=stated) == {"0": 10, "1": 0, "2": budget - 10}
    assert given(layers(10, 50, 100), {}, 130, densities=stated) == {"0": 10, "1": 20, "2": 100}
    assert given(layers(10, 50, 100), {}, 8, densities=stated) == {"0": 7, "1": 0, "2": 1}


def test_a_sparse_layer_keeps_its_last_weight() -> None:
    assert given(layers(1000, 1000), {}, 10, densities={"0": 0.5, "1": 0.001}) == {"0": 9, "1": 1}


def test_layers_that_are_not_named_share_alike() -> None:
    own = layers(100, 300, 70)
    assert given(own, {}, 123) == uniform(own, {}, 123)


def multiplied(densities: list[float], sizes: list[int], budget: int) -> list[float]:
    """The shares by a fine scan of the factor: slow, obvious, and nothing like the bisection of its logarithm."""
    best: list[float] = []
    low, high = 0.0, 1e9
    for _ in range(40):
        for step in range(11):
            factor = low + (high - low) * step / 10
            odds = [factor * density / (1 - density) for density in densities]
            best = [size * each / (1 + each) for size, each in zip(sizes, odds, strict=True)]
            if sum(best) >= budget:
                low, high = low + (high - low) * max(0, step - 1) / 10, factor
                break
    return best


@pytest.mark.parametrize("seed", range(20))
def test_equals_a_scan_of_the_factor_up_to_rounding(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.randint(50, 2000) for _ in range(4)]
    densities = [draw.choice([0.02, 0.1, 0.1, 0.5, 0.9]) for _ in sizes]
    budget = draw.randint(20, sum(sizes) - 20)
    stated = {str(number): density for number, density in enumerate(densities)}
    counts = given(layers(*sizes), {}, budget, densities=stated)
    for got, want in zip(counts.values(), multiplied(densities, sizes, budget), strict=True):
        assert abs(got - want) < 2  # one by rounding, one that goes to a layer which would have none


def test_excluded_layers_keep_everything() -> None:
    assert given(layers(10, 20, 30, excluded=("1",)), {}, 40, densities={"0": 0.2, "1": 0.0, "2": 0.6}) == {
        "0": 2, "1": 20, "2": 18,
    }  # fmt: skip


@pytest.mark.parametrize("density", [-0.1, 1.5])
def test_a_density_outside_its_range_is_refused_by_its_layer(density: float) -> None:
    with pytest.raises(BadOption, match="that of layer '0'"):
        given(layers(10), {}, 5, densities={"0": density})
