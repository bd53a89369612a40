import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health.rate_price import rate_price


class Given(neuron.IFNode):
    """A neuron whose spikes are its input, so that rates can be written down."""

    def forward(self, x):
        return x


def test_by_hand() -> None:
    # rates 0, 0.25, 0.5, 1: their mean is 1.75 / 4, and that of their squares (1/16 + 1/4 + 1) / 4
    spikes = torch.tensor([[0.0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]).view(2, 2, 4).requires_grad_()
    net = nn.Sequential(Given(step_mode="m"))
    with rate_price(net, weight=2.0) as price, rate_price(net, weight=1.0, power=2.0) as square:
        net(spikes)
        penalty = price.penalty()
        assert penalty.item() == 2.0 * 1.75 / 4
        assert square.penalty().item() == (1 / 16 + 1 / 4 + 1) / 4
        assert price.penalty() is None
    penalty.backward()
    assert torch.allclose(spikes.grad, torch.full_like(spikes, 2.0 / 4 / 4))  # of 4 channels with 4 slots each


def test_equals_the_means_of_layers_however_many_sites_they_have() -> None:
    x = (torch.rand(3, 2, 5, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    net = nn.Sequential(Given(step_mode="m"), nn.Flatten(2), nn.Linear(80, 4, bias=False), Given(step_mode="m"))
    with rate_price(net, weight=1.0, power=3.0) as price:
        out = net(x).detach()
        found = price.penalty().item()
    one = sum(float(x[:, :, channel].mean()) ** 3 for channel in range(5)) / 5
    other = sum(float(out[:, :, channel].mean()) ** 3 for channel in range(4)) / 4
    assert found == pytest.approx((one + other) / 2, rel=1e-5)


def test_a_busy_layer_quiets_down_by_its_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), neuron.IFNode(step_mode="m", v_threshold=0.2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    x, rates = torch.rand(4, 8, 8), []
    with rate_price(net, weight=1.0) as price:
        for _ in range(40):
            net[1].reset()
            price.before_step(1)
            rates.append(net(x).mean().item())
            optimizer.zero_grad()
            price.penalty().backward()
            optimizer.step()
    assert rates[-1] < rates[0] / 2


def test_what_is_no_price_is_refused() -> None:
    for options in ({"weight": 0.0}, {"weight": float("nan")}, {"power": 0.5}):
        with pytest.raises(BadOption, match=next(iter(options))):
            rate_price(nn.Sequential(neuron.IFNode()), **options)
    with pytest.raises(NothingMatched, match="no spiking neuron"):
        rate_price(nn.Linear(2, 2))
