import pytest
import torch
import torch.nn.functional as F

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.virtual import virtual
from snnsl_plugin.training.losses import cross_entropy, label_loss, mse

TARGET = torch.tensor([1, 0])
#: Two steps, two samples, two classes.
RATES = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 0.5], [0.0, 0.5]]])


def test_the_squared_error_of_rates_worked_by_hand():
    # Over time the samples have the rates (0, .75) and (.5, .25); wanted are (0, 1) and (1, 0).
    assert float(mse(RATES, TARGET)) == pytest.approx((0 + 0.25**2 + 0.5**2 + 0.25**2) / 4)
    # Step by step: 0, 0 at the first; (0, .5) and (1, .5) off at the second.
    assert float(mse(RATES, TARGET, per_step=True)) == pytest.approx((0.5**2 + 1.0 + 0.5**2) / 8)


def test_it_is_zero_for_perfect_votes_and_pushes_the_right_way():
    perfect = F.one_hot(TARGET, 2).float().expand(3, 2, 2)
    assert float(mse(perfect, TARGET)) == 0.0
    rates = RATES.clone().requires_grad_()
    mse(rates, TARGET).backward()
    assert rates.grad[0, 0, 1] < 0 < rates.grad[0, 1, 1]


def test_a_name_chooses_the_loss():
    assert torch.equal(label_loss("mse", RATES, TARGET), mse(RATES, TARGET))
    assert torch.equal(
        label_loss("cross_entropy", RATES, TARGET, label_smoothing=0.1),
        cross_entropy(RATES, TARGET, label_smoothing=0.1),
    )


def test_another_name_and_smoothing_of_a_squared_error_are_refused():
    with pytest.raises(BadOption, match="loss='mae': choose"):
        label_loss("mae", RATES, TARGET)  # type: ignore[arg-type]
    with pytest.raises(BadOption, match=r"label_smoothing=0\.1 belongs to cross-entropy"):
        label_loss("mse", RATES, TARGET, label_smoothing=0.1)


def test_a_distiller_mixes_the_guide_with_it_and_does_not_scale_the_rates_for_it():
    distiller = ReverseDistiller(virtual(), weight=0.4, temperature=2.0, logit_scale=10.0)
    taught = distiller.lesson(RATES, TARGET, x=RATES)
    want = 0.6 * mse(RATES, TARGET) + 0.4 * taught.factor * taught.divergence
    assert float(distiller.loss(RATES, TARGET, x=RATES, loss="mse")) == pytest.approx(float(want))
