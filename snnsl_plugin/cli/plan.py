"""What a dry run prints: the resolved recipe, the layers, the density of each epoch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML


def print_plan(plan: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints what `runner.preview` returned.

    Args:
        plan: with "recipe", "layers" (name, shape, weights, prunable), "density_per_epoch", "counts" (weights kept at
            the end, by layer), "steps_per_epoch", and "generations" where it is an evolution.
        console: where to; stdout where omitted.
    """
    console = console or Console()
    stream = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.dump(dict(plan["recipe"]), stream)
    console.print(stream.getvalue(), markup=False, highlight=False, soft_wrap=True)
    if "samples" in plan:
        parts = ", ".join(f"{count:,} to {part}" for part, count in plan["samples"].items())
        console.print(f"{plan['dataset']}: {parts}", markup=False, highlight=False, soft_wrap=True)
    console.print(_layers(plan))
    for row in plan.get("generations", []):
        console.print(_generation(row), markup=False, highlight=False, soft_wrap=True)
    densities = plan["density_per_epoch"]
    if densities:
        table = Table("epoch", "density at its end", title=f"{plan['steps_per_epoch']} steps an epoch")
        for epoch, density in enumerate(densities, start=1):
            table.add_row(str(epoch), "-" if density is None else f"{density:.4f}")
        console.print(table)


def _generation(row: Mapping[str, Any]) -> str:
    networks = "1 network" if row["candidates"] == 1 else f"{row['candidates']} candidates"
    return (
        f"generation {row['generation']}: {networks}, {row['epochs']} epochs each, starts {row['starts']} at "
        f"{row['first']:.4g}, ends at {row['last']:.4g} ({row['kept']:,} weights); guide: {row['guide']}"
    )


def _layers(plan: Mapping[str, Any]) -> Table:
    counts: Mapping[str, int] = plan["counts"]
    table = Table("layer", "shape", title="layers")
    for word in ("weights", "prunable", "kept at the end", "density"):
        table.add_column(word, justify="right")
    total = kept = 0
    for layer in plan["layers"]:
        count = counts.get(layer["name"]) if layer["prunable"] else layer["weights"]
        total += layer["weights"]
        kept += count or 0
        shown = ("-", "-") if count is None else (f"{count:,}", f"{count / layer['weights']:.4f}")
        shape = " x ".join(map(str, layer["shape"]))
        table.add_row(layer["name"], shape, f"{layer['weights']:,}", "yes" if layer["prunable"] else "no", *shown)
    if counts:
        table.add_row("all", "", f"{total:,}", "", f"{kept:,}", f"{kept / max(1, total):.4f}")
    return table
