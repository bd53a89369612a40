"""What a spike of each neuron drives, against synapses counted spike by spike."""

import pytest
import torch
from networks import conv_net
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.metrics.fan_out import fan_out
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.testing import slow_driven_synapses


def test_a_convolution_with_stride_behind_a_convolution_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), neuron.IFNode(), nn.Conv2d(3, 5, 2, stride=2))
    found = fan_out(net, torch.ones(2, 2, 4, 6))
    assert found.sites == {"0": 24.0, "2": 6.0}
    assert found.neurons.keys() == {"1"}
    assert found.neurons["1"].tolist() == torch.full((3, 4, 6), 5.0).tolist()  # 5 * 2 * 2 / 2^2


def test_behind_a_pool_each_neuron_has_its_share_and_a_readout_has_no_reader() -> None:
    found = fan_out(conv_net(), torch.ones(3, 2, 1, 4, 4))
    assert found.sites == {"0": 16.0, "4": 4.0, "7": 1.0}
    assert found.neurons["2"].shape == (6, 4, 4)
    # 2x2 sites behind the pool, each a corner of the 3x3 convolution: 4 weights into 8 channels, shared by 4 neurons.
    assert found.neurons["2"].unique().tolist() == [8.0]
    assert found.neurons["5"].unique().tolist() == [5.0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups"), [(3, 1, 1, 1), (3, 2, 1, 1), (2, 1, 0, 2), (3, 2, 0, 4)]
)
def test_equals_synapses_counted_spike_by_spike(kernel, stride, padding, groups) -> None:
    reader = nn.Conv2d(4, 8, kernel, stride=stride, padding=padding, groups=groups)
    found = fan_out(nn.Sequential(nn.Conv2d(1, 4, 1), neuron.IFNode(), reader), torch.ones(1, 1, 5, 5))
    single = torch.eye(100).view(100, 4, 5, 5)
    how = {"stride": (stride, stride), "padding": (padding, padding), "groups": groups}
    counted = slow_driven_synapses(single, torch.ones_like(reader.weight), **how)
    assert found.neurons["1"].flatten().tolist() == counted.tolist()


class Residual(nn.Module):
    """A neuron that two layers read, one of them through a sum with another neuron."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.one, self.two, self.three = layer.Linear(3, 4), layer.Linear(4, 4), layer.Linear(4, 2)
        self.first, self.second = neuron.IFNode(), neuron.IFNode()
        self.norm = layer.BatchNorm1d(4)
        for module in self.children():
            module.step_mode = mode

    def forward(self, x):
        first = self.first(self.one(x))
        second = self.second(self.norm(self.two(first)))
        second += first
        return self.three(second)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_readers_are_summed_and_both_step_modes_agree(mode) -> None:
    found = fan_out(Residual(mode), torch.ones(2, 3) if mode == "s" else torch.ones(4, 2, 3))
    assert found.sites == {"one": 1.0, "two": 1.0, "three": 1.0}
    assert found.neurons["first"].tolist() == [6.0] * 4
    assert found.neurons["second"].tolist() == [2.0] * 4


def test_the_whole_cost_of_a_network_is_what_dense_spikes_drive() -> None:
    # With every neuron firing, what neurons drive is what the weights behind them do, site by site but for borders.
    net = spiking_cnn((1, 8, 8), 10, channels=[4, 6], hidden=12)
    found = fan_out(net, torch.ones(2, 3, 1, 8, 8))
    weights = dict(net.named_parameters())
    done = {name: sites * weights[f"{name}.weight"].numel() for name, sites in found.sites.items()}
    driven = {name: float(each.sum()) for name, each in found.neurons.items()}
    assert driven["spike3"] == done["fc2"]
    assert driven["spike2"] == pytest.approx(done["fc1"])
    assert driven["spike1"] == 10 * 10 * 24  # 4x4 sites of a padded 3x3 window, counted one by one: 100, not 144


@pytest.mark.parametrize("connect", ["ADD", "AND", "IAND"])
def test_a_residual_network_of_the_zoo_costs_something_everywhere_and_stays_as_it_was(connect) -> None:
    net = sew_resnet((3, 8, 8), 5, connect=connect).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = fan_out(net, torch.ones(2, 1, 3, 8, 8))
    assert all(bool((each > 0).all()) for each in found.neurons.values())
    assert net.training
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())


def test_one_neuron_for_maps_of_two_sizes_is_refused() -> None:
    spike = neuron.IFNode()
    net = nn.Sequential(nn.Conv2d(1, 1, 2), spike, nn.Conv2d(1, 1, 2), spike, nn.Conv2d(1, 1, 2))
    with pytest.raises(BadOption, match="neurons=False"):
        fan_out(net, torch.ones(1, 1, 5, 5))


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(NothingMatched):
        fan_out(neuron.IFNode(), torch.ones(1, 1))
