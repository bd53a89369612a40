"""`snnsl tune`: searches recipes with Optuna, on this machine or on many that share a database."""

from __future__ import annotations

import json
import logging
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnsl_plugin.cli.arguments import (
    DataSource,
    Json,
    Model,
    Overrides,
    Quiet,
    Recipe,
    Verbose,
    name_of,
    own,
    started_with,
)
from snnsl_plugin.errors import SnnslError, UsageError

if TYPE_CHECKING:
    from snnsl_plugin.recipe.schema import Recipe as Loaded

#: Where a database's address may stand that holds a password.
_STORAGE = "SNNSL_STORAGE"


def tune(
    recipe: Recipe,
    overrides: Overrides = None,
    model: Model = None,
    data: DataSource = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="The study's folder; runs/<recipe>-<number> where omitted.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was killed or interrupted (the newest where omitted).")
    ] = False,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials of the whole study; as the recipe says where omitted.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Trials at the same time on this machine.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Database of the study: sqlite:///FILE, or postgresql://USER@HOST/NAME for several machines. "
            f"${_STORAGE} where omitted, then the recipe's, then a file in the study's folder.",
        ),
    ] = None,
    export: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="Write a recipe for each point of the front.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the space and what a few trials would try; train nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Search recipes: the block `tune` says which keys, for what, and within which limits."""
    if dry_run and resume:
        raise UsageError("--dry-run and --resume exclude each other: a dry run trains nothing")
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    from snnsl_plugin.cli.tuning import Watching, print_space, print_study
    from snnsl_plugin.recipe.load import load
    from snnsl_plugin.training.torchrun import from_environment, together
    from snnsl_plugin.tuning import preview, run, study

    def opened() -> Loaded:
        said = list(overrides or [])
        given = [
            *said,
            *([f"tune.trials={trials}"] if trials else []),
            *own(model, data, recipe=recipe, overrides=said),
        ]
        return load(recipe, given)

    if dry_run:
        if from_environment().leads:
            planned = preview.preview(opened())
            print(json.dumps(planned, indent=1)) if as_json else print_space(planned)
        return
    flags = [word for flag, value in (("--model", model), ("--data", data)) if value for word in (flag, value)]
    flags += ["--trials", str(trials)] if trials else []
    command = [*started_with(), "tune", recipe, *(overrides or []), *flags]
    begun: list[Path] = []
    try:
        with together() as ranks, Watching(quiet=quiet or not ranks.leads) as watching:
            loaded = opened()
            study.tune_of(loaded)
            if workers and ranks.world_size > 1:
                raise UsageError(
                    "--workers and torchrun exclude each other: all its processes train one trial together"
                )
            found = run.tune(
                loaded,
                name=name_of(Path(recipe)),
                run_dir=run_dir,
                resume=resume,
                storage=storage or os.environ.get(_STORAGE),
                workers=workers,
                permitted=[model] if model else [],
                listen=watching.show,
                on_start=begun.append,
                command=shlex.join(command),
                ranks=ranks,
            )
    except KeyboardInterrupt:
        if not begun:
            typer.echo("interrupted before the first trial; nothing was written", err=True)
        else:
            again = [
                *command,
                *(["--workers", str(workers)] if workers else []),
                *(["--export", str(export)] if export else []),
                "--run-dir",
                str(begun[0]),
                "--resume",
            ]
            typer.echo(f"interrupted; to go on: {shlex.join(again)}", err=True)
        raise typer.Exit(130) from None
    if not ranks.leads:
        return
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_study(found, begun[0])
    failed = [row for row in found["trials"] if row["state"] == "failed"]
    if failed and not any(row["state"] in ("complete", "stopped") for row in found["trials"]):
        raise SnnslError(f"every trial failed; trial {failed[0]['number']}: {failed[0]['why']}")
    if export is not None:
        from snnsl_plugin.tuning.export import export as write

        for path in write(loaded, found, export):
            typer.echo(f"exported: {path}", err=as_json)
