import pytest
import torch
import torch.nn.functional as F

from snnsl_plugin.errors import BadOption, UnknownName
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides.virtual import virtual

T, N, K = 3, 4, 5


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(T, N, K, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


TARGET = torch.tensor([0, 4, 2, 2])


@pytest.mark.parametrize("per_step", [False, True])
def test_the_loss_is_the_formula_term_by_term(per_step: bool) -> None:
    tau, a = 3.0, 0.4
    guide_logits = logits(1)

    class Fixed:
        def __call__(self, x, target, classes, soften):
            from snnsl_plugin.training.guides._lesson import Lesson

            return Lesson(soften(guide_logits))

    got = ReverseDistiller(Fixed(), temperature=tau, weight=a, per_step=per_step).loss(logits(), TARGET, x=logits())
    z, z_guide = logits(), guide_logits
    want, steps = 0.0, range(T) if per_step else [slice(None)]
    for t in steps:
        for n in range(N):
            answer = z[t, n] if per_step else z[:, n].mean(0)
            guide = z_guide[t, n] if per_step else z_guide[:, n].mean(0)
            p, q = (guide / tau).softmax(0), (answer / tau).softmax(0)
            kl = sum(float(p[k] * (p[k] / q[k]).log()) for k in range(K))
            want += (1 - a) * float(-answer.log_softmax(0)[TARGET[n]]) + a * tau**2 * kl
    assert float(got) == pytest.approx(want / (N * len(steps)))


def test_a_weight_of_zero_is_plain_cross_entropy_and_one_is_the_guide_alone() -> None:
    plain = F.cross_entropy(logits().mean(0), TARGET)
    assert torch.equal(ReverseDistiller(virtual(), weight=0.0).loss(logits(), TARGET, x=logits()), plain)
    changed = ReverseDistiller(virtual(), weight=1.0).loss(logits(), TARGET, x=logits(), label_smoothing=0.0)
    assert not torch.equal(changed, plain)


def test_a_logit_scale_scales_both_sides() -> None:
    small = ReverseDistiller(virtual(), logit_scale=10.0).loss(logits() / 10, TARGET, x=logits())
    assert float(small) == pytest.approx(float(ReverseDistiller(virtual()).loss(logits(), TARGET, x=logits())))


def test_the_direction_of_the_divergence_is_an_option_of_its_own() -> None:
    losses = {
        d: ReverseDistiller(virtual(), divergence=d).loss(logits(), TARGET, x=logits()) for d in ("kl", "reverse_kl")
    }
    assert losses["kl"] != losses["reverse_kl"]


def test_options_out_of_range_are_sentences() -> None:
    with pytest.raises(BadOption, match="weight=1.5"):
        ReverseDistiller(virtual(), weight=1.5)
    with pytest.raises(BadOption, match="temperature=0"):
        ReverseDistiller(virtual(), temperature=0)
    with pytest.raises(UnknownName, match="did you mean 'reverse_kl'"):
        ReverseDistiller(virtual(), divergence="revers_kl")
