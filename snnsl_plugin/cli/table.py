"""The table at the end of a run: dense against sparse."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from snnsl_plugin.metrics.definitions import DEFINITIONS

Result: TypeAlias = Mapping[str, Any]
#: What stands before a definition -> its key
_EXPLAINED = {
    "density": "density",
    "connections": "connections",
    "SynOps": "synops_per_sample",
    "MACs": "macs_per_sample",
    "energy": "energy_pj_per_sample",
    "silent": "silent",
}


def print_result(result: Result, run_dir: Path, console: Console | None = None) -> None:
    """Prints a finished run, what its numbers mean, and where it lies.

    Args:
        result: the content of `result.json`; "dense" holds the dense baseline's, or nothing.
        run_dir: the run folder.
        console: where to; stdout where omitted.
    """
    console = console or Console()
    dense = result.get("dense")
    table = Table(title=f"{result['recipe']}, seed {result['seed']}", title_justify="left")
    table.add_column("measure")
    for column in ("dense", "sparse") if dense else (_word(result),):
        table.add_column(column, justify="right")
    rows = _ROWS | ({"budget": _budget} if "budget" in result else {})
    for label, cell in rows.items():
        table.add_row(label, *(cell(each) for each in (dense, result) if each))
    console.print(table)
    if "evolution" in result:
        print_generations(result["evolution"]["generations"], console)
    for word, key in _EXPLAINED.items():
        console.print(f"{word}: {DEFINITIONS[key]}", style="dim", highlight=False, soft_wrap=True, markup=False)
    for what, path in (("report", run_dir / "report.html"), ("run folder", run_dir)):
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True, markup=False)


def print_generations(generations: list[Result], console: Console) -> None:
    """Prints a line a candidate of an evolution, and the residual blocks that are left out in the end."""
    from snnsl_plugin.recipe import evolution_report

    table = Table(title="generations; * was chosen by validation", title_justify="left")
    table.add_column("candidate")
    for column in evolution_report.COLUMNS:
        table.add_column(column, justify="right")
    for line in evolution_report.table(generations):
        table.add_row(*line)
    console.print(table)
    for sentence in evolution_report.dead_blocks(generations):
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)


def _word(result: Result) -> str:
    return "sparse" if result["density"]["weights"]["achieved"] < 1 else "dense"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _mean(per_layer: Mapping[str, float]) -> str:
    return _share(statistics.fmean(per_layer.values()) if per_layer else None)


def _energy(result: Result) -> str:
    total = result["energy_pj_per_sample"].get("total")
    return "-" if total is None else f"{total / 1000:,.2f}"


def _weights(result: Result) -> str:
    weights = result["density"]["weights"]
    return f"{weights['kept']:,} of {weights['total']:,}"


def _budget(result: Result) -> str:
    told = result.get("budget")
    if told is None:
        return "-"
    return f"{told['measured']:,.0f} of {told['asked']:,.0f} {told['name']}{'' if told['met'] else ', not met'}"


_ROWS: dict[str, Callable[[Result], str]] = {
    "accuracy, test": lambda result: _share(result["accuracy"]["test"]),
    "accuracy, validation": lambda result: _share(result["accuracy"]["validation"]),
    "density requested": lambda result: _share(result["density"]["weights"]["requested"]),
    "density achieved": lambda result: _share(result["density"]["weights"]["achieved"]),
    "weights kept": _weights,
    "connections on a live path": lambda result: _count(result["density"]["connections"]["live"]),
    "connections regrown": lambda result: _count(result["regrown"]),
    "SynOps per sample": lambda result: _count(result["synops_per_sample"]),
    "MACs per sample": lambda result: _count(result["macs_per_sample"]),
    "energy per sample, nJ": _energy,
    "firing rate, mean of layers": lambda result: _mean(result["firing_rate"]),
    "silent share, mean of layers": lambda result: _mean(result["silent"]),
    "parameters": lambda result: _count(result["parameters"]["kept"]),
    "seconds per epoch": lambda result: f"{result['seconds_per_epoch']:.2f}",
}
