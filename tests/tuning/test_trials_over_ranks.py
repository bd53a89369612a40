"""One trial over two ranks, for networks that are too large for one device."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from optuna import load_study
from study_process import until

import snnsl_plugin
from snnsl_plugin.recipe.load import load

pytestmark = pytest.mark.slow


@pytest.fixture
def torchrun(recipe: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `snnsl tune` of the recipe in `tmp_path/study` over two ranks."""
    environment = os.environ | {"PYTHONPATH": str(Path(snnsl_plugin.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    if Path("/sys/class/net/lo").exists():
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    started = []

    def start(*words: str) -> subprocess.Popen[str]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port), "-m", "snnsl_plugin"]
        study = ["tune", str(recipe), "--trials", "3", "--run-dir", str(tmp_path / "study")]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *ranks, *study, *words], cwd=tmp_path, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()  # torchrun ends its ranks, which are in sessions of their own
            process.wait(60)


def test_both_ranks_train_every_trial_with_the_very_values_that_the_study_holds(recipe, torchrun, tmp_path):
    recipe.write_text(recipe.read_text() + "  stop: {rungs: [2ep], floor: 0.0, warmup: 1}\n")
    job = torchrun("--export", str(tmp_path / "front"))
    out, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
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
    assert out.count("study folder:") == 1


def test_a_rank_that_dies_costs_no_ticket_and_the_study_goes_on(torchrun, tmp_path):
    study, database = tmp_path / "study", f"sqlite:///{tmp_path}/study/study.db"
    job = torchrun("train.epochs=12")
    until(lambda: list(study.glob("runs/trial-0000/checkpoint.safetensors")))
    ranks = [each for each in psutil.Process(job.pid).children(recursive=True) if "tune" in each.cmdline()]
    victim = next(each for each in ranks if each.environ().get("RANK") == "1")
    os.kill(victim.pid, signal.SIGKILL)
    _, err = job.communicate(timeout=120)
    assert job.returncode != 0
    assert err.count("another of the 2 processes of this run has ended, and rank 0 cannot go on alone") == 1, err
    assert json.loads((study / "result.json").read_text())["status"] == "failed"
    assert {row["number"]: row["state"] for row in json.loads((study / "study.json").read_text())["trials"]} == {
        0: "failed", 1: "waiting", 2: "waiting", 3: "waiting",
    }  # fmt: skip

    job = torchrun("train.epochs=12", "--resume")
    _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    trials = load_study(study_name="study", storage=database).trials
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert sorted(trial.user_attrs["ticket"] for trial in trials[1:]) == [0, 1, 2]
    assert trials[3].params == trials[0].params
    lines = [json.loads(line) for line in (study / "runs/trial-0003/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["event"] == "epoch"] == list(range(1, 13))


def test_workers_are_refused_under_torchrun_in_one_sentence(torchrun, tmp_path):
    job = torchrun("--workers", "2")
    _, err = job.communicate(timeout=120)
    assert job.returncode == 1
    assert err.count("--workers and torchrun exclude each other") == 1, err
    assert not (tmp_path / "study").exists()
