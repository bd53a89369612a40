"""Counts the synapses that a layer's inputs drive, exactly, over any number of batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snnsl_plugin.core.spikes import is_binary
from snnsl_plugin.metrics.layers import Synapses


def synapses_per_input(layer: Synapses, kept: Tensor, shape: torch.Size) -> Tensor:
    """How many kept synapses each input value of a layer drives.

    Args:
        layer: a convolution or linear layer; its stride, padding, dilation and groups count, its weight does not.
        kept: bool, the weight's shape.
        shape: of one input sample, (in,) for a linear layer, (C, *sites) for a convolution.

    Returns:
        Whole numbers as float64, of that shape: for a linear layer the column sums of `kept`; for a convolution fewer
        at the borders.
    """
    if isinstance(layer, nn.Linear):
        return kept.sum(0).double()
    # The rows of a group see the same inputs, so they are summed first; the gradient of the sum of all outputs with
    # respect to an input is then its number of synapses.
    rows = kept.view(layer.groups, kept.shape[0] // layer.groups, *kept.shape[1:]).sum(1).double()
    with torch.enable_grad():
        x = torch.zeros((1, *shape), dtype=torch.float64, device=kept.device, requires_grad=True)
        (fan,) = torch.autograd.grad(layer._conv_forward(x, rows, None).sum(), x)
    return fan[0].round()


class SynapseCounter:
    """Adds up what one layer's inputs drive.

    A batch whose inputs are all 0 or 1 does accumulates (AC); any other does multiply-accumulates (MAC), one for every
    kept synapse of every non-zero input. Inputs are first summed per position and then multiplied by the synapses of
    that position, so a batch costs one comparison and one sum, and the counts are exact up to 2**53.
    """

    def __init__(self, layer: Synapses, kept: Tensor) -> None:
        self.layer = layer
        self.kept = kept
        self.acs = 0
        self.macs = 0
        self._fan: dict[torch.Size, Tensor] = {}

    def add(self, x: Tensor) -> tuple[int, int]:
        """Counts one call of the layer.

        Args:
            x: its input, (..., in) for a linear layer, (..., C, *sites) for a convolution; leading axes are steps
                and samples.

        Returns:
            The accumulates and the multiply-accumulates of this call; one of the two is 0.
        """
        own = 1 if self.kept.dim() == 2 else self.kept.dim() - 1
        shape = x.shape[x.dim() - own :]
        if shape not in self._fan:
            self._fan[shape] = synapses_per_input(self.layer, self.kept, shape)
        times = torch.count_nonzero(x.reshape(-1, *shape), dim=0)
        driven = int((times.double() * self._fan[shape]).sum().item())
        acs, macs = (driven, 0) if is_binary(x) else (0, driven)
        self.acs += acs
        self.macs += macs
        return acs, macs
