import copy

import pytest
import torch
from compaction.families import ChannelNeuron, OverTime
from spikingjelly.activation_based import neuron
from torch import Tensor, nn

from snnsl_plugin.anatomy import multi_step
from snnsl_plugin.compaction.neurons import Given, NeuronPruner, per_channel


def given(*shape: int, axis: int = 2) -> Given:
    return Given(shape, axis, torch.float32, torch.device("cpu"))


def multi(module: nn.Module) -> nn.Module:
    module.step_mode = "m"
    return module


@pytest.mark.parametrize(
    ("made", "held"),
    [
        (lambda: multi(neuron.LIFNode()), {}),
        (lambda: multi(neuron.ParametricLIFNode()), {}),
        (lambda: neuron.PSN(4), {}),
        (lambda: multi(neuron.MaskedPSN(2, 4)), {}),
        (lambda: multi(neuron.SlidingPSN(4)), {}),
        (lambda: multi(neuron.GatedLIFNode(4)), {}),
        (lambda: multi(ChannelNeuron(4, (4,), "parameter")), {"threshold": 0}),
        (lambda: multi(ChannelNeuron(4, (4, 1, 1), "buffer")), {"threshold": 0}),
        (lambda: multi(ChannelNeuron(4, (1, 4, 1, 1), "attribute", tau=True)), {"threshold": 1, "tau": 1}),
        (lambda: multi(OverTime(4, 4)), {"by_channel": 0}),
        (
            lambda: multi(neuron.MPBNLIFNode(out_channels=4, learnable_vth=True)),
            {"vbn.weight": 0, "vbn.bias": 0, "vbn.running_mean": 0, "vbn.running_var": 0, "a": 0},
        ),
    ],
    ids=["lif", "plif", "psn", "masked_psn", "sliding_psn", "gated", "c", "c11", "1c11", "own", "norm_in_neuron"],
)
def test_what_belongs_to_channels_is_told_from_what_belongs_to_as_many_steps(made, held: dict[str, int]) -> None:
    # 4 steps, 4 samples, 4 channels, 4 x 4 sites: no size tells anything
    module = made()
    before = copy.deepcopy(module.state_dict())
    assert per_channel(module, given(4, 4, 4, 4, 4)) == held
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_vector_over_columns_does_not_belong_to_channels() -> None:
    class ByColumn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold = nn.Parameter(torch.linspace(0.1, 0.4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return (x > self.threshold).to(x)  # broadcasts over the last axis

    assert per_channel(ByColumn(), given(2, 4, 4, 4, axis=1)) == {}


def test_kernels_of_several_taps_a_channel_belong_to_channels() -> None:
    class Taps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.taps = nn.Parameter(torch.rand(3, 4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return (x.unsqueeze(1) * self.taps).sum(1)

    assert per_channel(Taps(), given(2, 4, 5, 5, axis=1)) == {"taps": 1}


def test_two_channels_are_not_taken_for_something_that_broadcasts() -> None:
    assert per_channel(multi(OverTime(2, 2)), given(2, 2, 2, 2, 2)) == {"by_channel": 0}
    assert per_channel(multi(OverTime(1, 1)), given(1, 2, 1, 2, 2)) == {}


def test_what_cannot_run_alone_is_judged_by_size() -> None:
    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.threshold, self.matrix = nn.Parameter(torch.rand(5, 1, 1)), nn.Parameter(torch.rand(5, 5))

        def forward(self, x: Tensor, other: Tensor) -> Tensor:
            return (x + other > self.threshold).to(x)

    assert per_channel(Coupled(), given(2, 5, 3, 3, axis=1)) == {"threshold": 0}


def test_channels_of_a_threshold_are_cut_with_their_gradients_and_potentials_are_forgotten() -> None:
    module = ChannelNeuron(4, (4, 1, 1), "parameter", tau=True)
    module(torch.ones(1, 4, 2, 2))
    module.threshold.grad = torch.arange(4.0).view(4, 1, 1)
    pruner = NeuronPruner({module: 4}, {module: {"threshold": 0, "tau": 1}})
    pruner.prune_out_channels(module, [0, 2])
    torch.testing.assert_close(module.threshold.flatten(), torch.tensor([0.5, 0.9]))
    torch.testing.assert_close(module.tau.flatten(), torch.tensor([-1 / 3, 1.0]))
    assert module.threshold.grad.flatten().tolist() == [1.0, 3.0]
    assert module.v == 0.0
    pruner.prune_out_channels(module, [1])
    torch.testing.assert_close(module.threshold.flatten(), torch.tensor([0.5]))
    assert module(torch.ones(2, 1, 3, 3)).shape == (2, 1, 3, 3)


def test_a_norm_inside_a_neuron_knows_its_new_width() -> None:
    module = neuron.MPBNLIFNode(out_channels=4)
    held = per_channel(module, given(2, 4, 3, 3, axis=1))
    NeuronPruner({module: 4}, {module: held}).prune_out_channels(module, [3])
    assert module.vbn.num_features == 3
    assert module(torch.rand(2, 3, 5, 5)).shape == (2, 3, 5, 5)


def test_neurons_that_have_only_steps_are_in_multi_step_mode_without_saying_so() -> None:
    assert not hasattr(neuron.PSN(2), "step_mode")
    assert multi_step(neuron.PSN(2))
    assert not multi_step(neuron.LIFNode())
    assert multi_step(neuron.LIFNode(step_mode="m"))
    assert not multi_step(nn.ReLU())
