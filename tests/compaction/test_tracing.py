import subprocess
import sys

import pytest
import torch
from compaction.families import FAMILIES, FlattensTime, Gap, OverTime, lif
from spikingjelly.activation_based import functional, layer, neuron
from torch import Tensor, nn

from snnsl_plugin.anatomy import neurons
from snnsl_plugin.compaction.graph import dependency_graph
from snnsl_plugin.compaction.tracing import call, forward_fn, traceable
from snnsl_plugin.errors import BadOption, CannotCut


def reached(model: nn.Module, example: object, root: nn.Module, channels: list[int], **options) -> dict[str, list[int]]:
    """Where channels of a layer are read, by module name."""
    graph = dependency_graph(model, example, **options)
    group = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, channels)
    return {
        graph._module2name[dep.target.module]: sorted(idxs)
        for dep, idxs in group
        if dep.target.module in graph._module2name and graph.is_in_channel_pruning_fn(dep.handler)
    }


@pytest.mark.parametrize(("mode", "trace"), [("s", "auto"), ("m", "auto"), ("m", "m")])
def test_channels_are_followed_through_neurons_to_their_readers_in_either_step_mode(mode: str, trace: str) -> None:
    family = FAMILIES["conv_flatten"]
    model = family.model(mode)
    # 6 channels of 2 x 2 sites are flattened into 24 features: channel 1 is features 4 to 7
    assert reached(model, family.example(mode), model[3], [1], trace=trace)["8"] == [4, 5, 6, 7]
    assert reached(model, family.example(mode), model[0], [0, 5], trace=trace)["3"] == [0, 5]


def test_code_that_merges_time_and_batch_is_followed_as_it_stands() -> None:
    model, x = FlattensTime(), torch.rand(3, 2, 3, 8, 8)
    assert reached(model, x, model.conv1, [0, 5])["conv2"] == [0, 5]
    assert reached(model, x, model.conv2, [1])["fc"] == list(range(16, 32))
    with pytest.raises(CannotCut, match="cannot trace this FlattensTime.*in mode 's'"):
        dependency_graph(model, x, trace="s")


def test_as_many_channels_as_steps_and_samples_are_not_mixed_up() -> None:
    model = functional_multi(Gap(widths=(3, 3)))
    assert reached(model, torch.rand(3, 3, 3, 8, 8), model.conv1, [2])["conv2"] == [2]
    assert reached(model, torch.rand(3, 3, 3, 8, 8), model.conv1, [2], trace="m")["conv2"] == [2]


def functional_multi(model: nn.Module) -> nn.Module:
    functional.set_step_mode(model, "m")
    return model


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("in the middle")


@pytest.mark.parametrize("trace", ["s", "m", "auto"])
def test_a_trace_that_fails_in_the_middle_leaves_everything_as_it_was(trace: str) -> None:
    model = functional_multi(
        nn.Sequential(
            layer.SeqToANNContainer(nn.Conv2d(3, 4, 3)),
            layer.ThresholdDependentBatchNorm2d(1.0, 1.0, 4),
            lif(),
            layer.Conv2d(4, 4, 1),
            Fails(),
        )
    )
    model[3].eval()
    seen: list[str] = []
    handle = model[3].register_forward_hook(lambda *_: seen.append("hook"))
    model[2](torch.rand(2, 1, 4, 6, 6))
    potential = model[2].v
    before = {
        name: (m.training, vars(m).get("_step_mode"), vars(m).get("forward"), m._forward_hooks)
        for name, m in model.named_modules()
    }
    with pytest.raises(CannotCut, match="in the middle"):
        dependency_graph(model, torch.rand(2, 1, 3, 8, 8), trace=trace)
    after = {
        name: (m.training, vars(m).get("_step_mode"), vars(m).get("forward"), m._forward_hooks)
        for name, m in model.named_modules()
    }
    assert after == before
    assert all(after[name][3] is before[name][3] for name in before)
    assert seen == []
    assert model[2].v is potential
    handle.remove()
    assert not model[3]._forward_hooks


def test_potentials_of_an_earlier_batch_stay_and_do_not_enter_the_graph() -> None:
    model = Gap()
    x = torch.rand(2, 3, 8, 8)
    fresh = len(dependency_graph(model, x).module2node)
    model(x)
    potential = model.spikes1.v
    assert potential.grad_fn is not None
    assert len(dependency_graph(model, x).module2node) == fresh
    assert model.spikes1.v is potential


def test_inside_a_trace_neurons_hand_on_what_they_get_once_and_are_counted() -> None:
    model = functional_multi(Gap())
    seen: dict[nn.Module, int] = {}
    with traceable(model, "s", seen):
        assert model(torch.rand(2, 3, 8, 8)).shape == (2, 5)
        x = torch.full((1, 8, 1, 1), -3.0)
        assert torch.equal(model.spikes1(x), x)
    assert {name: seen[each] for name, each in neurons(model).items()} == {"spikes1": 8, "spikes2": 12}
    assert model(torch.rand(3, 2, 3, 8, 8)).shape == (3, 2, 5)


def test_the_first_step_of_an_example_is_taken_only_where_the_model_takes_time() -> None:
    shapes: list[tuple[int, ...]] = []

    def noting(model: nn.Module, x: dict[str, Tensor]) -> Tensor:
        shapes.append(tuple(x["picture"].shape))
        return model(x["picture"])

    forward = forward_fn("s", {}, {}, user=noting)
    forward(Gap(), {"picture": torch.rand(2, 3, 8, 8)})
    forward(functional_multi(Gap()), {"picture": torch.rand(5, 2, 3, 8, 8)})
    own = functional_multi(Gap(lambda channels: OverTime(channels, 5)))
    forward_fn("s", {}, {}, user=noting, neuron_types=[OverTime])(own, {"picture": torch.rand(5, 2, 3, 8, 8)})
    # a neuron that owns tensors runs once as it is, to see which of them belong to channels
    assert shapes == [(2, 3, 8, 8), (2, 3, 8, 8), (5, 2, 3, 8, 8), (2, 3, 8, 8)]


def test_the_pass_that_looks_at_neurons_with_tensors_goes_by_the_hooks_of_others() -> None:
    model = Gap(lambda channels: OverTime(channels))
    calls: list[str] = []
    model.conv1.register_forward_hook(lambda *_: calls.append("trace"))
    before = model.spikes1.register_forward_pre_hook(lambda *_: calls.append("neuron"))
    held: dict[nn.Module, dict[str, int]] = {}
    forward_fn("s", {}, held, neuron_types=[OverTime])(model.train(), torch.rand(2, 3, 8, 8))
    assert calls == ["trace", "neuron"]
    assert held == {model.spikes1: {"by_channel": 0}, model.spikes2: {"by_channel": 0}}
    assert model.spikes1.training
    before.remove()
    assert not model.spikes1._forward_pre_hooks


def test_containers_that_remember_are_at_rest_after_a_trace() -> None:
    container = layer.ElementWiseRecurrentContainer(nn.Identity(), torch.add)
    with traceable(container, "s", {}):
        container(torch.ones(2, 3))
        assert container.y is not None
    assert container.y is None


def test_neurons_with_nothing_but_steps_take_time() -> None:
    model = functional_multi(Gap(lambda _: neuron.PSN(3)))
    graph = dependency_graph(model, torch.rand(3, 2, 3, 8, 8), trace="s")
    assert model.conv2 in graph.module2node


def test_models_are_called_with_a_tensor_a_sequence_or_a_mapping() -> None:
    class Adds(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert call(Adds(), (one, two)) == 3
    assert call(Adds(), {"a": one, "b": two}) == 3
    assert call(nn.Identity(), one) == 1


def test_an_unknown_mode_of_tracing_is_refused() -> None:
    with pytest.raises(BadOption, match="trace='multi': choose 'auto'"):
        dependency_graph(Gap(), torch.rand(1, 3, 8, 8), trace="multi")


def test_importing_the_package_loads_no_host() -> None:
    told = (
        "import sys, snnsl_plugin.compaction; print([n for n in ('torch', 'torch_pruning', 'nni') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "[]\n"
