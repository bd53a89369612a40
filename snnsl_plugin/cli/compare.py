"""`snnsl compare`: pruners of every host on equal terms."""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import Annotated

import typer

from snnsl_plugin.cli.arguments import DataSource, Json, Model, Overrides, Quiet, Verbose, name_of, own
from snnsl_plugin.errors import UsageError

#: what is compared where no recipe is named
_RECIPE = "compare_digits"


def compare(
    recipe: Annotated[
        str | None,
        typer.Argument(help=f"A recipe file, or the name of a shipped one (snnsl ls); {_RECIPE} where omitted."),
    ] = None,
    overrides: Overrides = None,
    model: Model = None,
    data: DataSource = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="The folder; runs/<recipe>-<number> where omitted.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what was killed or interrupted (the newest where omitted).")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Runs at the same time; as many as cores where omitted.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print who takes part and how much each keeps; train nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train pruners of every host on equal terms, and say which is better."""
    if dry_run and resume:
        raise UsageError("--dry-run and --resume exclude each other: a dry run trains nothing")
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    from snnsl_plugin.cli.comparing import Listening, print_comparison, print_plan
    from snnsl_plugin.comparison import run
    from snnsl_plugin.recipe.load import load

    changes = list(overrides or [])
    if recipe is not None and ("=" in recipe or recipe.startswith("~")):  # no recipe was named, but a change
        changes, recipe = [recipe, *changes], None
    # With a network or data of the user's own it is a comparison of theirs, and called so.
    name = name_of(Path(recipe)) if recipe else "compare" if model or data else _RECIPE
    loaded = load(recipe or _RECIPE, [*changes, *own(model, data, recipe=recipe or _RECIPE, overrides=changes)])
    permitted = [model] if model else []
    flags = [word for flag, value in (("--model", model), ("--data", data)) if value for word in (flag, value)]
    command = ["snnsl", "compare", *([recipe] if recipe else []), *changes, *flags]
    begun: list[Path] = []
    try:
        with Listening(quiet=quiet) as listening:
            if dry_run:
                planned = run.preview(loaded, name=name, permitted=permitted, listen=listening.show)
            else:
                found = run.compare(
                    loaded,
                    name=name,
                    run_dir=run_dir,
                    resume=resume,
                    workers=workers,
                    permitted=permitted,
                    listen=listening.show,
                    on_start=begun.append,
                    command=shlex.join(command),
                )
    except KeyboardInterrupt:
        if not begun:
            typer.echo("interrupted before the training began; nothing was written", err=True)
        else:
            again = shlex.join([*command, "--run-dir", str(begun[0]), "--resume"])
            typer.echo(f"interrupted; to go on: {again}", err=True)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(planned if dry_run else found, indent=1))
    elif dry_run:
        print_plan(planned)
    else:
        print_comparison(found, begun[0])
