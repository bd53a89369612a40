"""From the function of a pruner to a pruner in the loop: its positional parameters are what only a runner knows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch.hosted import HostedPruner


def hosted(
    make: Callable[..., Any],
    model: nn.Module,
    optimizer: Optimizer,
    *,
    name: str,
    seed: int,
    total_steps: int,
    steps_per_epoch: int,
    example: Tensor,
    draw: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    density: float | None = None,
) -> HostedPruner:
    """A pruner at work on a network that trains.

    Args:
        make: the pruner's function with its options bound. Of all below it is given what its positional parameters
            name: `model`, `optimizer`, `seed`, `total_steps`, `steps_per_epoch`, `example`, `draw`. It returns an
            object with `step()`; see `HostedPruner` for what it may have besides.
        model: untrained; masked in place as it trains.
        optimizer: over its parameters.
        name: what the pruner is called.
        seed: of the run.
        total_steps: of the whole training.
        steps_per_epoch: of the optimizer.
        example: an input of the model, (T, N, ...).
        draw: gives a number of batches of the training part, always the same ones: inputs and class indices.
        density: share of the prunable weights it was asked to leave; None where that is an outcome.

    Raises:
        BadOption: a parameter that no runner knows, or an answer without `step()`; whatever the function says.
    """
    known = {
        "model": model,
        "optimizer": optimizer,
        "seed": seed,
        "total_steps": total_steps,
        "steps_per_epoch": steps_per_epoch,
        "example": example,
        "draw": draw,
    }
    given = _asked(make, known, name)
    return HostedPruner(
        lambda: make(**given),
        model,
        name=name,
        example=example,
        total_steps=total_steps,
        seed=seed,
        density=density,
    )


def _asked(make: Callable[..., Any], known: dict[str, Any], name: str) -> dict[str, Any]:
    function = getattr(make, "func", make)
    given = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.name in known:
            given[parameter.name] = known[parameter.name]
        elif parameter.default is parameter.empty:
            raise BadOption(
                f"pruner {name!r} asks for {parameter.name!r}, which no runner knows (known: {', '.join(known)}): "
                "write it behind a * to make it an option"
            )
    return given
