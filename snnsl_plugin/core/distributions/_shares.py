"""Whole counts from fractional shares, exact to the last weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

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


def scaled(densities: Mapping[str, float], sizes: Mapping[str, int], budget: int) -> dict[str, float]:
    """Shares by which the odds d / (1 - d) of all densities are multiplied by one number, such that they sum up.

    A full layer stays full and an empty one empty, while the budget allows: full ones share what is less than they
    hold, and empty ones what no other layer can take.

    Args:
        densities: by layer name, each in [0, 1].
        sizes: all weights of each of these layers.
        budget: what the shares sum to, up to rounding; at most the sum of the sizes.
    """
    full = [name for name, density in densities.items() if density == 1.0]
    empty = [name for name, density in densities.items() if density == 0.0]
    between = {name: density for name, density in densities.items() if 0.0 < density < 1.0}
    held, room = sum(sizes[name] for name in full), sum(sizes[name] for name in between)
    if budget <= held:
        return dict.fromkeys(densities, 0.0) | {name: budget * sizes[name] / held for name in full}
    left = max(0, budget - held - room)
    shares = {name: float(sizes[name]) for name in full}
    shares |= {name: left * sizes[name] / sum(sizes[each] for each in empty) for name in empty}
    if left or budget == held + room:
        return shares | {name: float(sizes[name]) for name in between}
    low, high = -100.0, 100.0  # the logarithm of the number
    for _ in range(128):
        factor = math.exp((low + high) / 2)
        found = {name: sizes[name] * factor * d / (1.0 - d + factor * d) for name, d in between.items()}
        low, high = ((low + high) / 2, high) if held + sum(found.values()) < budget else (low, (low + high) / 2)
    return shares | found


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


def none_emptied(layers: Sequence[Layer], scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same scores, but that the best live weight of each prunable layer comes before all others.

    Through a layer without any connection nothing passes, whatever the others are worth.
    """
    lifted = {}
    for layer in layers:
        if layer.prunable:
            own = scores[layer.name].clone(memory_format=torch.contiguous_format)
            if bool(layer.mask.any()) and not bool(own.isnan().any()):  # NaN is told by whoever ranks
                own.view(-1)[own.masked_fill(~layer.mask, -math.inf).argmax()] = math.inf
            lifted[layer.name] = own
    return lifted


def in_order(layers: Sequence[Layer], counts: Mapping[str, int]) -> dict[str, int]:
    """The counts in the order of the layers."""
    return {layer.name: counts[layer.name] for layer in layers}
