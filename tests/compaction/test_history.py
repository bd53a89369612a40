"""What has been cut, in indices of the dense model: worked by hand, over several cuts, and where it is not known."""

import json

import pytest
import torch
import torch_pruning as tp
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.history import History
from snnsl_plugin.compaction.selection import selections, take, tensors
from snnsl_plugin.for_torch_pruning import SpikingPruner
from snnsl_plugin.models.spiking_cnn import spiking_cnn

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning")


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


def by_hand() -> nn.Module:
    """Four channels, of which the second and the fourth are the weakest, then two sites each in a linear layer."""
    net = nn.Sequential(nn.Conv1d(1, 4, 1, bias=False), nn.Flatten(), nn.Linear(8, 3))
    net[0].weight.data = torch.tensor([3.0, 1.0, 4.0, 2.0]).view(4, 1, 1)
    net[2].weight.data = torch.arange(24.0).view(3, 8)
    return net


def test_the_history_of_a_cut_worked_by_hand():
    net = by_hand()
    history = History(net)
    with history:
        tp.pruner.BasePruner(
            net,
            torch.rand(1, 1, 2),
            importance=lambda group: net[0].weight.detach().flatten().abs(),
            pruning_ratio=0.5,
            ignored_layers=[net[2]],
        ).step()
    plain = history.plain()
    assert plain["kept"] == {"0.weight": [[0, 2], None, None], "2.weight": [None, [0, 1, 4, 5]]}
    assert plain["cut"] == {"0.weight": [2, 1, 1], "2.weight": [3, 4]}
    assert plain["dense"] == {"0.weight": [4, 1, 1], "2.weight": [3, 8], "2.bias": [3]}
    assert plain["sizes"] == {"0": {"out_channels": [4, 2]}, "2": {"in_features": [8, 4]}}
    assert json.loads(json.dumps(plain)) == plain


def test_several_cuts_add_up_to_indices_of_the_dense_model():
    net, x = tiny(), torch.rand(3, 2, 1, 8, 8)
    dense = {name: tensor.clone() for name, tensor in tensors(net).items()}
    history = History(net)
    steps = pruner(net, x, ("fc2",), iterative_steps=3)
    for _ in range(3):
        with history:
            steps.step()
    plain = history.plain()
    assert plain["cut"].keys() == plain["kept"].keys()
    assert plain["cut"]["conv2.weight"] == [6, 4, 3, 3]
    for name, tensor in tensors(net).items():
        kept = plain["kept"].get(name, [None] * tensor.dim())
        assert torch.equal(take(dense[name], tuple(kept)), tensor), name


def test_a_cut_outside_the_context_is_in_the_shapes_and_kept_is_not_guessed():
    net, x = tiny(), torch.rand(3, 2, 1, 8, 8)
    history = History(net)
    steps = pruner(net, x, ("fc2",), iterative_steps=2)
    steps.step()
    with history:
        steps.step()
    plain = history.plain()
    assert plain["cut"]["conv1.weight"] == [4, 1, 3, 3]
    assert "conv1.weight" not in plain["kept"]


def test_a_cut_that_is_undone_leaves_no_trace_in_the_history():
    net, x = tiny(), torch.rand(3, 2, 1, 8, 8)
    history = History(net)

    class Stop(Exception):
        pass

    def fails(*_: object) -> None:
        raise Stop

    steps = pruner(net, x, ("fc2",))
    with pytest.raises(Stop), history:
        before = dict(net.named_parameters())
        steps.step()
        assert net.conv1.weight is not before["conv1.weight"]
        for name, parameter in before.items():
            owner, _, word = name.rpartition(".")
            setattr(net.get_submodule(owner), word, parameter)
        for name, module in net.named_modules():
            for word, value in history._sizes[name].items():
                setattr(module, word, type(getattr(module, word))(value) if isinstance(value, list) else value)
        for norm in ("norm1", "norm2", "norm3"):
            own = net.get_submodule(norm)
            own.running_mean, own.running_var = torch.zeros(own.weight.shape), torch.ones(own.weight.shape)
        fails()
    assert history.plain()["cut"] == history.plain()["kept"] == history.plain()["sizes"] == {}


def test_a_tensor_made_otherwise_has_no_known_entries():
    net = by_hand()
    with selections(net) as changed:
        net[2].bias = nn.Parameter(torch.zeros(2))
        net[0].weight = nn.Parameter(
            net[0].weight.index_select(0, torch.tensor([2, 0])).index_select(0, torch.tensor([1]))
        )
    assert changed["2.bias"].kept is None
    assert changed["0.weight"].kept == ([0], None, None)
    assert set(changed) == {"2.bias", "0.weight"}


def test_entries_of_another_tensor_are_not_taken_for_its_own():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with selections(net) as changed:
        net[1].bias = nn.Parameter(net[0].bias.index_select(0, torch.tensor([1])))
    assert changed["1.bias"].kept is None
