"""A comparison as plain text: `comparison.csv`, one line a run, and `comparison.md`, what a repository shows."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from snnsl_plugin.comparison import wording
from snnsl_plugin.comparison.columns import COLUMNS, Cell, cells
from snnsl_plugin.comparison.definitions import DEFINITIONS
from snnsl_plugin.comparison.wording import Comparison, Row, Table

_IDENTITY = ("task", "pruner", "host", "kind", "budget_kind", "budget", "strength_key", "strength", "found_by")
_SHOWN = (
    "accuracy",
    "difference, points",
    "verdict",
    "connections",
    "SynOps",
    "training cost, x dense",
    "seconds",
    "runs",
)
_RUN = ("seed", "status", "error", "folder", "digest", "reused")


def lines(comparison: Comparison) -> str:
    """`comparison.csv`: a header, then one line a run with every number it has.

    A row that failed before it had a run gets one line without a seed, so that no failure is missing from the file.

    Args:
        comparison: what `comparison.json` holds.

    Returns:
        CSV as RFC 4180 has it, but with line feeds; absent numbers are empty.
    """
    numbers: list[str] = []
    for row in comparison["rows"]:
        for run in row["runs"]:
            numbers += [key for key in run["numbers"] or {} if key not in numbers]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_IDENTITY, *_RUN, *numbers])
    for row in comparison["rows"]:
        budget, strength = row["budget"] or {}, row["strength"] or {}
        identity = [row[word] for word in ("task", "pruner", "host", "kind")]
        identity += [budget.get("kind"), budget.get("value")]
        identity += [strength.get(word) for word in ("key", "value", "found_by")]
        for run in row["runs"]:
            held = run["numbers"] or {}
            writer.writerow([*identity, *(run[word] for word in _RUN), *(held.get(key) for key in numbers)])
        if not row["runs"]:
            absent: list[None] = [None] * (3 + len(numbers))
            writer.writerow([*identity, None, row["status"], row["error"], *absent])
    return out.getvalue()


def markdown(comparison: Comparison) -> str:
    """`comparison.md`: the answers, one table per task, kind and budget, the power, the ranks and the definitions.

    Args:
        comparison: what `comparison.json` holds.

    Returns:
        GitHub-flavoured Markdown; text from outside is escaped.
    """
    parts = [f"# {_escaped(comparison['name'])}", ""]
    if comparison["status"] != "finished":
        parts += [f"**This comparison is {comparison['status']}; what follows is what there is so far.**", ""]
    parts += [f"- {_escaped(wording.headline(comparison, table))}" for table in comparison["tables"]]
    parts += ["", _escaped(wording.terms(comparison)), ""]
    for table in comparison["tables"]:
        parts += _section(comparison, table)
    parts += _ranks(comparison)
    parts += ["## What the columns mean", ""]
    parts += [f"- **{word.replace('_', ' ')}**: {sentence}" for word, sentence in DEFINITIONS.items()]
    parts += ["", "## To repeat it", "", *_provenance(comparison)]
    return "\n".join(parts) + "\n"


def _section(comparison: Comparison, table: Table) -> list[str]:
    rows, dense = wording.rows_of(comparison, table), wording.dense_of(comparison, table["task"])
    scored = [row for row in rows if row["measures"].get("accuracy")]
    body = [_line(row, table, dense) for row in ([dense] if dense else []) + scored]
    title = f"{table['task']}, {wording.budget_words(table['budget'])}, {table['kind']}"
    section = [f"## {_escaped(title)}", "", _row(["pruner", *_SHOWN]), "|---|" + "---:|" * len(_SHOWN), *body, ""]
    section += [
        f"- `{_code(row['pruner'])}`: {row['status']}: {_escaped(sentence)}"
        for row in ([dense] if dense else []) + rows
        for sentence in wording.failures(row)
    ]
    if any(wording.failures(row) for row in ([dense] if dense else []) + rows):
        section.append("")
    return [*section, _escaped(table["power"]["sentence"]), ""]


def _line(row: Row, table: Table, dense: Row | None) -> str:
    named = zip((column.head for column in COLUMNS), cells(row, table, dense), strict=True)
    words = [_escaped(_in_one_line(head, cell)) for head, cell in named if head in _SHOWN]
    name = f"`{_code(row['pruner'])}`"
    return _row([f"**{name}**" if row["pruner"] == table["reference"] else name, *words], escape=False)


def _in_one_line(head: str, cell: Cell) -> str:
    # The half width says what the interval below it says on the page.
    if not cell.note or head == "accuracy":
        return cell.text
    return f"{cell.text} {cell.note}" if cell.note.startswith("[") else f"{cell.text}, {cell.note}"


def _ranks(comparison: Comparison) -> list[str]:
    parts: list[str] = []
    for overall in comparison["overall"]:
        parts += [f"## Ranks over {len(overall['blocks'])} tables, {overall['kind']}", ""]
        parts += [_row(["pruner", "mean rank"]), "|---|---:|"]
        ranked = sorted(overall["mean_rank"].items(), key=lambda entry: entry[1])
        parts += [_row([f"`{_code(pruner)}`", f"{rank:.2f}"], escape=False) for pruner, rank in ranked]
        parts += ["", _escaped(overall["sentence"]), ""]
    return parts


def _provenance(comparison: Comparison) -> Iterable[str]:
    commit, machine = comparison["commit"], comparison["machine"]
    yield f"- command: `{_code(comparison['command'])}`, digest `{comparison['digest']}`"
    if commit:
        yield f"- commit: `{_code(commit['hash'])}`" + (
            " with changes that are not committed" if commit["dirty"] else ""
        )
    yield (
        f"- machine: {_escaped(str(machine['processor']))}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB;"
        f" {comparison['wall_s']:,.0f} s in all, begun {comparison['created']}"
    )
    yield "- versions: " + ", ".join(f"{_escaped(name)} {version}" for name, version in comparison["versions"].items())


def _row(words: Sequence[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(map(_escaped, words) if escape else words)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is; a line break inside a cell would end the table."""
    # An underscore inside a word, as names have it, marks nothing.
    return " ".join(re.sub(r"[\\`*<|\[\]]|\b_|_\b", r"\\\g<0>", text).split())


def _code(text: str) -> str:
    """Text between backticks, where only a backtick, a bar and a line break do harm."""
    return " ".join(text.replace("`", "'").replace("|", "\\|").split())
