"""How many synaptic operations a spike of each neuron causes, and how many a weight does, in the dense network."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import WeightLayer, multi_step, set_aside, shadow, time_first
from snnsl_plugin.errors import BadOption
from snnsl_plugin.metrics.layers import evaluating, firing_neurons, synaptic_layers
from snnsl_plugin.metrics.paths import AveragePooling, pass_on, passes_on
from snnsl_plugin.metrics.synops import synapses_per_input


@dataclass(frozen=True)
class FanOut:
    """Operations per sample and step.

    Attributes:
        sites: by layer name, at how many sites of its output each weight is used: H * W of a convolution, 1 of a
            linear layer.
        neurons: by name of a neuron layer, how many synapses each neuron drives, summed over all layers that read it,
            shape (C, ...), float32; a layer that no weight reads is missing.
    """

    sites: dict[str, float]
    neurons: dict[str, Tensor]


@torch.inference_mode(False)
def fan_out(model: nn.Module, example: Tensor) -> FanOut:
    """Counts them by one pass, in which every neuron fires half a spike, and the gradient of all operations.

    Borders count: a neuron there drives fewer synapses. Behind a pool of k sites a neuron has 1/k of what the pool
    drives, whatever its kind, and behind a product of spikes (AND, IAND) one half. The model is left as it was.

    Args:
        model: any model; it is looked at in eval mode, without hooks of others.
        example: an input that it accepts; one sample of one step is enough.

    Raises:
        NothingMatched: it has no convolution or linear layer.
        BadOption: a neuron layer that is called with maps of several sizes.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), neuron.IFNode(), nn.Conv2d(1, 2, 3, padding=1))
        >>> found = fan_out(net, torch.ones(1, 1, 3, 3))
        >>> found.sites, found.neurons["1"].tolist()  # a corner is read by 4 of 9 weights, of two channels
        ({'0': 9.0, '2': 9.0}, [[[8.0, 12.0, 8.0], [12.0, 18.0, 12.0], [8.0, 12.0, 8.0]]])
    """
    layers = {id(layer): (name, layer) for name, layer in synaptic_layers(model).items()}
    firing = {id(neuron): (name, neuron) for name, neuron in firing_neurons(model).items()}
    probe = _Probe()
    weight = next(iter(layers.values()))[1].weight
    sample = example[:1, :1] if time_first(model) else example[:1]
    with torch.enable_grad(), evaluating(model), set_aside(model), ExitStack() as stack:
        for module in model.modules():
            if id(module) in layers:
                shadow(module, probe.reads(*layers[id(module)]), stack)
            elif id(module) in firing:
                shadow(module, probe.fires(*firing[id(module)]), stack)
            elif passes_on(module):
                shadow(module, pass_on, stack)
        with AveragePooling():
            model(torch.full_like(sample, 0.5, dtype=weight.dtype, device=weight.device))
        return probe.found()


class _Probe:
    """Notes what the layers read, and who fired it."""

    def __init__(self) -> None:
        self._rows: dict[str, list[float]] = {}
        self._leaves: dict[str, list[Tensor]] = {}
        self._leading: dict[str, int] = {}
        self._driven: list[Tensor] = []
        self._linear: set[str] = set()
        self._samples = 1

    def reads(self, name: str, layer: WeightLayer) -> Callable[..., Tensor]:
        own = max(1, layer.weight.dim() - 1)
        dense = torch.ones_like(layer.weight, dtype=torch.bool)
        if own == 1:
            self._linear.add(name)

        def forward(x: Tensor) -> Tensor:
            if x.requires_grad:
                fan = synapses_per_input(layer, dense, x.shape[x.dim() - own :])
                self._driven.append((x.double() * fan).sum())
            out: Tensor = type(layer).forward(layer, x.detach())  # type: ignore[arg-type]
            sites = out.shape[out.dim() - own + 1 :].numel() if own > 1 else out.shape[:-1].numel()
            self._rows.setdefault(name, []).append(float(sites))
            return out.detach()

        return forward

    def fires(self, name: str, neuron: nn.Module) -> Callable[..., Tensor]:
        leading = 2 if multi_step(neuron) else 1

        def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
            leaf = torch.full_like(x, 0.5).requires_grad_()
            before = self._leaves.setdefault(name, [])
            if before and before[0].shape[leading:] != leaf.shape[leading:]:
                raise BadOption(
                    f"neuron layer {name!r} is called with maps of {tuple(before[0].shape[leading:])} and of "
                    f"{tuple(leaf.shape[leading:])} neurons, and a mask fits one size: set neurons=False"
                )
            before.append(leaf)
            self._leading[name] = leading
            self._samples = leaf.shape[:leading].numel()
            return leaf.clone()  # a tensor of its own: the code behind it may add to it in place

        return forward

    def found(self) -> FanOut:
        if self._driven:
            torch.stack(self._driven).sum().backward()  # type: ignore[no-untyped-call]
        sites = {
            name: sum(rows) / len(rows) / (self._samples if name in self._linear else 1)
            for name, rows in self._rows.items()
        }
        neurons = {}
        for name, leaves in self._leaves.items():
            counts = [leaf.grad.flatten(0, self._leading[name] - 1) for leaf in leaves if leaf.grad is not None]
            if counts:
                neurons[name] = torch.cat(counts).abs().mean(0).float()
        return FanOut(sites, neurons)
