import math
import warnings

import pytest
import torch
import torch.nn.functional as F

from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.virtual import virtual

T, N, K = 3, 4, 5


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(T, N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


TARGET = torch.tensor([0, 4, 2, 2])


@pytest.mark.parametrize("a", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("correct", [0.99, 0.8])
def test_the_virtual_guide_at_temperature_one_is_label_smoothing(a: float, correct: float) -> None:
    epsilon = (1 - correct) * a * K / (K - 1)
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    mixed = ReverseDistiller(virtual(correct=correct), temperature=1.0, weight=a).loss(ours, TARGET, x=ours)
    smoothed = F.cross_entropy(theirs.mean(0), TARGET, label_smoothing=epsilon)
    mixed.backward()
    smoothed.backward()
    # The losses differ by the guide's entropy, a constant; the gradients are the same.
    wrong = (1 - correct) / (K - 1)
    entropy = -correct * math.log(correct) - (K - 1) * wrong * math.log(wrong)
    assert mixed.item() == pytest.approx(smoothed.item() - a * entropy, abs=1e-6)
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-6)


def test_the_virtual_guide_is_softened_by_a_power() -> None:
    from snnsl_plugin.training.guides._lesson import Softening

    answer = virtual()(logits(), TARGET, 100, Softening(4.0, False, 1.0)).answer.exp()
    raw = torch.full((100,), 0.01 / 99)
    raw[0] = 0.99
    assert torch.allclose(answer[0], (raw**0.25) / (raw**0.25).sum())
    assert float(answer[0, 0]) == pytest.approx(0.0913, abs=1e-4)


# The settings that the authors' params.json has for ResNet18 and MobileNetV2 on CIFAR-100, and a small case.
@pytest.mark.parametrize(
    ("a", "tau", "multiplier", "classes"), [(0.1, 20.0, 100.0, 100), (0.95, 40.0, 1.0, 100), (0.1, 20.0, 100.0, K)]
)
def test_compat_is_the_authors_loss_as_coded_to_six_digits(a: float, tau: float, multiplier: float, classes: int):
    z = torch.randn(T, N, classes, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3
    ours, theirs = z.clone().requires_grad_(), z.clone().requires_grad_()
    soft = torch.full((N, classes), 0.01 / (classes - 1), dtype=z.dtype)
    soft[torch.arange(N), TARGET] = 0.99
    with warnings.catch_warnings():  # torch warns that this mean is over samples and classes, which is what they do
        warnings.simplefilter("ignore")
        divergence = torch.nn.KLDivLoss()(F.log_softmax(theirs.mean(0), 1), F.softmax(soft / tau, 1))
    want = (1 - a) * F.cross_entropy(theirs.mean(0), TARGET) + a * multiplier * divergence
    guide = virtual(compat="tfkd", multiplier=multiplier)
    got = ReverseDistiller(guide, temperature=tau, weight=a).loss(ours, TARGET, x=ours)
    assert got.item() == pytest.approx(want.item(), abs=1e-6)
    got.backward()
    want.backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-6)


def test_virtual_options_are_checked() -> None:
    with pytest.raises(BadOption, match="correct=1.0"):
        virtual(correct=1.0)
    with pytest.raises(BadOption, match="belongs to compat='tfkd'"):
        virtual(multiplier=2.0)
    with pytest.raises(BadOption, match="compat='kd'"):
        virtual(compat="kd")
