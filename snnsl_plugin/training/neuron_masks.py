"""Masks of single neurons: the output of a neuron layer, multiplied by 0 or 1 for each neuron of its map.

A weight of a convolution serves many sites, so a neuron at one of them cannot be taken out by weights. Its mask is a
module beside the neuron's own, found in the model's `state_dict` as `NEURON.neuron_mask.mask`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.errors import BadOption

_CHILD = "neuron_mask"
_KEY = f".{_CHILD}.mask"


class NeuronMask(nn.Module):
    """What is multiplied onto the output of a neuron layer.

    Args:
        mask: bool, (C, ...): neurons that are there.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, neuron: nn.Module, args: Any, spikes: Tensor) -> Tensor:
        """Spikes (..., C, ...) of the neurons that are there: called by torch as a forward hook of the neuron."""
        mask: Tensor = self.mask  # type: ignore[assignment]
        return spikes * mask


def put_on_(neuron: nn.Module, mask: nn.Module) -> RemovableHandle:
    """From now on a neuron layer passes its output through a mask, before other hooks see it; in place.

    A copy of the model has a mask of its own.
    """
    neuron.add_module(_CHILD, mask)
    return neuron.register_forward_hook(mask, prepend=True)


def take_off_(neuron: nn.Module, handle: RemovableHandle) -> None:
    """Ends `put_on_`, in place."""
    handle.remove()
    delattr(neuron, _CHILD)


def masked_neurons(model: nn.Module) -> list[str]:
    """Names of the neuron layers that have a mask."""
    return [name for name, module in model.named_modules() if isinstance(getattr(module, _CHILD, None), nn.Module)]


def expect_masks_(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a fresh model the neuron masks of a trained one's `state_dict`, in place, so that it can load it.

    Args:
        model: of the same architecture, without masks.
        state: what the trained model's `state_dict()` gave.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> model = nn.Sequential(neuron.IFNode())
        >>> expect_masks_(model, {"0.neuron_mask.mask": torch.tensor([True, False])})
        >>> model(torch.ones(1, 2)).tolist()
        [[1.0, 0.0]]
    """
    for key, mask in state.items():
        if key.endswith(_KEY):
            put_on_(model.get_submodule(key.removesuffix(_KEY)), NeuronMask(mask.bool()))


def refuse_masked_neurons(model: nn.Module, what: str) -> None:
    """Refuses a network with masks of single neurons.

    Args:
        model: any.
        what: cannot be done with it, as the beginning of a sentence.

    Raises:
        BadOption: it has some.
    """
    if found := masked_neurons(model):
        raise BadOption(
            f"{what}: {found[0]!r} has a mask of single neurons, which no weight stands for. Prune with neurons=False"
        )


def resized_(buffer: Tensor, shape: torch.Size) -> Tensor:
    """A buffer that has another size now, and is the same object for whoever holds it; in place."""
    if buffer.shape != shape:
        buffer.data = torch.empty(shape, dtype=buffer.dtype, device=buffer.device)
    return buffer
