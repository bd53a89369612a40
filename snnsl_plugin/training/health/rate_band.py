"""A price on neurons that are nearly silent or nearly always on."""

from __future__ import annotations

import math
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import channel_axis_of, neurons
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health._care import Care


def rate_band(model: nn.Module, *, low: float = 0.01, high: float = 0.3, weight: float = 0.1) -> RateBand:
    """Weight * mean over layers of mean over channels of relu(1 - r / low)^2 + relu(r / high - 1)^2.

    r is the firing rate of a channel in the batch, over steps, samples and sites. Both bounds are those of Zenke and
    Vogels 2021 in spirit; theirs count spikes of single neurons, ours are rates relative to the bound, so that silence
    costs the same whatever `low` is. Within the band nothing is paid, and there is no gradient.

    Args:
        model: its spiking neurons are watched in training passes.
        low: rate per step below which a channel is pushed up, in (0, 1); 0 for no lower bound.
        high: rate per step above which it is pushed down, in (low, 1]; 1 for no upper bound.
        weight: factor on the whole, > 0.

    Raises:
        BadOption: bounds out of order, or a weight that is not positive.
        NothingMatched: the model has no spiking neuron.
    """
    if not 0.0 <= low < high <= 1.0:
        raise BadOption(f"low={low:g} and high={high:g}: a band of rates needs 0 <= low < high <= 1")
    if not (math.isfinite(weight) and weight > 0):
        raise BadOption(f"weight={weight:g}: it must be above 0; leave rate_band out for no band")
    watched = neurons(model)
    if not watched:
        raise NothingMatched("rate_band: the model has no spiking neuron whose rate could be kept in a band")
    return RateBand(watched, low, high, weight)


class RateBand(Care):
    """Holds what the neurons of the last pass have to pay.

    Args:
        watched: neuron layers, by name.
        low: see `rate_band`.
        high: likewise.
        weight: likewise.
    """

    def __init__(self, watched: dict[str, nn.Module], low: float, high: float, weight: float) -> None:
        self._watched, self._low, self._high, self._weight = watched, low, high, weight
        self._spikes: dict[str, list[tuple[Tensor, int]]] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> RateBand:
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
        costs = [self._cost(passes) for passes in self._spikes.values()]
        self._spikes = {}
        return self._weight * torch.stack(costs).mean() if costs else None

    def _cost(self, passes: list[tuple[Tensor, int]]) -> Tensor:
        # In single-step mode a layer is called once a step, with as many sites each time.
        rate = torch.stack([sums / slots for sums, slots in passes]).mean(0)
        high = (rate / self._high - 1.0).relu().square()
        return (high + (1.0 - rate / self._low).relu().square() if self._low else high).mean()

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
