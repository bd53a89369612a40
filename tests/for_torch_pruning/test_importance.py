"""Scores of channels: rates times weights."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from networks import batch, conv_net
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

from snnsl_plugin import registry
from snnsl_plugin.compaction.graph import dependency_graph
from snnsl_plugin.core.criteria import spike_saliency
from snnsl_plugin.errors import BadOption, Diverged, MissingStatistic, UnknownName
from snnsl_plugin.for_torch_pruning import SpikingImportance, SpikingPruner, calibrate
from snnsl_plugin.for_torch_pruning.calibration import known

pytestmark = pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
PLAIN = {"rate_power": 0.0, "uninformative_first": False}


def loss(out, labels):
    return F.cross_entropy(out.mean(0), labels)


def groups_of(model, x):
    graph = dependency_graph(model, x, verbose=False)
    output = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    return {
        graph._module2name[group[0].dep.target.module]: group
        for group in graph.get_all_groups(ignored_layers=[output], root_module_types=[nn.Conv2d, nn.Linear])
    }


def hand_made():
    """Two inputs always on; hidden neurons that fire never, at every second, at every fourth and at every step."""
    model = nn.Sequential(
        layer.Linear(2, 4, bias=False, step_mode="m"),
        neuron.IFNode(step_mode="m"),
        layer.Linear(4, 2, bias=False, step_mode="m"),
    )
    model[0].weight.data = torch.tensor([[0.0, -9.0], [0.5, 0.0], [0.0, 0.25], [1.0, 3.0]])
    model[2].weight.data = torch.tensor([[9.0, 1.0, 2.0, 8.0], [0.0, 0.0, 1.0, 0.0]])
    return model, torch.ones(4, 3, 2)


def test_scores_worked_by_hand():
    model, x = hand_made()
    calibrate(model, [x])
    group = groups_of(model, x)["0"]
    score = SpikingImportance(p=2, normalizer=None, uninformative_first=False)
    # the mean of the squares that write and of those that read, times rates of 0, 1/2, 1/4 and 1
    expected = [0.0, (0.25 + 1) / 2 / 2, (0.0625 + 4 + 1) / 2 / 4, (1 + 9 + 64) / 2]
    assert score(group).tolist() == pytest.approx(expected)
    powers = SpikingImportance(p=1, normalizer=None, rate_power=0.5, weight_power=2.0, uninformative_first=False)
    expected = [0.0, 0.5**0.5 * 0.75**2, 0.25**0.5 * (3.25 / 2) ** 2, 6.0**2]
    assert powers(group).tolist() == pytest.approx(expected)
    normalized = SpikingImportance(p=2, uninformative_first=False)(group)
    assert float(normalized.mean()) == pytest.approx(1.0)


def test_below_zero_a_channel_is_kept_for_its_weights_per_spike():
    model, x = hand_made()
    calibrate(model, [x])
    score = SpikingImportance(p=2, normalizer=None, rate_power=-0.5)(groups_of(model, x)["0"])
    assert score.tolist()[1:3] == pytest.approx([0.625 / 0.5**0.5, 2.53125 / 0.25**0.5])
    assert score[0] == 0  # silent
    assert 0 < score[3] < 1e-30  # saturated


def test_silent_channels_come_before_saturated_ones_and_those_before_all_others():
    model, x = hand_made()
    calibrate(model, [x])
    for normalizer in (None, "mean", "sum", "max", "standarization", "gaussian", "sentinel_0.5", "lamp"):
        scores = SpikingImportance(p=2, normalizer=normalizer)(groups_of(model, x)["0"])
        assert scores.argsort().tolist()[:2] == [0, 3]
        assert scores.unique().numel() == 4
    pruner = SpikingPruner(model, x, SpikingImportance(), pruning_ratio=0.5, ignored_layers=[model[2]])
    assert pruner.step().channels == {"0": [0, 3]}


def test_a_channel_is_silent_or_saturated_only_where_all_its_neurons_are():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = (layer.Linear(1, 3, bias=False, step_mode="m") for _ in range(2))
            self.one.weight.data, self.two.weight.data = torch.tensor([[[1.0], [0.0], [1.0]], [[0.5], [0.5], [1.0]]])
            self.spikes = nn.ModuleList(neuron.IFNode(step_mode="m") for _ in range(2))
            self.out = nn.Linear(3, 2)

        def forward(self, x):
            return self.out(self.spikes[0](self.one(x)) + self.spikes[1](self.two(x)))

    model, x = Sum(), torch.ones(4, 3, 1)
    calibrate(model, [x])
    (group,) = groups_of(model, x).values()
    scores = SpikingImportance(normalizer=None, weight_power=0.0)(group)
    assert scores.tolist() == pytest.approx([0.75, 0.25, 0.0])
    assert scores[2] > 0


def test_a_regularizer_can_take_the_root_of_the_scores():
    model, x = hand_made()
    calibrate(model, [x])
    assert float(SpikingImportance()(groups_of(model, x)["0"]).min()) == 0.0


def test_a_channel_whose_weights_are_zero_still_comes_after_a_saturated_one():
    model, x = hand_made()
    model[2].weight.data[:, 1] = 0.0
    calibrate(model, [x])
    scores = SpikingImportance(criterion="magnitude", group_reduction="prod")(groups_of(model, x)["0"])
    assert scores.argsort().tolist()[:3] == [0, 3, 1]


def test_a_net_that_never_fires_ties_and_is_not_divided_by_zero():
    model, x = hand_made()
    calibrate(model, [torch.zeros_like(x)])
    for first in (True, False):
        assert SpikingImportance(uninformative_first=first)(groups_of(model, x)["0"]).tolist() == [0.0] * 4


def test_an_analog_input_of_many_values_is_not_called_saturated():
    model = nn.Sequential(layer.Linear(2, 3), nn.Sigmoid(), layer.Linear(3, 2))
    x = torch.rand(5, 2)
    calibrate(model, [x])
    scores = SpikingImportance(statistic="input")(groups_of(model, x)["0"])
    assert torch.allclose(scores, SpikingImportance(**PLAIN)(groups_of(model, x)["0"]))


def grouped_net():
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1),
        layer.GroupNorm(2, 4),
        neuron.LIFNode(v_threshold=0.2),
        layer.Conv2d(4, 8, 3, padding=1, groups=2),
        layer.BatchNorm2d(8),
        neuron.LIFNode(v_threshold=0.2),
        layer.ConvTranspose2d(8, 6, 2, stride=2),
        neuron.LIFNode(v_threshold=0.2),
        layer.Flatten(),
        layer.Linear(6 * 64, 5),
    )
    functional.set_step_mode(net, "m")
    return net


@pytest.mark.parametrize("make", [conv_net, grouped_net])
@pytest.mark.parametrize("options", [{"p": 1}, {"p": 2}, {"group_reduction": "max"}, {"bias": True}])
def test_without_rates_magnitude_is_that_of_the_host(make, options):
    model, (x, _) = make(), batch()
    for name, group in groups_of(model, x).items():
        theirs = tp.importance.GroupMagnitudeImportance(**options)(group)
        assert torch.allclose(SpikingImportance(**options, **PLAIN)(group), theirs), name


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("make", [conv_net, grouped_net])
def test_without_rates_taylor_is_that_of_the_host(make, bias):
    model, (x, y) = make(), batch()
    model.eval()
    loss(model(x), y).backward()
    groups = groups_of(model, x)
    # the host's own looks for batch norms under the name of another norm, and so leaves them out
    types = [nn.modules.conv._ConvNd, nn.Linear]
    ours = SpikingImportance(p=1, criterion="taylor", bias=bias, target_types=types, **PLAIN)
    theirs = {name: tp.importance.GroupTaylorImportance(bias=bias)(group) for name, group in groups.items()}
    for name, group in groups.items():
        assert torch.allclose(ours(group), theirs[name], rtol=1e-4), name
    model.zero_grad()
    calibrate(model, [(x, y)], loss=loss)
    for name, group in groups.items():
        assert torch.allclose(ours(group), theirs[name], rtol=1e-4), name


def test_rates_multiply_taylor():
    model, (x, y) = conv_net(), batch()
    calibrate(model, [(x, y)], loss=loss)
    group = groups_of(model, x)["4"]
    plain = SpikingImportance(p=1, criterion="taylor", normalizer=None, **PLAIN)(group)
    rated = SpikingImportance(p=1, criterion="taylor", normalizer=None, uninformative_first=False)(group)
    rate = known(model[5]).outputs.rate.float()
    assert rate.std() > 0
    assert torch.allclose(rated, plain * rate)


@pytest.mark.parametrize("criterion", ["fisher", "spike_saliency", partial(spike_saliency, power=1.0)])
def test_criteria_of_weights_are_summed_over_the_channel(criterion):
    model, (x, y) = conv_net(), batch()
    calibrate(model, [(x, y)], loss=loss)
    group = groups_of(model, x)["4"]  # written by conv 4 (no norm), read by the linear layer 7 over 2x2 sites each
    scores = SpikingImportance(p=1, normalizer=None, criterion=criterion, **PLAIN)(group)

    def weights(module):
        if criterion == "fisher":
            return module.weight.detach() ** 2 * known(module).gradients["weight"][1]
        power = 0.5 if isinstance(criterion, str) else 1.0
        spikes = known(module).inputs
        rate = ((spikes.counts + 1) / (spikes.slots + 2)).float() ** power
        return module.weight.detach().abs() * rate.view(1, -1, *[1] * (module.weight.dim() - 2))

    expected = (weights(model[4]).sum((1, 2, 3)) + weights(model[7]).sum(0).view(8, 4).sum(1)) / 2
    assert torch.allclose(scores, expected)


def test_consumer_rates_work_with_an_unmodified_pruner_and_flatten_is_seen_through():
    model, (x, _) = conv_net(), batch()
    functional.set_step_mode(model, "s")
    x = x[0]
    told = calibrate(model, [x])
    graph = tp.DependencyGraph().build_dependency(model, x)
    functional.reset_net(model)
    group = graph.get_pruning_group(model[4], tp.prune_conv_out_channels, list(range(8)))
    scores = SpikingImportance(statistic="input", weight_power=0.0, normalizer=None, uninformative_first=False)(group)
    expected = told.inputs["7"].view(8, 4).mean(1)
    assert expected.std() > 0
    assert torch.allclose(scores, expected.float())
    pruner = tp.pruner.BasePruner(
        model, x, SpikingImportance(statistic="input"), pruning_ratio=0.5, ignored_layers=[model[7]]
    )
    functional.reset_net(model)
    pruner.step()
    assert (model[0].out_channels, model[4].out_channels, model[7].in_features) == (3, 4, 16)
    assert model(x).shape == (8, 5)


def test_rates_follow_iterative_cuts_of_our_pruners():
    model, (x, _) = conv_net(), batch()
    told = calibrate(model, [x])
    pruner = SpikingPruner(
        model,
        x,
        SpikingImportance(criterion="spike_saliency"),
        pruning_ratio=0.6,
        iterative_steps=3,
        ignored_layers=[model[7]],
    )
    left = list(range(8))
    for _ in range(3):
        gone = set(pruner.step().channels["4"])
        left = [channel for number, channel in enumerate(left) if number not in gone]
        assert torch.equal(known(model[5]).outputs.rate, told.outputs["5"][left])
        assert torch.equal(known(model[7]).inputs.rate, told.inputs["7"].view(8, 4)[left].flatten())
    assert len(left) == 3


def test_rates_follow_groups_that_a_caller_prunes_and_no_others():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    pruner = SpikingPruner(
        model, x, SpikingImportance(), pruning_ratio=0.5, iterative_steps=2, ignored_layers=[model[7]]
    )
    for group in pruner.step(interactive=True):
        if group[0].dep.target.module is model[0]:
            group.prune()
    assert len(known(model[2]).outputs.counts) == model[0].out_channels == 4
    assert len(known(model[5]).outputs.counts) == model[4].out_channels == 8
    pruner.step()
    assert (model[0].out_channels, model[4].out_channels) == (3, 4)


def test_cuts_by_others_need_another_calibration():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    graph = dependency_graph(model, x, verbose=False)
    graph.get_pruning_group(model[4], tp.prune_conv_out_channels, [0, 5]).prune()
    group = graph.get_pruning_group(model[4], tp.prune_conv_out_channels, list(range(6)))
    for statistic in ("output", "input"):
        with pytest.raises(MissingStatistic, match=r"there are (6|24) now: call calibrate"):
            SpikingImportance(statistic=statistic)(group)
    calibrate(model, [x])
    assert SpikingImportance()(group).shape == (6,)


@pytest.mark.parametrize("statistic", ["output", "input"])
def test_uncalibrated_use_says_what_to_call(statistic):
    model, (x, _) = conv_net(), batch()
    pruner = SpikingPruner(model, x, SpikingImportance(statistic=statistic), ignored_layers=[model[7]])
    with pytest.raises(MissingStatistic, match=r"call calibrate\(model, loader\) on the very model"):
        pruner.step()
    assert model[0].out_channels == 6
    calibrate(model, [x])
    assert pruner.step()


def test_rates_of_neurons_are_refused_where_the_groups_have_none():
    model, (x, _) = conv_net(), batch()
    functional.set_step_mode(model, "s")
    calibrate(model, [x[0]])
    pruner = tp.pruner.BasePruner(model, x[0], SpikingImportance(), ignored_layers=[model[7]])
    with pytest.raises(MissingStatistic, match=r"no neuron in the group of '4'.*statistic='input'"):
        pruner.step()


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_missing_gradients_are_named(criterion):
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    with pytest.raises(MissingStatistic, match=r"0.weight has no grad.*calibrate\(model, loader, loss"):
        SpikingImportance(criterion=criterion)(groups_of(model, x)["0"])


def test_scores_that_are_not_finite_are_refused_by_name():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    model[0].weight.data[2] = float("nan")
    with pytest.raises(Diverged, match="scores of '0' are NaN or infinite"):
        SpikingImportance()(groups_of(model, x)["0"])


def test_part_of_a_group_scores_as_it_does_in_the_whole():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    graph = dependency_graph(model, x, verbose=False)
    score = SpikingImportance(normalizer=None)
    whole = score(graph.get_pruning_group(model[4], tp.prune_conv_out_channels, list(range(8))))
    part = score(graph.get_pruning_group(model[4], tp.prune_conv_out_channels, [2, 7, 5]))
    assert torch.allclose(part, whole[[2, 7, 5]])


def test_permuting_channels_permutes_scores():
    model, (x, _) = conv_net(), batch()
    calibrate(model, [x])
    before = SpikingImportance()(groups_of(model, x)["4"])
    order = torch.tensor([3, 1, 7, 0, 2, 6, 5, 4])
    model[4].weight.data, model[4].bias.data = model[4].weight.data[order], model[4].bias.data[order]
    model[7].weight.data = model[7].weight.data.view(5, 8, 4)[:, order].flatten(1)
    calibrate(model, [x])
    assert torch.allclose(SpikingImportance()(groups_of(model, x)["4"]), before[order])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"statistic": "inputs"}, "statistic='inputs'"),
        ({"rate_power": -1.0, "uninformative_first": False}, "rate_power=-1.0"),
        ({"rate_power": float("nan")}, "rate_power=nan"),
        ({"weight_power": float("nan")}, "weight_power=nan"),
        ({"p": float("inf")}, "p=inf"),
    ],
)
def test_options_outside_their_range_are_refused(options, says):
    with pytest.raises(BadOption, match=says):
        SpikingImportance(**options)


def test_criteria_that_cannot_be_had_are_refused_at_the_door():
    with pytest.raises(UnknownName, match="did you mean 'taylor'"):
        SpikingImportance(criterion="tailor")
    with pytest.raises(BadOption, match="momentum"):
        SpikingImportance(criterion=lambda each: each.need("momentum"))


def test_the_arguments_begin_as_those_of_the_host():
    import inspect

    theirs = inspect.signature(tp.importance.GroupMagnitudeImportance).parameters.values()
    ours = list(inspect.signature(SpikingImportance).parameters.values())
    assert [p.name for p in ours[: len(theirs)]] == [p.name for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])
    assert [p.default for p in ours[:4]] == [p.default for p in theirs][:4]
    assert SpikingImportance().target_types == tp.importance.GroupMagnitudeImportance().target_types
    assert SpikingImportance().target_types is not SpikingImportance().target_types


def test_a_criterion_that_needs_more_than_a_calibration_records_is_refused_by_its_name():
    for criterion in ("activity_product", partial(registry.get("criteria", "activity_product"))):
        with pytest.raises(BadOption, match="criterion 'activity_product' needs post_spikes, which a calibration does"):
            SpikingImportance(criterion=criterion)
