import torch
from networks import batch, conv_net
from nni.compression.base.setting import PruningSetting
from nni.compression.pruning import L1NormPruner
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snnsl_plugin.anatomy import is_neuron, reset_
from snnsl_plugin.for_nni import register_settings


class MyConv(nn.Conv2d):
    """A convolution under another name."""


def test_nni_knows_every_neuron_and_layer_of_spikingjelly_afterwards_and_not_before():
    assert "LIFNode" not in PruningSetting.registry
    new = register_settings(MyConv)
    assert {"LIFNode", "PSN", "ParametricLIFNode", "SeqToANNContainer", "WSConv2d", "MyConv"} <= set(new)
    assert PruningSetting.registry["LIFNode"].keys() == {"_output_"}
    assert PruningSetting.registry["WSConv2d"].keys() == {"weight", "bias"}
    assert PruningSetting.registry["ThresholdDependentBatchNorm2d"].keys() == {"weight", "bias"}
    assert PruningSetting.registry["MyConv"].keys() == {"weight", "bias"}
    assert all(
        PruningSetting.registry[name].keys() == {"_output_"}
        for name in new
        if hasattr(neuron, name) and is_neuron(getattr(neuron, name).__new__(getattr(neuron, name)))
    )


def test_what_is_registered_already_stays():
    conv = PruningSetting.registry["Conv2d"]
    PruningSetting.register("LIFNode", {"_output_": {"sparse_ratio": None}})
    new = register_settings()
    assert PruningSetting.registry["Conv2d"] is conv
    assert "LIFNode" not in new
    assert register_settings() == []


def test_outputs_of_neurons_are_pruned_by_nni_s_own_pruner():
    register_settings()
    model = conv_net()
    pruner = L1NormPruner(model, [{"op_names": ["5"], "target_names": ["_output_"], "sparse_ratio": 0.5}])
    pruner.track_forward(batch(0)[0])
    reset_(model)
    space = pruner._target_spaces["5"]["_output_0"]
    assert space.shape == [3, 8, 8, 2, 2]


def test_a_convolution_with_standardised_weights_can_be_selected():
    register_settings()
    model = nn.Sequential(layer.WSConv2d(2, 4, 3))
    _, masks = L1NormPruner(model, [{"op_types": ["WSConv2d"], "sparse_ratio": 0.5}]).compress()
    assert int((masks["0"]["weight"].flatten(1).sum(1) > 0).sum()) == 2
    assert torch.is_tensor(masks["0"]["bias"])
