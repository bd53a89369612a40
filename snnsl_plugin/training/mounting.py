"""Rules that compute with something else than the weight itself: mounted through torch's own parametrization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnsl_plugin.core.layer import State


def mount_(module: nn.Module, effective: Callable[[Tensor, State], Tensor], state: State) -> None:
    """From now on the layer computes with `effective(weight, state)`; the optimizer keeps the weight it holds.

    Args:
        module: a layer with a weight; changed in place.
        effective: differentiable, keeps the shape.
        state: tensors that the rule changes in place.
    """
    # unsafe: the shape is the weight's own, and checking it would run the rule on an untrained state
    parametrize.register_parametrization(module, "weight", _Effective(effective, state), unsafe=True)


def unmount_(module: nn.Module) -> None:
    """Makes the effective weight the weight, in place, where something was mounted."""
    if parametrize.is_parametrized(module, "weight"):
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


class _Effective(nn.Module):
    """Its state are buffers, so a copy of the model has its own."""

    def __init__(self, function: Any, state: State) -> None:
        super().__init__()
        self._function = function
        for key, value in state.items():
            self.register_buffer(key, value)

    def forward(self, weight: Tensor) -> Tensor:
        changed: Tensor = self._function(weight, dict(self.named_buffers()))
        return changed
