"""The dynamic pruner of any training loop, at work inside NNI's wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from nni.compression.base.target_space import PruningTargetSpace
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.core.layer import State
from snnsl_plugin.core.rules.drop_grow import after_step_ as drop_dead_
from snnsl_plugin.for_nni.wrapper import dense_gradient_, effective_, plain_, state_of
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.pruner import DynamicPruner


class HostedPruner(DynamicPruner):
    """A DynamicPruner whose weights are NNI's targets, so that both give the same masks, bit for bit.

    Args:
        model: the wrapped model.
        optimizer: the one that trains it.
        rule: a rule of the registry.
        spaces: the weights to prune, by dotted module name.
        **options: of `DynamicPruner`, and of the rule.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        rule: str,
        spaces: Mapping[str, PruningTargetSpace],
        **options: Any,
    ) -> None:
        self._spaces = spaces
        super().__init__(model, optimizer, rule, layers=list(spaces), **options)

    def step(self, *, applied: bool = True) -> MaskUpdate | None:
        """Ends one training step, as in any loop."""
        self._follow()
        return super().step(applied=applied)

    def dead_rows(self, name: str) -> Tensor | None:
        """Output channels of a layer that no input reaches, bool, (out,); None where all are reached."""
        return self._living.dead.get(name) if self._living else None

    def _mount(self) -> None:
        for name, space in self._spaces.items():
            if self._rule.effective:
                effective_(space, self._rule, self._states[name])
            else:
                dense_gradient_(space)
                space.mask = self._states[name]["mask"]

    def _set(self, states: dict[str, State]) -> None:
        super()._set(states)
        if not self._rule.effective:
            for name, space in self._spaces.items():
                space.mask = self._states[name]["mask"]

    @torch.no_grad()
    def _after_step(self) -> None:
        if self._rule.after_step_ is not drop_dead_:
            super()._after_step()
            return
        # NNI keeps each mask as numbers too, and a product of one type is several times as fast as one of two.
        for name, space in self._spaces.items():
            self._weights[name].mul_(space.mask)
        if self._living:
            self._living.after_step_()

    def _effective(self, name: str) -> Tensor:
        if not self._rule.effective or not state_of(self._spaces[name]):
            return self._weights[name]
        return (self._rule.evaluated or self._rule.effective)(self._weights[name], self._states[name])

    @torch.no_grad()
    def _unmount(self) -> None:
        for name, space in self._spaces.items():
            self._weights[name].copy_(self._effective(name) * self._mask(name))
            plain_(space)

    def _follow(self) -> None:
        # Whoever moves the model after NNI has wrapped it moves buffers into new tensors.
        for name, state in self._states.items():
            device = self._weights[name].device
            if state["mask"].device != device:
                moved: State = {key: value.to(device) for key, value in state.items()}
                held = state_of(self._spaces[name]) if name in self._spaces else {}
                self._states[name] = held or moved
