"""`snnsl run`: from a recipe to a run folder, a table and a report."""

from __future__ import annotations

import json
import logging
import os
import shlex
from pathlib import Path
from typing import Annotated

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
from snnsl_plugin.errors import UsageError


def run(
    recipe: Recipe,
    overrides: Overrides = None,
    model: Model = None,
    data: DataSource = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="The folder of the run; runs/<recipe>-<number> where omitted.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in the run folder (the newest where omitted).")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the resolved recipe, layers and densities; train nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train what a recipe says."""
    if dry_run and resume:
        raise UsageError("--dry-run and --resume exclude each other: a dry run trains nothing")
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    from snnsl_plugin.recipe.load import load
    from snnsl_plugin.training.torchrun import from_environment, together

    said = overrides or []
    given = [*said, *own(model, data, recipe=recipe, overrides=said)]
    if dry_run:
        if from_environment().leads:
            _show(load(recipe, given), as_json)
        return
    from snnsl_plugin.cli.progress import Progress
    from snnsl_plugin.cli.table import print_result
    from snnsl_plugin.recipe import runner
    from snnsl_plugin.tracking.launch import default_uri

    begun: list[Path] = []
    try:
        with together() as ranks:
            loaded = load(recipe, given)
            with Progress(loaded.train.epochs, quiet=quiet or not ranks.leads) as progress:
                result = runner.run(
                    loaded,
                    run_dir=run_dir,
                    resume=resume,
                    on_event=progress.show,
                    on_start=begun.append,
                    name=name_of(Path(recipe)),
                    ranks=ranks,
                )
    except KeyboardInterrupt:
        if not begun:
            typer.echo("interrupted before the training began; nothing was written", err=True)
        else:
            flags = [word for flag in (("--model", model), ("--data", data)) if flag[1] is not None for word in flag]
            words = [*started_with(), "run", recipe, *said, *flags, "--run-dir", str(begun[0]), "--resume"]
            again = shlex.join(map(str, words))
            typer.echo(f"interrupted; to go on: {again}", err=True)
        raise typer.Exit(130) from None
    if not ranks.leads:
        return
    if as_json:
        print(json.dumps(result, indent=1))
    else:
        print_result(result, begun[0])
        if loaded.tracking.mlflow and not loaded.tracking.uri and "MLFLOW_TRACKING_URI" not in os.environ:
            store = default_uri(begun[0].resolve().parent)
            typer.echo(f"all runs side by side: mlflow ui --backend-store-uri {store}")


def _show(loaded: object, as_json: bool) -> None:
    from snnsl_plugin.cli.plan import print_plan
    from snnsl_plugin.recipe import runner

    plan = runner.preview(loaded)  # type: ignore[arg-type]
    if as_json:
        print(json.dumps(plan, indent=1))
    else:
        print_plan(plan)
