"""How Torch-Pruning cuts channels out of a neuron: its per-channel tensors, and nothing else."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.pruner.function import BasePruningFunc

from snnsl_plugin.anatomy import neurons, reset_

#: What a neuron that is given something it does not understand fails with.
_FAILURES = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, AttributeError)
#: How modules with a number for each channel call their count.
_WORDS = ("num_features", "num_channels", "num_parameters")


@dataclass(frozen=True)
class Given:
    """What a neuron gets in a pass of its model.

    Attributes:
        shape: (N, C, ...), or (T, N, C, ...) where the neuron is in multi-step mode.
        axis: of the channels.
        dtype: of the numbers.
        device: where they are.
    """

    shape: tuple[int, ...]
    axis: int
    dtype: torch.dtype
    device: torch.device


class NeuronPruner(BasePruningFunc):  # type: ignore[misc]
    """Neurons are element-wise, but some own a threshold, a time constant or a buffer for each channel.

    Args:
        seen: how many channels each neuron has; kept up to date.
        held: by neuron, the axis of the channels in each tensor that has a number for each of them.
    """

    def __init__(self, seen: dict[nn.Module, int], held: Mapping[nn.Module, Mapping[str, int]]) -> None:
        super().__init__()
        self._seen, self._held = seen, held

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        """Cuts, in place.

        Args:
            layer: a neuron.
            idxs: channels to remove.
        """
        channels, gone = self._seen[layer], set(idxs)
        keep = [channel for channel in range(channels) if channel not in gone]
        for name, axis in self._held.get(layer, {}).items():
            owner, word = _owner(layer, name)
            tensor = getattr(owner, word)
            if isinstance(tensor, nn.Parameter):
                setattr(owner, word, self._prune_parameter_and_grad(tensor, keep, axis))
            else:
                setattr(owner, word, tensor.index_select(axis, torch.as_tensor(keep, device=tensor.device)))
            _recount_(owner, layer, channels, len(keep))
        self._seen[layer] = len(keep)
        reset_(layer)
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> None:
        """Unknown to a neuron: Torch-Pruning looks at the layers around it."""
        return

    get_in_channels = get_out_channels


def neuron_pruners(
    model: nn.Module,
    seen: dict[nn.Module, int],
    held: Mapping[nn.Module, Mapping[str, int]],
    *,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> dict[type[nn.Module], NeuronPruner]:
    """For Torch-Pruning's `customized_pruners`, which looks classes up exactly.

    Args:
        model: any model.
        seen: how many channels each neuron has; filled by the trace.
        held: by neuron, the axis of the channels in each tensor that has a number for each of them; filled likewise.
        neuron_types: classes of one's own that are neurons.
    """
    pruner = NeuronPruner(seen, held)
    return {type(neuron): pruner for neuron in neurons(model, tuple(neuron_types)).values()}


def per_channel(neuron: nn.Module, given: Given) -> dict[str, int]:
    """The tensors of a neuron that have a number for each channel: the axis of the channels, by dotted name.

    A size proves nothing, because there may be as many channels as time steps, or as taps of a kernel. So a copy of the
    neuron is given one channel more, and the fewest tensors that have to grow along for it to run are the ones. One
    channel less would prove less: a tensor of size 1 fits everything.

    Args:
        neuron: any spiking neuron; it is left as it is.
        given: what it gets.
    """
    count = given.shape[given.axis]
    fitting = {
        name: [axis for axis, size in enumerate(tensor.shape) if size == count]
        for name, tensor in _tensors(neuron).items()
        if count > 1 and count in tensor.shape
    }
    if not fitting:
        return {}
    modes = [training for training in (False, True) if _runs(neuron, given, {}, training, 0)]
    choices = itertools.product(*([None, *axes] for axes in fitting.values()))
    for choice in sorted(choices, key=lambda axes: sum(axis is not None for axis in axes)):
        held = {name: axis for name, axis in zip(fitting, choice, strict=True) if axis is not None}
        if modes and all(_runs(neuron, given, held, training, 1) for training in modes):
            return held
    # It cannot run alone, or not on another number of channels: what is one long vector of their number is theirs.
    return {name: axes[0] for name, axes in fitting.items() if _tensors(neuron)[name].numel() == count}


def _tensors(neuron: nn.Module) -> dict[str, Tensor]:
    # Attributes too: a threshold may be a plain tensor.
    found: dict[str, Tensor] = {}
    for prefix, module in neuron.named_modules():
        held: dict[str, Any] = {**vars(module), **module._parameters, **module._buffers}
        own = {name: tensor for name, tensor in held.items() if isinstance(tensor, Tensor)}
        found |= {f"{prefix}.{name}" if prefix else name: tensor for name, tensor in own.items()}
    return found


def _runs(neuron: nn.Module, given: Given, held: Mapping[str, int], training: bool, more: int) -> bool:
    reset_(neuron)
    try:
        twin = copy.deepcopy(neuron).train(training)
        shape = list(given.shape)
        shape[given.axis] += more
        for name, axis in held.items():
            owner, word = _owner(twin, name)
            tensor = getattr(owner, word).detach()
            grown = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
            setattr(owner, word, nn.Parameter(grown) if word in owner._parameters else grown)
            _recount_(owner, twin, given.shape[given.axis], shape[given.axis])
        with torch.no_grad():
            out = twin(torch.rand(shape, dtype=given.dtype, device=given.device))
    except _FAILURES:
        return False
    spikes = out[0] if isinstance(out, tuple) else out
    return list(spikes.shape) == shape


def _owner(neuron: nn.Module, name: str) -> tuple[nn.Module, str]:
    prefix, _, word = name.rpartition(".")
    return neuron.get_submodule(prefix), word


def _recount_(owner: nn.Module, neuron: nn.Module, before: int, now: int) -> None:
    # A norm inside a neuron knows its width; what numbers a neuron itself keeps is its own affair.
    for word in _WORDS if owner is not neuron else ():
        if getattr(owner, word, None) == before:
            setattr(owner, word, now)
