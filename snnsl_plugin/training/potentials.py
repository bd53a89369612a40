"""The mean size of membrane potentials, by channel, while a network trains."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import channel_axis_of, multi_step, neurons
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.watcher import Watcher


class Potentials(Watcher):
    """Adds up |V| of spiking neurons in training passes; where a neuron has fired, V is the threshold.

    A neuron in multi-step mode is asked to keep the potentials of all steps (SpikingJelly's `store_v_seq`) for the pass
    that is recorded, and is as it was after it. Neurons without a membrane potential, as PSN, are left out.

    Args:
        model: whose neurons are watched inside the `with` block.
        downstream: which neuron a layer drives.
    """

    def __init__(self, model: nn.Module, downstream: Downstream) -> None:
        super().__init__(model)
        self._neurons, self._downstream = neurons(model), downstream
        self._stored = {name: getattr(each, "store_v_seq", None) for name, each in self._neurons.items()}

    def __enter__(self) -> Potentials:
        for name, each in self._neurons.items():
            self.before(each, partial(self._store, name))
            self.after(each, partial(self._add, name))
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for name in self._neurons:
            self._restore(name)

    def fields(self) -> dict[str, dict[str, Any]]:
        """`post_potential` of each layer whose neuron has run, (out,), >= 0, over all ranks."""
        sums = self.sums.all()
        means = {name: total / slots for name, (total, slots) in sums.items()}
        found = self._downstream.found.items()
        return {layer: {"post_potential": means[neuron]} for layer, neuron in found if neuron in means}

    def _store(self, name: str, _: tuple[Tensor, ...]) -> None:
        if self._stored[name] is not None:
            setattr(self._neurons[name], "store_v_seq", True)  # noqa: B010  (no Module declares it)

    def _restore(self, name: str) -> None:
        if self._stored[name] is not None:
            setattr(self._neurons[name], "store_v_seq", self._stored[name])  # noqa: B010

    @torch.no_grad()
    def _add(self, name: str, _: tuple[Tensor, ...], spikes: Tensor) -> None:
        neuron = self._neurons[name]
        potential = getattr(neuron, "v_seq" if multi_step(neuron) else "v", None)
        self._restore(name)
        if self._stored[name] is False:
            setattr(neuron, "v_seq", None)  # noqa: B010  (it holds the graph, and nobody else has asked for it)
        threshold = getattr(neuron, "v_threshold", None)
        if not isinstance(potential, Tensor) or potential.shape != spikes.shape or threshold is None:
            return
        size = torch.where(spikes != 0, torch.as_tensor(threshold).to(potential).abs(), potential.abs()).double()
        axis = channel_axis_of(neuron, spikes.dim()) % spikes.dim()
        others = [each for each in range(spikes.dim()) if each != axis]
        sums = size.sum(others) if others else size
        # Multiples of a power of two, so that no order of adding rounds, whatever the number of ranks.
        self.sums.add(name, (sums * 2.0**20).round() / 2.0**20, spikes.numel() // spikes.shape[axis])
