"""Formulas over spike tensors. Spikes are (T, N, C, ...) in {0, 1}; a rate is per step, in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from snnsl_plugin.errors import BadOption


def spikes_per_channel(x: Tensor, channel: int) -> tuple[Tensor, int]:
    """Counts the non-zero entries of each channel.

    Args:
        x: any tensor with a channel axis, e.g. (T, N, C, H, W) or (N, F).
        channel: the channel axis; negative counts from the end.

    Returns:
        The counts, shape (C,), and the number of slots each channel had (the product of all other axes).
    """
    channel %= x.dim()
    others = [axis for axis in range(x.dim()) if axis != channel]
    counts = torch.count_nonzero(x.detach(), dim=others) if others else (x != 0).long()
    return counts, x.numel() // x.shape[channel]


def firing_rate(spikes: Tensor) -> Tensor:
    """Mean firing rate of each channel, per step.

    Args:
        spikes: (T, N, C, ...) in {0, 1}.

    Returns:
        Shape (C,), in [0, 1].
    """
    counts, slots = spikes_per_channel(spikes, 2)
    return counts / slots


def silent(counts: Tensor) -> float:
    """The share of neurons that never fired, in [0, 1].

    Args:
        counts: spikes per neuron, any shape.

    Raises:
        BadOption: there are no neurons.
    """
    if counts.numel() == 0:
        raise BadOption("silent share of no neurons at all: pass the spike counts of at least one")
    return float((counts == 0).double().mean())


def is_binary(x: Tensor) -> bool:
    """Whether every entry is 0 or 1, so that a synapse it drives adds and never multiplies."""
    return bool(((x == 0) | (x == 1)).all())


def driven_synapses(
    x: Tensor,
    kept: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] | str = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """How many kept synapses the non-zero inputs drive, per sample of the leading axis.

    For spikes these are the synaptic operations (SynOps, accumulates); for other inputs they are multiply-accumulates.
    Only sums over output channels matter, so one output channel a group is convolved instead of all of them.

    Args:
        x: the layer's input, (N, F) for a linear layer, (N, C, *sites) for a convolution of 1 to 3 dimensions.
        kept: which weights are non-zero, (out, in) or (out, in / groups, *kernel).
        stride: as the layer's.
        padding: as the layer's; zeros pad, and zeros drive nothing.
        dilation: as the layer's.
        groups: as the layer's.

    Returns:
        Shape (N,), float64 counts.

    Raises:
        BadOption: `kept` has an unsupported number of dimensions.
    """
    # Counts up to 2^53 are exact in float64; one convolution of few channels keeps that affordable.
    active = (x.detach() != 0).double()
    weights = kept.detach() != 0
    if kept.dim() == 2:
        return active.flatten(1, -2).sum(1).mv(weights.sum(0).double()) if x.dim() > 2 else active.mv(weights.sum(0).double())
    convolutions = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
    if kept.dim() not in convolutions:
        raise BadOption(f"weights of {kept.dim()} dimensions: synapses are counted for linear and 1d to 3d conv layers")
    per_group = weights.view(groups, kept.shape[0] // groups, *kept.shape[1:]).sum(1).double()
    out = convolutions[kept.dim()](active, per_group, None, stride, padding, dilation, groups)
    return out.flatten(1).sum(1)
