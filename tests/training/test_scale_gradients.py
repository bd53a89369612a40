import copy

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from snnsl_plugin.core.rules.sca import effective
from snnsl_plugin.training.mounting import mount_
from snnsl_plugin.training.scale_gradients import ScaleGradients

X = torch.rand(3, 4, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def net(norm: type[nn.Module] | None = layer.BatchNorm2d, groups: int = 1, mode: str = "m") -> nn.Sequential:
    torch.manual_seed(1)
    made = nn.Sequential(
        layer.Conv2d(2, 4, 3, groups=groups, bias=False),
        *([norm(4)] if norm else []),
        neuron.LIFNode(v_threshold=0.3),
        layer.Flatten(),
        layer.Linear(36, 3),
    )
    functional.set_step_mode(made, mode)
    if norm is layer.BatchNorm2d:
        made[1].weight.data = torch.tensor([1.0, 0.5, 2.0, 1.5])
        made[1].bias.data = torch.tensor([0.1, -0.2, 0.3, 0.0])
    return made


def loss(model: nn.Module, x: Tensor = X) -> Tensor:
    functional.reset_net(model)
    many = model[0].step_mode == "m"
    out = model(x) if many else torch.stack([model(step) for step in x])
    return (out * torch.linspace(-1, 1, out.numel()).view(out.shape)).sum()


def scales(model: nn.Module, weight: nn.Parameter | None = None) -> Tensor | None:
    with ScaleGradients(model, {"0": weight if weight is not None else model[0].weight}) as found:
        found.before_step()
        loss(model).backward()
        found.after_step()
        return found.fields().get("0", {}).get("scale_grad")


@pytest.mark.parametrize("mode", ["m", "s"])
@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_living_channel_it_is_the_gradient_of_gamma(groups: int, mode: str) -> None:
    model = net(groups=groups, mode=mode)
    found = scales(model)
    assert found is not None
    torch.testing.assert_close(found.float(), model[1].weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_of_a_masked_channel_it_is_the_gradient_at_gamma_zero_with_the_weights_beneath(groups: int) -> None:
    # An independent way to the same number: the whole convolution, and norms that close two channels.
    plain = net(groups=groups)
    plain[1].weight.data[[1, 3]] = 0.0
    plain[1].bias.data[[1, 3]] = 0.0
    loss(plain).backward()
    masked = net(groups=groups)
    masked[1].weight.data[[1, 3]] = 0.0
    masked[1].bias.data[[1, 3]] = 0.0
    beneath = masked[0].weight
    rows = torch.tensor([True, False, True, False]).view(4, 1, 1, 1).expand(beneath.shape).clone()
    mount_(masked[0], effective, {"mask": rows})
    found = scales(masked, beneath)
    assert found is not None
    assert float(plain[1].weight.grad.abs().min()) > 0
    torch.testing.assert_close(found.float(), plain[1].weight.grad, rtol=1e-4, atol=1e-5)


def test_without_a_norm_it_is_the_gradient_of_a_factor_on_the_channel() -> None:
    model = net(norm=None)
    found = scales(model)
    factor = torch.ones(4, requires_grad=True)
    other = net(norm=None)
    weight = other[0].weight.detach()
    other[0].weight.requires_grad_(False)
    del other[0]._parameters["weight"]
    other[0].weight = weight * factor.view(4, 1, 1, 1)
    loss(other).backward()
    torch.testing.assert_close(found.float(), factor.grad, rtol=1e-4, atol=1e-5)


def test_a_skipped_step_and_an_evaluation_go_by() -> None:
    model = net()
    with ScaleGradients(model, {"0": model[0].weight}) as found:
        loss(model).backward()
        found.before_step()  # no after_step: the optimizer took none
        assert found.fields() == {}
        model.eval()
        loss(model).backward()
        found.after_step()
        assert found.fields() == {}
        model.train()
        functional.reset_net(model)
        loss(copy.deepcopy(model)).backward()  # the copy carries the hooks along
        found.after_step()
        assert found.fields() == {}
    assert not model[0]._forward_hooks
    assert not model[1]._forward_hooks


def test_steps_add_up_with_their_signs_and_state_goes_on() -> None:
    model = net()
    once = scales(net())
    with ScaleGradients(model, {"0": model[0].weight}) as found:
        for sign in (1.0, 1.0, -1.0):
            (sign * loss(model)).backward()
            found.after_step()
        torch.testing.assert_close(found.fields()["0"]["scale_grad"], once)
        other = ScaleGradients(net(), {"0": net()[0].weight})
        other.load_state_dict(found.state_dict())
        assert torch.equal(other.fields()["0"]["scale_grad"], found.fields()["0"]["scale_grad"])


def test_a_norm_that_is_no_batch_norm_cannot_be_told() -> None:
    class Group(nn.GroupNorm):
        def __init__(self, channels: int) -> None:
            super().__init__(2, channels)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    assert scales(net(norm=Group)) is None


def test_a_norm_behind_a_pool_lets_nothing_through_and_that_is_told() -> None:
    model = net()
    pooled = nn.Sequential(model[0], layer.AvgPool2d(1, step_mode="m"), *model[1:])
    pooled[2].weight.data[1] = 0.0
    beneath = pooled[0].weight
    rows = torch.tensor([True, False, True, True]).view(4, 1, 1, 1).expand(beneath.shape).clone()
    mount_(pooled[0], effective, {"mask": rows})
    assert scales(pooled, beneath) is None
