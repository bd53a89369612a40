import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnsl_plugin.core.compressibility import pq_index
from snnsl_plugin.core.criteria.magnitude import magnitude
from snnsl_plugin.core.distributions.uniform import uniform
from snnsl_plugin.core.growth.gradient import gradient
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.drop_grow import after_step_, check, drift_, drop_grow
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.core.schedules.linear import linear
from snnsl_plugin.core.update import random_states, update
from snnsl_plugin.errors import BadOption, Disconnected
from snnsl_plugin.testing import slow_drop_grow, tied_layer
from snnsl_plugin.training.pruner import DynamicPruner


def layer(weight: list[float], mask: list[int], grad: list[float]) -> Layer:
    return Layer("fc", torch.tensor([weight]), {"mask": torch.tensor([mask]).bool()}, grad=torch.tensor([grad]))


def masks(layers: list[Layer], progress: float = 0.5, **options: object) -> list[list[int]]:
    states = drop_grow(layers, progress, distribution=uniform, **options)
    return [states[each.name]["mask"].int().flatten().tolist() for each in layers]


def test_rigl_by_hand() -> None:
    # 5 of 8 alive, constant density, swap 0.4: floor(0.4 * 5) = 2 die (|w| 0.1, 0.2), the best gradients grow
    one = layer([0.9, 0.1, 0.0, -0.8, 0.2, 0.7, 0, 0], [1, 1, 0, 1, 1, 1, 0, 0], [0, 0, 0.5, 0, 0.9, 0, 0.1, 0.4])
    got = masks([one], density=constant(value=5 / 8), swap=constant(value=0.4))
    assert got == [[1, 0, 1, 1, 1, 1, 0, 0]]  # the dropped 0.2 has the largest gradient and comes straight back


def test_gmp_by_hand_drops_only() -> None:
    one = layer([0.9, 0.1, 0.3, -0.8], [1, 1, 1, 1], [9, 9, 9, 9])
    assert masks([one], density=linear(first=1.0, last=0.0)) == [[1, 0, 0, 1]]


def test_a_price_shrinks_weights_by_the_rate_times_it_and_not_past_zero() -> None:
    weight = torch.tensor([[1.0, -0.5, 0.125, 0.0]])
    drift_(weight, {}, 0.5, penalty=0.5)
    assert weight.tolist() == [[0.75, -0.25, 0.0, 0.0]]
    drift_(weight, {}, 0.5, penalty=0.0)
    assert weight.tolist() == [[0.75, -0.25, 0.0, 0.0]]


def test_in_a_loop_the_price_is_paid_at_every_step_and_decides_who_stays() -> None:
    # One weight has a gradient that holds the price up, 0.25 a step either way; the other, larger, has none and goes.
    net = torch.nn.Linear(2, 1, bias=False)
    net.weight.data = torch.tensor([[0.5, 1.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.25)
    density = linear(first=1.0, last=0.5)
    pruner = DynamicPruner(
        net, optimizer, density=density, penalty=1.0, every="2it", total_steps=4, until="100%", paths=False
    )
    seen = []
    for _ in range(4):
        (-net.weight[0, 0]).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        seen.append(net.weight[0].tolist())
    assert seen == [[0.5, 0.75], [0.5, 0.5], [0.5, 0.25], [0.5, 0.0]]
    assert pruner.masks["weight"].tolist() == [[True, False]]


def test_a_rising_density_only_grows() -> None:
    one = layer([0.9, 0.0, 0.0, 0.0], [1, 0, 0, 0], [0, 1, 3, 2])
    assert masks([one], density=constant(value=0.75)) == [[1, 0, 1, 1]]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), density=st.floats(0.05, 1.0), swap=st.floats(0.0, 1.0))
def test_equals_the_slow_oracle_on_tied_inputs(seed: int, density: float, swap: float) -> None:
    tied = tied_layer(seed)
    got = drop_grow([tied], 0.3, density=constant(value=density), swap=constant(value=swap), distribution=uniform)[
        tied.name
    ]["mask"]
    n_keep = round(density * tied.weight.numel())
    assert torch.equal(got, slow_drop_grow(tied, magnitude(tied), gradient(tied), n_keep, swap))
    assert int(got.sum()) == n_keep


def test_the_pq_index_decides_how_much_each_layer_exchanges_by_hand() -> None:
    # Sizes 1 and 0 twice have an index of 1/2, of which half is 1 of 4; equal sizes have 0 and exchange nothing; a
    # layer with one of four has 3/4, and the swap of 1/2 is the most.
    halves = layer([1, -1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 5, 6])
    equal = layer([1, -1, 1, -1, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 5, 6])
    single = layer([1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 5, 6])
    names = [Layer(str(i), each.weight, each.state, grad=each.grad) for i, each in enumerate((halves, equal, single))]
    options = {"density": constant(value=4 / 6), "swap": constant(value=0.5)}
    got = masks(names, **options, pq=0.5)
    assert got == [[1, 1, 1, 0, 0, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1]]
    got = masks(names, **options, pq=1.0)
    assert got == [[1, 1, 0, 0, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 1]]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), pq=st.floats(0.1, 3.0), swap=st.floats(0.0, 1.0))
def test_with_pq_it_equals_the_slow_oracle_at_the_layers_own_fraction(seed: int, pq: float, swap: float) -> None:
    tied = tied_layer(seed)
    options = {"density": constant(value=0.5), "distribution": uniform, "swap": constant(value=swap)}
    got = drop_grow([tied], 0.3, **options, pq=pq)[tied.name]["mask"]
    fraction = min(swap, pq * pq_index(tied.weight[tied.mask]))
    n_keep = round(0.5 * tied.weight.numel())
    assert torch.equal(got, slow_drop_grow(tied, magnitude(tied), gradient(tied), n_keep, fraction))


def test_a_pq_that_does_nothing_is_refused() -> None:
    with pytest.raises(BadOption, match="pq is 0: the factor"):
        check(density=constant(value=0.5), swap=constant(value=0.5), pq=0.0)
    with pytest.raises(BadOption, match="pq=1 without a swap"):
        check(density=constant(value=0.5), swap=None, pq=1.0)


@pytest.mark.parametrize("penalty", [-0.1, float("nan"), float("inf")])
def test_a_price_below_zero_or_without_end_is_refused(penalty: float) -> None:
    with pytest.raises(BadOption, match="penalty is"):
        check(density=constant(value=0.5), swap=None, penalty=penalty)


def test_an_excluded_layer_is_left_alone() -> None:
    one, two = tied_layer(0, name="a"), tied_layer(1, name="b")
    full = Layer("b", two.weight, {"mask": torch.ones_like(two.mask)}, prunable=False)
    states = drop_grow([one, full], 1.0, density=constant(value=0.6), distribution=uniform)
    assert bool(states["b"]["mask"].all())
    assert int(states["a"]["mask"].sum()) + full.weight.numel() == round(0.6 * 2 * one.weight.numel())


def test_dead_weights_are_exactly_zero_after_a_step() -> None:
    weight = torch.tensor([[1.0, -2.0]])
    after_step_(weight, {"mask": torch.tensor([[True, False]])})
    assert weight.tolist() == [[1.0, 0.0]]


def test_ranges_are_checked_with_the_value() -> None:
    one = tied_layer()
    with pytest.raises(BadOption, match="density is 1.5"):
        drop_grow([one], 0.0, density=constant(value=1.5))
    with pytest.raises(BadOption, match="swap is -0.1"):
        drop_grow([one], 0.0, density=constant(value=0.5), swap=constant(value=-0.1))


def test_update_counts_what_was_born_and_dropped_and_refuses_an_empty_layer() -> None:
    one = layer([0.9, 0.1, 0.0, 0.0], [1, 1, 0, 0], [0, 0, 1, 0])
    change = update(
        lambda layers, progress: drop_grow(
            layers, progress, density=constant(value=0.5), swap=constant(value=0.5), distribution=uniform
        ),
        [one],
        0.5,
    )
    assert (change.kept, change.born, change.dropped) == ({"fc": 2}, {"fc": 1}, {"fc": 1})
    with pytest.raises(Disconnected, match="layer 'fc' would keep none of its 4 weights"):
        update(lambda layers, progress: {"fc": {"mask": torch.zeros(1, 4, dtype=torch.bool)}}, [one], 0.5)


def test_random_states_meet_the_budget_and_repeat_with_the_seed() -> None:
    def states(seed: int) -> dict:
        return random_states([tied_layer(seed, name="a")], uniform, 100)

    assert int(states(1)["a"]["mask"].sum()) == 100
    assert torch.equal(states(1)["a"]["mask"], states(1)["a"]["mask"])
    assert not torch.equal(states(1)["a"]["mask"], states(2)["a"]["mask"])
