import pytest
import torch

from snnsl_plugin.core.spikes import firing_rate, is_binary, silent, spikes_per_channel
from snnsl_plugin.errors import BadOption


def test_rate_and_silence_by_hand() -> None:
    spikes = torch.zeros(2, 1, 3, 1, 2)
    spikes[0, 0, 1] = 1
    spikes[:, 0, 2] = 1
    assert firing_rate(spikes).tolist() == [0.0, 0.5, 1.0]
    assert silent(spikes.sum(0)) == 2 / 6
    counts, slots = spikes_per_channel(spikes, -3)
    assert (counts.tolist(), slots) == ([0, 2, 4], 4)
    with pytest.raises(BadOption, match="no neurons"):
        silent(torch.zeros(0))


def test_only_zero_and_one_are_binary() -> None:
    assert is_binary(torch.tensor([0.0, 1.0]))
    assert not is_binary(torch.tensor([0.0, 2.0]))
    assert not is_binary(torch.tensor([-1.0, 1.0]))
