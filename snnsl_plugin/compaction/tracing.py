"""A forward pass that Torch-Pruning's dependency graph can follow: stateless, with neurons that pass their input on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnsl_plugin.anatomy import channel_axis_of, multi_step, neurons, reset_, set_aside, shadow, time_first
from snnsl_plugin.compaction.neurons import Given, per_channel
from snnsl_plugin.errors import CannotCut

#: `s`: one time step without a time axis; `m`: the code as it stands, for models that only run in multi-step mode.
How: TypeAlias = Literal["s", "m"]
Forward: TypeAlias = Callable[[nn.Module, Any], Any]


def forward_fn(
    how: How,
    seen: dict[nn.Module, int],
    held: dict[nn.Module, dict[str, int]],
    *,
    user: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> Forward:
    """A `forward_fn` for Torch-Pruning.

    A neuron in multi-step mode unbinds the time axis, which Torch-Pruning reads as a split of channels, and a potential
    left over from an earlier batch brings that batch's graph along. Neither is there in a single step from rest in
    which neurons hand on what they get.

    Args:
        how: in which mode the model runs.
        seen: filled with how many channels each neuron got.
        held: filled with the axis of the channels in each tensor of a neuron that has a number for each of them.
        user: how the model is called; `model(x)`, `model(*x)` or `model(**x)` where omitted.
        neuron_types: classes of one's own that are neurons.

    Returns:
        A function from the model and its example input, (T, N, ...) for a model in multi-step mode, to its output. The
        model is left as it was, also where the pass fails.
    """

    def forward(model: nn.Module, example: Any) -> Any:
        run = user or call
        alone = neurons(model, tuple(neuron_types))
        timed = time_first(model, tuple(neuron_types))
        held.update(_held(model, list(alone.values()), lambda: run(model, example)))
        with traceable(model, how, seen, neuron_types=neuron_types):
            return run(model, _first_step(example) if how == "s" and timed else example)

    return forward


@contextmanager
def traceable(
    model: nn.Module, how: How, seen: dict[nn.Module, int], *, neuron_types: Sequence[type[nn.Module]] = ()
) -> Iterator[None]:
    """The model at rest, its neurons element-wise; afterwards it is at rest again, step modes and forwards as before.

    Args:
        model: any model.
        how: `s` also switches everything to single steps: containers over time run what they contain once.
        seen: filled with how many channels each neuron got.
        neuron_types: classes of one's own that are neurons.
    """
    with ExitStack() as stack:
        reset_(model)
        stack.callback(reset_, model)
        alone = neurons(model, tuple(neuron_types))
        for name, neuron in alone.items():
            shadow(neuron, _passing_on(name, neuron, 2 if how == "m" and multi_step(neuron) else 1, seen), stack)
        if how == "s":
            for module in model.modules():
                _in_single_step(module, stack)
        yield


def call(model: nn.Module, x: Any) -> Any:
    """Runs a model on what Torch-Pruning takes as example inputs: a tensor, a sequence of arguments, or a mapping."""
    if isinstance(x, dict):
        return model(**x)
    if isinstance(x, tuple | list):
        return model(*x)
    return model(x)


def _held(model: nn.Module, alone: Sequence[nn.Module], run: Callable[[], Any]) -> dict[nn.Module, dict[str, int]]:
    # Which tensors belong to channels shows where neurons run as they are: with all their steps.
    given: dict[nn.Module, Given] = {}

    def note(neuron: nn.Module, args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], Tensor) and neuron not in given:
            x = args[0]
            axis = channel_axis_of(neuron, x.dim())
            given[neuron] = Given(tuple(x.shape), axis, x.dtype, x.device)

    owners = [neuron for neuron in alone if any(t.numel() > 1 for t in (*neuron.parameters(), *_plain(neuron)))]
    with set_aside(model), torch.no_grad():
        if owners:
            model.eval()
            for neuron in owners:
                neuron.register_forward_pre_hook(note)  # set_aside takes it away
            run()
            reset_(model)
            for neuron in owners:
                neuron._forward_pre_hooks.clear()
        return {neuron: per_channel(neuron, given[neuron]) for neuron in given}


def _plain(neuron: nn.Module) -> list[Tensor]:
    attributes = [value for module in neuron.modules() for value in vars(module).values()]
    return [*neuron.buffers(), *(value for value in attributes if isinstance(value, Tensor))]


def _passing_on(name: str, neuron: nn.Module, axis: int, seen: dict[nn.Module, int]) -> Callable[..., Tensor]:
    def forward(x: Tensor, *_: Any, **__: Any) -> Tensor:
        channels = x.shape[axis] if x.dim() > axis else x.shape[-1]
        if seen.setdefault(neuron, channels) != channels:
            raise CannotCut(
                f"the neuron {name!r} is called with {seen[neuron]} and with {channels} channels: give each layer a "
                "neuron of its own"
            )
        return x * 1.0  # a node of its own in the graph

    return forward


def _in_single_step(module: nn.Module, stack: ExitStack) -> None:
    from spikingjelly.activation_based import base, layer
    from spikingjelly.activation_based.layer import bn

    if isinstance(module, layer.SeqToANNContainer | layer.MultiStepContainer):
        shadow(module, _once(nn.Sequential.forward, module), stack)
    elif isinstance(module, bn._ThresholdDependentBatchNormBase | bn._TemporalEffectiveBatchNormBase):
        # These norms scale a batch norm by a constant or by a weight a step, neither of which moves channels.
        shadow(module, _once(_BatchNorm.forward, module), stack)
    elif isinstance(module, base.StepModule) and "_step_mode" in vars(module) and "s" in module.supported_step_mode():
        stack.callback(vars(module).__setitem__, "_step_mode", module.step_mode)
        module.step_mode = "s"


def _once(forward: Callable[..., Any], module: nn.Module) -> Callable[[Any], Any]:
    return lambda x: forward(module, x)


def _first_step(example: Any) -> Any:
    if isinstance(example, Tensor):
        return example[0] if example.dim() else example
    if isinstance(example, dict):
        return {key: _first_step(value) for key, value in example.items()}
    if isinstance(example, tuple | list):
        return type(example)(_first_step(value) for value in example)
    return example
