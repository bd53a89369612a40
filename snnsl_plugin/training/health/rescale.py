"""Weights that make up for those that an update has taken away."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnsl_plugin.anatomy import WeightLayer, parameter_of, weight_layers
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.health._care import Care


def rescale(model: nn.Module, *, per: Literal["layer", "channel"] = "layer", most: float = 2.0) -> Rescale:
    """After each update of the masks, weights are multiplied by sqrt(sum of w^2 before / sum of w^2 kept).

    Independent inputs of one second moment drive a neuron with a second moment in proportion to the sum of w^2 over
    its connections, so the drive stays as strong as it was. The weights of both sums are those before the training
    step at which masks have changed; connections born at the update are 0 and count nothing. A neuron that rests at 0
    fires as if its threshold were lower by the factor instead. A batch norm behind a layer takes the factor out
    again, but for its running statistics and the pace of learning. What the optimizer remembers is left as it is, and
    so is a layer that a cut has made smaller.

    Args:
        model: its convolutions and linear layers.
        per: one factor for each layer, or for each output channel.
        most: the largest factor, > 1: a channel that has lost almost all of its drive is not blown up.

    Raises:
        BadOption: an option outside its range.
    """
    if per not in ("layer", "channel"):
        raise BadOption(f"per={per!r}: choose 'layer' or 'channel'")
    if not (math.isfinite(most) and most > 1.0):
        raise BadOption(f"most={most:g}: the largest factor must be above 1, e.g. 2")
    return Rescale(weight_layers(model), per == "channel", most)


class Rescale(Care):
    """Holds the weights as they were before the step.

    Args:
        layers: convolutions and linear layers, by name.
        by_channel: whether each output channel has a factor of its own.
        most: see `rescale`.
    """

    def __init__(self, layers: dict[str, WeightLayer], by_channel: bool, most: float) -> None:
        self._layers, self._by_channel, self._most = layers, by_channel, most
        self._before: dict[str, Tensor] = {}

    def __enter__(self) -> Rescale:
        for name, layer in self._layers.items():
            if parametrize.is_parametrized(layer, "weight"):
                raise BadOption(
                    f"rescale: the weights of {name!r} are computed from others by the pruning rule, and a factor on "
                    "those is none on these: choose a rule that masks weights, as drop_grow, or leave rescale out"
                )
        return self

    def before_step(self, step: int) -> None:
        """Looks at the weights."""
        self._before = {name: parameter_of(layer).detach().clone() for name, layer in self._layers.items()}

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """Multiplies, in place, what is left."""
        for name, before in self._before.items():
            weight = parameter_of(self._layers[name])
            if weight.shape == before.shape:
                weight.mul_(self._factor(before.double().square(), weight != 0).to(weight))

    def _factor(self, square: Tensor, alive: Tensor) -> Tensor:
        axes = tuple(range(1 if self._by_channel else 0, square.dim()))
        whole, kept = (each.sum(axes, keepdim=True) for each in (square, square * alive))
        factor = (whole / kept).sqrt().clamp_max(self._most)
        return torch.where(kept > 0, factor, torch.ones_like(factor))
