"""`comparison.html`: one file that needs no other, readable without scripts, with a keyboard, in light and in dark."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from snnsl_plugin.comparison import charts, columns, fairness, svg, wording
from snnsl_plugin.comparison.definitions import DEFINITIONS
from snnsl_plugin.comparison.wording import Comparison, Row, Table, measure

_HERE = Path(__file__).parent
_HOST_ORDER = ("snnsl", "nni", "torch_pruning", "torch")


@dataclass(frozen=True)
class Run:
    """A run's links: to its folder and to its report, each None where there is none."""

    seed: int
    status: str
    folder: str | None
    report: str | None


@dataclass(frozen=True)
class Line:
    """One line of a table; without cells it is an error line."""

    row: Row
    summary: str
    reference: bool
    cells: Sequence[columns.Cell]
    failures: Sequence[str]
    runs: Sequence[Run]


@dataclass(frozen=True)
class TableView:
    """One table with what is drawn of it."""

    anchor: str
    title: str
    kind: str
    answer: str
    tally: Sequence[str]
    dense: Line | None
    lines: Sequence[Line]
    dots: Markup | None
    power: str


@dataclass(frozen=True)
class TaskView:
    """Everything of one task: its tables by budget, its curves by kind."""

    name: str
    about: str
    budgets: Sequence[tuple[str, Sequence[TableView]]]
    curves: Sequence[tuple[str, Sequence[tuple[str, Markup]]]]


def render(comparison: Comparison, reports: Collection[str] = ()) -> str:
    """Draws the page.

    Args:
        comparison: what `comparison.json` holds.
        reports: the run folders, as the comparison names them, that hold a `report.html`.

    Returns:
        HTML that asks for nothing outside itself; text from outside is escaped.
    """
    script, style = (_HERE / "comparison.js").read_text("utf-8"), (_HERE / "comparison.css").read_text("utf-8")
    hosts = _hosts(comparison)
    tasks = [_task(comparison, task, hosts, reports) for task in comparison["tasks"]]
    template = _environment().get_template("comparison.html.jinja")
    return template.render(
        comparison=comparison,
        tasks=tasks,
        answers=[table for task in tasks for _, tables in task.budgets for table in tables],
        terms=wording.terms(comparison),
        hosts=[host for host in [*hosts, "dense"] if host in {wording.host_of(row) for row in comparison["rows"]}],
        host_of=wording.host_of,
        host_class=lambda host: svg.host_class(host, hosts),
        marker=lambda host: svg.marker(host, hosts),
        columns=columns.COLUMNS,
        definitions=DEFINITIONS,
        excluded=fairness.EXCLUDED,
        threats=fairness.threats(comparison),
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}';"
        " base-uri 'none'; form-action 'none'",
        data=_embedded({"rows": {str(number): _tip(row) for number, row in enumerate(comparison["rows"])}}),
    )


# ---- views ----------------------------------------------------------------


def _hosts(comparison: Comparison) -> list[str]:
    """All hosts but dense: the known ones first, so that a host keeps its colour from page to page."""
    there = {row["host"] for row in comparison["rows"] if row["kind"] != "dense"}
    return [*_HOST_ORDER, *sorted(there - set(_HOST_ORDER))]


def _task(comparison: Comparison, task: Mapping[str, Any], hosts: Sequence[str], reports: Collection[str]) -> TaskView:
    numbered = {number: row for number, row in enumerate(comparison["rows"]) if row["task"] == task["name"]}
    dense = next((entry for entry in numbered.items() if entry[1]["kind"] == "dense"), None)
    curves = []
    for kind in ("unstructured", "structured"):
        own = {number: row for number, row in numbered.items() if row["kind"] == kind}
        drawn = [
            (what.title, picture)
            for what in charts.measures(kind)
            if (picture := charts.curve(own, dense, what, hosts, f"{task['name']}, {kind}")) is not None
        ]
        if drawn:
            curves.append((kind, drawn))
    samples = ", ".join(f"{count:,} {part}" for part, count in task["samples"].items())
    about = f"{samples} samples; {task['classes']} classes; {task['weights']:,} weights"
    budgets = [
        (wording.budget_words(budget), [_table(comparison, table, numbered, hosts, reports) for table in tables])
        for name, budget, tables in wording.blocks(comparison)
        if name == task["name"]
    ]
    return TaskView(task["name"], about, budgets, curves)


def _table(
    comparison: Comparison,
    table: Table,
    numbered: Mapping[int, Row],
    hosts: Sequence[str],
    reports: Collection[str],
) -> TableView:
    rows, dense = wording.rows_of(comparison, table), wording.dense_of(comparison, table["task"])
    summaries = {pruner["name"]: pruner["summary"] for pruner in comparison["pruners"]}
    place = {id(row): number for number, row in numbered.items()}

    def line(row: Row) -> Line:
        scored = measure(row, "accuracy") is not None
        runs = [
            Run(
                run["seed"],
                run["status"],
                folder := svg.link(run["folder"]),
                f"{folder}report.html" if run["folder"] in reports else None,
            )
            for run in row["runs"]
        ]
        cells = columns.cells(row, table, dense) if scored else []
        return Line(
            row,
            summaries.get(row["pruner"], ""),
            row["pruner"] == table["reference"],
            cells,
            wording.failures(row),
            runs,
        )

    where = f"{table['task']}, {wording.budget_words(table['budget'])}"
    return TableView(
        anchor=f"table-{comparison['tables'].index(table)}",
        title=f"{where}, {table['kind']}",
        kind=table["kind"],
        answer=wording.headline(comparison, table),
        tally=_tally(table, rows),
        dense=line(dense) if dense else None,
        lines=[line(row) for row in rows],
        dots=charts.dots(
            table, {place[id(row)]: row for row in rows}, (place[id(dense)], dense) if dense else None, hosts
        ),
        power=table["power"]["sentence"],
    )


def _tally(table: Table, rows: Sequence[Row]) -> list[str]:
    """The answer in cells: reference, better, worse, undecided, inside the noise, failed or untested, highest mean."""
    verdicts = wording.verdicts_of(table, rows)
    rest = [row["pruner"] for row in rows if row["status"] != "finished"] + verdicts["not tested"]
    first = wording.leader(table, rows)
    return [
        table["reference"] or wording.NOTHING,
        *(wording.named(found) if found else "none" for found in (verdicts["better"], verdicts["worse"])),
        *(str(len(verdicts[verdict])) for verdict in ("undecided", "inside the noise")),
        wording.named(rest) if rest else "none",
        f"{first['pruner']}, {wording.mean_and_half_width(first)}" if first else wording.NOTHING,
    ]


def _tip(row: Row) -> dict[str, Any]:
    """What the tooltip of a point says: a title, and lines of label and value."""
    low, high = measure(row, "accuracy", "low"), measure(row, "accuracy", "high")
    interval = "" if low is None or high is None else f" [{100 * low:.2f}, {100 * high:.2f}]"
    seeds = (row["measures"].get("accuracy") or {}).get("n", 0)
    cost = measure(row, "training_cost")
    lines = [
        ("budget", wording.budget_words(row["budget"])),
        ("seeds", str(seeds)),
        ("accuracy", wording.percent(measure(row, "accuracy")) + interval),
        ("density", wording.significant(measure(row, "density"))),
        ("SynOps", wording.significant(measure(row, "synops"))),
        ("training cost", wording.significant(cost) + (" x dense" if cost is not None else "")),
        ("peak memory", wording.significant(measure(row, "peak_memory_mib")) + " MiB"),
        ("seconds", wording.significant(measure(row, "wall_s"))),
    ]
    return {"title": row["pruner"] if row["kind"] == "dense" else f"{row['pruner']} ({row['host']})", "lines": lines}


# ---- the file -------------------------------------------------------------


def _embedded(data: Any) -> Markup:
    """JSON that can end neither the script element around it nor a line of JavaScript."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _digest(text: str) -> str:
    """What a Content-Security-Policy calls an inline element by: no other script or style on the page works."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
