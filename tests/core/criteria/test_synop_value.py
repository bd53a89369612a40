import pytest
import torch

from snnsl_plugin.core.criteria.fisher import fisher
from snnsl_plugin.core.criteria.synop_value import synop_value
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.errors import MissingStatistic
from snnsl_plugin.testing import tied_layer


def layer(**statistics: object) -> Layer:
    weight = torch.tensor([[2.0, -3.0, 4.0]])
    return Layer("fc", weight, {"mask": weight != 0}, grad_square=torch.tensor([[0.5, 1.0, 1.0]]), **statistics)


def test_by_hand() -> None:
    # 4 * 0.5 / 2 / 4;  9 * 1 / 2 / 0.5, half of it multiplied;  a silent input
    synops, macs = torch.tensor([[4.0, 0.25, 0.0]]), torch.tensor([[0.0, 0.25, 0.0]])
    assert synop_value(layer(synops=synops.double(), macs=macs.double())).tolist() == [[0.25, 9.0, 0.0]]


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_loop_over_tied_weights(seed: int) -> None:
    drawn = tied_layer(seed)
    cost, loss = (drawn.synops + drawn.macs).flatten().tolist(), fisher(drawn).flatten().tolist()
    slow = [0.0 if c == 0 else f / 2 / c for f, c in zip(loss, cost, strict=True)]
    assert synop_value(drawn).flatten().tolist() == slow
    assert slow.count(0.0) > 1


def test_where_all_cost_the_same_the_order_is_that_of_fisher() -> None:
    drawn = tied_layer()
    even = Layer("a", drawn.weight, drawn.state, grad_square=drawn.grad_square,
                 synops=torch.full_like(drawn.weight, 3.0), macs=torch.zeros_like(drawn.weight))  # fmt: skip
    assert torch.allclose(synop_value(even) * 6, fisher(drawn))


def test_says_what_was_not_counted() -> None:
    with pytest.raises(MissingStatistic, match="'fc' has no synops: run at least one training pass"):
        synop_value(layer())
    with pytest.raises(MissingStatistic, match="'fc' has no macs"):
        synop_value(layer(synops=torch.ones(1, 3)))
