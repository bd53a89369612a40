"""Depth: chains by hand, against an explicit search over units, then residual blocks and what is left when they die."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from networks import batch, sew_net
from torch import Tensor, nn

from snnsl_plugin.anatomy import neurons
from snnsl_plugin.metrics.depth import depth, identities, residual_blocks
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn

BLOCKS = ["stage.0", "stage.1"]


class Skipping(nn.Module):
    """Four layers of three units, two of which can be passed by."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3, self.fc4 = (nn.Linear(3, 3, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x)
        x = self.fc2(x) + x
        x = self.fc3(x) + x
        return self.fc4(x)


def full(net: nn.Module) -> dict[str, Tensor]:
    return {
        f"{name}.weight": torch.ones_like(module.weight, dtype=torch.bool)
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


# --- chains -----------------------------------------


def test_a_chain_by_hand():
    net = Skipping()
    masks = full(net)
    assert depth(net, torch.zeros(1, 3)).layers == 4
    masks["fc2.weight"][:] = False
    assert depth(net, torch.zeros(1, 3), masks).layers == 3
    masks["fc3.weight"][:] = False
    assert depth(net, torch.zeros(1, 3), masks).layers == 2
    masks["fc4.weight"][:] = False
    assert depth(net, torch.zeros(1, 3), masks).layers == 0


def test_layers_side_by_side_are_no_chain():
    net = Skipping()
    masks = {name: torch.zeros(3, 3, dtype=torch.bool) for name in full(net)}
    masks["fc1.weight"] = torch.eye(3).bool()
    masks["fc2.weight"][0, 0] = True  # in place 0 and out of it
    masks["fc3.weight"][1, 1] = True  # another place, so fc2 does not feed it
    masks["fc4.weight"][:] = True
    assert depth(net, torch.zeros(1, 3), masks).layers == 3


def searched(net: Skipping, masks: dict[str, Tensor]) -> int:
    """The longest chain by listing every path from unit to unit: slow, and without any gradient."""
    kept = [masks[f"fc{number}.weight"].tolist() for number in (1, 2, 3, 4)]
    paths = [([1], unit) for unit in range(3) for given in range(3) if kept[0][unit][given]]  # layers so far, and where
    for number in (2, 3):
        passed_by = paths
        through = [([*past, number], to) for past, at in paths for to in range(3) if kept[number - 1][to][at]]
        paths = passed_by + through
    whole = [[*past, 4] for past, at in paths for to in range(3) if kept[3][to][at]]
    feeds = {pair for path in whole for pair in pairwise(path)}
    longest: dict[int, int] = {}
    for number in sorted({each for path in whole for each in path}):
        longest[number] = 1 + max((longest[one] for one, other in feeds if other == number), default=0)
    return max(longest.values(), default=0)


@pytest.mark.parametrize("seed", range(40))
def test_equals_a_search_over_units(seed):
    net = Skipping()
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.rand(3, 3, generator=generator) < 0.25 for name in full(net)}
    assert depth(net, torch.zeros(1, 3), masks).layers == searched(net, masks)


def test_the_depth_of_models_is_that_of_their_names():
    x = torch.zeros(1, 1, 1, 8, 8)
    assert depth(spiking_cnn((1, 8, 8), 10), x).layers == 4
    assert depth(sew_resnet((1, 8, 8), 10), x).layers == 18
    assert depth(sew_resnet((1, 8, 8), 10, depth=50), x).layers == 50


# --- blocks -----------------------------------------


@pytest.mark.parametrize(("joined", "found"), [("ADD", BLOCKS), ("IAND", BLOCKS), ("AND", [])])
def test_a_block_is_one_whose_branch_can_be_missing(joined, found):
    net = sew_net(joined=joined)
    assert list(residual_blocks(net, batch()[0][:1, :1])) == found


def test_a_shortcut_with_a_convolution_makes_no_identity():
    net = sew_resnet((1, 8, 8), 10)
    found = residual_blocks(net, torch.zeros(1, 1, 1, 8, 8))
    assert list(found) == ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert found["layer2.1"] == ["layer2.1.conv1", "layer2.1.conv2"]


def test_networks_without_residuals_have_no_blocks():
    assert residual_blocks(spiking_cnn((1, 8, 8), 10), torch.zeros(1, 1, 1, 8, 8)) == {}


@pytest.mark.parametrize("gone", ["conv1", "conv2"])
def test_one_empty_layer_is_enough_for_a_block_to_be_dead(gone):
    net, x = sew_net(), batch()[0]
    masks = full(net)
    masks[f"stage.1.{gone}.weight"][:] = False
    found = depth(net, x[:1, :1], masks)
    assert found.layers == 4
    assert found.dead == ["stage.1"]
    assert found.blocks["stage.0"] > 0


def test_a_branch_that_fires_by_its_shift_alone_is_no_identity():
    net, x = sew_net(), batch()[0]
    block = net.stage[0]
    with torch.no_grad():
        block.conv2.weight.zero_()
    assert identities(net, x, ["stage.0"]) == {"stage.0": True}
    with torch.no_grad():
        block.bn2.bias.fill_(1.0)
    assert identities(net, x, ["stage.0"]) == {"stage.0": False}


def test_the_model_is_left_as_it_was():
    net, x = sew_net(), batch()[0]
    net.train()
    net(x)
    before = {name: each.v.clone() for name, each in neurons(net).items()}
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    depth(net, x[:1, :1])
    identities(net, x, BLOCKS)
    assert net.training
    assert all(each.v.equal(before[name]) for name, each in neurons(net).items())
    assert all(value.equal(weights[name]) for name, value in net.state_dict().items())
    assert all("forward" not in module.__dict__ for module in net.modules())
    assert not any(module._forward_pre_hooks for module in net.modules())
