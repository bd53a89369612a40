import copy

import pytest
import torch
from compaction.families import FAMILIES
from networks import conv_net
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snnsl_plugin.anatomy import reset_, weight_layers, weight_name
from snnsl_plugin.compaction.compact import compact, compact_
from snnsl_plugin.compaction.recalibration import recalibrate_
from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption, CannotCut, Disconnected, NothingMatched
from snnsl_plugin.models.sew_resnet import sew_resnet
from snnsl_plugin.models.spiking_cnn import spiking_cnn
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

X = torch.rand(3, 4, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2


def lif():
    return neuron.LIFNode(v_threshold=0.2, step_mode="m")


class Block(nn.Module):
    """Two convolutions whose outputs are added, as in a residual network, and one in groups."""

    def __init__(self, groups=1):
        super().__init__()
        self.stem = layer.Conv2d(1, 8, 3, padding=1, bias=False, step_mode="m")
        self.norm = layer.BatchNorm2d(8, step_mode="m")
        self.fire = lif()
        self.inner = layer.Conv2d(8, 8, 3, padding=1, groups=groups, step_mode="m")
        self.again = lif()
        self.outer = layer.Conv2d(8, 8, 3, padding=1, bias=False, step_mode="m")
        self.last = lif()
        self.pool = layer.AdaptiveAvgPool2d(1, step_mode="m")
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.fire(self.norm(self.stem(x)))
        x = x + self.last(self.outer(self.again(self.inner(x))))
        return self.head(self.pool(x).flatten(2))


class Container(nn.Module):
    def __init__(self):
        super().__init__()
        self.block1 = layer.SeqToANNContainer(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.fire1 = lif()
        self.block2 = layer.SeqToANNContainer(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.fire2 = lif()
        self.head = layer.SeqToANNContainer(nn.Flatten(), nn.Linear(128, 5))

    def forward(self, x):
        return self.head(self.fire2(self.block2(self.fire1(self.block1(x)))))


def depthwise():
    return nn.Sequential(
        layer.Conv2d(1, 8, 3, padding=1, step_mode="m"),
        lif(),
        layer.Conv2d(8, 8, 3, padding=1, groups=8, bias=False, step_mode="m"),
        layer.BatchNorm2d(8, step_mode="m"),
        lif(),
        layer.Flatten(step_mode="m"),
        nn.Linear(128, 5),
    )


NETS = {
    "conv_net": conv_net,
    "spiking_cnn": lambda: spiking_cnn((1, 4, 4), 5, channels=[8, 12], hidden=16, v_threshold=0.3),
    "residual": Block,
    "grouped": lambda: Block(groups=2),
    "depthwise": depthwise,
    "container": Container,
    "plif": lambda: spiking_cnn((1, 4, 4), 5, channels=[8], hidden=16, neuron="plif"),
}


def built(name, seed=0):
    """A network whose norms have seen data and whose shifts make many channels fire without input."""
    torch.manual_seed(seed)
    net = NETS[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.bias, -0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 2.0)
    net.train()
    with torch.no_grad():
        net(X)
    reset_(net)
    return net.eval()


def drawn(net, density, seed=0):
    """Random masks; the second output row of each layer (of each group) has none, so that something goes for sure."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, module in weight_layers(net).items():
        mask = torch.rand(module.weight.shape, generator=generator) < density
        groups = getattr(module, "groups", 1)
        mask[[1] if groups in (1, len(mask)) else range(1, len(mask), len(mask) // groups)] = False
        masks[weight_name(name)] = mask
    return masks


@torch.no_grad()
def masked(net, masks, silenced=None):
    """The oracle: the dense network with zeros, and what was reported as silenced held at zero by hand."""
    net = copy.deepcopy(net).double().eval()
    for name, mask in masks.items():
        net.get_parameter(name)[~mask] = 0.0
    for name, channels in (silenced or {}).items():
        for tensor in net.get_submodule(name).parameters(recurse=False):
            if tensor.dim() == 1:
                tensor[channels] = 0.0
    return net


@torch.no_grad()
def outputs(net, x=X):
    reset_(net)
    out = net(x.double())
    reset_(net)
    return out


@pytest.mark.parametrize("density", [0.08, 0.2, 0.5])
@pytest.mark.parametrize("name", NETS)
def test_what_is_left_computes_what_the_masked_network_computes(name, density):
    net = built(name)
    masks = drawn(net, density, seed=3)
    small, left, removed = compact(net, masks, X)
    wanted = outputs(masked(net, masks, removed.silenced))
    torch.testing.assert_close(outputs(copy.deepcopy(small).double()), wanted, rtol=1e-12, atol=1e-12)
    assert removed
    assert sum(p.numel() for p in small.parameters()) == removed.parameters[1] < removed.parameters[0]
    assert left.keys() == masks.keys()
    for parameter, mask in left.items():
        weight = small.get_parameter(parameter)
        assert mask.dtype == torch.bool
        assert mask.shape == weight.shape
        assert not weight[~mask].any()
    assert not compact(small, left, X).removed  # paths are transitive: one pass found all


def test_the_comparison_above_is_not_between_constants():
    net = built("residual")
    masks = drawn(net, 0.5, seed=3)
    _, _, removed = compact(net, masks, X)
    assert outputs(masked(net, masks, removed.silenced)).std(0).max() > 0.01


def test_by_hand_a_row_without_input_and_a_row_without_reader_go():
    net = nn.Sequential(nn.Linear(2, 4), lif(), nn.Linear(4, 2))
    masks = {
        "0.weight": torch.tensor([[1, 1], [0, 0], [1, 0], [0, 1]]) > 0,  # 1 has no input
        "2.weight": torch.tensor([[1, 1, 0, 0], [0, 1, 0, 1]]) > 0,  # 2 has no reader
    }
    small, left, removed = compact(net, masks, torch.ones(3, 2, 2))
    assert removed.channels == {"0": [1, 2]}
    assert left["0.weight"].tolist() == [[True, True], [False, True]]
    assert left["2.weight"].tolist() == [[True, False], [False, True]]
    assert torch.equal(small[0].weight[0], net[0].weight[0])
    assert torch.equal(small[0].bias, net[0].bias[[0, 3]])
    assert removed.parameters == (12 + 10, 6 + 6)


def test_a_channel_without_input_that_fires_by_its_shift_is_reported_and_silencing_it_matters():
    net = built("spiking_cnn")
    masks = {name: torch.ones_like(mask) for name, mask in drawn(net, 1.0).items()}
    masks["conv1.weight"][[1, 4, 5]] = False
    with torch.no_grad():
        net.norm1.weight.fill_(1.0)
        net.norm1.running_mean.zero_()
        net.norm1.bias.copy_(torch.tensor([0.0, 2.0, 0, 0, -2.0, 0.5, 0, 0]))
    small, _, removed = compact(net, masks, X)
    assert removed.channels == {"conv1": [1, 4, 5]}
    assert removed.silenced == {"norm1": [1, 5]}
    got = outputs(copy.deepcopy(small).double())
    torch.testing.assert_close(got, outputs(masked(net, masks, {"norm1": [1, 5]})), rtol=1e-12, atol=1e-12)
    assert (got - outputs(masked(net, masks))).abs().max() > 1e-3


def test_a_layer_with_a_bias_and_no_norm_is_reported_by_its_own_name():
    net = nn.Sequential(nn.Linear(2, 3), lif(), nn.Linear(3, 2))
    nn.init.constant_(net[0].bias, 1.0)
    masks = {"0.weight": torch.tensor([[1, 1], [0, 0], [1, 1]]) > 0}
    assert compact(net, masks, torch.ones(3, 2, 2)).removed.silenced == {"0": [1]}


def test_without_a_neuron_a_negative_bias_acts_as_well_and_is_reported():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    nn.init.constant_(net[0].bias, -1.0)
    masks = {"0.weight": torch.tensor([[1, 1], [0, 0], [1, 1]]) > 0}
    assert compact(net, masks, torch.ones(3, 2)).removed.silenced == {"0": [1]}


def test_a_neuron_that_fires_without_a_push_is_reported_by_its_own_name():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3, bias=False), neuron.PSN(T=3), nn.Linear(3, 2))
    nn.init.constant_(net[1].bias, 1.0)
    masks = {"0.weight": torch.tensor([[1, 1], [0, 0], [1, 1]]) > 0}
    assert compact(net, masks, torch.ones(3, 2, 2)).removed.silenced == {"1": [1]}


def test_in_a_residual_sum_a_channel_goes_only_where_both_branches_are_off():
    net = built("residual")
    masks = {name: torch.ones_like(mask) for name, mask in drawn(net, 1.0).items()}
    masks["stem.weight"][[1, 2]] = False
    masks["outer.weight"][[2, 3]] = False
    _, _, removed = compact(net, masks, X)
    assert removed.channels == {"stem": [2], "outer": [2]}


def test_a_channel_stays_while_one_of_its_sites_is_read():
    net = conv_net().eval()
    masks = {name: torch.ones_like(mask) for name, mask in drawn(net, 1.0).items()}
    masks["7.weight"][:, 4:12] = False  # the sites of channels 1 and 2, four each
    masks["7.weight"][0, 7] = True
    small, left, removed = compact(net, masks, X)
    assert removed.channels == {"4": [2]}
    assert torch.equal(left["7.weight"], masks["7.weight"][:, [*range(8), *range(12, 32)]])
    assert torch.equal(small[7].weight, masked(net, masks)[7].weight.float()[:, [*range(8), *range(12, 32)]])


def test_outputs_stay_also_where_nothing_reaches_them():
    net = conv_net().eval()
    masks = {name: torch.ones_like(mask) for name, mask in drawn(net, 1.0).items()}
    masks["7.weight"][2] = False
    masks["0.weight"][3] = False
    small, _, removed = compact(net, masks, X)
    assert removed.channels == {"0": [3]}
    assert small(X).shape == (3, 4, 5)


def test_a_branch_that_is_dead_altogether_keeps_its_first_channel():
    net = built("residual")
    masks = {name: torch.ones_like(mask) for name, mask in drawn(net, 1.0).items()}
    masks["outer.weight"][:] = False
    small, _, removed = compact(net, masks, X)
    assert removed.channels == {"inner": [1, 2, 3, 4, 5, 6, 7]}
    assert small.outer.weight.shape == (8, 1, 3, 3)


def test_grouped_convolutions_lose_the_same_positions_in_each_group():
    net = built("grouped")
    masks = {name: torch.ones_like(mask) for name, mask in drawn(net, 1.0).items()}
    masks["inner.weight"][[0, 1, 5, 6]] = False  # positions 0 and 1 of the first group, 1 and 2 of the second
    small, left, removed = compact(net, masks, X)
    assert removed.channels == {"inner": [1, 5]}
    assert small.inner.weight.shape == left["inner.weight"].shape == (6, 4, 3, 3)


def test_where_a_scale_is_masked_nothing_gets_through():
    net = built("spiking_cnn")
    kept = torch.tensor([True, False, True, True, True, True, False, True])
    with torch.no_grad():
        net.norm1.bias[:2] = 1.0
        net.norm1.bias[6] = -1.0
    small, left, removed = compact(net, {"norm1.weight": kept}, X)
    assert removed.channels == {"conv1": [1, 6]}
    assert removed.silenced == {"norm1": [1]}
    assert left["norm1.weight"].tolist() == [True] * 6
    wanted = outputs(masked(net, {"norm1.weight": kept}, removed.silenced))
    torch.testing.assert_close(outputs(copy.deepcopy(small).double()), wanted, rtol=1e-12, atol=1e-12)


def test_a_masked_scale_behind_no_layer_is_refused():
    net = nn.Sequential(nn.Linear(2, 3), lif(), nn.BatchNorm1d(3), nn.Linear(3, 2))
    net[1].step_mode = "s"
    with pytest.raises(CannotCut, match=r"scale of '2' is masked.*right behind"):
        compact(net, {"2.weight": torch.tensor([True, False, True])}, torch.ones(2, 2))


def test_ignored_layers_keep_their_channels():
    net = built("spiking_cnn")
    masks = drawn(net, 0.5)
    _, _, removed = compact(net, masks, X, ignored_layers=["conv1"])
    assert "conv1" not in removed.channels
    assert removed.channels["conv2"]
    with pytest.raises(NothingMatched, match="no module 'conv9'; did you mean 'conv2'"):
        compact(net, masks, X, ignored_layers=["conv9"])


def test_a_model_may_be_called_in_its_own_way():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = built("conv_net")

        def forward(self, *, frames, times):
            return {"logits": self.net(frames).mean(0) * times}

    net = Named()
    masks = drawn(net, 0.3)
    example = {"frames": X, "times": 2}
    small, _, removed = compact(net, masks, example)
    again, _, same = compact(net, masks, X, forward=lambda model, x: model(frames=x, times=2))
    assert removed.channels == same.channels
    assert removed.channels["net.0"]
    with torch.no_grad():
        assert torch.equal(small(**example)["logits"], again(**example)["logits"])


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_given_model_is_left_alone():
    net = built("spiking_cnn").train()
    net.conv1.weight.requires_grad_(False)
    net.fc1.weight.grad = torch.ones_like(net.fc1.weight)
    calls = []
    net.conv1.register_forward_hook(lambda *_: calls.append(1))
    net(X)
    potential, before, held = net.spike1.v.clone(), state(net), list(net.parameters())
    small, _, _ = compact(net, drawn(net, 0.3), X)
    assert same(before, state(net))
    assert all(one is other for one, other in zip(held, net.parameters(), strict=True))
    assert torch.equal(net.spike1.v, potential)
    assert net.training
    assert small.training
    assert (net.fc1.weight.grad == 1).all()
    assert len(calls) == 1
    assert not small.conv1.weight.requires_grad  # Torch-Pruning does not see frozen layers, and thaws what it cuts
    assert small.conv2.weight.requires_grad
    assert all(parameter.grad is None for parameter in small.parameters())


def test_in_place_the_modules_stay_and_shrink():
    net = built("spiking_cnn").train()
    masks = drawn(net, 0.3)
    small, left, removed = compact(net, masks, X)
    conv, fc2 = net.conv1, net.fc2.bias
    calls = []
    net.conv1.register_forward_hook(lambda *_: calls.append(1))
    model, left_in_place, removed_in_place = compact_(net, masks, X)
    assert model is net
    assert net.conv1 is conv
    assert net.fc2.bias is fc2  # lost nothing
    assert removed_in_place == removed
    assert same(left, left_in_place)
    assert same(state(net), state(small))
    assert (net.conv1.out_channels, net.norm1.num_features) == (small.conv1.out_channels,) * 2
    net(X).sum().backward()
    assert calls == [1]
    assert net.training


def test_in_place_masked_weights_become_zero_also_where_no_channel_goes():
    net = conv_net()
    mask = torch.ones(6, 1, 3, 3, dtype=torch.bool)
    mask[2, 0, 1, 1] = False
    held = net[0].weight
    assert not compact_(net, {"0.weight": mask}, X).removed
    assert net[0].weight is held
    assert torch.equal(held != 0, mask)


class Hard(nn.Module):
    """A neuron of one's own without a surrogate gradient."""

    def forward(self, x):
        return (x > 0.1).to(x.dtype)


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return (x > 0.1).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ((ctx.saved_tensors[0] - 20.0).abs() < 0.1)


class Narrow(nn.Module):
    """A neuron of one's own whose surrogate gradient is zero almost everywhere."""

    def forward(self, x):
        return _Narrow.apply(x)


class Signed(nn.Module):
    """No neuron at all: what is zero before it is not zero behind it."""

    def forward(self, x):
        return x + 1.0


@pytest.mark.parametrize(
    ("own", "told"),
    [(Hard, "no gradient comes back to layer '0'"), (Narrow, "channels of '0' seem to reach no output")],
)
def test_a_neuron_of_ones_own_that_paths_end_at_is_refused_until_it_is_named(own, told):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), own(), nn.Linear(6, 2))
    masks = drawn(net, 1.0)
    before = state(net)
    with pytest.raises(CannotCut, match=told):
        compact_(net, masks, torch.ones(2, 4))
    assert same(before, state(net))
    assert compact_(net, masks, torch.ones(2, 4), neuron_types=[own]).removed.channels == {"0": [1]}


def test_a_layer_that_the_model_never_calls_is_no_hindrance():
    net = built("residual")
    net.spare = nn.Linear(3, 3)
    small, _, removed = compact(net, drawn(net, 0.5), X)
    assert removed
    assert small.spare.weight.shape == (3, 3)


def test_what_would_not_compute_the_same_is_refused_by_name_with_the_model_untouched():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6, bias=False), Signed(), nn.Linear(6, 2))
    before, held = state(net), list(net.parameters())
    masks = {"0.weight": torch.ones(6, 4, dtype=torch.bool)}
    masks["0.weight"][2] = False
    with pytest.raises(CannotCut, match=r"^'0' cannot be cut: its outputs would change"):
        compact_(net, masks, torch.ones(2, 4))
    assert same(before, state(net))
    assert all(one is other for one, other in zip(held, net.parameters(), strict=True))


def test_masks_without_a_path_are_an_error():
    net = conv_net()
    masks = {name: torch.zeros_like(mask) for name, mask in drawn(net, 1.0).items()}
    with pytest.raises(Disconnected, match="no path leads from the input to the output"):
        compact(net, masks, X)


def test_masks_of_another_model_are_refused():
    net = conv_net()
    with pytest.raises(NothingMatched, match=r"no parameter '9\.weight' to mask"):
        compact(net, {"9.weight": torch.ones(1) > 0}, X)
    with pytest.raises(BadOption, match=r"mask of 0\.weight is \(1,\), the parameter \(6, 1, 3, 3\)"):
        compact(net, {"0.weight": torch.ones(1) > 0}, X)


def trained(net, x, y, density, distribution="erk", steps=6):
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    pruner = DynamicPruner(
        net,
        optimizer,
        density=schedules.cubic(first=0.3, last=density),
        distribution=distribution,
        every="2it",
        total_steps=steps,
        until="100%",
    )
    for _ in range(steps):
        reset_(net)
        cross_entropy(net(x), y).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
    reset_(net)
    return pruner


def test_a_network_whose_structure_was_learned_becomes_a_smaller_one():
    torch.manual_seed(0)
    x, y = torch.rand(1, 16, 1, 8, 8).repeat(4, 1, 1, 1, 1), torch.arange(16) % 10
    net = spiking_cnn((1, 8, 8), 10, channels=[16, 32], hidden=64, v_threshold=0.5)
    pruner = trained(net, x, y, 0.03)
    with pytest.raises(BadOption, match=r"parametrized: let their pruner end first"):
        compact(mounted(), {}, X)
    pruner.finish()
    recalibrate_(net, [x])
    small, left, removed = compact(net, pruner.masks, x)
    assert pruner.density == pytest.approx(0.03, abs=1e-3)
    assert removed.parameters[1] < removed.parameters[0] * 0.8
    assert removed.silenced == {}  # the pruner held them silent already
    wanted = outputs(net.double().eval(), x)
    assert wanted.std(1).max() > 0
    torch.testing.assert_close(outputs(small.double().eval(), x), wanted, rtol=1e-12, atol=1e-12)
    kept = sum(int(mask.sum()) for mask in left.values())
    assert kept <= sum(int(mask.sum()) for mask in pruner.masks.values())


def mounted():
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    DynamicPruner(net, optimizer, rule="stds", threshold=schedules.constant(value=0.1), total_steps=4, until="100%")
    return net


@pytest.mark.slow
def test_a_learned_sew_resnet_becomes_a_smaller_one():
    torch.manual_seed(0)
    x, y = torch.rand(1, 4, 3, 8, 8).repeat(2, 1, 1, 1, 1), torch.arange(4)
    net = sew_resnet((3, 8, 8), 4)
    pruner = trained(net, x, y, 0.01, distribution="global", steps=4)
    pruner.finish()
    recalibrate_(net, [x])
    small, _, removed = compact(net, pruner.masks, x)
    assert removed.parameters[1] < removed.parameters[0] * 0.75
    wanted = outputs(net.double().eval(), x)
    assert wanted.std(1).max() > 0
    torch.testing.assert_close(outputs(small.double().eval(), x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["threshold_parameter_c11", "threshold_buffer", "threshold_attribute"])
def test_what_a_neuron_has_for_each_channel_is_cut_in_place_however_it_is_held(kind):
    torch.manual_seed(0)
    net, x = FAMILIES[kind].build(), torch.rand(2, 3, 8, 8)
    name, first = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    mask = torch.ones_like(first.weight, dtype=torch.bool)
    mask[1] = False
    expected = compact(net, {f"{name}.weight": mask}, x).model(x)
    compact_(net, {f"{name}.weight": mask}, x)
    assert first.out_channels == mask.shape[0] - 1
    reset_(net)
    assert net(x).equal(expected)


def test_a_weight_with_two_names_is_a_sentence():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    with pytest.raises(BadOption, match=r"0.weight and 1.weight are one tensor"):
        compact(net, {"0.weight": torch.ones(4, 4) > 0}, torch.rand(2, 4))


def test_a_psn_that_fires_by_its_bias_is_seen_on_its_channels_and_not_on_the_batch():
    torch.manual_seed(0)
    net = nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1, step_mode="m"), neuron.PSN(3), layer.Conv2d(6, 4, 3, step_mode="m"),
        neuron.PSN(3), layer.Flatten(step_mode="m"), nn.Linear(16, 5),
    )  # fmt: skip
    net[1].bias.data.fill_(1.0)
    mask = torch.ones_like(net[0].weight, dtype=torch.bool)
    mask[[1, 5]] = False
    net[0].bias.data[[1, 5]] = 2.0
    small, _, removed = compact(net, {"0.weight": mask}, X)
    assert removed.channels == {"0": [1, 5]}
    assert set(removed.silenced["0"]) == {1, 5}
    assert small[2].in_channels == 4
