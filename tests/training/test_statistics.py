import pytest
import torch
from torch import nn

from snnsl_plugin.core import criteria, growth
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.training.statistics import Statistics, needed


def test_what_functions_ask_for_is_found_by_asking_them() -> None:
    assert needed([criteria.magnitude, growth.random]) == set()
    assert needed([criteria.spike_saliency, growth.gradient]) == {"pre_spikes", "grad"}
    assert needed([criteria.fisher, growth.momentum]) == {"grad_square", "momentum"}


def test_the_mean_square_is_over_the_sampled_steps_since_the_last_update() -> None:
    model = nn.Linear(2, 1)
    statistics = Statistics(model, {"": model.weight}, {"grad_square"}, lambda step: step % 2 == 0)
    statistics.start()
    for step, value in enumerate([9.0, 1.0, 9.0, 3.0], start=1):
        model.weight.grad = torch.full((1, 2), value)
        statistics.after_step(step)
    assert statistics.of("")["grad_square"].tolist() == [[5.0, 5.0]]  # (1 + 9) / 2
    statistics.clear()
    assert statistics.of("") == {}


def test_a_weight_without_a_gradient_is_an_error_that_says_when_to_call() -> None:
    model = nn.Linear(2, 1)
    statistics = Statistics(model, {"": model.weight}, {"grad_square"}, lambda step: True)
    with pytest.raises(MissingStatistic, match="has no gradient to square"):
        statistics.after_step(1)


def test_validation_passes_are_not_counted() -> None:
    model = nn.Linear(2, 1)
    statistics = Statistics(model, {"": model.weight}, {"pre_spikes"}, lambda step: True)
    statistics.start()
    model(torch.ones(1, 2))
    model.eval()(torch.ones(5, 2))
    assert statistics.of("")["pre_slots"] == 1
    assert statistics.rates() == {"": 1.0}
    statistics.close()
    assert not model._forward_pre_hooks
