"""Torch-Pruning's pruners for spiking networks: same arguments, a step that reports or raises."""

import copy
import inspect
from types import GeneratorType

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from networks import batch, conv_net
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin.errors import BadOption, CannotCut, Diverged, NothingRemoved
from snnsl_plugin.for_torch_pruning import (
    SpikingBNScalePruner,
    SpikingGroupNormPruner,
    SpikingGrowingRegPruner,
    SpikingImportance,
    SpikingPruner,
    calibrate,
)
from snnsl_plugin.for_torch_pruning.calibration import known

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
FAMILY = {
    SpikingPruner: tp.pruner.BasePruner,
    SpikingGroupNormPruner: tp.pruner.GroupNormPruner,
    SpikingBNScalePruner: tp.pruner.BNScalePruner,
    SpikingGrowingRegPruner: tp.pruner.GrowingRegPruner,
}
L2 = tp.importance.MagnitudeImportance(p=2)


def pruned(model=None, kind=SpikingPruner, **options):
    model = conv_net() if model is None else model
    options = {"importance": L2, "ignored_layers": [model[-1]]} | options
    return kind(model, batch()[0], **options)


def widths(model):
    return [module.weight.shape[0] for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def unchanged(model, before):
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# ------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("ours", FAMILY)
def test_arguments_are_those_of_the_host_position_by_position(ours):
    theirs = list(inspect.signature(FAMILY[ours]).parameters.values())
    mine = list(inspect.signature(ours).parameters.values())
    assert mine[: len(theirs)] == theirs
    assert [p.name for p in mine[len(theirs) :]] == ["trace", "verify", "neuron_types"]
    assert all(p.kind is p.KEYWORD_ONLY for p in mine[len(theirs) :])
    for method in ("step", "manual_prune_width", "load_pruning_history", "regularize"):
        told = [list(inspect.signature(getattr(each, method)).parameters) for each in (ours, FAMILY[ours])]
        assert told[0] == told[1]


def test_arguments_may_all_be_given_by_position():
    model = conv_net()
    names = list(inspect.signature(tp.pruner.BasePruner).parameters)
    given = {"ignored_layers": [model[-1]], "pruning_ratio": 0.25, "model": model, "importance": L2}
    given |= {"example_inputs": batch()[0], "num_heads": {}, "forward_fn": lambda net, x: net(x)}
    defaults = inspect.signature(tp.pruner.BasePruner).parameters
    SpikingPruner(*[given.get(name, defaults[name].default) for name in names]).step()
    assert widths(model) == [4, 6, 5]  # int(6 * 3 / 4) and int(8 * 3 / 4)


def test_an_argument_that_the_host_does_not_know_is_refused():
    with pytest.raises(TypeError, match="pruning_ration"):
        pruned(pruning_ration=0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"pruning_ratio": 1.5},
        {"max_pruning_ratio": -0.1},
        {"head_pruning_ratio": 2},
        {"pruning_ratio_dict": {"conv": 1.1}},
    ],
)
def test_ratios_that_are_no_shares_are_refused(options):
    with pytest.raises(BadOption, match=r"must be in \[0, 1\]"):
        pruned(**options)


def test_layers_are_ignored_by_instance_by_type_and_by_parameter():
    for ignored, expected in (
        ([nn.Linear], [3, 4, 5]),
        ([nn.Linear, layer.Conv2d], None),
        (["conv"], None),
    ):
        model = conv_net()
        if expected is None:
            with pytest.raises((NothingRemoved, BadOption)):
                pruned(model, ignored_layers=ignored).step()
            assert widths(model) == [6, 8, 5]
        else:
            pruned(model, ignored_layers=ignored).step()
            assert widths(model) == expected
    model = conv_net()
    pruned(model, ignored_layers=[model[-1], model[4]]).step()
    assert widths(model) == [3, 8, 5]


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.scale = conv_net(), nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, x):
        return self.net[1:](self.net[0](x) * self.scale)


def test_a_parameter_outside_of_modules_is_cut_along():
    for pairs in (dict, lambda given: list(given.items())):
        model = Scaled()
        unwrapped = pairs({model.scale: 0})
        options = {"ignored_layers": [model.net[-1]], "unwrapped_parameters": unwrapped}
        SpikingPruner(model, batch()[0], L2, **options).step()
        assert model.scale.shape == (3, 1, 1)
        assert len(unwrapped) == 1
    with pytest.raises(CannotCut):
        model = Scaled()
        SpikingPruner(model, batch()[0], L2, ignored_layers=[model.net[-1], model.scale]).step()


def test_two_pruners_share_nothing():
    def grouped():
        net = conv_net()
        net[4] = layer.Conv2d(6, 8, 3, padding=1, groups=2, step_mode="m")
        return net

    first = pruned(grouped())
    second = pruned()
    assert first.out_channel_groups
    assert first.in_channel_groups
    for word in ("in_channel_groups", "out_channel_groups", "num_heads"):
        assert getattr(first, word) is not getattr(second, word)
        assert not getattr(second, word)
        assert not inspect.signature(tp.pruner.BasePruner).parameters[word].default
    own = {}
    pruned(grouped(), out_channel_groups=own)
    assert own == {}


# -------------------------------------------------------------------------------------------------- ways to choose


def test_a_global_ratio_is_one_threshold_for_all_layers():
    model = conv_net()
    scores = [module.weight.detach().pow(2).sum((1, 2, 3)) for module in (model[0], model[4])]
    first = tp.importance.MagnitudeImportance(p=2, group_reduction="first", normalizer=None)
    removed = pruned(model, importance=first, global_pruning=True, pruning_ratio=0.5).step()
    threshold = torch.cat(scores).sort().values[6]  # int(14 / 2) of 14 channels go
    expected = {name: (each <= threshold).nonzero().flatten().tolist() for name, each in zip("04", scores, strict=True)}
    assert {name: sorted(gone) for name, gone in removed.channels.items()} == {n: g for n, g in expected.items() if g}


def test_the_options_of_the_host_do_what_they_say():
    for options, expected in (
        ({"pruning_ratio": 0.25}, [4, 6, 5]),
        ({"round_to": 4, "pruning_ratio": 0.2}, [4, 4, 5]),
        ({"root_module_types": [nn.Linear]}, None),
        ({"isomorphic": True, "global_pruning": True}, [3, 4, 5]),
        ({"ch_sparsity": 0.25}, [4, 6, 5]),
        ({"max_pruning_ratio": 0.9}, [3, 4, 5]),
    ):
        model = conv_net()
        if "ch_sparsity" in options:
            with pytest.warns(UserWarning, match="ch_sparsity is deprecated"):
                pruner = pruned(model, **options)
        else:
            pruner = pruned(model, **options)
        if expected is None:
            with pytest.raises(NothingRemoved, match="no group of channels at all"):
                pruner.step()
        else:
            pruner.step()
            assert widths(model) == expected, options


def test_ratios_of_single_layers_and_of_some_together():
    model = conv_net()
    pruned(model, pruning_ratio=0.0, pruning_ratio_dict={model[4]: 0.75}).step()
    assert widths(model) == [6, 2, 5]
    model = conv_net()
    pruned(model, global_pruning=True, pruning_ratio=0.0, pruning_ratio_dict={(model[0], model[4]): 0.5}).step()
    assert sum(widths(model)) == 7 + 5


def test_steps_follow_the_scheduler_to_the_ratio():
    model = conv_net()
    pruner = pruned(model, iterative_steps=3, iterative_pruning_ratio_scheduler=lambda ratio, n: [0, 0, 0.25, ratio])
    assert not pruner.step()
    assert widths(model) == [6, 8, 5]
    assert [pruner.step().channels.keys() and widths(model) for _ in range(2)] == [[4, 6, 5], [3, 4, 5]]
    with pytest.raises(BadOption, match="all 3 iterative steps are done"):
        pruner.step()


def test_groups_of_a_grouped_convolution_stay_equal():
    net = conv_net()
    net[4] = layer.Conv2d(6, 8, 3, padding=1, groups=2, step_mode="m")
    pruned(net).step()
    assert (net[4].groups, net[4].in_channels, net[4].out_channels) == (2, 2, 4)
    functional.reset_net(net)
    assert net(batch()[0]).shape == (3, 8, 5)


def test_channel_groups_of_ones_own_are_cut_alike():
    model = conv_net()
    removed = pruned(model, out_channel_groups={model[4]: 2}).step()
    assert [channel % 4 for channel in removed.channels["4"][:2]] == [c % 4 for c in removed.channels["4"][2:]]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (layer.Linear(8, 8, bias=False, step_mode="m") for _ in range(3))
        self.spike = nn.ModuleList(neuron.LIFNode(v_threshold=0.1, step_mode="m") for _ in range(3))
        self.out = layer.Linear(8, 3, step_mode="m")

    def forward(self, x):
        q, k, v = (spike(each(x)) for spike, each in zip(self.spike, (self.q, self.k, self.v), strict=True))
        return self.out(q * k + v)


def test_whole_heads_can_be_cut():
    torch.manual_seed(0)
    model = Attention()
    heads = {model.q: 4, model.k: 4, model.v: 4}
    pruner = SpikingPruner(
        model,
        torch.rand(2, 3, 8),
        L2,
        pruning_ratio=0.5,  # at 0 the host does not come to heads
        num_heads=heads,
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=0.5,
        ignored_layers=[model.out],
    )
    pruner.step()
    assert (model.q.out_features, model.v.out_features, model.out.in_features) == (4, 4, 4)
    assert heads == {model.q: 4, model.k: 4, model.v: 4}  # the host counts down in the caller's dict


# ------------------------------------------------------------------------------------------------ reports and errors


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.block, self.after = (layer.Conv2d(c, n, 3, padding=1) for c, n in ((1, 8), (8, 8), (8, 4)))
        self.spikes = nn.ModuleList(neuron.LIFNode(v_threshold=0.1) for _ in range(3))
        self.out = layer.Linear(4, 5)
        functional.set_step_mode(self, "m")

    def forward(self, x):
        x = self.spikes[0](self.stem(x))
        x = x + self.spikes[1](self.block(x))
        return self.out(self.spikes[2](self.after(x)).mean((3, 4)))


@pytest.mark.parametrize("make", [conv_net, Residual])
def test_a_step_reports_what_it_removed(make):
    model, (x, _) = make(), batch()
    dense = {name: module.weight.shape[0] for name, module in model.named_modules() if hasattr(module, "out_channels")}
    before = sum(p.numel() for p in model.parameters())
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    removed = SpikingPruner(model, x, L2, ignored_layers=[last]).step()
    assert removed
    assert removed.parameters == (before, sum(p.numel() for p in model.parameters()))
    assert set(removed.channels) == set(dense)
    for name, gone in removed.channels.items():
        assert dense[name] - len(gone) == model.get_submodule(name).out_channels
        assert removed.before[name] == dense[name]


def test_nothing_removed_though_asked_to_is_an_error_that_says_why():
    for options, says in (
        ({"ignored_layers": [nn.Conv2d, nn.Linear]}, "no group of channels at all"),
        ({"round_to": 16}, r"2 groups: 4 \(8 channels\), 0 \(6 channels\)"),
        ({"importance": lambda group: None}, "its importance is None, which skips it"),
        (
            {"importance": lambda group: torch.ones(len(group[0].idxs)), "global_pruning": True},
            "all 8 scores tie, so global pruning drops none",
        ),
    ):
        model = conv_net()
        before = state(model)
        with pytest.raises(NothingRemoved, match=says):
            pruned(model, **options).step()
        assert unchanged(model, before)


def test_nothing_is_removed_where_nothing_was_asked():
    assert not pruned(pruning_ratio=0.0).step()


def test_scores_that_are_nan_are_refused_by_name():
    model = conv_net()
    with pytest.raises(Diverged, match="scores of '[04]' are NaN"):
        pruned(model, importance=lambda group: torch.full((len(group[0].idxs),), float("nan"))).step()
    assert widths(model) == [6, 8, 5]


class Mixing(nn.Module):
    """Its neighbour's channels change places, which no graph can know."""

    def forward(self, x):
        return x + 0.5 * torch.sort(x, dim=-3).values.detach()


def test_a_cut_that_would_change_the_rest_is_undone_and_the_pruner_too():
    model, (x, _) = conv_net(), batch()
    model.insert(3, Mixing())
    rates = calibrate(model, [x]).outputs
    pruner = pruned(model, importance=SpikingImportance(), ignored_layers=[model[-1]])
    before, parameters = state(model), list(model.parameters())
    with pytest.raises(CannotCut, match="the model is as it was"):
        pruner.step()
    assert unchanged(model, before)
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    assert pruner.current_step == 0
    assert pruner.pruning_history() == []
    assert torch.equal(known(model[2]).outputs.rate, rates["2"])
    model[3].forward = lambda spikes: spikes
    again = pruned(model, importance=SpikingImportance(), ignored_layers=[model[-1]])
    assert again.step()


def test_without_verification_a_wrong_cut_stands():
    model = conv_net()
    model.insert(3, Mixing())
    assert pruned(model, verify=False).step()
    assert widths(model) == [3, 4, 5]


class Own(nn.Module):
    """A neuron of one's own, with a threshold for each channel and a memory."""

    def __init__(self):
        super().__init__()
        self.threshold, self.v, self.step_mode = nn.Parameter(torch.full((6, 1, 1), 0.3)), 0.0, "m"

    def reset(self):
        self.v = 0.0

    def forward(self, x_seq):
        spikes = []
        for x in x_seq.unbind():
            self.v = self.v + x
            spikes.append((self.v > self.threshold).to(x) + x * 0)
            self.v = self.v * (1 - spikes[-1].detach())
        return torch.stack(spikes)


def test_neurons_of_ones_own_are_cut_where_their_class_is_named():
    model, (x, _) = conv_net(), batch()
    model[2] = Own()
    rates = calibrate(model, [x], neuron_types=[Own]).outputs["2"]
    gone = pruned(model, importance=SpikingImportance(), neuron_types=[Own]).step().channels["0"]
    assert model[2].threshold.shape == (3, 1, 1)
    assert torch.equal(known(model[2]).outputs.rate, rates[[c for c in range(6) if c not in gone]])


def test_a_way_to_trace_that_does_not_exist_is_refused():
    with pytest.raises(BadOption, match="trace='x'"):
        pruned(trace="x")


def test_a_step_that_fails_can_be_taken_again():
    model = conv_net()
    failing = [True]

    def score(group):
        if failing and group[0].dep.target.module is model[4]:
            raise RuntimeError("out of luck")
        return L2(group)

    pruner = pruned(model, importance=score)
    with pytest.raises(RuntimeError, match="^out of luck$"):
        pruner.step()
    failing.clear()
    assert pruner.step()
    assert widths(model) == [3, 4, 5]


def test_modes_hooks_and_memories_survive():
    model, (x, _) = conv_net(), batch()
    model.train()
    model[1].eval()
    calls = []
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    model(x)
    modes = [(m.training, getattr(m, "step_mode", None)) for m in model.modules()]
    pruned(model).step()
    assert [(m.training, getattr(m, "step_mode", None)) for m in model.modules()] == modes
    functional.reset_net(model)
    calls.clear()
    model(x)
    assert calls == [1]
    handle.remove()


def test_the_output_layer_is_refused():
    model = conv_net()
    before = state(model)
    with pytest.raises(CannotCut, match="'7' cannot be cut"):
        pruned(model, ignored_layers=[]).step()
    assert unchanged(model, before)


# ----------------------------------------------------------------------------------------- what else the host can do


def test_interactive_steps_stay_the_generator_of_the_host():
    model = conv_net()
    groups = pruned(model).step(interactive=True)
    assert isinstance(groups, GeneratorType)
    for group in groups:
        if group[0].dep.target.module is model[4]:
            group.prune()
    assert widths(model) == [6, 4, 5]


def test_a_history_replayed_on_a_fresh_model_gives_the_same_net():
    model, (x, _) = conv_net(), batch()
    weights = state(model)
    pruner = pruned(model, iterative_steps=2)
    pruner.step()
    pruner.step()
    history = copy.deepcopy(pruner.pruning_history())
    fresh = conv_net(seed=1)
    fresh.load_state_dict(weights)
    other = pruned(fresh)
    other.load_pruning_history(history)
    assert history == pruner.pruning_history()
    functional.reset_net(model)
    expected = model(x)
    functional.reset_net(model)
    assert torch.equal(fresh(x), expected)
    other.step()  # nothing is left to do for the same ratio
    assert history == pruner.pruning_history()


def test_channels_can_be_named_by_hand():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    pruner = pruned(model)
    removed = pruner.manual_prune_width(model[4], tp.prune_conv_out_channels, [1, 6])
    assert removed.channels == {"4": [1, 6]}
    assert len(known(model[5]).outputs.counts) == 6
    other = conv_net()
    pruned(other).manual_prune_width(other[0], tp.prune_conv_out_channels, 0.25)
    step = conv_net()
    pruned(step, pruning_ratio_dict={step[0]: 0.25}, pruning_ratio=0.0).step()
    assert widths(other) == widths(step) == [4, 8, 5]
    assert torch.equal(other[0].weight, step[0].weight)
    with pytest.raises(NothingRemoved, match="names no channel"):
        pruner.manual_prune_width(model[0], tp.prune_conv_out_channels, [])
    with pytest.raises(CannotCut):
        pruner.manual_prune_width(model[7], tp.prune_linear_out_channels, [0])
    assert widths(model) == [6, 6, 5]


REGULARIZING = [
    (SpikingGroupNormPruner, {"reg": 0.01}),
    (SpikingGroupNormPruner, {"reg": 0.01, "importance": tp.importance.BNScaleImportance()}),
    (SpikingBNScalePruner, {"reg": 0.01, "importance": tp.importance.BNScaleImportance()}),
    (SpikingBNScalePruner, {"reg": 0.01, "group_lasso": True}),
    (SpikingGrowingRegPruner, {"reg": 0.01, "delta_reg": 0.01}),
]


@pytest.mark.parametrize(("kind", "options"), REGULARIZING)
def test_regularizers_work_through_training_and_cuts(kind, options):
    model, (x, y) = conv_net(), batch()
    model[1].weight.data.uniform_(0.5, 1.5)
    pruner = pruned(model, kind, iterative_steps=2, **options)
    for round_number in range(2):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            functional.reset_net(model)
            optimizer.zero_grad()
            F.cross_entropy(model(x).mean(0), y).backward()
            before = [p.grad.clone() for p in model.parameters()]
            pruner.regularize(model)
            grads = [p.grad for p in model.parameters()]
            assert any(not torch.equal(p, q) for p, q in zip(grads, before, strict=True))
            assert all(bool(torch.isfinite(grad).all()) for grad in grads)
            optimizer.step()
        if kind is SpikingGrowingRegPruner:
            pruner.update_reg()
        pruner.step()
        pruner.update_regularizer()
        assert widths(model)[0] == (4, 3)[round_number]


def test_equal_scores_make_no_gradient_nan():
    model, (x, y) = conv_net(), batch()
    importance = lambda group: torch.ones(len(group[0].idxs))  # noqa: E731
    pruner = pruned(model, SpikingGroupNormPruner, importance=importance)
    F.cross_entropy(model(x).mean(0), y).backward()
    before = [p.grad.clone() for p in model.parameters()]
    pruner.regularize(model)
    assert all(torch.equal(p.grad, q) for p, q in zip(model.parameters(), before, strict=True))


def test_gradients_are_cut_with_their_weights():
    model, (x, y) = conv_net(), batch()
    F.cross_entropy(model(x).mean(0), y).backward()
    grad = model[4].weight.grad.clone()
    gone = pruned(model).step().channels
    keep = [[c for c in range(n) if c not in gone[name]] for name, n in (("0", 6), ("4", 8))]
    assert torch.equal(model[4].weight.grad, grad[keep[1]][:, keep[0]])


def test_a_ratio_of_zero_reports_nothing_of_all_parameters():
    model, x = conv_net(), batch()[0]
    count = sum(parameter.numel() for parameter in model.parameters())
    pruner = SpikingPruner(model, x, tp.importance.MagnitudeImportance(), pruning_ratio=0.0, ignored_layers=[nn.Linear])
    assert str(pruner.step()) == f"nothing; parameters {count:,} -> {count:,}"


def test_what_is_frozen_stays_frozen_in_groups_and_in_histories():
    model, x = conv_net(), batch()[0]
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    first.weight.requires_grad_(False)
    pruner = SpikingPruner(model, x, tp.importance.MagnitudeImportance(), ignored_layers=[nn.Linear])
    for group in pruner.step(interactive=True):
        group.prune()
    assert not model.get_submodule(name).weight.requires_grad
    other = conv_net()
    other.get_submodule(name).weight.requires_grad_(False)
    again = SpikingPruner(other, x, tp.importance.MagnitudeImportance(), ignored_layers=[nn.Linear])
    again.load_pruning_history(pruner.pruning_history())
    assert not other.get_submodule(name).weight.requires_grad


def test_an_index_named_twice_goes_once():
    model, x = conv_net(), batch()[0]
    name, first = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    pruner = SpikingPruner(model, x, tp.importance.MagnitudeImportance(), ignored_layers=[nn.Linear])
    width = first.out_channels
    pruner.manual_prune_width(first, tp.prune_conv_out_channels, [0, 0])
    assert (first.out_channels, first.weight.shape[0]) == (width - 1, width - 1), name
