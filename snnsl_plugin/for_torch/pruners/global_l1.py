"""The smallest weights of the network go, at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import prune

from snnsl_plugin.for_torch.one_shot import OneShot


def global_l1(
    model: nn.Module,
    total_steps: int,
    steps_per_epoch: int,
    *,
    density: float,
    start: str = "50%",
    layers: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] | None = None,
) -> OneShot:
    """The smallest weights of all layers together go, at once (torch's `global_unstructured` with `L1Unstructured`).

    A layer may lose all its weights, as torch has it.

    Args:
        model: masked in place.
        total_steps: what a percentage refers to.
        steps_per_epoch: what epochs refer to.
        density: share of the prunable weights that is kept, in (0, 1].
        start: when the masks are made; before it the network trains dense, after it the masks stay.
        layers: patterns of the layers that may be pruned, e.g. `features.*`.
        exclude: patterns of the layers that stay dense; none where omitted.

    Raises:
        BadOption: see `OneShot`.
        NothingMatched: a pattern that matches no layer.
    """
    return OneShot(
        model,
        _apply,
        density=density,
        start=start,
        layers=layers,
        exclude=exclude,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        together=True,
    )


def _apply(modules: Sequence[nn.Module], amounts: Sequence[int]) -> None:
    weights = [(module, "weight") for module in modules]
    prune.global_unstructured(weights, pruning_method=prune.L1Unstructured, amount=sum(amounts))
