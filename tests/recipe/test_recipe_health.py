"""The block `health`: what looks after the signal, as a recipe asks for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snnsl_plugin.errors import BadRecipe, Stopped
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch

SMALL = [
    "threads=1", "train.epochs=4", "model={name: spiking_cnn, channels: [4, 8], hidden: 16}", "dense_baseline=false",
    "data.encoder={name: direct, T: 2}", "tracking.mlflow=false",
]  # fmt: skip
ALL = (
    "health=[{name: rate_band, low: 0.05, weight: 1.0}, synops_loss, {name: wide_surrogate, until: 50%}, bn_momentum, "
    "rescale, {name: revival, every: 10it, until: 100%}]"
)


def lines(run_dir: Path) -> list[dict]:
    skipped = ("seconds", "system/")
    read = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for line in read:
        line.pop("time")
        line["metrics"] = {key: value for key, value in line["metrics"].items() if not key.startswith(skipped)}
    return read


def test_a_run_that_was_stopped_goes_on_bit_for_bit_and_logs_the_silent_share(tmp_path):
    recipe = load("digits", [*SMALL, ALL])

    def stop(phase, event):
        if isinstance(event, Epoch) and event.epoch == 2:
            raise Stopped("half way")

    whole = run(recipe, run_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, run_dir=tmp_path / "halves", on_event=stop)
    halves = run(recipe, run_dir=tmp_path / "halves", resume=True)
    assert whole["accuracy"] == halves["accuracy"]
    one, other = (checkpoint.load(tmp_path / name / "checkpoint.safetensors")["model"] for name in ("whole", "halves"))
    assert all(value.equal(other[name]) for name, value in one.items())
    assert lines(tmp_path / "whole") == lines(tmp_path / "halves")
    epochs = [line["metrics"] for line in lines(tmp_path / "whole") if line["event"] == "epoch"]
    shares = [value for epoch in epochs for key, value in epoch.items() if key.startswith("silent/")]
    assert len(shares) >= 4 * 2
    assert any(key.startswith("revived/") for key in epochs[-1])
    assert all(0.0 <= share <= 1.0 for share in shares)


def test_without_the_block_nothing_changes_and_with_it_the_weights_do(tmp_path):
    plain, cared = load("digits", SMALL), load("digits", [*SMALL, ALL])
    assert digest(plain) == digest(load("digits", [*SMALL, "health=[]"])) != digest(cared)
    run(plain, run_dir=tmp_path / "plain")
    run(cared, run_dir=tmp_path / "cared")
    one, other = (checkpoint.load(tmp_path / name / "checkpoint.safetensors")["model"] for name in ("plain", "cared"))
    assert not one["conv1.weight"].equal(other["conv1.weight"])


def test_weights_that_a_rule_rewinds_are_not_rescaled():
    with pytest.raises(BadRecipe, match=r"health: .*rescale would change the weights that snnsl\.lth has just rewound"):
        load("pruners/snnsl.lth", ["health=[rescale]"])


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("[rate_bnd]", "unknown kind of care 'rate_bnd'; did you mean 'rate_band'?"),
        ("[rate_band, {name: rate_band, low: 0.02}]", "names one kind of care twice"),
        ("[{name: rate_band, lo: 0.02}]", "unknown key 'lo'"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(block, said):
    with pytest.raises(BadRecipe, match=said.replace("?", r"\\?")):
        load("digits", [f"health={block}"])


def test_a_learner_that_sees_fewer_steps_is_not_taught_step_by_step():
    early = "pruning.early_time=0.6"
    load("pruners/snnsl.lth", [early, "distillation={guide: virtual}"])
    with pytest.raises(BadRecipe, match="early_time gives the learner fewer time steps than its guide sees"):
        load("pruners/snnsl.lth", [early, "distillation={guide: virtual, per_step: true}"])
