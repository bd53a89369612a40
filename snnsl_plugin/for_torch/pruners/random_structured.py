"""Whole output channels, drawn by lot, go."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import prune

from snnsl_plugin.for_torch.one_shot import OneShot

#: Whole channels go: compared with pruners of channels.
STRUCTURED = True


def random_structured(
    model: nn.Module,
    seed: int,
    total_steps: int,
    steps_per_epoch: int,
    *,
    density: float,
    start: str = "50%",
    layers: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] | None = None,
) -> OneShot:
    """Output channels of each layer go by lot, at once (torch's `random_structured` along the first axis).

    Biases and batch norms of such a channel stay: it can still say something constant.

    The run's other random numbers are those of a run without it.

    Args:
        model: masked in place.
        seed: of the lots.
        total_steps: what a percentage refers to.
        steps_per_epoch: what epochs refer to.
        density: share of the prunable weights that is kept, in (0, 1].
        start: when the masks are made; before it the network trains dense, after it the masks stay.
        layers: patterns of the layers that may be pruned, e.g. `features.*`.
        exclude: patterns of the layers that stay dense; where omitted the last one.

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
        by_channel=True,
        seed=seed,
    )


def _apply(modules: Sequence[nn.Module], amounts: Sequence[int]) -> None:
    for module, amount in zip(modules, amounts, strict=True):
        prune.random_structured(module, "weight", amount=amount, dim=0)  # type: ignore[no-untyped-call]
