"""Erdos-Renyi kernel: small layers denser than large ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.distributions._shares import free_budget, in_order, whole
from snnsl_plugin.core.layer import Layer


def erk(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
    """density_l = min(1, eps sum(shape_l) / prod(shape_l)), with eps such that the budget is met.

    The Erdos-Renyi kernel of RigL (Evci et al. 2020, section 3), re-solved at each budget. A layer whose density would
    exceed 1 becomes dense and leaves the equation, as in the authors' code.

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
    wanted = {layer.name: float(sum(layer.weight.shape)) for layer in layers if layer.prunable}
    shares: dict[str, float] = {}
    left = float(rest)
    while wanted:
        eps = left / sum(wanted.values())
        full = [name for name, raw in wanted.items() if eps * raw >= sizes[name]]
        if not full:
            shares |= {name: eps * raw for name, raw in wanted.items()}
            break
        for name in full:
            shares[name] = float(sizes[name])
            left -= sizes[name]
            del wanted[name]
    return in_order(layers, fixed | whole({name: shares[name] for name in sizes}, sizes, rest))
