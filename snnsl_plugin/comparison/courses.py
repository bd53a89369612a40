"""The course of a row: what is trained to find out how much it may keep and for how long, and then the runs that count.

A course yields runs and goes on when they have ended; it knows neither workers nor other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from snnsl_plugin.comparison.plan import Row
from snnsl_plugin.comparison.strengths import SEARCH_TOLERANCE, Strength
from snnsl_plugin.comparison.terms import strength_key
from snnsl_plugin.errors import UsageError
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble, folder
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.journal import read
from snnsl_plugin.training.loop import batches

#: Epochs of the training that tells how long an epoch takes; more where a pruner's own times ask for more.
_PROBE_EPOCHS = 2


@dataclass(frozen=True)
class Run:
    """One run that a course asks for.

    Attributes:
        name: of the run and its folder.
        recipe: of the run.
        turn: 0 for what others wait for; 1 for the first seed of a row, 2 for the second, ...
        measures_time: whether it has to be trained here and now, because its seconds count.
    """

    name: str
    recipe: Recipe
    turn: int = 0
    measures_time: bool = False


#: Yields runs; is sent the sentences of those that failed, by name.
Course: TypeAlias = Generator[Sequence[Run], Mapping[str, str] | None, None]


def course(row: Row, dense: Row, place: Callable[[str], Path]) -> Course:
    """All that is trained for a row; its `epochs`, `strength` and `error` are set on the way.

    Args:
        row: prepared.
        dense: the dense network on the same task.
        place: the folder of a run, by its name.
    """
    first = row.seeds[0]
    seconds = row.compare.seconds
    if seconds is not None:
        value = row.search.first if row.search else None
        trial = row.recipe(first, value=value, epochs=_probe_epochs(row, value))
        probe = Run(f"{row.name}-probe", trial, measures_time=True)
        failures = (yield [probe]) or {}
        if failures:
            row.error = failures[probe.name]
            return
        row.epochs = max(1, int(seconds / _fastest_epoch(place(probe.name))))
    if row.search:
        yield from _search(row, dense, place)
        if row.error:
            return
    yield [Run(row.run_name(seed), row.recipe(seed), turn) for turn, seed in enumerate(row.seeds, 1)]


def _probe_epochs(row: Row, value: float | None) -> int:
    """The fewest epochs, doubled from two, into which its pruner's updates fit; the task's at most."""
    epochs, most = _PROBE_EPOCHS, row.task.recipe.train.epochs
    while epochs < most:
        try:
            assemble.assemble(row.recipe(row.seeds[0], value=value, epochs=epochs), row.task.parts)
        except UsageError:
            epochs *= 2
        else:
            return epochs
    return most


def _search(row: Row, dense: Row, place: Callable[[str], Path]) -> Course:
    """Trains with other strengths until what is left meets the budget; no accuracy is looked at."""
    search, seed, whole = row.search, row.seeds[0], 1.0
    if search is None or row.budget is None:
        return
    if row.budget.kind == "synops":
        # With as many epochs as this row's: where seconds are the budget, the dense network's own are others.
        name = f"{dense.name}-{row.epochs}ep-s{dense.seeds[0]}" if row.epochs else dense.run_name(dense.seeds[0])
        reference = Run(name, dense.recipe(dense.seeds[0], epochs=row.epochs))
        failures = (yield [reference]) or {}
        if failures:
            row.error = f"the dense network, whose SynOps are the measure, failed: {failures[reference.name]}"
            return
        whole = _synops(row, place(reference.name))
    while (value := search.next_value()) is not None:
        trial = Run(f"{row.name}-s{seed}-search-{value:g}", row.recipe(seed, value=value))
        failures = (yield [trial]) or {}
        if failures:
            if not search.seen:
                row.error = failures[trial.name]
                return
            search.tell(value, 0.0)  # most likely a layer was cut off: half of the way back
        else:
            search.tell(value, _share(row, place(trial.name), whole))
    missed = search.error() > SEARCH_TOLERANCE
    row.strength = Strength(strength_key(row.entrant), search.best, "search", missed, len(search.seen))


def _fastest_epoch(run: Path) -> float:
    """Seconds of the fastest epoch of a run: what slows the others down is the machine, not the pruner."""
    return min(float(line["metrics"]["seconds"]) for line in read(run / folder.JOURNAL) if line["event"] == "epoch")


def _share(row: Row, run: Path, whole: float) -> float:
    """What a run left, in the measure of the row's budget."""
    if row.budget and row.budget.kind == "synops":
        return _synops(row, run) / whole
    density = _result(run)["density"]
    if row.kind == "structured":
        return float(density["connections"]["density"])
    return float(density["weights"]["achieved"])


def _synops(row: Row, run: Path) -> float:
    """SynOps per sample of a finished run on the validation part: the test set decides nothing."""
    parts = row.task.parts
    return measure(assemble.load_network(run, parts), batches(parts.validation, "cpu")).synops_per_sample or 0.0


def _result(run: Path) -> dict[str, Any]:
    return folder.result(run) or {}
