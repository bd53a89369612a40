import itertools

import pytest
import torch
from data_parallel_cases import plain_net
from networks import batch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from snnsl_plugin.anatomy import parameter_of, weight_layers
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.training import taps
from snnsl_plugin.training.coincidences import Coincidences
from snnsl_plugin.training.downstream import Downstream


def watching(model: nn.Module) -> tuple[Downstream, Coincidences]:
    layers = weight_layers(model)
    downstream = Downstream(model, {name: parameter_of(each) for name, each in layers.items()})
    return downstream, Coincidences(model, layers, downstream)


def counted(model: nn.Module, *batches: Tensor) -> dict[str, dict[str, Tensor]]:
    downstream, coincidences = watching(model)
    with downstream, coincidences:
        for x in batches:
            functional.reset_net(model)
            model(x)
    return coincidences.fields()


def spikes(*shape: int, seed: int = 0) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def slow(x: Tensor, fired: Tensor, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Covariance and correlation of every weight, from the columns of two tables of slots; zero padding only."""
    (down, right), (top, left), (tall, broad) = conv.stride, conv.padding, conv.dilation
    x, fired = (x != 0).double().flatten(0, 1), (fired != 0).double().flatten(0, 1)
    padded = nn.functional.pad(x, (left, left, top, top))
    shape = conv.weight.shape
    covariance, correlation = torch.zeros(shape).double(), torch.zeros(shape).double()
    for o, i, a, b in itertools.product(*map(range, shape)):
        channel = i + shape[1] * (o // (shape[0] // conv.groups))
        pre = torch.stack([
            padded[:, channel, row * down + a * tall, column * right + b * broad]
            for row in range(fired.shape[2]) for column in range(fired.shape[3])
        ]).flatten()  # fmt: skip
        post = fired[:, o].flatten(1).T.flatten()
        covariance[o, i, a, b] = ((pre - pre.mean()) * (post - post.mean())).mean()
        spread = pre.std(correction=0) * post.std(correction=0)
        correlation[o, i, a, b] = covariance[o, i, a, b] / spread if spread > 0 else 0.0
    return covariance, correlation


def test_by_hand() -> None:
    # the neuron fires where any input does: 1, 0, 1, 1; inputs: 1, 0, 1, 0 and 0, 0, 0, 1 and never
    net = nn.Sequential(nn.Linear(3, 1, bias=False), neuron.IFNode(step_mode="m"))
    net[0].weight.data.fill_(1.0)
    found = counted(net, torch.tensor([[[1.0, 0, 0]], [[0, 0, 0]], [[1, 0, 0]], [[0, 1, 0]]]))["0"]
    assert found["coincidence"].tolist() == [[2 / 4 - 3 / 4 * 2 / 4, 1 / 4 - 3 / 4 * 1 / 4, 0.0]]
    # (n both - post pre) / sqrt(post (n - post) pre (n - pre))
    assert found["correlation"].flatten().tolist() == pytest.approx([2 / (3 * 1 * 2 * 2) ** 0.5, 1 / 3, 0.0])


@pytest.mark.parametrize("given", [
    {"padding": 1}, {"stride": 2, "padding": (1, 0)}, {"dilation": 2, "groups": 2}, {"stride": (1, 2), "groups": 2},
])  # fmt: skip
@pytest.mark.parametrize("together", [taps._TOGETHER, 1])
def test_each_weight_equals_a_slow_table_of_its_slots(given: dict, together: int, monkeypatch) -> None:
    monkeypatch.setattr(taps, "_TOGETHER", together)  # one sample and step at a time: how memory stays bounded
    torch.manual_seed(0)
    net = nn.Sequential(layer.Conv2d(4, 6, 3, step_mode="m", **given), neuron.LIFNode(v_threshold=0.1, step_mode="m"))
    x, fired = spikes(3, 2, 4, 7, 6), []
    x[:, :, 2] = 0.0
    net[1].register_forward_hook(lambda module, args, output: fired.append(output))
    found = counted(net, x)["0"]
    covariance, correlation = slow(x, fired[0], net[0])
    assert 0 < fired[0].mean() < 1
    assert torch.allclose(found["coincidence"], covariance, atol=1e-15)
    assert torch.allclose(found["correlation"], correlation, atol=1e-12)
    assert not found["coincidence"][:, 2 if net[0].groups == 1 else slice(0, 0)].any()
    assert found["correlation"].abs().max() <= 1


def test_norms_and_real_inputs_and_the_readout() -> None:
    model, x = plain_net(), batch()[0]
    found = counted(model, x)
    assert list(found) == ["0", "3"]  # nothing fires behind the readout
    assert found["0"]["coincidence"].shape == model[0].weight.shape


def test_single_step_mode_counts_the_same() -> None:
    multi, single, x = plain_net(), plain_net(), batch()[0]
    functional.set_step_mode(single, "s")
    downstream, coincidences = watching(single)
    with downstream, coincidences:
        for step in x:
            single(step)
    whole = counted(multi, x)
    for name, found in coincidences.fields().items():
        assert torch.equal(found["coincidence"], whole[name]["coincidence"])


def test_a_permutation_of_output_channels_permutes_them() -> None:
    model, moved, x = plain_net(), plain_net(), batch()[0]
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved[3].weight.copy_(model[3].weight[order])
        moved[3].bias.copy_(model[3].bias[order])
    for word in ("coincidence", "correlation"):
        assert torch.equal(counted(moved, x)["3"][word], counted(model, x)["3"][word][order])


def test_a_pool_before_the_neuron_shares_its_spike_with_what_it_is_made_of() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 3, 3, padding=1, step_mode="m"), layer.AvgPool2d(2, step_mode="m"),
        neuron.IFNode(v_threshold=0.1, step_mode="m"),
    )  # fmt: skip
    x, fired = spikes(3, 2, 2, 4, 6), []
    net[2].register_forward_hook(lambda module, args, output: fired.append(output))
    found = counted(net, x)["0"]
    spread = fired[0].flatten(0, 1)[:, :, [0, 0, 1, 1]][:, :, :, [0, 0, 1, 1, 2, 2]]
    covariance, _ = slow(x, spread.unflatten(0, (3, 2)), net[0])
    assert covariance.any()
    assert torch.allclose(found["coincidence"], covariance, atol=1e-15)


def test_outputs_that_are_flattened_before_the_neuron() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(2, 3, 3, padding=1, step_mode="m"), layer.Flatten(step_mode="m"),
        neuron.IFNode(v_threshold=0.1, step_mode="m"),
    )  # fmt: skip
    x, fired = spikes(3, 2, 2, 4, 5), []
    net[2].register_forward_hook(lambda module, args, output: fired.append(output))
    found = counted(net, x)["0"]
    assert torch.allclose(found["coincidence"], slow(x, fired[0].unflatten(2, (3, 4, 5)), net[0])[0], atol=1e-15)


def test_shapes_that_nobody_can_match_are_an_error_that_names_the_layer() -> None:
    net = nn.Sequential(
        layer.Conv2d(1, 2, 3, padding=1, step_mode="m"), layer.AvgPool2d(2, step_mode="m"),
        neuron.IFNode(step_mode="m"),
    )  # fmt: skip
    with pytest.raises(MissingStatistic, match=r"layer '0' puts out \(1, 1, 2, 5, 5\) and the neuron .* '2', \(1, 1"):
        counted(net, torch.ones(1, 1, 1, 5, 5))


def test_goes_on_from_its_state_and_leaves_no_hook() -> None:
    model, batches = plain_net(), [batch(seed)[0] for seed in range(4)]
    whole = counted(model, *batches)
    downstream, first = watching(model)
    with downstream, first:
        for x in batches[:3]:
            functional.reset_net(model)
            model(x)
    downstream, second = watching(model)
    second.load_state_dict(first.state_dict())
    with downstream, second:
        functional.reset_net(model)
        model(batches[3])
        functional.reset_net(model)
        model.eval()(batches[0])
    for name, found in second.fields().items():
        assert torch.equal(found["correlation"], whole[name]["correlation"])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model)
