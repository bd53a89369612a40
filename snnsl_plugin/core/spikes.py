"""Formulas over spike tensors. Spikes are (T, N, C, ...) in {0, 1}; a rate is per step, in [0, 1]."""

from __future__ import annotations

import torch
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
