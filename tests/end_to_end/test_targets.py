"""What the shipped recipes promise, over three seeds each."""

import os
import statistics
from pathlib import Path

import pytest

from snnsl_plugin.recipe import runner
from snnsl_plugin.recipe.load import load

SEEDS = (0, 1, 2)


def results(recipe: str, folder: Path) -> list[dict]:
    return [
        runner.run(load(recipe, [f"seed={seed}", "tracking.mlflow=false"]), run_dir=folder / str(seed), name=recipe)
        for seed in SEEDS
    ]


@pytest.mark.slow
def test_digits_at_ten_percent_keep_96_percent_and_dense_ones_98(tmp_path: Path) -> None:
    runs = results("digits", tmp_path)
    assert statistics.fmean(run["accuracy"]["test"] for run in runs) >= 0.96
    assert statistics.fmean(run["accuracy"]["dense_test"] for run in runs) >= 0.98
    for run in runs:
        weights = run["density"]["weights"]
        assert weights["kept"] == round(0.1 * weights["total"])


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(
    not (Path(os.environ.get("SNNSL_DATA", "/nonexistent")) / "nmnist" / "Train").is_dir(),
    reason="no N-MNIST recordings: put Train/ and Test/ below SNNSL_DATA/nmnist",
)
def test_a_thousand_recordings_of_nmnist_at_ten_percent_give_88_percent(tmp_path: Path) -> None:
    runs = results("nmnist", tmp_path)
    assert statistics.fmean(run["accuracy"]["test"] for run in runs) >= 0.88
    for run in runs:
        weights = run["density"]["weights"]
        assert weights["kept"] == round(0.1 * weights["total"])
