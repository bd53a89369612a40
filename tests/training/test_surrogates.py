import copy

import pytest
import torch
from data_parallel_cases import plain_net
from networks import batch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from snnsl_plugin.anatomy import neurons, parameter_of, weight_layers
from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.surrogates import Surrogates, slopes


def counted(model: nn.Module, *batches: Tensor, single: bool = False) -> dict[str, dict[str, Tensor]]:
    weights = {name: parameter_of(each) for name, each in weight_layers(model).items()}
    with Downstream(model, weights) as downstream, Surrogates(model, weights, downstream) as surrogates:
        for x in batches:
            functional.reset_net(model)
            for part in x if single else [x]:
                model(part)
    return surrogates.fields()


def atan_at(x: Tensor, alpha: float) -> Tensor:
    return alpha / 2 / (1 + (torch.pi / 2 * alpha * x) ** 2)


def test_by_hand() -> None:
    # membranes 0.5 and, after a leak of a half and 0.5 more, 0.75 (threshold 1); ATan' = (a / 2) / (1 + (pi a v / 2)^2)
    node = neuron.LIFNode(tau=2.0, decay_input=False, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    steep = slopes(node, (torch.full((2, 1, 1), 0.5),))
    assert steep.flatten().tolist() == pytest.approx([1 / (1 + (torch.pi * v) ** 2) for v in (-0.5, -0.25)])


@pytest.mark.parametrize("reset", [0.0, None])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_a_layers_mean_equals_a_loop_over_steps(reset: float | None, mode: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 4), neuron.LIFNode(v_threshold=0.3, v_reset=reset, surrogate_function=surrogate.ATan(alpha=3.0))
    )
    functional.set_step_mode(model, mode)
    batches = [torch.randint(0, 3, (4, 6, 5), generator=torch.Generator().manual_seed(i)).float() for i in range(2)]
    found = counted(model, *batches, single=mode == "s")["0"]["surrogate"]
    asked = []
    for x in batches:
        v = torch.zeros(6, 4)
        for drive in nn.functional.linear(x, model[0].weight, model[0].bias).detach():
            v = v + (drive - v) / 2
            asked.append(v - 0.3)
            spike = (v >= 0.3).float()
            v = v - 0.3 * spike if reset is None else (1 - spike) * v
    means = atan_at(torch.stack(asked), 3.0).mean((0, 1))
    assert found.shape == (4,)
    assert torch.allclose(found, means.double(), atol=1e-6)


@pytest.mark.parametrize("make", [
    lambda: neuron.IFNode(), lambda: neuron.ParametricLIFNode(), lambda: neuron.QIFNode(), lambda: neuron.EIFNode(),
    lambda: neuron.KLIFNode(), lambda: neuron.PSN(T=3), lambda: neuron.MaskedPSN(k=2, T=3, step_mode="m"),
    lambda: neuron.SlidingPSN(k=2, step_mode="m"),
])  # fmt: skip
def test_every_kind_of_neuron_is_left_as_it_was_and_its_slope_is_its_gradient(make) -> None:
    torch.manual_seed(0)
    node, x = make(), torch.randn(3, 2, 4)
    node.step_mode = "m"
    same = copy.deepcopy(node)
    stream = torch.get_rng_state()
    steep = slopes(node, (x,))
    assert torch.equal(torch.get_rng_state(), stream)
    assert torch.equal(node(x), same(x))  # also the state was not touched
    assert steep.shape == x.shape
    assert 0 < steep.max() < 10


@pytest.mark.parametrize("make", [neuron.IFNode, neuron.LIFNode, neuron.ParametricLIFNode])
def test_the_slope_is_what_a_gradient_through_the_first_step_is_multiplied_by(make) -> None:
    node, x = make(surrogate_function=surrogate.Erf()), torch.randn(2, 4, requires_grad=True)
    steep = slopes(node, (x,))
    node(x).sum().backward()
    gain = x.grad / steep  # the membrane by the input: 1, or 1 / tau
    assert torch.allclose(gain, torch.full_like(gain, 1.0 if make is neuron.IFNode else 0.5))


def test_of_a_network_the_neuron_behind_a_layer_and_nothing_of_the_readout() -> None:
    model, x = plain_net(), batch()[0]
    found = counted(model, x)
    assert {name: each["surrogate"].shape for name, each in found.items()} == {"0": (6,), "3": (8,)}
    single = plain_net()
    functional.set_step_mode(single, "s")
    again = counted(single, x, single=True)
    assert all(torch.allclose(found[n]["surrogate"], again[n]["surrogate"], atol=1e-6) for n in found)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for word in ("weight", "bias"):
            getattr(model[3], word).copy_(getattr(model[3], word)[order])
    assert torch.allclose(counted(model, x)["3"]["surrogate"], found["3"]["surrogate"][order], atol=1e-6)


def test_what_is_trained_does_not_see_that_somebody_looks() -> None:
    outputs = []
    for watched in (False, True):
        model, x = plain_net(), batch()[0]
        weights = {name: parameter_of(each) for name, each in weight_layers(model).items()}
        with Downstream(model, weights) as downstream:
            looking = Surrogates(model, weights, downstream)
            if watched:
                looking.__enter__()
            model(x).square().mean().backward()
            looking.__exit__()
        outputs.append([parameter.grad for parameter in model.parameters()])
        assert not any(module._forward_pre_hooks for module in neurons(model).values())
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


def test_a_neuron_without_a_surrogate_and_one_that_asks_twice_are_left_out() -> None:
    assert slopes(neuron.TernaryIFNode(step_mode="m"), (torch.randn(2, 3, 4),)) is None
    model = nn.Sequential(nn.Linear(2, 2), neuron.NonSpikingIFNode())
    assert counted(model, torch.ones(1, 1, 2)) == {}


def test_goes_on_from_its_state() -> None:
    model, batches = plain_net(), [batch(seed)[0] for seed in range(3)]
    whole = counted(model, *batches)
    weights = {name: parameter_of(each) for name, each in weight_layers(model).items()}
    with Downstream(model, weights) as downstream, Surrogates(model, weights, downstream) as first:
        for x in batches[:2]:
            functional.reset_net(model)
            model(x)
    with Downstream(model, weights) as downstream, Surrogates(model, weights, downstream) as second:
        second.load_state_dict(first.state_dict())
        functional.reset_net(model)
        model(batches[2])
    assert all(torch.equal(each["surrogate"], whole[name]["surrogate"]) for name, each in second.fields().items())
