"""What each weight of a layer reads: for a convolution, the inputs under one tap of its kernel at every site."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import WeightLayer

#: Numbers in a layer's input or output that are looked at together, so that memory stays bounded.
_TOGETHER = 2**24


def own_dimensions(layer: WeightLayer) -> int:
    """How many axes of its input are the layer's own: 1 for a linear layer, channel and sites for a convolution."""
    return 1 if isinstance(layer, nn.Linear) else layer.weight.dim() - 1


def rows_of(x: Tensor, layer: WeightLayer) -> Tensor:
    """An input, or an output, as (rows, channels, *sites): steps, samples and other leading axes are one."""
    own = own_dimensions(layer)
    return x.reshape(-1, *x.shape[x.dim() - own :])


def read_by_taps(layer: WeightLayer, counts: Tensor) -> Tensor:
    """Sums over sites what each tap of the kernel reads; strides, dilation, padding and its mode count.

    Args:
        layer: whose geometry it is; its weight does not matter.
        counts: of one input, (in,) for a linear layer, (in, *sites) for a convolution; whole numbers.

    Returns:
        (groups, in / groups, *kernel), float64: all output channels of a group read the same. (1, in) where linear.
    """
    if isinstance(layer, nn.Linear):
        return counts.double().unsqueeze(0)
    # The gradient of the sum of all outputs with respect to a weight is what that weight reads.
    shape = (layer.groups, *layer.weight.shape[1:])
    with torch.enable_grad():
        weight = torch.zeros(shape, dtype=torch.float64, device=counts.device, requires_grad=True)
        (read,) = torch.autograd.grad(layer._conv_forward(counts.double().unsqueeze(0), weight, None).sum(), weight)
    return read.round()


def read_together(layer: WeightLayer, x: Tensor, y: Tensor) -> Tensor:
    """How often a weight reads a non-zero input while its output is non-zero.

    As long and as large as the layer's own gradient, and a forward pass; memory is bounded.

    Args:
        layer: whose geometry it is.
        x: inputs, (rows, in, *sites).
        y: at its outputs, (rows, out, *sites).

    Returns:
        The weight's shape, float64, whole numbers.
    """
    total = torch.zeros(layer.weight.shape, dtype=torch.float64, device=x.device)
    rows = max(1, _TOGETHER // max(x[0].numel(), y[0].numel()))
    # Whole numbers below 2**24 are exact in float32, and are made whole again where an algorithm is not.
    with torch.autocast(x.device.type, enabled=False):
        for part, fired in zip(torch.split(x, rows), torch.split(y, rows), strict=True):
            part, fired = (part != 0).float(), (fired != 0).float()
            if isinstance(layer, nn.Linear):
                total += (fired.T @ part).double().round()
                continue
            with torch.enable_grad():
                weight = torch.zeros(layer.weight.shape, device=x.device, requires_grad=True)
                out = layer._conv_forward(part, weight, None)
                total += torch.autograd.grad(out, weight, fired)[0].double().round()
    return total


def of_outputs(read: Tensor, layer: WeightLayer) -> Tensor:
    """What `read_by_taps` gives, spread over the output channels of each group: the weight's shape."""
    shape = layer.weight.shape
    groups = read.shape[0]
    return read.unsqueeze(1).expand(groups, shape[0] // groups, *shape[1:]).reshape(shape)


def slots_of(y: Tensor) -> float:
    """How many times each weight reads, for outputs (rows, out, *sites)."""
    return float(y.shape[0] * math.prod(y.shape[2:]))
