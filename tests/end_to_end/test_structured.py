"""The shipped recipes that cut channels, whole: they learn digits, get smaller, survive a kill, and load elsewhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from snnsl_plugin.compaction.checkpoint import load_compact
from snnsl_plugin.recipe import assemble, runner
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.loop import batches

pytestmark = pytest.mark.slow
#: half of 32, 64 and 128 channels
KEPT = {"conv1": 16 * 9, "conv2": 32 * 16 * 9, "fc1": 64 * 32 * 4, "fc2": 10 * 64}
WORDS = ["dense_baseline=false", "threads=1", "tracking.mlflow=false"]
CIFAR100 = Path(os.environ.get("SNNSL_DATA", "nowhere")) / "cifar100"


@pytest.fixture(scope="module", params=["digits_structured", "digits_structured_dynamic"])
def finished(request, tmp_path_factory) -> tuple[str, Path, dict]:
    run_dir = tmp_path_factory.mktemp("structured") / request.param
    result = runner.run(load(request.param, WORDS), run_dir=run_dir, name=request.param)
    return request.param, run_dir, result


def test_half_of_the_channels_learn_digits(finished):
    name, run_dir, result = finished
    assert {layer: facts["kept"] for layer, facts in result["density"]["layers"].items()} == KEPT
    assert result["accuracy"]["test"] > 0.96
    assert (result["regrown"] > 0) == (name == "digits_structured_dynamic")
    assert result["synops_per_sample"] > 0
    assert (run_dir / "report.html").is_file()


def test_the_compact_network_answers_the_same_in_a_fresh_process(finished, tmp_path):
    name, run_dir, _ = finished
    recipe = load(name, WORDS)
    parts = assemble.data(recipe)
    x = next(batches(parts.test, "cpu"))[0]
    network = load_compact(run_dir / "compact.safetensors", assemble.network(recipe, parts.splits)).eval()
    with torch.no_grad():
        torch.save({"x": x, "answer": network(x)}, tmp_path / "seen.pt")
    code = f"""
import torch
from snnsl_plugin.compaction.checkpoint import load_compact
from snnsl_plugin.models.spiking_cnn import spiking_cnn
torch.set_num_threads(1)
seen = torch.load({str(tmp_path / "seen.pt")!r}, weights_only=True)
network = load_compact({str(run_dir / "compact.safetensors")!r}, spiking_cnn((1, 8, 8), 10)).eval()
with torch.no_grad():
    assert torch.equal(network(seen["x"]), seen["answer"])
assert seen["answer"].std() > 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("epochs", [4, 8])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(epochs, tmp_path, finished):
    name, folder, result = finished
    words = [sys.executable, "-m", "snnsl_plugin", "run", name, *WORDS, "--run-dir", str(tmp_path / "run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = tmp_path / "run" / "metrics.jsonl"
    while not journal.exists() or journal.read_bytes().count(b'"event": "epoch"') < epochs:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "result.json").exists()
    done = subprocess.run([*words, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, again = load_file(folder / "compact.safetensors"), load_file(tmp_path / "run" / "compact.safetensors")
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[key]) for key, value in whole.items())
    resumed = json.loads((tmp_path / "run" / "result.json").read_text())
    for key in ("accuracy", "density", "regrown", "synops_per_sample", "firing_rate"):
        assert resumed[key] == result[key], key


@pytest.mark.data
@pytest.mark.skipif(not (CIFAR100 / "train").is_dir(), reason="no cifar100/train below $SNNSL_DATA")
def test_the_recipe_for_vgg9_runs_with_a_small_network(tmp_path):
    tiny = [
        "train.epochs=2",
        "train.device=cpu",
        "train.batch_size=500",
        "data.encoder.T=1",
        "model.channels=[16, 16, 16, 16, 16, 16]",
        "model.hidden=[16]",
        "pruning.start=10it",
        "pruning.iterative_steps=2",
        "pruning.batches=1",
        *WORDS,
    ]
    result = runner.run(load("vgg9_structured", tiny), run_dir=tmp_path / "run", name="tiny")
    layers = {layer: facts["kept"] for layer, facts in result["density"]["layers"].items()}
    assert layers == {
        "conv1": 8 * 27, **{f"conv{number}": 8 * 8 * 9 for number in range(2, 7)}, "fc1": 8 * 8 * 16, "fc2": 100 * 8
    }  # fmt: skip
