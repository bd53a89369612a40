"""Channels held silent in a model that still has them: what a cut is measured against."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import LAYERS, channel_axis_of, is_neuron, set_aside
from snnsl_plugin.errors import CannotCut
from snnsl_plugin.training.affine import NORMS

Model = TypeVar("Model", bound=nn.Module)


def copied(model: Model) -> Model:
    """A deep copy at rest, without the hooks of others.

    Raises:
        CannotCut: the model cannot be copied.
    """
    with set_aside(model):  # at rest, so no graph of an earlier batch is in the way
        try:
            return copy.deepcopy(model)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CannotCut(
                f"this {type(model).__name__} cannot be copied to try the cut on ({error}): pass verify=False to cut "
                "without that proof"
            ) from error


@torch.no_grad()
def silence_(model: nn.Module, channels: Mapping[str, Sequence[int]], neuron_types: Sequence[type[nn.Module]]) -> None:
    """Silences channels, in place: rows and biases are zero, so are a norm's scale and shift, and neurons say nothing.

    Args:
        model: hooks stay on its neurons.
        channels: by dotted module name, of layers, norms and neurons.
        neuron_types: classes of one's own that are neurons.
    """
    for name, gone in channels.items():
        module = model.get_submodule(name)
        if is_neuron(module, tuple(neuron_types)):
            module.register_forward_hook(_muting(sorted(set(gone))))
        elif isinstance(module, nn.modules.conv._ConvTransposeNd):
            module.register_forward_hook(_muting(sorted(set(gone))))  # its rows are columns, of one group each
        elif isinstance(module, LAYERS + NORMS):
            for tensor in (module.weight, module.bias):
                if isinstance(tensor, Tensor):
                    tensor.data[list(gone)] = 0.0
            if isinstance(module, NORMS) and module.weight is None:
                module.register_forward_hook(_muting(sorted(set(gone))))  # a running mean is taken off silence, too


def _muting(gone: list[int]) -> Callable[[Any, Any, Any], Any]:
    def hook(module: Any, _: Any, output: Any) -> Any:
        spikes = output[0] if isinstance(output, tuple) else output
        last = spikes.dim() - 1
        axis = last if isinstance(module, nn.LayerNorm) else channel_axis_of(module, spikes.dim())
        if isinstance(module, nn.modules.conv._ConvNd):
            axis = last - len(module.kernel_size)
        muted = spikes.index_fill(axis, torch.tensor(gone, dtype=torch.long, device=spikes.device), 0.0)
        return (muted, *output[1:]) if isinstance(output, tuple) else muted

    return hook
