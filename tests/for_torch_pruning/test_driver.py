"""Torch-Pruning's pruners in a loop of one's own: when they cut, what the optimizer keeps, what a penalty adds."""

import pytest
import torch
from networks import batch, conv_net
from torch import nn
from torch.nn import functional as F

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadCheckpoint, NothingMatched, UnknownName
from snnsl_plugin.for_torch_pruning.builtin import importance, measured, ratio
from snnsl_plugin.for_torch_pruning.driven_cuts import DrivenCuts
from snnsl_plugin.for_torch_pruning.driven_dynamic import DrivenDynamic
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.timetable import Timetable

STEPS = 20


def drawn(number):
    return [batch(seed) for seed in range(number)]


def driven(net, optimizer, name="base", *, scores="magnitude", start=0, until=10, every=1, **options):
    given = {
        "example": batch()[0], "draw": drawn, "layers": ["*"], "exclude": None, "recalibrate": False, "batches": 2,
        "scores": scores, "scores_options": {}, "channels": 0.5, "when": Timetable(start, until, every),
        "total_steps": STEPS,
    }  # fmt: skip
    if name == "spiking_dynamic":
        return DrivenDynamic(net, optimizer, **given | options)
    return DrivenCuts(net, optimizer, name, **given | options)


def one_step(net, optimizer, pruner, number, *, applied=True):
    x, y = batch(number)
    reset_(net)
    optimizer.zero_grad()
    cross_entropy(net(x), y).backward()
    pruner.regularize_()
    if applied:
        optimizer.step()
    return pruner.step(applied=applied)


def train(net, optimizer, pruner, steps, first=1):
    events = [one_step(net, optimizer, pruner, number) for number in range(first, first + steps)]
    return [event for event in events if event]


def test_three_cuts_lie_at_equal_distances_and_are_told_in_weights():
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = driven(net, optimizer, start=1, until=10, iterative_steps=3)
    events = train(net, optimizer, pruner, STEPS)
    assert [event.step for event in events] == [4, 7, 10]
    # 6 and 8 channels: int(6 x 5/6), int(8 x 5/6) are 5 and 6; then 4 and 5; then 3 and 4. A map has 4 sites.
    kept = [(5 * 9, 6 * 5 * 9, 5 * 24), (4 * 9, 5 * 4 * 9, 5 * 20), (3 * 9, 4 * 3 * 9, 5 * 16)]
    dense = (6 * 9, 8 * 6 * 9, 5 * 32)
    for event, counts in zip(events, kept, strict=True):
        assert list(event.layers.values()) == [count / whole for count, whole in zip(counts, dense, strict=True)]
        assert event.density == sum(counts) / sum(dense)
        assert event.connections <= sum(counts)
    assert [sum(event.dropped.values()) for event in events] == [
        sum(before) - sum(after) for before, after in zip((dense, *kept), kept, strict=False)
    ]
    assert pruner.until == 10
    assert list(pruner.requested.values()) == list(kept[-1])
    assert [pruner.planned_density(step) for step in (0, 3, 4, 9, 20)] == [
        1.0, 1.0, sum(kept[0]) / sum(dense), sum(kept[1]) / sum(dense), sum(kept[2]) / sum(dense),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["base", "spiking_dynamic"])
def test_a_cut_waits_for_a_step_that_the_optimizer_takes(name):
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = driven(net, optimizer, name, until=4, every=4)
    told = [one_step(net, optimizer, pruner, number, applied=number not in (4, 5)) for number in range(1, 8)]
    assert [event.step for event in told if event] == [6]
    assert pruner.until == 6
    assert net[0].out_channels == 3


@pytest.mark.parametrize("name", ["base", "spiking_dynamic"])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_optimizer_goes_on_with_what_it_knew_of_the_channels_that_are_left(name, kind):
    net = conv_net()
    if kind == "sgd":
        optimizer, word = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), "momentum_buffer"
    else:
        optimizer, word = torch.optim.Adam(net.parameters(), lr=0.01), "exp_avg"
    pruner = driven(net, optimizer, name, until=5, every=5)
    train(net, optimizer, pruner, 4)
    held = {}

    class Noting:
        """The optimizer's memory after its last step on the dense network."""

        def step(self, *, applied=True):
            held.update({key: optimizer.state[p][word].clone() for key, p in net.named_parameters()})
            return pruner.step(applied=applied)

        regularize_ = pruner.regularize_

    assert one_step(net, optimizer, Noting(), 5)
    kept = pruner.history.plain()["kept"]
    assert kept["4.weight"][0] is not None
    assert kept["4.weight"][1] is not None
    for key, parameter in net.named_parameters():
        expected = held[key]
        for axis, indices in enumerate(kept.get(key, ())):
            if indices is not None:
                expected = expected.index_select(axis, torch.tensor(indices))
        assert torch.equal(optimizer.state[parameter][word], expected), key
    before = net[0].weight.detach().clone()
    train(net, optimizer, pruner, 2, first=6)
    assert not torch.equal(net[0].weight, before)


def test_network_slimming_adds_the_sign_of_each_scale_until_the_cut():
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    pruner = driven(net, optimizer, "bn_scale", scores="magnitude", start=1, until=3, options={"reg": 0.25})
    with torch.no_grad():
        net[1].weight[:2] = torch.tensor([-1.0, 0.5])
    gradients = []
    for _ in range(4):
        x, y = batch(7)
        reset_(net)
        optimizer.zero_grad()
        cross_entropy(net(x), y).backward()
        plain = net[1].weight.grad.clone()
        pruner.regularize_()
        gradients.append(net[1].weight.grad - plain)
        pruner.step()
    signs = torch.tensor([-1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    assert not gradients[0].any(), "it begins after the start"
    for added in gradients[1:3]:
        assert torch.allclose(added, 0.25 * signs, atol=1e-6)
    assert not gradients[3].any(), "nothing is left to choose"


def test_a_growing_penalty_grows_every_so_often():
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    pruner = driven(net, optimizer, "growing_reg", until=9, every=2, options={"reg": 0.1, "delta_reg": 0.5})
    largest = []
    for number in range(1, 7):
        one_step(net, optimizer, pruner, number)
        largest.append(max(float(each.max()) for each in pruner._pruner.group_reg.values()))
    assert largest == pytest.approx([0.1, 0.1, 0.6, 0.6, 1.1, 1.1])


def test_the_hessian_is_that_of_single_samples_and_leaves_nothing_behind():
    net = conv_net()
    x, y = batch(0, samples=3)
    squares = torch.zeros_like(net[7].weight)
    net.eval()
    for number in range(3):
        reset_(net)
        loss = F.cross_entropy(net(x[:, number : number + 1]).mean(0), y[number : number + 1])
        squares += torch.autograd.grad(loss, net[7].weight)[0].square() / 3
    net.train()
    statistics = net[1].running_mean.clone()
    with measured("hessian", importance("hessian"), net, lambda: [(x, y), batch(1)]):
        assert torch.allclose(net[7].weight.grad, squares, atol=1e-7)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert net.training
    assert torch.equal(net[1].running_mean, statistics)


def test_taylor_takes_the_mean_gradient_of_all_batches():
    net = conv_net()
    net.eval()
    mean = torch.zeros_like(net[0].weight)
    for x, y in drawn(2):
        reset_(net)
        mean += torch.autograd.grad(F.cross_entropy(net(x).mean(0), y), net[0].weight)[0] / 2
    with measured("taylor", importance("taylor"), net, lambda: drawn(2)):
        assert torch.allclose(net[0].weight.grad, mean, atol=1e-7)


def test_statistics_are_estimated_anew_after_a_cut_where_asked():
    means = []
    for recalibrate in (False, True):
        net = conv_net()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        pruner = driven(net, optimizer, until=2, recalibrate=recalibrate)
        train(net, optimizer, pruner, 2)
        means.append(net[1].running_mean.clone())
    assert not torch.equal(*means)
    # The first convolution reads the pictures themselves.
    with torch.no_grad():
        seen = torch.stack([net[0](x).transpose(1, 2).transpose(0, 1).flatten(1).mean(1) for x, _ in drawn(2)])
    assert torch.allclose(means[1], seen.mean(0), atol=1e-5)


def test_a_network_without_batch_norm_is_cut_as_well():
    net = conv_net()
    net[1] = nn.Identity()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = driven(net, optimizer, until=2, recalibrate=True)
    train(net, optimizer, pruner, 3)
    assert net[0].out_channels == 3


@pytest.mark.parametrize("name", ["base", "spiking_dynamic"])
def test_masked_or_cut_the_density_is_that_of_the_weights_at_work(name):
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = (
        driven(net, optimizer, name, scores="random", until=8, every=2, iterative_steps=4)
        if name == "base"
        else (driven(net, optimizer, name, scores="random", until=8, every=2))
    )
    for number in range(1, 10):
        one_step(net, optimizer, pruner, number)
        alive = [int((layer.weight.flatten(1) != 0).any(1).sum()) for layer in (net[0], net[4])]
        expected = 9 * alive[0] + 9 * alive[0] * alive[1] + 5 * 4 * alive[1]
        assert sum(pruner.kept.values()) == expected
        assert pruner.density == pytest.approx(expected / sum(pruner.dense.values()))
    assert (net[0].out_channels, net[4].out_channels) == (3, 4)


@pytest.mark.parametrize("name", ["base", "growing_reg", "spiking_dynamic"])
def test_a_state_of_another_pruner_is_refused(name):
    nets = [conv_net(), conv_net()]
    one, two = (
        driven(net, torch.optim.SGD(net.parameters(), lr=0.1), name, until=until, every=2)
        for net, until in zip(nets, (8, 10), strict=True)
    )
    with pytest.raises(BadCheckpoint, match="this pruner state is of another pruner"):
        two.load_state_dict(one.state_dict())


def test_a_state_of_another_network_is_refused():
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = driven(net, optimizer, until=2)
    train(net, optimizer, pruner, 2)
    state = pruner.state_dict()
    state["roots"][0][0][0] = "nowhere"
    other = conv_net()
    with pytest.raises(BadCheckpoint, match="does not fit the model"):
        driven(other, torch.optim.SGD(other.parameters(), lr=0.1), until=2).load_state_dict(state)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_share_keeps_what_it_says_of_any_number_of_channels(kept):
    for channels in range(1, 200):
        exact = channels * round(kept * 10) // 10
        assert int(channels * (1 - ratio(kept))) == exact


def test_unknown_names_and_nothing_to_cut_are_said():
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(UnknownName, match="unknown importance 'magnitud'; did you mean 'magnitude'"):
        importance("magnitud")
    with pytest.raises(UnknownName, match="unknown pruner of Torch-Pruning 'bas'; did you mean 'base'"):
        driven(net, optimizer, "bas")


class Sum(nn.Module):
    """Two layers whose channels only go together."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.last = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x):
        return self.last(self.one(x) + self.two(x))


def test_a_layer_that_stays_keeps_those_that_only_go_with_it():
    net = Sum()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(NothingMatched, match="no group of channels may go: every one has a layer that keeps"):
        driven(net, optimizer, layers=["one"], example=torch.rand(2, 3, 4))
