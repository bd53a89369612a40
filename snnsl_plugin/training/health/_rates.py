"""Firing rates of a training pass with their graph, for whoever puts a price on them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import channel_axis_of
from snnsl_plugin.training.health._care import Care


class Rates(Care):
    """Holds what the neurons of the last pass have to pay: the mean over layers of what the rates of each cost.

    Args:
        watched: neuron layers, by name.
        cost: from the rates of a layer's channels, shape (C,), in [0, 1], over steps, samples and sites, to a scalar.
        weight: factor on the whole.
    """

    def __init__(self, watched: dict[str, nn.Module], cost: Callable[[Tensor], Tensor], weight: float) -> None:
        self._watched, self._cost, self._weight = watched, cost, weight
        self._spikes: dict[str, list[tuple[Tensor, int]]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Rates:
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in self._watched.items()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._spikes = [], {}

    def before_step(self, step: int) -> None:
        """Forgets passes that no loss was asked for."""
        self._spikes = {}

    def penalty(self) -> Tensor | None:
        """The price of the pass since the last step; None where no neuron fired a training pass."""
        # In single-step mode a layer is called once a step, with as many sites each time.
        rates = [torch.stack([sums / slots for sums, slots in passes]).mean(0) for passes in self._spikes.values()]
        self._spikes = {}
        return self._weight * torch.stack([self._cost(rate) for rate in rates]).mean() if rates else None

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        watched = self._watched[name]

        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if module is watched and module.training:  # a copy of the network carries the hook along
                spikes = output[0] if isinstance(output, tuple) else output
                axis = channel_axis_of(module, spikes.dim()) % spikes.dim()
                others = [each for each in range(spikes.dim()) if each != axis]
                sums = spikes.sum(others) if others else spikes
                self._spikes.setdefault(name, []).append((sums, spikes.numel() // spikes.shape[axis]))

        return hook
