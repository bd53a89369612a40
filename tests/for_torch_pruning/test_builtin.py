"""All of Torch-Pruning's importances and pruners on a spiking network in multi-step mode."""

import inspect
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from networks import batch, conv_net
from spikingjelly.activation_based import functional
from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch_pruning import (
    SpikingBNScalePruner,
    SpikingGroupNormPruner,
    SpikingGrowingRegPruner,
    SpikingPruner,
)

HALF = [3, 4, 5]  # of 6 and 8 channels, and 5 classes
#: what is left of each layer, or why not
IMPORTANCES = {
    "GroupMagnitudeImportance": HALF,
    "MagnitudeImportance": HALF,
    "BNScaleImportance": [3, 8, 5],  # the second convolution has no batch norm, so it is skipped
    "LAMPImportance": HALF,
    "FPGMImportance": HALF,
    "RandomImportance": HALF,
    "GroupTaylorImportance": HALF,
    "TaylorImportance": HALF,
    "GroupHessianImportance": HALF,
    "HessianImportance": HALF,
    "OBDCImportance": "fails on every network without attention heads",
    "ActivationImportance": "takes axis 1 for the channels, which is the batch in multi-step mode",
}
PRUNERS = {
    "BasePruner": SpikingPruner,
    "GroupNormPruner": SpikingGroupNormPruner,
    "BNScalePruner": SpikingBNScalePruner,
    "GrowingRegPruner": SpikingGrowingRegPruner,
    "MetaPruner": SpikingPruner,  # two old names of BasePruner
    "MagnitudePruner": SpikingPruner,
}


def classes(module, parent):
    return {name: each for name, each in vars(module).items() if inspect.isclass(each) and issubclass(each, parent)}


def test_the_tables_name_all_that_is_installed():
    importances = classes(tp.importance, tp.importance.Importance)
    assert set(importances) - {"Importance"} == set(IMPORTANCES)
    assert set(classes(tp.pruner, tp.pruner.BasePruner)) == set(PRUNERS)
    assert tp.pruner.MetaPruner is tp.pruner.MagnitudePruner is tp.pruner.BasePruner


def widths(model):
    return [module.weight.shape[0] for module in model if isinstance(module, nn.Conv2d | nn.Linear)]


def prepared(name, model):
    """An importance with what it needs: gradients, or activations."""
    x, y = batch()
    importance = getattr(tp.importance, name)()
    with importance.compute_importance(model) if hasattr(importance, "compute_importance") else nullcontext():
        loss = F.cross_entropy(model(x).mean(0), y)
    loss.backward()
    if hasattr(importance, "accumulate_grad"):
        importance.accumulate_grad(model)
    functional.reset_net(model)
    return importance


@pytest.mark.parametrize("pruner", list(dict.fromkeys(PRUNERS.values())))
@pytest.mark.parametrize("name", IMPORTANCES)
def test_every_importance_in_every_pruner_passes_or_is_refused_with_the_reason(name, pruner):
    model, (x, _) = conv_net(), batch()
    importance, expected = prepared(name, model), IMPORTANCES[name]
    if isinstance(expected, str):
        before = [(parameter, parameter.clone()) for parameter in model.parameters()]
        with pytest.raises(BadOption, match=expected):
            pruner(model, x, importance, ignored_layers=[model[-1]])
        after = list(model.parameters())
        assert all(a is p and torch.equal(a, value) for a, (p, value) in zip(after, before, strict=True))
    else:
        made = pruner(model, x, importance, ignored_layers=[model[-1]])  # verifies what it cuts
        assert {name: len(gone) for name, gone in made.step().channels.items()} == {
            name: width - left for name, width, left in zip("04", [6, 8], expected, strict=False) if width > left
        }
        assert widths(model) == expected
        functional.reset_net(model)
        assert model(x).shape == (3, 8, 5)


def test_the_two_that_are_refused_do_fail_in_the_host():
    model, (x, _) = conv_net(), batch()
    pruner = SpikingPruner(model, x, tp.importance.MagnitudeImportance(), ignored_layers=[model[-1]])
    with pytest.raises(TypeError, match="NoneType"):
        tp.importance.OBDCImportance()._prepare_model(model, pruner)
    activations = prepared("ActivationImportance", model)
    group = pruner.DG.get_pruning_group(model[0], tp.prune_conv_out_channels, list(range(6)))
    with pytest.raises(RuntimeError, match="Index tensor must have the same number of dimensions"):
        activations(group)


@pytest.mark.parametrize("flattened", [False, True])
def test_activations_of_single_steps_are_taken_unless_the_host_miscounts_them(flattened):
    model, (x, _) = conv_net(), batch()
    if not flattened:
        model[6], model[7] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(8, 5)
    functional.set_step_mode(model, "s")
    importance = tp.importance.ActivationImportance()
    with importance.compute_importance(model):
        model(x[0])
    pruner = SpikingPruner(model, x[0], importance, ignored_layers=[model[-1]])
    if flattened:  # with one score for each of the 2x2 sites, the host would skip the layer and not say so
        with pytest.raises(BadOption, match=r"scores of shape \(32,\) for 8 channels"):
            pruner.step()
        assert widths(model) == [6, 8, 5]
    else:
        pruner.step()
        assert widths(model) == HALF
