"""Workers, parents and machines die, and every ticket still ends once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from optuna import load_study
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.pool import NullPool
from study_process import until

from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.training import checkpoint

pytestmark = pytest.mark.slow
ENDED = ("complete", "stopped")


def check(found: dict[str, Any], *, lost: int, trials: int = 6) -> None:
    """Exactly so many tickets ended, each attempt that died is extra, and no number is there twice."""
    rows = found["trials"]
    assert sum(row["state"] in ENDED for row in rows) == trials
    assert sum(row["state"] == "failed" for row in rows) == lost
    assert len(rows) == trials + lost
    assert [row["number"] for row in rows] == list(range(len(rows)))
    again = [row for row in rows if row["retry_of"] is not None]
    assert len({row["retry_of"] for row in again}) == len(again) == lost
    for row in again:
        dead = rows[row["retry_of"]]
        assert dead["state"] == "failed"
        assert dead["params"] == row["params"]


def kill_one(study) -> int:
    """Kills a worker in the middle of a trial; gives the trial's number."""
    number = until(lambda: study.trained())[0]
    url = f"sqlite:///{study.run_dir}/study.db"
    held = load_study(study_name="study", storage=url).trials[number].user_attrs["holder"]
    os.kill(study.workers()[held[1]], signal.SIGKILL)
    return number


def test_one_of_two_workers_is_killed_in_the_middle_of_a_trial(start, recipe):
    tracked = ["tracking.mlflow=true", f"tracking.uri=sqlite:///{recipe.parent}/mlflow.db", "tracking.experiment=kills"]
    study = start("killed", "--workers", "2", "train.epochs=12", *tracked)
    dead = kill_one(study)
    assert study.wait() == 0, study.printed
    found = study.found()
    check(found, lost=1)
    assert "SIGKILL" in found["trials"][dead]["why"]
    (again,) = [row for row in found["trials"] if row["retry_of"] == dead]
    told = json.loads((study.run_dir / f"runs/trial-{dead:04d}/result.json").read_text())
    assert told["status"] == "failed"
    # It went on from the checkpoint, and ended where a training that nobody killed ends.
    folder = study.run_dir / f"runs/trial-{again['number']:04d}"
    whole = run(load(folder / "recipe.yaml"), run_dir=recipe.parent / "whole", judge="validation")
    mine = json.loads((folder / "result.json").read_text())
    for key in ("accuracy", "density", "regrown", "validation", "firing_rate"):
        assert mine[key] == whole[key], key
    one, other = (checkpoint.load(each / "checkpoint.safetensors") for each in (folder, recipe.parent / "whole"))
    assert all(mask.equal(other["masks"][name]) for name, mask in one["masks"].items())
    assert all(value.equal(other["model"][name]) for name, value in one["model"].items())
    # MLflow shows the attempt that died as failed, and every other as finished, below the study.
    runs = in_mlflow(recipe.parent / "mlflow.db", study.run_dir)
    assert runs.pop("killed") == ["FINISHED", None]
    expected = {f"killed/trial-{row['number']:04d}": ["FINISHED", "killed"] for row in found["trials"]}
    assert runs == expected | {f"killed/trial-{dead:04d}": ["FAILED", "killed"]}


def in_mlflow(database: Path, run_dir: Path) -> dict[str, list[str | None]]:
    """Status and parent of each run by its name, once all is sent."""
    code = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(f"sqlite:///{sys.argv[1]}")
runs = client.search_runs([client.get_experiment_by_name("kills").experiment_id])
names = {run.info.run_id: run.info.run_name for run in runs}
parents = {run.info.run_name: names.get(run.data.tags.get("mlflow.parentRunId")) for run in runs}
print(json.dumps({run.info.run_name: [run.info.status, parents[run.info.run_name]] for run in runs}))
"""
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{database}"}
    sender = [sys.executable, "-m", "snnsl_plugin.tracking.sender", str(run_dir), "--experiment", "kills"]
    sent = [*sender, "--once", "--patience", "90"]
    assert subprocess.run(sent, env=environment, timeout=150, check=False).returncode == 0
    told = subprocess.run(
        [sys.executable, "-c", code, str(database)], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(told.stdout.splitlines()[-1])


def test_the_parent_is_killed_and_its_study_goes_on(start):
    study = start("parent", "--workers", "2", "train.epochs=12")
    until(study.trained)
    workers = list(study.workers().values())
    os.kill(study.process.pid, signal.SIGKILL)
    study.process.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in workers), 20)
    on = start("parent", "--workers", "2", "--resume", "train.epochs=12")
    assert on.wait() == 0, on.printed
    found = on.found()
    check(found, lost=sum(row["state"] == "failed" for row in found["trials"]))
    assert any(row["retry_of"] is not None for row in found["trials"])


def test_an_interrupt_ends_cleanly_and_the_study_goes_on(start):
    study = start("interrupted", "train.epochs=12")
    until(study.trained)
    os.kill(study.process.pid, signal.SIGINT)
    assert study.wait(60) == 130, study.printed
    assert "to go on: snnsl tune" in study.printed
    assert "Traceback" not in study.printed
    assert json.loads((study.run_dir / "result.json").read_text())["status"] == "interrupted"
    assert (study.run_dir / "report.html").is_file()
    on = start("interrupted", "--resume", "train.epochs=12")
    assert on.wait() == 0, on.printed
    check(on.found(), lost=1)


def test_a_worker_that_dies_over_one_ticket_three_times_gives_it_up(start):
    study = start("hopeless", "tune.trials=1", "train.epochs=40")
    for _ in range(3):
        number = kill_one(study)
        until(lambda number=number: number not in study.trained())
    assert study.wait() == 2, study.printed  # no trial is left that did not fail
    assert "trial 2: its worker was ended by SIGKILL (was the memory full?); given up, as after" in study.printed
    assert Counter(row["state"] for row in study.found()["trials"]) == {"failed": 3}


def test_four_workers_on_postgresql_and_one_of_them_is_killed(start, postgresql):
    url = postgresql("killed")
    study = start("postgres", "--workers", "4", "train.epochs=12", SNNSL_STORAGE=url)
    number = until(study.trained)[0]
    held = RDBStorage(url.replace("postgresql://", "postgresql+psycopg://"), engine_kwargs={"poolclass": NullPool})
    opened = load_study(study_name="study", storage=held)
    holder = opened.trials[number].user_attrs["holder"]
    os.kill(study.workers()[holder[1]], signal.SIGKILL)
    assert study.wait() == 0, study.printed
    check(study.found(), lost=1)
    states = Counter(trial.state for trial in opened.get_trials())
    assert states == {TrialState.COMPLETE: 6, TrialState.FAIL: 1}


def test_two_machines_share_a_study_and_one_of_them_disappears(start, postgresql):
    url = postgresql("machines")
    one = start("one", "--workers", "2", "train.epochs=12", SNNSL_STORAGE=url)
    until(lambda: one.run_dir.joinpath("study.json").exists())
    other = start("other", "--workers", "1", "train.epochs=12", SNNSL_STORAGE=url)
    until(other.trained)
    os.killpg(other.process.pid, signal.SIGKILL)  # nobody is left there to say so
    assert one.wait() == 0, one.printed
    found = one.found()
    check(found, lost=1)
    assert not found["joined"]
    # The machine comes back: it has nothing left to do, and shows the whole study.
    back = start("other", "--resume", "train.epochs=12", SNNSL_STORAGE=url)
    assert back.wait() == 0, back.printed
    assert back.found()["joined"]
    check(back.found(), lost=1)
    assert {row["number"] for row in back.found()["trials"] if row["here"]} != set()


def test_a_database_that_cannot_be_used_is_one_sentence_before_anything_is_made(recipe, postgresql, tmp_path):
    read_only = postgresql(
        "reading", "reader", "CREATE ROLE reader LOGIN", "ALTER ROLE reader SET default_transaction_read_only = on"
    )
    (tmp_path / "folder").mkdir()
    for url, said in (
        ("postgresql://me:hidden@127.0.0.1:9/nothing", "refused"),
        (read_only, "read-only"),
        (f"sqlite:///{tmp_path}/folder", "unable to open"),
        ("sqlite:////proc/nowhere/study.db", "proc"),
        ("mysql://me:hidden@host/name", "is not supported"),
        ("nonsense", "not the URL of a database"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "snnsl_plugin", "tune", str(recipe), "--run-dir", str(tmp_path / "never")],
            capture_output=True, text=True, timeout=60, env={**os.environ, "SNNSL_STORAGE": url}, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        assert said in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert "hidden" not in done.stderr
        assert not (tmp_path / "never").exists()
