"""Finished runs, found again by their digest: what was trained once is not trained again."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.recipe import folder
from snnsl_plugin.recipe.outcome import versions
from snnsl_plugin.recipe.schema import Recipe

#: the folder of a comparison's runs, in its own
RUNS = "runs"
#: where a run lies below the folder of all runs: on its own, or in a comparison
_PLACES = (f"*/{folder.IDENTITY}", f"*/{RUNS}/*/{folder.IDENTITY}")
#: what is read of a finished run besides its result
_NEEDED = (folder.RECIPE, folder.JOURNAL, folder.CHECKPOINT)
#: says of a copy where it is from
_NOTE = "taken_over.json"
#: what belongs to the folder, not to the run
_STAYS = ("tracking", ".lock")


def finished(*roots: Path) -> dict[str, Path]:
    """The folders of all finished runs of today's versions, by digest.

    A library of another version may train otherwise, so such runs are left alone.

    Args:
        roots: folders of runs.
    """
    found: dict[str, Path] = {}
    now = versions()
    for root, pattern in product(dict.fromkeys(each.resolve() for each in roots), _PLACES):
        for path in sorted(root.glob(pattern)):
            run = path.parent
            if run.name.startswith("."):  # half a copy
                continue
            try:
                done = folder.result(run)
            except BadCheckpoint:  # a damaged run is no reason not to train
                continue
            if (
                is_whole(run)
                and done
                and done["status"] == "finished"
                and same_versions(done, now)
                and (done.get("accuracy") or {}).get("test") is not None  # judged on validation data alone
                and not done.get("dense")
            ):
                found[str(done["digest"])] = run
    return found


def is_whole(run: Path) -> bool:
    """Whether all that a table is read from is there."""
    return all((run / each).is_file() for each in _NEEDED)


def may_be_taken_over(recipe: Recipe, run: Path, own: Path) -> bool:
    """Whether a finished run of a recipe's digest may stand for it.

    A digest knows what a recipe says. It knows neither what the code of the user's own imports nor what lies in a
    folder of the user's own by now, so such runs count in their own comparison only.

    Args:
        recipe: of the run that is wanted.
        run: the finished one's folder.
        own: the folder of the runs of the comparison that wants it.
    """
    known = not getattr(recipe.model, "target", None) and not getattr(recipe.data, "root", None)
    return known or run.is_relative_to(own)


def same_versions(result: Mapping[str, Any], now: Mapping[str, str]) -> bool:
    """Whether a result was made by the versions of today."""
    return bool(result.get("versions") == now)


def take_over(run: Path, into: Path, *, note: bool = True) -> None:
    """Copies a finished run, all or nothing.

    Args:
        run: its folder.
        into: a folder that is not there yet, or holds a run that never finished, which goes.
        note: whether the copy says where it is from, for `was_taken_over`.
    """
    partial = into.with_name(f".{into.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(run, partial, ignore=shutil.ignore_patterns(*_STAYS))
    if note:
        folder.write_json(partial / _NOTE, {"from": "/".join(run.parts[-3:])})
    shutil.rmtree(into, ignore_errors=True)
    partial.rename(into)


def was_taken_over(run: Path) -> bool:
    """Whether a run was trained for another comparison, or on its own, and copied."""
    return (run / _NOTE).is_file()
