"""Batch norms that learn the new statistics faster after masks have changed."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health._care import Care


def bn_momentum(model: nn.Module, *, value: float = 0.3, steps: int = 50) -> BnMomentum:
    """The momentum of every batch norm is `value` for so many steps after each update of the masks, then its own again.

    A pruned layer's outputs have another mean and variance at once, and running statistics with the usual momentum of
    0.1 still speak of the old ones at the next validation.

    Args:
        model: its batch norms with running statistics.
        value: share of the new batch in the running statistics, in (0, 1].
        steps: how long after an update, >= 1.

    Raises:
        BadOption: an option outside its range.
        NothingMatched: the model has no batch norm with a momentum.
    """
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise BadOption(f"value={value:g}: the share of the new batch must lie in (0, 1]")
    if steps < 1:
        raise BadOption(f"steps={steps}: batch norms learn faster for at least 1 step")
    norms = [each for each in model.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    norms = [each for each in norms if each.momentum is not None]
    if not norms:
        raise NothingMatched("bn_momentum: the model has no batch norm with running statistics and a momentum")
    return BnMomentum(norms, value, steps)


class BnMomentum(Care):
    """Remembers when masks have last changed.

    Args:
        norms: batch norms with a momentum.
        value: see `bn_momentum`.
        steps: likewise.
    """

    def __init__(self, norms: list[_BatchNorm], value: float, steps: int) -> None:
        self._own = [(each, each.momentum) for each in norms]
        self._value, self._steps = value, steps
        self._changed: int | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm, own in self._own:
            norm.momentum = own

    def before_step(self, step: int) -> None:
        """Sets the momentum of the coming step."""
        soon = self._changed is not None and step - self._changed <= self._steps
        for norm, own in self._own:
            norm.momentum = self._value if soon else own

    def after_update(self, step: int) -> None:
        """Begins to count anew."""
        self._changed = step

    def state_dict(self) -> dict[str, Any]:
        """The step of the last update."""
        return {"changed": self._changed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._changed = state["changed"]
