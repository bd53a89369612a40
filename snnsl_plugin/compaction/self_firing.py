"""Channels that no input reaches and that act on others all the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import LAYERS, channel_axis_of, is_neuron, set_aside
from snnsl_plugin.compaction.equality import random_like
from snnsl_plugin.compaction.lifeless import Going
from snnsl_plugin.compaction.tracing import Forward, call
from snnsl_plugin.training.affine import NORMS
from snnsl_plugin.training.recorder import channel_axis


def self_firing(
    model: nn.Module,
    example: Any,
    all_going: Sequence[Going],
    *,
    forward: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> dict[str, list[int]]:
    """Channels that no input reaches, but whose bias or shift makes them act on others; measured in eval mode.

    Args:
        model: left as it was.
        example: only its shape matters, because nothing of the input reaches these channels.
        all_going: what is to be cut.
        forward: how the model is called.
        neuron_types: classes of one's own that are neurons.

    Returns:
        By name of a norm or of a layer with a bias: channels above zero where a neuron reads them, whose time may come
        after more steps than the example has; or not zero where none does. By name of a neuron where it fires without.
    """
    own = tuple(neuron_types)
    modules = {name: model.get_submodule(name) for each in all_going for name in each.members}
    said = _said(model, example, modules, forward)
    found: dict[str, list[int]] = {}
    for each in all_going:
        firing = [name for name in each.members if is_neuron(modules[name], own)]
        for channel in [channel for channel in each.channels if channel not in each.useless]:
            at = {name: [index for index, root in pairs if root == channel] for name, pairs in each.members.items()}
            pushing = {
                name: [index for index in at[name] if said[name][0 if firing else 1][index]]
                for name in each.members
                if name not in firing and _shifts(modules[name])
            }
            loud = {name: [index for index in at[name] if said[name][1][index]] for name in firing}
            for name, indices in (pushing if any(pushing.values()) else loud).items():
                found.setdefault(name, []).extend(indices)
    return {name: sorted(set(indices)) for name, indices in found.items() if indices}


def _shifts(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or (isinstance(module, LAYERS) and module.bias is not None)


@torch.no_grad()
def _said(
    model: nn.Module, example: Any, modules: Mapping[str, nn.Module], forward: Forward | None
) -> dict[str, tuple[list[bool], list[bool]]]:
    """Per module, for each channel: whether it ever was above zero, and whether it ever was not zero."""
    said: dict[str, tuple[Tensor, Tensor]] = {}

    def listen(name: str, module: nn.Module, output: Any) -> None:
        x = output[0] if isinstance(output, tuple) else output
        axis = channel_axis(module) if isinstance(module, LAYERS) else _channels_at(module, x)
        flat = x.detach().movedim(axis, 0).flatten(1)
        up, off = (flat > 0).any(1), (flat != 0).any(1)
        before = said.get(name, (up, off))
        said[name] = before[0] | up, before[1] | off

    with set_aside(model):
        for name, module in modules.items():
            module.register_forward_hook(lambda module, _, output, name=name: listen(name, module, output))
        model.eval()
        (forward or call)(model, random_like(example))
    return {name: (up.tolist(), off.tolist()) for name, (up, off) in said.items()}


def _channels_at(module: nn.Module, x: Tensor) -> int:
    if isinstance(module, nn.LayerNorm):
        return x.dim() - 1
    return channel_axis_of(module, x.dim())
