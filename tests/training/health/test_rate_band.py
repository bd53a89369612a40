import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health.rate_band import rate_band


class Given(neuron.IFNode):
    """A neuron whose spikes are its input, so that rates can be written down."""

    def forward(self, x):
        return x


def test_by_hand() -> None:
    # rates 0, 0.25, 0.5, 1 against a band from 0.25 to 0.5: relu(1 - 0/0.25)^2 = 1, 0, 0, relu(1/0.5 - 1)^2 = 1
    spikes = torch.tensor([[0.0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 1]]).view(2, 2, 4).requires_grad_()
    net = nn.Sequential(Given(step_mode="m"))
    with rate_band(net, low=0.25, high=0.5, weight=2.0) as band:
        net(spikes)
        penalty = band.penalty()
        assert penalty.item() == pytest.approx(2.0 * (1 + 0 + 0 + 1) / 4)
        assert band.penalty() is None
    penalty.backward()
    # d/dr 2/4 (1 - r/low)^2 = -1/low at r = 0, spread over four slots; above: 1/high likewise
    assert spikes.grad[0, 0].tolist() == pytest.approx([-1 / 0.25 / 4, 0, 0, 1 / 0.5 / 4])


def test_every_site_of_a_channel_counts_and_layers_weigh_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(3, 2, 5, 4, 4, generator=generator) < 0.1).float()
    net = nn.Sequential(Given(step_mode="m"), nn.Flatten(2), Given(step_mode="m"))
    with rate_band(net, low=0.2, high=0.9, weight=1.0) as band:
        net(x)
        found = band.penalty().item()
    costs = []
    for rate in (x.mean((0, 1, 3, 4)), x.flatten(2).mean((0, 1))):
        costs.append(((1 - rate / 0.2).clamp_min(0) ** 2 + (rate / 0.9 - 1).clamp_min(0) ** 2).mean())
    assert found == pytest.approx(float(sum(costs) / 2), rel=1e-6)


def test_single_step_mode_pays_what_multi_step_mode_pays() -> None:
    x = (torch.rand(4, 2, 6, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    many, single = nn.Sequential(Given(step_mode="m")), nn.Sequential(Given(step_mode="s"))
    with rate_band(many, high=0.2) as band, rate_band(single, high=0.2) as other:
        many(x)
        for step in x:
            single(step)
        assert band.penalty().item() == pytest.approx(other.penalty().item(), rel=1e-6)


def test_a_validation_costs_nothing_and_hooks_are_gone_after_the_block() -> None:
    net = nn.Sequential(Given(step_mode="m"))
    with rate_band(net) as band:
        net.eval()
        net(torch.zeros(2, 2, 3))
        assert band.penalty() is None
    net.train()
    net(torch.zeros(2, 2, 3))
    assert band.penalty() is None


def test_a_silent_layer_wakes_up_by_its_gradient() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), neuron.IFNode(step_mode="m", v_threshold=1.5))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    x = torch.rand(4, 8, 8)

    def rate() -> float:
        net[1].reset()
        return net(x).mean().item()

    before = rate()
    with rate_band(net, low=0.2, high=0.9, weight=1.0) as band:
        for _ in range(60):
            net[1].reset()
            band.before_step(1)
            net(x)
            optimizer.zero_grad()
            band.penalty().backward()
            optimizer.step()
    assert before < 0.1 < rate()


@pytest.mark.parametrize("options", [{"low": 0.5, "high": 0.5}, {"low": -0.1}, {"high": 1.5}, {"weight": 0.0}])
def test_a_band_that_is_none_is_refused(options) -> None:
    with pytest.raises(BadOption):
        rate_band(nn.Sequential(neuron.IFNode()), **options)


def test_a_network_without_neurons_is_refused() -> None:
    with pytest.raises(NothingMatched, match="no spiking neuron"):
        rate_band(nn.Linear(2, 2))
