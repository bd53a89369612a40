import pytest
import torch
from spikingjelly.activation_based import layer
from torch import nn

from snnsl_plugin.errors import BadOption
from snnsl_plugin.models.sew_resnet import sew_resnet


def test_small_pictures_keep_their_size_through_the_stem():
    net = sew_resnet((2, 32, 32), 10)
    assert (net.conv1.kernel_size, net.conv1.stride, net.conv1.in_channels) == ((3, 3), (1, 1), 2)
    assert isinstance(net.maxpool, nn.Identity)


def test_large_pictures_have_the_stem_of_the_zoo():
    net = sew_resnet((3, 128, 128), 10)
    assert (net.conv1.kernel_size, net.conv1.stride) == ((7, 7), (2, 2))
    assert isinstance(net.maxpool, layer.MaxPool2d)
    assert sew_resnet((2, 128, 128), 10).conv1.in_channels == 2


@pytest.mark.parametrize(("depth", "blocks"), [(18, 8), (34, 16), (50, 16)])
def test_a_depth_has_the_blocks_of_the_paper(depth, blocks):
    net = sew_resnet((3, 32, 32), 10, depth=depth)
    assert sum(len(stage) for stage in (net.layer1, net.layer2, net.layer3, net.layer4)) == blocks


@pytest.mark.parametrize(("connect", "binary"), [("ADD", False), ("AND", True), ("IAND", True)])
def test_only_add_leaves_zero_and_one(connect, binary):
    net = sew_resnet((3, 16, 16), 10, connect=connect)
    seen = []
    net.layer2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    net(5 * torch.rand(2, 2, 3, 16, 16))
    values = set(seen[0].unique().tolist())
    assert (values <= {0.0, 1.0}) is binary
    assert values <= {0.0, 1.0, 2.0, 3.0}


def test_unknown_depths_and_connections_are_refused():
    with pytest.raises(BadOption, match="depth is 20"):
        sew_resnet((3, 32, 32), 10, depth=20)
    with pytest.raises(BadOption, match="connect is 'add'"):
        sew_resnet((3, 32, 32), 10, connect="add")
