"""Whole output channels of the smallest norm go, at once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.nn.utils import prune

from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch.one_shot import OneShot

#: Whole channels go: compared with pruners of channels.
STRUCTURED = True


def ln_structured(
    model: nn.Module,
    total_steps: int,
    steps_per_epoch: int,
    *,
    density: float,
    start: str = "50%",
    layers: tuple[str, ...] = ("*",),
    exclude: tuple[str, ...] | None = None,
    n: float = 2.0,
) -> OneShot:
    """Output channels of the smallest norm go, in each layer, at once (torch's `ln_structured` along the first axis).

    Biases and batch norms of such a channel stay: it can still say something constant.

    Args:
        model: masked in place.
        total_steps: what a percentage refers to.
        steps_per_epoch: what epochs refer to.
        density: share of the prunable weights that is kept, in (0, 1].
        start: when the masks are made; before it the network trains dense, after it the masks stay.
        layers: patterns of the layers that may be pruned, e.g. `features.*`.
        exclude: patterns of the layers that stay dense; where omitted the last one.
        n: order of the norm of a channel's weights, above 0, e.g. 1 or 2.

    Raises:
        BadOption: see `OneShot`.
        NothingMatched: a pattern that matches no layer.
    """
    if not n > 0:
        raise BadOption(f"n={n}: the order of the norm must be above 0, e.g. 2")

    def apply(modules: Sequence[nn.Module], amounts: Sequence[int]) -> None:
        for module, amount in zip(modules, amounts, strict=True):
            prune.ln_structured(module, "weight", amount=amount, n=n, dim=0)  # type: ignore[no-untyped-call]

    return OneShot(
        model,
        apply,
        density=density,
        start=start,
        layers=layers,
        exclude=exclude,
        total_steps=total_steps,
        steps_per_epoch=steps_per_epoch,
        by_channel=True,
    )
