import pytest
import torch

from snnsl_plugin.core.criteria.activity_product import activity_product
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic


def layer(weight: torch.Tensor, **statistics: object) -> Layer:
    return Layer("fc", weight, {"mask": weight != 0}, **statistics)


def test_by_hand() -> None:
    # (spikes + 1) / (slots + 2): inputs 1/4, 3/4; outputs 1/2, 1
    weight = torch.tensor([[4.0, -4.0], [2.0, 1.0]])
    pre, post = torch.tensor([0.0, 2.0]), torch.tensor([3.0, 7.0])
    scores = activity_product(layer(weight, pre_spikes=pre, pre_slots=2.0, post_spikes=post, post_slots=6.0))
    assert scores.tolist() == [[4 / 4 / 2, 4 * 3 / 4 / 2], [2 / 4, 3 / 4]]


def test_equals_a_loop_over_every_weight_of_a_grouped_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 2, 3, 3, generator=generator)
    pre, post = torch.randint(0, 9, (4,), generator=generator), torch.randint(0, 9, (6,), generator=generator)
    scores = activity_product(
        layer(weight, groups=2, pre_spikes=pre, pre_slots=10.0, post_spikes=post, post_slots=12.0)
    )
    for out in range(6):
        for inner in range(2):
            rate = (float(pre[inner + 2 * (out // 3)]) + 1) / 12 * (float(post[out]) + 1) / 14
            assert torch.allclose(scores[out, inner], weight[out, inner].abs() * rate)


def test_a_layer_that_drives_no_neuron_is_named() -> None:
    with pytest.raises(MissingStatistic, match="'fc' has no post_spikes: no spiking neuron follows it"):
        activity_product(layer(torch.ones(2, 2), pre_spikes=torch.ones(2), pre_slots=2.0))
    with pytest.raises(MissingStatistic, match="has 2 output channels but the neuron that it drives has 3"):
        activity_product(
            layer(torch.ones(2, 2), pre_spikes=torch.ones(2), pre_slots=2.0, post_spikes=torch.ones(3), post_slots=2.0)
        )
