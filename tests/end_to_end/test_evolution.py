"""Generations of tiny networks, from the recipe to the folder; killed at any moment they end as if nothing had been."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from snnsl_plugin.errors import Disconnected
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.recipe import assemble, runner
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.evolving import evolve
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.report import write as draw
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.loop import batches
from snnsl_plugin.training.ranks import ALONE

SHORT = ["train.epochs=1", "pruning.density.last=0.3", "evolution.generations=2", "evolution.population=2"]
WORDS = ["train.epochs=2", *SHORT[1:]]
PLACES = ["generation-0/candidate-0", "generation-1/candidate-0", "generation-1/candidate-1"]


def read(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "result.json").read_text())


def masks_of(run_dir: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(run_dir / "checkpoint.safetensors")["masks"]


@pytest.fixture(scope="module")
def evolved(tiny, tmp_path_factory) -> Path:
    """The folder of two generations that began from their parent's mask."""
    run_dir = tmp_path_factory.mktemp("evolved") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("snnsl_plugin.recipe.report.write", lambda run_dir: None)
        runner.run(tiny(*WORDS, "evolution.restart=same_mask"), run_dir=run_dir, name="tiny")
    return run_dir


def test_each_candidate_is_an_ordinary_run_in_a_folder_of_its_own(evolved, tiny):
    for place in PLACES:
        own = load(evolved / place / "recipe.yaml")
        result = read(evolved / place)
        assert result["digest"] == digest(own)
        assert result["status"] == "finished"
        assert result["accuracy"]["test"] is None  # candidates are chosen without it
        assert own.evolution is None
    assert sorted(path.parent.relative_to(evolved).as_posix() for path in evolved.glob("*/*/result.json")) == PLACES
    parent = f"{evolved}/generation-0/candidate-0"
    later = [load(evolved / place / "recipe.yaml") for place in PLACES[1:]]
    assert {each.parent.run for each in later} == {each.distillation.guide.run for each in later} == {parent}
    assert len({each.seed for each in later}) == 1


def test_budgets_are_met_to_the_last_weight(evolved):
    total = read(evolved)["density"]["weights"]["total"]
    for place, share in zip(PLACES, (0.3, 0.21, 0.21), strict=True):
        assert sum(int(mask.sum()) for mask in masks_of(evolved / place).values()) == round(share * total)


def test_the_result_is_that_of_the_best_network_of_the_last_generation(evolved):
    result, rows = read(evolved), read(evolved)["evolution"]["generations"]
    assert [row["generation"] for row in rows] == [0, 1]
    assert [row["folder"] for generation in rows for row in generation["candidates"]] == PLACES
    best = max(rows[1]["candidates"], key=lambda row: (row["accuracy"], -row["synops_per_sample"]))
    assert result["evolution"]["best"] == best["folder"] == rows[1]["candidates"][rows[1]["best"]]["folder"]
    own = read(evolved / best["folder"])
    assert set(result) == {*own, "evolution"}
    for key in ("density", "selected_epoch", "parameters", "validation"):
        assert result[key] == own[key]
    assert result["digest"] == digest(load(evolved / "recipe.yaml"))
    assert best["depth"] == 4
    assert best["layers"] == {name: layer["achieved"] for name, layer in own["density"]["layers"].items()}


def test_the_test_accuracy_is_that_of_the_network_in_the_folder(evolved):
    recipe = load(evolved / "recipe.yaml")
    parts = assemble.data(recipe)
    model, masks = assemble.load_network(evolved, parts), masks_of(evolved)
    best = read(evolved)["evolution"]["best"]
    assert all(mask.equal(masks_of(evolved / best)[name]) for name, mask in masks.items())
    measured = measure(model, batches(parts.test, "cpu"), masks=masks)
    assert read(evolved)["accuracy"]["test"] == measured.accuracy
    assert read(evolved)["synops_per_sample"] == measured.synops_per_sample


def test_the_journal_has_a_line_a_generation(evolved):
    lines = [json.loads(line) for line in (evolved / "metrics.jsonl").read_text().splitlines()]
    told = [("started", 0), ("generation", 0), ("generation", 1), ("finished", 1)]
    assert [(line["event"], line["step"]) for line in lines] == told
    assert lines[3]["metrics"] == {"accuracy/test": read(evolved)["accuracy"]["test"]}
    chosen = read(evolved)["evolution"]["generations"][1]
    assert lines[2]["metrics"]["connections"] == chosen["candidates"][chosen["best"]]["connections"]


def test_a_finished_evolution_is_returned_as_it_is_and_drawn(evolved, monkeypatch):
    monkeypatch.setattr(runner, "_generations", None)
    assert runner.run(load(evolved / "recipe.yaml"), run_dir=evolved, resume=True) == read(evolved)
    page = draw(evolved).read_text()
    assert "Generations" in page
    assert (evolved / "figures" / "generations-layers.svg").is_file()
    assert all(
        f"{100 * row['accuracy']:.2f} %" in page for row in read(evolved)["evolution"]["generations"][1]["candidates"]
    )


def test_a_candidate_that_does_not_live_is_not_chosen_and_stops_no_other(tiny, tmp_path, undrawn):
    recipe, history = tiny(*SHORT), []
    parts = assemble.data(recipe)

    def train(own, place, tell):
        if place.as_posix().endswith(PLACES[1]):
            raise Disconnected("no path leads from the input to the output")
        return runner.run(own, run_dir=place, judge="validation")

    result = evolve(
        recipe, tmp_path, parts, lambda phase, event: None, train,
        name="tiny", digest="d", judge="validation", ranks=ALONE, history=history,
    )  # fmt: skip
    failed, alive = history[1]["candidates"]
    assert (failed["status"], failed["error"]) == ("failed", "no path leads from the input to the output")
    assert history[1]["best"] == 1
    assert result["evolution"]["best"] == alive["folder"] == PLACES[2]
    assert result["accuracy"]["test"] is None


def test_where_nobody_lives_the_run_fails_with_the_reason_and_shows_what_there_was(
    tiny, tmp_path, undrawn, monkeypatch
):
    recipe = tiny(*SHORT)
    whole = runner.run

    def run(own, **options):
        if "generation-1" in str(options["run_dir"]):
            raise Disconnected("no path leads from the input to the output")
        return whole(own, **options)

    monkeypatch.setattr(runner, "run", run)
    with pytest.raises(Disconnected, match="every candidate of generation-1 failed; generation-1/candidate-0: no path"):
        whole(recipe, run_dir=tmp_path / "run", name="tiny")
    result = read(tmp_path / "run")
    assert result["status"] == "failed"
    assert [row["generation"] for row in result["evolution"]["generations"]] == [0]


# ---------------------------------------------------------------------------------------------------------- killed

KILLED = ["train.epochs=4", "pruning.density.last=0.3", "evolution.generations=3", "evolution.population=2",
          "model.channels=[8, 16]", "pruning.growth=random"]  # fmt: skip
ALL = [*PLACES, "generation-2/candidate-0", "generation-2/candidate-1"]


def started(words: list[str], run_dir: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "snnsl_plugin", "run", "digits_evolution", *words, "--run-dir", str(run_dir), *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def killed_once(words: list[str], run_dir: Path, until: Callable[[], bool], *options: str) -> None:
    process = started(words, run_dir, *options)
    try:
        while process.poll() is None and not until():
            time.sleep(0.002)
        assert process.poll() is None, process.communicate()[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def epochs_over(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    return path.read_bytes().count(b'"event": "epoch"') if path.exists() else 0


@pytest.mark.slow
def test_three_generations_killed_within_and_between_end_as_if_nothing_had_happened(
    tiny_words, tmp_path, comparable, journal_lines
):
    words = tiny_words(*KILLED)
    whole, run_dir = tmp_path / "whole", tmp_path / "killed"
    status = started(words, whole)
    printed = status.communicate(timeout=900)[0]
    assert status.returncode == 0, printed
    # within the first generation, between two candidates, between two generations, within the last candidate
    killed_once(words, run_dir, lambda: epochs_over(run_dir / ALL[0]) >= 2)
    killed_once(words, run_dir, lambda: (run_dir / ALL[1] / "result.json").exists(), "--resume")
    before = (run_dir / ALL[1] / "checkpoint.safetensors").stat().st_mtime_ns
    killed_once(words, run_dir, lambda: (run_dir / ALL[2] / "result.json").exists(), "--resume")
    killed_once(words, run_dir, lambda: epochs_over(run_dir / ALL[4]) >= 2, "--resume")
    assert not (run_dir / "result.json").exists()
    last = started(words, run_dir, "--resume")
    printed = last.communicate(timeout=900)[0]
    assert last.returncode == 0, printed
    assert (run_dir / ALL[1] / "checkpoint.safetensors").stat().st_mtime_ns == before  # kept, not trained again
    for place in ("", *ALL):
        mine, theirs = (
            load_file(run_dir / place / "checkpoint.safetensors"),
            load_file(whole / place / "checkpoint.safetensors"),
        )
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items()), place
        assert comparable(read(run_dir / place)) == comparable(read(whole / place)), place
        assert journal_lines(run_dir / place / "metrics.jsonl") == journal_lines(whole / place / "metrics.jsonl"), place
        assert (run_dir / place / "report.html").is_file()


@pytest.mark.slow
def test_two_ranks_train_an_evolution_and_one_process_goes_on(tiny_words, tmp_path, comparable):
    words, run_dir = tiny_words(*SHORT, "pruning.growth=random"), tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port),
         "-m", "snnsl_plugin", "run", "digits_evolution", *words, "--quiet", "--json", "--run-dir", str(run_dir)],
        capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | ({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = read(run_dir)
    assert comparable(json.loads(done.stdout)) == comparable(result)
    assert [len(row["candidates"]) for row in result["evolution"]["generations"]] == [1, 2]
    (run_dir / "result.json").unlink()  # as if it was killed before the last thing that it writes
    again = started(words, run_dir, "--resume")
    printed = again.communicate(timeout=600)[0]
    assert again.returncode == 0, printed
    assert comparable(read(run_dir)) == comparable(result)


@pytest.mark.slow
def test_a_residual_block_dies_is_an_identity_and_leaves_the_depth_that_is_reported(tmp_path, undrawn):
    recipe = load(
        "digits_evolution",
        ["~model.channels", "~model.hidden", "model.name=sew_resnet", "model.v_threshold=0.2", "train.epochs=1",
         "data.encoder.T=1", "train.batch_size=128", "threads=1", "tracking.mlflow=false", "pruning.every=4it",
         "evolution.generations=2", "evolution.mutation.blocks=0.5", "evolution.factor=1.0"],
    )  # fmt: skip
    result = runner.run(recipe, run_dir=tmp_path / "run", name="sew", judge="validation")
    first, second = result["evolution"]["generations"]
    assert (first["candidates"][0]["depth"], first["candidates"][0]["blocks"]) == (18, 5)
    assert not first["candidates"][0]["dead_blocks"]
    unchanged, lost = second["candidates"]
    assert not unchanged["dead_blocks"]
    assert lost["dead_blocks"]
    assert all(lost["dead_blocks"].values())
    assert lost["depth"] == 18 - 2 * len(lost["dead_blocks"])
    assert lost["kept"] == unchanged["kept"] == first["candidates"][0]["kept"]
    for block in lost["dead_blocks"]:
        assert lost["layers"][f"{block}.conv1"] == lost["layers"][f"{block}.conv2"] == 0.0
