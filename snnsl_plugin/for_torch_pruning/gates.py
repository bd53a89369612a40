"""Masked units: silent forward, their numbers exactly zero, and yet a gradient that says what they could do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import channel_axis_of, parameter_of
from snnsl_plugin.for_torch_pruning.units import Units


class Gates:
    """Holds masked units silent while a model trains.

    A masked unit's rows, biases, norm scales and shifts are zero, and hooks on norms and neurons keep its channels at
    zero whatever those compute. Behind zeros there would be no gradient. So for masked channels the backward pass takes
    a norm for the identity and a neuron's gate for open: what arrives at a row is the gradient it would have if its
    norms handed on their input. Layers that read a masked channel keep their columns, which read zeros; without them no
    gradient would reach the unit.

    Args:
        units: all that may be masked. Hooks stay on their norms and neurons until `close`.
    """

    def __init__(self, units: Sequence[Units]) -> None:
        self._units = list(units)
        self._modules = {m.name: m.module for each in units for m in (*each.rows, *each.norms, *each.neurons)}
        # A neuron's own numbers, such as a threshold for each channel, make no spikes and stay.
        self._silenced = {m.name for each in units for m in (*each.rows, *each.norms)}
        self._dead: dict[str, Tensor] = {}
        self._gates: dict[str, _NormGate | _NeuronGate] = {m.name: _NormGate() for each in units for m in each.norms}
        self._gates |= {m.name: _NeuronGate() for each in units for m in each.neurons}
        self._hooks = [self._modules[name].register_forward_hook(gate) for name, gate in self._gates.items()]

    def close(self) -> None:
        """Removes the hooks; zeros stay zeros."""
        for hook in self._hooks:
            hook.remove()

    def set_(self, alive: Mapping[str, Tensor]) -> None:
        """Masks units from now on, in place.

        Args:
            alive: by name of the units, bool, (count,).
        """
        dead: dict[str, list[Tensor]] = defaultdict(list)
        for each in self._units:
            for member in (*each.rows, *each.norms, *each.neurons):
                dead[member.name].append(member.positions[~alive[each.name][member.units]])
        self._dead.clear()
        for name, parts in dead.items():
            if (channels := torch.cat(parts)).numel():
                self._dead[name] = channels.to(_device(self._modules[name]))
        for name, gate in self._gates.items():
            gate.dead = self._dead.get(name)
        self.hold_()

    @torch.no_grad()
    def hold_(self) -> None:
        """Makes what masked units have exactly zero, in place."""
        for tensor, dead in self._held():
            tensor.index_fill_(0, dead, 0.0)

    def masks(self) -> dict[nn.Parameter, Tensor]:
        """Bool, in their shapes, by the parameters that have masked numbers."""
        return {
            tensor: torch.ones_like(tensor, dtype=torch.bool).index_fill_(0, dead, False)
            for tensor, dead in self._held()
        }

    def _held(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for name, dead in self._dead.items():
            for word in ("weight", "bias") if name in self._silenced else ():
                tensor = tensor_of(self._modules[name], word)
                if isinstance(tensor, nn.Parameter):
                    yield tensor, dead.to(tensor.device)


def tensor_of(module: nn.Module, word: str) -> Tensor | None:
    """A parameter or buffer of a layer or norm, or None where it has no such one."""
    return parameter_of(module, word) if getattr(module, word, None) is not None else None


@contextmanager
def unread(units: Sequence[Units], alive: Mapping[str, Tensor]) -> Iterator[None]:
    """The columns that read masked units are zero meanwhile: scores are those of the network with the masked ones cut.

    Args:
        units: whose columns.
        alive: by name of the units, bool, (count,).
    """
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    try:
        for each in units:
            for member in each.columns:
                weight = parameter_of(member.module).data
                dead = member.positions[~alive[each.name][member.units]].to(weight.device)
                kept.append((weight, dead, weight.index_select(1, dead)))
                weight.index_fill_(1, dead, 0.0)
        yield
    finally:
        for weight, dead, before in reversed(kept):
            weight.index_copy_(1, dead, before)


class _Gate:
    """A hook that knows nothing but the masked channels of its module.

    A copy of the model thereby copies neither pruner nor optimizer, and stays as it is while the original trains on;
    and a model with such hooks can be pickled.
    """

    def __init__(self) -> None:
        self.dead: Tensor | None = None


class _NormGate(_Gate):
    def __call__(self, norm: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if self.dead is None:
            return None
        through: Tensor = _Through.apply(output, args[0], _axis(norm, output), self.dead)  # type: ignore[no-untyped-call]
        return through


class _NeuronGate(_Gate):
    def __call__(self, neuron: nn.Module, _: Any, output: Any) -> Any:
        if self.dead is None:
            return None
        spikes = output[0] if isinstance(output, tuple) else output
        muted = _Muted.apply(spikes, _axis(neuron, spikes), self.dead)  # type: ignore[no-untyped-call]
        return (muted, *output[1:]) if isinstance(output, tuple) else muted


def _axis(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.LayerNorm):
        return output.dim() - 1
    return channel_axis_of(module, output.dim())


def _device(module: nn.Module) -> torch.device:
    tensors = (*module.parameters(), *module.buffers())
    return tensors[0].device if tensors else torch.device("cpu")


class _Through(torch.autograd.Function):
    """Zero for dead channels; their gradient goes to what the norm read instead."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, read: Tensor, axis: int, dead: Tensor) -> Tensor:
        dead = dead.to(output.device)
        ctx.axis = axis
        ctx.save_for_backward(dead)
        return output.index_fill(axis, dead, 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        living = grad.index_fill(ctx.axis, ctx.saved_tensors[0], 0.0)
        return living, grad - living, None, None


class _Muted(torch.autograd.Function):
    """Zero for dead channels, and the whole gradient back."""

    @staticmethod
    def forward(ctx: Any, spikes: Tensor, axis: int, dead: Tensor) -> Tensor:
        return spikes.index_fill(axis, dead.to(spikes.device), 0.0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None
