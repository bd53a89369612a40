"""Layers at stated densities, all scaled alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from snnsl_plugin.core.distributions._shares import free_budget, in_order, scaled, whole
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import BadOption


def given(
    layers: Sequence[Layer], scores: dict[str, Tensor], budget: int, *, densities: Mapping[str, float] | None = None
) -> dict[str, int]:
    """The odds of all layers, density / (1 - density), times one number, such that the budget is met.

    Where the stated densities amount to the budget they are met to the last weight. At any other budget a sparse layer
    moves in proportion, and one that is stated as full or as empty stays so while the others can make up for it. Each
    layer above 0 keeps at least one weight while any has more than one. An evolution hands on the densities of a
    network this way (our choice: in proportion alone, a first layer that is to be dense would not stay so).

    Args:
        layers: all layers, the excluded ones too: they keep everything.
        scores: not used.
        budget: weights to keep over all layers, a count.
        densities: by layer name, each in [0, 1]; 1 for layers not named, so that naming none is `uniform`.

    Returns:
        Weights to keep per layer; they sum to the budget.

    Raises:
        BadOption: a density outside [0, 1]; the budget is less than the excluded layers hold, or more than there is.
    """
    stated = densities or {}
    for name, density in stated.items():
        if not 0.0 <= density <= 1.0:
            raise BadOption(f"densities: that of layer {name!r} is {density:.6g}, and a density lies in [0, 1]")
    fixed, rest = free_budget(layers, budget)
    sizes = {layer.name: layer.weight.numel() for layer in layers if layer.prunable}
    wanted = {name: stated.get(name, 1.0) for name in sizes}
    counts = whole(scaled(wanted, sizes, rest), sizes, rest)
    alive = [name for name, density in wanted.items() if density > 0]
    for name in [name for name in alive if counts[name] == 0]:
        giver = max(counts, key=lambda each: counts[each])
        if counts[giver] > 1:
            counts[giver], counts[name] = counts[giver] - 1, 1
    return in_order(layers, fixed | counts)
