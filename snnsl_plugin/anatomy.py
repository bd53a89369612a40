"""Finding layers and neurons in anyone's model, and resetting what neurons remember."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import nn
from torch.nn.utils import parametrize

from snnsl_plugin.errors import BadOption, NothingMatched, did_you_mean

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
WeightLayer: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
_NEURON_HOME = "spikingjelly.activation_based.neuron"
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_neuron(module: nn.Module, extra: tuple[type[nn.Module], ...] = ()) -> bool:
    """Whether a module is a spiking neuron.

    SpikingJelly has 14 neurons that are not `BaseNode` (PSN, GatedLIF, ...), so the home of the class decides, not its
    parent.

    Args:
        module: any module.
        extra: other classes to count as neurons, for neurons of one's own.
    """
    return isinstance(module, extra) or any(
        cls.__module__ == _NEURON_HOME or cls.__module__.startswith(_NEURON_HOME + ".") for cls in type(module).__mro__
    )


def neurons(model: nn.Module, extra: tuple[type[nn.Module], ...] = ()) -> dict[str, nn.Module]:
    """The outermost spiking neurons of a model, by dotted module name."""
    found: dict[str, nn.Module] = {}
    for name, module in unwrapped(model).named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if not inside and is_neuron(module, extra):
            found[name] = module
    return found


def weight_layers(model: nn.Module) -> dict[str, WeightLayer]:
    """All convolutions and linear layers, by dotted module name."""
    return {name: module for name, module in unwrapped(model).named_modules() if isinstance(module, LAYERS)}


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside data-parallel and compiled wrappers, whose names are those of its own file."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def weight_name(layer: str) -> str:
    """The unwrapped dotted parameter name of a layer's weight: `conv1.weight`, also where it is parametrized."""
    return f"{layer}.weight" if layer else "weight"


def parameter_of(module: nn.Module, name: str = "weight") -> nn.Parameter:
    """The parameter that the optimizer sees: also beneath a parametrization, or inside a wrapper of NNI.

    Args:
        module: a module that has it.
        name: its attribute, e.g. `weight`.
    """
    if parametrize.is_parametrized(module, name):
        beneath: object = getattr(module.parametrizations[name], "original", None)  # type: ignore[index]
        if not isinstance(beneath, nn.Parameter):
            raise BadOption(
                f"the {name} of {module} is put together from several parameters, as by weight_norm: remove that "
                "parametrization, or exclude the layer"
            )
        return beneath
    # NNI moves a parameter into a child and leaves a buffer, the masked weight, in its place.
    wrapper = getattr(module, "_nni_wrapper", None)
    holder = wrapper if isinstance(wrapper, nn.Module) and name in wrapper._parameters else module
    parameter: nn.Parameter = getattr(holder, name)
    return parameter


def matched(names: Sequence[str], include: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The names that a list of shell-style patterns chooses, in their own order.

    Args:
        names: dotted module names.
        include: patterns such as `*`, `features.*` or `conv1`.
        exclude: patterns to leave out.

    Raises:
        NothingMatched: a pattern that matches no layer, or nothing is left.

    >>> matched(["conv1", "conv2", "fc"], ["*"], ["fc"])
    ['conv1', 'conv2']
    """
    for word, patterns in (("layers", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise NothingMatched(
                    f"{word}: the pattern {pattern!r} matches no layer{did_you_mean(pattern, names)} "
                    f"(layers: {', '.join(names) or 'the model has none'})"
                )
    chosen = [
        name
        for name in names
        if any(fnmatchcase(name, p) for p in include) and not any(fnmatchcase(name, p) for p in exclude)
    ]
    if not chosen:
        raise NothingMatched(f"no layer is left to prune: layers={list(include)}, exclude={list(exclude)}")
    return chosen


def reset_(model: nn.Module) -> None:
    """Forgets all membrane potentials: calls `reset()` of every module that `forgets`."""
    for module in model.modules():
        if forgets(module):
            module.reset()  # type: ignore[operator]


def forgets(module: nn.Module) -> bool:
    """Whether a module has a `reset()` that is about membrane potentials: one of torchmetrics is not."""
    metric = any(parent.__module__.partition(".")[0] == "torchmetrics" for parent in type(module).__mro__)
    return not metric and callable(getattr(module, "reset", None))


def time_first(model: nn.Module, extra: tuple[type[nn.Module], ...] = ()) -> bool:
    """Whether the model takes (T, N, ...): true where a neuron does.

    Args:
        model: any model.
        extra: other classes to count as neurons.
    """
    return any(multi_step(neuron) for neuron in neurons(model, extra).values())


def multi_step(neuron: nn.Module) -> bool:
    """Whether a neuron takes (T, N, C, ...): by its step mode, or because it has no other, as a PSN."""
    mode = getattr(neuron, "step_mode", None)
    supported = getattr(neuron, "supported_step_mode", None)
    return mode == "m" if mode is not None else callable(supported) and "s" not in supported()


def channel_axis_of(module: nn.Module, dimensions: int) -> int:
    """The axis of the channels in what a neuron or a norm takes and gives: behind time and batch.

    Args:
        module: in either step mode.
        dimensions: of its input or output.
    """
    return min(2 if multi_step(module) else 1, dimensions - 1)


def shadow(module: nn.Module, forward: Callable[..., Any], stack: ExitStack) -> None:
    """Puts another `forward` before the module's own, on this instance, until the stack is left.

    Args:
        module: whose calls go elsewhere.
        forward: takes what the module is called with, without the module.
        stack: its end takes the other forward away.
    """
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    stack.callback(_unshadow, module, before)


def _unshadow(module: nn.Module, before: Callable[..., Any] | None) -> None:
    del module.__dict__["forward"]
    if before is not None:
        module.__dict__["forward"] = before


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Neurons at their start; afterwards memories and train flags are as before.

    Hooks stay where they are: some of them, like those of torch.nn.utils.prune, are part of what the model computes.
    """
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(setattr, module, "training", module.training)
            # SpikingJelly's states: containers and synapse filters have some too.
            memories = getattr(module, "_memories", None)
            if isinstance(memories, dict):
                stack.callback(module.__dict__.__setitem__, "_memories", memories)
                module.__dict__["_memories"] = dict(memories)
        reset_(model)
        yield


def own_hooks(hooks: Mapping[int, Callable[..., Any]]) -> OrderedDict[int, Callable[..., Any]]:
    """Those of some hooks that are part of what the model computes: the ones that are modules themselves."""
    return OrderedDict((number, hook) for number, hook in hooks.items() if isinstance(hook, nn.Module))


@contextmanager
def set_aside(model: nn.Module) -> Iterator[None]:
    """Hooks out of the way and neurons at their start; afterwards hooks, memories and train flags are as before.

    For passes that look at a model while somebody else trains it. Hooks that are modules, such as masks of neurons, are
    part of what the model computes, and stay.
    """
    with ExitStack() as stack:
        for module in model.modules():
            for hooks in _HOOKS:
                stack.callback(setattr, module, hooks, getattr(module, hooks))
                setattr(module, hooks, own_hooks(getattr(module, hooks)))
        stack.enter_context(as_found(model))
        yield
