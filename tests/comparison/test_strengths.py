"""How much a pruner has to keep: planned where it can be known, searched for where trainings have to tell."""

import math
import random
from collections.abc import Callable

import pytest

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.comparison.entrants import Entrant, available
from snnsl_plugin.comparison.strengths import (
    MOST_RUNS,
    PLAN_TOLERANCE,
    SEARCH_TOLERANCE,
    Search,
    planned,
    planned_share,
)
from snnsl_plugin.comparison.terms import run_recipe, strength_key
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.recipe import assemble
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.load import load

Share = Callable[[float], float]


def searched(share: Share, budget: float, *, first: float | None = None, bounded: bool = True) -> Search:
    """A search that is over."""
    search = Search(budget, budget if first is None else first, bounded=bounded)
    while (value := search.next_value()) is not None:
        assert not bounded or 0 < value < 1
        assert value > 0
        search.tell(value, share(value))
    return search


def met(search: Search) -> bool:
    return search.error() <= SEARCH_TOLERANCE


# ---------------------------------------------------------------------------------------------------------- searched


def test_by_hand_a_share_that_is_the_value_is_met_at_once():
    search = searched(lambda value: value, 0.1)
    assert search.seen == {0.1: 0.1}
    assert search.best == 0.1


def test_by_hand_a_share_that_is_twice_the_value_takes_two_trainings():
    search = Search(0.1, 0.1)
    assert search.next_value() == 0.1
    search.tell(0.1, 0.2)
    assert search.next_value() == pytest.approx(0.05)  # as much too much as the first try was
    search.tell(0.05, 0.1)
    assert search.next_value() is None
    assert (search.best, search.error()) == (0.05, 0.0)


def test_by_hand_a_threshold_goes_up_where_too_much_is_left():
    search = Search(0.1, 0.5, bounded=False)
    search.tell(0.5, 0.4)
    assert search.next_value() == pytest.approx(0.5 * math.exp(0.5), rel=1e-5)
    search = Search(0.1, 0.5, bounded=False)
    search.tell(0.5, 0.04)
    assert search.next_value() == pytest.approx(0.5 * math.exp(-0.5), rel=1e-5)


BUDGETS = (0.3, 0.2, 0.1, 0.05, 0.02)
RISING: dict[str, Share] = {
    "flatter": lambda value: value**0.8,
    "steeper": lambda value: value**2,
    "an input that never goes": lambda value: 0.015 + 0.9 * value,
    "full early": lambda value: min(1.0, 3 * value),
    "a sigmoid": lambda value: 1 / (1 + math.exp(-2 * (math.log(value) + 1))),
}
FALLING: dict[str, Share] = {
    "exponential": lambda value: math.exp(-8 * value),
    "a power": lambda value: 1 / (1 + (value / 0.05) ** 3),
    "gaussian weights": lambda value: math.erfc(value / 0.08),
}


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("course", RISING)
def test_a_share_kept_that_rises_is_met(course, budget):
    assert met(searched(RISING[course], budget))


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("course", FALLING)
def test_a_threshold_under_which_ever_less_is_left_is_met(course, budget):
    assert met(searched(FALLING[course], budget, first=0.1, bounded=False))


def test_a_strength_that_rises_without_bound_is_met_too():
    assert met(searched(lambda value: 1 - math.exp(-value), 0.3, first=0.1, bounded=False))


def test_trainings_that_scatter_by_three_percent_seldom_miss():
    draw = random.Random(0)

    def noisy(share: Share) -> Share:
        return lambda value: share(value) * math.exp(draw.gauss(0, 0.03))

    found = [searched(noisy(course), budget) for course in RISING.values() for budget in BUDGETS for _ in range(40)]
    assert sum(not met(search) for search in found) / len(found) < 0.05
    assert sum(len(search.seen) for search in found) / len(found) < 4


def test_one_that_leaves_nothing_beyond_some_value_comes_back():
    search = searched(lambda value: max(0.0, 1 - value / 0.3), 0.5, first=0.4, bounded=False)
    assert met(search)


@pytest.mark.parametrize("budget", [0.02, 0.05, 0.1])
@pytest.mark.parametrize("edge", [0.37, 0.4, 0.44])
def test_a_threshold_at_which_the_network_falls_apart_is_not_the_end(budget, edge):
    # As STDS on N-MNIST: the share falls smoothly, and a layer is cut off soon behind the budget.
    search = searched(
        lambda value: 0.0 if value > edge else 0.6 * math.exp(-9.4 * value), budget, first=0.1, bounded=False
    )
    assert met(search)
    assert search.seen[search.best] > 0.0


def test_where_nothing_was_left_the_way_back_is_half_of_it_at_most():
    search = Search(0.02, 0.2, bounded=False)
    search.tell(0.2, 0.08)
    search.tell(0.8, 0.0)
    assert search.next_value() == pytest.approx(0.2 * math.exp(0.5), rel=1e-5)  # as if 0.8 had not been tried
    search.tell(0.4, 0.079)
    # So flat a course would lead far beyond 0.8.
    assert search.next_value() == pytest.approx(math.sqrt(0.4 * 0.8), rel=1e-5)


def test_a_flat_share_is_given_up_and_the_nearest_kept():
    search = searched(lambda value: 0.5, 0.1)
    assert len(search.seen) == MOST_RUNS
    assert not met(search)
    values = list(search.seen)
    assert values == sorted(values, reverse=True)  # less and less: a share kept cannot fall by keeping more


def test_a_budget_that_nobody_can_meet_is_missed_within_the_most_runs():
    search = searched(lambda value: max(0.4, value), 0.05)
    assert not met(search)
    assert len(search.seen) <= MOST_RUNS
    assert search.error() == pytest.approx(7.0)


def test_a_network_that_never_fires_is_a_miss_and_no_crash():
    search = searched(lambda value: 0.0, 0.1)
    assert not met(search)
    assert search.error() == pytest.approx(1.0)


def test_a_tiny_threshold_is_not_rounded_away():
    search = searched(lambda value: math.exp(-value * 1e7), 0.1, first=1e-7, bounded=False)
    assert met(search)


def test_the_best_is_the_nearest_and_not_the_last():
    search = Search(0.1, 0.1)
    for value, share in ((0.1, 0.2), (0.05, 0.12), (0.04, 0.05)):
        search.tell(value, share)
    assert search.best == 0.05
    assert search.error() == pytest.approx(0.2)


# ----------------------------------------------------------------------------------------------------------- planned


def test_by_hand_a_plan_that_is_the_value_is_taken_as_it_is():
    asked: list[float] = []

    def share(value: float) -> float:
        asked.append(value)
        return value

    found = planned("density", 0.1, share)
    assert (found.key, found.value, found.found_by, found.missed, found.runs) == ("density", 0.1, "plan", False, 0)
    assert asked == [0.1]


def test_by_hand_channels_leave_the_square_of_their_share():
    found = planned("channels", 0.09, lambda value: value**2)
    assert found.value == pytest.approx(0.3, abs=0.001)
    assert not found.missed


def test_a_share_that_nobody_can_plan_is_no_plan():
    assert planned("density", 0.1, lambda value: None) is None


def test_a_plan_goes_up_from_where_no_channel_is_left():
    def share(value: float) -> float:
        if value < 0.25:
            raise BadOption("no channel is left")
        return value**2

    found = planned("channels", 0.1, share)
    assert found.value == pytest.approx(math.sqrt(0.1), rel=PLAN_TOLERANCE)
    assert not found.missed


def test_where_the_budget_lies_below_what_can_be_left_the_plan_is_the_least_and_missed():
    def share(value: float) -> float:
        if value < 0.5:
            raise BadOption("no channel is left")
        return value**2

    found = planned("channels", 0.05, share)
    assert found.value == pytest.approx(0.5, abs=1e-3)
    assert found.missed


def test_a_share_that_comes_in_steps_is_planned_at_the_nearest_one():
    # Eight channels: shares (k / 8)^2. Nearest to 0.1 are 0.0625 and 0.140625.
    found = planned("channels", 0.1, lambda value: (max(1, round(8 * value)) / 8) ** 2)
    assert max(1, round(8 * found.value)) == 2
    assert found.missed


def test_what_raises_for_every_value_raises():
    def share(value: float) -> float:
        raise NothingMatched("no layer is called 'fc9'")

    with pytest.raises(NothingMatched, match="fc9"):
        planned("density", 0.1, share)


def test_a_mistake_of_the_program_is_not_taken_for_too_few_channels():
    def share(value: float) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        planned("density", 0.1, share)


# --------------------------------------------------------------------------------------- planned on the digits


@pytest.fixture(scope="module")
def task():
    return load("digits", ["train.epochs=4", "data.encoder.T=1"])


@pytest.fixture(scope="module")
def parts(task):
    return assemble.data(task)


@pytest.fixture(scope="module")
def recipe(task):
    terms = Compare(densities=[0.1], every="4it")
    return lambda entrant, value: run_recipe(task, terms, entrant, seed=0, strength=value)


@pytest.mark.parametrize("name", ["snnsl.gmp", "snnsl.set", "nni.level", "nni.spiking_dynamic", "torch.global_l1"])
def test_a_density_is_planned_as_it_is_written(name, recipe, parts):
    entrant = available()[name]
    found = planned("density", 0.1, lambda value: planned_share(recipe(entrant, value), parts))
    assert found.value == pytest.approx(0.1, rel=PLAN_TOLERANCE)
    assert not found.missed


def test_a_threshold_cannot_be_planned(recipe, parts):
    assert planned_share(recipe(available()["snnsl.stds"], 0.1), parts) is None


def test_the_dense_network_keeps_all(recipe, parts):
    assert planned_share(recipe(available()["dense"], None), parts) == 1.0


@pytest.mark.parametrize(
    "name", ["nni.l1_norm", "nni.fpgm", "torch_pruning.magnitude", "torch_pruning.bn_scale", "torch_pruning.spiking"]
)
def test_whole_channels_are_planned_to_leave_the_budget_on_live_paths(name, recipe, parts):
    entrant = available()[name]
    key = strength_key(entrant)
    found = planned(key, 0.1, lambda value: planned_share(recipe(entrant, value), parts))
    assert not found.missed
    assert planned_share(recipe(entrant, found.value), parts) == pytest.approx(0.1, rel=SEARCH_TOLERANCE)
    assert found.value > 0.1  # a layer loses inputs as well, so more of its channels may stay


def test_the_planned_share_of_channels_worked_by_hand(recipe, parts):
    """Half of the channels of both convolutions and of the hidden layer stay; the last layer keeps its ten."""
    entrant = available()["torch_pruning.magnitude"]
    made = assemble.assemble(recipe(entrant, 0.5), parts)
    shapes = {name: tuple(layer.weight.shape) for name, layer in weight_layers(made.model).items()}
    assert list(shapes.values()) == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64 * 4), (10, 128)]
    left = 16 * 1 * 9 + 32 * 16 * 9 + 64 * (32 * 4) + 10 * 64
    assert planned_share(recipe(entrant, 0.5), parts) == left / sum(math.prod(shape) for shape in shapes.values())


def test_masks_of_channels_are_planned_like_cuts(recipe, parts):
    cut = planned_share(recipe(available()["torch_pruning.magnitude"], 0.5), parts)
    masked = planned_share(recipe(available()["nni.l1_norm"], 0.5), parts)
    assert masked == pytest.approx(cut)


def test_a_plan_is_the_same_whatever_was_planned_before(recipe, parts):
    entrant = Entrant("mine", {"type": "torch_pruning.base", "importance": {"name": "random"}})
    one = planned_share(recipe(entrant, 0.4), parts)
    planned_share(recipe(entrant, 0.2), parts)
    assert planned_share(recipe(entrant, 0.4), parts) == one
