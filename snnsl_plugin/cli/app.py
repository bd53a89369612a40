"""The verbs, put together."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from snnsl_plugin import __version__
from snnsl_plugin.cli import compare, env, register, report, run, schema, shipped, tune, validate
from snnsl_plugin.cli.arguments import Verbose

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    shipped.ls, shipped.cat, shipped.cp, validate.validate, schema.schema, run.run, compare.compare, tune.tune,
    report.report, register.register, env.env,
):  # fmt: skip
    app.command()(verb)


def _version(asked: bool) -> None:
    if asked:
        print(__version__)
        raise typer.Exit


@app.callback()
def snnsl(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Sparse structure learning for spiking neural networks.

    Start with: snnsl run digits
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
