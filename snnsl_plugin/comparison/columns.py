"""The columns of a comparison's tables: what stands in each cell, in words and as the number it sorts by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snnsl_plugin.comparison import wording
from snnsl_plugin.comparison.wording import NOTHING, Row, Table, measure


@dataclass(frozen=True)
class Cell:
    """One cell: its text, the number or word it sorts by (None sorts last), and a smaller second line."""

    text: str
    value: float | str | None = None
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Column:
    """One column: its head, the definition it links to, and how a row, its table and the dense row make a cell."""

    head: str
    definition: str
    cell: Callable[[Row, Table, Row | None], Cell]


def _accuracy(row: Row, table: Table, dense: Row | None) -> Cell:
    low, high = measure(row, "accuracy", "low"), measure(row, "accuracy", "high")
    note = "" if low is None or high is None else f"[{100 * low:.2f}, {100 * high:.2f}]"
    return Cell(wording.mean_and_half_width(row), measure(row, "accuracy"), note)


def _difference(row: Row, table: Table, dense: Row | None) -> Cell:
    found = table["differences"].get(row["pruner"])
    if row["kind"] == "dense" or found is None:
        return Cell("reference", 0.0) if row["pruner"] == table["reference"] else Cell(NOTHING)
    text = wording.signed_points(found["mean"])
    if found["low"] is None or found["high"] is None:
        return Cell(text, found["mean"])
    interval = f"[{wording.signed_points(found['low'])}, {wording.signed_points(found['high'])}]"
    return Cell(text, found["mean"], interval)


def _verdict(row: Row, table: Table, dense: Row | None) -> Cell:
    found = table["differences"].get(row["pruner"])
    if row["kind"] == "dense" or found is None:
        return Cell("★ reference", "b") if row["pruner"] == table["reference"] else Cell(NOTHING)
    verdict = found["verdict"]
    order = {"better": "a", "undecided": "c", "inside the noise": "d", "not tested": "e", "worse": "f"}
    note = found["reason"] if found["p_holm"] is None else f"p {found['p_holm']:.2g} (Holm)"
    return Cell(f"{wording.SYMBOLS[verdict]} {verdict}", order[verdict], note, verdict)


def _synops(row: Row, table: Table, dense: Row | None) -> Cell:
    mean, reference = measure(row, "synops"), measure(dense, "synops") if dense else None
    note = f"{mean / reference:.3g} x dense" if mean is not None and reference and row is not dense else ""
    return Cell(wording.significant(mean), mean, note)


def _runs(row: Row, table: Table, dense: Row | None) -> Cell:
    finished = sum(run["status"] == "finished" for run in row["runs"])
    reused = sum(run["reused"] for run in row["runs"])
    return Cell(f"{finished} of {len(row['runs'])}", finished, f"{reused} reused" if reused else "")


def _plain(key: str, unit: str = "") -> Callable[[Row, Table, Row | None], Cell]:
    def cell(row: Row, table: Table, dense: Row | None) -> Cell:
        mean = measure(row, key)
        return Cell(wording.significant(mean) + (unit if mean is not None else ""), mean)

    return cell


#: every column after the pruner's name and host, from left to right
COLUMNS: tuple[Column, ...] = (
    Column("accuracy", "accuracy", _accuracy),
    Column("difference, points", "difference", _difference),
    Column("verdict", "verdict", _verdict),
    Column("density", "density", _plain("density")),
    Column("connections", "connections", _plain("connections")),
    Column("SynOps", "synops", _synops),
    Column("energy model, nJ", "energy", _plain("energy_nj")),
    Column("training cost, x dense", "training_cost", _plain("training_cost")),
    Column("seconds", "seconds", _plain("wall_s")),
    Column("peak memory, MiB", "peak_memory", _plain("peak_memory_mib")),
    Column("strength", "strength", lambda row, table, dense: Cell(wording.strength_words(row))),
    Column("runs", "runs", _runs),
)


def cells(row: Row, table: Table, dense: Row | None) -> list[Cell]:
    """The cells of one row, in the order of COLUMNS."""
    return [column.cell(row, table, dense) for column in COLUMNS]
