"""What a rule may know about one layer: its weights, its state, and the statistics recorded since the last update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from snnsl_plugin.errors import MissingStatistic

#: What a rule keeps for one layer. It always holds "mask" (bool, shaped like the weight); the rest is the rule's own.
State: TypeAlias = dict[str, Tensor]

#: Statistics that are one number a channel; most others have the weight's shape.
PER_CHANNEL = ("pre_spikes", "post_spikes", "surrogate", "post_potential", "scale_grad")

_TRACES = "let at least one training pass go by, and let one of the layers drive a spiking neuron"
_WAY_OUT = {
    "grad": "call the pruner after loss.backward() and before optimizer.zero_grad()",
    "momentum": "train with momentum (SGD(momentum=0.9), Adam, AdamW), or choose growth 'gradient' or 'random'",
    "grad_square": "let the pruner take at least one step with gradients before the first update",
    "pre_spikes": "record with SpikeRecorder (DynamicPruner does so by itself) and run at least one forward pass",
    "post_spikes": "no spiking neuron follows it in a training pass, or none has run yet: exclude the layer, or choose "
    "a criterion without post_spikes",
    "coincidence": "no spiking neuron follows it in a training pass, or none has run yet: exclude the layer, or choose "
    "a growth without coincidence",
    "correlation": "no spiking neuron follows it in a training pass, or none has run yet: exclude the layer, or choose "
    "a criterion without correlation",
    "surrogate": "no neuron with a surrogate_function follows it in a training pass, or none has run yet: exclude the "
    "layer, or choose a criterion without surrogate",
    "synops": "run at least one training pass of a spiking network before the first update",
    "macs": "run at least one training pass of a spiking network before the first update",
    "post_trace": _TRACES,
    "trace_product": _TRACES,
    "trace_square": _TRACES,
    "post_potential": "no spiking neuron with a membrane potential follows it in a training pass, or none has run yet: "
    "exclude the layer, or choose a criterion without post_potential",
    "scale_grad": "no backward pass was seen, or the norm that reads it is no batch norm, or none of its gradient "
    "reaches a masked channel (a norm behind a pool, a surrogate that is zero at rest): choose another growth, or "
    "exclude the layer",
    "drives": "call the whole model once before the pruner, so that it can be looked through",
    "generator": "pass a seeded torch.Generator",
}


@dataclass(frozen=True)
class Layer:
    """One weight tensor and what is known about it.

    Attributes:
        name: the unwrapped dotted module name, e.g. `features.0`.
        weight: shape (out, in / groups, *kernel) or (out, in).
        state: holds "mask" (bool, the weight's shape) and what else the rule keeps.
        prunable: False for a layer that is counted but never pruned.
        groups: convolution groups.
        grad: the dense gradient of the last step, the weight's shape.
        momentum: the optimizer's running mean of the dense gradient, the weight's shape.
        grad_square: running mean of the squared gradient since the last update, the weight's shape.
        pre_spikes: non-zero inputs per input channel since the last update, shape (in,), a count.
        pre_slots: how many inputs each channel had in that time (steps x samples x sites), a count.
        post_spikes: spikes per channel of the first neuron that the layer drives, in that time, shape (out,), a count.
        post_slots: how many outputs each channel had in that time (steps x samples x sites), a count.
        coincidence: covariance, in that time, of a weight's input being non-zero and its output spiking, over steps,
            samples and output sites, the weight's shape, in [-1/4, 1/4].
        correlation: the same over both standard deviations, in [-1, 1]; 0 where either end never changes.
        surrogate: mean derivative of the surrogate at the neuron that an output channel drives, shape (out,).
        synops: accumulates of each weight per sample, the weight's shape: the spikes that it multiplies, masked or not.
        macs: its multiply-accumulates per sample: the non-zero inputs where they are not all 0 or 1.
        post_trace: trace of that neuron's channels at the end of a pass (tr <- 0.5 tr + s, over sites), summed over
            samples, shape (out,).
        trace_samples: how many samples that were, a count.
        trace_product: sum over them of that trace times the trace of an input channel, shape (out, in / groups).
        trace_square: the same with the square of the former.
        post_potential: mean size of the membrane potential of that neuron in that time, by channel, shape (out,), >= 0.
        scale_grad: sum of the gradients of a factor on each output channel in that time, shape (out,): of the batch
            norm that reads the layer, or else of the channel as it is.
        drives: synaptic operations that a weight does per spike of its input, a scalar (the sites of the layer's
            output), or that a spike of each neuron causes, shape (C, ...); dense, told to the penalty of a rule.
        generator: this layer's own stream of random numbers.
    """

    name: str
    weight: Tensor
    state: State
    prunable: bool = True
    groups: int = 1
    grad: Tensor | None = None
    momentum: Tensor | None = None
    grad_square: Tensor | None = None
    pre_spikes: Tensor | None = None
    pre_slots: float = 0.0
    post_spikes: Tensor | None = None
    post_slots: float = 0.0
    coincidence: Tensor | None = None
    correlation: Tensor | None = None
    surrogate: Tensor | None = None
    synops: Tensor | None = None
    macs: Tensor | None = None
    post_trace: Tensor | None = None
    trace_samples: float = 0.0
    trace_product: Tensor | None = None
    trace_square: Tensor | None = None
    post_potential: Tensor | None = None
    scale_grad: Tensor | None = None
    drives: Tensor | None = None
    generator: torch.Generator | None = field(default=None, repr=False)

    @property
    def mask(self) -> Tensor:
        """The mask in force: bool, the weight's shape, True where a connection exists."""
        return self.state["mask"]

    def need(self, statistic: str) -> Tensor:
        """A recorded tensor, or an error that says how to get it.

        Raises:
            MissingStatistic: nobody recorded it.
        """
        value: Tensor | None = getattr(self, statistic)
        if value is None:
            raise MissingStatistic(f"layer {self.name!r} has no {statistic}: {_WAY_OUT[statistic]}")
        return value

    def random(self) -> Tensor:
        """Uniform numbers in [0, 1) shaped like the weight, from this layer's own generator.

        Raises:
            MissingStatistic: the layer has no generator.
        """
        if self.generator is None:
            raise MissingStatistic(f"layer {self.name!r} has no generator: {_WAY_OUT['generator']}")
        # Drawn where the generator lives, so that a CPU and a GPU run choose the same connections.
        drawn = torch.rand(self.weight.shape, generator=self.generator, device=self.generator.device)
        return drawn.to(self.weight.device)


def per_weight(channels: Tensor, layer: Layer) -> Tensor:
    """Spreads one number per input channel over the weights that read that channel.

    Args:
        channels: shape (in,).
        layer: gives the weight's shape (out, in / groups, *kernel) and its groups.

    Returns:
        A tensor that broadcasts against the weight: (1, in, 1, ...) or, grouped, (out, in / groups, 1, ...).

    Raises:
        MissingStatistic: the number of channels is not the layer's.
    """
    out, per_group = layer.weight.shape[:2]
    if channels.numel() != per_group * layer.groups:
        raise MissingStatistic(
            f"layer {layer.name!r} reads {per_group * layer.groups} input channels but {channels.numel()} were "
            "recorded: record it with a SpikeRecorder of the same model"
        )
    trailing = (1,) * (layer.weight.dim() - 2)
    if layer.groups == 1:
        return channels.view(1, per_group, *trailing)
    rows = channels.view(layer.groups, per_group).repeat_interleave(out // layer.groups, dim=0)
    return rows.view(out, per_group, *trailing)


def per_output(channels: Tensor, layer: Layer) -> Tensor:
    """Spreads one number per output channel over the weights that lead to that channel.

    Args:
        channels: shape (out,).
        layer: gives the weight's shape (out, ...).

    Returns:
        A tensor that broadcasts against the weight: (out, 1, ...).

    Raises:
        MissingStatistic: the number of channels is not the layer's.
    """
    if channels.numel() != layer.weight.shape[0]:
        raise MissingStatistic(
            f"layer {layer.name!r} has {layer.weight.shape[0]} output channels but the neuron that it drives has "
            f"{channels.numel()}: exclude the layer, or choose a criterion that does not look at the neuron"
        )
    return channels.view(-1, *(1,) * (layer.weight.dim() - 1))


def operations(layer: Layer) -> Tensor:
    """How many non-zero inputs each weight multiplies per sample, the weight's shape and type, >= 0.

    Spikes are accumulated and real inputs multiplied; both count as one here, so that a layer that reads pixels costs
    what a layer does that reads as many spikes.

    Raises:
        MissingStatistic: they were not counted.
    """
    return (layer.need("synops") + layer.need("macs")).to(layer.weight)


# The annotation carries the folder in which recipes find the functions.
Schedule: TypeAlias = Annotated[Callable[[float], float], "schedules"]
Criterion: TypeAlias = Annotated[Callable[[Layer], Tensor], "criteria"]
Growth: TypeAlias = Annotated[Callable[[Layer], Tensor], "growth"]
Distribution: TypeAlias = Annotated[
    Callable[[Sequence[Layer], dict[str, Tensor], int], dict[str, int]], "distributions"
]
Divergence: TypeAlias = Annotated[Callable[[Tensor, Tensor], Tensor], "divergences"]
