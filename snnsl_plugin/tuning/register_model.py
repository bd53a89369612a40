"""Registers the network of a finished run: `python -m snnsl_plugin.tuning.register_model RUN_DIR --name NAME`.

A process of its own: it imports mlflow, which the rest of the package does not, and MLflow's client takes its patience
from the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from snnsl_plugin.errors import BadOption, MissingExtra, SnnslError, UsageError
from snnsl_plugin.models._permission import permit
from snnsl_plugin.tracking import progress
from snnsl_plugin.tracking.launch import default_uri
from snnsl_plugin.tracking.patience import PROCESS_SETTINGS, patient_upload

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from torch import Tensor, nn
    from torch.export import ExportedProgram

    from snnsl_plugin.recipe.schema import Recipe

#: What the registered program needs where it runs; mlflow is added by itself. It is plain PyTorch: no SpikingJelly.
_NEEDED = ("torch", "numpy")
_EXAMPLES = 2
_BATCH_SIZES = (1, 3)
_PYTORCHS_OWN = ("aten", "prim", "prims", "higher_order")
#: Not the registered name: a logged model may have no dots in its name, a registered one may.
_LOGGED_AS = "network"


def register(run_dir: Path, name: str, uri: str | None = None) -> str:
    """Logs the network of a finished run as an MLflow model and registers it; a name that is taken gets a new version.

    The model is a program of `torch.export`: it takes (N, T, ...) float32 for any N, what the recipe's encoder makes of
    a sample with the batch first, and returns (N, K) logits, the mean over time. Each call starts from rest. It is
    proven before it is registered: downloaded, it computes what the network computes, at other batch sizes than the
    example's and on every call.

    Args:
        run_dir: the folder of a finished run.
        name: of the registered model.
        uri: where MLflow is; where omitted, where the run is shown, else as `launch`.

    Returns:
        The address of the version, `models:/NAME/VERSION`.

    Raises:
        UsageError: no finished run there, a network that cannot be exported, a name that MLflow does not take, or no
            MLflow at the address.
    """
    import torch

    from snnsl_plugin.compaction.export import export_program
    from snnsl_plugin.recipe import assemble, folder
    from snnsl_plugin.recipe.load import load
    from snnsl_plugin.training.loop import batches

    if not run_dir.is_dir():
        raise UsageError(f"{run_dir}: there is no such run folder")
    result = folder.result(run_dir)
    if result is None or result["status"] != "finished":
        status = "has no result yet" if result is None else f"is {result['status']}"
        raise UsageError(f"{run_dir} {status}: only the network of a finished run can be registered")
    recipe = load(run_dir / folder.RECIPE)
    sent = progress.load(run_dir)
    uri = uri or _address(run_dir, recipe, sent)
    experiment = sent.experiment if sent else recipe.tracking.experiment or result["recipe"]
    own = sent.mlflow_run_id if sent and sent.uri == progress.without_password(uri) else None
    client, run_id = _connected(uri, experiment, own, name)
    parts = assemble.data(recipe)
    alone = _batch_first(assemble.load_network(run_dir, parts))
    samples = next(batches(parts.validation, "cpu"))[0].transpose(0, 1)
    if len(samples) < _EXAMPLES:
        samples = torch.cat([samples] * _EXAMPLES)
    example = samples[:_EXAMPLES].contiguous()
    with tempfile.TemporaryDirectory() as scratch:  # names the module that cannot be exported, before MLflow is told
        program = export_program(Path(scratch) / "model.pt2", alone, example, batch_axis=0, batch_sizes=_BATCH_SIZES)
    _check_plain(program)

    tags = {
        "snnsl.digest": result["digest"],
        "snnsl.seed": str(result["seed"]),
        "snnsl.density": str(result["density"]["weights"]["achieved"]),
    }
    try:
        with patient_upload():
            return _registered(client, run_id, name, tags, alone, example, samples)
    except SnnslError:
        raise
    except Exception as error:  # of MLflow's client, of requests, of the artifact store, of a database
        where = progress.without_password(uri)
        raise UsageError(f"MLflow at {where} did not take the model ({_first_line(error)}): try again") from error


def _address(run_dir: Path, recipe: Recipe, sent: progress.Progress | None) -> str:
    """Where the run is shown; without that, where it would be."""
    shown = sent.uri if sent and ":***@" not in sent.uri else None  # an address without its password leads nowhere
    environment = os.environ.get("MLFLOW_TRACKING_URI")
    return recipe.tracking.uri or shown or environment or default_uri(run_dir.resolve().parent)


def _connected(uri: str, experiment: str, run_id: str | None, name: str) -> tuple[MlflowClient, str | None]:
    """A client whose MLflow takes the model's name, and the id of the run where MLflow still has that run."""
    try:
        import mlflow
        from mlflow.exceptions import MlflowException

        from snnsl_plugin.tracking.connection import connect
    except ImportError as error:
        raise MissingExtra(f"mlflow cannot be imported here ({error}); pip install mlflow") from error
    try:
        client, experiment_id = connect(uri, experiment)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        mlflow.set_experiment(experiment_id=experiment_id)
        try:
            gone = run_id is None or client.get_run(run_id).info.lifecycle_stage == "deleted"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            gone = True
        _check_name(client, name)
        return client, None if gone else run_id
    except SnnslError:
        raise
    except Exception as error:
        where = progress.without_password(uri)
        raise UsageError(
            f"no MLflow answers at {where} ({_first_line(error)}): start it, or name another with --uri"
        ) from error


def _check_name(client: MlflowClient, name: str) -> None:
    """Asks for the model's name before anything is logged that would be left over."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        bad = error.error_code == "INVALID_PARAMETER_VALUE" or not name.strip() or set("/:") & set(name)
        if not bad and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return
        if not bad:
            raise
        raise BadOption(
            f"--name {name!r}: MLflow takes no such name; use letters, digits, spaces and `_ - .`, without / and :"
        ) from error


def _check_plain(program: ExportedProgram) -> None:
    """Whoever loads the model may have PyTorch alone: operators of others are unknown there."""
    from torch._ops import OpOverload

    used = {each.target for each in program.graph.nodes if isinstance(each.target, OpOverload)}
    foreign = sorted({f"{each.namespace}::{each._opname}" for each in used if each.namespace not in _PYTORCHS_OWN})
    if foreign:
        raise BadOption(
            f"the network needs {', '.join(foreign)}, which PyTorch does not have, so nobody could load it from "
            "MLflow: use the neurons LIFNode, IFNode or ParametricLIFNode"
        )


def _batch_first(network: nn.Module) -> nn.Module:
    from torch import nn

    from snnsl_plugin.compaction.export import FromRest

    class BatchFirst(nn.Module):
        """Takes (N, T, ...), starts from rest, and returns (N, K) logits, the mean over time."""

        def __init__(self) -> None:
            super().__init__()
            self.network = FromRest(network)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.network(x.transpose(0, 1))
            return logits.mean(0)

    return BatchFirst().eval()


def _registered(
    client: MlflowClient,
    run_id: str | None,
    name: str,
    tags: dict[str, str],
    alone: nn.Module,
    example: Tensor,
    samples: Tensor,
) -> str:
    """Logs, proves and registers; a model that computes something else is taken back."""
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    from snnsl_plugin.compaction.plain_neurons import plain_
    from snnsl_plugin.compaction.silence import copied

    with torch.no_grad():
        classes = alone(example).shape[1]
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("float32"), (-1, *example.shape[1:]))]),
        Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
    )
    with warnings.catch_warnings():
        # torch reads its own archive into buffers that nobody else writes to.
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        with torch.no_grad():
            logged = mlflow.pytorch.log_model(
                plain_(copied(alone)),
                name=_LOGGED_AS,
                signature=signature,
                input_example=example.numpy(),
                pip_requirements=[f"{each}=={metadata.version(each).partition('+')[0]}" for each in _NEEDED],
                tags=tags,
                run_id=run_id,
            )
        loaded = mlflow.pytorch.load_model(logged.model_uri)
    for size in (*_BATCH_SIZES, *_BATCH_SIZES):
        with torch.no_grad():
            own, given_back = alone(samples[:size]), loaded(samples[:size])
        apart = float((own - given_back).abs().max())
        if not apart <= 2e-6 * max(float(own.abs().max()), 1.0):
            client.delete_logged_model(logged.model_id)
            raise BadOption(f"the model that MLflow gives back differs from the network by {apart:.3g}: not registered")
    version = mlflow.register_model(logged.model_uri, name, tags=tags)
    return f"models:/{name}/{version.version}"


def _first_line(error: Exception) -> str:
    lines = progress.without_password(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m snnsl_plugin.tuning.register_model")
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("--name", required=True)
    parser.add_argument("--uri")
    parser.add_argument("--model", metavar="PACKAGE.MODULE:FUNCTION", help="permits a network of one's own")
    options = parser.parse_args(arguments)
    os.environ.update(PROCESS_SETTINGS)
    logging.disable(logging.CRITICAL)
    try:
        if options.model:
            permit(options.model)
        # torch.export prints the whole graph of what it cannot trace, and MLflow each step; failures are raised.
        with contextlib.redirect_stderr(io.StringIO()):
            made = register(options.run_dir, options.name, options.uri)
    except SnnslError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(f"the network of {options.run_dir} is registered as {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
