"""How far a comparison is, and its tables at the end."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

if TYPE_CHECKING:
    from snnsl_plugin.comparison.stages import Told

_WORDS = {"plan": "planning", "train": "training"}


class Listening:
    """Shows how far a comparison is while it is open: a bar on a terminal, a line a run elsewhere; always on stderr.

    Args:
        quiet: show nothing.
        console: where to; stderr where omitted.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live = not quiet and self._console.is_terminal
        self._lines = not quiet and not self._console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._live,
            # Epochs of different pruners take different times: the rate is that of the last five minutes.
            speed_estimate_period=300.0,
        )

    def __enter__(self) -> Listening:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, told: Told) -> None:
        """Takes one message."""
        if told.error and (self._live or self._lines):
            self._print(f"failed: {told.what}: {told.error}")
        elif self._lines and told.what and told.stage != "plan":
            self._print(f"{_WORDS[told.stage]}: {told.done}/{told.total} epochs, {told.what}")
        if self._live and told.stage in _WORDS:
            if told.stage not in self._tasks:
                unit = "pruners" if told.stage == "plan" else "epochs"
                self._tasks[told.stage] = self._bars.add_task(_WORDS[told.stage], total=told.total, unit=unit)
            self._bars.update(self._tasks[told.stage], completed=told.done, total=told.total)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def print_comparison(found: Mapping[str, Any], run_dir: Path, console: Console | None = None) -> None:
    """Prints the tables of a comparison, what they could have seen, and where they lie.

    Args:
        found: the content of `comparison.json`.
        run_dir: its folder.
        console: where to; stdout where omitted.
    """
    from snnsl_plugin.comparison import wording

    console = console or Console()
    for table in found["tables"]:
        console.print(_table(found, table))
        for sentence in (wording.headline(found, table), table["power"]["sentence"]):
            console.print(sentence, highlight=False, soft_wrap=True, markup=False)
    for each in found["overall"]:
        console.print(each["sentence"], highlight=False, soft_wrap=True, markup=False)
    for what, path in (("report", run_dir / "comparison.html"), ("folder", run_dir)):
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True, markup=False)


def print_plan(planned: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints who takes part, how much each keeps, and how many epochs that takes.

    Args:
        planned: what `comparison.run.preview` gives.
        console: where to; stdout where omitted.
    """
    from snnsl_plugin.comparison.strengths import MOST_RUNS
    from snnsl_plugin.comparison.wording import budget_words

    console = console or Console()
    for (task, budget), rows in groupby(planned["rows"], lambda row: (row["task"], row["budget"])):
        title = ", ".join([task, *([budget_words(budget)] if budget else [])])
        shown = Table("pruner", "table", "keeps", title=title, title_justify="left")
        for row in rows:
            shown.add_row(row["pruner"], row["kind"], _keeps(row))
        console.print(shown)
    able = [row for row in planned["rows"] if not row["error"]]
    runs = sum(len(row["seeds"]) for row in able)
    known = [len(row["seeds"]) * row["epochs"] for row in able if row["epochs"]]
    length = f"{sum(known):,} epochs" if known else "as many epochs as fit"
    searched = sum(row["searched"] for row in able)
    more = f", and up to {MOST_RUNS} more runs for each of {searched} rows whose budget is searched" if searched else ""
    console.print(f"{runs} runs, {length}{more}; nothing was trained", highlight=False, soft_wrap=True, markup=False)
    for row in planned["rows"]:
        if row["error"]:
            line = f"{row['pruner']} cannot take part on {row['task']}: {row['error']}"
            console.print(line, highlight=False, soft_wrap=True, markup=False)


def _keeps(row: Mapping[str, Any]) -> str:
    strength = row["strength"]
    if row["error"]:
        return "cannot take part"
    if row["searched"]:
        return "found by training"
    if strength is None or strength["value"] is None:
        return "as its block says" if row["budget"] else "all"
    missed = " (misses the budget)" if strength["missed"] else ""
    return f"{strength['key']} {strength['value']:g}{missed}"


def _table(found: Mapping[str, Any], table: Mapping[str, Any]) -> Table:
    from snnsl_plugin.comparison import wording

    shown = Table(
        title=f"{table['task']}, {table['kind']}, {wording.budget_words(table['budget'])}",
        title_justify="left",
        box=None,  # a frame would not leave 80 columns enough room
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    shown.add_column("pruner", no_wrap=True)
    for column in ("accuracy, %", "diff.", "verdict", "SynOps", "cost"):
        shown.add_column(column, justify="right", no_wrap=True)
    dense = wording.dense_of(found, table["task"])
    for row in [*([dense] if dense else []), *wording.rows_of(found, table)]:
        shown.add_row(row["pruner"], *_cells(row, table))
    return shown


def _cells(row: Mapping[str, Any], table: Mapping[str, Any]) -> list[str]:
    from snnsl_plugin.comparison import wording

    if row["status"] == "failed" and not row["measures"]:
        return ["-", "-", "failed", "-", "-"]
    judged = table["differences"].get(row["pruner"], {})
    verdict = "reference" if row["pruner"] == table["reference"] else judged.get("verdict", "")
    verdict = verdict.replace("inside the noise", "noise").replace("not tested", "-")
    cost = wording.measure(row, "training_cost")
    synops = wording.measure(row, "synops")
    return [
        wording.mean_and_half_width(row).removesuffix(" %"),
        wording.signed_points(judged["mean"]) if judged.get("mean") is not None else "",
        verdict,
        "-" if synops is None else f"{synops:,.0f}",
        "-" if cost is None else f"{cost:.2f}",
    ]
