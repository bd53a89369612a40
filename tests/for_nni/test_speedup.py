import copy
import inspect
import logging

import pytest
import torch
from networks import conv_net
from nni.compression.pruning import L1NormPruner, SlimPruner
from spiking_pipelines import NETWORKS, Training, batches, evaluator, network
from torch import nn

from snnsl_plugin.anatomy import reset_, weight_layers
from snnsl_plugin.errors import BadOption, CannotCut, NothingMatched, NothingRemoved
from snnsl_plugin.for_nni import SpikingDynamicPruner, apply_masks_, export_masks
from snnsl_plugin.for_nni.speedup import SpikingModelSpeedup
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.models.spiking_vgg import spiking_vgg

X = batches(1)[0][0]
SPIKING = [name for name in NETWORKS if name != "ann"]


def convolutions(net):
    return [name for name, layer in weight_layers(net).items() if not isinstance(layer, nn.Linear)]


def with_rows_masked(net, ratio=0.5):
    """NNI's own pruner on the convolutions; the model unwrapped, the masks as `compress()` returns them."""
    pruner = L1NormPruner(net, [{"op_names": convolutions(net), "sparse_ratio": ratio}])
    _, masks = pruner.compress()
    pruner.unwrap_model()
    return masks


@torch.no_grad()
def outputs(net, x):
    net.eval()
    reset_(net)
    out = net(x.double())
    reset_(net)
    return out


@torch.no_grad()
def masked(net, masks, silenced):
    """The oracle: NNI's masks applied to the dense network, and what was reported as silenced held at zero by hand."""
    net = copy.deepcopy(net).double()
    apply_masks_(net, masks)
    for name, channels in silenced.items():
        for tensor in net.get_submodule(name).parameters(recurse=False):
            if tensor.dim() == 1:
                tensor[channels] = 0.0
    return net


def firing(net, x):
    """Norms that have seen data, and shifts that make many channels fire without input."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.bias, -0.5, 1.5)
    net.train()
    with torch.no_grad():
        net(x)
    reset_(net)
    return net.eval()


def sped_up(net, masks, x):
    """Cuts, and checks that the very model given now computes what the masked one computed."""
    dense = copy.deepcopy(net)
    speedup = SpikingModelSpeedup(net, x, masks)
    assert speedup.speedup_model() is net
    wanted = outputs(masked(dense, masks, speedup.removed.silenced), x)
    assert wanted.std() > 0
    torch.testing.assert_close(outputs(copy.deepcopy(net).double(), x), wanted, rtol=1e-12, atol=1e-12)
    assert sum(p.numel() for p in net.parameters()) == speedup.removed.parameters[1] < speedup.removed.parameters[0]
    return speedup


@pytest.mark.parametrize("name", SPIKING)
def test_rows_that_nni_masked_are_cut(name):
    net = firing(network(name), X)
    masks = export_masks(with_rows_masked(net))
    speedup = sped_up(net, masks, X)
    assert {name: targets.keys() for name, targets in speedup.masks.items()} == {n: t.keys() for n, t in masks.items()}
    assert sorted(len(gone) for gone in speedup.removed.channels.values()) == [3, 4]
    assert speedup.removed.silenced
    assert all(
        mask.shape == getattr(net.get_submodule(module), target).shape and mask.all()
        for module, targets in speedup.masks.items()
        for target, mask in targets.items()
    )


@pytest.mark.parametrize("name", SPIKING)
@pytest.mark.filterwarnings("ignore")
def test_nni_itself_cannot_speed_up_these_networks(name):
    # When this fails, NNI has been mended: compare what it returns with ours.
    from nni.compression.speedup import ModelSpeedup

    net = network(name)
    masks = with_rows_masked(net)
    with pytest.raises((AttributeError, RuntimeError, TypeError, KeyError, AssertionError)):
        ModelSpeedup(net, X, masks).speedup_model()(X)


def zoo(name):
    torch.manual_seed(0)
    if name == "spiking_cnn":
        return spiking_cnn((1, 8, 8), 10, channels=[8, 16], hidden=32, v_threshold=0.3), (2, 3, 1, 8, 8)
    if name == "vgg":
        return spiking_vgg((3, 32, 32), 5, depth=11), (2, 2, 3, 32, 32)
    return sew_resnet((3, 8, 8), 5), (2, 2, 3, 8, 8)


@pytest.mark.parametrize(
    "name", ["spiking_cnn", pytest.param("vgg", marks=pytest.mark.slow), pytest.param("sew", marks=pytest.mark.slow)]
)
def test_models_of_the_zoo_are_cut(name):
    net, shape = zoo(name)
    x = torch.rand(shape)
    net = firing(net, x)
    # A residual sum keeps a channel that one of its branches writes; NNI masks branches without asking each other.
    assert sped_up(net, with_rows_masked(net), x).removed.channels


def test_fine_grained_masks_of_the_dynamic_pruner_are_cut():
    net = network("snn_m")
    pruner = SpikingDynamicPruner(
        net,
        [{"op_names": ["conv1", "conv2", "fc"], "sparse_ratio": 0.92}],
        evaluator(net, Training()),
        interval_steps=2,
        total_times=3,
    )
    _, masks = pruner.compress(max_steps=8, max_epochs=None)
    pruner.unwrap_model()
    reset_(net)
    speedup = sped_up(net, masks, X)
    for name, targets in speedup.masks.items():
        weight = net.get_submodule(name).weight
        assert weight.shape == targets["weight"].shape
        assert not weight[~targets["weight"]].any()


def test_scales_that_slim_masked_are_cut():
    net = firing(network("snn_m"), X)
    pruner = SlimPruner(net, [{"op_names": ["bn1", "bn2"], "sparse_ratio": 0.5}], evaluator(net), training_steps=2)
    _, masks = pruner.compress(None, None)
    pruner.unwrap_model()
    reset_(net)
    gone = {f"conv{i}": (masks[f"bn{i}"]["weight"] == 0).nonzero().flatten().tolist() for i in (1, 2)}
    speedup = sped_up(net, masks, X)
    assert speedup.removed.channels == {name: channels for name, channels in gone.items() if channels}


def test_masks_come_from_a_file_too_also_as_nni_saves_them(tmp_path):
    net = network("snn_m")
    masks = with_rows_masked(net)
    torch.save(masks, tmp_path / "nni.pt")
    torch.save(export_masks(masks), tmp_path / "plain.pt")
    sizes = set()
    for given in (masks, tmp_path / "nni.pt", str(tmp_path / "plain.pt")):
        speedup = SpikingModelSpeedup(copy.deepcopy(net), X, given)
        speedup.speedup_model()
        sizes.add(speedup.removed.parameters)
    assert len(sizes) == 1


def test_options_without_a_use_are_answered_with_a_sentence(caplog):
    net = network("snn_m")
    masks = with_rows_masked(net)
    with caplog.at_level(logging.WARNING):
        SpikingModelSpeedup(net, X, masks, None, 1, customized_replacers=[object()], garbage_collect_values=False)
    assert "makes no use of batch_dim, customized_replacers, garbage_collect_values: channels are found" in caplog.text
    caplog.clear()
    SpikingModelSpeedup(net, X, masks)
    assert not caplog.text


@pytest.mark.filterwarnings("ignore:.*_register_pytree_node.*:FutureWarning")
def test_the_signature_begins_with_that_of_nni():
    from nni.compression.speedup import ModelSpeedup

    theirs = list(inspect.signature(ModelSpeedup).parameters.values())
    ours = list(inspect.signature(SpikingModelSpeedup).parameters.values())
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
    assert [p.default for p in ours[: len(theirs)]] == [p.default for p in theirs]


def test_what_cannot_be_cut_by_is_refused(tmp_path):
    net = network("snn_m")
    with pytest.raises(BadOption, match="no file of masks at"):
        SpikingModelSpeedup(net, X, tmp_path / "none.pt")
    (tmp_path / "bad.pt").write_bytes(b"no masks")
    with pytest.raises(BadOption, match="holds no masks that can be loaded"):
        SpikingModelSpeedup(net, X, tmp_path / "bad.pt")
    with pytest.raises(BadOption, match="masks are list"):
        SpikingModelSpeedup(net, X, [])
    with pytest.raises(BadOption, match=r"masks by parameter name.*compact"):
        SpikingModelSpeedup(net, X, {"conv1.weight": torch.ones(6, 1, 3, 3)})
    with pytest.raises(BadOption, match="other values than 0 and 1"):
        SpikingModelSpeedup(net, X, {"conv1": {"weight": torch.full((6, 1, 3, 3), 0.5)}})
    with pytest.raises(BadOption, match=r"'conv1' has a mask of '_output_0', and only parameters"):
        SpikingModelSpeedup(net, X, {"conv1": {"_output_0": torch.zeros(6)}})
    with pytest.raises(NothingMatched, match="module 'conv7' that this model does not have; did you mean 'conv"):
        SpikingModelSpeedup(net, X, {"conv7": {"weight": torch.ones(6, 1, 3, 3)}})


def test_a_model_still_wrapped_is_refused():
    net = network("snn_m")
    pruner = L1NormPruner(net, [{"op_names": ["conv1"], "sparse_ratio": 0.5}])
    _, masks = pruner.compress()
    with pytest.raises(BadOption, match=r"'conv1' is wrapped by a pruner of NNI: call its `unwrap_model"):
        SpikingModelSpeedup(net, X, masks).speedup_model()


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_masks_that_spare_every_channel_are_an_error_and_the_model_stays():
    net = conv_net()
    before = state(net)
    mask = torch.ones(6, 1, 3, 3)
    mask[:, :, 0, 0] = 0
    with pytest.raises(NothingRemoved, match="no channel was cut"):
        SpikingModelSpeedup(net, torch.rand(2, 1, 1, 4, 4), {"0": {"weight": mask}}).speedup_model()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


class Shifted(nn.Module):
    def forward(self, x):
        return x + 1.0


def test_what_would_not_compute_the_same_is_refused_by_name_and_the_model_stays():
    net = nn.Sequential(nn.Linear(4, 6), Shifted(), nn.Linear(6, 2))
    before = state(net)
    mask = torch.ones(6, 4)
    mask[3] = 0
    with pytest.raises(CannotCut, match="^'0' cannot be cut"):
        SpikingModelSpeedup(net, torch.ones(2, 4), {"0": {"weight": mask}}).speedup_model()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
