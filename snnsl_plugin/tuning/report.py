"""The report of a study: one HTML file that needs nothing beside it, drawn from the files of its folder alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.tune_types import MEASURES
from snnsl_plugin.training.checkpoint import write_text
from snnsl_plugin.tuning import collect, figures
from snnsl_plugin.tuning.measures import DEFINITIONS


def write(run_dir: Path) -> Path:
    """Draws `RUN_DIR/figures/` and writes `RUN_DIR/report.html`; no database is asked.

    Args:
        run_dir: a study's folder.

    Returns:
        The path of the report.

    Raises:
        BadCheckpoint: the folder holds no study, or a file in it is damaged.
    """
    found = collect.rebuild(run_dir)
    (run_dir / "figures").mkdir(exist_ok=True)
    pictures = []
    for name, title, svg in figures.draw(found):
        write_text(run_dir / "figures" / name, svg)
        labelled = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1)
        pictures.append((title, Markup(labelled)))  # drawn by us, not by a user
    names = [name for name in MEASURES if name in found["objectives"]]
    names += [name for name in MEASURES if name not in names]
    keys = list(found["space"])
    rows = [_row(row, names, keys) for row in found["trials"] if row["state"] != "waiting"]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        found=found,
        summary=summary(found),
        names=names,
        keys=keys,
        trials=rows,
        front=[row for row in rows if row["number"] in found["front"]],
        pictures=pictures,
        definitions=DEFINITIONS,
        recipe=(run_dir / folder.RECIPE).read_text("utf-8"),
    )
    write_text(run_dir / folder.REPORT, page)
    return run_dir / folder.REPORT


def summary(found: Mapping[str, Any]) -> str:
    """How the study stands, in one sentence."""
    counts = Counter(row["state"] for row in found["trials"])
    parts = [f"{counts[state]} {state}" for state in ("complete", "stopped", "failed", "running", "waiting")
             if counts[state]]  # fmt: skip
    better = ", ".join(f"{name} {'up' if MEASURES[name] else 'down'}" for name in found["objectives"])
    return f"{found['status']}: {', '.join(parts) or 'no trials'}; {better}; sampler {found['sampler']}"


def number(value: float | None, name: str = "") -> str:
    """A measure as tables show it: accuracies to four digits, counts whole."""
    if value is None:
        return "–"
    if name == "accuracy" or abs(value) < 100:
        return f"{value:.4g}"
    return f"{value:,.0f}"


def tried(value: Any) -> str:
    """What a trial tried at one key, as tables show it."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        name, *rest = [str(each) for each in value.values()]
        return f"{name} ({', '.join(rest)})" if rest else name
    return "–" if value is None else str(value)


def _row(row: Mapping[str, Any], names: list[str], keys: list[str]) -> dict[str, Any]:
    return {
        "number": row["number"],
        "state": row["state"],
        "why": row["why"],
        "cells": [number(row["measures"].get(name), name) for name in names],
        "tried": [tried(row["params"].get(key)) for key in keys],
    }
