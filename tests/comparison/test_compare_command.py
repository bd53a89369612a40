"""`snnsl compare` as a command: to the end, again, killed, interrupted, on every kind of budget, and called wrongly."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from comparison_cases import comparison_json

from snnsl_plugin.comparison.courses import course
from snnsl_plugin.comparison.plan import plan, prepare
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble
from snnsl_plugin.recipe.load import load
from snnsl_plugin.tracking.journal import read
from snnsl_plugin.training.loop import batches

pytestmark = pytest.mark.slow

EPOCHS = 4
TASK = [
    f"train.epochs={EPOCHS}",
    "train.optimizer.lr=0.02",
    "model.channels=[8, 16]",
    "model.hidden=32",
    "model.v_threshold=0.5",
    "data.encoder.T=2",
    "tracking.mlflow=false",
    "compare.every=5it",
]
THREE = ["compare.pruners=[snnsl.gmp, nni.level, torch_pruning.magnitude]", "compare.densities=[0.3]"]
SEEDS = "compare.seeds=[0, 1]"
#: the numbers that may differ between two runs of one recipe
VARYING = ("wall_s", "seconds_per_epoch", "peak_memory_mib")


class Command:
    """`snnsl compare` as a process group of its own."""

    def __init__(self, cwd: Path, run_dir: Path | None, words: list[str], *options: str) -> None:
        self.run_dir = run_dir
        held = ["--run-dir", str(run_dir)] if run_dir else []
        written = {word.partition("=")[0].removeprefix("~") for word in words}
        task = [word for word in TASK if word.partition("=")[0] not in written]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snnsl_plugin", "compare", "digits", *task, *words, *held, *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # Where the tests themselves run in the background, an interrupt is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip

    def wait_until(self, reached: Callable[[], bool], seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.end()
            assert time.monotonic() < until, self.end()
            time.sleep(0.01)

    def family(self) -> list[psutil.Process]:
        """All processes that it has started, and theirs."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, seconds: float = 480) -> tuple[int, str, str]:
        """The exit status and what it printed to stdout and stderr."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.returncode, out, err


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


def finished(cwd: Path, run_dir: Path, words: list[str], *options: str) -> dict[str, Any]:
    """What a comparison found that ends well."""
    status, out, err = Command(cwd, run_dir, words, *options).end()
    assert status == 0, out + err
    return found_in(run_dir)


def found_in(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "comparison.json").read_text())


def runs_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {run["folder"]: run for row in found["rows"] for run in row["runs"]}


def row_of(found: dict[str, Any], pruner: str) -> dict[str, Any]:
    (row,) = [row for row in found["rows"] if row["pruner"] == pruner]
    return row


def numbers_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All numbers that repetition must repeat, by run."""
    return {
        name: {key: value for key, value in run["numbers"].items() if key not in VARYING}
        for name, run in runs_of(found).items()
    }


def trains(process: psutil.Process, run_dir: Path) -> bool:
    """Whether a process is a worker: its output goes to the log of a run."""
    try:
        return any(Path(file.path).parent == run_dir / "logs" for file in process.open_files())
    except psutil.Error:
        return False


def gone(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether all have ended within a time; one that only waits to be asked for its status has."""

    def ended(process: psutil.Process) -> bool:
        try:
            return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    until = time.monotonic() + seconds
    while not all(ended(each) for each in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def epochs_over(run_dir: Path) -> int:
    """Epochs that all runs of a comparison have trained so far."""
    return sum(path.read_bytes().count(b'"event": "epoch"') for path in run_dir.glob("runs/*/metrics.jsonl"))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """The folder of the comparison that nobody disturbed."""
    run_dir = home / "runs" / "whole"
    finished(home, run_dir, [*THREE, SEEDS])
    return run_dir


# ------------------------------------------------------------------------------------------------------- to the end


def test_it_finishes_with_every_row_and_all_that_people_read(whole):
    found = found_in(whole)
    assert (found["schema"], found["status"], found["judge"]) == (1, "finished", "test")
    assert [row["pruner"] for row in found["rows"]] == [
        "dense", "snnsl.gmp", "nni.level", "torch_pruning.magnitude"
    ]  # fmt: skip
    assert {row["status"] for row in found["rows"]} == {"finished"}
    assert {run["status"] for run in runs_of(found).values()} == {"finished"}
    assert not any(run["reused"] for run in runs_of(found).values())
    assert [table["kind"] for table in found["tables"]] == ["unstructured", "structured"]
    for name in ("comparison.csv", "comparison.md", "comparison.html", "recipe.yaml", "result.json"):
        assert (whole / name).stat().st_size > 100, name
    assert json.loads((whole / "result.json").read_text())["status"] == "finished"
    assert "snnsl compare digits" in found["command"]


def keys(of: Any) -> Any:
    """Names of fields at every depth, of a list those of its first entry."""
    if isinstance(of, dict):
        return {name: keys(value) for name, value in of.items()}
    return [keys(of[0])] if isinstance(of, list) and of and isinstance(of[0], dict) else None


def test_its_fields_are_those_that_readers_are_tested_on(whole):
    found, expected = found_in(whole), comparison_json()
    assert found.keys() == expected.keys()
    for part in ("terms", "machine", "commit"):
        assert found[part] is None or found[part].keys() == expected[part].keys(), part
    assert found["tasks"][0].keys() == expected["tasks"][0].keys()
    assert found["pruners"][0].keys() == expected["pruners"][0].keys()
    mine, theirs = found["rows"][1], expected["rows"][1]
    assert mine.keys() == theirs.keys()
    assert keys(mine["runs"]) == keys(theirs["runs"])
    assert keys(mine["strength"]) == keys(theirs["strength"])
    assert keys(mine["measures"]) == keys(theirs["measures"])
    assert found["tables"][0].keys() == expected["tables"][0].keys()
    assert found["tables"][0]["power"].keys() == expected["tables"][0]["power"].keys()


def test_every_pruner_ends_at_the_budget_and_is_charged_for_its_training(whole):
    rows = {row["pruner"]: row for row in found_in(whole)["rows"]}
    for name in ("snnsl.gmp", "nni.level"):
        for run in rows[name]["runs"]:
            assert run["numbers"]["density"] == pytest.approx(0.3, rel=0.02)
    for run in rows["torch_pruning.magnitude"]["runs"]:
        assert run["numbers"]["connections"] == pytest.approx(0.3, rel=0.25)  # eight channels come in whole numbers
    costs = {name: row["measures"]["training_cost"]["mean"] for name, row in rows.items()}
    assert costs["dense"] == 1.0
    # GMP removes on the way; NNI's LevelPruner halfway, from when on weights of 0.3 are trained.
    assert costs["snnsl.gmp"] < costs["nni.level"] < 1.0
    assert {run["numbers"]["epochs"] for row in rows.values() for run in row["runs"]} == {EPOCHS}


def test_every_run_lies_where_the_comparison_says_with_the_same_accuracy(whole):
    for name, run in runs_of(found_in(whole)).items():
        result = json.loads((whole / name / "result.json").read_text())
        assert result["accuracy"]["test"] == run["numbers"]["accuracy"]
        assert result["digest"] == run["digest"]
        assert result["seed"] == run["seed"]


def test_a_second_time_trains_nothing(home, whole):
    again = home / "runs" / "again"
    found = finished(home, again, [*THREE, SEEDS])
    assert all(run["reused"] for run in runs_of(found).values())
    assert not (again / "logs").exists()
    first, second = runs_of(found_in(whole)), runs_of(found)
    assert {name: run["numbers"] for name, run in first.items()} == {
        name: run["numbers"] for name, run in second.items()
    }
    assert found["digest"] == found_in(whole)["digest"]


def test_a_finished_comparison_is_shown_again_and_not_overwritten(home, whole, command):
    before = (whole / "comparison.json").read_bytes()
    status, out, _ = command(home, whole, [*THREE, SEEDS], "--resume").end()
    assert status == 0
    assert "snnsl.gmp" in out
    assert (whole / "comparison.json").read_bytes() == before
    status, _, err = command(home, whole, [*THREE, SEEDS]).end()
    assert status == 1
    assert "is not empty: add --resume" in err


def test_a_folder_of_other_terms_is_not_gone_on_with(home, whole, command):
    status, _, err = command(home, whole, [*THREE, "compare.seeds=[0, 2]"], "--resume").end()
    assert status == 1
    assert "holds a run of another recipe" in err


def test_seeds_of_one_row_train_side_by_side(tmp_path):
    run_dir = tmp_path / "dense"
    finished(tmp_path, run_dir, ["compare.pruners=[dense]", SEEDS, "train.epochs=20"], "--workers", "2")
    spans = []
    for seed in (0, 1):
        times = [line["time"] for line in read(run_dir / "runs" / f"digits-dense-s{seed}" / "metrics.jsonl")]
        spans.append((times[0], times[-1]))
    assert spans[0][0] < spans[1][1]
    assert spans[1][0] < spans[0][1]


# ------------------------------------------------------------------------------------------------ judged by validation


def test_who_judges_by_validation_does_not_see_the_test_set(home, whole):
    run_dir = home / "runs" / "validation"
    found = finished(home, run_dir, [*THREE, SEEDS, "compare.judge=validation"])
    assert found["judge"] == "validation"
    results = [json.loads((run_dir / name / "result.json").read_text())["accuracy"] for name in runs_of(found)]
    for run, accuracy in zip(runs_of(found).values(), results, strict=True):
        assert run["numbers"]["accuracy"] == accuracy["validation"]
        assert run["numbers"]["accuracy_test"] is None
        assert run["numbers"]["accuracy_test_last"] is None
    hidden = {repr(accuracy[key]) for accuracy in results for key in ("test", "test_last")}
    hidden -= {repr(accuracy["validation"]) for accuracy in results}
    assert len(hidden) > 4
    for name in ("comparison.json", "comparison.csv", "comparison.md", "comparison.html", "metrics.jsonl"):
        text = (run_dir / name).read_text()
        assert not [value for value in hidden if len(value) > 6 and value in text], name


# ---------------------------------------------------------------------------------------------- killed and interrupted


def test_killed_in_the_middle_it_leaves_no_worker_and_ends_as_if_nothing_had_happened(whole, command, tmp_path):
    run_dir = tmp_path / "runs" / "killed"
    alive = command(tmp_path, run_dir, [*THREE, SEEDS])
    alive.wait_until(lambda: any(run_dir.glob("runs/*/result.json")))
    over = epochs_over(run_dir)
    alive.wait_until(lambda: epochs_over(run_dir) > over)
    family = alive.family()
    workers = [each for each in family if trains(each, run_dir)]
    assert workers
    os.kill(alive.process.pid, signal.SIGKILL)  # it alone: its workers have to see that by themselves
    assert gone(workers, 3)
    assert gone(family, 60)  # what they were forked from tidies up its memory
    assert alive.end()[0] == -signal.SIGKILL
    trained = [path.parent.name for path in run_dir.glob("runs/*/result.json")]
    assert len(trained) < 8
    found = finished(tmp_path, run_dir, [*THREE, SEEDS], "--resume")
    assert found["status"] == "finished"
    assert numbers_of(found) == numbers_of(found_in(whole))
    assert found["digest"] == found_in(whole)["digest"]


def interrupted(alive: Command) -> str:
    """Ends a command as a terminal does, all processes of it at once; gives the words to go on with."""
    family = alive.family()
    os.killpg(alive.process.pid, signal.SIGINT)
    status, _, err = alive.end()
    assert status == 130, err
    assert "Traceback" not in err
    said = err.splitlines()[-1]
    assert said.startswith("interrupted; to go on: snnsl compare digits ")
    assert said.endswith(f"--run-dir {alive.run_dir} --resume")
    assert gone(family, 60)
    found = found_in(alive.run_dir)
    assert found["status"] == "interrupted"
    assert json.loads((alive.run_dir / "result.json").read_text())["status"] == "interrupted"
    assert (alive.run_dir / "comparison.html").stat().st_size > 1000
    return said


def test_an_interrupt_is_130_says_how_to_go_on_and_goes_on(whole, command, tmp_path):
    run_dir = tmp_path / "runs" / "interrupted"
    alive = command(tmp_path, run_dir, [*THREE, SEEDS])
    alive.wait_until(lambda: any(run_dir.glob("runs/*/result.json")))
    interrupted(alive)
    statuses = {run["status"] for run in runs_of(found_in(run_dir)).values()}
    assert statuses == {"finished", "waiting"}
    spent = found_in(run_dir)["wall_s"]
    found = finished(tmp_path, run_dir, [*THREE, SEEDS], "--resume")
    assert numbers_of(found) == numbers_of(found_in(whole))
    assert found["wall_s"] > spent  # the time before the interrupt counts


def test_an_interrupt_while_it_plans_is_130_too(command, tmp_path):
    run_dir = tmp_path / "runs" / "planning"
    alive = command(tmp_path, run_dir, ["compare.pruners=[all]", "compare.densities=[0.3, 0.2, 0.1]", SEEDS])
    alive.wait_until(lambda: (run_dir / "recipe.yaml").exists())
    interrupted(alive)


def test_an_interrupt_in_the_middle_of_a_search_is_130_too(command, tmp_path):
    run_dir = tmp_path / "runs" / "searching"
    alive = command(tmp_path, run_dir, ["compare.pruners=[nni.level]", "compare.synops=[0.4]", "compare.seeds=[0]"])
    alive.wait_until(lambda: any(run_dir.glob("runs/*-search-*/metrics.jsonl")))
    interrupted(alive)


# ------------------------------------------------------------------------------------------------------------- budgets


def test_a_budget_of_seconds_is_as_many_epochs_as_fit(tmp_path):
    run_dir = tmp_path / "runs" / "seconds"
    words = ["compare.pruners=[torch.l1]", "compare.synops=[0.5]", "compare.seeds=[0]", "compare.seconds=1.0"]
    found = finished(tmp_path, run_dir, words)
    assert (found["terms"]["seconds"], found["terms"]["epochs"]) == (1.0, None)
    # The dense network counts as well where another's SynOps are measured against it for another number of epochs.
    assert [(row["pruner"], row["status"]) for row in found["rows"]] == [
        ("dense", "finished"),
        ("torch.l1", "finished"),
    ]
    for row in found["rows"]:
        budget = "-synops-0.5" if row["budget"] else ""
        probe = run_dir / "runs" / f"digits-{row['pruner']}{budget}-probe" / "metrics.jsonl"
        lines = [json.loads(line) for line in probe.read_text().splitlines()]
        seconds = [line["metrics"]["seconds"] for line in lines if line["event"] == "epoch"]
        assert len(seconds) == 2
        assert row["runs"][0]["numbers"]["epochs"] == max(1, int(1.0 / min(seconds)))


def test_an_epoch_is_timed_over_as_many_as_a_pruners_updates_need():
    """Every 100 of the 21 steps an epoch, the last before 80 %: four epochs have 67 steps for them, eight have 134."""
    words = ["compare.pruners=[nni.agp_level]", "compare.densities=[0.3]", "compare.seconds=30", "train.epochs=12"]
    made = plan(load("digits", words), "timed")
    for row in made.rows:
        prepare(row)
    probes = [next(course(row, made.rows[0], Path))[0] for row in made.rows]
    assert [probe.recipe.train.epochs for probe in probes] == [2, 8]


def synops_on_validation(run: Path) -> float:
    parts = assemble.data(load(run / "recipe.yaml"))
    return measure(assemble.load_network(run, parts), batches(parts.validation, "cpu")).synops_per_sample


def test_a_budget_of_synops_is_met_on_the_validation_part(tmp_path):
    run_dir = tmp_path / "runs" / "synops"
    words = ["compare.pruners=[snnsl.gmp, snnsl.stds]", "compare.synops=[0.5]", "compare.seeds=[0, 1]"]
    found = finished(tmp_path, run_dir, words)
    dense = synops_on_validation(run_dir / "runs" / "digits-dense-s0")
    for name in ("snnsl.gmp", "snnsl.stds"):
        row = row_of(found, name)
        assert (row["status"], row["strength"]["found_by"], row["strength"]["missed"]) == ("finished", "search", False)
        assert row["strength"]["runs"] >= 1
        assert synops_on_validation(run_dir / row["runs"][0]["folder"]) / dense == pytest.approx(0.5, rel=0.05)
        # The training that met it is the first seed's: it is not done again.
        logs = [path.stem for path in (run_dir / "logs").glob(f"digits-{name}-*.log")]
        assert f"digits-{name}-synops-0.5-s1" in logs
        assert f"digits-{name}-synops-0.5-s0" not in logs
        assert not row["runs"][0]["reused"]  # from an earlier comparison: no


# ------------------------------------------------------------------------------------------------------ called wrongly


def test_a_bad_option_of_one_pruner_takes_its_row_and_no_other(home, whole):
    bad = "{name: bad, like: nni.level, pruning: {strat: 10%}}"
    blind = "{name: blind, like: torch.l1, pruning: {layers: ['nothing*']}}"
    run_dir = home / "runs" / "bad"
    words = [f"compare.pruners=[{bad}, nni.level, {blind}]", "compare.densities=[0.3]", SEEDS]
    found = finished(home, run_dir, words)
    assert [(row["pruner"], row["status"]) for row in found["rows"]] == [
        ("dense", "finished"), ("bad", "failed"), ("nni.level", "finished"), ("blind", "failed")
    ]  # fmt: skip
    said = row_of(found, "bad")["error"]
    assert said.startswith("pruner bad: pruning.strat: ")
    assert "\n" not in said
    assert "nothing*" in row_of(found, "blind")["error"]
    assert "strat" in (run_dir / "comparison.md").read_text()
    assert row_of(found, "nni.level")["runs"][0]["reused"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare.pruners=[nni.levle]", "compare.densities=[0.1]"], "did you mean 'nni.level'?"),
        (["compare.pruners=[nni.level]"], "needs a budget"),
        (["compare.pruners=[nni.level]", "compare.desities=[0.1]"], "densities"),
        (["compare.pruners=[]", "compare.densities=[0.1]"], "compare.pruners"),
        (["compare.densities=[0.1]", "compare.seeds=[0, 0]"], "names a value twice"),
        (["compare.densities=[0.1]", "compare.tasks=[nowhere]"], "nowhere"),
    ],
    ids=["unknown pruner", "no budget", "unknown key", "no pruner", "a seed twice", "no such task"],
)
def test_what_cannot_be_meant_is_one_sentence_and_nothing_is_written(words, said, command, tmp_path):
    status, out, err = command(tmp_path, None, words).end()
    assert status == 1, err
    assert said in err
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_recipe_without_the_block_is_told_so(tmp_path, command):
    status, _, err = command(tmp_path, None, ["~compare.every"]).end()
    assert status == 1
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
