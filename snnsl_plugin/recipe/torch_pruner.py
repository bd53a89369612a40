"""From a pruning block of type `torch.*` or `user.*` to a pruner in the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.for_torch.hosted import HostedPruner
from snnsl_plugin.for_torch.hosting import hosted
from snnsl_plugin.recipe.options import Choice, build
from snnsl_plugin.recipe.torch_types import HostedPruning


def masking(
    pruning: HostedPruning,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    seed: int,
    total_steps: int,
    steps_per_epoch: int,
    example: Tensor,
    draw: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
) -> HostedPruner:
    """The pruner of a block, at work on a network that trains.

    Args:
        pruning: what the recipe says. Its option `density`, where it has one, is the target; of a schedule its end.
        model: the untrained network; masked in place as it trains.
        optimizer: of its parameters.
        seed: of the random choices.
        total_steps: what percentages refer to.
        steps_per_epoch: what epochs refer to.
        example: an input of the network, (T, N, ...).
        draw: gives a number of batches of the training part.

    Raises:
        BadOption: what its function says of its options, or a function that no runner can call.
        NothingMatched: a pattern that matches no layer.
    """
    made = build("pruners", pruning)
    make = made if callable(made) else lambda: made
    return hosted(
        make,
        model,
        optimizer,
        name=pruning.type,
        seed=seed,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        example=example,
        draw=draw,
        density=_density(getattr(pruning, "density", None)),
    )


def _density(written: Any) -> float | None:
    if isinstance(written, Choice) and written.registered_kind == "schedules":
        written = build("schedules", written)(1.0)
    return float(written) if isinstance(written, int | float) else None
