"""Slow, obvious oracles, and a layer on which most scores tie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snnsl_plugin.core.layer import PER_CHANNEL, Layer
from snnsl_plugin.errors import BadOption


def tied_layer(seed: int = 0, *, name: str = "layer.weight", shape: tuple[int, ...] = (6, 5, 3, 3)) -> Layer:
    """A layer with all statistics, rounded so coarsely that most scores tie, and a silent input channel.

    Args:
        seed: of everything random in it.
        name: its name.
        shape: of the weight, (out, in, ...).
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return (torch.randn(shape, generator=generator) * 2).round() / 2

    mask = torch.rand(shape, generator=generator) < 0.6
    mask.view(-1)[:2] = torch.tensor([True, False])
    spikes = torch.randint(0, 4, (shape[1],), generator=generator).double()
    spikes[0] = 0
    beside = torch.Generator().manual_seed(seed)  # so that what is drawn above stays as it is
    reads = torch.randint(0, 3, (1, *shape[1:]), generator=beside).double().expand(shape) / 2
    silent = torch.arange(shape[1]).view(-1, *(1,) * (len(shape) - 2)) == 0
    together = (torch.rand(shape, generator=beside) * 4 - 2).round() / 8
    return Layer(
        name,
        drawn() * mask,
        {"mask": mask},
        grad=drawn(),
        momentum=drawn(),
        grad_square=drawn().square(),
        pre_spikes=spikes,
        pre_slots=8.0,
        post_spikes=torch.randint(0, 4, (shape[0],), generator=torch.Generator().manual_seed(seed)).double(),
        post_slots=6.0,
        coincidence=together.masked_fill(silent, 0.0),
        correlation=4 * together.masked_fill(silent, 0.0),
        surrogate=torch.randint(0, 4, (shape[0],), generator=beside).double() / 4,
        synops=reads.masked_fill(silent, 0.0),
        macs=torch.zeros(shape, dtype=torch.float64),
        post_trace=torch.randint(0, 5, (shape[0],), generator=torch.Generator().manual_seed(seed)).double() / 2,
        trace_samples=3.0,
        trace_product=torch.randint(0, 5, shape[:2], generator=torch.Generator().manual_seed(seed)).double() / 4,
        trace_square=torch.randint(0, 5, shape[:2], generator=torch.Generator().manual_seed(seed + 1)).double() / 8,
        post_potential=torch.arange(shape[0]).double() % 3,
        scale_grad=torch.arange(shape[0]).double() % 4 - 2.0,
        generator=torch.Generator().manual_seed(seed),
    )


def slow_keep_top(scores: Tensor, n_keep: int, among: Tensor | None = None) -> Tensor:
    """The mask of a stable descending sort in plain Python: ties go to the lowest flat index."""
    flat = scores.flatten().tolist()
    candidates = range(len(flat)) if among is None else [i for i, yes in enumerate(among.flatten().tolist()) if yes]
    best = sorted(candidates, key=lambda i: (-flat[i], i))[:n_keep]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[best] = True
    return mask.view(scores.shape)


def slow_drop_grow(layer: Layer, keep: Tensor, grow: Tensor, n_keep: int, swap: float) -> Tensor:
    """One layer's `drop_grow` as its docstring writes it, connection by connection."""
    alive = layer.mask.flatten().tolist()
    k = min(n_keep, sum(alive))
    survive = slow_keep_top(keep, k - math.floor(swap * k), layer.mask)
    return survive | slow_keep_top(grow, n_keep - int(survive.sum()), ~survive)


def slow_stds(theta: Sequence[float], thresholds: Sequence[float]) -> list[list[float]]:
    """The effective weights of STDS for a sequence of thresholds, number by number."""
    return [[math.copysign(max(abs(x) - d, 0.0), x) if x else 0.0 for x in theta] for d in thresholds]


def slow_driven_synapses(
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
    Every synapse is visited: ones are convolved with ones.

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
    active, weights = (x.detach() != 0).double(), (kept.detach() != 0).double()
    if kept.dim() == 2:
        return F.linear(active, weights).flatten(1).sum(1)
    convolutions = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
    if kept.dim() not in convolutions:
        raise BadOption(f"weights of {kept.dim()} dimensions: synapses are counted for linear and 1d to 3d conv layers")
    return convolutions[kept.dim()](active, weights, None, stride, padding, dilation, groups).flatten(1).sum(1)


def permuted(layer: Layer, order: Tensor, axis: int) -> Layer:
    """The layer with its output (axis 0) or input (axis 1) channels in another order."""
    of_weights = ("weight", "grad", "momentum", "grad_square", "coincidence", "correlation", "synops", "macs")
    of_channels = [each for each in PER_CHANNEL if (each == "pre_spikes") == (axis == 1)]
    moved: dict[str, Any] = {field: getattr(layer, field).index_select(axis, order) for field in of_weights}
    moved |= {field: layer.need(field)[order] for field in of_channels}
    return replace(layer, state={"mask": layer.mask.index_select(axis, order)}, **moved)
