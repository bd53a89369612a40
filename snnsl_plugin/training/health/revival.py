"""Neurons that never fire are given more drive, until they do."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import neurons, parameter_of, time_first, unwrapped, weight_layers
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.affine import norms_behind
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.duration import steps
from snnsl_plugin.training.health._care import Care
from snnsl_plugin.training.recorder import SpikeRecorder

_log = logging.getLogger(__name__)


def revival(
    model: nn.Module,
    total_steps: int,
    steps_per_epoch: int,
    *,
    by: Literal["scale", "shift"] = "scale",
    factor: float = 1.5,
    shift: float = 0.1,
    every: str = "1ep",
    until: str = "80%",
    tries: int = 5,
) -> Revival:
    """Channels that have not fired once since the last look get a stronger drive (ours).

    With `scale` everything that makes the drive is multiplied: scale and shift of the norm behind each layer that
    drives the neuron, or else the layer's weights and bias of that channel. A neuron that rests at 0 fires as if its
    threshold were lower by the factor. With `shift` a share of the threshold is added to the norm's shift or the
    layer's bias, which also reaches a channel whose drive is never positive. A channel that no connection reaches, or
    that a pruner holds silent (its norm is 0, or its bias where there is no norm), is left alone. What the optimizer
    remembers is left as it is.

    Args:
        model: its neurons are watched in training passes.
        total_steps: of the training.
        steps_per_epoch: what epochs in durations refer to.
        by: what is changed.
        factor: of one revival by `scale`, > 1.
        shift: of one revival by `shift`, in thresholds, > 0.
        every: between two looks, a duration.
        until: of the last look, a duration.
        tries: how often one channel is revived at most.

    Raises:
        BadOption: an option outside its range.
        NothingMatched: the model has no spiking neuron.
    """
    if by not in ("scale", "shift"):
        raise BadOption(f"by={by!r}: choose 'scale' or 'shift'")
    if not (math.isfinite(factor) and factor > 1.0 and math.isfinite(shift) and shift > 0.0):
        raise BadOption(f"factor={factor:g} and shift={shift:g}: a revival needs a factor above 1 and a shift above 0")
    if tries < 1:
        raise BadOption(f"tries={tries}: a channel is revived at least once")
    pause, last = (steps(each, total_steps=total_steps, steps_per_epoch=steps_per_epoch) for each in (every, until))
    if pause < 1:
        raise BadOption(f"every={every!r} is {pause} steps: there is at least one between two looks")
    if not neurons(model):
        raise NothingMatched("revival: the model has no spiking neuron that could be silent")
    stronger = (
        _Stronger(lambda rows, _: rows * factor, ("weight", "bias"))
        if by == "scale"
        else _Stronger(lambda rows, threshold: rows + shift * threshold, ("bias",))
    )
    return Revival(model, stronger, pause, last, tries)


class Revival(Care):
    """Counts spikes, and what was done for channels that have none.

    Args:
        model: see `revival`.
        stronger: what is made larger, and how.
        every: in steps.
        until: in steps.
        tries: see `revival`.
    """

    def __init__(self, model: nn.Module, stronger: _Stronger, every: int, until: int, tries: int) -> None:
        self._model, self._stronger, self._every, self._until, self._tries = model, stronger, every, until, tries
        self._recorder = SpikeRecorder(model, layers=[], training_only=True)
        self._example: Tensor | None = None
        #: by neuron, the layers that drive it, each with the norms behind it
        self._drives: dict[str, dict[str, list[str]]] = {}
        #: by neuron, how often each channel was revived
        self._revived: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Revival:
        layers = weight_layers(self._model)
        self._downstream = Downstream(self._model, {name: parameter_of(each) for name, each in layers.items()})
        self._downstream.__enter__()
        self._recorder.__enter__()
        self._handles = [self._model.register_forward_pre_hook(self._keeper(), with_kwargs=True)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.__exit__(kind, error, trace)
        self._downstream.__exit__()
        for handle in self._handles:
            handle.remove()

    def before_step(self, step: int) -> None:
        """Looks for silent channels where it is time."""
        done = step - 1
        if not self._drives and self._example is not None:
            self._find(self._example)
        if done and done % self._every == 0 and done <= self._until:
            for name, (counts, _) in self._recorder.all_output_counts().items():
                self._revive(name, (counts == 0).cpu(), done)
            self._recorder.clear()

    def report(self) -> dict[str, float]:
        """How many revivals there were so far, by neuron."""
        return {f"revived/{name}": float(times.sum()) for name, times in self._revived.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {"spikes": self._recorder.state_dict(), "drives": self._drives, "revived": self._revived}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._recorder.load_state_dict(state["spikes"])
        self._drives, self._revived = state["drives"], dict(state["revived"])

    def _find(self, example: Tensor) -> None:
        if not self._downstream.found:
            raise NothingMatched("revival: no convolution or linear layer drives a neuron of the model: leave it out")
        norms = norms_behind(self._model, example)
        names = {id(each): name for name, each in unwrapped(self._model).named_modules()}
        for layer, neuron in self._downstream.found.items():
            behind = [names[id(norm)] for norm in norms.get(layer, [])]
            self._drives.setdefault(neuron, {})[layer] = behind
            if not self._changed(layer, behind):
                raise BadOption(
                    f"revival: the drive of {neuron!r} by layer {layer!r} has no {' or '.join(self._stronger.words)} "
                    "to make stronger: choose another `by`, or leave revival out"
                )

    def _changed(self, layer: str, norms: list[str]) -> list[nn.Parameter]:
        """What is made stronger: numbers of the norms behind a layer, or else of the layer, a row a channel."""
        inner = unwrapped(self._model)
        holders = [inner.get_submodule(name) for name in norms] or [inner.get_submodule(layer)]
        return [
            parameter_of(each, word)
            for each in holders
            for word in self._stronger.words
            if isinstance(getattr(each, word, None), Tensor)
        ]

    @torch.no_grad()
    def _revive(self, name: str, silent: Tensor, done: int) -> None:
        inner = unwrapped(self._model)
        before = self._revived.get(name, torch.zeros(len(silent), dtype=torch.int64))
        revived = torch.zeros_like(silent)
        threshold = float(torch.as_tensor(getattr(inner.get_submodule(name), "v_threshold", 1.0)).abs().max())
        for layer, norms in self._drives.get(name, {}).items():
            weight: Tensor = inner.get_submodule(layer).weight.detach()  # type: ignore[operator]
            if len(weight) != len(silent):  # its rows are sites, not channels
                continue
            rows = silent & (before < self._tries) & _any(weight)
            for tensor in self._changed(layer, norms):
                # A pruner that holds a channel silent has its norm at zero, or its bias where there is no norm.
                open_ = rows & (_any(tensor) | _any(self._scale(norms))) if norms else rows & _any(tensor)
                where = open_.to(tensor.device)
                tensor[where] = self._stronger.change(tensor[where], threshold)
                revived |= open_
        self._revived[name] = before + revived
        if bool(revived.any()):
            _log.info(
                "revival: %d of %d silent channels of %s, after step %d",
                int(revived.sum()), int(silent.sum()), name, done,
            )  # fmt: skip

    def _scale(self, norms: list[str]) -> Tensor:
        found = [unwrapped(self._model).get_submodule(name) for name in norms]
        return next(each.weight for each in found if isinstance(each.weight, Tensor))

    def _keeper(self) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        # A closure, not a bound method: a deep copy of the model then does not copy this object.
        def keep(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = next((each for each in (*args, *named.values()) if isinstance(each, Tensor)), None)
            # Which layer drives which neuron is seen in training passes only.
            if module is self._model and module.training and self._example is None and x is not None:
                self._example = (x[:, :1] if time_first(module) else x[:1]).detach().clone()

        return keep


@dataclass(frozen=True)
class _Stronger:
    """How numbers of a drive are made larger, given the threshold, and what they are called in their module."""

    change: Callable[[Tensor, float], Tensor]
    words: tuple[str, ...]


def _any(tensor: Tensor) -> Tensor:
    """Which rows have a number that is not zero: bool, (rows,), on the CPU."""
    return (tensor.detach() != 0).reshape(len(tensor), -1).any(1).cpu()
