import pytest
import torch

from snnsl_plugin.datasets.encoders.direct import direct
from snnsl_plugin.errors import BadOption


def test_each_step_is_the_picture_itself():
    x = torch.rand(2, 3, 4, 4)
    steps = direct(T=5)(x)
    assert steps.shape == (5, 2, 3, 4, 4)
    assert all(torch.equal(step, x) for step in steps)


def test_it_is_refused_on_event_frames_with_the_encoder_to_use():
    with pytest.raises(BadOption, match="use encoder frames"):
        direct()(torch.zeros(2, 4, 2, 8, 8))


def test_no_steps_are_refused():
    with pytest.raises(BadOption, match="T is 0"):
        direct(T=0)
