"""What units are kept for, and what speaks for those that are masked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer

from snnsl_plugin.anatomy import parameter_of
from snnsl_plugin.core.layer import Growth, Layer
from snnsl_plugin.errors import BadOption, Diverged
from snnsl_plugin.for_torch_pruning.units import Units
from snnsl_plugin.training import newborn


def per_unit(answer: Tensor, units: Units, alive: Tensor) -> Tensor:
    """An importance's answer about living units, one number a unit; channel groups count by their mean.

    Args:
        answer: one number for each living channel of the root.
        units: of one group.
        alive: bool, (count,).

    Returns:
        (count,), 0 for masked units.

    Raises:
        BadOption: another shape.
        Diverged: NaN.
    """
    channels = int(alive.count_nonzero()) * units.channel_groups
    if answer.shape != (channels,):
        raise BadOption(
            f"the importance scores {channels} channels of {units.name!r} with shape {tuple(answer.shape)}: it must "
            "return one number for each channel of the group it is given"
        )
    means = answer.detach().double().cpu().view(units.channel_groups, -1).mean(0)
    if bool(torch.isnan(means).any()):
        raise Diverged(
            f"the importance of a unit of {units.name!r} is NaN: either the loss has diverged (lower the learning rate "
            "or clip gradients), or the importance itself divides by zero or the like"
        )
    scores = torch.zeros(units.count, dtype=torch.float64)
    scores[alive] = means
    return scores


def growth_of(units: Units, growth: Growth, optimizer: Optimizer, generator: torch.Generator) -> Tensor:
    """The L2 norm of the growth scores of all weights that write a unit, (count,).

    Args:
        units: of one group.
        growth: scores of a layer's weights.
        optimizer: over these weights.
        generator: for growths that draw.

    Raises:
        MissingStatistic: the growth asks for what nobody recorded.
        Diverged: NaN.
    """
    total = torch.zeros(units.count, dtype=torch.float64)
    for member in units.rows:
        weight = parameter_of(member.module)
        layer = Layer(
            member.name,
            weight.detach(),
            {"mask": torch.ones_like(weight, dtype=torch.bool)},
            groups=getattr(member.module, "groups", 1),
            grad=weight.grad,
            momentum=newborn.momentum(optimizer, weight),
            generator=generator,
        )
        squares = growth(layer).detach().double().flatten(1).square().sum(1).cpu()
        total.index_add_(0, member.units, squares[member.positions])
    if bool(torch.isnan(total).any()):
        raise Diverged(
            f"the growth of a unit of {units.name!r} is NaN: the loss has probably diverged; lower the learning rate "
            "or clip gradients"
        )
    return total.sqrt()


def weight_density(units: list[Units], alive: dict[str, Tensor], sizes: dict[str, torch.Size]) -> float:
    """Weights that neither write nor read a masked unit / all weights, in [0, 1].

    Args:
        units: all groups.
        alive: by name of the units, bool, (count,).
        sizes: shape of each layer's weight, by layer name.
    """
    rows = {name: torch.ones(size[0], dtype=torch.bool) for name, size in sizes.items()}
    columns = {name: torch.ones(size[1], dtype=torch.bool) for name, size in sizes.items()}
    for each in units:
        for members, living in ((each.rows, rows), (each.columns, columns)):
            for member in members:
                living[member.name][member.positions[~alive[each.name][member.units]]] = False
    left = {n: int(rows[n].sum()) * int(columns[n].sum()) * sizes[n][2:].numel() for n in sizes}
    return sum(left.values()) / sum(size.numel() for size in sizes.values())
