"""A pruner that starts from a given mask, and residual blocks that lose all they have while a network trains."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from networks import batch, sew_net
from torch import nn

from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.core import schedules
from snnsl_plugin.core.distributions.given import given
from snnsl_plugin.core.evolution import heir_scores
from snnsl_plugin.errors import BadOption, Disconnected, NothingMatched
from snnsl_plugin.metrics.depth import depth, identities
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

DEAD = ["stage.1.conv1", "stage.1.conv2"]
#: half of everything but the second block, which has nothing
WITHOUT = partial(given, densities={"stem": 0.5, "head": 0.5, "stage.0.conv1": 0.5, "stage.0.conv2": 0.5}
                  | dict.fromkeys(DEAD, 0.0))  # fmt: skip


def pruner_of(model: nn.Module, **options) -> DynamicPruner:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    common = {"every": "2it", "until": "12it", "density": schedules.linear(first=1.0, last=0.3)}
    return DynamicPruner(model, optimizer, **(common | options))


def train(model: nn.Module, pruner: DynamicPruner, steps: int) -> None:
    x, y = batch(samples=16)
    for _ in range(steps):
        reset_(model)
        cross_entropy(model(x), y).backward()
        pruner._optimizer.step()
        pruner.step()
        pruner._optimizer.zero_grad()


# --- a mask to start from ---------------------------


def test_a_sparse_start_takes_the_connections_that_score_first():
    model = sew_net()
    generator = torch.Generator().manual_seed(3)
    masks = {
        name: torch.rand(layer.weight.shape, generator=generator) < 0.2 for name, layer in weight_layers(model).items()
    }
    first = {
        name: heir_scores(mask, model.get_submodule(name).weight.detach(), generator) for name, mask in masks.items()
    }
    pruner = pruner_of(model, first=first, distribution="uniform", density=schedules.linear(first=0.5, last=0.3))
    for name, mask in masks.items():
        start = pruner.masks[f"{name}.weight"]
        assert int(start.sum()) == pytest.approx(0.5 * mask.numel(), abs=1)
        assert bool((start | ~mask).all())
        assert not model.get_submodule(name).weight[~start].any()


def test_layers_without_scores_start_at_random_as_ever():
    one, other = (
        pruner_of(sew_net(), density=schedules.constant(value=0.5), first=first).masks for first in (None, {})
    )
    assert all(mask.equal(other[name]) for name, mask in one.items())


# --- blocks that vanish -----------------------------


def test_a_layer_may_not_vanish_unless_it_is_said():
    with pytest.raises(BadOption, match=r"layer 'stage.1.conv1' would keep none of its 324 weights"):
        pruner_of(sew_net(), distribution=WITHOUT)
    pruner_of(sew_net(), distribution=WITHOUT, vanish=["stage.1.*"])


def test_vanishing_needs_the_trace_and_a_layer():
    with pytest.raises(BadOption, match="vanish needs paths"):
        pruner_of(sew_net(), vanish=["stage.*"], paths=False)
    with pytest.raises(NothingMatched, match=r"'stages.\*' matches no layer"):
        pruner_of(sew_net(), vanish=["stages.*"])


@pytest.mark.parametrize("first", [1.0, 0.6])
def test_a_block_that_dies_while_the_network_trains_is_an_identity_from_then_on(first):
    model, x = sew_net(), batch(samples=16)[0]
    density = schedules.linear(first=first, last=0.25)
    pruner = pruner_of(model, distribution=WITHOUT, density=density, vanish=["stage.1.*"])
    block = model.stage[1]
    with torch.no_grad():  # its last neuron fires by the shift of its norm alone, unless somebody holds it at zero
        block.bn2.bias.fill_(1.0)
    assert identities(model, x, ["stage.1"]) == {"stage.1": False}
    train(model, pruner, 12)
    assert depth(model, x[:1, :1], pruner.masks).dead == ["stage.1"]
    assert depth(model, x[:1, :1], pruner.masks).layers == 4
    assert sum(int(mask.sum()) for mask in pruner.masks.values()) == round(
        0.25 * sum(mask.numel() for mask in pruner.masks.values())
    )
    train(model, pruner, 5)  # and stays so while the others learn
    pruner.finish()
    assert identities(model, x, ["stage.0", "stage.1"]) == {"stage.0": False, "stage.1": True}
    # the network computes what it computes without the block
    reset_(model)
    without = copy.deepcopy(model.eval())
    without.stage[1] = nn.Identity()
    with torch.no_grad():
        answer = model(x)
        assert answer.any()
        assert answer.equal(without(x))


def test_a_network_without_any_path_is_still_an_error():
    model = sew_net(joined="AND")  # without its branch it is nothing, and so is all behind it
    pruner = pruner_of(
        model, distribution=WITHOUT, density=schedules.linear(first=1.0, last=0.25), vanish=["stage.1.*"]
    )
    with pytest.raises(Disconnected, match="no path leads from the input to the output"):
        train(model, pruner, 12)
