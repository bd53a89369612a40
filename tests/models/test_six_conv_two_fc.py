import pytest
import torch
from spikingjelly.activation_based import functional, layer

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models.six_conv_two_fc import six_conv_two_fc


def test_the_widths_are_those_of_the_papers():
    net = six_conv_two_fc((3, 32, 32), 10)
    shapes = [tuple(m.weight.shape) for m in net if isinstance(m, layer.Conv2d | layer.Linear)]
    assert shapes == [(256, 3, 3, 3), *[(256, 256, 3, 3)] * 5, (2048, 256 * 8 * 8), (100, 2048)]


def test_an_output_is_the_share_of_a_class_whose_voters_fire():
    torch.manual_seed(0)
    net = six_conv_two_fc((1, 8, 8), 3, channels=8, hidden=16, voters=4, dropout=0.0)
    with torch.no_grad():
        net.fc7.weight.mul_(20)
        net.fc8.weight.mul_(20)
        fired = []
        net.spike8.register_forward_hook(lambda _, __, out: fired.append(out))
        votes = net(5 * torch.rand(2, 5, 1, 8, 8))
    assert fired[0].any()
    assert torch.equal(votes, torch.stack([fired[0][..., 4 * k : 4 * k + 4].mean(-1) for k in range(3)], dim=-1))


def test_dropout_is_one_choice_for_all_steps_and_can_be_left_out():
    net = six_conv_two_fc((1, 8, 8), 3, channels=8, hidden=16)
    dropped = net.dropout7(torch.ones(3, 2, 32))
    assert torch.equal(dropped[0], dropped[2])
    functional.reset_net(net)
    assert not [m for m in six_conv_two_fc((1, 8, 8), 3, channels=8, dropout=0.0) if isinstance(m, layer.Dropout)]


@pytest.mark.parametrize("option", [{"dropout": 1.0}, {"voters": 0}, {"hidden": 0}, {"channels": 0}])
def test_options_out_of_range_are_refused_by_name(option):
    with pytest.raises(BadOption, match=next(iter(option))):
        six_conv_two_fc((3, 32, 32), 10, **option)
