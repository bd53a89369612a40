"""`snnsl report`: draws the report of a run again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from snnsl_plugin.errors import UsageError


def report(run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a run.")]) -> None:
    """Write report.html of a run again, and print its path."""
    if not run_dir.is_dir():
        raise UsageError(f"{run_dir}: there is no such run folder")
    from snnsl_plugin.recipe.report import write

    print(write(run_dir))
