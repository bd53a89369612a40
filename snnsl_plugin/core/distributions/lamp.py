"""One ranking over all layers, of weights measured against their own layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.criteria.lamp import lamp as score
from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.layer import Layer


def lamp(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
    """How many live weights of each layer are among the best by LAMP's score (Lee et al. 2021).

    It shares the budget alone: within a layer the criterion of the rule chooses. No layer loses its largest weight
    before all others are down to theirs.

    Args:
        layers: all layers, the excluded ones too: they keep everything.
        scores: not used.
        budget: weights to keep over all layers, a count.

    Returns:
        Weights to keep per layer; they sum to the budget.

    Raises:
        BadOption: the budget is less than the excluded layers hold, or more than there is.
    """
    return global_(layers, {layer.name: score(layer) for layer in layers if layer.prunable}, budget)
