"""UPR through a recipe: the result counts what the network computes, masked neurons too; a run goes on bit for bit."""

import pytest
import torch

from snnsl_plugin.errors import Stopped
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.recipe.assemble import data, load_network
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.runner import run
from snnsl_plugin.testing import slow_driven_synapses
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.events import Epoch
from snnsl_plugin.training.loop import batches
from snnsl_plugin.training.neuron_masks import masked_neurons

VARYING = {"wall_s", "seconds_per_epoch", "peak_memory_mib", "versions"}


@pytest.fixture(scope="module")
def recipe():
    words = [
        "train.epochs=5", "model.channels=[4,6]", "model.hidden=16", "threads=1", "tracking.mlflow=false",
        "pruning.score_lr=0.02", "pruning.price=1e-6", "pruning.until=75%",
        "distillation={guide: {name: self, since: 30%}, weight: 0.2}",
    ]  # fmt: skip
    return load("pruners/snnsl.upr", words)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("upr") / "whole"
    return run(recipe, run_dir=folder), folder


@pytest.mark.parametrize("stops", [2, 4])
def test_a_run_that_was_stopped_in_the_search_or_after_it_ends_the_same(recipe, whole, tmp_path, stops) -> None:
    def stop(phase, event) -> None:
        if isinstance(event, Epoch) and event.epoch == stops:
            raise Stopped("on the way")

    with pytest.raises(Stopped):
        run(recipe, run_dir=tmp_path / "halves", on_event=stop)
    resumed = run(recipe, run_dir=tmp_path / "halves", resume=True)
    assert {key for key in resumed if resumed[key] != whole[0][key]} <= VARYING
    one, other = (checkpoint.load(each / "checkpoint.safetensors") for each in (whole[1], tmp_path / "halves"))
    for part in ("model", "masks"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())


def test_the_network_that_is_left_is_the_one_that_was_measured(recipe, whole) -> None:
    result, folder = whole
    parts = data(recipe)
    net = load_network(folder, parts)
    assert masked_neurons(net) == ["spike1", "spike2"]
    measured = measure(net, batches(parts.test, "cpu"))
    assert measured.accuracy == result["accuracy"]["test"]
    assert measured.synops_per_sample == result["synops_per_sample"]
    paths = live_paths(net, next(batches(parts.test, "cpu"))[0][:, :1])
    connections = result["density"]["connections"]
    assert (paths.connections, paths.forward_connections) == (connections["live"], connections["forward"])
    assert paths.connections < result["density"]["weights"]["kept"] < result["density"]["weights"]["total"] / 2


def test_no_masked_neuron_drives_a_synapse(recipe, whole) -> None:
    # Spike by spike: the operations of each layer, from what it reads.
    parts = data(recipe)
    net = load_network(whole[1], parts).eval()
    read = {}
    for name in ("conv2", "fc1", "fc2"):
        net.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: read.update({name: args[0].detach()})
        )
    x, y = next(batches(parts.test, "cpu"))
    measured = measure(net, [(x, y)])
    padding = {"conv2": {"padding": (1, 1)}}
    counted = sum(
        float(slow_driven_synapses(spikes.flatten(0, 1), net.get_submodule(name).weight, **padding.get(name, {})).sum())
        for name, spikes in read.items()
    )
    assert counted == pytest.approx(measured.synops_per_sample * len(y))
    assert set(read["conv2"].unique().tolist()) == {0.0, 1.0}
    silent = ~net.get_submodule("spike2").neuron_mask.mask
    assert 0 < int(silent.sum()) < silent.numel()
    assert measured.silent["spike2"] >= float(silent.float().mean())
    pooled = torch.nn.functional.max_pool2d((~silent).float(), 2).flatten() == 0
    assert not bool(read["fc1"][..., pooled].any())
