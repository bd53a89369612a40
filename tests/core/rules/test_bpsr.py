import math

import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.bpsr import after_step_, bpsr, drift_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.health.rate_price import rate_price
from snnsl_plugin.training.pruner import DynamicPruner


def test_three_updates_by_hand() -> None:
    mask, half = torch.ones(1, 6, dtype=torch.bool), schedules.constant(value=0.5)
    weight = torch.tensor([[1.0, -0.5, 0.25, -0.125, 0.75, 0.0]])
    grad = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])

    def updated() -> list[bool]:
        nonlocal mask
        mask = bpsr(
            [Layer("fc", weight, {"mask": mask}, grad=grad)], 0.0, threshold=schedules.constant(value=0.25), regrow=half
        )["fc"]["mask"]
        after_step_(weight, {"mask": mask})
        return mask.flatten().tolist()

    # Shrunk by 0.25, and those at or below 0.25 go: three. None was dead before, so none can come back.
    drift_(weight, {}, 0.5, penalty=0.5)
    assert weight.tolist() == [[0.75, -0.25, 0.0, 0.0, 0.5, 0.0]]
    assert updated() == [True, False, False, False, True, False]
    # Two go, so one of the four that were dead grows: that of the largest gradient.
    drift_(weight, {}, 0.5, penalty=1.0)
    assert weight.tolist() == [[0.25, 0.0, 0.0, 0.0, 0.0, 0.0]]
    assert updated() == [False, False, False, False, False, True]
    # The newborn has moved past the threshold and stays.
    weight[0, 5] = -0.375
    assert updated() == [False, False, False, False, False, True]


def slow_bpsr(weight: list[float], mask: list[bool], grad: list[float], threshold: float, share: float) -> list[bool]:
    kept = [m and abs(w) > threshold for w, m in zip(weight, mask, strict=True)]
    dead = sorted((i for i, m in enumerate(mask) if not m), key=lambda i: (-abs(grad[i]), i))
    for i in dead[: math.floor(share * (sum(mask) - sum(kept)))]:
        kept[i] = True
    return kept


def test_equals_the_slow_oracle_on_tied_inputs() -> None:
    generator, grew = torch.Generator().manual_seed(0), 0
    for _ in range(60):
        weight, grad = ((torch.randn(5, 4, 3, 3, generator=generator) * 2).round() / 4 for _ in range(2))
        mask = torch.rand(5, 4, 3, 3, generator=generator) < float(torch.rand(1, generator=generator))
        share = float(torch.rand(1, generator=generator))
        layer = Layer("conv", weight * mask, {"mask": mask}, grad=grad)
        found = bpsr([layer], 0.0, threshold=schedules.constant(value=0.25), regrow=schedules.constant(value=share))[
            "conv"
        ]["mask"]
        flat = [each.flatten().tolist() for each in (layer.weight, mask, grad)]
        assert found.flatten().tolist() == slow_bpsr(*flat, 0.25, share)
        grew += int((found & ~mask).sum())
    assert grew > 0


def test_weights_shrink_alike_and_stop_at_zero() -> None:
    weight = (torch.randn(100, generator=torch.Generator().manual_seed(1)) * 4).round() / 4
    before = weight.clone()
    drift_(weight, {}, 0.25, penalty=2.0)
    assert weight.tolist() == [math.copysign(max(abs(w) - 0.5, 0.0), w) for w in before.tolist()]


def trained(price: float) -> tuple[DynamicPruner, float, list[float]]:
    """A pruner, the mean rate in the last ten steps, and the densities."""
    net = conv_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    pruner = DynamicPruner(
        net, optimizer, "bpsr", threshold=schedules.linear(first=0.0, last=0.05), penalty=0.05,
        regrow=schedules.cosine(first=0.5, last=0.0), every="5it", until="60it", total_steps=80,
    )  # fmt: skip
    fired: list[float] = []
    net[5].register_forward_hook(lambda module, args, spikes: fired.append(float(spikes.detach().mean())))
    densities = []
    with rate_price(net, weight=price) as care:
        for step in range(80):
            x, target = batch(step)
            reset_(net)
            care.before_step(step + 1)
            loss = torch.nn.functional.cross_entropy(net(x).mean(0), target)
            (loss + care.penalty()).backward()
            optimizer.step()
            pruner.step()
            optimizer.zero_grad()
            densities.append(pruner.density)
    return pruner, sum(fired[-10:]) / 10, densities


def test_in_training_synapses_and_spikes_become_few_and_some_synapses_return() -> None:
    pruner, busy, densities = trained(1e-6)
    _, quiet, _ = trained(3.0)
    assert quiet < 0.7 * busy
    assert densities[-1] < 0.6
    assert pruner.born > 0
    assert densities[59:] == [densities[59]] * 21  # after the last update the structure stays
    assert all(not weight[~mask].any() for weight, mask in zip(_weights(pruner), pruner.masks.values(), strict=True))


def _weights(pruner: DynamicPruner) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in pruner.by_parameter()]


@pytest.mark.parametrize("options", [
    {"threshold": schedules.constant(value=-1.0)}, {"penalty": float("nan")}, {"regrow": schedules.constant(value=1.5)},
])  # fmt: skip
def test_options_out_of_range_are_refused_before_training(options) -> None:
    net, given = conv_net(), {"threshold": schedules.constant(value=0.1)} | options
    with pytest.raises(BadOption, match=next(iter(options))):
        DynamicPruner(net, torch.optim.SGD(net.parameters(), lr=0.1), "bpsr", total_steps=10, **given)
