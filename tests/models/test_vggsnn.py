from itertools import pairwise

import pytest
import torch

from snnsl_plugin.models.vggsnn import vggsnn


def test_it_has_the_weights_of_the_paper_at_its_size():
    net = vggsnn((2, 48, 48), 10)
    widths = [2, 64, 128, 256, 256, 512, 512, 512, 512]
    shapes = [tuple(weight.shape) for weight in net.parameters() if weight.dim() == 4]
    assert shapes == [(out, into, 3, 3) for into, out in pairwise(widths)]
    assert net.fc.weight.shape == (10, 512 * 3 * 3)


@pytest.mark.parametrize(("pool", "spikes"), [("avg", False), ("max", True)])
def test_what_a_pool_leaves_are_spikes_or_averages(pool, spikes):
    torch.manual_seed(0)
    net = vggsnn((2, 16, 16), 3, channels=[8] * 8, pool=pool, v_threshold=0.1)
    seen = []
    net.conv3.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    net(torch.rand(4, 2, 2, 16, 16))
    assert set(seen[0].unique().tolist()) <= ({0.0, 1.0} if spikes else {0.0, 0.25, 0.5, 0.75, 1.0})
    assert (len(seen[0].unique()) > 2) is not spikes


@pytest.mark.parametrize("option", [{"channels": [8] * 7}, {"pool": "sum"}])
def test_options_outside_their_range_are_refused_by_name(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        vggsnn((2, 16, 16), 3, **option)
