import random
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snnsl_plugin.core.evolution import Fitness, fittest, heir_scores, mutated
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.errors import BadOption


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---------------------------------------------------------------------------------------------- densities per layer


def test_a_mutation_by_hand() -> None:
    drawn = (0.5 * torch.randn(2, generator=stream(3), dtype=torch.float64)).exp().tolist()
    odds = [drawn[0] * 10 / 30, drawn[1] * 30 / 30]

    def kept(factor: float) -> list[float]:
        return [size * factor * each / (1 + factor * each) for size, each in zip((40, 60), odds, strict=True)]

    # one factor more for both, such that 40 weights are kept
    factor = min((number / 10000 for number in range(1, 100000)), key=lambda each: abs(sum(kept(each)) - 40))
    first = round(kept(factor)[0])
    assert first != 10
    assert mutated({"a": 10, "b": 30}, {"a": 40, "b": 60}, stream(3), spread=0.5) == {"a": first, "b": 40 - first}


def test_without_spread_and_loss_it_is_the_parent() -> None:
    counts, sizes = {"a": 0, "b": 7, "c": 12}, {"a": 9, "b": 10, "c": 12}
    assert mutated(counts, sizes, stream(), spread=0.0, blocks=[["b"]]) == counts


def test_a_lost_block_leaves_its_weights_to_the_others() -> None:
    counts, sizes = {"a": 10, "b": 20, "c": 10}, {"a": 100, "b": 100, "c": 100}
    assert mutated(counts, sizes, stream(), spread=0.0, blocks=[["b"]], loss=1.0) == {"a": 20, "b": 0, "c": 20}


def test_a_block_is_spared_where_the_others_could_not_hold_the_total() -> None:
    assert mutated({"a": 10, "b": 20}, {"a": 25, "b": 100}, stream(), spread=0.0, blocks=[["b"]], loss=1.0) == {
        "a": 10, "b": 20,
    }  # fmt: skip


def test_a_block_is_lost_as_often_as_the_chance_says() -> None:
    counts, sizes = {"a": 50, "b": 20}, {"a": 100, "b": 100}
    lost = sum(
        mutated(counts, sizes, stream(seed), spread=0.2, blocks=[["b"]], loss=0.3)["b"] == 0 for seed in range(1000)
    )
    assert 250 < lost < 350


def test_a_full_layer_can_change() -> None:
    found = {mutated({"a": 100, "b": 100}, {"a": 100, "b": 1000}, stream(s), spread=2.0)["a"] for s in range(20)}
    assert len(found) > 1


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10**6))
def test_the_total_is_exact_and_nothing_leaves_its_bounds(seed: int) -> None:
    draw = random.Random(seed)
    sizes = {str(number): draw.randint(1, 500) for number in range(draw.randint(1, 6))}
    counts = {name: draw.choice([0, 1, size, draw.randint(0, size)]) for name, size in sizes.items()}
    counts = {name: min(kept, sizes[name]) for name, kept in counts.items()}
    blocks = [[name] for name in sizes if draw.random() < 0.4]
    spread, loss = draw.choice([0.0, 0.2, 3.0]), draw.choice([0.0, 0.5, 1.0])
    found = mutated(counts, sizes, stream(seed), spread=spread, blocks=blocks, loss=loss)
    assert list(found) == list(counts)
    assert sum(found.values()) == sum(counts.values())
    assert all(0 <= found[name] <= sizes[name] for name in sizes)
    assert all(found[name] == 0 for name, kept in counts.items() if kept == 0)
    assert all(found[name] > 0 for name, kept in counts.items() if kept and [name] not in blocks)
    assert found == mutated(counts, sizes, stream(seed), spread=spread, blocks=blocks, loss=loss)


def test_another_seed_is_another_mutation() -> None:
    counts, sizes = {"a": 100, "b": 300}, {"a": 1000, "b": 1000}
    assert len({mutated(counts, sizes, stream(seed), spread=0.2)["a"] for seed in range(10)}) > 5


@pytest.mark.parametrize("options", [{"spread": -0.1}, {"spread": 0.1, "loss": 1.5}])
def test_what_is_out_of_range_is_refused(options) -> None:
    with pytest.raises(BadOption, match=r"a spread is at least 0, and a chance lies in \[0, 1\]"):
        mutated({"a": 1}, {"a": 2}, stream(), **options)


# --------------------------------------------------------------------------------------------------------- the mask

MASK = torch.tensor([[True, False, True], [False, True, False]])
WEIGHT = torch.tensor([[0.5, 0.0, -2.0], [0.0, 1.0, 0.0]])


def test_fewer_are_the_largest_weights_as_many_are_the_mask_and_more_are_the_mask_grown() -> None:
    scores = heir_scores(MASK, WEIGHT, stream())
    assert keep_top(scores, 1).tolist() == [[False, False, True], [False, False, False]]
    assert keep_top(scores, 2).tolist() == [[False, False, True], [False, True, False]]
    assert keep_top(scores, 3).equal(MASK)
    for more in (4, 5, 6):
        grown = keep_top(scores, more)
        assert int(grown.sum()) == more
        assert bool((grown | ~MASK).all())


def test_what_grows_is_random_and_seeded() -> None:
    grown = [tuple(keep_top(heir_scores(MASK, WEIGHT, stream(seed)), 4).flatten().tolist()) for seed in range(60)]
    assert len(set(grown)) == 3  # three places are free for one
    assert grown[0] == tuple(keep_top(heir_scores(MASK, WEIGHT, stream(0)), 4).flatten().tolist())


def test_all_exchanged_is_none_of_the_parents_while_there_is_room() -> None:
    scores = heir_scores(MASK, WEIGHT, stream(), exchange=1.0)
    assert keep_top(scores, 3).equal(~MASK)
    assert bool(keep_top(scores, 6).all())


@pytest.mark.parametrize("exchange", [0.0, 0.1, 0.5, 1.0])
def test_as_many_are_exchanged_as_the_share_says_rounded_down(exchange: float) -> None:
    drawn = torch.randint(0, 3, (20, 30), generator=stream(5))
    mask, weight = drawn == 0, (drawn == 0) * torch.randint(-2, 3, (20, 30), generator=stream(6)).float()  # tied
    kept = int(mask.sum())
    heir = keep_top(heir_scores(mask, weight, stream(7), exchange=exchange), kept)
    assert int(heir.sum()) == kept
    assert int((mask & ~heir).sum()) == int(exchange * kept)


def test_a_layer_without_a_weight_grows_at_random() -> None:
    nothing = torch.zeros(4, 5)
    assert int(keep_top(heir_scores(nothing > 0, nothing, stream()), 7).sum()) == 7


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(BadOption, match=r"exchange is 1.5"):
        heir_scores(MASK, WEIGHT, stream(), exchange=1.5)


# -------------------------------------------------------------------------------------------------------- the choice


def test_accuracy_decides_then_synops_then_the_first() -> None:
    few = {0: Fitness(0.8, 1.0), 1: Fitness(0.9, 9.0), 2: Fitness(0.9, 7.0), 3: Fitness(0.9, 7.0)}
    assert fittest(few) == 2
    for number in combinations(few, 2):
        assert fittest({each: few[each] for each in reversed(number)}) == fittest({each: few[each] for each in number})


def test_nobody_is_refused() -> None:
    with pytest.raises(BadOption, match="every candidate has failed"):
        fittest({})


def test_the_largest_are_inherited_also_beside_a_much_larger_one():
    weight = 0.05 * torch.randn(400, 400, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 5.0
    mask = torch.ones_like(weight, dtype=torch.bool)
    kept = keep_top(heir_scores(mask, weight, stream()), 80_000)
    assert torch.equal(kept, keep_top(weight.abs(), 80_000))
