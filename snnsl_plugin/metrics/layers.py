"""What every measure asks of a network: its connections, the neurons that fire, and eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import WeightLayer, neurons, weight_layers, weight_name
from snnsl_plugin.errors import BadOption, NothingMatched

Synapses: TypeAlias = WeightLayer


def synaptic_layers(model: nn.Module) -> dict[str, Synapses]:
    """Every convolution and linear layer by its dotted name, in the order of registration.

    Raises:
        NothingMatched: there is none.
    """
    layers = weight_layers(model)
    if not layers:
        raise NothingMatched(f"{type(model).__name__} has no Conv1d, Conv2d, Conv3d or Linear layer to look at")
    return layers


def firing_neurons(model: nn.Module, extra: Sequence[type[nn.Module]] = ()) -> dict[str, nn.Module]:
    """Every neuron layer that fires, by its dotted name; read-outs of the membrane potential (NonSpiking*) are not.

    Args:
        model: the network.
        extra: further classes that are spiking neurons.
    """
    return {
        name: neuron
        for name, neuron in neurons(model, tuple(extra)).items()
        if not any("NonSpiking" in parent.__name__ for parent in type(neuron).__mro__)
    }


def connection_masks(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The connections of every synaptic layer: its mask, or its non-zero weights where it has no mask.

    A connection that has just been grown has weight 0 and is a connection all the same, so a mask has the last word.

    Args:
        model: the network.
        masks: bool, keyed by unwrapped dotted parameter name, each of the shape of its weight.

    Returns:
        Bool tensors keyed by parameter name, on the weights' devices.

    Raises:
        NothingMatched: no synaptic layer, or a mask whose name is no synaptic layer's weight.
        BadOption: a mask of another shape than its weight.
    """
    masks = masks or {}
    found: dict[str, Tensor] = {}
    with evaluating(model):  # a soft mask, as of the rule upr, is hard where the network is judged
        weights = {name: module.weight.detach() for name, module in synaptic_layers(model).items()}
    for layer, weight in weights.items():
        name = weight_name(layer)
        if name in masks and masks[name].shape != weight.shape:
            raise BadOption(f"the mask of {name} is {tuple(masks[name].shape)}, the weight {tuple(weight.shape)}")
        found[name] = masks[name].to(weight.device, torch.bool) if name in masks else weight != 0
    if strangers := masks.keys() - found.keys():
        raise NothingMatched(
            f"mask {sorted(strangers)[0]!r} belongs to no convolution or linear layer (known: {', '.join(found)})"
        )
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The network in eval mode; afterwards every module is in the mode it had, also when the body raises."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
