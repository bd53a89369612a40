"""How a comparison is put into words: numbers with their units, budgets, terms, and the answer in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from snnsl_plugin.comparison.judgement import missed

Comparison: TypeAlias = Mapping[str, Any]
Row: TypeAlias = Mapping[str, Any]
Table: TypeAlias = Mapping[str, Any]

NOTHING = "–"
SYMBOLS = {"better": "▲", "worse": "▼", "undecided": "?", "inside the noise": "≈", "not tested": "○"}
#: what a density budget counts, by kind of pruner: the key of a row's measures, and its words
KEPT = {"unstructured": ("density", "density"), "structured": ("connections", "share of weights on a live path")}
_NAMED_AT_MOST = 3


# ---- parts of a comparison ------------------------------------------------


def rows_of(comparison: Comparison, table: Table) -> list[Row]:
    """The rows of one table, in the table's order."""
    place = {pruner: number for number, pruner in enumerate(table["order"])}
    found = [
        row
        for row in comparison["rows"]
        if (row["task"], row["kind"], row["budget"]) == (table["task"], table["kind"], table["budget"])
    ]
    return sorted(found, key=lambda row: place.get(row["pruner"], len(place)))


def dense_of(comparison: Comparison, task: str) -> Row | None:
    """The dense row of a task, or None where dense was not trained."""
    return next((row for row in comparison["rows"] if row["task"] == task and row["kind"] == "dense"), None)


def host_of(row: Row) -> str:
    """Whose marker and colour a row has: its host's, or those of dense, which is nobody's pruner."""
    return "dense" if row["kind"] == "dense" else str(row["host"])


def blocks(comparison: Comparison) -> list[tuple[str, Mapping[str, Any], list[Table]]]:
    """The tables of each task and budget together: (task, budget, [unstructured table, structured table])."""
    found: list[tuple[str, Mapping[str, Any], list[Table]]] = []
    for table in comparison["tables"]:
        for task, budget, tables in found:
            if (task, budget) == (table["task"], table["budget"]):
                tables.append(table)
                break
        else:
            found.append((table["task"], table["budget"], [table]))
    return found


def measure(row: Row, key: str, part: str = "mean") -> float | None:
    """One part of a row's measure over seeds; None where no finished run has it."""
    value = (row["measures"].get(key) or {}).get(part)
    return None if value is None else float(value)


# ---- numbers --------------------------------------------------------------


def percent(value: float | None, digits: int = 2) -> str:
    """A share in [0, 1] as a percentage."""
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def signed_points(value: float | None) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return NOTHING if value is None else f"{100 * value:+.2f}".replace("-", "−")


def significant(value: float | None) -> str:
    """Three significant digits, or whole thousands with separators; never an exponent from 0.0001 on."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"


def compact(value: float) -> str:
    """A number beside a tick: "2500", "25k", "1.5M"."""
    for size, least, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e3, 1e4, "k")):
        if abs(value) >= least:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def half_width(row: Row, key: str = "accuracy") -> float | None:
    """Half the width of a measure's interval; None where there are fewer than two runs."""
    low, high = measure(row, key, "low"), measure(row, key, "high")
    return None if low is None or high is None else (high - low) / 2


def mean_and_half_width(row: Row) -> str:
    """The accuracy as "97.10 ± 0.42 %", without the second number where there are fewer than two runs."""
    mean, half = measure(row, "accuracy"), half_width(row)
    if mean is None or half is None:
        return percent(mean)
    return f"{100 * mean:.2f} ± {100 * half:.2f} %"


def budget_words(budget: Mapping[str, Any] | None) -> str:
    """A budget in words: "density 0.1", "SynOps 0.1"; "dense" for none."""
    if budget is None:
        return "dense"
    return f"{'SynOps' if budget['kind'] == 'synops' else budget['kind']} {budget['value']:g}"


# ---- sentences ------------------------------------------------------------


def headline(comparison: Comparison, table: Table) -> str:
    """The answer of one table: who is better than the reference beyond the noise, who is worse, who failed."""
    rows = rows_of(comparison, table)
    where = f"at {budget_words(table['budget'])} on {table['task']}"
    start = f"Of {_counted(len(rows), table['kind'] + ' pruner')} {where}, "
    reference, verdicts = table["reference"], verdicts_of(table, rows)
    if reference is None:
        answer = "none that compare.references names finished within its budget, so nothing was tested"
    elif not any(verdicts[verdict] for verdict in ("better", "worse", "undecided", "inside the noise")):
        answer = f"none could be tested against {reference}"
    else:
        answer = f"{_who(verdicts['better'])} better than {reference} beyond the noise; {_who(verdicts['worse'])} worse"
        if not verdicts["better"] and not verdicts["worse"]:
            answer = f"none is better or worse than {reference} beyond the noise"
        if verdicts["undecided"]:
            answer += f"; {_who(verdicts['undecided'])} undecided, which takes more seeds"
        if verdicts["inside the noise"]:
            answer += f"; {_who(verdicts['inside the noise'])} inside the noise"
        if verdicts["not tested"]:
            answer += f"; {_who(verdicts['not tested'])} not tested"
    for status, words in (("failed", "failed"), ("running", "not finished yet")):
        found = [row["pruner"] for row in rows if row["status"] == status]
        if found:
            answer += f"; {named(found)} {words}"
    return f"{start}{answer}.{_leader(table, rows)}"


def leader(table: Table, rows: Sequence[Row]) -> Row | None:
    """The row of the highest mean among those that finished within the budget; None where there is none."""
    able = {row["pruner"]: row for row in rows if row["status"] == "finished" and not missed(row)}
    return next((able[name] for name in table["order"] if name in able), None)


def _leader(table: Table, rows: Sequence[Row]) -> str:
    first = leader(table, rows)
    return f" Highest mean: {first['pruner']}, {mean_and_half_width(first)}." if first else ""


def verdicts_of(table: Table, rows: Sequence[Row]) -> dict[str, list[str]]:
    """The pruners by verdict; what did not finish is named as that, not as untested."""
    finished = {row["pruner"] for row in rows if row["status"] == "finished"}
    found: dict[str, list[str]] = {verdict: [] for verdict in SYMBOLS}
    for pruner, difference in table["differences"].items():
        if pruner in finished:
            found[difference["verdict"]].append(pruner)
    return found


def _who(pruners: Sequence[str]) -> str:
    if not pruners:
        return "none is"
    return f"{named(pruners)} {'is' if len(pruners) == 1 else 'are'}"


def named(pruners: Sequence[str]) -> str:
    """Up to three names, else how many there are."""
    if len(pruners) > _NAMED_AT_MOST:
        return str(len(pruners))
    return " and ".join([", ".join(pruners[:-1]), pruners[-1]] if len(pruners) > 1 else pruners)


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def terms(comparison: Comparison) -> str:
    """The terms all pruners were given, in one line."""
    given = comparison["terms"]
    seeds = given["seeds"]
    length = []
    if given["epochs"] is not None:
        length.append(f"{given['epochs']:g} epochs")
    if given["seconds"] is not None:
        length.append(f"{given['seconds']:g} seconds of training")
    parts = [
        f"{_counted(len(seeds), 'seed')} ({', '.join(map(str, seeds))})",
        f"{' or '.join(length) or 'the epochs of its task'} a run",
    ]
    if given["every"] is not None:
        parts.append(f"masks updated every {given['every']}" + (f" until {given['until']}" if given["until"] else ""))
    parts.append(f"{_counted(given['workers'], 'worker')} of {_counted(given['threads'], 'thread')}")
    parts.append(
        f"{given['confidence']:.0%} intervals; a difference counts at a family-wise error of {given['alpha']:g}"
    )
    return f"Equal terms: {'; '.join(parts)}. Accuracy is that of the {comparison['judge']} data."


def strength_words(row: Row) -> str:
    """How strongly a pruner was set to meet the budget, and who found that out."""
    strength = row["strength"]
    if not strength:
        return NOTHING
    if strength["key"] is None or strength["value"] is None:
        return "as given" + ("; budget missed" if strength["missed"] else "")
    found_by = {"plan": "planned", "search": f"searched in {_counted(strength['runs'], 'trial run')}", "given": "given"}
    how = found_by[strength["found_by"]] + ("; budget missed" if strength["missed"] else "")
    return f"{strength['key']} {significant(strength['value'])} ({how})"


def failures(row: Row) -> list[str]:
    """Each distinct sentence that a row's failures left, the row's own first."""
    said = [row["error"]] if row["error"] else []
    for run in row["runs"]:
        if run["error"] and run["error"] not in said:
            said.append(run["error"])
    if row["status"] == "failed" and not said:
        said.append("It failed without a sentence; its run folder holds the log.")
    return said
