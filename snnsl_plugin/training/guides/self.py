"""The network teaches itself, from an earlier day."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import own_hooks, reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.duration import steps
from snnsl_plugin.training.guides._lesson import Lesson, Softening
from snnsl_plugin.training.guides._network import NetworkGuide
from snnsl_plugin.training.neuron_masks import resized_


def self(
    total_steps: int | None = None, steps_per_epoch: int | None = None, *, since: str = "30%", ema: float | None = None
) -> SelfGuide:
    """The learner as it was at `since` (Tf-KD_self, Yuan et al. 2020, whose copy had ended its training).

    Before that there is no guide, and the loss is plain cross-entropy. With `ema` the guide then follows the learner as
    an exponential moving average (mean teacher, Tarvainen and Valpola 2017).

    Args:
        total_steps: what a percentage refers to; a recipe's runner knows it.
        steps_per_epoch: what epochs refer to; likewise.
        since: when the snapshot is taken, a duration; e.g. the start of the ramp.
        ema: share of the old average kept at each step, in (0, 1); the snapshot stays as it is where omitted.

    Raises:
        BadOption: an average outside (0, 1), or a duration that cannot be resolved.
    """
    if ema is not None and not 0.0 < ema < 1.0:
        raise BadOption(f"ema={ema}: the share of the old average must lie in (0, 1), e.g. 0.999")
    return SelfGuide(steps(since, total_steps=total_steps, steps_per_epoch=steps_per_epoch), ema)


class SelfGuide:
    """Holds the earlier network.

    Args:
        since: the step after which the snapshot is taken; 0 is before training.
        ema: see `self`.
    """

    def __init__(self, since: int, ema: float | None) -> None:
        self._since, self._ema = since, ema
        self._guide: NetworkGuide | None = None

    def __call__(self, x: Tensor, target: Tensor, classes: int, soften: Softening) -> Lesson | None:
        """The earlier network's softened answer, or None before there is one."""
        return self._guide(x, target, classes, soften) if self._guide else None

    @torch.no_grad()
    def observe(self, model: nn.Module, step: int) -> None:
        """Takes the snapshot when its time has come, and lets it follow where it is an average."""
        if self._guide is None:
            if step >= self._since:
                self._guide = NetworkGuide(_copy(model))
        elif self._ema is not None:
            for old, new in zip(_tensors(self._guide.network), _tensors(model), strict=True):
                if old.is_floating_point() and old.shape == new.shape:
                    old.lerp_(new, 1.0 - self._ema)
                else:  # masks of neurons have no size before the first pass
                    resized_(old, new.shape).copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """The earlier network's weights and buffers; None before there is one."""
        return {"network": self._guide.network.state_dict() if self._guide else None}

    def load_state_dict(self, state: dict[str, Any], model: nn.Module) -> None:
        """Goes on from `state_dict`; the model gives the architecture."""
        if state["network"] is not None:
            network = _copy(model)
            network.load_state_dict(state["network"])
            self._guide = NetworkGuide(network)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _copy(model: nn.Module) -> nn.Module:
    reset_(model)  # a membrane potential with a graph cannot be copied
    hooks = [(m, m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    try:
        for module, _, _ in hooks:
            module._forward_hooks = own_hooks(module._forward_hooks)
            module._forward_pre_hooks = own_hooks(module._forward_pre_hooks)
        return copy.deepcopy(model)
    finally:
        for module, forward, before in hooks:
            module._forward_hooks, module._forward_pre_hooks = forward, before
