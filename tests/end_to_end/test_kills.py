"""A run that is killed at any moment and resumed ends as if nothing had happened: every mask and weight, bit by bit."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from snnsl_plugin.recipe import runner
from snnsl_plugin.tracking.journal import Journal
from snnsl_plugin.training import checkpoint

pytestmark = pytest.mark.slow

EPOCHS = 8
PHASES = ("dense", "sparse")
#: long enough epochs that a kill meets the middle of one, and statistics that live from one update to the next
WORDS = [
    f"train.epochs={EPOCHS}",
    "model.channels=[16, 32]",
    "model.hidden=64",
    "data.encoder={name: poisson, T: 4}",
    "dense_baseline=true",
    "distillation.guide={name: self, since: 30%, ema: 0.9}",
    "pruning.criterion=spike_saliency",
    "pruning.growth=random",
    "pruning.every=12it",
    "pruning.sample_every=5",
]


class Command:
    """`snnsl run` as a process group of its own, and what its folder says of it."""

    def __init__(self, words: list[str], run_dir: Path, *options: str) -> None:
        self.run_dir = run_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snnsl_plugin", "run", "digits", *words, "--run-dir", str(run_dir), *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # Where the tests themselves run in the background, an interrupt is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        self._begun = {phase: self._recipe(phase) for phase in PHASES}

    def wait_for(self, phase: str, epochs: int) -> bool:
        """Until this process trains the phase and so many of its epochs are over; False if it ended before."""
        while self.process.poll() is None:
            if self._recipe(phase) != self._begun[phase] and epochs_over(folder(self.run_dir, phase)) >= epochs:
                return True
            time.sleep(0.002)
        return False

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def end(self, seconds: float = 180) -> tuple[int, str]:
        """The exit status and what it printed."""
        try:
            printed = self.process.communicate(timeout=seconds)[0]
        finally:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
        return self.process.returncode, printed

    def _recipe(self, phase: str) -> int:
        # Written anew when a phase begins or goes on: the clock tells this life from the one before.
        path = folder(self.run_dir, phase) / "recipe.yaml"
        return path.stat().st_mtime_ns if path.exists() else 0


def folder(run_dir: Path, phase: str) -> Path:
    return run_dir / "dense" if phase == "dense" else run_dir


def epochs_over(phase_dir: Path) -> int:
    path = phase_dir / "metrics.jsonl"
    return path.read_bytes().count(b'"event": "epoch"') if path.exists() else 0


@pytest.fixture
def command() -> Iterator[Callable[..., Command]]:
    """Starts commands; none outlives its test."""
    started: list[Command] = []

    def start(*given: Any) -> Command:
        started.append(Command(*given))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture(scope="module")
def words(tiny_words) -> list[str]:
    return tiny_words(*WORDS)


@pytest.fixture(scope="module")
def untouched(words, tmp_path_factory) -> Path:
    """The folder of the run that was not killed."""
    run_dir = tmp_path_factory.mktemp("untouched") / "run"
    status, printed = Command(words, run_dir).end()
    assert status == 0, printed
    return run_dir


@pytest.fixture
def as_if_nothing_had_happened(comparable, journal_lines) -> Callable[[Path, Path], None]:
    """Compares two run folders."""

    def check(run_dir: Path, reference: Path) -> None:
        for phase in PHASES:
            mine, theirs = folder(run_dir, phase), folder(reference, phase)
            masks, expected = masks_of(mine), masks_of(theirs)
            assert masks.keys() == expected.keys()
            assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())
            tensors = load_file(mine / "checkpoint.safetensors")
            stored = load_file(theirs / "checkpoint.safetensors")
            assert tensors.keys() == stored.keys()
            assert all(torch.equal(value, stored[name]) for name, value in tensors.items())
            assert comparable(read(mine)) == comparable(read(theirs))
            assert journal_lines(mine / "metrics.jsonl") == journal_lines(theirs / "metrics.jsonl")
        assert (run_dir / "report.html").is_file()

    return check


def masks_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run_dir / "checkpoint.safetensors").get("masks", {})


def read(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def test_killed_at_ten_random_moments(command, words, untouched, as_if_nothing_had_happened, tmp_path):
    draw = random.Random(7)
    # Five in each phase, in epochs; in its last epoch the phase might be over before it is killed.
    moments = [(phase, moment) for phase in PHASES for moment in sorted(draw.uniform(0, EPOCHS - 1) for _ in range(5))]
    run_dir, lasted = tmp_path / "run", read(untouched)
    for number, (phase, moment) in enumerate(moments):
        epochs, part = divmod(moment, 1)
        alive = command(words, run_dir, *(["--resume"] if number else []))
        assert alive.wait_for(phase, int(epochs)), alive.end()
        time.sleep(part * (lasted["dense"] if phase == "dense" else lasted)["seconds_per_epoch"])
        alive.signal(signal.SIGKILL)
        status, printed = alive.end()
        assert status == -signal.SIGKILL, (phase, moment, printed)
        assert not (run_dir / "result.json").exists()
    status, printed = command(words, run_dir, "--resume").end()
    assert status == 0, printed
    as_if_nothing_had_happened(run_dir, untouched)


def test_an_interrupt_is_130_says_how_to_go_on_and_goes_on(
    command, words, untouched, as_if_nothing_had_happened, tmp_path
):
    run_dir = tmp_path / "run"
    for number, phase in enumerate(PHASES):
        alive = command(words, run_dir, *(["--resume"] if number else []))
        assert alive.wait_for(phase, 3), alive.end()
        alive.signal(signal.SIGINT)
        status, printed = alive.end()
        assert status == 130, printed
        assert "interrupted; to go on: snnsl run digits " in printed
        assert printed.endswith(f"--run-dir {run_dir} --resume\n")
        assert "Traceback" not in printed
        assert read(run_dir)["status"] == "interrupted"
    assert command(words, run_dir, "--resume").end()[0] == 0
    as_if_nothing_had_happened(run_dir, untouched)


def test_a_finished_run_is_shown_again_without_training(command, words, untouched, journal_lines):
    before = {path: path.stat().st_mtime_ns for path in untouched.rglob("*") if path.is_file() and path.name != ".lock"}
    status, printed = command(words, untouched, "--resume").end()
    assert status == 0, printed
    assert "sparse epoch" not in printed
    assert "accuracy, test" in printed
    assert {path: path.stat().st_mtime_ns for path in before} == before


MLFLOW = """
import json, sys
from mlflow import MlflowClient
from mlflow.entities import ViewType
client = MlflowClient("sqlite:///" + sys.argv[1])
experiments = [each.experiment_id for each in client.search_experiments()]
runs = client.search_runs(experiments, run_view_type=ViewType.ALL, max_results=100)
def steps(run):
    return sorted(each.step for each in client.get_metric_history(run.info.run_id, "accuracy/validation"))
print(json.dumps([
    {"id": run.info.run_id, "status": run.info.status, "parent": run.data.tags.get("mlflow.parentRunId"),
     "steps": steps(run)} for run in runs
]))
"""


def test_mlflow_shows_one_finished_run_however_often_it_was_killed(command, words, tmp_path):
    run_dir = tmp_path / "runs" / "killed"
    words = [word for word in words if not word.startswith("tracking")]
    for number, phase in enumerate(PHASES):
        alive = command(words, run_dir, *(["--resume"] if number else []))
        assert alive.wait_for(phase, 3), alive.end()
        alive.signal(signal.SIGKILL)
        alive.end()
    status, printed = command(words, run_dir, "--resume").end()
    assert status == 0, printed
    until = time.monotonic() + 180
    while not whole(run_dir):
        assert time.monotonic() < until, (run_dir / "tracking" / "sender.log").read_text()
        time.sleep(0.2)
    asked = subprocess.run(
        [sys.executable, "-c", MLFLOW, str(tmp_path / "runs" / "mlflow.db")],
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    runs = json.loads(asked.stdout)
    (parent,) = [run for run in runs if run["parent"] is None]
    (child,) = [run for run in runs if run["parent"] is not None]
    assert child["parent"] == parent["id"]
    assert (parent["status"], child["status"]) == ("FINISHED", "FINISHED")
    batches = parent["steps"][0]
    assert parent["steps"] == child["steps"] == [batches * epoch for epoch in range(1, EPOCHS + 1)]


def whole(run_dir: Path) -> bool:
    """Whether the sender says that MLflow has all of a run."""
    path = run_dir / "tracking" / "sent.json"
    return path.exists() and json.loads(path.read_text()).get("complete", False)


# ----------------------------------------------------------------------- at every write, in this process


class Killed(BaseException):
    """Stands for a SIGKILL: nobody catches it."""


class Writes:
    """Counts what a run writes, and kills it before a write of a number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.told: list[str] = []
        replace, write = os.replace, Journal.write

        def put(source, target):
            self._count(Path(target).name)
            replace(source, target)

        def line(journal, event, *given, **facts):
            self._count(event)
            write(journal, event, *given, **facts)

        monkeypatch.setattr(os, "replace", put)
        monkeypatch.setattr(Journal, "write", line)

    def _count(self, what: str) -> None:
        if self.at == len(self.told):
            raise Killed(what)
        self.told.append(what)

    def run(self, recipe, run_dir: Path, *, at: int | None = None, resume: bool = False) -> list[str]:
        self.at, self.told = at, []
        with pytest.raises(Killed) if at is not None else contextlib.nullcontext():
            runner.run(recipe, run_dir=run_dir, resume=resume, name="tiny")
        return self.told


@pytest.fixture
def writes(monkeypatch) -> Writes:
    return Writes(monkeypatch)


def test_killed_before_each_thing_it_writes(writes, tiny, tmp_path, as_if_nothing_had_happened):
    recipe = tiny("train.epochs=1", "dense_baseline=true", "pruning.criterion=fisher")
    told = writes.run(recipe, tmp_path / "untouched")
    drawn = [number for number, what in enumerate(told) if what.endswith((".svg", ".png"))]
    assert told.count("checkpoint.safetensors") == 4  # an epoch and the end, twice
    for at in [number for number in range(len(told)) if number not in drawn[1:]]:
        run_dir = tmp_path / f"run-{at}"
        writes.run(recipe, run_dir, at=at)
        writes.run(recipe, run_dir, resume=at > 0)  # before its first file there is no run to go on with
        as_if_nothing_had_happened(run_dir, tmp_path / "untouched")


def test_killed_again_while_it_goes_on(writes, tiny, tmp_path, as_if_nothing_had_happened):
    recipe = tiny("train.epochs=2", "dense_baseline=true")
    writes.run(recipe, tmp_path / "untouched")
    draw = random.Random(3)
    for life in range(12):
        writes.run(recipe, tmp_path / "run", at=draw.randint(3, 9), resume=life > 0)
    writes.run(recipe, tmp_path / "run", resume=True)
    as_if_nothing_had_happened(tmp_path / "run", tmp_path / "untouched")


def test_half_a_checkpoint_beside_the_whole_one_is_harmless(writes, tiny, tmp_path, comparable):
    recipe = tiny()
    told = writes.run(recipe, tmp_path / "untouched")
    second = [number for number, what in enumerate(told) if what == "checkpoint.safetensors"][1]
    run_dir = tmp_path / "run"
    writes.run(recipe, run_dir, at=second)
    partial = run_dir / "checkpoint.safetensors.partial"
    content = partial.read_bytes()
    partial.write_bytes(content[: len(content) // 2])
    (run_dir / "result.json.partial").write_text('{"status": "fin')
    (run_dir / "state.json").write_text("{")
    with (run_dir / "metrics.jsonl").open("ab") as journal:
        journal.write(b'{"time": 17')
    writes.run(recipe, run_dir, resume=True)
    assert comparable(read(run_dir)) == comparable(read(tmp_path / "untouched"))
    assert not list(run_dir.rglob("*.partial"))
