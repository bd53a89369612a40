"""`snnsl run`: what it hands to the runner, and what it shows of it."""

import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from snnsl_plugin.cli import main, plan, table
from snnsl_plugin.cli.progress import Progress, line
from snnsl_plugin.errors import Diverged
from snnsl_plugin.recipe import runner
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.events import Epoch, MaskUpdate, Step

EPOCH = Epoch(
    epoch=1, epochs=2, step=10, loss=0.5, accuracy=0.8, validation_loss=0.6, validation_accuracy=0.75, density=0.4,
    rates={"1": 0.1}, lr=0.01, seconds=1.25,
)  # fmt: skip
EVENTS = [
    Step(step=1, total=20, loss=torch.tensor(0.7)),
    MaskUpdate(step=1, progress=0.1, density=0.9, layers={}, connections=9, born={}, dropped={}),
    EPOCH,
]


def result(**changed):
    """A result.json by hand: 10 of 40 weights are kept, 8 of them on a live path."""
    return {
        "schema": 1, "recipe": "digits", "digest": "0" * 16, "seed": 3, "status": "finished",
        "accuracy": {"test": 0.9612, "test_last": 0.95, "validation": 0.97, "dense_test": None},
        "density": {
            "weights": {"requested": 0.25, "achieved": 0.25, "kept": 10, "total": 40},
            "connections": {"live": 8, "forward": 9, "density": 0.2},
            "layers": {},
        },
        "regrown": 5, "synops_per_sample": 12345.6, "macs_per_sample": 789.0,
        "energy_pj_per_sample": {"total": 4200.0}, "firing_rate": {"1": 0.1, "2": 0.3}, "silent": {"1": 0.5, "2": 0.0},
        "parameters": {"dense": 44, "kept": 14}, "epochs": 2, "seconds_per_epoch": 1.234, "dense": None,
    } | changed  # fmt: skip


def cells(text):
    """The rows of a printed table as {label: [cells]}."""
    rows = (re.split(r"\s*[│┃]\s*", row.strip("│┃ \n")) for row in text.splitlines() if row[:1] in "│┃")
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


@pytest.fixture
def handed(monkeypatch, tmp_path):
    """What the runner is called with; it sends three events and finishes."""
    seen = {}

    def fake(recipe, **given):
        seen.update(given, recipe=recipe)
        given["on_start"](given["run_dir"] or Path("runs/digits-008"))
        for event in EVENTS:
            given["on_event"]("sparse", event)
        return result()

    monkeypatch.setattr(runner, "run", fake)
    monkeypatch.chdir(tmp_path)
    return seen


def test_run_hands_over_recipe_folder_and_name_and_prints_the_table(handed, capsys):
    assert main(["run", "digits", "seed=3", "--run-dir", "mine"]) == 0
    out, err = capsys.readouterr()
    assert handed["recipe"] == load("digits", ["seed=3"])
    assert (str(handed["run_dir"]), handed["name"], handed["resume"]) == ("mine", "digits", False)
    assert err == f"{line('sparse', EPOCH)}\n"
    assert cells(out)["accuracy, test"] == ["0.9612"]
    assert "report: mine/report.html\nrun folder: mine\n" in out


def test_the_folder_the_runner_chose_is_shown(handed, capsys):
    assert main(["run", "digits", "-q"]) == 0
    out, err = capsys.readouterr()
    assert "run folder: runs/digits-008\n" in out
    assert err == ""


def test_json_is_alone_on_stdout(handed, capsys):
    assert main(["run", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == result()


def test_a_failed_run_is_2_and_its_sentence(handed, capsys, monkeypatch):
    def fail(recipe, **given):
        raise Diverged("the loss is NaN at step 3")

    monkeypatch.setattr(runner, "run", fail)
    assert main(["run", "digits"]) == 2
    assert capsys.readouterr().err == "the loss is NaN at step 3\n"


@pytest.mark.parametrize("begun", [True, False])
def test_an_interrupted_run_says_how_to_go_on(begun, handed, capsys, monkeypatch):
    def interrupt(recipe, *, on_start, **given):
        if begun:
            on_start(Path("runs/digits-001"))
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupt)
    assert main(["run", "digits", "pruning.exclude=['a b']"]) == 130
    again = """snnsl run digits 'pruning.exclude=['"'"'a b'"'"']' --run-dir runs/digits-001 --resume"""
    expected = (
        f"interrupted; to go on: {again}\n" if begun else "interrupted before the training began; nothing was written\n"
    )
    assert capsys.readouterr().err == expected


def test_the_recipe_of_a_run_folder_keeps_the_name_of_its_run(handed, tmp_path, capsys):
    from snnsl_plugin.recipe.load import dump

    folder = tmp_path / "runs" / "digits-001"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(dump(load("digits")))
    (folder / "run.json").write_text('{"name": "digits", "digest": "0", "seed": 0}')
    assert main(["run", str(folder / "recipe.yaml")]) == 0
    assert handed["name"] == "digits"


def test_a_dry_run_shows_layers_densities_and_counts_and_writes_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["run", "digits", "--dry-run", "train.epochs=2"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["density_per_epoch"]) == 2
    assert found["density_per_epoch"][-1] == pytest.approx(0.1)
    weights = sum(layer["weights"] for layer in found["layers"])
    assert sum(found["counts"].values()) == round(0.1 * weights)
    assert main(words) == 0
    shown = cells(capsys.readouterr().out)
    assert shown["all"] == ["", f"{weights:,}", "", f"{round(0.1 * weights):,}", "0.1000"]
    assert shown["2"] == ["0.1000"]
    assert list(tmp_path.iterdir()) == []


def test_dense_stands_beside_sparse():
    dense = result(
        accuracy={"test": 0.98, "test_last": 0.98, "validation": 0.99, "dense_test": None},
        density={
            "weights": {"requested": 1.0, "achieved": 1.0, "kept": 40, "total": 40},
            "connections": {"live": 40, "forward": 40, "density": 1.0},
            "layers": {},
        },
    )
    stream = io.StringIO()
    table.print_result(result(dense=dense), Path("runs/a"), Console(file=stream, width=200))
    shown = cells(stream.getvalue())
    assert shown["measure"] == ["dense", "sparse"]
    assert shown["accuracy, test"] == ["0.9800", "0.9612"]
    assert shown["density requested"] == ["1.0000", "0.2500"]
    assert shown["density achieved"] == ["1.0000", "0.2500"]
    assert shown["weights kept"] == ["40 of 40", "10 of 40"]
    assert shown["connections on a live path"] == ["40", "8"]
    assert shown["SynOps per sample"] == ["12,346", "12,346"]
    assert shown["energy per sample, nJ"] == ["4.20", "4.20"]
    assert shown["firing rate, mean of layers"] == ["0.2000", "0.2000"]
    assert shown["silent share, mean of layers"] == ["0.2500", "0.2500"]
    assert shown["seconds per epoch"] == ["1.23", "1.23"]
    assert "run folder: runs/a" in stream.getvalue()
    assert "energy: A model, not a measurement" in stream.getvalue()


def test_what_was_not_counted_is_a_dash():
    stream = io.StringIO()
    uncounted = result(synops_per_sample=None, macs_per_sample=None, energy_pj_per_sample={}, firing_rate={}, silent={})
    table.print_result(uncounted, Path("a"), Console(file=stream, width=200))
    shown = cells(stream.getvalue())
    assert [shown[row] for row in ("SynOps per sample", "energy per sample, nJ", "silent share, mean of layers")] == [
        ["-"]
    ] * 3


def test_a_terminal_shows_a_bar_with_the_facts():
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with Progress(2, console=console) as progress:
        for event in [*EVENTS, Step(step=20, total=20, loss=torch.tensor(0.4))]:
            progress.show("sparse", event)
    shown = stream.getvalue()
    assert "…" not in shown, "80 columns must do"
    for fact in ("sparse", "left", "00:00", "epoch 2/2", "loss 0.5", "validation 75.0%", "density 0.400"):
        assert fact in shown, fact


def test_a_file_gets_one_line_an_epoch_and_quiet_gets_nothing():
    for quiet, expected in ((False, f"{line('dense', EPOCH)}\n"), (True, "")):
        stream = io.StringIO()
        with Progress(2, quiet=quiet, console=Console(file=stream)) as progress:
            for event in EVENTS:
                progress.show("dense", event)
        assert stream.getvalue() == expected


def test_a_plan_without_pruning_has_no_counts():
    stream = io.StringIO()
    layers = [{"name": "0", "shape": [2, 3], "weights": 6, "prunable": False}]
    plan.print_plan(
        {"recipe": {"seed": 0}, "layers": layers, "density_per_epoch": [1.0], "counts": {}, "steps_per_epoch": 5},
        Console(file=stream, width=120),
    )
    assert cells(stream.getvalue())["0"] == ["2 x 3", "6", "no", "6", "1.0000"]
