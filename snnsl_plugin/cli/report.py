"""`snnsl report`: draws the report of a run, a comparison or a study again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snnsl_plugin.errors import UsageError


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run, a comparison or a study.")],
) -> None:
    """Write the report of a run, a comparison or a study again, and print its path."""
    if not run_dir.is_dir():
        raise UsageError(f"{run_dir}: there is no such run folder")
    if (run_dir / "comparison.json").is_file():
        from snnsl_plugin.comparison import collect

        print(collect.draw(collect.read(run_dir) or {}, run_dir))
        return
    if (run_dir / "recipe.yaml").is_file() and _is_study(run_dir):
        from snnsl_plugin.tuning import report as study

        print(study.write(run_dir))
        return
    from snnsl_plugin.recipe.report import write

    print(write(run_dir))


def _is_study(run_dir: Path) -> bool:
    from snnsl_plugin.recipe import folder

    return "place" in (folder.identity(run_dir) or {})
