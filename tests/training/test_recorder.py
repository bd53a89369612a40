import pytest
import torch
from spikingjelly.activation_based import layer, neuron
from torch import nn

from snnsl_plugin.anatomy import neurons
from snnsl_plugin.errors import MissingStatistic, NothingMatched
from snnsl_plugin.training.recorder import SpikeRecorder


def net(step_mode: str) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1), neuron.LIFNode(), layer.Flatten(), layer.Linear(64, 3), neuron.IFNode()
    )
    for module in made:
        module.step_mode = step_mode
    return made


def hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_counts_by_hand() -> None:
    model = nn.Sequential(nn.Linear(2, 1))
    with SpikeRecorder(model) as recorder:
        model(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]))
    counts, slots = recorder.input_counts("0")
    assert (counts.tolist(), slots) == ([2, 0], 3)


def test_both_step_modes_count_the_same_and_equal_a_loop_by_hand() -> None:
    x = (torch.rand(5, 2, 2, 4, 4, generator=torch.Generator().manual_seed(1)) < 0.4).float() * 3
    multi, single = net("m"), net("s")
    with SpikeRecorder(multi) as recorded_multi:
        multi(x)
    with SpikeRecorder(single) as recorded_single:
        for step in x:
            single(step)
    assert recorded_multi.input_rates()["0"].tolist() == pytest.approx((x != 0).double().mean((0, 1, 3, 4)).tolist())
    for a, b in (
        (recorded_multi.input_rates(), recorded_single.input_rates()),
        (recorded_multi.output_rates(), recorded_single.output_rates()),
    ):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].tolist() == pytest.approx(b[name].tolist())
    assert recorded_multi.output_rates()["1"].shape == (4,)


def test_leaves_no_hook_also_when_the_model_raises() -> None:
    model = net("m")
    with pytest.raises(RuntimeError), SpikeRecorder(model):
        assert hooks(model) == 4
        model(torch.zeros(1, 1, 7, 4, 4))
    assert hooks(model) == 0


def test_a_neuron_is_known_by_its_home_and_not_by_its_parent() -> None:
    class Mine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 0).float()

    model = nn.Sequential(neuron.PSN(4), Mine(), nn.ReLU())
    assert not isinstance(model[0], neuron.BaseNode)
    assert list(neurons(model)) == ["0"]
    assert list(neurons(model, (Mine,))) == ["0", "1"]


def test_paused_and_evaluation_passes_go_by_uncounted() -> None:
    model, x = nn.Sequential(nn.Linear(2, 1)), torch.ones(1, 2)
    with SpikeRecorder(model, training_only=True) as recorder:
        model(x)
        recorder.recording = False
        model(x)
        recorder.recording = True
        model.eval()(x)
    assert recorder.input_counts("0")[1] == 1


def test_state_goes_on_where_it_stopped() -> None:
    model, x = nn.Sequential(nn.Linear(2, 1)), torch.tensor([[1.0, 0.0]])
    with SpikeRecorder(model) as one:
        model(x)
    two = SpikeRecorder(model)
    two.load_state_dict(one.state_dict())
    with two:
        model(torch.zeros(1, 2))
    assert two.input_rates()["0"].tolist() == [0.5, 0.0]
    two.clear()
    with pytest.raises(MissingStatistic, match="no input of '0' was recorded"):
        two.input_counts("0")


def test_nothing_to_record_is_an_error() -> None:
    with pytest.raises(NothingMatched, match="no convolution, linear layer or spiking neuron"):
        SpikeRecorder(nn.ReLU())
    with pytest.raises(NothingMatched, match="are not layers of the model"):
        SpikeRecorder(nn.Linear(1, 1), layers=["conv9"])


@pytest.mark.parametrize(("mode", "shape"), [("s", (5, 3, 7)), ("m", (4, 5, 3, 7))])
def test_a_neuron_of_a_1d_net_has_its_channels_behind_the_batch(mode, shape):
    node = neuron.IFNode(step_mode=mode)
    with SpikeRecorder(nn.Sequential(node)) as recorder:
        node(torch.full(shape, 2.0))
    assert recorder.output_rates()["0"].tolist() == [1.0, 1.0, 1.0]
