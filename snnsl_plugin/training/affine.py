"""What makes a channel fire without input: the bias of its layer, and scale and shift of the norms behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from snnsl_plugin.anatomy import is_neuron, parameter_of, set_aside, weight_layers

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True)
class Held:
    """One tensor of a number a channel.

    Attributes:
        tensor: shape (out,), of the model.
        start: what a new channel has.
        silences: whether a silent channel has 0 here; running statistics do not.
    """

    tensor: Tensor
    start: float
    silences: bool


def held_parameters(model: nn.Module, example: Tensor) -> dict[str, list[Held]]:
    """The tensors to hold at zero where a channel is to say nothing, by layer name.

    Args:
        model: any model; its modes, hooks and memories are left as they are.
        example: an input that it accepts.
    """
    behind = norms_behind(model, example)
    held: dict[str, list[Held]] = {}
    for name, layer in weight_layers(model).items():
        held[name] = [Held(parameter_of(layer, "bias"), 0.0, True)] if layer.bias is not None else []
        for norm in behind.get(name, []):
            for word, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
                tensor = parameter_of(norm, word) if hasattr(norm, word) else None
                if isinstance(tensor, Tensor) and tensor.shape == layer.weight.shape[:1]:
                    held[name].append(Held(tensor, start, word in ("weight", "bias")))
    return held


@torch.no_grad()
def norms_behind(model: nn.Module, example: Tensor) -> dict[str, list[nn.Module]]:
    """The norms that read what a layer writes, by layer name, found by one traced forward in eval mode.

    A layer's output is followed by its memory, which views (flatten, unflatten, containers) share, and through modules
    without synapses such as pools; not past a neuron, and not past an addition, in place or not.

    Args:
        model: any model; its modes, hooks and memories are left as they are.
        example: an input that it accepts.
    """
    writers: dict[int, tuple[str, int]] = {}  # address -> layer, and the tensor's version when it was written
    alive: list[Tensor] = []  # memory that is still referred to is not given to another tensor
    found: dict[str, list[nn.Module]] = {}

    def writer_of(x: Any) -> str | None:
        if not isinstance(x, Tensor):
            return None
        name, version = writers.get(x.data_ptr(), (None, -1))
        return name if version == x._version else None

    def note(output: Any, name: str) -> None:
        if isinstance(output, Tensor):
            writers[output.data_ptr()] = (name, output._version)
            alive.append(output)

    def follow(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        name = writer_of(args[0]) if args else None
        if name is not None:
            if isinstance(module, NORMS):
                found.setdefault(name, []).append(module)
            note(output, name)

    layers = {id(layer): name for name, layer in weight_layers(model).items()}
    with set_aside(model):
        for module in model.modules():
            if id(module) in layers:
                module.register_forward_hook(lambda _, args, output, name=layers[id(module)]: note(output, name))
            elif not is_neuron(module) and (isinstance(module, NORMS) or not list(module.children())):
                module.register_forward_hook(follow)
        model.eval()
        model(example)
    return found
