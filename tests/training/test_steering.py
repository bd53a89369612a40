import math

import pytest

from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.budget import Budget
from snnsl_plugin.training.rounds import Rounds
from snnsl_plugin.training.steering import Steering, least_density, steering
from snnsl_plugin.training.timetable import Timetable

WHEN = Timetable(start=0, until=100, every=10)


def made(amount: float = 20.0, last: float = 0.1, first: float = 1.0, floor: float = 1e-3) -> Steering:
    budget = Budget("synops", amount, lambda: ())
    return Steering(budget, schedules.linear(first=first, last=last), WHEN, floor)


def test_an_update_is_the_one_worked_by_hand() -> None:
    steer = made()
    assert [steer.density(p) for p in (0.0, 0.5, 1.0)] == [1.0, 0.55, 0.1]
    # At density 1/2 it costs 100 where 20 may be spent, so the end lies at 1/10, as guessed.
    assert steer.look(100.0, 0.0, 0.5, 50)
    assert steer.density(1.0) == pytest.approx(0.1)
    # 110 of which no mask changes 10, and 20 allowed: 1/2 * 10 / 100; half way it counts for half, on a log scale.
    assert steer.look(110.0, 10.0, 0.5, 50)
    assert steer.density(1.0) == pytest.approx(math.sqrt(0.1 * 0.05))
    assert steer.density(0.5) == pytest.approx(1.0 + (math.sqrt(0.1 * 0.05) - 1.0) / 2)
    assert steer.density(0.0) == 1.0


def test_the_power_is_learned_from_two_densities_that_are_apart() -> None:
    steer = made()
    steer.look(100.0, 0.0, 0.4, 90)
    steer.look(25.0, 0.0, 0.2, 100)  # a half of the density, a quarter of the cost
    assert steer.density(1.0) == pytest.approx(0.2 * (20 / 25) ** 0.5)
    steer.look(24.0, 0.0, 0.199, 110)  # too near to tell
    assert steer.density(1.0) == pytest.approx(0.199 * (20 / 24) ** 0.5)


@pytest.mark.parametrize("power", [0.6, 1.0, 2.0, 3.5])
def test_any_cost_that_grows_with_the_density_is_met(power: float) -> None:
    steer, density = made(amount=70.0, last=0.3), 1.0
    for step in range(10, 200, 10):
        if (step <= 100 or steer.due(step)) and steer.look(10.0 + 1000.0 * density**power, 10.0, density, step):
            density = steer.density(WHEN.progress(step))
    assert 10.0 + 1000.0 * density**power == pytest.approx(70.0, rel=0.005)


def test_after_the_ramp_masks_rest_within_half_a_percent_and_exchange_nothing() -> None:
    steer = made()
    swap = steer.swap(schedules.constant(value=0.3))
    assert steer.look(25.0, 0.0, 0.1, 100)
    assert swap(1.0) == 0.3
    assert [step for step in range(90, 131) if steer.due(step)] == [110, 120, 130]
    assert not steer.look(20.09, 0.0, 0.1, 110)
    assert not steer.look(19.91, 0.0, 0.1, 120)
    assert steer.look(20.2, 0.0, 0.1, 130)
    assert swap(1.0) == 0.0


def test_the_end_stays_between_one_weight_a_layer_and_all() -> None:
    steer = made(floor=0.05)
    assert least_density({"a": 10, "b": 30, "c": 60}, ["a", "c"]) == 0.32
    steer.look(1e6, 0.0, 0.1, 100)
    assert steer.density(1.0) == 0.05
    steer.look(0.0, 0.0, 0.1, 100)
    assert steer.density(1.0) == 1.0


def test_a_constant_density_moves_as_a_whole() -> None:
    steer = made(first=0.2, last=0.2)
    steer.look(40.0, 0.0, 0.2, 100)
    assert [steer.density(p) for p in (0.0, 0.5, 1.0)] == [0.1, 0.1, 0.1]


def test_it_goes_on_from_its_state() -> None:
    one, other = made(), made()
    one.look(100.0, 0.0, 0.4, 90)
    one.look(25.0, 0.0, 0.2, 100)
    other.load_state_dict(one.state_dict())
    one.look(24.0, 0.0, 0.199, 110)
    other.look(24.0, 0.0, 0.199, 110)
    assert one.state_dict() == other.state_dict()
    assert one.density(0.7) == other.density(0.7)


def test_what_cannot_be_steered_is_refused() -> None:
    budget = Budget("connections", 10)
    with pytest.raises(BadOption, match="that of rule 'stds' is an outcome"):
        steering(budget, "stds", {}, WHEN, 0.1)
    with pytest.raises(BadOption, match="rule 'lth' rewinds the"):
        steering(budget, "lth", {"density": schedules.linear(first=1.0, last=0.1)}, Rounds(0, 100, 10), 0.1)
    with pytest.raises(BadOption, match="needs a density schedule to start from"):
        steering(budget, "drop_grow", {"density": 0.1}, WHEN, 0.1)
