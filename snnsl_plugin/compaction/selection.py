"""Which entries of its tensors a model keeps in a cut, read off the cut itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from snnsl_plugin.anatomy import unwrapped

#: Per axis of a tensor, the indices that are kept, in their new order; None for all of them.
Kept: TypeAlias = tuple[list[int] | None, ...]
# A tensor by its device, its memory and its shape.
_Key: TypeAlias = tuple[str, int, tuple[int, ...]]


@dataclass(frozen=True)
class Change:
    """One tensor of a model before and after.

    Attributes:
        before: as it was.
        after: what stands in its place.
        kept: which entries of the one make up the other; None where it was not made by selecting along axes.
    """

    before: Tensor
    after: Tensor
    kept: Kept | None


def registered(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by unwrapped dotted name, tied ones under each of their names."""
    inner = unwrapped(model)
    parameters = dict(inner.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(inner.named_buffers(remove_duplicate=False))}


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """What is registered, and tensors that are plain attributes: the threshold of a neuron of one's own may be one."""
    plain = {
        f"{name}.{word}".lstrip("."): value
        for name, module in unwrapped(model).named_modules(remove_duplicate=False)
        for word, value in vars(module).items()
        if isinstance(value, Tensor) and not word.startswith("_")
    }
    return {**registered(model), **plain}


def take(tensor: Tensor, kept: Kept) -> Tensor:
    """The kept entries, as a new tensor.

    Args:
        tensor: of the shape before.
        kept: one entry an axis.
    """
    for axis, indices in enumerate(kept):
        if indices is not None:
            tensor = tensor.index_select(axis, torch.tensor(indices, device=tensor.device))
    return tensor.clone() if all(indices is None for indices in kept) else tensor


@contextmanager
def selections(model: nn.Module) -> Iterator[dict[str, Change]]:
    """Watches what is selected out of a model's tensors while somebody cuts it.

    Torch-Pruning knows its groups and each of its pruning functions knows its axes, but neither tells. All of them
    select along an axis, and that is what is watched, so it holds for pruning functions of one's own as well.

    Args:
        model: cut by what runs inside.

    Yields:
        An empty dict. It is filled at the end, also where the body raises: the tensors whose shape has changed.
    """
    before = tensors(model)
    changed: dict[str, Change] = {}
    watching = _Watching(before.values())
    try:
        with watching:
            yield changed
    finally:
        for name, after in tensors(model).items():
            was = before.get(name)
            if was is not None and was.shape != after.shape:
                changed[name] = Change(was, after, watching.origin(was, after))


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows tensors through selections by their memory, which stays theirs as long as they are referred to."""

    def __init__(self, known: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: list[Tensor] = [tensor for tensor in known if tensor.numel()]
        self._kept: dict[_Key, tuple[_Key, Kept]] = {
            _key(tensor): (_key(tensor), (None,) * tensor.dim()) for tensor in self._alive
        }

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        selected = _selected(operation, args)
        if selected is not None:
            source, axis, index = selected
            known = self._kept.get(_key(source))
            if known is not None and out.numel():
                root, kept = known
                self._kept[_key(out)] = (root, _narrowed(kept, axis, index.tolist(), source.shape[axis]))
                self._alive.append(out)
        return out

    def origin(self, before: Tensor, after: Tensor) -> Kept | None:
        root, kept = self._kept.get(_key(after), (None, None))
        return kept if root == _key(before) else None


def _key(tensor: Tensor) -> _Key:
    return str(tensor.device), tensor.data_ptr(), tuple(tensor.shape)


def _selected(operation: Any, args: Any) -> tuple[Tensor, int, Tensor] | None:
    if operation is torch.ops.aten.index_select.default:
        source, axis, index = args[:3]
        return source, axis % source.dim(), index
    if operation is torch.ops.aten.index.Tensor:
        source, indices = args[:2]
        given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
        if len(given) == 1 and given[0][1].dim() == 1 and given[0][1].dtype == torch.int64:
            return source, *given[0]
    return None


def _narrowed(kept: Sequence[list[int] | None], axis: int, index: list[int], size: int) -> Kept:
    before = kept[axis]
    now = [(i % size) if before is None else before[i % size] for i in index]
    return (*kept[:axis], now, *kept[axis + 1 :])
