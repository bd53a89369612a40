"""How Torch-Pruning cuts channels out of a neuron: its per-channel tensors, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.pruner.function import BasePruningFunc

from snnsl_plugin.anatomy import forgets, neurons


class NeuronPruner(BasePruningFunc):  # type: ignore[misc]
    """Neurons are element-wise, but some own a threshold, a time constant or a buffer for each channel.

    A tensor is per channel where exactly one of its axes is longer than 1 and as long as the neuron has channels; but
    what a neuron says is over time stays (the weight and bias of a PSN, the kernel of a SlidingPSN), also where there
    happen to be as many channels as steps.

    Args:
        seen: how many channels each neuron has; kept up to date.
    """

    def __init__(self, seen: dict[nn.Module, int]) -> None:
        super().__init__()
        self._seen = seen

    def prune_out_channels(self, layer: nn.Module, idxs: Sequence[int]) -> nn.Module:
        """Cuts, in place.

        Args:
            layer: a neuron.
            idxs: channels to remove.
        """
        channels = self._seen[layer]
        gone = set(idxs)
        keep = [channel for channel in range(channels) if channel not in gone]
        for name, tensor, axis in per_channel(layer, channels):
            if isinstance(tensor, nn.Parameter):
                setattr(layer, name, self._prune_parameter_and_grad(tensor, keep, axis))
            else:
                kept = tensor.index_select(axis, torch.as_tensor(keep, device=tensor.device))
                layer._buffers[name] = kept
        self._seen[layer] = len(keep)
        if forgets(layer):
            layer.reset()  # type: ignore[operator]
        return layer

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer: nn.Module) -> None:
        """Unknown to a neuron: Torch-Pruning looks at the layers around it."""
        return

    get_in_channels = get_out_channels


def neuron_pruners(
    model: nn.Module, seen: dict[nn.Module, int], *, neuron_types: Sequence[type[nn.Module]] = ()
) -> dict[type[nn.Module], NeuronPruner]:
    """For Torch-Pruning's `customized_pruners`, which looks classes up exactly.

    Args:
        model: any model.
        seen: how many channels each neuron has; filled by the trace.
        neuron_types: classes of one's own that are neurons.
    """
    pruner = NeuronPruner(seen)
    return {type(neuron): pruner for neuron in neurons(model, tuple(neuron_types)).values()}


def per_channel(neuron: nn.Module, channels: int) -> list[tuple[str, Tensor, int]]:
    """The tensors of a neuron that have a number for each channel: name, tensor, axis.

    Args:
        neuron: any spiking neuron.
        channels: how many it has.
    """
    over_time = _over_time(neuron)
    tensors = (*neuron.named_parameters(recurse=False), *neuron.named_buffers(recurse=False))
    found = []
    for name, tensor in tensors:
        long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
        if name not in over_time and len(long) == 1 and tensor.shape[long[0]] == channels:
            found.append((name, tensor, long[0]))
    return found


def _over_time(neuron: nn.Module) -> set[str]:
    # SpikingJelly's parallel neurons mix time steps by a matrix, a mask or a kernel; they have nothing per channel.
    parallel = any(parent.__name__ in ("PSN", "MaskedPSN", "SlidingPSN") for parent in type(neuron).__mro__)
    held: dict[str, Any] = {**neuron._parameters, **neuron._buffers}
    return set(held) if parallel else set()
