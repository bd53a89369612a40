import pytest
import torch

from snnsl_plugin.errors import BadOption
from snnsl_plugin.testing import check_guide
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.guides._lesson import Softening
from snnsl_plugin.training.guides.weak_to_strong import weak_to_strong
from snnsl_plugin.training.losses import cross_entropy


def told(logits: torch.Tensor, soften: Softening) -> torch.Tensor:
    """The guide's answer, as probabilities."""
    return weak_to_strong()(logits, torch.zeros(logits.shape[1], dtype=torch.long), 0, soften).answer.exp()


def test_the_weak_teach_the_strong_by_hand() -> None:
    # One sample, two classes: the probabilities of the first class are 1/2, 9/10, 1/4 at the three steps.
    odds = torch.tensor([[1.0], [9.0], [1.0 / 3.0]])
    logits = torch.stack([odds.log(), torch.zeros(3, 1)], dim=-1)
    answer = told(logits, Softening(1.0, True, 1.0))
    assert torch.allclose(answer[0, 0], torch.tensor([0.5, 0.5]))  # the least confident hears itself
    assert torch.allclose(answer[1, 0], torch.tensor([0.375, 0.625]))  # the mean of 1/2 and 1/4
    assert torch.allclose(answer[2, 0], torch.tensor([0.5, 0.5]))
    assert torch.allclose(told(logits, Softening(1.0, False, 1.0)), torch.tensor([[0.5, 0.5]]))


@pytest.mark.parametrize("tau", [1.0, 4.0])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_it_equals_loops_over_tied_answers(tau: float, scale: float) -> None:
    draws = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 3, (5, 20, 4), generator=draws).double()  # many steps are equally confident
    per_step, mean = told(logits, Softening(tau, True, scale)), told(logits, Softening(tau, False, scale))
    for n in range(20):
        sure = [round(float((logits[t, n] * scale).softmax(0).max()), 6) for t in range(5)]
        soft = [(logits[t, n] * scale / tau).softmax(0) for t in range(5)]
        assert torch.allclose(mean[n], soft[sure.index(min(sure))])
        for t in range(5):
            weaker = [soft[s] for s in range(5) if sure[s] < sure[t]]
            assert torch.allclose(per_step[t, n], torch.stack(weaker).mean(0) if weaker else soft[t])


@pytest.mark.parametrize("per_step", [False, True])
def test_a_permutation_of_the_steps_permutes_the_answers_and_the_loss_stays(per_step: bool) -> None:
    logits = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    order, target = torch.tensor([2, 0, 3, 1]), torch.tensor([0, 1, 2, 3, 4, 0])
    soften = Softening(2.0, per_step, 1.0)
    plain, moved = told(logits, soften), told(logits[order], soften)
    assert torch.allclose(moved, plain[order] if per_step else plain)
    distiller = ReverseDistiller(weak_to_strong(), weight=0.5, per_step=per_step)
    one, other = (distiller.loss(z, target, x=torch.zeros(0)) for z in (logits, logits[order]))
    assert torch.allclose(one, other)


def test_the_weakest_step_learns_from_the_labels_alone_and_a_strong_one_from_its_guide_too() -> None:
    logits = torch.tensor([[[0.1, 0.0, 0.0]], [[3.0, 0.0, 0.0]]]).requires_grad_()
    plain = logits.detach().clone().requires_grad_()
    target = torch.tensor([0])
    ReverseDistiller(weak_to_strong(), weight=0.5, per_step=True).loss(logits, target, x=logits).backward()
    (0.5 * cross_entropy(plain, target, per_step=True)).backward()
    assert torch.allclose(logits.grad[0], plain.grad[0], atol=1e-6)
    assert not torch.allclose(logits.grad[1], plain.grad[1], atol=1e-3)


def test_the_contract_and_a_single_step() -> None:
    check_guide(weak_to_strong())
    with pytest.raises(BadOption, match="single time step"):
        told(torch.zeros(1, 2, 3), Softening(1.0, True, 1.0))


def test_steps_that_answer_alike_are_all_taught_nothing() -> None:
    logits = torch.randn(1, 4, 5).expand(3, -1, -1)
    distiller = ReverseDistiller(weak_to_strong(), weight=1.0, per_step=True)
    assert float(distiller.loss(logits, torch.zeros(4, dtype=torch.long), x=logits)) == pytest.approx(0.0, abs=1e-6)
