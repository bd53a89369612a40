import pytest
import torch

from snnsl_plugin.datasets.encoders.poisson import poisson
from snnsl_plugin.errors import BadOption


def test_black_never_fires_and_white_always_does():
    x = torch.zeros(1, 1, 1, 2)
    x[..., 1] = 1
    spikes = poisson(T=200)(x)
    assert spikes[..., 0].sum() == 0
    assert spikes[..., 1].sum() == 200


def test_the_rate_of_spikes_is_the_value_of_the_pixel():
    torch.manual_seed(0)
    x = torch.rand(1, 1, 5, 5)
    spikes = poisson(T=4000)(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean(0), x, atol=0.04, rtol=0)  # five standard errors of 4,000 draws


def test_it_repeats_under_torchs_seed():
    x = torch.rand(2, 1, 4, 4)
    torch.manual_seed(3)
    first = poisson()(x)
    torch.manual_seed(3)
    assert torch.equal(first, poisson()(x))


@pytest.mark.parametrize("value", [-0.1, 1.01])
def test_values_that_are_no_probabilities_are_refused_with_the_way_out(value):
    with pytest.raises(BadOption, match="normalize: false"):
        poisson()(torch.full((1, 1, 2, 2), value))


def test_it_is_refused_on_event_frames():
    with pytest.raises(BadOption, match="use encoder frames"):
        poisson()(torch.zeros(2, 4, 2, 8, 8))
