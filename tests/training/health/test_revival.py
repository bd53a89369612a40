import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health.revival import revival


def fired(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    functional.reset_net(net)
    return net(x)


def two_channels() -> nn.Sequential:
    """The first channel fires at each step, the second at none."""
    net = nn.Sequential(layer.Linear(1, 2), neuron.IFNode())
    net[0].weight.data = torch.tensor([[2.0], [0.25]])
    net[0].bias.data = torch.tensor([0.0, 0.125])
    functional.set_step_mode(net, "m")
    return net


X = torch.ones(2, 3, 1)


def looked(net: nn.Module, steps: int, x: torch.Tensor = X, **options):
    with revival(net, 10, 5, **{"every": "2it", "until": "100%"} | options) as care:
        for step in range(1, steps + 1):
            care.before_step(step)
            fired(net, x)
        return care


def test_by_hand() -> None:
    # Looks are before steps 3 and 5. The second channel gets .375 a step, .75 in two: silent. Then .5625: it fires.
    net = two_channels()
    care = looked(net, 6, factor=1.5)
    assert net[0].weight.flatten().tolist() == [2.0, 0.375]
    assert net[0].bias.tolist() == [0.0, 0.1875]
    assert care.report() == {"revived/1": 1.0}


def test_a_shift_is_a_share_of_the_threshold() -> None:
    net = two_channels()
    net[1].v_threshold = 2.0
    care = looked(net, 4, by="shift", shift=0.25)
    assert net[0].weight.flatten().tolist() == [2.0, 0.25]
    assert net[0].bias.tolist() == [0.0, 0.125 + 0.5]
    assert care.report() == {"revived/1": 1.0}


def test_tries_and_until_end_it() -> None:
    net = two_channels()
    net[0].weight.data[1] = net[0].bias.data[1] = 1e-6
    assert looked(net, 9, tries=2).report() == {"revived/1": 2.0}
    assert net[0].weight[1].item() == pytest.approx(2.25e-6)
    assert looked(net, 9, until="4it").report() == {"revived/1": 2.0}


def norm_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 3, 3, padding=1, bias=False), layer.BatchNorm2d(3), neuron.LIFNode(), layer.Flatten(),
        layer.Linear(48, 2),
    )  # fmt: skip
    net[1].weight.data = torch.tensor([5.0, 0.01, 0.01])
    net[1].bias.data = torch.tensor([0.5, 0.01, 0.01])
    functional.set_step_mode(net, "m")
    return net


PICTURES = torch.rand(3, 4, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_behind_a_norm_its_scale_and_shift_grow_until_the_channel_fires() -> None:
    net = norm_net()
    before = net[0].weight.detach().clone()
    assert fired(net[:3], PICTURES).sum((0, 1, 3, 4)).tolist()[1:] == [0, 0]
    looked(net, 10, PICTURES, factor=8.0, every="1it")
    assert torch.equal(net[0].weight, before)
    assert net[1].weight[0].item() == 5.0
    assert all(count > 0 for count in fired(net[:3], PICTURES).sum((0, 1, 3, 4)).tolist())


@pytest.mark.parametrize("options", [{}, {"by": "shift"}])
def test_what_is_pruned_or_held_silent_is_left_alone(options) -> None:
    net = norm_net()
    net[0].weight.data[1] = 0.0
    net[1].weight.data[2] = net[1].bias.data[2] = 0.0
    care = looked(net, 6, PICTURES, **options)
    assert net[1].weight.tolist()[1:] == [pytest.approx(0.01), 0.0]
    assert net[1].bias.tolist()[1:] == [pytest.approx(0.01), 0.0]
    assert care.report() == {"revived/2": 0.0}


def test_both_step_modes_do_the_same() -> None:
    many, single = norm_net(), norm_net()
    functional.set_step_mode(single, "s")
    # norms see other batches in the two modes: without one, by the layer itself
    many[1], single[1] = nn.Identity(), nn.Identity()
    for net in (many, single):
        net[0].weight.data *= 0.05
    with revival(many, 10, 5, every="1it", factor=4.0) as one, revival(single, 10, 5, every="1it", factor=4.0) as other:
        for step in range(1, 6):
            one.before_step(step)
            other.before_step(step)
            fired(many, PICTURES)
            functional.reset_net(single)
            for each in PICTURES:
                single(each)
        assert one.report() == other.report()
        assert one.report()["revived/2"] > 0
    assert torch.equal(many[0].weight, single[0].weight)


def test_a_resumed_run_goes_on_bit_for_bit_also_with_a_look_before_its_first_pass() -> None:
    whole, half = norm_net(), norm_net()
    looked(whole, 8, PICTURES, every="2it", factor=1.5)
    care = looked(half, 4, PICTURES, every="2it", factor=1.5)
    again = norm_net()
    again.load_state_dict(half.state_dict())
    with revival(again, 10, 5, every="2it", factor=1.5, until="100%") as resumed:
        resumed.load_state_dict(care.state_dict())
        for step in range(5, 9):
            resumed.before_step(step)
            fired(again, PICTURES)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_validations_and_copies_go_by_and_hooks_are_gone() -> None:
    net = two_channels()
    with revival(net, 10, 5, every="1it", until="100%") as care:
        fired(net, X)
        functional.reset_net(net)
        other = copy.deepcopy(net)
        other(100 * X)
        net.eval()
        net(100 * X)  # would fire
        net.train()
        care.before_step(2)
        assert care.report() == {"revived/1": 1.0}
    assert not net._forward_pre_hooks
    assert not net[1]._forward_hooks


@pytest.mark.parametrize(
    "options", [{"by": "wish"}, {"factor": 1.0}, {"shift": 0.0}, {"tries": 0}, {"every": "0it"}]
)  # fmt: skip
def test_options_outside_their_range_are_refused(options) -> None:
    with pytest.raises(BadOption):
        revival(two_channels(), 10, 5, **options)


def test_a_network_without_neurons_or_without_anything_to_shift_is_refused() -> None:
    with pytest.raises(NothingMatched, match="no spiking neuron"):
        revival(nn.Linear(2, 2), 10, 5)
    with pytest.raises(NothingMatched, match="no convolution or linear layer drives a neuron"):
        looked(nn.Sequential(neuron.IFNode(step_mode="m")), 2)
    net = nn.Sequential(nn.Linear(1, 2, bias=False), neuron.IFNode(step_mode="m"))
    with pytest.raises(BadOption, match="the drive of '1' by layer '0' has no bias"):
        looked(net, 2, by="shift")
