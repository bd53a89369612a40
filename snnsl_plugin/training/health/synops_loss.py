"""A price on synaptic operations: fewer spikes, and those to where few connections wait for them."""

from __future__ import annotations

import math
from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import WeightLayer, multi_step, neurons, weight_layers
from snnsl_plugin.core.spikes import is_binary
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.metrics.synops import synapses_per_input
from snnsl_plugin.training.health._care import Care
from snnsl_plugin.training.neuron_masks import refuse_masked_neurons
from snnsl_plugin.training.taps import rows_of


def synops_loss(model: nn.Module, *, weight: float = 0.05) -> SynopsLoss:
    """Weight * ln(1 + SynOps), with the SynOps per sample of the batch counted as `metrics.measure` counts them.

    A loss on synaptic operations is that of Sorbaro et al. 2020 ("Optimizing the energy consumption of spiking neural
    networks for neuromorphic applications"), who square the distance from a number asked for. The logarithm is ours: a
    tenth less is worth the same at any size and density, so one weight does for a whole ramp. Each spike pays for the
    non-zero weights that it meets, at borders and strides too; inputs that are not all 0 or 1 do multiply-accumulates
    and pay nothing. The gradient moves spikes, not masks.

    Args:
        model: its layers are watched in training passes.
        weight: factor, > 0; what e times the operations cost, in nats of loss.

    Raises:
        BadOption: a weight that is not positive; when training begins, soft masks of neurons, as in the rule `upr`.
        NothingMatched: the model has no spiking neuron.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise BadOption(f"weight={weight:g}: it must be above 0; leave synops_loss out for no price")
    watched = neurons(model)
    if not watched:
        raise NothingMatched("synops_loss: the model has no spiking neuron whose spikes could be paid for")
    return SynopsLoss(model, watched, weight)


class SynopsLoss(Care):
    """Holds what the spikes of the last pass have to pay.

    Args:
        model: whose convolutions and linear layers read spikes.
        watched: neuron layers, by name; they tell how many samples a pass has.
        weight: see `synops_loss`.
    """

    def __init__(self, model: nn.Module, watched: dict[str, nn.Module], weight: float) -> None:
        self._model, self._layers, self._watched, self._weight = model, weight_layers(model), watched, weight
        self._operations: list[Tensor] = []
        self._samples = 1
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> SynopsLoss:
        refuse_masked_neurons(self._model, "synops_loss cannot tell spikes from soft ones")
        self._handles = [
            *(each.register_forward_pre_hook(partial(self._count, each)) for each in self._layers.values()),
            *(each.register_forward_pre_hook(partial(self._note, each)) for each in self._watched.values()),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._operations = [], []

    def before_step(self, step: int) -> None:
        """Forgets passes that no loss was asked for."""
        self._operations = []

    def penalty(self) -> Tensor | None:
        """The price of the pass since the last step; None where no layer has read spikes in training."""
        done, self._operations = self._operations, []
        return self._weight * (torch.stack(done).sum() / self._samples).log1p() if done else None

    def _count(self, layer: WeightLayer, running: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        # A copy of the network carries the hook along.
        if running is layer and layer.training and is_binary(arguments[0].detach()):
            spikes = rows_of(arguments[0], layer).float().sum(0)
            met = synapses_per_input(layer, layer.weight.detach() != 0, spikes.shape)
            self._operations.append((spikes * met.float()).sum())

    def _note(self, neuron: nn.Module, running: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if running is neuron and neuron.training:
            self._samples = arguments[0].shape[1 if multi_step(neuron) else 0]
