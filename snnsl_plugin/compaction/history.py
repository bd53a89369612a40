"""What has been cut out of a model, in words that need no trace to be repeated."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import nn

from snnsl_plugin.anatomy import unwrapped
from snnsl_plugin.compaction.selection import Change, Kept, registered, selections, tensors
from snnsl_plugin.errors import BadOption

FORMAT = 1


class History:
    """What a model was before it was cut, and what is left of it.

    Torch-Pruning's own history names the channels of root layers; what else goes with them is found anew by tracing,
    and differs with the trace. This one holds the shapes of all tensors and the sizes that modules know of
    themselves (`out_channels`, `groups`, ...), so that a fresh model is cut without tracing, data or importances.

    Used as a context it also remembers which entries were kept; any number of cuts may follow each other.

    Args:
        model: dense, before the first cut.

    Example:
        >>> from snnsl_plugin.models.spiking_cnn import spiking_cnn
        >>> net = spiking_cnn((1, 8, 8), 10)
        >>> history = History(net)
        >>> history.plain()["cut"]
        {}
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._registered = set(registered(model))
        self._shapes = {name: list(tensor.shape) for name, tensor in tensors(model).items()}
        self._sizes = {name: sizes(module) for name, module in unwrapped(model).named_modules()}
        self._kept: dict[str, Kept] = {}
        self._open: list[ExitStack] = []
        self._changed: dict[str, Change] = {}

    def __enter__(self) -> History:
        stack = ExitStack()
        self._changed = stack.enter_context(selections(self._model))
        self._open.append(stack)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.pop().__exit__(kind, error, trace)
        for name, change in self._changed.items():
            if name not in self._shapes:
                continue
            before = self._kept.get(name, (None,) * change.before.dim())
            if change.kept is None or not self._reaches(name, before, change.before.shape):
                self._kept.pop(name, None)
                continue
            self._kept[name] = tuple(map(_through, before, change.kept))

    def _reaches(self, name: str, kept: Kept, shape: Any) -> bool:
        """Whether what was kept leads from the dense shape to this one: not where cuts were made outside."""
        dense = self._shapes[name]
        return [size if some is None else len(some) for size, some in zip(dense, kept, strict=True)] == list(shape)

    def plain(self, model: nn.Module | None = None) -> dict[str, Any]:
        """The history as plain data, for JSON.

        Args:
            model: what is left; where omitted, the model that the history was made of, which is cut in place.

        Returns:
            `format`; `model`, the name of its class; `dense`, the shape of every tensor before; `cut`, the shape of
            those that are smaller now; `kept`, where it is known, per axis of these the indices that are left, as
            they were numbered in the dense model, None for all; `sizes`, per module what it knew of itself before
            and what it knows now.

        Raises:
            BadOption: the model has other tensors or modules than the one that the history was made of.
        """
        if strangers := self._registered ^ registered(model or self._model).keys():
            raise BadOption(
                f"{sorted(strangers)[0]!r} is in only one of the two, the model now and the model that this history "
                "was made of: make the history of the dense model that was cut, without masks or wrappers mounted"
            )
        # A plain attribute may hold a tensor for a while only, as memories do.
        now = {name: tensor for name, tensor in tensors(model or self._model).items() if name in self._shapes}
        cut = {name: list(tensor.shape) for name, tensor in now.items() if list(tensor.shape) != self._shapes[name]}
        changed = {}
        for name, module in unwrapped(model or self._model).named_modules():
            before, after = self._sizes.get(name, {}), sizes(module)
            if differing := {word: [old, after[word]] for word, old in before.items() if after.get(word, old) != old}:
                changed[name] = differing
        kept = {
            name: list(some)
            for name, some in self._kept.items()
            if name in cut and self._reaches(name, some, now[name].shape)
        }
        return {
            "format": FORMAT,
            "model": type(unwrapped(model or self._model)).__name__,
            "dense": {name: self._shapes[name] for name in now},
            "cut": cut,
            "kept": kept,
            "sizes": changed,
        }


def sizes(module: nn.Module) -> dict[str, int | list[int]]:
    """The public attributes of a module that are integers or sequences of them, its own sizes among them."""
    found: dict[str, int | list[int]] = {}
    for word, value in vars(module).items():
        if word.startswith("_") or isinstance(value, bool):
            continue
        if isinstance(value, int):
            found[word] = value
        elif isinstance(value, tuple | list) and value and all(type(each) is int for each in value):
            found[word] = list(value)
    return found


def _through(before: list[int] | None, now: list[int] | None) -> list[int] | None:
    if now is None or before is None:
        return before if now is None else now
    return [before[index] for index in now]
