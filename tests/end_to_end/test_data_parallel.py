"""One recipe over several ranks: what one process would have trained, equal everywhere, resumable after a kill."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from data_parallel_cases import BATCH, CASES, EPOCHS, recipe, trained, words
from safetensors.torch import load_file
from torch import distributed

import snnsl_plugin
from snnsl_plugin.errors import Stopped
from snnsl_plugin.recipe import runner
from snnsl_plugin.training.events import Epoch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not distributed.is_available(), reason="this torch is built without torch.distributed"),
]

HERE = Path(__file__).parent
LIMIT = 60.0  # seconds from the death of a rank to the end of the job


class Job:
    """Two ranks under torchrun."""

    def __init__(self, *words: Any) -> None:
        paths = [str(Path(snnsl_plugin.__file__).parents[1]), str(HERE.parent)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        if Path("/sys/class/net/lo").exists():  # a machine's own name may stand for an address that it cannot reach
            environment["GLOO_SOCKET_IFNAME"] = "lo"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
        self.process = subprocess.Popen(
            [*torchrun, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    def rank(self, number: int) -> int:
        """The process id of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [pid for pid in children if f"RANK={number}\0".encode() in environment_of(pid)]
        return int(found[0])

    def end(self, seconds: float = 180) -> tuple[int, str, str]:
        """The exit status, and what was printed to either stream."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.terminate()  # torchrun puts ranks into sessions of their own, and ends them itself
            self.process.communicate(timeout=LIMIT)
            raise
        return self.process.returncode, out, err


def environment_of(pid: str) -> bytes:
    return b"\0" + Path(f"/proc/{pid}/environ").read_bytes()


@pytest.fixture
def job() -> Iterator[Callable[..., Job]]:
    """Starts jobs; none outlives its test."""
    started: list[Job] = []

    def start(*words: Any) -> Job:
        started.append(Job(*words))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.end(LIMIT)


def stop_at_two(phase, event):
    if isinstance(event, Epoch) and event.epoch == 2:
        raise Stopped("seen enough")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder in which two ranks have trained everything."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.raises(Stopped):
        runner.run(recipe(), run_dir=folder / "one_to_two", name="tiny", on_event=stop_at_two)
    status, out, err = Job(HERE / "data_parallel_worker.py", folder).end()
    assert status == 0, out + err
    return folder


@pytest.fixture(scope="module")
def seen(folder) -> list[dict[str, Any]]:
    """What the two ranks saw."""
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def of(seen: dict[str, Any], word: str) -> dict[str, Any]:
    return {name: value for name, value in seen.items() if name.startswith(f"{word}/")}


def read(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


# ------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize("case", CASES)
def test_masks_weights_and_buffers_are_the_same_bit_by_bit_on_all_ranks(seen, case):
    one, other = (each[case] for each in seen)
    assert one.keys() == other.keys()
    assert of(one, "state")
    updates = {name.split("/")[1] for name in of(one, "mask")}
    assert len(updates) >= (4 if case == "lth" else 7)  # a rewind between two rounds takes its time
    for word in ("mask", "state", "spikes"):
        assert all(torch.equal(value, other[name]) for name, value in of(one, word).items())
    assert of(one, "rate") == of(other, "rate")
    assert (one["losses"], one["accuracies"]) == (other["losses"], other["accuracies"])


@pytest.mark.parametrize("case", [case for case in CASES if case != "norm"])
def test_without_a_batch_norm_it_is_what_one_process_trains(seen, case):
    mine, alone = seen[0][case], trained(case)
    assert mine.keys() == alone.keys()
    assert all(torch.equal(value, alone[name]) for name, value in of(mine, "mask").items())
    apart = max(float((value.double() - alone[name].double()).abs().max()) for name, value in of(mine, "state").items())
    assert apart <= 1e-10
    assert max(abs(a - b) for a, b in zip(mine["losses"], alone["losses"], strict=True)) <= 1e-10
    assert mine["accuracies"] == alone["accuracies"]
    assert all(torch.equal(value, alone[name]) for name, value in of(mine, "spikes").items())
    assert of(mine, "rate") == of(alone, "rate")
    print(f"\n{case}: weights differ by {apart:.1e} at most after {EPOCHS} epochs of batches of {BATCH}")


def test_statistics_of_a_checkpoint_are_sums_over_ranks_and_are_not_counted_twice(seen):
    for each in seen:
        spikes = of(each["plain"], "spikes")
        assert any(float(value.sum()) > 0 for value in spikes.values())
        for name, value in spikes.items():
            assert torch.equal(value, each["plain"][name.replace("spikes", "again", 1)]), name


# ------------------------------------------------------------------------------------------- runs of recipes


@pytest.fixture(scope="module")
def as_the_whole_one(folder, comparable, journal_lines) -> Callable[[str], None]:
    """Compares a resumed run with the one that was not interrupted."""

    def check(name: str) -> None:
        mine, whole = folder / name, folder / "whole"
        tensors, expected = (load_file(each / "checkpoint.safetensors") for each in (mine, whole))
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in tensors.items())
        assert comparable(read(mine)) == comparable(read(whole))
        assert journal_lines(mine / "metrics.jsonl") == journal_lines(whole / "metrics.jsonl")

    return check


def test_every_rank_has_the_result_that_rank_0_has_written(folder, seen):
    assert seen[0]["whole"] == seen[1]["whole"] == read(folder / "whole") == seen[0]["shown"] == seen[1]["shown"]
    assert seen[0]["whole"]["status"] == "finished"
    assert (folder / "whole" / "report.html").is_file()
    names = load_file(folder / "whole" / "checkpoint.safetensors")
    assert not [name for name in names if ".module." in name or name.startswith("module.")]


@pytest.mark.parametrize("name", ["epoch", "update", "step"])
def test_a_listener_of_rank_0_stops_all_ranks_and_resumed_it_ends_the_same(seen, as_the_whole_one, name):
    assert seen[0][f"stopped/{name}"] == ("Enough", "seen enough")
    assert seen[1][f"stopped/{name}"] == ("Stopped", "seen enough")
    as_the_whole_one(name)


def test_two_ranks_begin_and_one_process_goes_on(folder, seen):
    result = runner.run(recipe(), run_dir=folder / "two_to_one", name="tiny", resume=True)
    check_resumed(result, folder / "two_to_one", seen[0]["whole"])


def test_one_process_begins_and_two_ranks_go_on(folder, seen):
    assert seen[0]["one_to_two"] == seen[1]["one_to_two"]
    check_resumed(seen[0]["one_to_two"], folder / "one_to_two", seen[0]["whole"])


def check_resumed(result: dict[str, Any], run_dir: Path, whole: dict[str, Any]) -> None:
    assert (result["status"], result["epochs"], result["digest"]) == ("finished", 3, whole["digest"])
    assert result["density"]["weights"] == whole["density"]["weights"]
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if line["event"] == "epoch"]
    assert len(steps) == 3
    assert steps == [number * steps[0] for number in (1, 2, 3)]


def test_judge_and_counted_hold_under_ranks(seen):
    told = seen[0]["validation"]
    assert told == seen[1]["validation"]
    assert told["accuracy"]["test"] is None
    assert told["accuracy"]["validation"] is not None


def test_what_one_rank_meets_every_rank_raises(seen):
    for each in seen:
        assert each["taken"][0] == "RunFolderInUse"
        assert each["agreed"] == "only here"
        assert each["device"][0] == "BadOption"
        assert "one GPU for 2 processes" in each["device"][1]
        assert "close the group first" in each["alone"][1]
    assert seen[1]["other"][0] == "BadRecipe"
    assert "rank 1 was given another recipe than rank 0" in seen[0]["other"][1]


# ------------------------------------------------------------------------------------------- the command


def command(run_dir: Path, *changes: str) -> list[str]:
    return ["-m", "snnsl_plugin", "run", "digits", *words(*changes), "--run-dir", str(run_dir)]


def epochs_over(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return path.read_bytes().count(b'"event": "epoch"') if path.exists() else 0


def wait_for_epochs(job: Job, run_dir: Path, number: int) -> None:
    while epochs_over(run_dir) < number:
        assert job.process.poll() is None, job.end()
        time.sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="ranks are found in /proc")
@pytest.mark.parametrize("victim", [1, 0])
def test_a_killed_rank_ends_the_job_with_a_sentence_and_the_run_goes_on(job, tmp_path, victim):
    run_dir = tmp_path / "run"
    given = command(run_dir, "train.epochs=400")
    alive = job(*given)
    wait_for_epochs(alive, run_dir, 2)
    os.kill(alive.rank(victim), signal.SIGKILL)
    killed = time.monotonic()
    status, _, err = alive.end(LIMIT)
    print(f"\nrank {victim} killed: the job ended after {time.monotonic() - killed:.1f} s")
    assert status != 0
    said = [line for line in err.splitlines() if "--resume" in line]
    assert len(said) == 1, err
    assert str(run_dir) in said[0]
    assert "snnsl_plugin/" not in err, "a traceback of ours"
    if victim == 0:  # nobody is left who writes
        assert not (run_dir / "result.json").exists()
    else:
        assert read(run_dir)["status"] in ("failed", "interrupted")
    at = epochs_over(run_dir)
    again = job(*given, "--resume")
    wait_for_epochs(again, run_dir, at + 2)
    again.process.send_signal(signal.SIGTERM)
    _, _, err = again.end(LIMIT)
    assert err.count("interrupted; to go on: torchrun --nproc-per-node 2 -m snnsl_plugin run digits") == 1, err
    assert read(run_dir)["status"] == "interrupted"


def test_what_one_rank_alone_meets_in_an_epoch_ends_all(job, tmp_path):
    status, _, err = job(HERE / "data_parallel_worker.py", tmp_path, "spoilt").end(LIMIT)
    assert status != 0
    assert "sample 3 is damaged" in err
    told = read(tmp_path / "spoilt")
    assert told["status"] == "failed"
    assert "--resume" in told["error"]


def test_the_command_refuses_a_host_with_one_sentence_before_anything_is_trained(job, tmp_path):
    given = command(tmp_path / "run", "pruning={type: nni.level, density: 0.5}")
    status, out, err = job(*given).end(LIMIT)
    assert status != 0
    assert (out + err).count("pruning.type nni.level cannot be trained by 2 processes") == 1
    assert not (tmp_path / "run").exists()


def test_the_command_trains_a_dense_and_a_sparse_network_and_prints_once(job, tmp_path):
    run_dir = tmp_path / "run"
    given = command(run_dir, "dense_baseline=true", "train.epochs=2")
    status, out, err = job(*given, "--json").end()
    assert status == 0, err
    assert json.loads(out) == read(run_dir)
    assert read(run_dir)["dense"]["status"] == "finished"
    events = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [each["event"] for each in events].count("epoch") == 2
