"""Writes what people read of a comparison: page, sheets and pictures, each file all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

from snnsl_plugin.comparison import page, sheets
from snnsl_plugin.comparison.wording import Comparison
from snnsl_plugin.training.checkpoint import write_text


def write(comparison: Comparison, folder: Path) -> Path:
    """Writes `comparison.csv`, `comparison.md`, `comparison.html` and `figures/` of a comparison, finished or not.

    Args:
        comparison: what `comparison.json` holds; that file itself is not written here.
        folder: the comparison's folder, which is there; runs whose folder below it holds a `report.html` get a link
            to it.

    Returns:
        The path of the page.
    """
    from snnsl_plugin.comparison import pictures  # matplotlib takes a second

    write_text(folder / "comparison.csv", sheets.lines(comparison))
    write_text(folder / "comparison.md", sheets.markdown(comparison))
    (folder / "figures").mkdir(exist_ok=True)
    for name, content in pictures.draw(comparison):
        partial = folder / "figures" / f"{name}.partial"
        partial.write_bytes(content)
        os.replace(partial, folder / "figures" / name)
    folders = {run["folder"] for row in comparison["rows"] for run in row["runs"] if run["folder"]}
    reports = {name for name in folders if (folder / name / "report.html").is_file()}
    if comparison["judge"] == "validation":
        reports = set()  # they show the test accuracy
    write_text(folder / "comparison.html", page.render(comparison, reports))
    return folder / "comparison.html"
