import math

import pytest
import torch

from snnsl_plugin.core.early_time import divergences, early
from snnsl_plugin.errors import BadOption, Diverged


def test_one_sample_by_hand() -> None:
    # Two classes; the logits of the first are ln 3, 0, -ln 3, 0 and those of the second 0: means 0 of 3 of 4 prefixes.
    logits = torch.zeros(4, 1, 2)
    logits[:, 0, 0] = torch.tensor([math.log(3), 0.0, -math.log(3), 0.0])
    half = math.sqrt(3) / (1 + math.sqrt(3))  # softmax(ln 3 / 2, 0)
    expected = 0.5 * math.log(0.5 / half) + 0.5 * math.log(0.5 / (1 - half))
    assert divergences(logits).tolist() == pytest.approx([expected, 0.0], abs=1e-7)


def slow(logits: list[list[list[float]]], threshold: float) -> int:
    """Sample by sample and class by class; the first t that is near enough."""

    def answer(steps: int, sample: int) -> list[float]:
        classes = range(len(logits[0][0]))
        means = [sum(logits[t][sample][k] for t in range(steps)) / steps for k in classes]
        total = sum(math.exp(mean) for mean in means)
        return [math.exp(mean) / total for mean in means]

    last = len(logits)
    found = []
    for steps in range(2, last):
        pairs = [(answer(last, n), answer(steps, n)) for n in range(len(logits[0]))]
        found.append(sum(p * math.log(p / q) for one, other in pairs for p, q in zip(one, other, strict=True)))
    for steps, value in enumerate(found, start=2):
        if value / max(found) < threshold:
            return steps
    return last


def test_equals_a_slow_oracle_on_spike_counts_that_tie() -> None:
    generator = torch.Generator().manual_seed(0)
    seen = set()
    for _ in range(60):
        logits = torch.randint(0, 3, (6, 5, 4), generator=generator).double()
        for threshold in (0.2, 0.6, 1.0):
            chosen = early(divergences(logits), threshold)
            assert chosen == slow(logits.tolist(), threshold)
            seen.add(chosen)
    assert len(seen) >= 4


def test_the_order_of_samples_and_classes_does_not_matter() -> None:
    logits = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(1))
    same = logits[:, torch.randperm(7)][:, :, torch.tensor([2, 0, 1])]
    assert torch.allclose(divergences(logits), divergences(same))


def test_the_farthest_candidate_is_never_near_and_an_equal_answer_always() -> None:
    assert early(torch.tensor([3.0, 3.0, 3.0]), 1.0) == 5  # none is below the largest: all steps
    assert early(torch.tensor([3.0, 0.0]), 0.1) == 3
    assert early(torch.zeros(3), 0.5) == 2


def test_too_few_steps_and_answers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadOption, match=r"shape \(3, 2, 5\): early_time chooses among 2 to T - 1 steps"):
        divergences(torch.zeros(3, 2, 5))
    with pytest.raises(Diverged, match="not finite"):
        early(torch.tensor([float("nan"), 1.0]), 0.6)
