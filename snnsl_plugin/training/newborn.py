"""What the optimizer remembers of a connection that was just grown."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

#: optimizer state that averages squared gradients, by the names torch's optimizers use
SECOND_MOMENTS = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
FIRST_MOMENTS = ("exp_avg", "momentum_buffer")

NewbornV = Literal["zero", "layer_mean"]


def momentum(optimizer: Optimizer, weight: nn.Parameter) -> Tensor | None:
    """The optimizer's running mean of the dense gradient, the weight's shape; None if it keeps none (yet)."""
    state = optimizer.state.get(weight, {})
    return next((state[key] for key in FIRST_MOMENTS if isinstance(state.get(key), Tensor)), None)


@torch.no_grad()
def forget_(optimizer: Optimizer, parameter: nn.Parameter, where: Tensor, alive: Tensor, newborn_v: NewbornV) -> None:
    """Zeroes, in place, what the optimizer keeps where connections were grown.

    A newborn with a zero second moment takes steps of several times the learning rate under Adam; `layer_mean` starts
    it at the mean over the connections that were alive.

    Args:
        optimizer: any torch optimizer.
        parameter: the weight.
        where: bool, the weight's shape: the newborns.
        alive: bool, the weight's shape: the connections that lived on.
        newborn_v: what second moments start from.
    """
    for key, value in optimizer.state.get(parameter, {}).items():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            mean = newborn_v == "layer_mean" and key in SECOND_MOMENTS and bool(alive.any())
            value[where] = value[alive].mean() if mean else 0.0
