import pytest
import torch

from snnsl_plugin.datasets.encoders.frames import frames
from snnsl_plugin.errors import BadOption


def test_time_moves_to_the_front_and_nothing_else_changes():
    x = torch.rand(2, 4, 2, 8, 8)
    steps = frames()(x)
    assert steps.shape == (4, 2, 2, 8, 8)
    assert steps.is_contiguous()
    assert torch.equal(steps[3, 1], x[1, 3])


def test_another_number_of_frames_than_expected_is_refused():
    assert frames(T=4)(torch.zeros(2, 4, 2, 8, 8)).shape[0] == 4
    with pytest.raises(BadOption, match=r"expects T: 5 and the data has 4"):
        frames(T=5)(torch.zeros(2, 4, 2, 8, 8))


def test_pictures_are_refused_with_the_encoders_to_use():
    with pytest.raises(BadOption, match="direct or poisson"):
        frames()(torch.zeros(2, 1, 8, 8))
