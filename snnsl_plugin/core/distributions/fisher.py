"""One ranking over all layers, by what removing a weight costs the loss."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.criteria.fisher import fisher as score
from snnsl_plugin.core.distributions._shares import none_emptied
from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.layer import Layer


def fisher(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
    """How many live weights of each layer are among the best by w^2 E[g^2] / 2 (Theis et al. 2018).

    Magnitudes of two layers cannot be compared, losses can, so this shares the budget; within a layer the criterion of
    the rule chooses. That the two may differ is our choice, and so is that each layer keeps its best weight while the
    budget has one for each. Where nothing is recorded yet (a random start, a plan), each E[g^2] counts as 1.

    Args:
        layers: all layers, the excluded ones too: they keep everything.
        scores: not used.
        budget: weights to keep over all layers, a count.

    Returns:
        Weights to keep per layer; they sum to the budget.

    Raises:
        BadOption: the budget is less than the excluded layers hold, or more than there is.
        MissingStatistic: no squared gradient was recorded.
    """
    losses = {layer.name: score(layer) for layer in layers if layer.prunable}
    return global_(layers, none_emptied(layers, losses), budget)
