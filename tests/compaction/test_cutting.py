import copy

import pytest
import torch
from compaction.families import Gap, Scaled, lif, lively_
from spikingjelly.activation_based import functional, layer
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured

from snnsl_plugin.compaction.cutting import Cutting
from snnsl_plugin.compaction.graph import dependency_graph
from snnsl_plugin.errors import BadOption, CannotCut

X = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def group(graph, module: nn.Module, channels: list[int]):
    return graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, channels)


def held(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.state_dict(keep_vars=True))


def untouched(model: nn.Module, before: dict[str, Tensor]) -> bool:
    now = held(model)
    return list(now) == list(before) and all(now[name] is before[name] for name in before)


class Shuffles(Gap):
    """Moves channels in a way that the dependency graph takes for element-wise."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes1(self.norm1(self.conv1(x)))
        x = self.spikes2(self.norm2(self.conv2(x.roll(1, dims=1))))
        return self.fc(self.flatten(self.pool(x)))


def test_a_cut_is_reported_as_channels_were_numbered_before() -> None:
    model = lively_(Gap())
    weights = model.conv2.weight.detach().clone()
    graph = dependency_graph(model, X)
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [1, 2]))
        cutting.cut(group(graph, model.conv2, [0]))
        cutting.cut(group(graph, model.conv1, [1]))  # number 3 at first
    assert cutting.removed is not None
    assert cutting.removed.channels == {"conv1": [1, 2, 3], "conv2": [0]}
    assert cutting.removed.before == {"conv1": 8, "conv2": 12}
    # conv1: 3 x (27 + 1), its norm 3 x 2, conv2: 8 x 12 - 5 x 11 kernels of 9, its norm 2, the classifier 5
    assert cutting.removed.parameters == (1193, 1193 - 84 - 6 - 9 * 41 - 2 - 5)
    assert torch.equal(model.conv2.weight, weights[1:][:, [0, 4, 5, 6, 7]])
    assert str(cutting.removed) == "conv1 3 of 8, conv2 1 of 12; parameters 1,193 -> 727"
    assert cutting.removed


def test_nothing_cut_is_reported_as_nothing() -> None:
    model = Gap()
    with Cutting(model, X) as cutting:
        pass
    assert not cutting.removed
    assert str(cutting.removed) == "nothing; parameters 1,193 -> 1,193"


def test_a_cut_that_would_change_the_outputs_is_undone_and_its_layer_is_named() -> None:
    model = lively_(Shuffles()).eval()
    before, expected = held(model), copy.deepcopy(model)(X)
    graph = dependency_graph(model, X)
    with (
        pytest.raises(CannotCut, match="'conv1' cannot be cut: its outputs would change by .* ignored_layers"),
        Cutting(model, X) as cutting,
    ):
        cutting.cut(group(graph, model.conv2, [0, 3]))  # nothing wrong with this one
        cutting.cut(group(graph, model.conv1, [0, 3]))
    assert cutting.removed is None
    assert untouched(model, before)
    assert (model.conv1.out_channels, model.conv2.in_channels, model.norm1.num_features) == (8, 8, 8)
    functional.reset_net(model)
    assert torch.equal(model(X), expected)


def test_without_proof_it_is_cut_all_the_same() -> None:
    model = lively_(Shuffles())
    graph = dependency_graph(model, X)
    with Cutting(model, X, verify=False) as cutting:
        cutting.cut(group(graph, model.conv1, [0, 3]))
    assert cutting.removed is not None
    assert cutting.removed.channels == {"conv1": [0, 3]}


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), BadOption("mine")])
def test_errors_of_the_caller_pass_and_everything_is_undone(error: BaseException) -> None:
    model = lively_(Gap())
    before = held(model)
    graph = dependency_graph(model, X)
    with pytest.raises(type(error)) as caught, Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [0]))
        raise error
    assert caught.value is error
    assert untouched(model, before)
    assert model.conv1.out_channels == 8


def test_scores_that_do_not_fit_a_layer_are_a_refusal() -> None:
    model = lively_(Gap())
    before = held(model)
    graph = dependency_graph(model, X)
    with pytest.raises(CannotCut, match="'conv1' cannot be cut: what was to be cut next.*IndexError"):  # noqa: SIM117
        with Cutting(model, X) as cutting:
            cutting.cut(group(graph, model.conv1, [0]))
            model.conv2.weight[99]
    assert untouched(model, before)


def test_potentials_gradients_and_handles_of_hooks_outlive_a_refusal() -> None:
    model = lively_(Shuffles())
    model(X).sum().backward()
    potential, gradient = model.spikes1.v, model.conv1.weight.grad
    calls: list[int] = []
    handle = model.conv1.register_forward_hook(lambda *_: calls.append(1))
    graph = dependency_graph(model, X)
    with pytest.raises(CannotCut), Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [0]))
    assert model.spikes1.v is potential
    assert model.conv1.weight.grad is gradient
    assert calls == []
    model.conv1(X)
    assert calls == [1]
    handle.remove()
    model.conv1(X)
    assert calls == [1]


class ScaledAndShuffled(Scaled):
    """A parameter of its own on what may be cut, and a shuffle behind what may not."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes1(self.norm1(self.conv1(x)) * self.scale)
        x = self.spikes2(self.norm2(self.conv2(x)))
        return self.fc(self.flatten(self.pool(x.roll(1, dims=1))))


@pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
def test_the_graph_of_a_refused_cut_goes_on_as_if_nothing_had_been() -> None:
    model = lively_(ScaledAndShuffled())
    graph = dependency_graph(model, X)
    scale, nodes = model.scale, list(graph.module2node)
    with pytest.raises(CannotCut, match="'conv2'"), Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [0, 1]))
        cutting.cut(group(graph, model.conv2, [4]))
    assert model.scale is scale
    assert all(one is other for one, other in zip(graph.module2node, nodes, strict=True))
    assert graph.pruning_history() == []
    assert graph.CUSTOMIZED_PRUNERS[type(model.spikes1)]._seen == {model.spikes1: 8, model.spikes2: 12}
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [0, 1]))
    assert model.scale.shape == (6, 1, 1)
    assert torch.equal(model.scale.flatten(), scale.flatten()[2:])
    assert [each[0] for each in graph.pruning_history()] == ["conv1"]


def test_concatenations_count_right_after_a_refusal() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.spikes = layer.Conv2d(3, 4, 1), layer.Conv2d(3, 4, 1), lif()
            self.after, self.pool, self.flatten = layer.Conv2d(8, 6, 1), layer.AvgPool2d(8), layer.Flatten()
            self.fc = layer.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.after(self.spikes(torch.cat([self.left(x), self.right(x)], 1)))
            return self.fc(self.flatten(self.pool(x)).roll(1, dims=1))

    model = lively_(Wide())
    weights = model.after.weight.detach().clone()
    graph = dependency_graph(model, X)
    with pytest.raises(CannotCut, match="'after'"), Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.left, [0, 1, 2]))
        cutting.cut(group(graph, model.after, [4]))
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.right, [1]))
        cutting.cut(group(graph, model.left, [3]))
    assert torch.equal(model.after.weight, weights[:, [0, 1, 2, 4, 6, 7]])


def test_a_model_that_cannot_be_copied_is_refused_before_anything_is_cut() -> None:
    model = lively_(Gap())
    model.made = model.conv1.weight * 2  # deep copies of tensors with a history are refused by torch
    before = held(model)
    with pytest.raises(CannotCut, match="cannot be copied.*verify=False"), Cutting(model, X):
        pass
    assert untouched(model, before)


def test_a_channel_that_fires_by_a_shift_is_missed_and_equality_is_to_the_model_in_which_it_is_silent() -> None:
    model = lively_(Gap()).eval()
    with torch.no_grad():
        model.norm1.bias[2] = 5.0
    dense = copy.deepcopy(model)
    graph = dependency_graph(model, X)
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [2]))
    with torch.no_grad():
        assert (dense(X) - model(X)).abs().max() > 1e-3
        functional.reset_net(dense)
        functional.reset_net(model)
        for norm_or_layer in (dense.conv1, dense.norm1):
            norm_or_layer.weight[2] = 0.0
            norm_or_layer.bias[2] = 0.0
        torch.testing.assert_close(dense(X), model(X), rtol=0, atol=1e-5)


def test_channels_without_a_neuron_behind_them_are_silent_in_their_layer_and_their_norm() -> None:
    model = lively_(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6 * 36, 4)))
    graph = dependency_graph(model, X)
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model[0], [1, 4]))
    assert cutting.removed is not None
    assert cutting.removed.channels == {"0": [1, 4]}
    assert model[3].in_features == 4 * 36


def test_a_frozen_layer_is_cut_and_stays_frozen() -> None:
    model = lively_(Gap())
    model.conv1.weight.requires_grad_(False)
    graph = dependency_graph(model, X)
    assert not model.conv1.weight.requires_grad
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [0, 3]))
    assert model.conv1.weight.shape[0] == 6
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == ["conv1.weight"]


def test_a_norm_without_scale_says_nothing_for_a_silent_channel_with_no_neuron_behind_it() -> None:
    model = nn.Sequential(
        layer.Conv2d(3, 8, 3, bias=False), layer.BatchNorm2d(8, affine=False), layer.Conv2d(8, 4, 3), lif()
    )
    model[1].running_mean.copy_(torch.linspace(-1, 1, 8))
    graph = dependency_graph(model, X)
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model[0], [0, 7]))
    assert cutting.removed is not None
    assert cutting.removed.channels == {"0": [0, 7]}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inlet, self.a, self.b, self.fc = (
            layer.Linear(4, 6),
            layer.Linear(6, 6),
            layer.Linear(6, 6),
            nn.Linear(6, 2),
        )
        self.b.weight = self.a.weight
        self.spikes = nn.ModuleList([lif(), lif(), lif()])

    def forward(self, x: Tensor) -> Tensor:
        x = self.spikes[0](self.inlet(x))
        return self.fc(self.spikes[2](self.b(self.spikes[1](self.a(x) + x))))


def test_a_weight_with_two_names_is_refused_and_stays_one() -> None:
    model, x = Tied(), torch.rand(3, 4)
    graph = dependency_graph(model, x)
    with (
        pytest.raises(CannotCut, match=r"'a' cannot be cut: a.weight and b.weight are one tensor"),
        Cutting(model, x) as c,
    ):
        c.cut(group(graph, model.a, [0]))
    assert model.a.weight is model.b.weight


def test_a_weight_that_is_computed_is_refused() -> None:
    model = lively_(Gap())
    l1_unstructured(model.conv1, "weight", 0.5)
    with torch.no_grad():
        model(X)
        model.conv1.weight = model.conv1.weight.detach()
    graph = dependency_graph(model, X)
    with pytest.raises(CannotCut, match=r"'conv1' cannot be cut: its weight is computed"), Cutting(model, X) as cutting:
        cutting.cut(group(graph, model.conv1, [0]))


def test_transposed_convolutions_are_cut_and_counted() -> None:
    model = nn.Sequential(
        layer.Conv2d(3, 8, 3),
        lif(),
        layer.ConvTranspose2d(8, 6, 3),
        layer.Conv2d(6, 4, 3),
        lif(),
        layer.Conv2d(4, 2, 1),
    )
    graph = dependency_graph(model, X)
    with Cutting(model, X) as cutting:
        cutting.cut(group(graph, model[2], [0, 4]))
    assert cutting.removed is not None
    assert (cutting.removed.channels, cutting.removed.before) == ({"2": [0, 4]}, {"2": 6})
    assert model[2].weight.shape == (8, 4, 3, 3)


def test_a_neuron_shared_by_layers_of_other_widths_is_named() -> None:
    shared = lif()
    model = nn.Sequential(layer.Conv2d(3, 8, 3), shared, layer.Conv2d(8, 4, 3), shared, layer.Conv2d(4, 2, 1))
    with pytest.raises(CannotCut, match="the neuron '1' is called with 8 and with 4 channels"):
        dependency_graph(model, X)
