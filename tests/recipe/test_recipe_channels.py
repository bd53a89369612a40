"""The pruning type `snnsl.sca`: whole channels, resumed bit for bit, and cut in the end."""

from __future__ import annotations

import pytest
import torch

from snnsl_plugin.compaction.compact import compact
from snnsl_plugin.errors import BadOption, Stopped
from snnsl_plugin.recipe.assemble import data, load_network
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch

SMALL = [
    "threads=1", "train.epochs=4", "model={name: spiking_cnn, channels: [8, 8], hidden: 16, v_threshold: 0.5}",
    "data.encoder={name: direct, T: 2}", "tracking.mlflow=false", "pruning.density.last=0.56", "pruning.every=7it",
    "pruning.sample_every=5",
]  # fmt: skip


def test_a_run_goes_on_bit_for_bit_and_its_survivors_can_be_cut(tmp_path):
    recipe = load("pruners/snnsl.sca", SMALL)

    def stop(phase, event):
        if isinstance(event, Epoch) and event.epoch == 2:
            raise Stopped("half way")

    whole = run(recipe, run_dir=tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, run_dir=tmp_path / "halves", on_event=stop)
    halves = run(recipe, run_dir=tmp_path / "halves", resume=True)
    assert whole["accuracy"] == halves["accuracy"]
    assert whole["regrown"] == halves["regrown"] > 0
    one, other = (checkpoint.load(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "halves"))
    assert all(value.equal(other["model"][name]) for name, value in one["model"].items())
    layers = whole["density"]["layers"]
    assert layers["fc2"]["achieved"] == 1.0  # its channels are the classes
    assert {name: layers[name]["achieved"] for name in ("conv1", "conv2")} == {"conv1": 0.5, "conv2": 0.5}

    parts = data(recipe)
    network = load_network(tmp_path / "whole", parts)
    x = next(parts.test.epoch(None))[0][:, :4]
    small, _, removed = compact(network, one["masks"], x)
    assert (small.conv1.out_channels, small.conv2.in_channels, small.conv2.out_channels) == (4, 4, 4)
    assert small.fc1.in_features == 16
    assert bool(removed)
    network.eval()
    small.eval()
    torch.testing.assert_close(small(x), network(x))


def test_the_last_layer_is_spared_by_itself_and_refused_where_something_else_is(tmp_path):
    with pytest.raises(BadOption, match="the channels of 'fc2', the last layer"):
        run(load("pruners/snnsl.sca", [*SMALL, "pruning.exclude=[conv1]"]), run_dir=tmp_path / "run")
