import pytest
from spikingjelly.activation_based import layer

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models.vgg9 import vgg9


def shapes(net):
    return [tuple(m.weight.shape) for m in net if isinstance(m, layer.Conv2d | layer.Linear)]


def test_the_widths_are_those_of_the_name():
    assert shapes(vgg9((3, 32, 32), 10)) == [
        (64, 3, 3, 3),
        (64, 64, 3, 3),
        (128, 64, 3, 3),
        (128, 128, 3, 3),
        (256, 128, 3, 3),
        (256, 256, 3, 3),
        (256, 256 * 4 * 4),
        (256, 256),
        (10, 256),
    ]


def test_the_classifier_can_be_wider_or_one_layer():
    assert shapes(vgg9((3, 16, 16), 20, hidden=[1024, 1024]))[6:] == [(1024, 1024), (1024, 1024), (20, 1024)]
    assert shapes(vgg9((3, 16, 16), 20, hidden=[]))[6:] == [(20, 1024)]
    assert any(isinstance(m, layer.Dropout) for m in vgg9((3, 16, 16), 20, dropout=0.5))


def test_other_than_six_convolutions_and_a_dropout_of_one_are_refused():
    with pytest.raises(BadOption, match="channels has 5 widths"):
        vgg9((3, 32, 32), 10, channels=[8] * 5)
    with pytest.raises(BadOption, match=r"dropout is 1\.0"):
        vgg9((3, 32, 32), 10, dropout=1.0)
