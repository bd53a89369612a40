"""How steep the surrogate is where a neuron's membrane is: what a gradient through a spike is multiplied by."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import channel_axis_of, neurons
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.watcher import Watcher

#: Slopes are added up in steps of this, so that neither the order nor the number of ranks changes a sum.
_STEP = 2.0**-20


class Surrogates(Watcher):
    """Adds up, in training passes, the derivative of each neuron's surrogate at its membrane less its threshold.

    SpikingJelly computes neurons in one operation and keeps no membrane, so a stand-in with the same state, parameters
    and random numbers runs the same pass first, step by step, and its surrogate notes what it is asked about. The
    neuron itself is neither changed nor slowed in passes that are not recorded.

    Args:
        model: with spiking neurons that have a `surrogate_function`; others are left out.
        layers: names of the layers to watch.
        downstream: knows which neuron each layer drives.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str], downstream: Downstream) -> None:
        super().__init__(model)
        self._layers, self._downstream = list(layers), downstream
        self._neurons = {n: each for n, each in neurons(model).items() if callable(_surrogate_of(each))}

    def __enter__(self) -> Surrogates:
        for name, neuron in self._neurons.items():
            self.before(neuron, partial(self._add, name, neuron))
        return self

    def fields(self) -> dict[str, dict[str, Any]]:
        """`surrogate` of each layer whose neuron has run: (channels of the neuron,), float64, over all ranks."""
        sums = self.sums.all()
        driven = {name: self._downstream.found.get(name) for name in self._layers}
        return {
            name: {"surrogate": sums[neuron][0] / sums[neuron][1]} for name, neuron in driven.items() if neuron in sums
        }

    def _add(self, name: str, neuron: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        steep = slopes(neuron, arguments)
        if steep is not None:
            axis = channel_axis_of(neuron, steep.dim())
            whole = (steep.double() / _STEP).round().transpose(0, axis).flatten(1).sum(1)
            self.sums.add(name, whole * _STEP, steep.numel() / steep.shape[axis])


def slopes(neuron: nn.Module, arguments: tuple[Tensor, ...]) -> Tensor | None:
    """The derivative of a neuron's surrogate at each of its decisions in a coming pass; nothing is changed.

    Args:
        neuron: with a `surrogate_function`, in the state that the pass finds.
        arguments: what it will be called with.

    Returns:
        The shape of its first argument; None for a neuron that does not ask its surrogate once for each spike.

    Example:
        >>> from spikingjelly.activation_based import neuron, surrogate
        >>> node = neuron.IFNode(surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0))
        >>> slopes(node, (torch.tensor([[0.5, 1.0]]),))  # 1 - |v - 1|
        tensor([[0.5000, 1.0000]])
    """
    x, surrogate = arguments[0], _surrogate_of(neuron)
    stand_in, noting = _stand_in(neuron), _Noting(surrogate)
    where = stand_in._modules if "surrogate_function" in stand_in._modules else stand_in.__dict__
    where["surrogate_function"] = noting
    with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        type(neuron).forward(stand_in, *arguments)
    asked = torch.cat([each.flatten() for each in noting.asked]) if noting.asked else x.new_empty(0)
    if asked.numel() != x.numel():
        return None
    with torch.enable_grad():
        asked = asked.requires_grad_()
        (steep,) = torch.autograd.grad(surrogate(asked).sum(), asked)
    return steep.view(x.shape)


class _Noting(nn.Module):
    """A surrogate that notes what it is asked about."""

    def __init__(self, surrogate: Any) -> None:
        super().__init__()
        self.surrogate = surrogate
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach())
        spikes: Tensor = self.surrogate(x)
        return spikes


def _surrogate_of(neuron: nn.Module) -> Any:
    return getattr(neuron, "surrogate_function", None)


def _stand_in(module: nn.Module) -> nn.Module:
    """A module with the same parameters, and states of its own: what a pass of it changes, the other does not see."""
    copied = module.__new__(type(module))
    own = copied.__dict__ = dict(module.__dict__)
    for word, value in own.items():
        if "hooks" in word and isinstance(value, OrderedDict):
            own[word] = OrderedDict()
    own["_parameters"] = dict(module._parameters)
    own["_buffers"] = {name: each if each is None else each.clone() for name, each in module._buffers.items()}
    own["_modules"] = {name: None if each is None else _stand_in(each) for name, each in module._modules.items()}
    if "_memories" in own:
        own["_memories"] = {
            name: each.detach().clone() if isinstance(each, Tensor) else each for name, each in own["_memories"].items()
        }
    return copied
