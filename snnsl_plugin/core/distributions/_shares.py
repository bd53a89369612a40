"""Whole counts from fractional shares, exact to the last weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import BadOption


def whole(shares: Mapping[str, float], capacity: Mapping[str, int], budget: int) -> dict[str, int]:
    """Rounds shares so that they sum to the budget: all down, then up by largest remainder, ties to the first layer.

    Args:
        shares: wanted weights per layer; their sum is the budget up to rounding.
        capacity: the most each layer can hold.
        budget: what the counts must sum to.

    Raises:
        BadOption: the budget is larger than the capacity.
    """
    if budget > sum(capacity.values()):
        raise BadOption(f"a budget of {budget} weights is more than the {sum(capacity.values())} there are")
    counts = {name: min(math.floor(share), capacity[name]) for name, share in shares.items()}
    while (missing := budget - sum(counts.values())) > 0:
        open_layers = [name for name in counts if counts[name] < capacity[name]]
        # sorted() is stable, so equal remainders go to the earlier layer.
        by_remainder = sorted(open_layers, key=lambda name: counts[name] - shares[name])
        for name in by_remainder[:missing]:
            counts[name] += 1
    return counts


def free_budget(layers: Sequence[Layer], budget: int) -> tuple[dict[str, int], int]:
    """What is left for the prunable layers after the others took all of theirs.

    Returns:
        The counts of the layers that are never pruned, and the rest of the budget.

    Raises:
        BadOption: the layers that are never pruned already exceed the budget.
    """
    fixed = {layer.name: layer.weight.numel() for layer in layers if not layer.prunable}
    rest = budget - sum(fixed.values())
    if rest < 0:
        total = sum(layer.weight.numel() for layer in layers)
        raise BadOption(
            f"density {budget / total:.4g} leaves {budget} weights, but the excluded layers alone hold "
            f"{sum(fixed.values())} ({', '.join(fixed)}): exclude fewer layers or ask for a density of at least "
            f"{sum(fixed.values()) / total:.4g}"
        )
    return fixed, rest


def in_order(layers: Sequence[Layer], counts: Mapping[str, int]) -> dict[str, int]:
    """The counts in the order of the layers."""
    return {layer.name: counts[layer.name] for layer in layers}
