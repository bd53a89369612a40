"""Recordings of gestures from their files to a result: the shipped recipes, broken files, workers, and resuming."""

from __future__ import annotations

import numpy as np
import pytest

from snnsl_plugin.cli import main
from snnsl_plugin.errors import BadData, Stopped
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch

TINY = [
    "data.T=2", "data.downsample=8", "data.windows=2", "train.epochs=3", "train.batch_size=4", "threads=1",
    "model={name: spiking_cnn, channels: [4, 8], hidden: 16}", "pruning.start=0it", "pruning.every=3it",
    "tracking.mlflow=false",
]  # fmt: skip
CHANGED = "data.augment={flip: 0.5, roll: 2, drop: 0.2, cutout: 3}"


@pytest.fixture(autouse=True)
def gestures(tmp_path, monkeypatch):
    """Recordings in tonic's layout: two users train, one tests; events lean to a corner that depends on the gesture."""
    monkeypatch.setenv("SNNSL_DATA", str(tmp_path))
    for part, users in (("Train", (1, 2)), ("Test", (24,))):
        for user in users:
            place = tmp_path / "dvs_gesture" / f"ibmGesture{part}" / f"user{user:02}_led"
            place.mkdir(parents=True)
            for label in range(11):
                random = np.random.default_rng(100 * user + label)
                columns = [random.integers(0, 128, 2000) for _ in "xy"]
                columns[0] = columns[0] * (label + 3) // 13
                columns += [random.integers(0, 2, 2000), np.sort(random.integers(0, 6000, 2000))]
                np.save(place / f"{label}.npy", np.stack(columns, 1))
    return tmp_path / "dvs_gesture"


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-1000])
    return file


def test_a_broken_recording_stops_the_run_before_it_trains(gestures, tmp_path, capsys):
    file = cut_short(gestures / "ibmGestureTrain" / "user01_led" / "4.npy")
    with pytest.raises(BadData, match="4.npy cannot be read"):
        run(load("dvs_gesture_quick", TINY), run_dir=tmp_path / "run")
    assert main(["run", "dvs_gesture_quick", *TINY, "--run-dir", str(tmp_path / "other")]) == 2
    said = capsys.readouterr().err
    assert str(file) in said
    assert "Traceback" not in said
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_or_it_is_left_out_and_the_result_counts_it(gestures, tmp_path, caplog):
    cut_short(gestures / "ibmGestureTrain" / "user01_led" / "4.npy")
    result = run(load("dvs_gesture_quick", [*TINY, "data.skip_broken=true"]), run_dir=tmp_path / "run")
    assert (result["status"], result["epochs"], result["skipped_samples"]) == ("finished", 3, 4)
    assert "user01_led/4.npy" in caplog.text


@pytest.mark.parametrize("split", ["official", "quick"])
def test_workers_change_nothing_in_a_result(tmp_path, comparable, split):
    words = [*TINY, CHANGED, f"data.split={split}"]
    results, weights = [], []
    for workers in (0, 2):
        folder = tmp_path / str(workers)
        results.append(comparable(run(load("dvs_gesture_quick", [*words, f"data.workers={workers}"]), run_dir=folder)))
        weights.append(checkpoint.load(folder / "checkpoint.safetensors")["model"])
    assert results[0] == results[1]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert results[0]["skipped_samples"] == 0


def test_a_run_with_augmentation_that_was_stopped_goes_on_bit_for_bit(tmp_path, comparable):
    recipe = load("dvs_gesture_quick", [*TINY, CHANGED, "data.workers=1"])

    def stop(phase, event):
        if isinstance(event, Epoch) and event.epoch == 2:
            raise Stopped("half way")

    whole = run(recipe, run_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, run_dir=tmp_path / "again", on_event=stop)
    again = run(recipe, run_dir=tmp_path / "again", resume=True)
    assert comparable(again) == comparable(whole)


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "data"), [("dvs_gesture", []), ("cifar10_dvs", ["data.test=0.34"])])
def test_a_full_recipe_takes_twenty_steps(gestures, tmp_path, recipe, data):
    """Network, steps and options as shipped; one sample a step, a quarter of each side, to fit into a small machine."""
    if recipe == "cifar10_dvs":
        from snnsl_plugin.datasets.cifar10_dvs import CLASSES

        for word in CLASSES:
            (tmp_path / "cifar10_dvs" / word).mkdir(parents=True)
            for i, source in enumerate(sorted(gestures.rglob("*.npy"))[:4]):
                x, y, p, t = np.load(source).T
                np.savez(tmp_path / "cifar10_dvs" / word / f"cifar10_{word}_{i}.npz", x=x, y=y, p=p, t=t)
    shipped = load(recipe)
    changes = ["train.batch_size=1", "train.epochs=1", "train.device=cpu", "pruning.start=0it", "pruning.every=4it"]
    changes += ["data.downsample=4"]
    steps = []
    result = run(
        load(recipe, [*changes, "threads=1", "tracking.mlflow=false", *data]),
        run_dir=tmp_path / "run",
        on_event=lambda _, event: steps.append(event) if type(event).__name__ == "Step" else None,
    )
    assert len(steps) >= 20
    assert result["status"] == "finished"
    assert result["density"]["weights"]["achieved"] == pytest.approx(0.1, abs=1e-3)
    assert shipped.train.batch_size * shipped.train.epochs > 1000  # the shipped one is no toy
