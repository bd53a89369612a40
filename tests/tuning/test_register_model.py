"""Registering: what MLflow gives back in a process that knows nothing of this package is the run's own network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import snnsl_plugin
from snnsl_plugin.anatomy import reset_
from snnsl_plugin.cli import main
from snnsl_plugin.errors import UsageError
from snnsl_plugin.models import _permission
from snnsl_plugin.models._target import source_of
from snnsl_plugin.recipe import assemble, runner
from snnsl_plugin.recipe.load import load
from snnsl_plugin.tracking import progress
from snnsl_plugin.training.loop import batches
from snnsl_plugin.tuning.register_model import register

SMALL = ["train.epochs=1", "train.optimizer.lr=0.02", "model.v_threshold=0.5", "data.encoder.T=2"]
SMALL += ["dense_baseline=false", "threads=1", "tracking.mlflow=false"]
NARROW = ["model.channels=[4, 8]", "model.hidden=16"]
#: (samples of the call), each twice in a row
SIZES = (2, 2, 1, 1, 5, 5)
ROOT = Path(snnsl_plugin.__file__).parents[1]

# A network that decides by values: no traced program can.
OWN = """\
from torch import nn
from spikingjelly.activation_based import functional, layer, neuron

class Doubtful(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.detach().sum()) > 3 else x

def build(input_shape, classes):
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    hidden = layer.Linear(inputs, 8), neuron.LIFNode(), {doubtful}
    net = nn.Sequential(layer.Flatten(), *hidden, layer.Linear(8, classes))
    functional.set_step_mode(net, "m")
    return net
"""

# Runs without this package: it reads what was registered, and writes what it computes.
FRESH = """\
import json, os, sys, warnings
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", MLFLOW_LOGGING_LEVEL="ERROR")
warnings.simplefilter("ignore")
import mlflow, numpy as np, torch
torch.set_num_threads(1)
uri, folder, addresses = sys.argv[1], sys.argv[2], sys.argv[3:]
mlflow.set_tracking_uri(uri)
client, told = mlflow.MlflowClient(), {}
for number, address in enumerate(addresses):
    inputs = torch.load(f"{folder}/{number}.pt", weights_only=True)
    program, anything = mlflow.pytorch.load_model(address), mlflow.pyfunc.load_model(address)
    with torch.no_grad():
        outputs = [program(x) for x in inputs]
    torch.save(outputs + [torch.as_tensor(anything.predict(x.numpy())) for x in inputs], f"{folder}/{number}.out.pt")
    meta = anything.metadata
    _, name, version = address.rsplit("/", 2)
    logged = client.get_logged_model(meta.model_id)
    told[address] = {
        "signature": meta.signature.to_dict(),
        "example": list(np.asarray(meta.load_input_example(mlflow.artifacts.download_artifacts(address))).shape),
        "requirements": open(mlflow.pyfunc.get_model_dependencies(address)).read().split(),
        "tags": client.get_model_version(name, version).tags,
        "model_tags": {k: v for k, v in logged.tags.items() if k.startswith("snnsl.")},
        "run": logged.source_run_id,
    }
runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
strangers = [name for name in sys.modules if name.partition(".")[0] in ("snnsl_plugin", "spikingjelly")]
versions = {m.name: client.search_model_versions(f"name='{m.name}'") for m in client.search_registered_models()}
print(json.dumps({"told": told, "runs": [run.info.run_id for run in runs], "strangers": strangers,
    "models": {name: len(found) for name, found in versions.items()}}))
"""


def command(*words: Any) -> SimpleNamespace:
    """`snnsl register mlflow` as its user calls it."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "snnsl_plugin", "register", "mlflow", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return SimpleNamespace(status=done.returncode, out=done.stdout, err=done.stderr, seconds=time.monotonic() - began)


def one_sentence(done: SimpleNamespace, *parts: str) -> None:
    assert done.status == 1, done.err
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    for part in parts:
        assert part in done.err


def finished(path: Path, name: str, *words: str) -> Path:
    assert runner.run(load(name, [*SMALL, *words]), run_dir=path, name=name)["status"] == "finished"
    return path


@pytest.fixture(scope="module")
def masked(tmp_path_factory) -> Path:
    """A finished run whose connections were pruned."""
    return finished(tmp_path_factory.mktemp("masked") / "run", "digits", *NARROW)


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match=r"nothing: there is no such run folder$"):
        register(tmp_path / "nothing", "net")


@pytest.mark.parametrize(
    ("result", "says"), [(None, "has no result yet"), ("interrupted", "is interrupted"), ("failed", "is failed")]
)
def test_a_run_that_is_not_finished_is_one_sentence(tmp_path, result, says):
    if result:
        (tmp_path / "result.json").write_text(json.dumps({"status": result}))
    with pytest.raises(UsageError, match=f"{says}: only the network of a finished run can be registered$"):
        register(tmp_path, "net")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mlflow"], "a network is registered with: snnsl register mlflow RUN_DIR --name NAME"),
        (["mlflow", "run"], "a network is registered with: snnsl register mlflow RUN_DIR --name NAME"),
        (["mlflow", "run", "--name", "net", "--remove"], "a network is registered with: "),
        (["nni", "run"], "the tuner is registered with: snnsl register nni"),
        (["nni", "--name", "net"], "the tuner is registered with: snnsl register nni"),
    ],
)
def test_each_host_has_its_own_words(words, says, capsys):
    assert main(["register", *words]) == 1
    assert says in capsys.readouterr().err


def test_the_command_itself_never_imports_mlflow(masked, tmp_path):
    code = (
        "import subprocess, sys; subprocess.run = lambda command, check: subprocess.CompletedProcess(command, 3)\n"
        "from snnsl_plugin.cli import main\n"
        f"assert main(['register', 'mlflow', {str(masked)!r}, '--name', 'net']) == 3\n"
        "assert 'mlflow' not in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)


@pytest.fixture(scope="module")
def registered(masked, tmp_path_factory) -> SimpleNamespace:
    """A masked network that MLflow shows the run of, registered twice, and a cut one without a run there."""
    folder = tmp_path_factory.mktemp("registered")
    uri = f"sqlite:///{folder}/mlflow.db"
    cut = finished(folder / "cut", "digits_structured", "model.channels=[8, 8]", "model.hidden=16")
    assert (cut / "compact.safetensors").is_file()
    sender = [sys.executable, "-m", "snnsl_plugin.tracking.sender", str(masked), "--once", "--uri", uri]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*sender, "--experiment", "tests"], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, **quiet)
    # The first goes to where its run is shown; a dot in a name is MLflow's usual trap.
    calls = [command(masked, "--name", "digits.net"), command(masked, "--name", "digits.net", "--uri", uri)]
    calls.append(command(cut, "--name", "cut", "--uri", uri))
    addresses = ["models:/digits.net/1", "models:/digits.net/2", "models:/cut/1"]
    own = []
    for number, run in enumerate((masked, masked, cut)):
        parts = assemble.data(load(run / "recipe.yaml"))
        network, x = assemble.load_network(run, parts).eval(), next(batches(parts.test, "cpu"))[0]
        inputs = [x[:, 7 * call : 7 * call + size] for call, size in enumerate(SIZES)]
        torch.save([each.transpose(0, 1).contiguous() for each in inputs], folder / f"{number}.pt")
        own.append([])
        for each in inputs * 2:  # by mlflow.pytorch, then by mlflow.pyfunc
            reset_(network)
            with torch.no_grad():
                own[-1].append(network(each).mean(0))
    fresh = subprocess.run(
        [sys.executable, "-c", FRESH, uri, str(folder), *addresses], capture_output=True, text=True, cwd=folder
    )
    assert fresh.returncode == 0, fresh.stderr
    answers = [torch.load(folder / f"{number}.out.pt", weights_only=True) for number in range(3)]
    return SimpleNamespace(
        calls=calls, own=own, answers=answers, uri=uri, masked=masked, cut=cut, **json.loads(fresh.stdout)
    )


@pytest.mark.slow
def test_a_fresh_process_computes_the_networks_own_outputs_on_each_call_and_at_each_batch_size(registered):
    assert registered.strangers == []
    for own, answers in zip(registered.own, registered.answers, strict=True):
        assert own[0].std() > 0
        for expected, found in zip(own, answers, strict=True):
            assert found.shape == (len(expected), 10)
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)


@pytest.mark.slow
def test_a_taken_name_gets_a_new_version(registered):
    assert [call.err for call in registered.calls] == ["", "", ""]
    assert [call.out.rsplit(" ", 1)[-1].strip() for call in registered.calls] == [
        "models:/digits.net/1", "models:/digits.net/2", "models:/cut/1",
    ]  # fmt: skip
    assert registered.models == {"cut": 1, "digits.net": 2}


@pytest.mark.slow
def test_a_version_says_what_it_takes_and_what_it_is(registered):
    result = json.loads((registered.masked / "result.json").read_text())
    told = registered.told["models:/digits.net/2"]
    shapes = [json.loads(told["signature"][side])[0]["tensor-spec"] for side in ("inputs", "outputs")]
    assert shapes == [{"dtype": "float32", "shape": [-1, 2, 1, 8, 8]}, {"dtype": "float32", "shape": [-1, 10]}]
    assert told["example"] == [2, 2, 1, 8, 8]
    assert {"torch", "numpy", "mlflow"} <= {each.partition("==")[0] for each in told["requirements"]}
    assert all("==" in each for each in told["requirements"])
    tags = {
        "snnsl.digest": result["digest"],
        "snnsl.seed": "0",
        "snnsl.density": str(result["density"]["weights"]["achieved"]),
    }
    assert {name: told["tags"].get(name) for name in tags} == tags
    assert told["model_tags"] == tags


@pytest.mark.slow
def test_it_belongs_to_the_run_where_mlflow_has_that_and_makes_none_where_not(registered):
    own = progress.load(registered.masked).mlflow_run_id
    assert {address: told["run"] for address, told in registered.told.items()} == {
        "models:/digits.net/1": own, "models:/digits.net/2": own, "models:/cut/1": None,
    }  # fmt: skip
    assert registered.runs == [own]


@pytest.mark.slow
def test_a_name_that_mlflow_does_not_take_leaves_nothing_behind(registered):
    for name in ("a/b", "a:b", " "):
        one_sentence(command(registered.masked, "--name", name), f"--name {name!r}: MLflow takes no such name")


@pytest.mark.slow
def test_an_mlflow_that_is_away_is_one_sentence_in_seconds(masked):
    done = command(masked, "--name", "net", "--uri", "http://me:secret@127.0.0.1:9")
    one_sentence(done, "no MLflow answers at http://me:***@127.0.0.1:9", "--uri")
    assert "secret" not in done.err
    assert done.seconds < 30


@pytest.mark.slow
@pytest.mark.parametrize(
    ("doubtful", "says"),
    [
        ("Doubtful()", "(Doubtful) cannot be exported by torch.export"),
        ("neuron.QIFNode()", "the network needs sj_qif::forward, which PyTorch does not have"),
    ],
)
def test_a_network_that_nobody_could_load_says_why(doubtful, says, tmp_path, monkeypatch):
    package = f"doubtful_net_{len(says)}"
    (tmp_path / f"{package}.py").write_text(OWN.replace("{doubtful}", doubtful))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_permission, "_permitted", set())
    target = f"{package}:build"
    _permission.permit(target)
    block = {"name": "imported", "target": target, "source": source_of(target)}
    words = [each for each in SMALL if not each.startswith("model.")]
    recipe = load("digits", [*words, "~model", *(f"model.{key}={json.dumps(value)}" for key, value in block.items())])
    runner.run(recipe, run_dir=tmp_path / "run", name="own")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    one_sentence(command("run", "--name", "net", "--uri", uri, "--model", target), says)
    # Without the word of its user nobody's code is imported.
    one_sentence(command("run", "--name", "net", "--uri", uri), "--model")
