"""`snnsl register`: makes what other frameworks find by name known to them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from snnsl_plugin.cli.arguments import Model
from snnsl_plugin.errors import UnknownName, UsageError


def register(
    host: Annotated[str, typer.Argument(help="The framework: mlflow or nni.")],
    run_dir: Annotated[
        Path | None, typer.Argument(metavar="[RUN_DIR]", help="mlflow: the folder of a finished run.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="mlflow: the model's name.")] = None,
    uri: Annotated[
        str | None, typer.Option("--uri", help="mlflow: its address; where the run is shown if omitted.")
    ] = None,
    model: Model = None,
    remove: Annotated[bool, typer.Option("--remove", help="nni: take the tuner out again.")] = False,
) -> int:
    """Register the network of a run with MLflow, or the tuner SnnslOptuna with NNI."""
    if host == "mlflow":
        if run_dir is None or not name or remove:
            raise UsageError("a network is registered with: snnsl register mlflow RUN_DIR --name NAME")
        words = [word for flag, value in (("--uri", uri), ("--model", model)) if value for word in (flag, value)]
        # In a process of its own: this one never imports mlflow.
        command = [sys.executable, "-m", "snnsl_plugin.tuning.register_model", str(run_dir), "--name", name, *words]
        return subprocess.run(command, check=False).returncode
    if host != "nni":
        raise UnknownName("host", host, ["mlflow", "nni"])
    if run_dir or name or uri or model:
        raise UsageError("the tuner is registered with: snnsl register nni")
    from snnsl_plugin.for_nni import registration

    if remove:
        print(f"{registration.NAME} is no longer registered in {registration.unregister_()}")
    else:
        print(f"{registration.NAME} is registered in {registration.register_()}")
    return 0
