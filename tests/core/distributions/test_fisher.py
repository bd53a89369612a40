import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.core.criteria.fisher import fisher as score
from snnsl_plugin.core.distributions.fisher import fisher
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.testing import slow_keep_top, tied_layer
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner


def test_by_hand() -> None:
    # a: 9, 4, 1; b, small weights of steep slopes: 16, 9; c is excluded
    a = Layer("a", torch.tensor([[3.0, 2.0, 1.0]]), {"mask": torch.ones(1, 3).bool()}, grad_square=torch.ones(1, 3))
    b = Layer(
        "b", torch.tensor([[0.2, 0.1]]), {"mask": torch.ones(1, 2).bool()}, grad_square=torch.tensor([[400.0, 900]])
    )
    c = Layer("c", torch.ones(1, 2), {"mask": torch.ones(1, 2).bool()}, prunable=False)
    assert fisher([a, b, c], {}, 4) == {"a": 1, "b": 1, "c": 2}
    assert fisher([a, b, c], {}, 5) == {"a": 1, "b": 2, "c": 2}
    assert fisher([a, b, c], {}, 6) == {"a": 2, "b": 2, "c": 2}
    faint = Layer("a", a.weight / 1e3, a.state, grad_square=a.grad_square)
    assert fisher([faint, b, c], {}, 5) == {"a": 1, "b": 2, "c": 2}  # no layer is emptied
    assert fisher([faint, b, c], {}, 4) == {"a": 1, "b": 1, "c": 2}


def best_first(losses: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The losses of a layer, flat, with the first of the largest live ones at infinity."""
    numbers = losses.flatten().tolist()
    live = [i for i, lives in enumerate(mask.flatten().tolist()) if lives]
    numbers[max(live, key=lambda i: (numbers[i], -i))] = float("inf")
    return torch.tensor(numbers)


@pytest.mark.parametrize("budget", [1, 40, 100])
def test_equals_one_ranking_of_tied_scores(budget: int) -> None:
    layers = [tied_layer(seed, name=str(seed)) for seed in range(3)]
    losses = torch.cat([best_first(score(layer), layer.mask) for layer in layers])
    live = torch.cat([layer.mask.flatten() for layer in layers])
    kept = slow_keep_top(losses, budget, live).split([layer.weight.numel() for layer in layers])
    assert list(fisher(layers, {}, budget).values()) == [int(part.sum()) for part in kept]


def test_without_squares_says_what_to_do() -> None:
    weight = torch.ones(1, 2)
    with pytest.raises(MissingStatistic, match="layer 'a' has no grad_square"):
        fisher([Layer("a", weight, {"mask": weight.bool()})], {}, 1)


def test_a_pruner_records_what_it_asks_for_and_shares_by_it() -> None:
    model, seen = conv_net(), {}

    def watched(layers, scores, budget):
        seen.update({layer.name: layer.grad_square for layer in layers})
        return fisher(layers, scores, budget)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = DynamicPruner(model, optimizer, criterion="magnitude", distribution=watched, every="2it", until="2it",
                           density=schedules.linear(first=1.0, last=0.5), total_steps=2, sample_every=1)  # fmt: skip
    assert sum(pruner.planned_counts().values()) == 323  # before anything is recorded, each square counts as one
    squares, weights = {}, {}
    for step in range(2):
        reset_(model)
        cross_entropy(model(batch(step)[0]), batch(step)[1]).backward()
        for name in ("0", "4", "7"):
            squares[name] = squares.get(name, 0) + model[int(name)].weight.grad.square() / 2
        optimizer.step()
        weights = {name: model[int(name)].weight.detach().clone() for name in squares}
        pruner.step()
        optimizer.zero_grad()
    assert all(torch.allclose(seen[name], squares[name]) for name in squares)
    every = torch.ones(())
    losses = torch.cat([
        best_first(weights[name].square() * squares[name], every.expand_as(weights[name])) for name in squares
    ])  # fmt: skip
    kept = slow_keep_top(losses, 323).split([weights[name].numel() for name in squares])
    assert pruner.requested == dict(zip(squares, (int(part.sum()) for part in kept), strict=True))
