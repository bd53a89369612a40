"""What spikes leave behind at the end of a pass: traces of a layer's inputs and of the neuron that it drives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import WeightLayer, channel_axis_of, multi_step, neurons
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.training.recorder import channel_axis
from snnsl_plugin.training.watcher import Watcher

#: The `Layer` fields that are recorded here.
FIELDS = frozenset({"post_trace", "trace_product", "trace_square"})
#: Share of a trace that is left after a step, as in DPAP.
DECAY = 0.5


class Traces(Watcher):
    """Sums over samples of products of traces: tr <- 0.5 tr + s over the steps of a pass, summed over sites.

    With y the trace of the driven neuron's channels and x that of the layer's input channels at the end of a pass,
    three sums over samples are kept: of y, of y x and of y^2 x. Spikes make traces whole multiples of a power of two,
    so these sums are exact, however samples are spread over ranks; with real inputs, such as pixels, their last bits
    hang on the order of samples. DPAP's authors divide traces by T, which no normalised use sees; ours are not divided.

    In single-step mode a pass ends where the state of its neuron is at rest again, or where it is asked for.

    Args:
        model: whose training passes are looked at.
        layers: the convolutions and linear layers to watch, by name.
        driven: the neuron that each layer drives, by name, as `Downstream` finds it while the model runs.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, WeightLayer], driven: Mapping[str, str]) -> None:
        super().__init__(model)
        self._layers, self._neurons, self._driven = dict(layers), neurons(model), driven
        self._inputs: dict[str, Tensor] = {}  # of the call that is under way, by layer
        self._open: dict[str, tuple[Tensor, dict[str, Tensor]]] = {}  # single-step passes under way, by neuron

    def __enter__(self) -> Traces:
        for name, layer in self._layers.items():
            self.before(layer, partial(self._arrives, name))
        for name, neuron in self._neurons.items():
            self.before(neuron, partial(self._begins, name))
            self.after(neuron, partial(self._fires, name))
        return self

    def fields(self) -> dict[str, dict[str, Any]]:
        """By layer that drives a neuron: the three sums and the number of samples; over all ranks."""
        self._end_passes()
        found: dict[str, dict[str, Any]] = {}
        for key, (flat, samples) in self.sums.all().items():
            field, _, name = key.partition("/")
            shape = (-1,) if field == "post_trace" else self._layers[name].weight.shape[:2]
            found.setdefault(name, {"trace_samples": samples})[field] = flat.view(shape)
        return found

    def clear(self) -> None:
        """Starts anew."""
        super().clear()
        self._inputs, self._open = {}, {}

    def state_dict(self) -> dict[str, Tensor | float]:
        """The sums so far, over all ranks: plain tensors and numbers."""
        self._end_passes()
        return super().state_dict()

    def _arrives(self, name: str, arguments: tuple[Tensor, ...]) -> None:
        self._inputs[name] = arguments[0].detach()

    def _begins(self, name: str, arguments: tuple[Tensor, ...]) -> None:
        memories = getattr(self._neurons[name], "_memories", {})
        if name in self._open and not any(isinstance(memory, Tensor) for memory in memories.values()):
            self._add(*self._open.pop(name))

    def _fires(self, name: str, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        neuron, spikes = self._neurons[name], output.detach()
        leading = 2 if multi_step(neuron) else 1
        post = _channels(spikes, channel_axis_of(neuron, spikes.dim()), leading)
        pre = {}
        for each in [each for each, driven in self._driven.items() if driven == name and each in self._inputs]:
            x = _with_time(self._inputs.pop(each), spikes.shape[:leading], each)
            pre[each] = _channels(x, channel_axis(self._layers[each]), leading)
        if leading == 2:
            self._add(_trace(post), {each: _trace(x) for each, x in pre.items()})
            return
        if name in self._open:
            before, sources = self._open[name]
            post = DECAY * before + post
            pre = {each: DECAY * sources[each] + x for each, x in pre.items()}
        self._open[name] = (post, pre)

    def _end_passes(self) -> None:
        for name in list(self._open):
            self._add(*self._open.pop(name))

    def _add(self, post: Tensor, pre: dict[str, Tensor]) -> None:
        for name, x in pre.items():
            layer = self._layers[name]
            if post.shape[1] != layer.weight.shape[0]:
                raise MissingStatistic(
                    f"layer {name!r} has {layer.weight.shape[0]} output channels but the neuron that it drives has "
                    f"{post.shape[1]}: exclude the layer, or choose a rule without traces"
                )
            groups = getattr(layer, "groups", 1)
            sources = x.reshape(len(x), groups, -1)
            self.sums.add(f"post_trace/{name}", post.sum(0), len(post))
            for field, y in (("trace_product", post), ("trace_square", post.square())):
                value = torch.einsum("ngo,ngi->goi", y.reshape(len(y), groups, -1), sources)
                self.sums.add(f"{field}/{name}", value.flatten(), len(post))


def _with_time(x: Tensor, leading: torch.Size, name: str) -> Tensor:
    """The input with the neuron's leading axes: a container hands (T N, ...) to the layers within."""
    if x.shape[: len(leading)] == leading:
        return x
    if x.shape[0] == leading.numel():
        return x.reshape(*leading, *x.shape[1:])
    raise MissingStatistic(
        f"layer {name!r} reads {tuple(x.shape)}, in which {tuple(leading)}, the steps and samples of the neuron that "
        "it drives, are not found: exclude the layer, or choose a rule without traces"
    )


def _channels(x: Tensor, channel: int, leading: int) -> Tensor:
    """Sums over sites: (T, N, C) from two leading axes, (N, C) from one; in float64."""
    if x.dim() == leading + 1:
        return x.double()
    return x.movedim(channel, leading).flatten(leading + 1).sum(-1, dtype=torch.float64)


def _trace(x: Tensor) -> Tensor:
    """(T, N, C) to (N, C)."""
    trace = torch.zeros_like(x[0])
    for step in x:
        trace = DECAY * trace + step
    return trace
