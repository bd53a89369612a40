"""One ranking over all layers, in which a spike has a price."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.distributions._shares import free_budget, none_emptied
from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import BadOption

#: How often the price is halved or doubled in the search: the last step is a share of 1e-12.
_HALVINGS = 40


def synops(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int, *, share: float = 1.0) -> dict[str, int]:
    """How many live weights of each layer are among the best by score less lambda c, c a weight's SynOps in its layer.

    A density says how many weights stay, and nothing of their spikes: what is kept in a busy layer costs more than in a
    quiet one. Here both are budgeted. With n of N prunable weights to keep, they may cost at most share n / N of the
    SynOps that all N cost together, as measured; lambda is the least price at which they do, found by bisection, and 0
    where they do at no price. Each layer keeps its best weight while there is one for each; but for that, a lambda of 0
    is `global`. c is the mean of the layer's live weights, so that within a layer the rule's criterion chooses as it
    does anyway; what is spent is counted weight by weight for its choice. Where even the highest price does not meet
    the budget, what that spends is the budget: what lives may have nothing cheaper.

    The score should compare over layers, as `fisher` does. A layer that reads real inputs has no SynOps and costs
    nothing. SynOps are those of the training passes since the last update; where nothing is recorded yet (a random
    start, a plan), each weight counts as 1. Prices for resources are an old idea; this budget is our choice.

    Args:
        layers: all layers, the excluded ones too: they keep everything.
        scores: per prunable layer, the weight's shape; larger is better.
        budget: weights to keep over all layers, a count.
        share: SynOps per kept weight at most, as a multiple of the mean over all weights, > 0.

    Returns:
        Weights to keep per layer; they sum to the budget.

    Raises:
        BadOption: a share that is not above 0; or the budget is less than the excluded layers hold, or more than there
            is.
        MissingStatistic: operations were not counted.
    """
    if not (math.isfinite(share) and share > 0):
        raise BadOption(f"share={share}: SynOps per kept weight as a multiple of the mean must be a number above 0")
    _, rest = free_budget(layers, budget)
    prunable = [layer for layer in layers if layer.prunable]
    costs = {layer.name: layer.need("synops").to(layer.weight.device).double() for layer in prunable}
    if rest >= sum(int(layer.mask.count_nonzero()) for layer in prunable):
        return global_(layers, scores, budget)  # all that lives stays
    total = sum(layer.weight.numel() for layer in prunable)
    allowed = share * rest / total * sum(float(cost.sum()) for cost in costs.values())
    running = {layer.name: _running(scores[layer.name], costs[layer.name], layer.mask) for layer in prunable}
    price = {layer.name: _mean(costs[layer.name][layer.mask]) for layer in prunable}
    value, price = _scaled(scores), _scaled(price)

    def counts_at(weight: float) -> dict[str, int]:
        mixed = {name: (1.0 - weight) * value[name] - weight * price[name] for name in costs}
        return global_(layers, none_emptied(layers, mixed), budget)

    def spent(counts: dict[str, int]) -> float:
        return sum(sums[counts[name] - 1] for name, sums in running.items() if counts[name])

    best = global_(layers, none_emptied(layers, scores), budget)
    # lambda is weight / (1 - weight), so that no price is too high to be looked at.
    too_cheap, enough, dearest = 0.0, 1.0, counts_at(1.0)
    if spent(best) <= allowed or spent(best) <= spent(dearest):
        return best
    best = dearest
    for _ in range(_HALVINGS):
        middle = (too_cheap + enough) / 2
        if spent(counts := counts_at(middle)) <= max(allowed, spent(dearest)):
            enough, best = middle, counts
        else:
            too_cheap = middle
    return best


def _running(scores: Tensor, costs: Tensor, mask: Tensor) -> list[float]:
    """What the best, the best two, ... of a layer's live weights cost."""
    best_first = scores[mask].argsort(descending=True, stable=True)
    sums: list[float] = costs[mask][best_first].cumsum(0).tolist()
    return sums


def _mean(costs: Tensor) -> Tensor:
    return costs.mean() if costs.numel() else costs.new_zeros(())


def _scaled(numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float64, the largest of all at 1."""
    largest = max((float(each.abs().max()) for each in numbers.values()), default=0.0) or 1.0
    return {name: each.double() / largest for name, each in numbers.items()}
