import pytest
import torch

from snnsl_plugin.core.growth.scale_gradient import scale_gradient
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic


def layer(**known) -> Layer:
    return Layer("fc", torch.ones(3, 2), {"mask": torch.ones(3, 2, dtype=torch.bool)}, **known)


def test_by_hand_the_sign_does_not_matter() -> None:
    scores = scale_gradient(layer(scale_grad=torch.tensor([-2.0, 0.0, 0.5])))
    assert scores.tolist() == [[2.0, 2.0], [0.0, 0.0], [0.5, 0.5]]


def test_what_was_not_recorded_is_an_error() -> None:
    with pytest.raises(MissingStatistic, match="'fc' has no scale_grad"):
        scale_gradient(layer())
