import copy

import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn
from torch.optim.swa_utils import update_bn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.recalibration import recalibrate_
from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets.digits import digits
from snnsl_plugin.datasets.encoders.direct import direct
from snnsl_plugin.errors import BadData, BadOption, MissingStatistic, NothingMatched
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.losses import cross_entropy

STEPS = 3


def net_with(norm, *, drop=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1, step_mode="m"),
        norm(),
        neuron.LIFNode(v_threshold=0.3, step_mode="m"),
        layer.Dropout(drop, step_mode="m"),
        layer.Flatten(step_mode="m"),
        nn.Linear(96, 4),
        layer.BatchNorm1d(4, step_mode="m"),
    )


NORMS = {
    "batch norm": lambda: layer.BatchNorm2d(6, step_mode="m"),
    "tdBN": lambda: layer.ThresholdDependentBatchNorm2d(1.0, 0.3, 6),
    "TEBN": lambda: layer.TemporalEffectiveBatchNorm2d(STEPS, 6),
    "BNTT": lambda: layer.BatchNormThroughTime2d(STEPS, 6, step_mode="m"),
    "in a container": lambda: layer.SeqToANNContainer(nn.BatchNorm2d(6)),
}


def batches(count=4):
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(STEPS, 5 + i, 1, 4, 4, generator=generator) * 3 for i in range(count)]


def fresh(data, net):
    """Batches for `update_bn`, which does not reset neurons."""
    for x in data:
        reset_(net)
        yield x


def statistics(net):
    return {
        name: value.clone() for name, value in net.state_dict().items() if "running" in name or "num_batches" in name
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", NORMS)
def test_statistics_are_those_of_update_bn(name):
    net = net_with(NORMS[name])
    oracle = copy.deepcopy(net)
    update_bn(fresh(batches(), oracle), oracle)
    before = statistics(net)
    names = recalibrate_(net, batches())
    assert same(statistics(net), statistics(oracle))
    assert not same(statistics(net), before)
    assert names == [each.removesuffix(".running_mean") for each in before if each.endswith("running_mean")]


def test_by_hand_each_batch_counts_the_same():
    net = nn.Sequential(nn.BatchNorm1d(1))
    recalibrate_(net, [(torch.tensor([[0.0], [2.0]]), "labels"), [torch.tensor([[4.0], [6.0], [8.0], [10.0]])]])
    assert net[0].running_mean.tolist() == [4.0]  # of 1 and 7
    assert net[0].running_var.tolist() == pytest.approx([(2.0 + 20 / 3) / 2])


def test_neurons_start_at_rest_in_every_batch_and_are_at_rest_afterwards():
    once, twice = net_with(NORMS["batch norm"]), net_with(NORMS["batch norm"])
    x = batches(1)[0]
    once(x)  # leaves a potential behind
    recalibrate_(once, [x])
    recalibrate_(twice, [x, x])
    torch.testing.assert_close(once[6].running_mean, twice[6].running_mean)
    assert isinstance(once[2].v, float)


def test_dropout_leaves_all_as_it_is_and_modes_momenta_hooks_and_weights_are_restored():
    net, without = net_with(NORMS["batch norm"], drop=0.5), net_with(NORMS["batch norm"])
    net.train()
    net[1].eval()
    net[1].momentum = 0.3
    weights = {name: value.clone() for name, value in net.named_parameters()}
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    recalibrate_(net, batches())
    recalibrate_(without, batches())
    assert same(statistics(net), statistics(without))
    assert [module.training for module in net] == [True, False, True, True, True, True, True]
    assert (net[1].momentum, net[6].momentum) == (0.3, 0.1)
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())
    assert all(value.grad is None for value in net.parameters())
    assert len(calls) == len(list(batches()))  # hooks may be part of what the model computes


def test_a_model_may_be_called_in_its_own_way():
    net, other = net_with(NORMS["batch norm"]), net_with(NORMS["batch norm"])
    recalibrate_(net, [x.transpose(0, 1) for x in batches()], forward=lambda model, x: model(x.transpose(0, 1)))
    recalibrate_(other, batches())
    assert same(statistics(net), statistics(other))


def failing():
    yield from batches(2)
    raise OSError("the disk is gone")


@pytest.mark.parametrize(
    ("data", "error", "told"),
    [
        ([], MissingStatistic, "batch norm '1' saw no batch"),
        ([torch.full((STEPS, 2, 1, 4, 4), float("nan"))], BadData, "batch norm '1' over these batches are not finite"),
        (failing(), OSError, "the disk is gone"),
    ],
)
def test_a_failure_changes_nothing(data, error, told):
    net = net_with(NORMS["batch norm"]).train()
    net(batches(1)[0])
    before = statistics(net)
    with pytest.raises(error, match=told):
        recalibrate_(net, data)
    assert same(before, statistics(net))
    assert all(module.training for module in net.modules())
    assert net[1].momentum == 0.1


def test_a_model_without_running_statistics_is_an_error():
    with pytest.raises(NothingMatched, match="Sequential has no batch norm with running statistics"):
        recalibrate_(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)), [torch.ones(2, 2)])


def accuracy(net, loader):
    net.eval()
    right = total = 0
    with torch.no_grad():
        for x, y in loader:
            reset_(net)
            right += int((net(x).mean(0).argmax(1) == y).sum())
            total += len(y)
    return right / total


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_on_digits_it_gives_back_much_of_what_a_cut_of_half_the_channels_took():
    import torch_pruning as tp

    from snnsl_plugin.for_torch_pruning.pruners import SpikingPruner

    torch.manual_seed(0)
    splits = digits()
    train = Loader(splits.train, 64, shuffle=True, encoder=direct(T=4))
    test = Loader(splits.test, 180, encoder=direct(T=4))
    net = spiking_cnn((1, 8, 8), 10, channels=[32, 64], hidden=128)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(5):
        net.train()
        for x, y in train:
            reset_(net)
            optimizer.zero_grad()
            cross_entropy(net(x), y).backward()
            optimizer.step()
    dense = accuracy(net, test)
    x = next(iter(train))[0]
    SpikingPruner(
        net, x[:, :2], tp.importance.GroupMagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=[net.fc2]
    ).step()
    cut = accuracy(net, test)
    recalibrate_(net, train)
    again = accuracy(net, test)
    print(f"dense {dense:.3f}, cut {cut:.3f}, recalibrated {again:.3f}")
    assert dense > 0.95
    assert again > cut + 0.1


def test_hooks_that_are_part_of_the_computation_count() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    net[0].register_forward_hook(lambda module, inputs, output: output * 3)
    x = torch.rand(64, 2)
    recalibrate_(net, [x])
    assert net[1].running_var.allclose((net[0](x)).var(0))


def test_a_batch_of_one_is_a_sentence() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3))
    with pytest.raises(BadOption, match="one value a channel"):
        recalibrate_(net, [torch.rand(1, 3)])
