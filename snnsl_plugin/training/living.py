"""Which connections lie on a path from the input to the output, and silence for channels that no input reaches.

A channel whose last incoming connection was pruned still fires if a bias or a norm's shift is above threshold. Its
outgoing connections would then be on no path from the input, yet do something. So its bias, scale and shift are held at
zero until a connection reaches it again: the count of live connections and the function agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import set_aside, time_first, weight_layers, weight_name
from snnsl_plugin.core.spikes import spikes_per_channel
from snnsl_plugin.errors import Disconnected, MissingStatistic, SnnslError
from snnsl_plugin.metrics.paths import Paths, live_paths
from snnsl_plugin.training.affine import Held, held_parameters
from snnsl_plugin.training.recorder import channel_axis


class Living:
    """Finds live connections after each update and holds unreachable channels silent.

    Args:
        model: its first forward pass shows what an input looks like.
        optimizer: its memory of returning channels is zeroed.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self.example: Tensor | None = None
        self.dead: dict[str, Tensor] = {}
        self._held: dict[str, list[Held]] | None = None
        self._catch = model.register_forward_pre_hook(self._keeper(), with_kwargs=True)

    def close(self) -> None:
        """Removes the hook."""
        self._catch.remove()

    def update_(self, masks: Mapping[str, Tensor], step: int) -> Paths:
        """Traces paths through the masks; channels that are reached again start like new ones.

        Args:
            masks: bool, by dotted parameter name.
            step: for the error.

        Raises:
            MissingStatistic: no forward pass was seen.
            Disconnected: there is no path at all, none can be traced through this model, or an unreachable channel
                cannot be silenced.
        """
        paths = self.paths(masks)
        if not any(bool(mask.any()) for mask in paths.live.values()):
            raise Disconnected(
                f"after the update at step {step} no path leads from the input to the output: raise the last density, "
                "choose distribution 'erk', or exclude the smallest layers"
            )
        before = self.dead
        self._set_dead_({name: paths.dead_rows[weight_name(name)] for name in weight_layers(self._model)})
        self.after_step_()
        if self.dead and (before.keys() != self.dead.keys() or any(not before[n].equal(self.dead[n]) for n in before)):
            self._check_silence(masks, paths)
        return paths

    def paths(self, masks: Mapping[str, Tensor]) -> Paths:
        """Traces paths through the masks, and leaves everything as it is.

        Raises:
            MissingStatistic: no forward pass was seen.
            Disconnected: none can be traced through this model.
        """
        try:
            return live_paths(self._model, self._seen(), masks=dict(masks))
        except SnnslError:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise Disconnected(
                f"live paths cannot be traced through this model ({type(error).__name__}: {error}): set paths=False to "
                "prune without counting live connections"
            ) from error

    @torch.no_grad()
    def after_step_(self) -> None:
        """Zeroes, in place, what would make an unreachable channel fire."""
        for name, rows in self.dead.items():
            for held in self._parameters()[name]:
                if held.silences:
                    held.tensor[rows] = 0.0

    @torch.no_grad()
    def _set_dead_(self, dead: Mapping[str, Tensor]) -> None:
        for name, before in self.dead.items():
            back = before & ~dead[name]
            for held in self._parameters()[name] if bool(back.any()) else []:
                held.tensor[back] = held.start
                for value in self._optimizer.state.get(held.tensor, {}).values():
                    if isinstance(value, Tensor) and value.shape == held.tensor.shape:
                        value[back] = 0.0
        self.dead = {name: rows.clone() for name, rows in dead.items() if bool(rows.any())}

    def _parameters(self) -> dict[str, list[Held]]:
        if self._held is None:
            self._held = held_parameters(self._model, self._seen())
        return self._held

    def _seen(self) -> Tensor:
        if self.example is None:
            raise MissingStatistic(
                "the pruner saw no forward pass of its model (a training step that calls a part of it, such as "
                "self.net(x), goes past it): call the model, or set paths=False"
            )
        return self.example

    @torch.no_grad()
    def _check_silence(self, masks: Mapping[str, Tensor], paths: Paths) -> None:
        """One pass in eval mode: channels that no path reaches must be zero where a layer reads them.

        A linear layer behind a flattened map reads sites, not channels, and a bias may well fire at a site that no
        connection reaches within a channel that others do; such layers are not asked.
        """
        loud: list[str] = []
        written: set[int] = {
            weight.shape[1] for weight in list(masks.values())[:1]
        }  # channels that layers wrote so far

        def listener(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            def before(module: Any, args: tuple[Tensor, ...]) -> None:
                kept, reached = masks[weight_name(name)], paths.forward[weight_name(name)]
                reads_channels = kept.dim() > 2 or kept.shape[1] in written
                written.add(kept.shape[0])
                unreached = _inputs(kept, module) & ~_inputs(reached, module)
                active = spikes_per_channel(args[0], channel_axis(module))[0] > 0
                if reads_channels and bool((unreached & active).any()):
                    loud.append(name)

            return before

        with set_aside(self._model):
            self._model.eval()
            for name, layer in weight_layers(self._model).items():
                layer.register_forward_pre_hook(listener(name))
            self._model(self._seen())
        if loud:
            raise Disconnected(
                f"channels that no input reaches still act on layer {loud[0]!r}, through a bias that was not found "
                f"before it: exclude {', '.join(self.dead)} from pruning, raise the last density, or set paths=False"
            )

    def _keeper(self) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        # A closure, not a bound method: a deep copy of the model then copies neither this object nor the optimizer.
        def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = next((each for each in (*args, *named.values()) if isinstance(each, Tensor)), None)
            if module is self._model and self.example is None and x is not None:
                self.example = (x[:, :1] if time_first(module) else x[:1]).detach().clone()

        return keep


def _inputs(mask: Tensor, layer: Any) -> Tensor:
    """Which input channels have a connection in a mask: bool, (in,)."""
    groups = getattr(layer, "groups", 1)
    return mask.view(groups, mask.shape[0] // groups, mask.shape[1], -1).any(3).any(1).flatten()
