import copy

import pytest
import torch
from spikingjelly.activation_based import neuron
from torch import nn

from snnsl_plugin.training.downstream import Downstream
from snnsl_plugin.training.potentials import Potentials


class Told(Downstream):
    """Every neuron is driven by a layer of its own name."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, {})
        self.found = {name: name for name in self._neurons}


def recorded(module: nn.Module, *inputs: torch.Tensor) -> dict[str, list[float]]:
    net = nn.Sequential(module)
    with Potentials(net, Told(net)) as potentials:
        for x in inputs:
            module(x)
        return {name: found["post_potential"].tolist() for name, found in potentials.fields().items()}


@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("mode", ["m", "s"])
def test_by_hand_in_both_step_modes_and_with_both_resets(mode: str, v_reset: float | None) -> None:
    # An IF neuron of threshold 1 is given .5, .75 (fires at 1.25), -1; the other channel .25 three times.
    x = torch.tensor([[[0.5, 0.25]], [[0.75, 0.25]], [[-1.0, 0.25]]])
    module = neuron.IFNode(step_mode=mode, v_reset=v_reset)
    found = recorded(module, *([x] if mode == "m" else x))
    last = 1.0 if v_reset == 0.0 else 0.75  # after a soft reset 0.25 is left
    assert found == {"0": [pytest.approx((0.5 + 1.0 + last) / 3), pytest.approx(1.5 / 3)]}


def test_every_site_of_a_channel_counts() -> None:
    x = torch.rand(3, 2, 4, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = recorded(neuron.LIFNode(step_mode="m", v_threshold=0.4, tau=2.0), x)
    v, total = torch.zeros(2, 4, 2, 2), torch.zeros(4)
    for step in x:
        v = v + (step - v) / 2.0
        fires = v >= 0.4
        total += torch.where(fires, 0.4, v.abs()).mean((0, 2, 3)) / 3
        v = torch.where(fires, 0.0, v)
    torch.testing.assert_close(torch.tensor(found["0"]), total, rtol=0, atol=1e-6)


def test_what_is_not_recorded_leaves_no_trace() -> None:
    module = neuron.IFNode(step_mode="m")
    net = nn.Sequential(nn.Linear(2, 2), module)
    with Potentials(net, Told(net)) as potentials:
        potentials.recording = False
        net(torch.ones(2, 1, 2))
        potentials.recording = True
        net.eval()
        net(torch.ones(2, 1, 2))
        assert potentials.fields() == {}
        net.train()
        net(torch.ones(2, 1, 2))
        assert module.v_seq is None
        assert not module.store_v_seq
        module.reset()
        copy.deepcopy(net)(torch.ones(2, 1, 2))  # the copy carries the hook along
        assert potentials.state_dict()["slots/1"] == 2
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_a_neuron_without_a_potential_is_left_out() -> None:
    assert recorded(neuron.PSN(T=3), torch.rand(3, 2, 4)) == {}


def test_state_goes_on_where_it_stopped() -> None:
    net = nn.Sequential(neuron.IFNode(step_mode="m"))
    one, other = Potentials(net, Told(net)), Potentials(net, Told(net))
    with one:
        net(torch.rand(3, 2, 4))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.fields()["0"]["post_potential"], other.fields()["0"]["post_potential"])
