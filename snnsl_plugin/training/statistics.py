"""The running statistics that criteria and growths ask for, recorded between two mask updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.core.layer import PER_CHANNEL, Layer
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.training.coincidences import Coincidences
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.operations import Operations
from snnsl_plugin.training.potentials import Potentials
from snnsl_plugin.training.recorder import SpikeRecorder
from snnsl_plugin.training.scale_gradients import ScaleGradients
from snnsl_plugin.training.surrogates import Surrogates
from snnsl_plugin.training.traces import FIELDS, Traces
from snnsl_plugin.training.watcher import Watcher

#: Statistics of the neuron that a layer drives.
BEHIND = {"post_spikes", "coincidence", "correlation", "surrogate", "post_potential", *FIELDS}


class Statistics:
    """Records what is needed, at some steps, and forgets it after each update.

    Args:
        model: whose forward passes are counted.
        weights: per layer, the parameter whose gradient is watched.
        needs: names of the `Layer` fields to record.
        sampled: whether a step, numbered from 1, is recorded.
    """

    def __init__(
        self, model: nn.Module, weights: Mapping[str, nn.Parameter], needs: set[str], sampled: Callable[[int], bool]
    ) -> None:
        self._weights, self._squares_wanted, self._sampled = weights, "grad_square" in needs, sampled
        self._recorder = self._downstream = None
        #: what counts by hooks, by the word of its state
        self._watchers: dict[str, SpikeRecorder | Watcher] = {}
        known = weight_layers(model)
        layers = {name: known[name] for name in weights}
        if needs & {"pre_spikes", "post_spikes"}:
            outputs = "post_spikes" in needs
            self._recorder = SpikeRecorder(model, layers=list(weights), outputs=outputs, training_only=True)
            self._watchers["spikes"] = self._recorder
        if needs & BEHIND:
            self._downstream = Downstream(model, weights)
        if self._downstream and needs & FIELDS:
            self._watchers["traces"] = Traces(model, layers, self._downstream.found)
        if needs & {"synops", "macs"}:
            self._watchers["operations"] = Operations(model, layers)
        if self._downstream and "post_potential" in needs:
            self._watchers["potentials"] = Potentials(model, self._downstream)
        if "scale_grad" in needs:
            self._watchers["scales"] = ScaleGradients(model, weights)
        if self._downstream and needs & {"coincidence", "correlation"}:
            self._watchers["coincidences"] = Coincidences(model, layers, self._downstream)
        if self._downstream and "surrogate" in needs:
            self._watchers["surrogates"] = Surrogates(model, layers, self._downstream)
        self._grad_square: dict[str, Tensor] = {}
        self._squares = 0

    def start(self) -> None:
        """Puts in the hooks, for step 1."""
        for watcher in self._watchers.values():
            watcher.__enter__()
        if self._downstream:
            self._downstream.__enter__()
        self.before_step(1)

    def before_step(self, step: int) -> None:
        """Decides whether the coming step, numbered from 1, is recorded."""
        for watcher in self._watchers.values():
            watcher.recording = self._sampled(step)
            if isinstance(watcher, Watcher):
                watcher.before_step()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Takes in the gradients of a step.

        Raises:
            MissingStatistic: a squared gradient is wanted and a layer has no gradient.
        """
        for watcher in self._watchers.values():
            if isinstance(watcher, Watcher):
                watcher.after_step()
        if not self._squares_wanted or not self._sampled(step):
            return
        self._squares += 1
        for name, weight in self._weights.items():
            if weight.grad is None:
                raise MissingStatistic(
                    f"layer {name!r} has no gradient to square: call the pruner after loss.backward() and before "
                    "optimizer.zero_grad()"
                )
            if name in self._grad_square:
                self._grad_square[name].addcmul_(weight.grad, weight.grad)
            else:
                self._grad_square[name] = weight.grad.square()

    def of(self, name: str) -> dict[str, Any]:
        """The statistics of one layer, as fields of `Layer`; those not recorded are absent."""
        return self.all().get(name, {})

    def all(self) -> dict[str, dict[str, Any]]:
        """The statistics of every layer, over all ranks: a collective call where there are several."""
        fields: dict[str, dict[str, Any]] = {name: {} for name in self._weights}
        if self._squares:
            for name, total in self._grad_square.items():
                fields[name]["grad_square"] = total / self._squares
        if self._recorder:
            for name, (counts, slots) in self._recorder.all_input_counts().items():
                fields[name] |= {"pre_spikes": counts, "pre_slots": slots}
        if self._recorder and self._downstream:
            fired = self._recorder.all_output_counts()
            for name, neuron in self._downstream.found.items():
                if neuron in fired:
                    counts, slots = fired[neuron]
                    fields[name] |= {"post_spikes": counts, "post_slots": slots}
        for watcher in self._watchers.values():
            for name, found in watcher.fields().items() if isinstance(watcher, Watcher) else ():
                fields[name] |= found
        return fields

    def rates(self) -> dict[str, float]:
        """Mean firing rate of the inputs of each layer since the last update, per step, in [0, 1]."""
        if not self._recorder:
            return {}
        return {name: float(rate.mean()) for name, rate in self._recorder.input_rates().items()}

    def clear(self) -> None:
        """Starts anew after an update."""
        self._grad_square, self._squares = {}, 0
        for watcher in self._watchers.values():
            watcher.clear()

    def close(self) -> None:
        """Removes the hooks."""
        for watcher in self._watchers.values():
            watcher.__exit__(None, None, None)
        if self._downstream:
            self._downstream.__exit__()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors."""
        watched = {word: watcher.state_dict() for word, watcher in self._watchers.items()}
        return {"grad_square": self._grad_square, "squares": self._squares, "spikes": {}} | watched

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self._squares = state["squares"]
        self._grad_square = {name: value.to(self._weights[name].device) for name, value in state["grad_square"].items()}
        for word, watcher in self._watchers.items():
            watcher.load_state_dict(state[word])


def needed(functions: list[Callable[[Layer], Tensor]]) -> set[str]:
    """The names of the statistics that functions of a layer ask for through `Layer.need`.

    They are run on a layer of a single weight that notes what it is asked for, so nobody keeps a list that rots.

    Args:
        functions: criteria and growths with their options bound.
    """
    asked: set[str] = set()

    class Asked(Layer):
        def need(self, statistic: str) -> Tensor:
            asked.add(statistic)
            return torch.ones(1) if statistic in PER_CHANNEL else torch.ones(1, 1)

    Asked.__name__ = Asked.__qualname__ = "Layer"  # what errors of a criterion of one's own should speak of
    one = torch.ones(1, 1)
    layer = Asked("asked", one, {"mask": one.bool()}, pre_slots=1.0, post_slots=1.0, generator=torch.Generator())
    for function in functions:
        function(layer)
    return asked


def check_trainable(weights: Mapping[str, nn.Parameter], optimizer: Optimizer, needs: set[str]) -> None:
    """Refuses weights that cannot be pruned while they train.

    Args:
        weights: by layer name.
        optimizer: should hold them all.
        needs: names of the `Layer` fields that criteria and growths ask for.

    Raises:
        BadOption: a weight shared by two layers, frozen, or not in the optimizer; an optimizer without the momentum
            that a growth asks for.
    """
    owner: dict[int, str] = {}
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for name, weight in weights.items():
        if (other := owner.setdefault(id(weight), name)) != name:
            raise BadOption(f"layers {other!r} and {name!r} share one weight, and each would mask it: exclude both")
        if not weight.requires_grad:
            raise BadOption(f"layer {name!r} is frozen (requires_grad=False): exclude it, or train it")
        if id(weight) not in trained:
            raise BadOption(f"the optimizer does not hold the weight of layer {name!r}: exclude it, or add it there")
    groups = optimizer.param_groups
    if "momentum" in needs and not any(group.get("momentum") or "betas" in group for group in groups):
        raise BadOption(
            f"growth 'momentum' needs an optimizer with momentum, and {type(optimizer).__name__} has none here: use "
            "SGD(momentum=0.9), Adam or AdamW, or choose growth 'gradient'"
        )
