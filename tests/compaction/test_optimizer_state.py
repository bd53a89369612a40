"""Training goes on after a cut as if the optimizer had never known the channels that are gone."""

import copy

import pytest
import torch
import torch_pruning as tp
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.optimizer_state import follow_, following
from snnsl_plugin.compaction.selection import selections
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch_pruning import SpikingPruner
from snnsl_plugin.models.spiking_cnn import spiking_cnn

MAKERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, amsgrad=True),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.9, centered=True),
}


def trained(make) -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor]:
    torch.manual_seed(0)
    net = spiking_cnn((1, 8, 8), 10, channels=[6, 8], hidden=12)
    optimizer = make(net.parameters())
    x = torch.rand(3, 4, 1, 8, 8)
    for _ in range(3):
        step(net, optimizer, x)
    return net, optimizer, x


def step(net, optimizer, x) -> None:
    reset_(net)
    net(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    reset_(net)


def pruner(net, x) -> SpikingPruner:
    importance = tp.importance.MagnitudeImportance(p=2)
    return SpikingPruner(net, x, importance=importance, pruning_ratio=0.5, ignored_layers=[net.fc2])


@pytest.mark.parametrize("name", MAKERS)
def test_momentum_and_moments_are_cut_as_by_hand(name):
    net, optimizer, x = trained(MAKERS[name])
    names = {parameter: word for word, parameter in net.named_parameters()}
    before = {names[parameter]: copy.deepcopy(state) for parameter, state in optimizer.state.items()}
    weights = {word: parameter.detach().clone() for word, parameter in net.named_parameters()}
    with following(net, optimizer):
        pruner(net, x).step()
    # By hand: which rows of the first convolution are left is found by comparing weights, no two of which are alike.
    rows = [int((weights["conv1.weight"] == row).flatten(1).all(1).nonzero()) for row in net.conv1.weight]
    assert len(rows) == 3
    columns = [int((weights["conv2.weight"][:, rows] == row).flatten(1).all(1).nonzero()) for row in net.conv2.weight]
    moments = [word for word, value in before["conv2.weight"].items() if value is not None and value.dim()]
    assert moments
    for word in moments:
        cut = optimizer.state[net.conv2.weight][word]
        assert torch.equal(cut, before["conv2.weight"][word][columns][:, rows])
        assert cut.abs().sum() > 0
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in net.parameters()}
    assert {id(p) for p in optimizer.state} == {id(p) for p in net.parameters()}


@pytest.mark.parametrize("name", MAKERS)
def test_training_goes_on_as_with_an_optimizer_that_is_given_the_cut_state(name):
    net, optimizer, x = trained(MAKERS[name])
    with following(net, optimizer):
        pruner(net, x).step()
    twin = copy.deepcopy(net)
    anew = MAKERS[name](twin.parameters())
    anew.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # which shares its tensors
    forgetful = copy.deepcopy(net)
    fresh = MAKERS[name](forgetful.parameters())
    before = net.conv2.weight.detach().clone()
    for model, each in ((net, optimizer), (twin, anew), (forgetful, fresh)):
        step(model, each, x)
    assert not torch.equal(net.conv2.weight, before)
    assert torch.equal(net.conv2.weight, twin.conv2.weight)
    assert not torch.equal(net.conv2.weight, forgetful.conv2.weight)


def test_the_optimizer_follows_several_cuts_and_keeps_groups_and_schedulers():
    torch.manual_seed(0)
    net = spiking_cnn((1, 8, 8), 10, channels=[8, 8], hidden=12)
    convolutions = [net.conv1.weight, net.conv2.weight]
    others = [p for p in net.parameters() if all(p is not each for each in convolutions)]
    optimizer = torch.optim.SGD([{"params": convolutions, "lr": 0.5}, {"params": others}], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)
    x = torch.rand(3, 4, 1, 8, 8)
    importance = tp.importance.MagnitudeImportance(p=2)
    steps = SpikingPruner(net, x, importance=importance, pruning_ratio=0.5, iterative_steps=2, ignored_layers=[net.fc2])
    for width in (6, 4):
        step(net, optimizer, x)
        with following(net, optimizer):
            steps.step()
        scheduler.step()
        assert optimizer.param_groups[0]["params"][1] is net.conv2.weight
        assert optimizer.state[net.conv2.weight]["momentum_buffer"].shape == (width, width, 3, 3)
    assert [round(group["lr"], 6) for group in optimizer.param_groups] == [0.005, 0.001]


def test_a_body_that_raises_after_a_cut_is_followed_too():
    net, optimizer, x = trained(MAKERS["adam"])
    with pytest.raises(KeyError), following(net, optimizer):
        pruner(net, x).step()
        raise KeyError
    assert optimizer.param_groups[0]["params"][0] is net.conv1.weight
    step(net, optimizer, x)


def test_an_optimizer_whose_memory_is_shaped_otherwise_is_refused_before_anything_is_cut():
    net, optimizer, x = trained(lambda parameters: torch.optim.Adafactor(parameters, lr=0.01))
    before = list(net.parameters())
    told = r"remembers of 'conv1.weight' as 'row_var' is not shaped"
    with pytest.raises(BadOption, match=told), following(net, optimizer):
        pruner(net, x).step()
    assert all(one is other for one, other in zip(before, net.parameters(), strict=True))


def test_a_parameter_made_anew_is_refused_and_the_optimizer_is_as_it_was():
    net, optimizer, _ = trained(MAKERS["sgd"])
    groups, states = list(optimizer.param_groups[0]["params"]), dict(optimizer.state)
    with selections(net) as changes:
        net.fc2.bias = nn.Parameter(torch.zeros(3))
    with pytest.raises(BadOption, match=r"'fc2.bias' went from \(10,\) to \(3,\) by something else"):
        follow_(optimizer, changes)
    assert all(one is other for one, other in zip(groups, optimizer.param_groups[0]["params"], strict=True))
    assert states == dict(optimizer.state)


def test_parameters_of_others_stay_where_they_are():
    net, _, x = trained(MAKERS["sgd"])
    stranger = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([stranger, *net.parameters()], lr=0.1, momentum=0.9)
    with following(net, optimizer):
        pruner(net, x).step()
    assert optimizer.param_groups[0]["params"][0] is stranger
