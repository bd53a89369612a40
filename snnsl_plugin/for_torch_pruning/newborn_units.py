"""How a unit that comes back begins."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.for_torch_pruning.gates import tensor_of
from snnsl_plugin.for_torch_pruning.units import Units
from snnsl_plugin.training.newborn import NewbornV, forget_


@torch.no_grad()
def begin_(units: Units, before: Tensor, now: Tensor, optimizer: Optimizer, newborn_v: NewbornV) -> None:
    """Regrown units start with zero rows, which they have, with new norms, and without a past; in place.

    Args:
        units: of one group.
        before: which lived before the update, bool, (count,).
        now: which live after it.
        optimizer: its memory of the regrown is zeroed, as `training.newborn.forget_` does.
        newborn_v: what its second moments start from.
    """
    born, stayed = now & ~before, now & before
    if not bool(born.any()):
        return
    for member in (*units.rows, *units.norms):
        for word in ("weight", "bias"):
            tensor = tensor_of(member.module, word)
            if isinstance(tensor, nn.Parameter):
                marks = [_marked(tensor, member.positions[which[member.units]]) for which in (born, stayed)]
                forget_(optimizer, tensor, marks[0], marks[1], newborn_v)
    for member in units.norms:
        channels = member.positions[born[member.units]]
        for word, start in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            tensor = tensor_of(member.module, word)
            if tensor is not None:
                tensor[channels.to(tensor.device)] = start


def _marked(parameter: nn.Parameter, channels: Tensor) -> Tensor:
    marks = torch.zeros_like(parameter, dtype=torch.bool)
    return marks.index_fill_(0, channels.to(marks.device), True)
