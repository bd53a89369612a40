import copy
import pickle

import pytest
import torch
from networks import batch, conv_net
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.pruning import L1NormPruner, LevelPruner
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.for_nni.wrapper import DENSE_GRADIENT, LightWrapper, dense_gradient_, lighten_

CONFIG = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.5}]


class Light(LevelPruner):
    """NNI's LevelPruner in light wrappers."""

    def wrap_model(self):
        lighten_(self._module_wrappers)
        super().wrap_model()


def both():
    """The same network, masked, in NNI's wrappers and in ours."""
    made = []
    for pruner_class in (LevelPruner, Light):
        model = conv_net()
        pruner = pruner_class(model, CONFIG)
        _, masks = pruner.compress()
        made.append((model, masks, pruner))
    return made


def test_outputs_and_gradients_are_those_of_nni_bit_by_bit():
    (one, _, _), (other, _, pruner) = both()
    assert {type(wrapper) for wrapper in pruner._module_wrappers.values()} == {LightWrapper}
    for model in (one, other):
        model(batch(0)[0]).square().sum().backward()
    reset_(one)
    reset_(other)
    assert torch.equal(one(batch(1)[0]), other(batch(1)[0]))
    for (name, theirs), ours in zip(one.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(theirs.grad, ours.grad), name


def test_gradients_reach_masked_weights_and_equal_those_of_the_unmasked_weights():
    (_, _, _), (model, masks, pruner) = both()
    for targets in pruner._target_spaces.values():
        dense_gradient_(targets["weight"])
        assert targets["weight"].apply_method == DENSE_GRADIENT
    model(batch(0)[0]).square().sum().backward()
    wrapper = model[7]._nni_wrapper
    dead = masks["7"]["weight"] == 0
    assert wrapper.weight.grad[dead].any()
    twin = nn.Linear(32, 5)
    with torch.no_grad():
        twin.weight.copy_(wrapper.weight * wrapper.weight_mask)
        twin.bias.copy_(wrapper.bias)
    reset_(model)
    spikes = model[:7](batch(0)[0]).detach()
    twin(spikes).square().sum().backward()
    torch.testing.assert_close(twin.weight.grad, wrapper.weight.grad)


def test_after_a_training_pass_nni_s_model_cannot_be_copied_and_ours_can_and_can_be_pickled():
    (one, _, _), (other, _, _) = both()
    for model in (one, other):
        model(batch(0)[0]).sum().backward()
        reset_(model)
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(one)
    x = batch(1)[0]
    expected = other.eval()(x)
    reset_(other)  # a membrane potential has a graph as well
    for twin in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        reset_(twin)
        assert torch.equal(twin(x), expected)


def test_cuda_s_cache_is_left_alone(monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(1))
    (one, _, _), (other, _, _) = both()
    other(batch(0)[0])
    assert not emptied
    one(batch(0)[0])
    assert len(emptied) == 3


def test_masks_on_outputs_are_left_to_nni():
    model = nn.Sequential(nn.Linear(4, 6))
    pruner = L1NormPruner(model, [{"op_names": ["0"], "target_names": ["_output_"], "target_settings": {
        "_output_": {"sparse_ratio": 0.5, "granularity": "per_channel"}}}])  # fmt: skip
    wrapper = pruner._module_wrappers["0"]
    pruner.unwrap_model()
    lighten_(pruner._module_wrappers)
    pruner.wrap_model()
    assert isinstance(wrapper, LightWrapper)
    assert not wrapper._light
    model(torch.ones(2, 4))
    wrapper.pruning_target_spaces["_output_0"].mask = torch.tensor([[1.0, 0, 1, 0, 1, 0]] * 2)
    assert not model(torch.ones(2, 4))[:, 1::2].any()


def test_other_classes_of_wrappers_stay_as_they_are():
    class Foreign(ModuleWrapper):
        pass

    wrapper = Foreign(nn.Linear(2, 2), "fc", {})
    lighten_({"fc": wrapper})
    assert type(wrapper) is Foreign
