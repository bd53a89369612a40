"""The gradient of a factor on each output channel: of the batch norm's scale, also where a channel is masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from snnsl_plugin.anatomy import WeightLayer, channel_axis_of, weight_layers
from snnsl_plugin.training.affine import NORMS
from snnsl_plugin.training.recorder import channel_axis
from snnsl_plugin.training.watcher import Watcher


@dataclass
class _Call:
    """One call of a layer: what it would have written without masks, and whether a norm has read it."""

    name: str
    whole: Tensor
    read: bool = False


class ScaleGradients(Watcher):
    """Adds up dL / d gamma = sum of g x^ over steps, samples and sites, in training passes.

    g is the gradient at the output of the batch norm that reads a layer directly, x^ the layer's normalised output. A
    masked channel has an output of zero and so no such gradient; here its x^ is computed from the weights beneath the
    mask, by one more pass of the layer in the recorded steps: the gradient at gamma = 0. Where no norm reads the layer,
    g and x are those of its own output. Under loss scaling the sums have that scale, which no ranking within a layer
    sees unless it changes between two updates.

    Args:
        model: watched inside the `with` block.
        weights: by layer name, the parameter that the optimizer sees: what lies beneath the masks.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
        super().__init__(model)
        known = weight_layers(model)
        self._layers: dict[str, WeightLayer] = {name: known[name] for name in weights}
        self._weights = weights
        self._norms = [each for each in model.modules() if isinstance(each, NORMS)]
        self._fresh: list[tuple[str, Tensor]] = []
        self._calls: dict[int, _Call] = {}
        self._written: list[Tensor] = []  # memory that is still referred to is not given to another tensor
        self._barred: set[str] = set()

    def __enter__(self) -> ScaleGradients:
        for name, layer in self._layers.items():
            self.after(layer, partial(self._writes, name))
        for norm in self._norms:
            self.after(norm, partial(self._reads, norm))
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.before_step()

    def before_step(self) -> None:
        """Forgets passes whose step was skipped."""
        self._fresh.clear()
        self._calls.clear()
        self._written.clear()

    def after_step(self) -> None:
        """Takes in the gradients of a step that the optimizer has taken."""
        for name, sums in self._fresh:
            self.sums.add(name, sums, 1.0)
        self._fresh.clear()

    def fields(self) -> dict[str, dict[str, Any]]:
        """`scale_grad` of each layer, (out,), over all ranks; a layer that cannot be told is missing."""
        found = {name: sums for name, (sums, _) in self.sums.all().items() if name not in self._barred}
        return {name: {"scale_grad": sums} for name, sums in found.items() if not self._blocked(name, sums)}

    def _blocked(self, name: str, sums: Tensor) -> bool:
        """Whether nothing arrives at any masked channel: a norm farther behind holds them at a scale of zero."""
        beneath = (self._weights[name].detach() != 0).flatten(1).any(1)  # there is something that could come back
        waiting = (_silent(self._layers[name]) & beneath).to(sums.device)
        return bool(waiting.any()) and not bool(sums[waiting].any())

    def _writes(self, name: str, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        if not output.requires_grad:
            return
        layer = self._layers[name]
        with torch.no_grad():
            whole, dead = output.detach(), _silent(layer)
            if bool(dead.any()):
                beneath = self._weights[name].detach()
                rows = dead.view(-1, *(1,) * (beneath.dim() - 1))
                whole = whole + _outputs(layer, arguments[0].detach(), beneath * rows)
        call = self._calls[output.data_ptr()] = _Call(name, whole)
        self._written.append(output)
        axis = channel_axis(layer)

        def take(gradient: Tensor) -> None:
            if not call.read:
                self._add(name, gradient, call.whole, axis)

        output.register_hook(take)  # type: ignore[no-untyped-call]

    def _reads(self, norm: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        call = self._calls.pop(arguments[0].data_ptr(), None)
        if call is None or arguments[0].numel() != call.whole.numel() or not output.requires_grad:
            return
        call.read = True
        if not isinstance(norm, _BatchNorm):
            self._barred.add(call.name)
            return
        axis = channel_axis_of(norm, arguments[0].dim())
        whole, eps, name = call.whole.reshape(arguments[0].shape), norm.eps, call.name

        def take(gradient: Tensor) -> None:
            self._add(name, gradient, _normalised(whole, axis, eps), axis)

        output.register_hook(take)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def _add(self, name: str, gradient: Tensor, values: Tensor, axis: int) -> None:
        others = [each for each in range(values.dim()) if each != axis % values.dim()]
        sums = (gradient.double() * values.double()).sum(others)
        # Multiples of a power of two, so that no order of adding rounds, whatever the number of ranks.
        self._fresh.append((name, (sums * 2.0**40).round() / 2.0**40))


def _silent(layer: Any) -> Tensor:
    """Output channels whose weights are all zero: bool, (out,)."""
    silent: Tensor = ~(layer.weight.detach() != 0).flatten(1).any(1)
    return silent


def _outputs(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    """What a layer would write with other weights and no bias, in either step mode."""
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight)
    steps = x.shape[: x.dim() - weight.dim() + 1]
    written: Tensor = layer._conv_forward(x.flatten(0, len(steps) - 1), weight, None)
    return written.view(*steps, *written.shape[1:])


def _normalised(x: Tensor, axis: int, eps: float) -> Tensor:
    others = [each for each in range(x.dim()) if each != axis % x.dim()]
    variance, mean = torch.var_mean(x.double(), others, correction=0, keepdim=True)
    return (x.double() - mean) / (variance + eps).sqrt()
