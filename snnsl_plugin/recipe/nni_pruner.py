"""From a pruning block of type `nni.*` to NNI's pruner around a network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin import registry
from snnsl_plugin.errors import BadOption, MissingExtra
from snnsl_plugin.recipe.nni_types import NniPruning, SpikingDynamic
from snnsl_plugin.recipe.options import Choice, build
from snnsl_plugin.training.duration import steps
from snnsl_plugin.training.timetable import Timetable

if TYPE_CHECKING:
    from snnsl_plugin.for_nni.driver import DrivenPruner


def driven(
    pruning: NniPruning,
    model: nn.Module,
    optimizer: type[Optimizer],
    optimizer_options: dict[str, Any],
    *,
    seed: int,
    total_steps: int,
    steps_per_epoch: int,
    example: Tensor,
) -> DrivenPruner:
    """NNI's pruner of a block, wrapped around a network.

    Args:
        pruning: what the recipe says.
        model: the untrained network; wrapped in place.
        optimizer: its class; NNI makes it for the wrapped network.
        optimizer_options: of that class.
        seed: of the random choices.
        total_steps: what percentages refer to.
        steps_per_epoch: what epochs refer to.
        example: an input of the network, (T, N, ...).

    Raises:
        MissingExtra: NNI cannot be imported here.
        BadOption: times that no training of this length has.
        NothingMatched: a pattern that matches no layer.
    """
    when = _timetable(pruning, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    try:
        from snnsl_plugin.for_nni.driven_builtin import DrivenBuiltin
        from snnsl_plugin.for_nni.driven_dynamic import DrivenDynamic
    except ImportError as cause:
        raise MissingExtra(
            f"pruning.type {pruning.type!r} needs nni, which cannot be imported here ({cause}): pip install "
            "'nni>=3,<4' on x86_64, or choose one of snnsl.*"
        ) from cause
    common: dict[str, Any] = {
        "when": when,
        "total_steps": total_steps,
        "density": pruning.density,
        "layers": pruning.layers,
        "exclude": pruning.exclude,
    }
    if isinstance(pruning, SpikingDynamic):
        options = {
            option: build(value.registered_kind, value) if isinstance(value, Choice) else value
            for option, value in pruning.chosen.items()
        }
        own = {option: getattr(pruning, option) for option in ("schedule", "newborn_v", "sample_every", "paths")}
        return DrivenDynamic(model, optimizer, optimizer_options, pruning.rule, seed=seed, **common, **own, **options)
    own = pruning.passed()
    return DrivenBuiltin(model, optimizer, optimizer_options, pruning.name, example=example, **common, **own)


def _timetable(pruning: NniPruning, **known: int) -> Timetable:
    start: str = pruning.start  # type: ignore[attr-defined]
    if not hasattr(pruning, "until"):
        at = steps(start, **known)
        if at >= known["total_steps"]:
            raise BadOption(
                f"pruning.start is {start!r} (step {at}) and the training ends at step {known['total_steps']}, so "
                "nothing would be trained with the masks: let it be earlier"
            )
        return Timetable(at, at, 1)
    every = getattr(pruning, "every", "1it")
    if every is None:
        rule = registry.get("rules", pruning.rule)  # type: ignore[attr-defined]
        every = getattr(sys.modules[rule.__module__], "EVERY", "100it")
    return Timetable.of(start=start, until=pruning.until, every=every, **known)
