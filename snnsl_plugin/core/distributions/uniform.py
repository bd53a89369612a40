"""Every layer at the same density."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.distributions._shares import free_budget, in_order, whole
from snnsl_plugin.core.layer import Layer


def uniform(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
    """The budget in proportion to the size of each prunable layer.

    Args:
        layers: all layers, the excluded ones too: they keep everything.
        scores: not used.
        budget: weights to keep over all layers, a count.

    Returns:
        Weights to keep per layer; they sum to the budget.

    Raises:
        BadOption: the budget is less than the excluded layers hold, or more than there is.
    """
    fixed, rest = free_budget(layers, budget)
    sizes = {layer.name: layer.weight.numel() for layer in layers if layer.prunable}
    total = sum(sizes.values())
    shares = {name: rest * size / total for name, size in sizes.items()}
    return in_order(layers, fixed | whole(shares, sizes, rest))
