"""The optimizer's memory, cut along with the parameters that it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.compaction.selection import Change, selections, take, tensors
from snnsl_plugin.errors import BadOption


@contextmanager
def following(model: nn.Module, *optimizers: Optimizer) -> Iterator[None]:
    """Whatever is cut inside, the optimizers go on with: momentum and moments are cut as the parameters are.

    A cut puts a new parameter in the place of each old one, which an optimizer does not notice: it goes on training
    tensors that nobody uses. Schedulers need nothing, they change the optimizer's groups.

    Args:
        model: cut by what runs inside.
        *optimizers: of its parameters; changed in place, also where the body raises after a cut.

    Raises:
        BadOption: before anything is cut, an optimizer whose memory of a parameter is not shaped like it (LBFGS,
            Adafactor).

    Example:
        >>> import torch
        >>> from snnsl_plugin.models.spiking_cnn import spiking_cnn
        >>> net = spiking_cnn((1, 8, 8), 10)
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        >>> with following(net, optimizer):
        ...     net.fc2.bias = torch.nn.Parameter(net.fc2.bias.index_select(0, torch.tensor([0, 1, 2])))
        >>> any(parameter is net.fc2.bias for parameter in optimizer.param_groups[0]["params"])
        True
    """
    names = {id(tensor): name for name, tensor in tensors(model).items()}
    for optimizer in optimizers:
        for parameter, memory in optimizer.state.items():
            if id(parameter) in names:
                _check(optimizer, names[id(parameter)], parameter, memory)
    changes: dict[str, Change] = {}
    try:
        with selections(model) as changes:
            yield
    finally:
        for optimizer in optimizers:
            follow_(optimizer, changes)


def follow_(optimizer: Optimizer, changes: Mapping[str, Change]) -> None:
    """Puts new parameters in the place of old ones in an optimizer, and cuts what it remembers of them, in place.

    Args:
        optimizer: holds the old parameters.
        changes: what `selections` watched; tensors that the optimizer does not hold are passed over.

    Raises:
        BadOption: a parameter that was not made from the old one by selecting along axes, or a memory that is not
            shaped like its parameter; the optimizer is as it was.
    """
    by_old = {id(change.before): (name, change) for name, change in changes.items()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"] if id(parameter) in by_old]
    memories: dict[int, dict[str, Any]] = {}
    for parameter in held:
        name, change = by_old[id(parameter)]
        if change.kept is None:
            raise BadOption(
                f"{name!r} went from {tuple(change.before.shape)} to {tuple(change.after.shape)} by something else "
                f"than selecting channels, and {type(optimizer).__name__} cannot follow: make a new optimizer"
            )
        memory = optimizer.state.get(parameter, {})
        _check(optimizer, name, parameter, memory)
        memories[id(parameter)] = {
            word: take(value, change.kept) if isinstance(value, Tensor) and value.shape == parameter.shape else value
            for word, value in memory.items()
        }
    for parameter in held:
        optimizer.state.pop(parameter, None)
        if memory := memories[id(parameter)]:
            optimizer.state[by_old[id(parameter)][1].after] = memory
    for group in optimizer.param_groups:
        group["params"] = [by_old[id(p)][1].after if id(p) in by_old else p for p in group["params"]]


def _check(optimizer: Optimizer, name: str, parameter: Tensor, memory: Mapping[str, Any]) -> None:
    for word, value in memory.items():
        number = value is None or isinstance(value, int | float) or (isinstance(value, Tensor) and value.dim() == 0)
        if not number and not (isinstance(value, Tensor) and value.shape == parameter.shape):
            raise BadOption(
                f"what {type(optimizer).__name__} remembers of {name!r} as {word!r} is not shaped like the parameter, "
                "and cannot be cut with it: cut first and make a new optimizer"
            )
