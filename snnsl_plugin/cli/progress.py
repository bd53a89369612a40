"""How far a run is: a live bar on a terminal, one line an epoch elsewhere; always on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from snnsl_plugin.training.events import Epoch, Event

#: Seconds between two readings of the loss: each waits for the device.
_EVERY = 0.5


class Progress:
    """Shows the events of a run while it is open.

    Args:
        epochs: how many epochs a phase has.
        quiet: show nothing.
        console: where to; stderr where omitted.
    """

    def __init__(self, epochs: int, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = not quiet and self._console.is_terminal
        self._lines = not quiet and not self._console.is_terminal
        self._epochs = epochs
        self._tasks: dict[str, TaskID] = {}
        self._read = 0.0
        # All of it fits into the 80 columns of a default terminal.
        self._bars = Bars(
            TextColumn("{task.description:6}"),
            BarColumn(bar_width=6),
            TextColumn("{task.fields[facts]}"),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=not self._live,
        )
        self._facts: dict[str, dict[str, str]] = {}

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, phase: str, event: Event) -> None:
        """Takes one event of a phase (`dense` or `sparse`)."""
        from snnsl_plugin.training.events import Epoch, MaskUpdate, Step

        if self._lines and isinstance(event, Epoch):
            self._console.print(line(phase, event), highlight=False, soft_wrap=True, markup=False)
        if not self._live:
            return
        facts = self._facts.setdefault(phase, {"epoch": f"epoch 1/{self._epochs}"})
        if isinstance(event, Step):
            now = time.monotonic()
            if now - self._read > _EVERY:
                self._read = now
                facts["loss"] = f"loss {event.loss.item():.3f}"
            self._move(phase, completed=event.step, total=event.total)
        elif isinstance(event, MaskUpdate):
            facts["density"] = f"density {event.density:.3f}"
        elif isinstance(event, Epoch):
            facts["epoch"] = f"epoch {min(event.epoch + 1, event.epochs)}/{event.epochs}"
            facts["loss"] = f"loss {event.loss:.3f}"
            facts["validation"] = f"validation {event.validation_accuracy:.1%}"
            facts["density"] = f"density {event.density:.3f}"

    def _move(self, phase: str, *, completed: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=total, facts="")
        facts = " ".join(self._facts[phase].values())
        self._bars.update(self._tasks[phase], completed=completed, total=total, facts=facts)


def line(phase: str, event: Epoch) -> str:
    """An epoch in one line."""
    return (
        f"{phase:6} epoch {event.epoch:3d}/{event.epochs}  loss {event.loss:.4f}  "
        f"validation {event.validation_accuracy:.4f}  density {event.density:.4f}  {event.seconds:.1f} s"
    )
