"""Scores that a rule learns beside the weights: one a weight, one a neuron, and an optimizer of the pruner's own.

The gradient of the loss reaches the scores through what the network computes with. That of the rule's penalty is added
to it when the pruner ends a step, so it is no part of anyone's loss: it is neither scaled with it, nor accumulated over
batches, nor averaged over ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import time_first
from snnsl_plugin.core.layer import Layer, State
from snnsl_plugin.errors import BadOption, MissingStatistic, NothingMatched, SnnslError
from snnsl_plugin.metrics.fan_out import FanOut, fan_out
from snnsl_plugin.metrics.layers import firing_neurons
from snnsl_plugin.training.mounting import Effective
from snnsl_plugin.training.neuron_masks import NeuronMask, put_on_, resized_, take_off_
from snnsl_plugin.training.options import Rule
from snnsl_plugin.training.pooling import in_parallel


class Scores:
    """The scores of a model's layers and neurons, and their optimizer.

    Args:
        model: its first forward pass shows how large its maps are, and who reads them.
        rule: has a learner.
        weights: of the prunable layers, by name.
        states: of the prunable layers; each has a "score", which is trained in place.
    """

    def __init__(
        self, model: nn.Module, rule: Rule, weights: Mapping[str, nn.Parameter], states: Mapping[str, State]
    ) -> None:
        self._model, self._rule, self._weights, self._states = model, rule, weights, states
        like = next(iter(weights.values())).detach()
        self._gates: dict[str, _Gate] = {}
        self._handles: dict[str, RemovableHandle] = {}
        self._neurons = firing_neurons(model) if rule.chosen.get("neurons") else {}
        if rule.chosen.get("neurons") and not self._neurons:
            raise NothingMatched("the model has no spiking neuron that a mask could be put on: set neurons=False")
        for name, neuron in self._neurons.items():
            self._gates[name] = _Gate(rule, like)
            self._handles[name] = put_on_(neuron, self._gates[name])
        self._scores = [state["score"].requires_grad_() for state in (*states.values(), *self._gate_states())]
        make: Any = rule.learner
        self._optimizer: Optimizer = make(self._scores)
        self._found: FanOut | None = None
        self._gathered = self._scaled = False
        #: whether the search is over and the scores stay
        self.settled = False
        self._look = model.register_forward_pre_hook(self._looks(), with_kwargs=True)

    @property
    def neuron_masks(self) -> dict[str, Tensor]:
        """Which neurons are there in eval mode: bool, (C, ...), by name of the neuron layer; those that have a mask."""
        return {name: gate.hard() for name, gate in self._gates.items() if gate.state["score"].numel()}

    def optimizer(self) -> Optimizer | None:
        """The optimizer of the scores, their gradients averaged over ranks; None once the scores stay.

        For whoever scales a loss: `scaler.unscale_(...)` it.
        """
        if self.settled:
            return None
        if not self._gathered:
            self._gathered = True
            _average_([score for score in self._scores if score.numel()])
        return self._optimizer

    def step_(self, progress: float, *, applied: bool) -> None:
        """Moves the scores along the gradient of loss and penalty, and forgets it.

        Args:
            progress: fraction of the search that has passed, in [0, 1].
            applied: False where the optimizer of the weights skipped this step: so do the scores.

        Raises:
            MissingStatistic: no forward pass of the model was seen.
            BadOption: the loss was scaled for float16 and the scores' gradients were not scaled back; or the model was
                moved after the scores were made.
        """
        if self.settled:
            return
        if self._scaled and not self._gathered:
            raise BadOption(
                "the network computed in float16, and if the loss was scaled, the gradients of the masks' scores still "
                "are: call scaler.unscale_(pruner.score_optimizer()) before pruner.step()"
            )
        self.optimizer()
        _check_place(self._model)
        if applied:
            self._charge_(progress)
            self._optimizer.step()
        self._optimizer.zero_grad()
        self._gathered = False

    @torch.no_grad()
    def update_(self, progress: float) -> None:
        """Brings the masks of neurons to a progress of the search; at its end all scores stay."""
        new = self._rule.update(self._neuron_layers(), progress)
        for name, state in new.items():
            for key, value in state.items():
                self._gates[name].state[key].copy_(value)
        if progress >= 1.0:
            self._settle_()

    def finish(self) -> None:
        """What neurons are masked with becomes a mask of 0 and 1 that stays with the model; all hooks go."""
        self._look.remove()
        for name, neuron in self._neurons.items():
            take_off_(neuron, self._handles[name])
            mask = self._gates[name].hard()
            if not bool(mask.all()):
                put_on_(neuron, NeuronMask(mask))
        self._neurons = {}

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors; the scores of layers are in their states."""
        return {
            "neurons": {name: gate.state for name, gate in self._gates.items()},
            "optimizer": self._optimizer.state_dict(),
            "sites": self._found.sites if self._found else {},
            "fan_out": self._found.neurons if self._found else {},
            "settled": self.settled,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
        for name, gate in self._gates.items():
            for key, value in state["neurons"][name].items():
                resized_(gate.state[key], value.shape).copy_(value)
        device = self._scores[0].device
        if state["sites"]:
            self._found = FanOut(state["sites"], {name: each.to(device) for name, each in state["fan_out"].items()})
        self._optimizer.load_state_dict(state["optimizer"])
        if state["settled"]:
            self._settle_()

    # ------------------------------------------------------------------------------------------------ inside

    def _charge_(self, progress: float) -> None:
        if self._found is None:
            raise MissingStatistic(
                "the pruner saw no forward pass of its model (a training step that calls a part of it, such as "
                "self.net(x), goes past it), so it does not know what its weights and neurons drive: call the model"
            )
        if self._rule.penalty is None:
            return
        with torch.enable_grad():
            owed = self._rule.penalty([*self._layers(self._found), *self._neuron_layers()], progress)
            gradients = torch.autograd.grad(owed, self._scores, allow_unused=True)
        for score, gradient in zip(self._scores, gradients, strict=True):
            if gradient is not None:
                score.grad = gradient if score.grad is None else score.grad + gradient

    def _settle_(self) -> None:
        self.settled = True
        self._optimizer.zero_grad()
        for score in self._scores:
            score.requires_grad_(False)

    def _gate_states(self) -> list[State]:
        return [gate.state for gate in self._gates.values()]

    def _layers(self, found: FanOut) -> list[Layer]:
        return [
            Layer(name, self._weights[name].detach(), state, drives=state["beta"].new_tensor(found.sites.get(name, 0)))
            for name, state in self._states.items()
        ]

    def _neuron_layers(self) -> list[Layer]:
        return [
            Layer(name, gate.ones(), gate.state, drives=self._found.neurons[name] if self._found else None)
            for name, gate in self._gates.items()
            if gate.state["score"].numel()
        ]

    def _looks(self) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        # A closure, not a bound method: a deep copy of the model then copies neither this object nor the optimizer.
        def look(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            x = next((each for each in (*args, *named.values()) if isinstance(each, Tensor)), None)
            if module is not self._model or x is None:
                return
            kind = x.device.type
            self._scaled |= torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
            if self._found is None:
                _check_place(module)
                self._found = _found(module, (x[:, :1] if time_first(module) else x[:1]).detach())
                for name, drives in self._found.neurons.items():
                    if name in self._gates:
                        self._gates[name].grow_(drives.shape)

        return look


class _Gate(Effective):
    """What a rule makes of the weights of a layer, made of the output of a neuron layer.

    It has no scores, and passes everything on, until the size of the map is known; or for good, where no layer reads
    it.
    """

    def __init__(self, rule: Rule, like: Tensor) -> None:
        effective: Any = rule.effective
        initial: Any = rule.initial
        super().__init__(effective, initial(like.new_ones(0)), rule.evaluated)
        self._initial = initial

    def forward(self, neuron: nn.Module, args: Any, spikes: Tensor) -> Tensor:  # type: ignore[override]
        """The output of the neuron, masked; called by torch as its forward hook."""
        return super().forward(spikes).to(spikes.dtype) if self.state["score"].numel() else spikes

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for key, buffer in self.state.items():
            if (stored := state_dict.get(prefix + key)) is not None:
                resized_(buffer, stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def state(self) -> State:
        """The rule's state of the neurons."""
        return dict(self.named_buffers())

    @torch.no_grad()
    def grow_(self, shape: torch.Size) -> None:
        """Begins, in place, for a map of this shape."""
        for key, value in self._initial(self.state["score"].new_ones(shape)).items():
            self.state[key].data = value

    def ones(self) -> Tensor:
        """A weight of 1 for each neuron."""
        score = self.state["score"]
        return score.new_ones(()).expand(score.shape)

    @torch.no_grad()
    def hard(self) -> Tensor:
        """Which neurons are there in eval mode: bool, (C, ...)."""
        computed: Tensor = self._evaluated(self.ones(), self.state)
        return computed != 0


def _check_place(model: nn.Module) -> None:
    if not all(buffer.is_leaf for buffer in model.buffers()):
        raise BadOption(
            "the model was moved, or its type was changed, after its pruner was made, and the masks' scores stayed "
            "behind: move it first"
        )


def _found(model: nn.Module, example: Tensor) -> FanOut:
    try:
        return fan_out(model, example)
    except SnnslError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadOption(
            f"what weights and neurons of this model drive cannot be found ({type(error).__name__}: {error}), and this "
            "rule charges for it: choose another"
        ) from error


@torch.no_grad()
def _average_(scores: Sequence[Tensor]) -> None:
    """Gives every rank the mean gradient, as data-parallel training does for weights; a missing one counts as zero."""
    if not in_parallel():
        return
    flat = torch.cat([(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in scores])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for score, part in zip(scores, torch.split(flat, [each.numel() for each in scores]), strict=True):
        score.grad = part.view_as(score).to(score.dtype)
