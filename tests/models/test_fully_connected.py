import pytest
import torch

from snnsl_plugin.models.fully_connected import fully_connected


def test_it_takes_channels_without_neighbourhoods_and_is_as_wide_as_told():
    net = fully_connected((700, 1, 1), 20, hidden=[32, 16])
    assert [tuple(weight.shape) for weight in net.parameters() if weight.dim() == 2] == [(32, 700), (16, 32), (20, 16)]
    assert net(torch.rand(5, 3, 700, 1, 1)).shape == (5, 3, 20)


def test_neighbourhoods_mean_nothing_to_it():
    torch.manual_seed(0)
    net = fully_connected((2, 3, 4), 5, hidden=[8]).eval()
    x = 3 * torch.rand(1, 2, 2, 3, 4)
    order = torch.randperm(24)
    expected = net(x)
    net.fc1.weight.data = net.fc1.weight.data[:, order]
    for module in net.modules():
        if hasattr(module, "reset"):
            module.reset()
    torch.testing.assert_close(net(x.flatten(2)[..., order].view_as(x)), expected)


@pytest.mark.parametrize("option", [{"hidden": []}, {"hidden": [0]}, {"dropout": 1.0}])
def test_options_outside_their_range_are_refused_by_name(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        fully_connected((700, 1, 1), 20, **option)
