import torch
from networks import batch, conv_net

from snnsl_plugin.training.guides._lesson import Softening
from snnsl_plugin.training.guides.dense import dense
from snnsl_plugin.training.guides.permuted import permuted


def lessons(per_step: bool, step: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a network thinks, what is told of it, and the labels."""
    x, y = batch()
    soften = Softening(3.0, per_step, 1.0)
    guide = permuted(conv_net(3))
    guide.observe(conv_net(3), step)
    classes = dense(conv_net(3))(x, y, 0, soften).answer.shape[-1]
    return dense(conv_net(3))(x, y, classes, soften).answer, guide(x, y, classes, soften).answer, y


def test_the_true_class_keeps_its_probability_and_the_others_are_the_same_numbers() -> None:
    for per_step in (False, True):
        plain, told, y = lessons(per_step)
        index = y.expand(plain.shape[:-1]).unsqueeze(-1)
        assert torch.equal(plain.gather(-1, index), told.gather(-1, index))
        assert torch.equal(plain.sort(-1).values, told.sort(-1).values)
        assert not torch.equal(plain, told)


def test_samples_and_steps_have_orders_of_their_own() -> None:
    guide = permuted(_Ordered(8))
    y = torch.zeros(40, dtype=torch.long)
    told = guide(torch.zeros(3, 40, 1), y, 8, Softening(1.0, True, 1.0)).answer
    orders = {tuple(row.argsort().tolist()) for row in told.flatten(0, 1)}
    assert len(orders) > 100  # of 120, among 5,040 that there are


def test_every_order_of_the_wrong_classes_is_as_likely_as_any_other() -> None:
    guide, seen = permuted(_Ordered(4)), torch.zeros(4, 4)
    y = torch.ones(3000, dtype=torch.long)
    told = guide(torch.zeros(1, 3000, 1), y, 4, Softening(1.0, False, 1.0)).answer
    for place, value in enumerate(torch.arange(4.0).log_softmax(-1)):
        seen[place] = (told - value).abs().lt(1e-6).float().mean(0)
    assert seen[1].tolist() == [0.0, 1.0, 0.0, 0.0]
    for place in (0, 2, 3):
        assert torch.allclose(seen[place][[0, 2, 3]], torch.tensor(1 / 3), atol=0.04)


def test_each_training_step_has_another_order_and_a_resumed_run_the_same() -> None:
    _, first, _ = lessons(False, 4)
    _, again, _ = lessons(False, 4)
    _, later, _ = lessons(False, 5)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    one, other = permuted(conv_net(3)), permuted(conv_net(3))
    one.observe(conv_net(3), 7)
    other.load_state_dict(one.state_dict(), conv_net(3))
    x, y = batch()
    soften = Softening(3.0, False, 1.0)
    classes = one.network(x).shape[-1]
    assert torch.equal(one(x, y, classes, soften).answer, other(x, y, classes, soften).answer)


class _Ordered(torch.nn.Module):
    """Logits 0, 1, 2, ... for every sample at every step."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(float(self.classes)).expand(*x.shape[:2], -1)
