"""Rules that compute with something else than the weight itself: mounted through torch's own parametrization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnsl_plugin.core.layer import State

Function: TypeAlias = Callable[[Tensor, State], Tensor]


def mount_(module: nn.Module, effective: Function, state: State, evaluated: Function | None = None) -> None:
    """From now on the layer computes with `effective(weight, state)`; the optimizer keeps the weight it holds.

    Args:
        module: a layer with a weight; changed in place.
        effective: differentiable, keeps the shape.
        state: tensors that the rule changes in place.
        evaluated: in its place in eval mode; the same where omitted.
    """
    # unsafe: the shape is the weight's own, and checking it would run the rule on an untrained state
    parametrize.register_parametrization(module, "weight", Effective(effective, state, evaluated), unsafe=True)


def unmount_(module: nn.Module) -> None:
    """Makes the effective weight, that of eval mode, the weight, in place, where something was mounted."""
    if parametrize.is_parametrized(module, "weight"):
        module.parametrizations["weight"].eval()  # type: ignore[index, union-attr]
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


class Effective(nn.Module):
    """A rule's function as a module. Its state are buffers, so a copy of the model has its own.

    Args:
        effective: what it computes.
        state: likewise.
        evaluated: what it computes in eval mode; the same where omitted.
    """

    def __init__(self, effective: Function, state: State, evaluated: Function | None = None) -> None:
        super().__init__()
        self._effective: Any = effective
        self._evaluated: Any = evaluated or effective
        for key, value in state.items():
            self.register_buffer(key, value)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is computed with."""
        changed: Tensor = (self._effective if self.training else self._evaluated)(weight, dict(self.named_buffers()))
        return changed
