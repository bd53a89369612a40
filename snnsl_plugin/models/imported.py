"""A network of your own, from a function that you name on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import as_found, multi_step, neurons, reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.models._target import current_folder_importable, described, function_of, source_file, source_of

_STEPS, _SAMPLES = 2, 3  # different, so that swapped axes are seen


def imported(input_shape: tuple[int, ...], classes: int, *, target: str, source: str | None = None) -> nn.Module:
    """The module that a function of yours makes, from (T, N, *input_shape) to logits (T, N, classes).

    It is imported only where this process was told so, by the flag `--model` or by a call of `permit`: importing runs
    code, and a recipe is data. One small batch of zeros goes through it here, in `eval` mode, to see what comes out;
    neither its state nor the random numbers after it change by that.

    Args:
        input_shape: of one sample at one step, e.g. (C, H, W); the function's first argument.
        classes: how many classes; the function's second argument. One that takes no arguments is called without.
        target: `package.module:function`, seen from the current folder or installed.
        source: the first 16 digits of the SHA-256 of the file that the function is written in; the command fills it
            in, so that other code gives another digest. None for any code.

    Returns:
        The module as the function made it.

    Raises:
        BadOption: the target is malformed, not permitted, cannot be imported or has changed; it raises, or gives
            something else than such a module.
    """
    function = function_of(target)
    if source is not None and source != (now := source_of(target)):
        raise BadOption(
            f"{source_file(target)}, which makes the network {target}, has changed since this recipe was written "
            f"(source was {source}, is {now}): put the file back, or add ~model.source to use what it says now"
        )
    with current_folder_importable():
        made = _called(function, target, tuple(input_shape), classes)
    if not isinstance(made, nn.Module):
        raise BadOption(
            f"{target} gives something of type {type(made).__name__}, not a torch.nn.Module: return the network"
        )
    _check(made, target, tuple(input_shape), classes)
    return made


def _called(function: Callable[..., Any], target: str, input_shape: tuple[int, ...], classes: int) -> Any:
    arguments = _arguments(function, target, input_shape, classes)
    try:
        return function(*arguments)
    except Exception as error:  # it is the user's code, which may raise anything
        said = ", ".join(map(str, arguments))
        raise BadOption(f"{target}({said}) makes no network: {described(error)}; mend it") from error


def _arguments(
    function: Callable[..., Any], target: str, input_shape: tuple[int, ...], classes: int
) -> tuple[Any, ...]:
    try:
        signature = inspect.signature(function)
    except ValueError:  # written in C
        return input_shape, classes
    choices: list[tuple[Any, ...]] = [(input_shape, classes), ()]
    for arguments in choices:
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return arguments
    raise BadOption(f"{target}{signature} can be called neither as function(input_shape, classes) nor as function()")


def _check(model: nn.Module, target: str, input_shape: tuple[int, ...], classes: int) -> None:
    wanted = (_STEPS, _SAMPLES, classes)
    calls: dict[nn.Module, int] = {}

    def count(module: nn.Module, *_: Any) -> None:
        calls[module] = calls.get(module, 0) + 1

    said = f"{(_STEPS, _SAMPLES, *input_shape)}, which is (T, N, *input_shape)"
    hooks = [neuron.register_forward_hook(count) for neuron in neurons(model).values() if not multi_step(neuron)]
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), as_found(model):
            device = next((parameter.device for parameter in model.parameters()), None)
            out = model.eval()(torch.zeros(_STEPS, _SAMPLES, *input_shape, device=device))
            reset_(model)
    except Exception as error:  # it is the user's code, which may raise anything
        raise BadOption(
            f"the network of {target} does not take an input of {said}: {described(error)}{_WAY_OUT}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(out, Tensor):
        raise BadOption(f"the network of {target} gives a {type(out).__name__}, not one tensor of logits {wanted}")
    if tuple(out.shape) != wanted:
        raise BadOption(
            f"the network of {target} gives {tuple(out.shape)} for an input of {said}; it must give {wanted}, which is "
            f"(T, N, classes): logits at each step, without a mean over time"
        )
    if 1 in calls.values():
        raise BadOption(
            f"the network of {target} has neurons in single-step mode that are called once for {_STEPS} steps, and "
            f"take time for the batch{_WAY_OUT}"
        )


_WAY_OUT = "; for SpikingJelly: functional.set_step_mode(net, 'm'), or a loop over T in forward"
