"""Counts how often a weight's input and the neuron behind it are active at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import WeightLayer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.metrics.layers import firing_neurons
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.taps import of_outputs, own_dimensions, read_by_taps, read_together, rows_of
from snnsl_plugin.training.watcher import Watcher


class Coincidences(Watcher):
    """Counts, in training passes, what each weight reads together with the spikes of the neuron that it drives.

    Step, sample and output site are one slot: there a weight reads one number of its input (of a convolution's padding
    too), which is active where it is not zero, and there the first neuron behind its layer fires or not. Where a pool
    lies between the two, outputs are shared out evenly: the spike at site i answers for the sites i f to i f + f - 1,
    which is what it is made of where the pool does not overlap. Of a layer that is called several times before its
    neuron, the last call counts.

    A recorded pass costs one more forward pass of each layer and one more gradient of its weight.

    Args:
        model: with spiking neurons.
        layers: the convolutions and linear layers to watch, by name.
        downstream: knows which neuron each layer drives; its hooks come first.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> net = nn.Sequential(nn.Linear(2, 1, bias=False), neuron.IFNode(step_mode="m"))
        >>> _ = net[0].weight.data.fill_(1.0)
        >>> downstream = Downstream(net, {"0": net[0].weight})
        >>> with downstream, Coincidences(net, {"0": net[0]}, downstream) as two:
        ...     _ = net(torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 1.0]], [[0.0, 0.0]]]))  # fires where any does
        >>> two.fields()["0"]["coincidence"].tolist()  # 2/4 - 2/4 2/4 and 1/4 - 2/4 1/4
        [[0.25, 0.125]]
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, WeightLayer], downstream: Downstream) -> None:
        super().__init__(model)
        self._layers, self._neurons, self._downstream = dict(layers), firing_neurons(model), downstream
        self._read: dict[str, tuple[Tensor, torch.Size]] = {}

    def __enter__(self) -> Coincidences:
        for name, layer in self._layers.items():
            self.after(layer, partial(self._remember, name))
        for name, neuron in self._neurons.items():
            self.after(neuron, partial(self._count, name))
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._read.clear()

    def fields(self) -> dict[str, dict[str, Any]]:
        """`coincidence` and `correlation` of each layer whose neuron has fired or not: the weight's shape."""
        sums = self.sums.all()
        found = {}
        for name, layer in self._layers.items():
            if f"both/{name}" not in sums:
                continue
            both, slots = sums[f"both/{name}"]
            shape = layer.weight.shape
            post = sums[f"post/{name}"][0].view(-1, *(1,) * (len(shape) - 1))
            pre = of_outputs(sums[f"pre/{name}"][0].view(-1, *shape[1:]), layer)
            beyond = slots * both.view(shape) - post * pre  # slots squared times the covariance
            spread = (post * (slots - post) * pre * (slots - pre)).sqrt()
            correlation = torch.where(spread > 0, beyond / spread, 0.0)
            found[name] = {"coincidence": beyond / slots**2, "correlation": correlation}
        return found

    def _remember(self, name: str, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        self._read[name] = arguments[0].detach(), output.shape

    def _count(self, neuron: str, arguments: tuple[Tensor, ...], spikes: Tensor) -> None:
        for name in [each for each in self._read if self._downstream.found.get(each) == neuron]:
            x, shape = self._read.pop(name)
            layer = self._layers[name]
            fired = self._at_outputs(name, neuron, spikes.detach(), shape)
            x = rows_of(x, layer)
            slots = fired.numel() / fired.shape[1]
            self.sums.add(f"both/{name}", read_together(layer, x, fired).flatten(), slots)
            self.sums.add(f"pre/{name}", read_by_taps(layer, torch.count_nonzero(x, dim=0)).flatten(), slots)
            self.sums.add(f"post/{name}", torch.count_nonzero(fired.transpose(0, 1).flatten(1), dim=1), slots)

    def _at_outputs(self, name: str, neuron: str, spikes: Tensor, shape: torch.Size) -> Tensor:
        """Spikes of a neuron as (rows, out, *sites) of a layer's output."""
        own = own_dimensions(self._layers[name])
        channels, *sites = wanted = shape[len(shape) - own :]
        rows, tail = math.prod(shape[:-own]), spikes.shape[spikes.dim() - own :]
        if spikes.shape[-1] == math.prod(wanted) or tail == wanted:  # flattened between the two, or as it is
            fired = spikes.reshape(-1, *wanted)
        elif tail[0] == channels and all(many % few == 0 for many, few in zip(sites, tail[1:], strict=True)):
            fired = spikes.reshape(-1, *tail)
            for axis, (many, few) in enumerate(zip(sites, tail[1:], strict=True), start=2):
                fired = fired.repeat_interleave(many // few, dim=axis)
        else:
            fired = spikes.new_empty(0)
        if fired.shape[0] != rows:
            raise MissingStatistic(
                f"layer {name!r} puts out {tuple(shape)} and the neuron that it drives, {neuron!r}, "
                f"{tuple(spikes.shape)}: which spike answers which output cannot be told; exclude the layer, or choose "
                "a criterion or growth without coincidence or correlation"
            )
        return fired
