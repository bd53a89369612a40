import pytest
import torch

from snnsl_plugin.core.criteria.membrane_potential import membrane_potential
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic


def layer(**known) -> Layer:
    return Layer("conv", torch.ones(2, 3, 1, 1), {"mask": torch.ones(2, 3, 1, 1, dtype=torch.bool)}, **known)


def test_by_hand_every_weight_of_a_channel_scores_its_potential() -> None:
    scores = membrane_potential(layer(post_potential=torch.tensor([0.5, 0.25])))
    assert scores.flatten(1).tolist() == [[0.5] * 3, [0.25] * 3]


def test_without_a_neuron_behind_it_or_with_another_one_it_says_so() -> None:
    with pytest.raises(MissingStatistic, match="'conv' has no post_potential: no spiking neuron"):
        membrane_potential(layer())
    with pytest.raises(MissingStatistic, match="2 output channels"):
        membrane_potential(layer(post_potential=torch.ones(3)))
