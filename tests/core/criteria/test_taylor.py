import pytest
import torch

from snnsl_plugin.core.criteria.taylor import taylor
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic


def layer(weight: torch.Tensor, grad: torch.Tensor | None) -> Layer:
    return Layer("fc", weight, {"mask": torch.ones_like(weight, dtype=torch.bool)}, grad=grad)


def test_by_hand() -> None:
    assert taylor(layer(torch.tensor([[2.0, -3.0]]), torch.tensor([[-0.5, 0.0]]))).tolist() == [[1.0, 0.0]]


def test_predicts_what_a_linear_loss_loses() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    (weight @ x).sum().backward()
    scores = taylor(layer(weight, weight.grad))
    for i in range(3):
        for j in range(4):
            without = weight.detach().clone()
            without[i, j] = 0
            change = float(((weight.detach() - without) @ x).sum())
            assert float(scores[i, j]) == pytest.approx(abs(change))


def test_without_a_gradient_says_what_to_do() -> None:
    with pytest.raises(MissingStatistic, match=r"layer 'fc' has no grad: call the pruner after loss.backward\(\)"):
        taylor(layer(torch.ones(1, 1), None))
