import pytest
import torch
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.health.bn_momentum import bn_momentum


def test_by_hand() -> None:
    norm = nn.BatchNorm1d(2, momentum=0.1)
    with bn_momentum(nn.Sequential(norm), value=0.5, steps=2) as care:
        seen = []
        for step in range(1, 9):
            care.before_step(step)
            seen.append(norm.momentum)
            if step in (2, 6):
                care.after_update(step)
        assert seen == [0.1, 0.1, 0.5, 0.5, 0.1, 0.1, 0.5, 0.5]
    assert norm.momentum == 0.1


def test_running_statistics_move_by_it() -> None:
    norm = nn.BatchNorm1d(1, momentum=0.1)
    with bn_momentum(norm, value=0.5, steps=1) as care:
        care.after_update(1)
        care.before_step(2)
        norm(torch.tensor([[2.0], [4.0]]))
    assert float(norm.running_mean) == pytest.approx(1.5)  # half way from 0 to 3


def test_a_resumed_run_remembers_when_masks_changed() -> None:
    model = nn.BatchNorm1d(2)
    first, second = bn_momentum(model, steps=3), bn_momentum(model, steps=3)
    first.after_update(4)
    second.load_state_dict(first.state_dict())
    second.before_step(7)
    assert model.momentum == 0.3
    second.before_step(8)
    assert model.momentum == 0.1


@pytest.mark.parametrize("options", [{"value": 0.0}, {"value": 1.5}, {"steps": 0}])
def test_options_outside_their_range_are_refused(options) -> None:
    with pytest.raises(BadOption):
        bn_momentum(nn.BatchNorm1d(2), **options)


def test_a_network_without_batch_norm_is_refused() -> None:
    for model in (nn.Linear(2, 2), nn.BatchNorm1d(2, momentum=None), nn.BatchNorm1d(2, track_running_stats=False)):
        with pytest.raises(NothingMatched, match="no batch norm"):
            bn_momentum(model)
