import pytest
import torch
from torch import nn

from snnsl_plugin.training.newborn import forget_, momentum


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD([p], lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam([p], lr=0.1, amsgrad=True),
        lambda p: torch.optim.RMSprop([p], lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adagrad([p], lr=0.1),
        lambda p: torch.optim.NAdam([p], lr=0.1),
    ],
)
@pytest.mark.parametrize("newborn_v", ["zero", "layer_mean"])
def test_every_optimizer_forgets_exactly_the_newborn(make, newborn_v: str) -> None:
    p = nn.Parameter(torch.ones(4))
    optimizer = make(p)
    for _ in range(3):
        p.grad = torch.tensor([1.0, 2.0, 3.0, 4.0])
        optimizer.step()
    before = {k: v.clone() for k, v in optimizer.state[p].items() if isinstance(v, torch.Tensor) and v.shape == p.shape}
    assert before
    born, alive = torch.tensor([False, True, False, False]), torch.tensor([True, False, True, False])
    forget_(optimizer, p, born, alive, newborn_v)
    for key, was in before.items():
        now = optimizer.state[p][key]
        assert torch.equal(now[[0, 2, 3]], was[[0, 2, 3]]), key
        second = key in ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")
        want = float(was[[0, 2]].mean()) if newborn_v == "layer_mean" and second else 0.0
        assert float(now[1]) == pytest.approx(want), key


def test_momentum_is_found_where_there_is_one() -> None:
    p = nn.Parameter(torch.ones(2))
    plain = torch.optim.SGD([p], lr=0.1)
    p.grad = torch.ones(2)
    plain.step()
    assert momentum(plain, p) is None
    adam = torch.optim.Adam([p], lr=0.1)
    adam.step()
    assert momentum(adam, p).tolist() == pytest.approx([0.1, 0.1])
