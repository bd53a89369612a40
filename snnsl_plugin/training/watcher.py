"""What hooks add up while a network trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.training.pooling import Sums


class Watcher(ABC):
    """Hooks on modules of a network in training passes, and sums that a resumed run goes on with.

    Hooks exist only inside the `with` block, in which a subclass puts them with `before` and `after`.

    Args:
        model: any network.
    """

    def __init__(self, model: nn.Module) -> None:
        #: set to False to let passes go by
        self.recording = True
        self.sums = Sums(lambda: next((each.device for each in model.parameters()), torch.device("cpu")))
        self._handles: list[RemovableHandle] = []

    @abstractmethod
    def __enter__(self) -> Watcher:
        """Puts the hooks in."""

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def before(self, module: nn.Module, tell: Callable[[tuple[Tensor, ...]], None]) -> None:
        """Tells the arguments of each training pass of a module before it runs."""

        def hook(running: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            if self._counts(module, running):
                tell(arguments)

        self._handles.append(module.register_forward_pre_hook(hook))

    def after(self, module: nn.Module, tell: Callable[[tuple[Tensor, ...], Tensor], None]) -> None:
        """Tells the arguments of each training pass of a module, and its output, the first one where it has several."""

        def hook(running: nn.Module, arguments: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            if self._counts(module, running):
                tell(arguments, output[0] if isinstance(output, tuple) else output)

        self._handles.append(module.register_forward_hook(hook))

    def before_step(self) -> None:  # noqa: B027  (nothing to do for most)
        """Is told that a step begins."""

    def after_step(self) -> None:  # noqa: B027  (likewise)
        """Is told that the optimizer has taken it; where loss scaling has met an overflow it takes none."""

    @abstractmethod
    def fields(self) -> dict[str, dict[str, Any]]:
        """What was found out about each layer, as fields of `Layer`, over all ranks: a collective call."""

    def clear(self) -> None:
        """Starts anew."""
        self.sums.clear()

    def state_dict(self) -> dict[str, Tensor | float]:
        """The sums so far, over all ranks: plain tensors and numbers."""
        return self.sums.state_dict()

    def load_state_dict(self, state: dict[str, Tensor | float]) -> None:
        """Goes on from `state_dict`, however many ranks made it."""
        self.sums.load_state_dict(state)

    def _counts(self, module: nn.Module, running: nn.Module) -> bool:
        # A deep copy of the network carries the hooks along; what the copy does is not what the network does.
        return running is module and module.training and self.recording
