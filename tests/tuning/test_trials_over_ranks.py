"""One trial over two ranks, for networks that are too large for one device."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from optuna import load_study

import snnsl_plugin
from snnsl_plugin.recipe.load import load

pytestmark = pytest.mark.slow


def test_both_ranks_train_every_trial_with_the_very_values_that_the_study_holds(recipe, tmp_path):
    recipe.write_text(recipe.read_text() + "  stop: {rungs: [2ep], floor: 0.0, warmup: 1}\n")
    environment = os.environ | {"PYTHONPATH": str(Path(snnsl_plugin.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    if Path("/sys/class/net/lo").exists():
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [
        "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "snnsl_plugin", "tune",
        str(recipe), "--trials", "3", "--run-dir", str(tmp_path / "study"), "--export", str(tmp_path / "front"),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "study" / "study.json").read_text())
    rows = found["trials"]
    assert len(rows) == 3
    assert {row["state"] for row in rows} <= {"complete", "stopped"}
    held = load_study(study_name="study", storage=f"sqlite:///{tmp_path}/study/study.db").trials
    for row, trial in zip(rows, held, strict=True):
        run_dir = tmp_path / "study" / "runs" / f"trial-{row['number']:04d}"
        trained = load(run_dir / "recipe.yaml")
        assert trained.pruning.density.last == trial.params["pruning.density.last"]
        lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
        epochs = [line["epoch"] for line in lines if line["event"] == "epoch"]
        assert epochs == list(range(1, len(epochs) + 1))  # written by one of the two
        assert "rung/2" in trial.user_attrs
    assert list((tmp_path / "front").glob("*.yaml"))
    assert done.stdout.count("study folder:") == 1
