import pytest
import torch

from snnsl_plugin.models.dvs_gesture_net import dvs_gesture_net


def test_it_is_the_zoos_network_at_the_zoos_size():
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.model.parametric_lif_net import DVSGestureNet

    ours = dvs_gesture_net((2, 128, 128), 11, channels=16)
    theirs = DVSGestureNet(channels=16, spiking_neuron=neuron.LIFNode)
    shapes = {name: tuple(value.shape) for name, value in theirs.state_dict().items()}
    assert {name: tuple(value.shape) for name, value in ours.state_dict().items()} == shapes


def test_the_output_is_a_vote_of_ten_neurons_in_zero_to_one():
    torch.manual_seed(0)
    votes = dvs_gesture_net((2, 32, 32), 5, channels=16, v_threshold=0.05)(20 * torch.rand(4, 3, 2, 32, 32))
    assert 0 < votes.max() <= 1
    assert torch.equal((votes * 10).round() / 10, votes)
    assert votes.min() >= 0


def test_a_scale_multiplies_the_votes_and_adds_no_weight():
    x = 20 * torch.rand(4, 3, 2, 32, 32)
    made = {}
    for scale in (1.0, 10.0):
        torch.manual_seed(0)
        made[scale] = dvs_gesture_net((2, 32, 32), 5, channels=16, v_threshold=0.05, scale=scale).eval()
    assert made[1.0].state_dict().keys() == made[10.0].state_dict().keys()
    with torch.no_grad():
        assert torch.equal(made[10.0](x), 10 * made[1.0](x))
    with pytest.raises(ValueError, match="scale is 0"):
        dvs_gesture_net((2, 32, 32), 5, scale=0.0)
