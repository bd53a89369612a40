"""What several processes refuse to train, by recipe."""

import pytest

from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe import data_parallel
from snnsl_plugin.recipe.load import load
from snnsl_plugin.training.ranks import ALONE, Ranks

HOSTS = [
    "{type: nni.level, density: 0.5}",
    "{type: nni.agp_taylor, density: 0.5}",
    "{type: nni.spiking_dynamic, density: 0.5}",
    "{type: torch_pruning.base, channels: 0.5}",
    "{type: torch_pruning.spiking_dynamic, channels: 0.5}",
    "{type: torch.l1, density: 0.5}",
]
OURS = [
    "{type: dense}",
    "{type: snnsl.drop_grow, density: {name: constant, value: 0.5}}",
    "{type: snnsl.stds, threshold: {name: constant, value: 0.1}}",
]


@pytest.mark.parametrize("pruning", HOSTS)
def test_other_hosts_are_refused_in_one_sentence(pruning):
    recipe = load("digits", [f"pruning={pruning}"])
    with pytest.raises(BadOption) as met:
        data_parallel._check_pruning(recipe, Ranks(0, 2))
    assert str(met.value).startswith(f"pruning.type {recipe.pruning.type} cannot be trained by 2 processes: ")
    assert "\n" not in str(met.value)


@pytest.mark.parametrize("pruning", OURS)
def test_our_own_rules_are_not(pruning):
    data_parallel._check_pruning(load("digits", [f"pruning={pruning}"]), Ranks(0, 2))


@pytest.mark.parametrize("pruning", [*HOSTS, *OURS])
def test_one_process_trains_them_all(pruning):
    data_parallel.check(load("digits", [f"pruning={pruning}"]), ALONE)


def test_one_gpu_by_its_number_is_refused():
    with pytest.raises(BadOption, match="write 'cuda', and each process takes the GPU of its local rank"):
        data_parallel._check_device(load("digits", ["train.device=cuda:1"]), Ranks(0, 2))
    data_parallel._check_device(load("digits"), Ranks(0, 2))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    data_parallel._check_device(load("digits", ["train.device=cuda"]), Ranks(1, 3, 1))
    with pytest.raises(BadOption, match="has 2 GPUs for at least 3 processes"):
        data_parallel._check_device(load("digits", ["train.device=auto"]), Ranks(2, 3, 2))
