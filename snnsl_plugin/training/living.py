"""Which connections lie on a path from the input to the output, and silence for channels that no input reaches.

A channel whose last incoming connection was pruned still fires if a bias or a batch norm's shift is above threshold.
Its outgoing connections would then be on no path from the input, yet do something. So its bias, scale and shift are
held at zero until a connection reaches it again: the count of live connections and the function agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from snnsl_plugin.anatomy import reset_, time_first, weight_layers
from snnsl_plugin.errors import Disconnected, MissingStatistic, SnnslError
from snnsl_plugin.metrics.paths import Paths, live_paths


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
        self._held: dict[str, list[tuple[nn.Parameter, float]]] | None = None
        self._catch = model.register_forward_pre_hook(self._keep_example)

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
            Disconnected: there is no path at all, or none can be traced through this model.
        """
        if self.example is None:
            raise MissingStatistic("the pruner saw no forward pass of its model: train it, or pass paths=False")
        try:
            paths = live_paths(self._model, self.example, masks=dict(masks))
        except SnnslError:
            raise
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise Disconnected(
                f"live paths cannot be traced through this model ({type(error).__name__}: {error}): set paths=False to "
                "prune without counting live connections"
            ) from error
        if not any(bool(mask.any()) for mask in paths.live.values()):
            raise Disconnected(
                f"after the update at step {step} no path leads from the input to the output: raise the last density, "
                "choose distribution 'erk', or exclude the smallest layers"
            )
        self._set_dead_({name.removesuffix(".weight"): rows for name, rows in paths.dead_rows.items()})
        return paths

    @torch.no_grad()
    def after_step_(self) -> None:
        """Zeroes, in place, what would make an unreachable channel fire."""
        for name, rows in self.dead.items():
            for parameter, _ in self._parameters()[name]:
                parameter[rows] = 0.0

    @torch.no_grad()
    def _set_dead_(self, dead: Mapping[str, Tensor]) -> None:
        for name, before in self.dead.items():
            back = before & ~dead[name]
            for parameter, start in self._parameters()[name] if bool(back.any()) else []:
                parameter[back] = start
                for value in self._optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value[back] = 0.0
        self.dead = {name: rows.clone() for name, rows in dead.items() if bool(rows.any())}

    def _parameters(self) -> dict[str, list[tuple[nn.Parameter, float]]]:
        if self._held is None:
            if self.example is None:
                raise MissingStatistic("the pruner saw no forward pass of its model: train that model first")
            norms = norms_after(self._model, self.example)
            self._held = {}
            for name, layer in weight_layers(self._model).items():
                parts = [(layer.bias, 0.0)]
                if name in norms:
                    parts += [(norms[name].weight, 1.0), (norms[name].bias, 0.0)]
                self._held[name] = [(p, start) for p, start in parts if isinstance(p, nn.Parameter)]
        return self._held

    def _keep_example(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if self.example is None and args:
            x = args[0].detach()
            self.example = (x[:, :1] if time_first(module) else x[:1]).clone()


@torch.no_grad()
def norms_after(model: nn.Module, example: Tensor) -> dict[str, _NormBase]:
    """The batch norm that reads each layer's output directly, by layer name, found by one traced forward.

    Args:
        model: in any mode; modes are restored and states reset.
        example: an input that the model accepts.
    """
    produced: dict[int, str] = {}
    kept: list[Tensor] = []  # keeps the ids of the outputs from being given to other tensors
    found: dict[str, _NormBase] = {}

    def after(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            produced[id(output)] = name
            kept.append(output)

        return hook

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        name = produced.get(id(args[0]))
        if name is not None and isinstance(module, _NormBase):
            found[name] = module

    handles = [layer.register_forward_hook(after(name)) for name, layer in weight_layers(model).items()]
    norms = [module for module in model.modules() if isinstance(module, _NormBase) and module.affine]
    handles += [norm.register_forward_pre_hook(before) for norm in norms]
    modes = [(module, module.training) for module in model.modules()]
    try:
        reset_(model)
        model.eval()
        model(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
        reset_(model)
    return found
