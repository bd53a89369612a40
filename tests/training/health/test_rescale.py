import math

import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import neuron
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.health.rescale import rescale
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner


def changed(net: nn.Linear, after: list[list[float]], **options) -> list[list[float]]:
    with rescale(net, **options) as care:
        care.before_step(1)
        net.weight.data = torch.tensor(after)
        care.after_update(1)
    return net.weight.tolist()


def linear(rows: list[list[float]]) -> nn.Linear:
    net = nn.Linear(len(rows[0]), len(rows), bias=False)
    net.weight.data = torch.tensor(rows)
    return net


def test_by_hand() -> None:
    before, after = [[3.0, 4.0, 0.0], [12.0, 0.0, 0.0]], [[3.0, 0.0, 0.0], [12.0, 0.0, 0.0]]
    # 169 / 153 over the layer; 25 / 9 and 1 by channel, of which the first is more than 1.5
    factor = 13 / math.sqrt(153)
    assert changed(linear(before), after) == [
        pytest.approx([3 * factor, 0, 0]), pytest.approx([12 * factor, 0, 0])
    ]  # fmt: skip
    assert changed(linear(before), after, per="channel") == [pytest.approx([5, 0, 0]), [12, 0, 0]]
    assert changed(linear(before), after, per="channel", most=1.5) == [pytest.approx([4.5, 0, 0]), [12, 0, 0]]


def test_a_step_of_the_optimizer_and_newborns_do_not_count() -> None:
    # What the step has moved is scaled by the ratio of what was there before; the newborn is 0 and stays 0.
    assert changed(linear([[3.0, 4.0, 0.0]]), [[6.0, 0.0, 0.0]]) == [pytest.approx([10.0, 0.0, 0.0])]


def test_where_nothing_went_or_nothing_is_left_nothing_changes() -> None:
    assert changed(linear([[0.25, 0.75]]), [[0.25, 0.75]]) == [[0.25, 0.75]]
    rows = changed(linear([[1.0, 1.0], [2.0, 2.0]]), [[0.0, 0.0], [2.0, 0.0]], per="channel")
    assert rows == [[0.0, 0.0], pytest.approx([2 * math.sqrt(2), 0.0])]


@pytest.mark.parametrize("per", ["layer", "channel"])
def test_in_training_the_drives_second_moment_is_kept_at_each_update(per: str) -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # so that only updates and factors move weights
    pruner = DynamicPruner(
        model, optimizer, density=schedules.linear(first=1.0, last=0.4), every="2it", until="8it", total_steps=8
    )
    axes = (1, 2, 3) if per == "channel" else (0, 1, 2, 3)
    first = model[4].weight.detach().double().square().sum(axes)
    updates = 0
    with rescale(model, per=per, most=100.0) as care:
        for step in range(1, 9):
            x, y = batch(step)
            reset_(model)
            care.before_step(step)
            cross_entropy(model(x), y).backward()
            optimizer.step()
            if pruner.step():
                care.after_update(step)
                updates += 1
            optimizer.zero_grad()
            alive = (model[4].weight != 0).sum(axes) > 0
            now = model[4].weight.detach().double().square().sum(axes)
            torch.testing.assert_close(now[alive], first[alive], rtol=1e-5, atol=0)
            assert torch.equal(model[4].weight != 0, pruner.masks["4.weight"])
    assert updates == 4


def test_a_factor_on_the_weights_is_one_on_the_threshold() -> None:
    x = torch.rand(6, 4, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    weights = nn.Linear(8, 5, bias=False)
    scaled = nn.Linear(8, 5, bias=False)
    scaled.weight.data = 2.0 * weights.weight.detach()
    one = neuron.LIFNode(v_threshold=0.25, step_mode="m")(weights(x))
    other = neuron.LIFNode(v_threshold=0.5, step_mode="m")(scaled(x))
    assert torch.equal(one, other)
    assert 0 < one.mean() < 1


def test_a_rule_that_computes_weights_and_options_outside_their_range_are_refused() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = DynamicPruner(model, optimizer, "stds", threshold=schedules.sine(last=0.1), total_steps=8)
    with pytest.raises(BadOption, match="rescale: the weights of '0' are computed"):
        rescale(model).__enter__()
    pruner.finish()
    for options in ({"per": "row"}, {"most": 1.0}):
        with pytest.raises(BadOption):
            rescale(model, **options)
