"""How far a study is, while it goes on, and its table at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from snnsl_plugin.tuning.head import State

_ENDED = ("complete", "stopped")
#: Rows of the front that a terminal has room for beside what is at work.
_ROWS = 8


class Watching:
    """Shows a study while it is open: bar, trials at work and the front on a terminal, a line a trial elsewhere.

    Args:
        quiet: show nothing.
        console: where to; stderr where omitted.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._quiet = quiet
        self._bar = Progress(
            TextColumn("trials"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self._task = self._bar.add_task("trials", total=None)
        live = not quiet and self._console.is_terminal
        self._live = Live(self._bar, console=self._console, transient=True) if live else None

    def __enter__(self) -> Watching:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, state: State) -> None:
        """Takes how far the study is."""
        if self._quiet:
            return
        for sentence in state.said:
            self._console.print(sentence, highlight=False, soft_wrap=True, markup=False)
        if self._live and state.found:
            done = sum(row["state"] in _ENDED for row in state.found["trials"])
            self._bar.update(self._task, completed=done, total=state.found["trials_wanted"])
            self._live.update(Group(self._bar, _at_work(state), front_table(state.found, most=_ROWS)))


def front_table(found: Mapping[str, Any], most: int | None = None) -> Table:
    """The trials that no other one beats, best accuracy first."""
    from snnsl_plugin.tuning.report import number, tried

    names, keys = list(found["objectives"]), list(found["space"])
    rows = [row for row in found["trials"] if row["number"] in found["front"]]
    rows.sort(key=lambda row: -row["measures"]["accuracy"])
    table = Table(title="front", title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("tried", overflow="fold")
    for row in rows[:most]:
        words = [f"{key} {tried(row['params'][key])}" for key in keys if key in row["params"]]
        cells = [number(row["measures"][name], name) for name in names]
        table.add_row(str(row["number"]), *cells, ", ".join(words))
    return table


def print_study(found: Mapping[str, Any], run_dir: Path, console: Console | None = None) -> None:
    """Prints the front of a study, how its trials ended, and where it lies.

    Args:
        found: the content of `study.json`.
        run_dir: its folder.
        console: where to; stdout where omitted.
    """
    from snnsl_plugin.tuning.report import summary

    console = console or Console()
    if found["front"]:
        console.print(front_table(found))
    else:
        console.print("no trial is complete and within all limits", highlight=False)
    for line in (summary(found), f"report: {run_dir / 'report.html'}", f"study folder: {run_dir}"):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def print_space(planned: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what a dry run found out."""
    from snnsl_plugin.tuning.report import tried

    console = console or Console()
    table = Table(title="space", title_justify="left")
    for column in ("key", "tried", "recipe"):
        table.add_column(column, overflow="fold")
    for key, spec in planned["space"].items():
        table.add_row(key, _span(spec), tried(planned["first"].get(key)))
    console.print(table)
    trials = f"{planned['trials']} trials" if planned["trials"] else f"as many trials as fit in {planned['hours']} h"
    lines = [f"objectives: {', '.join(planned['objectives'])}; sampler {planned['sampler']}; {trials}"]
    for name, limit in planned["constraints"].items():
        lines += [
            f"limit: {name} {word.replace('_', ' ')} {value:g}" for word, value in limit.items() if value is not None
        ]
    for example in planned["examples"]:
        words = ", ".join(f"{key} {tried(value)}" for key, value in example["values"].items())
        lines.append(f"e.g. {words}" + (f"  -> {example['error']}" if example["error"] else ""))
    for line in [*lines, "nothing was trained"]:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _span(spec: Mapping[str, Any]) -> str:
    from snnsl_plugin.tuning.report import tried

    if spec["name"] == "choice":
        words = ", ".join(tried(value) for value in spec["values"])
    else:
        words = f"{spec['low']:g} to {spec['high']:g}" + (", by its logarithm" if spec["log"] else "")
    return words + "".join(f", when {key} is {value}" for key, value in spec["when"].items())


def _at_work(state: State) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for number, at in sorted(state.at_work.items()):
        epoch = f"epoch {at['epoch']}/{at['epochs']}" if at["epochs"] else "beginning"
        accuracy = f"validation {at['accuracy']:.1%}" if at["accuracy"] is not None else ""
        table.add_row(f"trial {number}", epoch, accuracy)
    return table
