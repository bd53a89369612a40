"""`snnsl register`: makes what other frameworks find by name known to them."""

from __future__ import annotations

from typing import Annotated

import typer

from snnsl_plugin.errors import UnknownName


def register(
    host: Annotated[str, typer.Argument(help="The framework: nni.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take it out again.")] = False,
) -> None:
    """Make the tuner known to NNI by the name SnnslOptuna, and print where."""
    if host != "nni":
        raise UnknownName("host", host, ["nni"])
    from snnsl_plugin.for_nni import registration

    if remove:
        print(f"{registration.NAME} is no longer registered in {registration.unregister_()}")
    else:
        print(f"{registration.NAME} is registered in {registration.register_()}")
