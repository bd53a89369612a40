import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import functional, neuron
from torch import nn

from snnsl_plugin.anatomy import parameter_of, weight_layers
from snnsl_plugin.core import schedules
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.pruner import DynamicPruner


def found(model: nn.Module, x: torch.Tensor) -> dict[str, str]:
    weights = {name: parameter_of(layer) for name, layer in weight_layers(model).items()}
    with Downstream(model, weights) as downstream:
        model(x)
    return downstream.found


def test_of_a_plain_network_the_next_neuron_and_none_behind_the_readout() -> None:
    assert found(conv_net(), batch()[0]) == {"0": "2", "4": "5"}


class Branches(nn.Module):
    """Two branches that meet before a neuron, and one that also goes straight to another."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.alone, self.last = (nn.Linear(4, 4) for _ in range(4))
        self.first, self.second = neuron.IFNode(step_mode="m"), neuron.IFNode(step_mode="m")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = self.left(x)
        spikes = self.first(left + self.right(x))
        return self.last(self.second(self.alone(spikes) + left))


def test_branches_that_meet_drive_one_neuron_and_the_first_one_counts() -> None:
    assert found(Branches(), torch.rand(2, 3, 4)) == {"left": "first", "right": "first", "alone": "second"}


def test_single_step_mode_finds_the_same() -> None:
    model = conv_net()
    functional.set_step_mode(model, "s")
    weights = {name: parameter_of(layer) for name, layer in weight_layers(model).items()}
    with Downstream(model, weights) as downstream:
        for step in batch()[0]:
            model(step)
    assert downstream.found == {"0": "2", "4": "5"}


def test_residual_networks_of_the_zoo() -> None:
    model = sew_resnet((3, 16, 16), 10, depth=18)
    seen = found(model, torch.rand(2, 2, 3, 16, 16))
    layers = weight_layers(model)
    readout = [name for name in layers if name not in seen]
    assert len(readout) == 1
    assert isinstance(layers[readout[0]], nn.Linear)
    blocks = [name for name in layers if name.startswith("layer")]
    assert all(seen[name].rpartition(".")[0].startswith(name.rpartition(".")[0][:8]) for name in blocks)


def test_weights_beneath_a_parametrization_are_found() -> None:
    model = spiking_cnn((1, 8, 8), 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DynamicPruner(model, optimizer, "stds", threshold=schedules.sine(last=0.01), total_steps=10)
    seen = found(model, torch.rand(2, 3, 1, 8, 8))
    assert list(seen) == list(weight_layers(model))[:-1]


def test_hooks_are_gone_when_all_is_known_and_evaluation_tells_nothing() -> None:
    model = conv_net().eval()
    weights = {name: parameter_of(layer) for name, layer in weight_layers(model).items()}
    with Downstream(model, weights) as downstream:
        model(batch()[0])
        assert downstream.found == {}
        functional.reset_net(model.train())
        model(batch()[0])
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model)


@pytest.mark.parametrize("sample_every", [1, 3])
def test_a_pruner_keeps_what_a_slow_count_of_both_rates_ranks_first(sample_every: int) -> None:
    model, given, fired = conv_net(), [], []
    pruner = DynamicPruner(
        model, torch.optim.SGD(model.parameters(), lr=0.0), criterion="activity_product", distribution="uniform",
        density=schedules.linear(first=1.0, last=0.6), every="6it", until="6it", total_steps=6,
        sample_every=sample_every, exclude=["7"], paths=False,
    )  # fmt: skip
    seen: dict[str, torch.Tensor] = {}
    model[4].register_forward_hook(lambda module, args, output: seen.update(given=args[0].detach()))
    model[5].register_forward_hook(lambda module, args, output: seen.update(fired=output.detach()))
    for step in range(1, 7):
        functional.reset_net(model)
        model(batch(step)[0]).mean().backward()
        if step % sample_every == 0:
            given.append(seen["given"])
            fired.append(seen["fired"])
        pruner.step()
    rates = []
    for spikes in (torch.stack(given), torch.stack(fired)):  # (step, T, N, C, H, W)
        counts = (spikes != 0).double().sum((0, 1, 2, 4, 5))
        rates.append((counts + 1) / (spikes.numel() / spikes.shape[3] + 2))
    weight, kept = conv_net()[4].weight.detach(), pruner.masks["4.weight"]
    scores = weight.abs().double() * rates[0].view(1, -1, 1, 1) * rates[1].view(-1, 1, 1, 1)
    expected = torch.zeros(kept.numel(), dtype=torch.bool)
    expected[scores.flatten().argsort(descending=True)[: int(kept.sum())]] = True
    assert 0 < int(kept.sum()) < kept.numel()
    assert torch.equal(kept.flatten(), expected)
