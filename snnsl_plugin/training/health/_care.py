"""What the training loop offers to whoever looks after the signal."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch import Tensor


class Care:
    """Looks after the signal of one network; each method does nothing until it is written anew.

    Hooks belong into `__enter__`, and are gone after `__exit__`.
    """

    def __enter__(self) -> Care:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the network as it was found, but for what it has learned."""

    def before_step(self, step: int) -> None:
        """Is told which step comes, numbered from 1."""

    def penalty(self) -> Tensor | None:
        """What is added to the loss of the batch that has just passed, a scalar; None for nothing."""
        return None

    def after_update(self, step: int) -> None:
        """Is told that masks have changed after a step."""

    def report(self) -> dict[str, float]:
        """What the journal is to show after an epoch, by name."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: plain data and tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`."""
