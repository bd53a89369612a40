import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.anatomy import parameter_of, reset_, weight_layers
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.training.statistics import Statistics
from snnsl_plugin.training.traces import FIELDS


class Given(neuron.IFNode):
    """A neuron whose spikes are its input, so that traces can be written down."""

    def forward(self, x):
        self.v = torch.zeros(())  # has run, until it is reset
        return x


def watched(model: nn.Module) -> Statistics:
    weights = {name: parameter_of(each) for name, each in weight_layers(model).items()}
    statistics = Statistics(model, weights, set(FIELDS), lambda step: True)
    statistics.start()
    return statistics


def test_by_hand() -> None:
    net = nn.Sequential(nn.Linear(1, 2, bias=False), Given(step_mode="m"))
    net[0].weight.data = torch.tensor([[1.0], [2.0]])
    statistics = watched(net)
    net(torch.tensor([[[1.0], [0.0]], [[1.0], [1.0]]]))  # (T, N, 1): traces 0.5 + 1 and 1, doubled by the second unit
    found = statistics.of("0")
    assert found["post_trace"].tolist() == [1.5 + 1, 3 + 2]
    assert found["trace_product"].tolist() == [[1.5**2 + 1], [3 * 1.5 + 2]]
    assert found["trace_square"].tolist() == [[1.5**3 + 1], [9 * 1.5 + 4]]
    assert found["trace_samples"] == 2
    statistics.clear()
    assert statistics.of("0") == {}


def slow(x: torch.Tensor, y: torch.Tensor, groups: int) -> tuple[list, list, list]:
    """Spikes (T, N, C, sites): post, product and square, number by number."""
    steps, samples = len(x), x.shape[1]

    def trace(spikes: torch.Tensor, sample: int, channel: int) -> float:
        return sum(0.5 ** (steps - 1 - t) * float(spikes[t, sample, channel].sum()) for t in range(steps))

    out, inner = y.shape[2], x.shape[2] // groups
    post = [sum(trace(y, n, o) for n in range(samples)) for o in range(out)]
    tables = []
    for power in (1, 2):
        tables.append(
            [
                [
                    sum(trace(y, n, o) ** power * trace(x, n, o // (out // groups) * inner + i) for n in range(samples))
                    for i in range(inner)
                ]
                for o in range(out)
            ]
        )
    return post, *tables


@pytest.mark.parametrize("groups", [1, 2])
def test_equals_a_loop_over_samples_steps_and_channels(groups: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(4, 6, 3, padding=1, groups=groups, step_mode="m"), neuron.IFNode(step_mode="m"))
    statistics = watched(net)
    x = (torch.rand(3, 5, 4, 4, 4) < 0.4).float()
    spikes = net(x).detach()
    assert spikes.any()
    assert not spikes.all()
    found, (post, product, square) = statistics.of("0"), slow(x.flatten(3), spikes.flatten(3), groups)
    assert found["post_trace"].tolist() == post
    assert found["trace_product"].tolist() == product
    assert found["trace_square"].tolist() == square


def test_single_step_mode_and_containers_find_what_multi_step_mode_finds() -> None:
    def sums(model: nn.Module, single: bool) -> dict:
        statistics = watched(model)
        for seed in range(2):
            reset_(model)
            x = batch(seed)[0]
            if single:
                for step in x:
                    model(step)
            else:
                model(x)
        found = statistics.all()
        statistics.close()
        assert not any(each._forward_pre_hooks or each._forward_hooks for each in model.modules())
        return found

    many, single = conv_net(), conv_net()
    functional.set_step_mode(single, "s")
    torch.manual_seed(0)
    inside = nn.Sequential(
        layer.SeqToANNContainer(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)),
        neuron.LIFNode(v_threshold=0.2, step_mode="m"),
        layer.SeqToANNContainer(nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1)),
        neuron.LIFNode(v_threshold=0.2, step_mode="m"),
        layer.SeqToANNContainer(nn.Flatten(), nn.Linear(32, 5)),
    )
    for each in (many, single):
        each.eval()  # a batch norm looks at one step or at all of them
        for index in (2, 5):
            each[index].train()
        each[0].train(), each[4].train()
    for each in inside.modules():
        each.train(not isinstance(each, nn.BatchNorm2d))
    expected = sums(many, False)
    assert expected["7"] == {}  # the readout drives no neuron
    for name, same in (("0", "0.0"), ("4", "2.1")):
        assert expected[name]["trace_samples"] == 16
        assert expected[name]["post_trace"].any()
        for other in (sums(single, True)[name], sums(inside, False)[same]):
            assert other["trace_samples"] == 16
            for field in FIELDS:
                assert torch.equal(other[field], expected[name][field]), (name, field)


def test_it_goes_on_from_plain_state() -> None:
    net = conv_net()
    whole, half = watched(net), watched(net)
    net(batch(0)[0])
    half.close()
    rest = watched(net)
    rest.load_state_dict(half.state_dict())
    reset_(net)
    net(batch(1)[0])
    assert rest.of("4")["trace_samples"] == 16
    assert all(torch.equal(rest.of("4")[field], whole.of("4")[field]) for field in FIELDS)


def test_validations_and_copies_go_by() -> None:
    net = conv_net()
    statistics = watched(net)
    net.eval()
    net(batch()[0])
    assert statistics.all() == {"0": {}, "4": {}, "7": {}}


def test_a_neuron_of_other_channels_is_named() -> None:
    net = nn.Sequential(
        layer.Conv2d(1, 2, 3, step_mode="m"), layer.Flatten(step_mode="m"), neuron.IFNode(step_mode="m")
    )
    watched(net)
    with pytest.raises(MissingStatistic, match="'0' has 2 output channels but the neuron that it drives has 8"):
        net(torch.rand(2, 3, 1, 4, 4))
