from functools import partial

import pytest
import torch

from snnsl_plugin.core.criteria.magnitude import magnitude
from snnsl_plugin.core.criteria.spike_saliency import spike_saliency
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.testing import check_criterion, tied_layer


def layer(weight: torch.Tensor, spikes: list[float], slots: float, groups: int = 1) -> Layer:
    mask = torch.ones_like(weight, dtype=torch.bool)
    return Layer("conv", weight, {"mask": mask}, groups=groups, pre_spikes=torch.tensor(spikes), pre_slots=slots)


def test_by_hand() -> None:
    # rates (7 + 1) / (14 + 2) = 1/2 and (0 + 1) / 16
    scores = spike_saliency(layer(torch.tensor([[2.0, -4.0]]), [7, 0], 14), power=0.5)
    assert scores.tolist() == [[pytest.approx(2 * 0.5**0.5), pytest.approx(4 * 0.25)]]


def test_is_the_norm_of_wanda_on_binary_spikes() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(4000, 3, generator=generator) < torch.tensor([0.1, 0.5, 0.9])).float()
    weight = torch.randn(2, 3, generator=generator)
    scores = spike_saliency(layer(weight, x.sum(0).tolist(), len(x)))
    wanda = weight.abs() * x.norm(dim=0) / len(x) ** 0.5
    assert torch.allclose(scores, wanda, rtol=2e-3)


def test_groups_read_their_own_channels() -> None:
    scores = spike_saliency(layer(torch.ones(4, 1, 1, 1), [8, 0], 8, groups=2), power=1.0)
    assert scores.flatten().tolist() == [pytest.approx(0.9)] * 2 + [pytest.approx(0.1)] * 2


def test_a_silent_channel_can_come_back() -> None:
    scores = spike_saliency(layer(torch.tensor([[100.0, 0.1]]), [0, 50], 98))
    assert scores[0, 0] > scores[0, 1] > 0


def test_power_zero_keeps_what_magnitude_keeps() -> None:
    tied = tied_layer()
    assert torch.equal(keep_top(spike_saliency(tied, power=0.0), 100), keep_top(magnitude(tied), 100))


def test_keeps_the_contract_with_another_power() -> None:
    check_criterion(partial(spike_saliency, power=2.0))


def test_bad_options_and_missing_spikes_are_sentences() -> None:
    with pytest.raises(BadOption, match="power=-1"):
        spike_saliency(tied_layer(), power=-1.0)
    with pytest.raises(MissingStatistic, match="has no pre_spikes: record with SpikeRecorder"):
        spike_saliency(Layer("fc", torch.ones(1, 1), {"mask": torch.ones(1, 1, dtype=torch.bool)}))
    with pytest.raises(MissingStatistic, match="reads 2 input channels but 3 were recorded"):
        spike_saliency(layer(torch.ones(1, 2), [1, 1, 1], 4))
