import math

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.health.synops_loss import synops_loss


class Given(neuron.IFNode):
    """A neuron whose spikes are its input, so that they can be written down."""

    def forward(self, x):
        return x


def test_by_hand() -> None:
    # Three spikes of channel 0, which meets two weights, and one of channel 1, which meets one; two samples.
    net = nn.Sequential(Given(step_mode="m"), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.5, 0.0], [-2.0, 1.0]]))
    spikes = torch.tensor([[[1.0, 1.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]]).requires_grad_()
    with synops_loss(net, weight=2.0) as price:
        net(spikes)
        penalty = price.penalty()
        assert price.penalty() is None
    assert penalty.item() == pytest.approx(2.0 * math.log(1 + (3 * 2 + 1 * 1) / 2))
    penalty.backward()
    # d/ds 2 ln(1 + S) with S = 3.5: a spike adds fan-out / 2 samples.
    assert spikes.grad[0, 0].tolist() == pytest.approx([2.0 / 4.5 * 2 / 2, 2.0 / 4.5 * 1 / 2])


def made() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(1)
    net = spiking_cnn((2, 8, 8), 4, channels=[4, 6], hidden=10)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.mul_(torch.rand_like(module.weight) < 0.5).mul_(4)
    return net, (torch.rand(3, 5, 2, 8, 8) < 0.4).float()


def test_it_counts_what_a_measurement_counts() -> None:
    net, x = made()
    found = measure(net, [(x, torch.zeros(5, dtype=torch.long))]).synops_per_sample
    for module in net.modules():  # batch statistics off, so that training and evaluation fire alike
        if isinstance(module, layer.BatchNorm2d | layer.BatchNorm1d):
            module.eval()
    with synops_loss(net, weight=1.0) as price:
        net(x)
        assert price.penalty().item() == pytest.approx(math.log1p(found), rel=1e-6)


def test_single_step_mode_pays_what_multi_step_mode_pays() -> None:
    net, x = made()
    other, _ = made()
    functional.set_step_mode(other, "s")
    for each in (net, other):
        for module in each.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.eval()
    with synops_loss(net) as price, synops_loss(other) as again:
        net(x)
        for step in x:
            other(step)
        assert price.penalty().item() == pytest.approx(again.penalty().item(), rel=1e-6)


def test_real_inputs_and_validations_pay_nothing_and_hooks_are_gone_after_the_block() -> None:
    net = nn.Sequential(nn.Linear(3, 2), Given(step_mode="m"))
    with synops_loss(net) as price:
        net(torch.rand(2, 2, 3))
        assert price.penalty() is None
        net.eval()
        net(torch.ones(2, 2, 3))
        assert price.penalty() is None
    net.train()
    net(torch.ones(2, 2, 3))
    assert price.penalty() is None


def test_training_for_it_alone_saves_operations() -> None:
    net, x = made()
    x = x * torch.rand_like(x)  # so that the first layer, whose input no training changes, pays nothing
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    masks = {weight: weight.detach() != 0 for weight in net.parameters()}
    paid = []
    with synops_loss(net, weight=1.0) as price:
        for step in range(1, 31):
            functional.reset_net(net)
            price.before_step(step)
            net(x)
            optimizer.zero_grad()
            paid.append(price.penalty())
            paid[-1].backward()
            optimizer.step()
            with torch.no_grad():
                for weight, mask in masks.items():
                    weight.mul_(mask)
    assert paid[-1].exp() - 1 < 0.7 * (paid[0].exp() - 1)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.inf])
def test_a_price_that_is_none_is_refused(weight) -> None:
    with pytest.raises(BadOption, match="must be above 0"):
        synops_loss(nn.Sequential(neuron.IFNode()), weight=weight)


def test_a_network_without_neurons_is_refused() -> None:
    with pytest.raises(NothingMatched, match="no spiking neuron"):
        synops_loss(nn.Linear(2, 2))
