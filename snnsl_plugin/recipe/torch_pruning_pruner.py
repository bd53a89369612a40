"""From a pruning block of type `torch_pruning.*` to a pruner of Torch-Pruning in the training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.errors import CannotCut, MissingExtra
from snnsl_plugin.recipe.options import Choice, build
from snnsl_plugin.recipe.torch_pruning_types import Cut, SpikingDynamic
from snnsl_plugin.training.timetable import Timetable

_COMMON = ("channels", "per_layer", "layers", "exclude", "recalibrate", "batches")
if TYPE_CHECKING:
    from snnsl_plugin.for_torch_pruning.driver import DrivenPruner


def cutting(
    pruning: Cut | SpikingDynamic,
    model: nn.Module,
    optimizer: Optimizer,
    *,
    seed: int,
    total_steps: int,
    steps_per_epoch: int,
    example: Tensor,
    draw: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
) -> DrivenPruner:
    """Torch-Pruning's pruner of a block, at work on a network that trains.

    Args:
        pruning: what the recipe says.
        model: the untrained network; cut in place as it trains.
        optimizer: of its parameters.
        seed: of the random choices.
        total_steps: what percentages refer to.
        steps_per_epoch: what epochs refer to.
        example: an input of the network, (T, N, ...).
        draw: gives a number of batches of the training part.

    Raises:
        MissingExtra: Torch-Pruning cannot be imported here.
        BadOption: times that no training of this length has, or a share that leaves no channel.
        NothingMatched: a pattern that matches no layer.
        CannotCut: Torch-Pruning cannot follow this network.
    """
    when = Timetable.of(
        start=pruning.start,
        until=pruning.until,
        every=getattr(pruning, "every", None) or "1it",
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
    )
    try:
        import torch_pruning  # noqa: F401  (whether it is there)
    except ImportError as cause:
        raise MissingExtra(
            f"pruning.type {pruning.type!r} needs torch_pruning, which cannot be imported here ({cause}): pip install "
            "'torch-pruning>=1.6,<2', or choose one of snnsl.*"
        ) from cause
    from snnsl_plugin.for_torch_pruning.driven_cuts import DrivenCuts
    from snnsl_plugin.for_torch_pruning.driven_dynamic import DrivenDynamic

    common: dict[str, Any] = {
        "example": example,
        "draw": draw,
        "when": when,
        "total_steps": total_steps,
        "scores": pruning.importance.name,
        "scores_options": {word: _built(value) for word, value in pruning.importance.passed().items()},
    }
    common |= {word: getattr(pruning, word) for word in _COMMON}
    options = {word: getattr(pruning, word) for word in ("global_pruning", "isomorphic", "round_to")}
    try:
        if isinstance(pruning, SpikingDynamic):
            own = {word: _built(getattr(pruning, word)) for word in ("growth", "schedule", "swap", "newborn_v")}
            return DrivenDynamic(model, optimizer, seed=seed, options=options, **common, **own)
        own = pruning.passed()
        alpha, steps = own.pop("alpha", None), pruning.iterative_steps
        return DrivenCuts(
            model, optimizer, pruning.name, iterative_steps=steps, alpha=alpha, options=options | own, **common
        )
    except CannotCut as error:
        raise CannotCut(f"{error} (in a recipe: pruning.exclude)") from error


def _built(value: Any) -> Any:
    return build(value.registered_kind, value) if isinstance(value, Choice) else value
