import math

import pytest
import torch

from snnsl_plugin.core.compressibility import pq_index, prunable_share
from snnsl_plugin.errors import BadOption


def test_by_hand() -> None:
    # sizes 1 and 4: |w|_1/2 = (1 + 2)^2 = 9, |w|_1 = 5, d^(1 - 2) = 1/2
    assert pq_index(torch.tensor([1.0, -4.0])) == pytest.approx(1 - 9 / 10)
    # p = 1, q = 2: |w|_1 = 5, |w|_2 = sqrt 17, d^(1/2 - 1) = 1 / sqrt 2
    assert pq_index(torch.tensor([1.0, 4.0]), p=1.0, q=2.0) == pytest.approx(1 - 5 / math.sqrt(34))
    assert prunable_share(torch.tensor([1.0, 4.0]), p=1.0, q=2.0) == pytest.approx(1 - 25 / 34)
    assert prunable_share(torch.tensor([1.0, 4.0]), p=1.0, q=2.0, eta=1.0) == pytest.approx(1 - 25 / 34 / 4)


def slow_index(weights: list[float], p: float, q: float) -> float:
    def norm(each: float) -> float:
        return math.fsum(abs(w) ** each for w in weights) ** (1 / each)

    return 1 - len(weights) ** (1 / q - 1 / p) * norm(p) / norm(q)


def test_equals_an_oracle_on_tied_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(30):
        weights = (torch.randn(3 + trial, generator=generator) * 2).round()
        weights[0] = 1.0
        for p, q in ((0.5, 1.0), (1.0, 2.0), (0.25, 0.5)):
            expected = slow_index(weights.tolist(), p, q)
            assert pq_index(weights, p=p, q=q) == pytest.approx(expected, abs=1e-8)


def test_its_ends_and_what_does_not_matter() -> None:
    one = torch.zeros(8)
    one[3] = -0.2
    assert pq_index(torch.full((8,), 0.3)) == 0.0 == prunable_share(torch.full((8,), 0.3))
    assert pq_index(one) == pytest.approx(1 - 1 / 8) == prunable_share(one)
    weights = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    assert pq_index(weights) == pq_index(-4.0 * weights.t()) == prunable_share(weights)
    assert pq_index(1e-30 * weights) == pytest.approx(pq_index(weights), abs=1e-6)
    assert pq_index(torch.cat([weights, weights])) == pytest.approx(pq_index(weights), abs=1e-8)
    assert pq_index(torch.zeros(3)) == pq_index(torch.zeros(0)) == 0.0


def test_it_bounds_how_many_can_go() -> None:
    # By the definition: as few of the largest as possible, so that the others hold at most eta of their sum of |w|^p.
    generator = torch.Generator().manual_seed(2)
    for p, q in ((0.5, 1.0), (1.0, 2.0)):
        for eta in (0.01, 0.1, 1.0):
            sizes = torch.randn(200, generator=generator).double().abs().sort(descending=True).values
            powers = sizes.pow(p).cumsum(0)
            stay = 1 + int((powers[-1] - powers > eta * powers).sum())
            assert stay >= 200 * (1 - prunable_share(sizes, p=p, q=q, eta=eta)) - 1e-6
            equal = torch.ones(200)
            assert prunable_share(equal, p=p, q=q, eta=eta) >= 1 - 1 / (1 + eta) - 1e-9


@pytest.mark.parametrize("options", [{"p": 1.0, "q": 1.0}, {"p": 0.0}, {"q": math.inf}, {"eta": -0.1}])
def test_options_outside_their_range_are_refused(options) -> None:
    with pytest.raises(BadOption):
        prunable_share(torch.ones(3), **options)
