"""BPSR: synapses shrink steadily, the smallest go, and as many of them as a share says come back by the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.growth.gradient import gradient
from snnsl_plugin.core.layer import Growth, Layer, Schedule, State
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.core.rules.drop_grow import after_step_, drift_
from snnsl_plugin.errors import BadOption

__all__ = ["after_step_", "bpsr", "check", "drift_"]

#: What says how much is dropped, where there is no density to ask for.
STRENGTH = "threshold"


def bpsr(
    layers: Sequence[Layer],
    progress: float,
    *,
    threshold: Schedule,
    penalty: float = 0.01,
    regrow: Schedule | None = None,
    growth: Growth = gradient,
) -> dict[str, State]:
    """One rewiring of all layers (backpropagation with sparsity regularisation, Yan et al., Front. Neurosci. 2022).

    What the paper's abstract fixes: a price on spikes, a price on synapses, and a rewiring that prunes and grows by
    weight and by gradient. Its equations and settings were not available to us, so **the rule is ours**:

        after each step:  |w| falls by lr penalty, and stops at 0       # the price on synapses, L1
        at an update:     drop those with |w| <= threshold(progress)
                          grow floor(regrow(progress) * dropped) of those dead before it, best by `growth`, from 0

    A newborn that the gradient does not carry past the threshold until the next update goes again. **Density is an
    outcome.** The price on spikes is part of the loss, not of the rule: `rate_price` in a recipe's `health`, or its
    `penalty()` in a loop of one's own.

    Args:
        layers: all layers, those that are never pruned too.
        progress: fraction of the schedule that has passed, in [0, 1].
        threshold: largest size of a weight that is dropped, in units of the weight, >= 0.
        penalty: of a synapse's size, in units of the loss, >= 0; see `drift_`.
        regrow: the share of the dropped that is grown elsewhere, in [0, 1]; none where omitted.
        growth: where.

    Returns:
        The new state of each layer: its mask.

    Raises:
        BadOption: a share or a threshold outside its range.
        MissingStatistic: the growth needs what nobody recorded.
        Diverged: a score is NaN.
    """
    size, share = _size(threshold, progress), _share(regrow, progress)
    return {
        layer.name: {"mask": _rewired(layer, size, share, growth)} if layer.prunable else layer.state
        for layer in layers
    }


def check(*, threshold: Schedule, penalty: float, regrow: Schedule | None) -> None:
    """Refuses, before anything is trained, options out of their range.

    Raises:
        BadOption: with the value.
    """
    if not (math.isfinite(penalty) and penalty >= 0):
        raise BadOption(f"penalty is {penalty:g}: it must not be below 0")
    for progress in (0.0, 1.0):
        _size(threshold, progress)
        _share(regrow, progress)


def _rewired(layer: Layer, size: float, share: float, growth: Growth) -> Tensor:
    alive = layer.mask & (layer.weight.abs() > size)
    dropped = int(layer.mask.count_nonzero()) - int(alive.count_nonzero())
    number = min(math.floor(share * dropped), int((~layer.mask).count_nonzero()))
    return alive | keep_top(growth(layer), number, among=~layer.mask) if number else alive


def _size(threshold: Schedule, progress: float) -> float:
    size = threshold(progress)
    if not size >= 0:
        raise BadOption(f"threshold is {size:.6g} at progress {progress:.4g}: it must stay >= 0")
    return size


def _share(regrow: Schedule | None, progress: float) -> float:
    share = regrow(progress) if regrow else 0.0
    if not 0.0 <= share <= 1.0:
        raise BadOption(f"regrow is {share:.6g} at progress {progress:.4g}: it must stay in [0, 1]")
    return share
