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


@pytest.mark.parametrize("a", [0.1, 0.5])
@pytest.mark.parametrize("correct", [0.99, 0.8])
def test_the_virtual_guide_at_temperature_one_is_label_smoothing(a: float, correct: float) -> None:
    epsilon = (1 - correct) * a * K / (K - 1)
    ours, theirs = logits().requires_grad_(), logits().requires_grad_()
    ReverseDistiller(virtual(correct=correct), temperature=1.0, weight=a).loss(ours, TARGET, x=ours).backward()
    F.cross_entropy(theirs.mean(0), TARGET, label_smoothing=epsilon).backward()
    # The losses differ by the guide's entropy, a constant; the gradients are the same.
    assert torch.allclose(ours.grad, theirs.grad)


def test_the_virtual_guide_is_softened_by_a_power() -> None:
    from snnsl_plugin.training.guides._lesson import Softening

    answer = virtual()(logits(), TARGET, 100, Softening(4.0, False, 1.0)).answer.exp()
    raw = torch.full((100,), 0.01 / 99)
    raw[0] = 0.99
    assert torch.allclose(answer[0], (raw**0.25) / (raw**0.25).sum())
    assert float(answer[0, 0]) == pytest.approx(0.0913, abs=1e-4)


def test_compat_is_the_authors_loss_as_coded() -> None:
    a, tau, multiplier = 0.1, 20.0, 100.0
    z = logits().mean(0)
    soft = torch.full((N, K), 0.01 / (K - 1), dtype=z.dtype)
    soft[torch.arange(N), TARGET] = 0.99
    regularisation = torch.nn.KLDivLoss()  # its default averages over N K elements, as the authors' does
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = regularisation(F.log_softmax(z, 1), F.softmax(soft / tau, 1)) * multiplier
    want = (1 - a) * F.cross_entropy(z, TARGET) + a * theirs
    guide = virtual(compat="tfkd", multiplier=multiplier)
    got = ReverseDistiller(guide, temperature=tau, weight=a).loss(logits(), TARGET, x=logits())
    assert float(got) == pytest.approx(float(want), rel=1e-5)


def test_virtual_options_are_checked() -> None:
    with pytest.raises(BadOption, match="correct=1.0"):
        virtual(correct=1.0)
    with pytest.raises(BadOption, match="belongs to compat='tfkd'"):
        virtual(multiplier=2.0)
    with pytest.raises(BadOption, match="compat='kd'"):
        virtual(compat="kd")
