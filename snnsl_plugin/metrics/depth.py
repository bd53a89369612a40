"""How deep a network still is: the longest chain of layers over live connections, and residual blocks without any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import as_found, is_neuron, shadow, weight_layers, weight_name
from snnsl_plugin.core.paths import drawn_where
from snnsl_plugin.metrics.layers import Synapses, evaluating, synaptic_layers
from snnsl_plugin.metrics.paths import AveragePooling, applied, live_paths, replaced

_SEED = 0


@dataclass(frozen=True)
class Depth:
    """How deep a network is.

    Attributes:
        layers: convolutions and linear layers on the longest chain in which each feeds the next by live connections.
        blocks: residual blocks, by dotted module name: how many of the connections of their layers are live.
    """

    layers: int
    blocks: dict[str, int]

    @property
    def dead(self) -> list[str]:
        """The residual blocks without a live connection: what they are given is what they give."""
        return [name for name, live in self.blocks.items() if not live]


@torch.inference_mode(False)
def depth(model: nn.Module, example: Tensor, masks: Mapping[str, Tensor] | None = None) -> Depth:
    """The depth of a network with these masks.

    Layers feed each other at sites and channels: a connection counts where something of an earlier layer's live output
    meets it, with no other layer in between. The chain is one of layers: each feeds the next, by whichever channel.

    Args:
        model: as for `live_paths`; left as it was.
        example: an input that the model accepts; only shape and device are read.
        masks: bool, keyed by unwrapped dotted parameter name; a layer without one keeps its non-zero weights.

    Raises:
        NothingMatched: no layer to look at, or a mask that belongs to none.
    """
    live = live_paths(model, example, masks).live
    found = {
        name: sum(int(live[weight_name(layer)].count_nonzero()) for layer in layers)
        for name, layers in residual_blocks(model, example).items()
    }
    probe = _Chain(live, torch.Generator(example.device).manual_seed(_SEED))
    _run(model, example, probe)
    return Depth(max((each.depth for each in probe.nodes), default=0), found)


@torch.inference_mode(False)
def residual_blocks(model: nn.Module, example: Tensor) -> dict[str, list[str]]:
    """The blocks that give what they are given where their layers give nothing, each with the names of its layers.

    Found by running the model with neurons and norms passed over and each candidate's layers silent; the innermost
    ones count. A block whose shortcut has a convolution of its own is none, nor is one that multiplies its branch in
    (SEW with `AND`): without its branch it is no identity.

    Args:
        model: as for `live_paths`; left as it was.
        example: an input that the model accepts; only shape and device are read.
    """
    probe = _Silence(torch.Generator(example.device).manual_seed(_SEED))
    layers = list(weight_layers(model))
    inside = {
        name: [layer for layer in layers if layer.startswith(f"{name}.")]
        for name, module in model.named_modules()
        if name and name not in layers and not is_neuron(module)
    }
    tried = {name: probe.around(name, model.get_submodule(name)) for name, own in inside.items() if own}
    _run(model, example, probe, tried)
    passing = [name for name in inside if probe.passes.get(name)]
    innermost = [name for name in passing if not any(other.startswith(f"{name}.") for other in passing)]
    return {name: inside[name] for name in innermost}


@torch.no_grad()
def identities(model: nn.Module, example: Tensor, names: Iterable[str]) -> dict[str, bool]:
    """Whether blocks give exactly what they are given, in eval mode; the model is left as it was.

    Each is given spikes of its own, every second one of them at random: what reaches it in the network may be silence,
    which proves nothing.

    Args:
        model: with its weights pruned.
        example: an input that the model accepts, of as many steps and samples as are to be tried.
        names: dotted module names.
    """
    blocks = {name: model.get_submodule(name) for name in names}
    shapes: dict[str, torch.Size] = {}

    def noted(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: shapes.__setitem__(name, args[0].shape)

    generator = torch.Generator().manual_seed(_SEED)
    with evaluating(model), ExitStack() as stack:
        with as_found(model):
            for name, block in blocks.items():
                stack.callback(block.register_forward_pre_hook(noted(name)).remove)
            model(example)
        stack.close()
        same = {}
        for name, block in blocks.items():
            spikes = (torch.rand(shapes[name], generator=generator) < 0.5).to(example)
            with as_found(block):
                same[name] = torch.equal(block(spikes.clone()), spikes)
    return same


@dataclass(frozen=True)
class _Node:
    """A call of a layer: how many layers the longest chain to it has, itself included, and what it gives."""

    depth: int
    gives: Tensor


class _Chain:
    """Cuts the graph at every layer, so that a gradient with respect to what a layer gives tells whom it feeds."""

    def __init__(self, live: Mapping[str, Tensor], generator: torch.Generator) -> None:
        self.nodes: list[_Node] = []
        self._live, self._generator = live, generator

    def forward_of(self, name: str, layer: Synapses) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            weight = self._live[name].to(x.dtype)
            cut = x.detach().requires_grad_()
            out = applied(layer, cut, weight)
            if not self._live[name].any():
                return out.detach()
            (met,) = torch.autograd.grad(out.sum(), cut)
            feeding = [node.depth for node in self.nodes if _feeds(node.gives, x, drawn_where(met, self._generator))]
            gives = drawn_where(out.detach(), self._generator).requires_grad_()
            self.nodes.append(_Node(1 + max(feeding, default=0), gives))
            return gives

        return forward


def _feeds(gives: Tensor, x: Tensor, met: Tensor) -> bool:
    if not x.requires_grad:
        return False
    (gradient,) = torch.autograd.grad(x, gives, met, retain_graph=True, allow_unused=True)
    return gradient is not None and bool(((gradient != 0) & (gives != 0)).any())


class _Silence:
    """Layers give numbers, or nothing while the block around them is tried."""

    def __init__(self, generator: torch.Generator) -> None:
        self.passes: dict[str, bool] = {}
        self._generator, self._silent = generator, False

    def forward_of(self, name: str, layer: Synapses) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            with torch.no_grad():
                out = applied(layer, x, torch.ones_like(layer.weight, dtype=x.dtype))
                return torch.zeros_like(out) if self._silent else drawn_where(out, self._generator)

        return forward

    def around(self, name: str, module: nn.Module) -> Callable[..., Any]:
        run = module.forward

        def forward(*args: Any, **named: Any) -> Any:
            if not self._silent and args and isinstance(args[0], Tensor):
                given, self._silent = args[0].clone(), True
                out = run(args[0], *args[1:], **named)
                self._silent = False
                same = isinstance(out, Tensor) and torch.equal(out, given)
                self.passes[name] = same and self.passes.get(name, True)
                args = (given, *args[1:])
            return run(*args, **named)

        return forward


def _run(
    model: nn.Module, example: Tensor, probe: _Chain | _Silence, around: Mapping[str, Callable[..., Any]] | None = None
) -> None:
    """One pass with the probe in place of the layers, and other forwards in place of those of whole modules."""
    dtype = next(iter(synaptic_layers(model).values())).weight.dtype
    x = drawn_where(torch.ones_like(example, dtype=dtype), torch.Generator(example.device).manual_seed(_SEED))
    with torch.enable_grad(), evaluating(model), replaced(model, probe, ()), ExitStack() as stack, AveragePooling():
        for name, forward in (around or {}).items():
            shadow(model.get_submodule(name), forward, stack)
        model(x)
