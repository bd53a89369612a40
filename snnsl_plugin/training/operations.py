"""Counts what each weight costs: the non-zero inputs that it multiplies, a sample."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import WeightLayer, multi_step, neurons
from snnsl_plugin.core.spikes import is_binary
from snnsl_plugin.errors import NothingMatched
from snnsl_plugin.training.taps import of_outputs, read_by_taps, rows_of
from snnsl_plugin.training.watcher import Watcher


class Operations(Watcher):
    """Counts, in training passes, the operations of each weight, as `metrics.measure` counts those of a network.

    A call of a layer whose inputs are all 0 or 1 does accumulates (`synops`), any other does multiply-accumulates
    (`macs`): for a weight, one for every site at which it reads a non-zero input, whether or not it is masked. Their
    sum over the connections of a network is its SynOps, or MACs, per sample.

    Samples are counted where the first neuron is called: in step mode 's' a sample begins where its state is at rest.

    Args:
        model: with spiking neurons.
        layers: the convolutions and linear layers to watch, by name.

    Raises:
        NothingMatched: the model has no spiking neuron, so steps cannot be told from samples.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> net = nn.Sequential(nn.Linear(2, 1), neuron.IFNode(step_mode="m"))
        >>> with Operations(net, {"0": net[0]}) as operations:
        ...     _ = net(torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]]))  # two steps of one sample
        >>> operations.fields()["0"]["synops"].tolist()
        [[2.0, 1.0]]
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, WeightLayer]) -> None:
        super().__init__(model)
        self._layers, self._neurons = dict(layers), neurons(model)
        if not self._neurons:
            raise NothingMatched(
                "operations are counted per sample, and without a spiking neuron steps cannot be told from samples: "
                "choose a criterion or growth without synops, e.g. 'fisher' or 'gradient'"
            )
        self._first: nn.Module | None = None

    def __enter__(self) -> Operations:
        for name, layer in self._layers.items():
            self.before(layer, partial(self._count, name))
        for neuron in self._neurons.values():
            self.before(neuron, partial(self._note_samples, neuron))
        return self

    def fields(self) -> dict[str, dict[str, Any]]:
        """`synops` and `macs` of each layer that has run: per sample, the weight's shape; over all ranks."""
        sums = self.sums.all()
        _, samples = sums.pop("samples", (None, 0.0))
        found: dict[str, dict[str, Any]] = {}
        for key, (read, _) in sums.items():
            word, _, name = key.partition("/")
            layer = self._layers[name]
            per_tap = read.view(-1, *layer.weight.shape[1:]) / samples
            zeros = {each: of_outputs(torch.zeros_like(per_tap), layer) for each in ("synops", "macs")}
            found.setdefault(name, zeros)[word] = of_outputs(per_tap, layer)
        return found

    def _count(self, name: str, arguments: tuple[Tensor, ...]) -> None:
        layer, x = self._layers[name], arguments[0].detach()
        times = torch.count_nonzero(rows_of(x, layer), dim=0)
        word = "synops" if is_binary(x) else "macs"
        self.sums.add(f"{word}/{name}", read_by_taps(layer, times).flatten(), 0.0)

    def _note_samples(self, neuron: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        self._first = self._first or neuron
        if neuron is not self._first:
            return
        several = multi_step(neuron)
        under_way = any(isinstance(memory, Tensor) for memory in getattr(neuron, "_memories", {}).values())
        if several or not under_way:
            self.sums.add("samples", torch.zeros(0), arguments[0].shape[1 if several else 0])
