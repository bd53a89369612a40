import itertools
from functools import partial

import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.core.distributions._shares import none_emptied
from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.distributions.synops import synops
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.testing import slow_keep_top, tied_layer
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner


def layer(name: str, cost: float, size: int = 3) -> Layer:
    weight = torch.ones(1, size)
    return Layer(name, weight, {"mask": weight.bool()}, synops=torch.full((1, size), cost, dtype=torch.float64))


def cost_of(layers: list[Layer], scores: dict[str, torch.Tensor], counts: dict[str, int]) -> float:
    """What the best of each layer cost, weight by weight."""
    return sum(
        float(each.synops[slow_keep_top(scores[each.name], counts[each.name], each.mask)].sum()) for each in layers
    )


def test_by_hand() -> None:
    layers = [layer("busy", 10.0), layer("quiet", 2.0)]
    scores = {"busy": torch.tensor([[6.0, 5.0, 4.0]]), "quiet": torch.tensor([[3.0, 2.0, 1.0]])}
    # all six cost 36, so three may cost 18: busy, quiet, quiet are 14; two busy ones would be 22
    assert synops(layers, scores, 3) == {"busy": 1, "quiet": 2}
    assert synops(layers, scores, 3, share=22 / 18) == {"busy": 2, "quiet": 1}
    assert synops(layers, scores, 4, share=2.0) == global_(layers, scores, 4) == {"busy": 3, "quiet": 1}
    assert synops(layers, scores, 3, share=2.0) == {"busy": 2, "quiet": 1}  # no layer is emptied
    assert synops(layers, scores, 3, share=0.01) == {"busy": 1, "quiet": 2}  # there is no cheaper one then
    assert synops(layers, scores, 1) == {"busy": 1, "quiet": 0}
    assert synops(layers, scores, 6) == {"busy": 3, "quiet": 3}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.5, 0.8, 1.0, 1.3])
def test_equals_the_least_of_all_prices_that_meets_the_budget(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    layers = [
        layer(name, float(cost), 8) for name, cost in zip("abcd", torch.rand(4, generator=generator), strict=True)
    ]
    scores = {each.name: (torch.rand(1, 8, generator=generator) * 6).round() for each in layers}  # they tie
    best_of_each = [(float(scores[each.name].max()), float(each.synops[0, 0]), each.name) for each in layers]
    flat = [(float(s), float(each.synops[0, 0]), each.name) for each in layers for s in scores[each.name][0]]
    allowed = share * 12 / 32 * sum(cost for _, cost, _ in flat)
    turns = {(a[0] - b[0]) / (a[1] - b[1]) for a, b in itertools.combinations(flat, 2) if a[1] != b[1]}
    others = flat.copy()
    for each in best_of_each:
        others.remove(each)
    prices = [0.0, *(turn * (1 + 1e-6) for turn in sorted(turns) if turn > 0)]
    for price in prices:
        best = best_of_each + sorted(others, key=lambda each: -(each[0] - price * each[1]))[:8]
        if sum(cost for _, cost, _ in best) <= allowed:
            break
    expected = {name: sum(each[2] == name for each in best) for name in "abcd"}
    assert synops(layers, scores, 12, share=share) == expected


@pytest.mark.parametrize("seed", range(4))
def test_what_it_spends_is_allowed_or_no_more_than_without_a_price(seed: int) -> None:
    layers = [tied_layer(seed + i, name=str(i), shape=(4, 3 + i, 3, 3)) for i in range(3)]
    scores = {each.name: each.weight.abs() for each in layers}
    total, live = (sum(int(numbers.sum()) for numbers in each) for each in (
        (torch.ones_like(each.weight) for each in layers), (each.mask for each in layers)))  # fmt: skip
    whole = sum(float(each.synops.sum()) for each in layers)
    for budget in (1, total // 10, total // 3, live - 1, live, total - 1, total):
        free = global_(layers, none_emptied(layers, scores), budget)
        without = cost_of(layers, scores, free) if budget <= live else 0.0
        for share in (0.3, 0.6, 1.0, 9.0):
            counts = synops(layers, scores, budget, share=share)
            assert sum(counts.values()) == budget
            if budget <= live:
                spent = cost_of(layers, scores, counts)
                assert spent <= share * budget / total * whole or spent <= without
                assert without > share * budget / total * whole or spent == without


def test_what_cannot_be_is_refused() -> None:
    for share in (0.0, -1.0, float("nan")):
        with pytest.raises(BadOption, match="share="):
            synops([layer("a", 1.0)], {"a": torch.ones(1, 3)}, 2, share=share)
    bare = Layer("a", torch.ones(1, 3), {"mask": torch.ones(1, 3).bool()})
    with pytest.raises(MissingStatistic, match="layer 'a' has no synops"):
        synops([bare], {"a": torch.ones(1, 3)}, 2)


def test_a_pruner_keeps_within_its_synops_where_global_does_not() -> None:
    spent = {}
    for distribution in (global_, partial(synops, share=0.6)):
        model, seen = conv_net(), {}

        def watched(layers, scores, budget, distribution=distribution, seen=seen):
            seen.update({each.name: each.need("synops") for each in layers})
            return distribution(layers, scores, budget)

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        pruner = DynamicPruner(model, optimizer, distribution=watched, every="3it", until="3it", total_steps=3,
                               density=schedules.linear(first=1.0, last=0.4), sample_every=1)  # fmt: skip
        for step in range(3):
            reset_(model)
            cross_entropy(model(batch(step)[0]), batch(step)[1]).backward()
            optimizer.step()
            pruner.step()
            optimizer.zero_grad()
        assert pruner.density == round(0.4 * 646) / 646
        whole = sum(float(each.sum()) for each in seen.values())
        kept = sum(float(seen[name][pruner.masks[f"{name}.weight"]].sum()) for name in seen)
        spent[distribution is global_] = kept / whole / pruner.density
    assert spent[False] <= 0.6 < spent[True]
