"""The pruners of torch.nn.utils.prune in a training: the masks that torch makes, exact counts, nothing disturbed."""

import copy
from functools import partial

import pytest
import torch
from networks import batch, conv_net
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadCheckpoint, BadOption, NothingMatched
from snnsl_plugin.for_torch.hosting import hosted
from snnsl_plugin.for_torch.randomness import own_random_numbers
from snnsl_plugin.testing import check_pruner
from snnsl_plugin.training.seeds import derived

STEPS = 12
NAMES = ["global_l1", "l1", "ln_structured", "random", "random_structured"]
CHANNELS = ("ln_structured", "random_structured")
SIZES = {"0": 54, "4": 432, "7": 160}


def at_work(net, name, *, seed=0, optimizer=None, density=0.3, **options):
    make = partial(registry.get("pruners", name), **{"density": density, "start": "5it"} | options)
    optimizer = optimizer or torch.optim.Adam(net.parameters(), lr=0.02)
    pruner = hosted(
        make, net, optimizer, name=f"torch.{name}", seed=seed, total_steps=STEPS, steps_per_epoch=4,
        example=batch()[0], draw=lambda number: [batch(each) for each in range(number)], density=density,
    )  # fmt: skip
    return optimizer, pruner


def train(net, optimizer, pruner, steps, first=0):
    events = []
    for number in range(first, first + steps):
        one_step(net, optimizer, number)
        events.append(pruner.step())
        optimizer.zero_grad()
    return [event for event in events if event]


def one_step(net, optimizer, number):
    x, y = batch(number)
    reset_(net)
    F.cross_entropy(net(x).mean(0), y).backward()
    optimizer.step()


def by_hand(net, name, amounts):
    """What a user of torch writes, layer by layer; amounts are weights or channels that go."""
    layers = [net.get_submodule(layer) for layer in amounts]
    for module, amount in zip(layers, amounts.values(), strict=True):
        if name == "l1":
            prune.l1_unstructured(module, "weight", amount=amount)
        elif name == "random":
            prune.random_unstructured(module, "weight", amount=amount)
        elif name == "random_structured":
            prune.random_structured(module, "weight", amount=amount, dim=0)
        elif name == "ln_structured":
            prune.ln_structured(module, "weight", amount=amount, n=2, dim=0)
    if name == "global_l1":
        pairs = [(module, "weight") for module in layers]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=sum(amounts.values()))
    return {f"{layer}.weight": net.get_submodule(layer).weight_mask.bool() for layer in amounts}


# 0.3 of 54, 432 and 160 weights are 16.2, 129.6 and 48; of 6 and 8 channels 1.8 and 2.4; of all 646 weights 193.8.
GO = {
    "l1": {"0": 54 - 16, "4": 432 - 130, "7": 160 - 48},
    "random": {"0": 54 - 16, "4": 432 - 130, "7": 160 - 48},
    "global_l1": {"0": 646 - 194, "4": 0, "7": 0},
    "ln_structured": {"0": 6 - 2, "4": 8 - 2},
    "random_structured": {"0": 6 - 2, "4": 8 - 2},
}


def test_the_smallest_weights_go_and_nothing_before_its_time():
    net = nn.Sequential(nn.Linear(4, 2, bias=False))
    net[0].weight.data = torch.tensor([[0.1, -0.9, 0.3, -0.2], [0.5, 0.4, -0.05, 0.8]])
    make = partial(registry.get("pruners", "l1"), model=net, total_steps=4, steps_per_epoch=2, density=0.5)
    pruner = make(start="2it")
    pruner.step()
    assert not prune.is_pruned(net)
    pruner.step()
    assert net[0].weight_mask.tolist() == [[0, 1, 0, 0], [1, 1, 0, 1]]
    pruner.finish()
    assert isinstance(net[0].weight, nn.Parameter)
    assert net[0].weight.tolist()[1] == pytest.approx([0.5, 0.4, 0.0, 0.8])


def test_the_names_are_those_of_the_folder():
    assert sorted(set(registry.names("pruners")) - registry.joined("pruners")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_masks_are_those_that_torch_makes_by_hand(name):
    net = conv_net()
    optimizer, pruner = at_work(net, name, seed=3)
    train(net, optimizer, pruner, 4)
    assert pruner.density == 1.0
    one_step(net, optimizer, 4)
    reset_(net)
    twin = copy.deepcopy(net)
    event = pruner.step()
    torch.manual_seed(derived(3, "torch.nn.utils.prune"))
    expected = by_hand(twin, name, GO[name])
    assert {key: mask for key, mask in pruner.masks.items() if not mask.all()}.keys() == expected.keys()
    assert all(torch.equal(pruner.masks[key], mask) for key, mask in expected.items())

    left = {key: int(mask.sum()) for key, mask in pruner.masks.items()}
    if name != "global_l1":
        assert pruner.requested == {layer: left[f"{layer}.weight"] for layer in GO[name]}
    dense = SIZES["7"] if name in CHANNELS else 0
    units = 2 * 9 + 2 * 54 if name in CHANNELS else 194
    assert sum(left.values()) == dense + units
    assert event.step == 5
    assert sum(event.dropped.values()) == 646 - dense - units
    assert pruner.density == event.density == sum(left.values()) / 646
    assert pruner.planned_density(4) == 1.0
    rounding = 0.5 / 646 if name == "global_l1" else 1e-12
    assert pruner.planned_density(5) == pytest.approx(pruner.density, abs=rounding)
    assert pruner.target == pytest.approx(1 - 0.7 * (646 - dense) / 646)


def test_torch_would_round_a_share_another_way():
    # Half of 45 is 22.5: 22 stay where that is what is asked for, and 22 go where that is.
    lone = nn.Linear(45, 1, bias=False)
    prune.l1_unstructured(lone, "weight", amount=0.5)
    assert int(lone.weight_mask.sum()) == 23
    net = nn.Sequential(nn.Linear(45, 1, bias=False))
    made = registry.get("pruners", "l1")(net, 4, 2, density=0.5, start="0it")
    assert int(net[0].weight_mask.sum()) == made.requested["0"] == 22


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_of_pruners_is_kept(name):
    for start in ("0it", "5it"):
        check_pruner(partial(registry.get("pruners", name), density=0.4, start=start), density=0.4)


def test_the_training_after_the_masks_is_torchs_own():
    """Masked weights have no gradient and move by old moments and by decay; what is kept trains as by hand."""
    net, twin = conv_net(), conv_net()
    settings = {"lr": 0.02, "weight_decay": 0.1}
    optimizer, pruner = at_work(net, "l1", optimizer=torch.optim.Adam(net.parameters(), **settings))
    other = torch.optim.Adam(twin.parameters(), **settings)
    train(net, optimizer, pruner, 9)
    for number in range(9):
        one_step(twin, other, number)
        other.zero_grad()
        if number == 4:
            masks = by_hand(twin, "l1", GO["l1"])
    masked = ~masks["4.weight"]
    assert torch.equal(net[4].weight_orig, twin[4].weight_orig)
    assert net[4].weight_orig[masked].any()
    assert not net[4].weight[masked].any()


@pytest.mark.parametrize("name", ["random", "random_structured"])
def test_lots_come_from_the_seed_and_leave_other_random_numbers_alone(name):
    def masks(seed, before):
        net = conv_net()
        optimizer, pruner = at_work(net, name, seed=seed)
        train(net, optimizer, pruner, 4)
        torch.manual_seed(before)
        one_step(net, optimizer, 4)
        state = torch.get_rng_state()
        pruner.step()
        assert torch.equal(torch.get_rng_state(), state)
        return pruner.masks["4.weight"]

    assert torch.equal(masks(0, before=1), masks(0, before=2))
    assert not torch.equal(masks(0, before=1), masks(1, before=1))


def test_a_copy_made_between_two_steps_computes_what_the_network_does():
    net = conv_net()
    optimizer, pruner = at_work(net, "l1")
    train(net, optimizer, pruner, 7)
    reset_(net)
    twin = copy.deepcopy(net)
    for module in twin.modules():
        module._forward_pre_hooks.clear()  # as a guide that is the network of an earlier day does
    x = batch(20)[0]
    assert torch.equal(twin(x), net(x))


def test_two_equal_lots_are_an_error_and_not_a_wrong_count(monkeypatch):
    net = conv_net()
    optimizer, pruner = at_work(net, "random_structured")
    train(net, optimizer, pruner, 4)
    one_step(net, optimizer, 4)
    monkeypatch.setattr(torch, "rand", torch.zeros)
    with pytest.raises(BadOption, match=r"was to leave \d+ weights and left \d+.*choose another seed"):
        pruner.step()


def test_layers_and_exclude_choose_and_channels_of_the_classes_stay():
    net = conv_net()
    assert at_work(net, "ln_structured")[1].prunable == ["0", "4"]
    assert at_work(net, "l1")[1].prunable == ["0", "4", "7"]
    assert at_work(net, "ln_structured", exclude=())[1].prunable == ["0", "4", "7"]
    assert at_work(net, "l1", layers=("4", "7"), exclude=("7",))[1].prunable == ["4"]


def shared():
    net = conv_net()
    net.append(nn.Linear(32, 5))
    net[8].weight = net[7].weight
    return net


def parametrized():
    net = conv_net()
    parametrize.register_parametrization(net[7], "weight", nn.Identity())
    return net


REFUSED = {
    "a pattern without a layer": (conv_net, {"layers": ("8",)}, NothingMatched, "matches no layer"),
    "masks for nobody": (conv_net, {"start": "100%"}, BadOption, "nothing would be trained with the masks"),
    "no duration": (conv_net, {"start": "5"}, BadOption, "is not a duration"),
    "too much": (conv_net, {"density": 1.5}, BadOption, r"density=1.5: the share of weights kept must be in \(0, 1\]"),
    "nothing left": (conv_net, {"density": 0.003}, BadOption, "layer '0' would keep none of 54"),
    "a shared weight": (shared, {}, BadOption, "'7' and '8' share one weight"),
    "a computed weight": (parametrized, {}, BadOption, "the weight of '7' is computed from others"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_pruned_is_said_before_training(case):
    build, options, error, said = REFUSED[case]
    with pytest.raises(error, match=said):
        at_work(build(), "l1", **options)


def test_a_norm_of_order_zero_is_refused():
    with pytest.raises(BadOption, match=r"n=0: the order of the norm must be above 0"):
        at_work(conv_net(), "ln_structured", n=0)


def test_masks_of_other_layers_are_refused():
    net, other = conv_net(), conv_net()
    optimizer, pruner = at_work(net, "l1")
    train(net, optimizer, pruner, 6)
    with pytest.raises(BadCheckpoint, match="the masks are of other layers"):
        at_work(other, "l1", exclude=("7",))[1].load_state_dict(pruner.state_dict())


def test_a_block_of_own_random_numbers_gives_the_others_back_even_when_it_fails():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(ValueError, match="broken"), own_random_numbers(0, "a"):
        first = torch.rand(3)
        raise ValueError("broken")
    assert torch.equal(torch.rand(3), expected)
    with own_random_numbers(0, "a"):
        assert torch.equal(torch.rand(3), first)
    with own_random_numbers(0, "b"):
        assert not torch.equal(torch.rand(3), first)


def test_a_kept_weight_that_happens_to_be_zero_is_kept():
    net = conv_net()
    optimizer, pruner = at_work(net, "l1", start="1it")
    train(net, optimizer, pruner, 1)
    with torch.no_grad():
        net[7].weight_orig.zero_()
    pruner.step()
    assert int(pruner.masks["7.weight"].sum()) == 48
