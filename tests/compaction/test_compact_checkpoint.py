"""Cut networks of every kind, saved and made again bit for bit; damaged and foreign files are refused."""

import json
import subprocess
import sys

import pytest
import torch
import torch_pruning as tp
from compaction.families import FAMILIES, Family
from safetensors.torch import load_file, save_file
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.checkpoint import load_compact, save_compact
from snnsl_plugin.compaction.history import History
from snnsl_plugin.compaction.selection import tensors
from snnsl_plugin.errors import BadCheckpoint, BadOption
from snnsl_plugin.for_torch_pruning import SpikingPruner
from snnsl_plugin.models.spiking_cnn import spiking_cnn

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning")
FAST = (
    "grouped",
    "threshold_attribute",
    "depthwise",
    "threshold_and_tau",
    "threshold_buffer",
    "own_neuron",
    "concat",
    "tdbn",
)
FAST += ("psn_as_many_channels_as_steps", "seq_to_ann_container", "conv_flatten", "spikformer", "loop_and_sum")


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return spiking_cnn((1, 8, 8), 10, channels=[8, 12], hidden=16)


def pruner(net: nn.Module, x: torch.Tensor, keep: tuple[str, ...], **options) -> SpikingPruner:
    ignored = [net.get_submodule(name) for name in keep]
    importance = tp.importance.MagnitudeImportance(p=2)
    return SpikingPruner(net, x, importance=importance, pruning_ratio=0.5, ignored_layers=ignored, **options)


def outputs(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    reset_(net)
    with torch.no_grad():
        out = net.eval()(x)
    reset_(net)
    return out


def cut_and_saved(folder) -> tuple[nn.Module, torch.Tensor]:
    net, x = tiny(), torch.rand(3, 2, 1, 8, 8)
    history = History(net)
    with history:
        pruner(net, x, ("fc2",)).step()
    save_compact(folder / "compact.safetensors", net, history)
    return net, x


def saved_and_loaded(family: Family, mode: str, path) -> None:
    net, x = family.model(mode), family.example(mode)
    history = History(net)
    with history:
        pruner(net, x, family.keep, neuron_types=family.neuron_types).step()
    assert history.plain()["cut"]
    save_compact(path, net, history)
    again = load_compact(path, family.model(mode, seed=1))
    assert torch.equal(outputs(net, x), outputs(again, x))
    assert {name: tensor.shape for name, tensor in tensors(again).items()} == {
        name: tensor.shape for name, tensor in tensors(net).items()
    }
    assert history.plain(again) == history.plain(net)  # modules know their new sizes as well
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name))


@pytest.mark.parametrize("name", FAST)
def test_a_cut_network_is_made_again_bit_for_bit(name, tmp_path):
    family = FAMILIES[name]
    saved_and_loaded(family, family.modes[-1], tmp_path / "compact.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [(name, mode) for name, each in FAMILIES.items() for mode in each.modes])
def test_every_kind_of_network_is_made_again_bit_for_bit(name, mode, tmp_path):
    saved_and_loaded(FAMILIES[name], mode, tmp_path / "compact.safetensors")


def test_outputs_are_bit_equal_in_a_fresh_process(tmp_path):
    net, x = cut_and_saved(tmp_path)
    save_file({"x": x, "out": outputs(net, x)}, tmp_path / "seen.safetensors")
    code = f"""
import sys, torch
torch.set_num_threads(1)
from safetensors.torch import load_file
from snnsl_plugin.compaction.checkpoint import load_compact
from snnsl_plugin.models.spiking_cnn import spiking_cnn
seen = load_file({str(tmp_path / "seen.safetensors")!r})
net = load_compact({str(tmp_path / "compact.safetensors")!r}, spiking_cnn((1, 8, 8), 10, channels=[8, 12], hidden=16))
with torch.no_grad():
    assert torch.equal(net.eval()(seen["x"]), seen["out"])
assert seen["out"].std() > 0
assert "torch_pruning" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_given_model_is_left_alone_and_frozen_and_tied_tensors_stay_so(tmp_path):
    cut_and_saved(tmp_path)
    fresh = tiny(seed=5)
    fresh.conv1.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in tensors(fresh).items()}
    again = load_compact(tmp_path / "compact.safetensors", fresh)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors(fresh).items())
    assert not again.conv1.weight.requires_grad
    assert again.conv2.weight.requires_grad

    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    save_compact(tmp_path / "tied.safetensors", tied, History(tied))
    twin = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    twin[1].weight = twin[0].weight
    again = load_compact(tmp_path / "tied.safetensors", twin)
    assert again[0].weight is again[1].weight
    assert torch.equal(again[0].weight, tied[0].weight)


def test_double_precision_and_memories_survive(tmp_path):
    net = tiny().double()
    history = History(net)
    x = torch.rand(3, 2, 1, 8, 8, dtype=torch.float64)
    with history:
        pruner(net, x, ("fc2",)).step()
    net(x)  # a potential with a graph is left over
    save_compact(tmp_path / "compact.safetensors", net, history)
    again = load_compact(tmp_path / "compact.safetensors", tiny())
    assert again.conv1.weight.dtype == torch.float64
    assert torch.equal(outputs(again, x), outputs(net, x))


def damage(path, kind: str) -> None:
    state = load_file(path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "without a history":
        save_file(state, path)
    elif kind == "of another format":
        save_file(state, path, metadata={"snnsl_compact": json.dumps({"format": 99})})
    elif kind == "not JSON":
        save_file(state, path, metadata={"snnsl_compact": "{"})
    else:
        plain = json.loads(path.with_suffix(".json").read_text())
        plain["cut"]["conv1.weight"] = [5, 1, 3, 3]
        save_file(state, path, metadata={"snnsl_compact": json.dumps(plain)})


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("truncated", "cannot be read"),
        ("empty", "cannot be read"),
        ("missing", "cannot be read"),
        ("without a history", "holds tensors but no history"),
        ("of another format", "is of format 99"),
        ("not JSON", "is not JSON"),
        ("with a wrong shape", r"says 'conv1.weight' is \(5, 1, 3, 3\), it holds shape \(4, 1, 3, 3\)"),
    ],
)
def test_a_damaged_file_is_refused(kind, told, tmp_path):
    cut_and_saved(tmp_path)
    damage(tmp_path / "compact.safetensors", kind)
    with pytest.raises(BadCheckpoint, match=told):
        load_compact(tmp_path / "compact.safetensors", tiny())


def test_a_network_of_another_architecture_is_refused_by_the_name_of_a_tensor(tmp_path):
    cut_and_saved(tmp_path)
    path = tmp_path / "compact.safetensors"
    with pytest.raises(BadCheckpoint, match=r"'conv1.weight' has shape \(6, 1, 3, 3\), in the dense Sequential"):
        load_compact(path, spiking_cnn((1, 8, 8), 10, channels=[6, 12], hidden=16))
    with pytest.raises(BadCheckpoint, match="only the model has '"):
        load_compact(path, spiking_cnn((1, 8, 8), 10, channels=[8, 12, 12], hidden=16))
    other = tiny()
    other.conv2.groups = 2
    history = History(net := tiny())
    net.conv2.groups = 4
    save_compact(path, net, history)
    with pytest.raises(BadCheckpoint, match="'conv2' has groups 2, in the dense Sequential that was cut it had 1"):
        load_compact(path, other)


def test_a_history_of_another_model_or_another_ending_is_refused(tmp_path):
    net = tiny()
    with pytest.raises(BadOption, match="saved as a .safetensors file"):
        save_compact(tmp_path / "compact.pt", net, History(net))
    with pytest.raises(BadOption, match="is in only one of the two"):
        save_compact(tmp_path / "compact.safetensors", net, History(nn.Linear(2, 3)))
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    net, x = cut_and_saved(tmp_path)
    path = tmp_path / "compact.safetensors"
    before = path.read_bytes()

    def fails_halfway(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("snnsl_plugin.training.checkpoint.save_file", fails_halfway)
    with pytest.raises(OSError, match="disk full"):
        save_compact(path, net, History(net))
    assert path.read_bytes() == before
    assert torch.equal(outputs(load_compact(path, tiny()), x), outputs(net, x))
