import pytest
from spikingjelly.activation_based import layer

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models.spiking_vgg import spiking_vgg


def convolutions(net):
    return [m for m in net.modules() if isinstance(m, layer.Conv2d)]


@pytest.mark.parametrize("depth", [11, 13, 16])
def test_a_depth_has_the_convolutions_of_the_paper_and_one_linear_layer_for_small_pictures(depth):
    net = spiking_vgg((3, 32, 32), 10, depth=depth)
    assert len(convolutions(net)) == depth - 3
    assert [tuple(m.weight.shape) for m in net.modules() if isinstance(m, layer.Linear)] == [(10, 512)]


def test_batch_norm_can_be_left_out():
    assert any(isinstance(m, layer.BatchNorm2d) for m in spiking_vgg((3, 32, 32), 10).modules())
    assert not any(isinstance(m, layer.BatchNorm2d) for m in spiking_vgg((3, 32, 32), 10, bn=False).modules())


def test_the_first_convolution_takes_the_channels_of_the_input():
    assert convolutions(spiking_vgg((1, 32, 32), 10))[0].in_channels == 1


def test_an_unknown_depth_is_refused():
    with pytest.raises(BadOption, match=r"depth is 9; .*vgg9 is another model"):
        spiking_vgg((3, 32, 32), 10, depth=9)
