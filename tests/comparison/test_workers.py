"""Runs side by side in processes of their own: none stops, colours or changes another, and none outlives its parent."""

import copy
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from snnsl_plugin.comparison.entrants import available
from snnsl_plugin.comparison.terms import run_recipe, strength_key
from snnsl_plugin.comparison.workers import Job, Progress, train
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.load import dump, load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.tracking.journal import read

pytestmark = pytest.mark.slow

TINY = [
    "train.epochs=2",
    "train.optimizer.lr=0.02",
    "model.channels=[8, 16]",
    "model.hidden=32",
    "model.v_threshold=0.5",
    "data.encoder.T=2",
]
#: the fields that may differ between two runs of one recipe
VARYING = ("wall_s", "seconds_per_epoch", "peak_memory_mib", "mlflow_run_id", "versions")


def recipe(pruner: str = "dense", *changes: str, seed: int = 0) -> Recipe:
    keys = {change.partition("=")[0] for change in changes}
    task = load("digits", [word for word in TINY if word.partition("=")[0] not in keys] + list(changes))
    entrant = available()[pruner]
    strength = 0.3 if strength_key(entrant) else None
    return run_recipe(task, Compare(densities=[0.3], every="5it"), entrant, seed=seed, strength=strength)


@pytest.fixture
def job(tmp_path) -> Callable[..., Job]:
    """A job of a name."""

    def made(name: str, what: Recipe | dict[str, Any] | None = None, *changes: str) -> Job:
        what = what or recipe("dense", *changes)
        data = what if isinstance(what, dict) else what.model_dump(mode="json", by_alias=True)
        epochs = data["train"]["epochs"]
        return Job(name, data, tmp_path / "runs" / name, tmp_path / "logs" / f"{name}.log", epochs)

    return made


def trained(
    jobs: list[Job], *, workers: int = 2, on: Callable[[Progress], None] = lambda told: None
) -> dict[str, Progress]:
    """Trains jobs; what became of each, by name."""
    queue, ends = list(jobs), dict[str, Progress]()

    def tell(progress: Progress) -> None:
        if progress.state != "epoch":
            assert progress.job.name not in ends
            ends[progress.job.name] = progress
        on(progress)

    train(lambda: queue.pop(0) if queue else None, workers=workers, tell=tell)
    return ends


def process_of(job: Job) -> psutil.Process:
    """The process that trains a job: the one whose output its log takes."""
    found = [
        each
        for each in psutil.Process().children(recursive=True)
        if any(Path(file.path) == job.log for file in each.open_files())
    ]
    assert len(found) == 1
    return found[0]


def no_worker_is_left() -> bool:
    """Within three seconds; the process that all are forked from stays, for the next ones."""
    until = time.monotonic() + 3
    while time.monotonic() < until:
        mine = psutil.Process().children(recursive=True)
        if not [each for each in mine if any(file.path.endswith(".log") for file in opened(each))]:
            return True
        time.sleep(0.05)
    return False


def opened(process: psutil.Process) -> list[Any]:
    try:
        return process.open_files()
    except psutil.Error:
        return []


def span(job: Job) -> tuple[float, float]:
    times = [line["time"] for line in read(job.folder / "metrics.jsonl")]
    return times[0], times[-1]


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in copy.deepcopy(found).items() if key not in VARYING}


def test_two_train_at_the_same_time_and_never_three(job):
    jobs = [job(f"run-{number}", recipe(seed=number)) for number in range(3)]
    ends = trained(jobs)
    assert {name: end.state for name, end in ends.items()} == dict.fromkeys(("run-0", "run-1", "run-2"), "finished")
    spans = [span(each) for each in jobs]
    assert spans[0][0] < spans[1][1]
    assert spans[1][0] < spans[0][1]
    for moment, _ in spans:
        assert sum(begin <= moment <= end for begin, end in spans) <= 2
    assert no_worker_is_left()


def test_every_epoch_is_told_in_order_before_the_end(job):
    heard: list[tuple[str, int]] = []
    trained([job("one")], on=lambda told: heard.append((told.state, told.epoch)))
    assert heard == [("epoch", 1), ("epoch", 2), ("finished", 0)]


def test_the_end_of_one_may_bring_more(job):
    waiting = [[job("first")], [job("second", recipe(seed=1)), job("third", recipe(seed=2))]]
    queue, ended = waiting.pop(0), []

    def tell(progress: Progress) -> None:
        if progress.state == "finished":
            ended.append(progress.job.name)
            queue.extend(waiting.pop(0) if waiting else [])

    train(lambda: queue.pop(0) if queue else None, workers=2, tell=tell)
    assert ended[0] == "first"
    assert set(ended) == {"first", "second", "third"}


def test_one_that_fails_says_why_in_a_sentence_and_the_others_go_on(job):
    bad = recipe("snnsl.gmp").model_dump(mode="json", by_alias=True)
    bad["pruning"]["layers"] = ["nothing*"]
    unread = recipe().model_dump(mode="json", by_alias=True) | {"seed": "three"}
    ends = trained([job("bad", bad), job("unread", unread), job("good"), job("late", recipe(seed=1))])
    assert ends["bad"].state == ends["unread"].state == "failed"
    assert "nothing*" in ends["bad"].error
    assert "\n" not in ends["bad"].error
    assert not ends["bad"].error.startswith("NothingMatched")
    assert ends["unread"].error.startswith("ValidationError: ")
    assert ends["good"].state == ends["late"].state == "finished"
    assert "Traceback" in job("bad").log.read_text()


def test_one_that_is_killed_from_outside_is_said_so_the_others_go_on_and_it_can_be_resumed(job):
    long = job("long", None, "train.epochs=60")
    others = [job("first"), job("second", recipe(seed=1))]

    def kill(told: Progress) -> None:
        if told.job.name == "long" and told.epoch == 2:
            process_of(long).send_signal(signal.SIGKILL)

    ends = trained([long, *others], on=kill)
    assert ends["long"].state == "failed"
    assert ends["long"].error == "its process was ended by SIGKILL (was the memory full?); --resume trains it again"
    assert ends["first"].state == ends["second"].state == "finished"
    assert not (long.folder / "result.json").exists()

    def mend(told: Progress) -> None:
        assert told.state != "epoch" or told.epoch > 2  # it goes on, it does not begin

    short = job("long", None, "train.epochs=60")
    assert trained([short], on=mend)["long"].state == "finished"
    assert result(short.folder)["epochs"] == 60


def test_a_folder_that_cannot_be_made_is_the_failure_of_its_run(job, tmp_path):
    data = recipe().model_dump(mode="json", by_alias=True)
    (tmp_path / "runs").write_text("a file where the folder of all runs should be")
    ends = trained([job("blocked", data)])
    assert ends["blocked"].state == "failed"
    assert "blocked" in ends["blocked"].error


def test_an_interrupt_of_the_terminal_reaches_workers_and_is_left_to_the_parent(job):
    long = job("long", None, "train.epochs=6")

    def interrupt(told: Progress) -> None:
        if told.epoch == 1:
            process_of(long).send_signal(signal.SIGINT)

    assert trained([long], on=interrupt)["long"].state == "finished"


def test_an_interrupt_of_the_parent_ends_all_workers_and_is_passed_on(job):
    jobs = [job("one", None, "train.epochs=200"), job("two", None, "train.epochs=201")]

    def interrupt(told: Progress) -> None:
        if told.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(jobs, on=interrupt)
    assert no_worker_is_left()
    assert not any((each.folder / "result.json").exists() for each in jobs)


@pytest.mark.parametrize("pruner", ["snnsl.default", "nni.level", "torch_pruning.magnitude", "torch.l1"])
def test_a_run_of_a_worker_is_the_run_by_hand(pruner, job, tmp_path):
    mine = job("compared", recipe(pruner, seed=5))
    beside = job("beside", recipe(seed=6))  # something else on the other core
    assert trained([beside, mine])["compared"].state == "finished"
    written, by_hand = tmp_path / "compared.yaml", tmp_path / "by_hand"
    written.write_text(dump(recipe(pruner, seed=5)))
    ran = subprocess.run(
        [sys.executable, "-m", "snnsl_plugin", "run", str(written), "--run-dir", str(by_hand), "--quiet"],
        capture_output=True, text=True, timeout=300, check=False, env=os.environ | {"OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert comparable(result(mine.folder)) == comparable(result(by_hand))
    tensors, expected = (load_file(each / "checkpoint.safetensors") for each in (mine.folder, by_hand))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())


def test_the_peak_memory_of_a_run_is_its_own(job):
    wide = job("wide", None, "train.epochs=1", "model.hidden=12000", "model.channels=[8, 128]", "train.batch_size=512")
    small = [job("before"), job("after", recipe(seed=1))]
    ends = trained([small[0], wide, small[1]], workers=1)
    assert {end.state for end in ends.values()} == {"finished"}
    before, after, most = (result(each.folder)["peak_memory_mib"] for each in (*small, wide))
    assert most > before + 50
    assert after == pytest.approx(before, abs=15)


def test_a_thread_that_a_pruner_leaves_behind_does_not_keep_the_comparison(job, tmp_path, monkeypatch):
    (tmp_path / "staying.py").write_text(
        "import threading, time\n"
        "from snnsl_plugin.models.spiking_cnn import spiking_cnn\n"
        "def build(shape, classes):\n"
        "    threading.Thread(target=time.sleep, args=(3600,)).start()\n"
        "    return spiking_cnn(shape, classes, channels=[4, 8], hidden=8)\n"
    )
    monkeypatch.chdir(tmp_path)
    data = recipe().model_dump(mode="json", by_alias=True)
    data["model"] = {"name": "imported", "target": "staying:build"}
    made = dataclasses.replace(job("staying", data), permitted=("staying:build",))
    began = time.monotonic()
    assert trained([made])["staying"].state == "finished"
    assert time.monotonic() - began < 120
