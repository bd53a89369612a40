"""One ranking over all layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from snnsl_plugin.core.distributions._shares import free_budget, in_order, whole
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.masks import keep_top


def global_(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
    """How many live weights of each layer are among the best of all live weights.

    Only live weights are ranked: a dead weight is 0 and would score 0 whatever it was worth. Where the budget exceeds
    the live weights, each layer keeps its live ones and the surplus goes to the dead places in proportion.

    Args:
        layers: all layers, the excluded ones too: they keep everything.
        scores: per prunable layer, the weight's shape; larger is better.
        budget: weights to keep over all layers, a count.

    Returns:
        Weights to keep per layer; they sum to the budget. A layer may be left with none.

    Raises:
        BadOption: the budget is less than the excluded layers hold, or more than there is.
    """
    fixed, rest = free_budget(layers, budget)
    prunable = [layer for layer in layers if layer.prunable]
    live = {layer.name: int(layer.mask.count_nonzero()) for layer in prunable}
    surplus = rest - sum(live.values())
    if surplus >= 0:
        dead = {layer.name: layer.weight.numel() - live[layer.name] for layer in prunable}
        shares = {name: surplus * room / max(1, sum(dead.values())) for name, room in dead.items()}
        extra = whole(shares, dead, surplus)
        return in_order(layers, fixed | {name: live[name] + extra[name] for name in live})
    ranked = torch.cat([scores[layer.name][layer.mask] for layer in prunable])
    kept = torch.split(keep_top(ranked, rest), [live[layer.name] for layer in prunable])
    counts = {layer.name: int(part.count_nonzero()) for layer, part in zip(prunable, kept, strict=True)}
    return in_order(layers, fixed | counts)
