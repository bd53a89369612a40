"""Recipes of the front: each trains its trial's network again, exactly."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.training.checkpoint import write_text
from snnsl_plugin.tuning.attempt import name_of

FRONT = "front.csv"


def export(recipe: Recipe, found: Mapping[str, Any], into: Path) -> list[Path]:
    """Writes a recipe for each point of the front, and `front.csv` with what each reached.

    `snnsl run` of one trains the same network: the same masks, weights and validation accuracy, on the same machine and
    versions. It then reads the test set, which the study never did.

    Args:
        recipe: that was searched.
        found: the content of `study.json`.
        into: the folder; made if need be.

    Returns:
        The recipes' files.

    Raises:
        BadOption: there is no front, or a file of that name holds something else.
    """
    rows = [row for row in found["trials"] if row["number"] in found["front"]]
    if not rows:
        raise BadOption(
            "no trial is complete and within all limits, so there is nothing to export: widen the space, lower a "
            "limit, or add trials"
        )
    texts = {}
    for row in rows:
        point = changed(recipe, row["params"]).model_copy(update={"tracking": recipe.tracking})
        reached = ", ".join(f"{name} {value:.6g}" for name, value in row["measures"].items() if name != "wall_time")
        title = f"# Trial {row['number']} of the study {found['name']} (digest {found['digest']}): {reached}."
        texts[into / f"{name_of(row['number'])}.yaml"] = f"{title}\n{dump(point)}"
    texts[into / FRONT] = _table(rows)
    for path, text in texts.items():
        if path.exists() and path.read_text("utf-8") != text:
            raise BadOption(f"{path} holds something else and is not overwritten: export to another folder")
    into.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)
    recipes = [path for path in texts if path.suffix == ".yaml"]
    for path in recipes:
        load(path)  # what is shipped can be read
    return recipes


def _table(rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    names = list(rows[0]["measures"])
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["trial", *names, *keys])
    for row in rows:
        measures = [repr(row["measures"][name]) for name in names]
        table.writerow([row["number"], *measures, *[row["params"].get(key, "") for key in keys]])
    return stream.getvalue()
