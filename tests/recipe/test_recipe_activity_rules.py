"""Rules that go by activity, from a recipe to a sparse network: useful, and bit for bit the same after a stop."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snnsl_plugin.errors import Stopped
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch

SMALL = [
    "threads=1", "train.epochs=6", "train.batch_size=32", "train.optimizer.lr=0.01", "tracking.mlflow=false",
    "model={name: spiking_cnn, channels: [8, 16], hidden: 64}", "data.encoder={name: direct, T: 2}",
    "pruning.start=20%", "pruning.until=60%",
]  # fmt: skip
#: by rule: what changes so that a short training shows it, and how much may be left in the end
RULES: dict[str, tuple[list[str], float]] = {
    "dpap": (["pruning.every=1it"], 0.4),
    "sd_snn": (["pruning.every=1it", "pruning.pressure=8.0"], 0.55),
    "bpsr": (["pruning.every=5it", "health=[{name: rate_price, weight: 0.5}]"], 0.3),
}


def lines(run_dir: Path) -> list[dict]:
    skipped = ("seconds", "system/")
    read = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in read:
        line.pop("time")
        line["metrics"] = {key: value for key, value in line["metrics"].items() if not key.startswith(skipped)}
    return read


@pytest.mark.parametrize("rule", RULES)
def test_digits_end_sparse_and_accurate_and_a_stopped_run_goes_on_bit_for_bit(rule, tmp_path):
    changes, most = RULES[rule]
    recipe = load(f"pruners/snnsl.{rule}", [*SMALL, *changes])

    def stop(phase, event):
        if isinstance(event, Epoch) and event.epoch == 3:
            raise Stopped("half way")

    whole = run(recipe, run_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, run_dir=tmp_path / "halves", on_event=stop)
    halves = run(recipe, run_dir=tmp_path / "halves", resume=True)
    assert whole["density"]["weights"]["achieved"] < most
    assert whole["accuracy"]["test"] > 0.8  # dense: 0.93
    assert (whole["accuracy"], whole["density"]) == (halves["accuracy"], halves["density"])
    one, other = (checkpoint.load(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "halves"))
    for kept in ("model", "masks"):
        assert all(value.equal(other[kept][name]) for name, value in one[kept].items())
    assert lines(tmp_path / "whole") == lines(tmp_path / "halves")
