import pytest
import torch
from spikingjelly.activation_based import functional, layer
from torch import nn

from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.datasets.digits import digits
from snnsl_plugin.datasets.encoders.direct import direct
from snnsl_plugin.errors import BadOption
from snnsl_plugin.models.spiking_cnn import spiking_cnn


def test_weights_are_counted_by_hand():
    net = spiking_cnn((1, 8, 8), 10)
    shapes = [tuple(m.weight.shape) for m in net if isinstance(m, layer.Conv2d | layer.Linear)]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64 * 2 * 2), (10, 128)]


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 17, 17), (2, 34, 34), (3, 4, 9)])
def test_sizes_from_digits_to_nmnist_fit(shape):
    assert spiking_cnn(shape, 10)(torch.rand(2, 3, *shape)).shape == (2, 3, 10)


def test_every_layer_after_the_first_sees_only_zeros_and_ones():
    net = spiking_cnn((1, 8, 8), 10, channels=[4, 8], hidden=16)
    seen = []
    for module in [m for m in net if isinstance(m, layer.Conv2d | layer.Linear)][1:]:
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    net(torch.rand(4, 8, 1, 8, 8))
    assert len(seen) == 3
    assert all(set(x.unique().tolist()) <= {0.0, 1.0} for x in seen)
    assert any(x.sum() > 0 for x in seen)


def test_no_channels_and_a_width_of_zero_are_refused():
    for wrong in ([], [8, 0]):
        with pytest.raises(BadOption, match="channels is"):
            spiking_cnn((1, 8, 8), 10, channels=wrong)
    with pytest.raises(BadOption, match="hidden is"):
        spiking_cnn((1, 8, 8), 10, hidden=0)
    with pytest.raises(BadOption, match="at least 16x16"):
        spiking_cnn((1, 8, 8), 10, channels=[8, 8, 8, 8])


def test_four_epochs_on_digits_learn_to_read():
    torch.manual_seed(0)
    splits = digits()
    net = spiking_cnn((1, 8, 8), 10, channels=[16, 32], hidden=64)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    for _ in range(4):
        for x, y in Loader(splits.train, 64, shuffle=True, encoder=direct(T=2)):
            functional.reset_net(net)
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x).mean(0), y).backward()
            optimizer.step()
    net.eval()
    functional.reset_net(net)
    with torch.no_grad():
        ((x, y),) = Loader(splits.validation, 144, encoder=direct(T=2))
        assert (net(x).mean(0).argmax(1) == y).float().mean() > 0.9
