"""Prints the short tables of docs/compare.md and the README from what publish_comparison.py has stored.

    python tests/benchmarks/comparison_tables.py NAME [NAME ...] [--only PRUNER ...]

A NAME is a folder of docs/results/, with one task; of several, the budgets stand side by side. One table of single
weights and one of whole channels, three columns a budget: mean test accuracy in % with its 95 % interval, how the row
stands to the reference, and SynOps per sample. Rows are in the order of the first budget.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def word(table: dict, row: dict) -> str:
    """How a row stands to the reference of its table; nothing of the dense network."""
    if row["kind"] == "dense":
        return ""
    if row["pruner"] == table["reference"]:
        return "reference"
    if row["strength"] and row["strength"]["missed"]:
        return "budget missed"
    return table["differences"][row["pruner"]]["verdict"]


def cells(table: dict, row: dict | None) -> str:
    """The three columns of a pruner at one budget: empty where it took no part, its status where it has no result."""
    if row is None:
        return "| |"
    if row["status"] != "finished":
        return f"– | {row['status']} | –"
    accuracy, synops = row["measures"]["accuracy"], row["measures"]["synops"]["mean"]
    half = (accuracy["high"] - accuracy["low"]) / 2
    return f"{100 * accuracy['mean']:.1f} ± {100 * half:.1f} | {word(table, row)} | {synops:,.0f}"


def short(comparisons: list[dict], kind: str, only: list[str] | None) -> str:
    """The table of one kind, in Markdown."""
    columns = [
        (table, {row["pruner"]: row for row in found["rows"] if row["budget"] in (None, table["budget"])})
        for found in comparisons
        for table in found["tables"]
        if table["kind"] == kind
    ]
    heads = "".join(f" {100 * table['budget']['value']:g} %: test accuracy | | SynOps |" for table, _ in columns)
    lines = [f"| {kind} |{heads}", "|---|" + "---:|---|---:|" * len(columns)]
    for pruner in ["dense", *dict.fromkeys(name for table, _ in columns for name in table["order"])]:
        if not only or pruner in only:
            said = [cells(table, rows.get(pruner)) for table, rows in columns]
            lines.append(" | ".join([f"| `{pruner}`", *said]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="+")
    parser.add_argument("--only", nargs="*", help="pruners to print; all where omitted")
    asked = parser.parse_args()
    stored = [RESULTS / name / "comparison.json" for name in asked.names]
    comparisons = [json.loads(path.read_text(encoding="utf-8")) for path in stored]
    for kind in dict.fromkeys(table["kind"] for found in comparisons for table in found["tables"]):
        print(short(comparisons, kind, asked.only), end="\n\n")


if __name__ == "__main__":
    main()
