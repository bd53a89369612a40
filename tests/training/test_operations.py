import itertools

import pytest
import torch
from data_parallel_cases import plain_net
from networks import batch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.errors import NothingMatched
from snnsl_plugin.metrics.measure import measure
from snnsl_plugin.testing import slow_driven_synapses
from snnsl_plugin.training.operations import Operations


def counted(model: nn.Module, *batches: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    with Operations(model, weight_layers(model)) as operations:
        for x in batches:
            functional.reset_net(model)
            model(x)
    return operations.fields()


def spikes(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def test_by_hand() -> None:
    # a kernel of two taps with one zero of padding at each end reads 0 1 1 | 1 1 0
    net = nn.Sequential(layer.Conv1d(1, 2, 2, padding=1, bias=False, step_mode="m"), neuron.IFNode(step_mode="m"))
    found = counted(net, torch.tensor([[[[1.0, 1.0]]], [[[0.0, 1.0]]]]))["0"]
    assert found["synops"].tolist() == [[[3.0, 3.0]], [[3.0, 3.0]]]
    assert not found["macs"].any()
    strided = nn.Sequential(layer.Conv1d(1, 1, 2, stride=2, bias=False, step_mode="m"), neuron.IFNode(step_mode="m"))
    found = counted(strided, torch.tensor([[[[1.0, 1.0, 0.0, 1.0, 1.0]], [[1.0, 0.0, 0.0, 0.0, 1.0]]]]))["0"]
    assert found["synops"].tolist() == [[[1.0, 1.0]]]  # (1 + 1) / 2 samples, (2 + 0) / 2; the fifth site is never read


@pytest.mark.parametrize("given", [
    {"stride": 2, "padding": 1}, {"dilation": 2, "groups": 2}, {"stride": (1, 2), "padding": (0, 2)},
    {"padding": "same", "groups": 2},
])  # fmt: skip
def test_each_weight_equals_a_slow_count_of_what_it_alone_would_drive(given: dict) -> None:
    conv = layer.Conv2d(4, 6, 3, bias=False, step_mode="m", **given)
    x = spikes((3, 2, 4, 7, 6))
    found = counted(nn.Sequential(conv, neuron.IFNode(step_mode="m")), x)["0"]["synops"]
    how = {word: getattr(conv, word) for word in ("stride", "padding", "dilation", "groups")}
    for place in itertools.product(*map(range, conv.weight.shape)):
        alone = torch.zeros(conv.weight.shape)
        alone[place] = 1.0
        assert found[place] == slow_driven_synapses(x.flatten(0, 1), alone, **how).sum() / 2


def test_the_sum_over_connections_is_what_a_measurement_counts() -> None:
    model, batches = plain_net(), [batch(seed) for seed in range(3)]
    with torch.no_grad():
        model[3].weight[2:4] = 0.0
    found = counted(model, *(x for x, _ in batches))
    measured = measure(model, batches)
    kept = {name: module.weight != 0 for name, module in weight_layers(model).items()}
    for word, total in (("synops", measured.synops_per_sample), ("macs", measured.macs_per_sample)):
        assert float(sum((found[name][word] * kept[name]).sum() for name in kept)) == total > 0
    assert not found["0"]["synops"].any()  # pixels are multiplied
    assert not found["3"]["macs"].any()


def test_single_step_mode_counts_the_same_samples() -> None:
    multi, single, x = plain_net(), plain_net(), batch()[0]
    functional.set_step_mode(single, "s")
    whole = counted(multi, x, x)
    with Operations(single, weight_layers(single)) as operations:
        for _ in range(2):
            functional.reset_net(single)
            for step in x:
                single(step)
    for name, found in operations.fields().items():
        assert torch.equal(found["synops"], whole[name]["synops"])
        assert torch.equal(found["macs"], whole[name]["macs"])


def test_linear_layers_of_sequences_and_circular_padding() -> None:
    net = nn.Sequential(nn.Linear(3, 2), neuron.IFNode(step_mode="m"))
    x = spikes((2, 4, 5, 3))
    assert torch.equal(counted(net, x)["0"]["synops"], (x.sum((0, 1, 2)) / 4).double().expand(2, 3))
    round_ = layer.Conv1d(1, 1, 3, padding=1, padding_mode="circular", bias=False, step_mode="m")
    found = counted(nn.Sequential(round_, neuron.IFNode(step_mode="m")), torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]))
    assert found["0"]["synops"].tolist() == [[[2.0, 2.0, 2.0]]]


def test_evaluation_copies_and_paused_steps_go_by_and_hooks_are_gone() -> None:
    import copy

    model, x = plain_net(), batch()[0]
    with Operations(model, weight_layers(model)) as operations:
        copy.deepcopy(model)(x)
        model.eval()(x)
        functional.reset_net(model.train())
        operations.recording = False
        model(x)
        assert operations.fields() == {}
    assert not any(module._forward_pre_hooks for module in model)


def test_goes_on_from_its_state() -> None:
    model, batches = plain_net(), [batch(seed)[0] for seed in range(4)]
    whole = counted(model, *batches)
    with Operations(model, weight_layers(model)) as first:
        for x in batches[:3]:
            functional.reset_net(model)
            model(x)
    with Operations(model, weight_layers(model)) as second:
        second.load_state_dict(first.state_dict())
        functional.reset_net(model)
        model(batches[3])
    for name, found in second.fields().items():
        assert torch.equal(found["synops"], whole[name]["synops"])
        assert torch.equal(found["macs"], whole[name]["macs"])


def test_without_neurons_nothing_tells_samples_from_steps() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(NothingMatched, match="without a spiking neuron steps cannot be told from samples"):
        Operations(model, {"": model})
