"""Dense operations, counted a second time from shapes, and several networks side by side."""

import pytest
import torch
import torch_pruning as tp
from compaction.families import FAMILIES
from networks import batch, conv_net
from spikingjelly.activation_based import functional
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch_pruning import SpikingPruner
from snnsl_plugin.metrics.cost import costs, dense_macs, table
from snnsl_plugin.metrics.measure import measure

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected:UserWarning")


def by_hooks(net: nn.Module, x: torch.Tensor) -> float:
    """Every output of a convolution or linear layer costs as many operations as it has inputs."""
    total = 0

    def count(module, _, out):
        nonlocal total
        total += out.numel() * module.weight[0].numel()

    handles = [
        module.register_forward_hook(count)
        for module in net.modules()
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)
    ]
    reset_(net)
    with torch.no_grad():
        net.eval()(x)
    reset_(net)
    for handle in handles:
        handle.remove()
    return total / x.shape[1]


class OverTime(nn.Module):
    """A network of single steps, called for each."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.net(step) for step in x])


def cut(net: nn.Module, x: torch.Tensor) -> nn.Module:
    last = [module for module in net.modules() if isinstance(module, nn.Linear)][-1]
    importance = tp.importance.MagnitudeImportance(p=2)
    SpikingPruner(net, x, importance=importance, pruning_ratio=0.5, ignored_layers=[last]).step()
    return net


def test_operations_worked_by_hand():
    # 16 sites of 6 channels of 9 inputs; 4 of 8 of 54; 5 outputs of 32 inputs: in each of 3 steps, whatever the batch.
    by_hand = 3 * (16 * 6 * 9 + 4 * 8 * 54 + 5 * 32)
    for samples in (1, 8):
        assert dense_macs(conv_net(), batch(samples=samples)[0]) == by_hand


@pytest.mark.parametrize("name", ["conv_gap", "grouped", "depthwise", "seq_to_ann_container", "flatten_time_and_batch"])
def test_operations_equal_a_count_by_hooks_whatever_holds_the_layers(name):
    family = FAMILIES[name]
    net, x = family.model("m"), family.example("m", samples=3)
    assert dense_macs(net, x) == by_hooks(net, x)


def test_step_modes_make_no_difference():
    family = FAMILIES["conv_gap"]
    x = family.example("m")
    assert dense_macs(OverTime(family.model("s")), x) == dense_macs(family.model("m"), x)


def test_matrix_products_of_attention_count_too():
    net, x = FAMILIES["spikformer"].model("m"), FAMILIES["spikformer"].example("m")
    # one block, two heads of 16 channels, 16 tokens: q k^T and its product with v, in each step
    assert dense_macs(net, x) == by_hooks(net, x) + len(x) * 2 * (2 * 16 * 16 * 16)


def test_counting_leaves_modes_and_memories_alone():
    net, x = conv_net(), batch()[0]
    net.train()
    net[1].eval()
    dense_macs(net, x)
    assert [module.training for module in net] == [True, False, True, True, True, True, True, True]
    assert net[2].v == 0.0


def test_nothing_to_count_is_an_error():
    with pytest.raises(BadOption, match="Identity runs no convolution"):
        dense_macs(nn.Identity(), torch.rand(3, 1, 2))
    with pytest.raises(BadOption, match="at least one sample"):
        dense_macs(conv_net(), torch.rand(3, 0, 1, 4, 4))


def test_dense_and_cut_stand_side_by_side_and_none_for_the_other():
    data = [batch(0), batch(1)]
    dense, small = conv_net(), cut(conv_net(), data[0][0])
    found = costs({"dense": dense, "cut": small}, data, repeats=3)
    # half of 6 and of 8 channels, and what reads and norms them
    assert found["cut"].parameters == (3 * 9 + 2 * 3) + (4 * 3 * 9 + 4) + (5 * 16 + 5)
    assert found["dense"].dense_macs_per_sample == 3 * (16 * 6 * 9 + 4 * 8 * 54 + 5 * 32)
    assert found["cut"].dense_macs_per_sample == 3 * (16 * 3 * 9 + 4 * 4 * 27 + 5 * 16)
    for name, net in (("dense", dense), ("cut", small)):
        measured = measure(net, data)
        assert found[name].synops_per_sample == measured.synops_per_sample
        assert found[name].macs_per_sample == measured.macs_per_sample
        assert found[name].energy_pj_per_sample == measured.energy_pj_per_sample["total"]
        assert found[name].accuracy == measured.accuracy
        assert found[name].latency_ms > 0
    shares = [
        found["cut"].dense_macs_per_sample / found["dense"].dense_macs_per_sample,
        found["cut"].synops_per_sample / found["dense"].synops_per_sample,
    ]
    assert abs(shares[0] - shares[1]) > 0.01
    lines = table(found).splitlines()
    assert len(lines) == 8
    assert lines[0].split() == ["dense", "cut"]
    assert lines[1].split() == ["parameters", "671", "230", "(x0.343)"]
    assert lines[2].split()[-3:] == ["8,256", f"{found['cut'].dense_macs_per_sample:,}", f"(x{shares[0]:.3g})"]


def test_nothing_to_measure_is_an_error():
    with pytest.raises(BadOption, match="0 models and 1 batches"):
        costs({}, [batch()])
    with pytest.raises(BadOption, match="1 models and 0 batches"):
        costs({"net": conv_net()}, [])
    with pytest.raises(BadOption, match="repeats is 0"):
        costs({"net": conv_net()}, [batch()], repeats=0)


def test_torch_prunings_own_counter_is_why_there_is_one_here():
    net = conv_net()
    functional.set_step_mode(net, "s")
    assert tp.utils.count_ops_and_params(net, batch()[0][0])[0] == 0
