"""The arguments and flags that several verbs share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Recipe: TypeAlias = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one (snnsl ls).")]
Overrides: TypeAlias = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Changes, e.g. train.epochs=3.")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON alone to stdout.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("--verbose", "-v", help="Log messages, and tracebacks.")]
