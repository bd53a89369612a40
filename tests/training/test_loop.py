import pytest
import torch
from networks import batch, conv_net
from torch import nn

from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption, Diverged
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.events import Epoch, MaskUpdate, Step
from snnsl_plugin.training.guides.virtual import virtual
from snnsl_plugin.training.loop import Training, batches, fit
from snnsl_plugin.training.pruner import DynamicPruner
from snnsl_plugin.training.seeds import generator


class Parts:
    """Four batches, of ten, that the generator chooses."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 4

    def epoch(self, generator):
        for i in torch.randperm(10, generator=generator)[:4].tolist():
            self.seen.append(i)
            yield batch(i)


def trained(how: Training, **given):
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = DynamicPruner(
        model, optimizer, density=schedules.linear(first=1.0, last=0.5), every="3it", total_steps=4 * how.epochs
    )  # fmt: skip
    parts = Parts()
    events = list(fit(model, parts, Parts(), optimizer, how, pruner=pruner, **given))
    return model, events, parts


def test_events_come_in_order_with_steps_numbered_from_one() -> None:
    _, events, _ = trained(Training(epochs=2))
    kinds = [(type(event).__name__, event.step) for event in events]
    assert kinds == [
        ("Step", 1), ("Step", 2), ("Step", 3), ("MaskUpdate", 3), ("Step", 4), ("Epoch", 4),
        ("Step", 5), ("Step", 6), ("MaskUpdate", 6), ("Step", 7), ("Step", 8), ("Epoch", 8),
    ]  # fmt: skip
    assert all(event.total == 8 for event in events if isinstance(event, Step))
    assert events[-1].density == pytest.approx(0.5)


def test_the_learning_rate_follows_the_schedule_by_hand() -> None:
    rates: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    model = conv_net()
    optimizer = Watched(model.parameters(), lr=0.8)
    list(fit(model, Parts(), Parts(), optimizer, Training(epochs=1)))
    # 0.8 (1 + cos(pi s / 4)) / 2 before step s + 1
    assert rates == pytest.approx([0.8, 0.8 * 0.853553, 0.4, 0.8 * 0.146447], rel=1e-5)
    rates.clear()
    list(
        fit(
            conv_net(),
            Parts(),
            Parts(),
            Watched(model.parameters(), lr=0.8),
            Training(epochs=1, lr_schedule="constant"),
        )
    )
    assert rates == [0.8] * 4


def test_the_same_seed_gives_the_same_order_and_weights_and_another_one_another() -> None:
    one, _, order = trained(Training(epochs=2, seed=1))
    same, _, same_order = trained(Training(epochs=2, seed=1))
    _, _, other_order = trained(Training(epochs=2, seed=2))
    assert order.seen == same_order.seen != other_order.seen
    assert order.seen[:4] != order.seen[4:]
    for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_neurons_forget_between_batches() -> None:
    class Leaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.v, self.found = nn.Linear(16, 5), 0.0, []

        def reset(self) -> None:
            self.v = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.found.append(self.v)
            self.v += 1.0
            return self.fc(x.flatten(2))

    model = Leaky()
    list(fit(model, Parts(), Parts(), torch.optim.SGD(model.parameters(), lr=0.1), Training(epochs=1)))
    assert model.found == [0.0] * 8  # four batches of training, four of validation


def test_clipping_holds_the_step_to_its_norm() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = [p.detach().clone() for p in model.parameters()]
    events = fit(model, Parts(), Parts(), optimizer, Training(epochs=1, clip=1e-3, lr_schedule="constant"))
    next(events)
    moved = torch.sqrt(sum((p.detach() - b).square().sum() for p, b in zip(model.parameters(), before, strict=True)))
    assert 0 < float(moved) <= 1e-3 * (1 + 1e-4)


def test_the_epoch_counts_accuracy_and_loss_over_samples() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    epoch = next(e for e in fit(model, Parts(), Parts(), optimizer, Training(epochs=1)) if isinstance(e, Epoch))
    model.eval()
    right = total = 0
    for i in torch.randperm(10, generator=generator(0, "evaluation"))[:4].tolist():
        x, y = batch(i)
        for module in model:
            if hasattr(module, "reset"):
                module.reset()
        right += int((model(x).mean(0).argmax(-1) == y).sum())
        total += len(y)
    assert epoch.validation_accuracy == pytest.approx(right / total)
    assert set(epoch.rates) == {"2", "5"}


def test_mixed_precision_and_a_guide_train_too() -> None:
    _, events, _ = trained(Training(epochs=2, amp=True, label_smoothing=0.1), distiller=ReverseDistiller(virtual()))
    assert any(isinstance(event, MaskUpdate) for event in events)
    assert torch.isfinite(torch.tensor(events[-1].loss))


def test_a_loss_that_is_not_finite_says_where_and_what_to_do() -> None:
    model = conv_net()
    nn.init.constant_(model[7].bias, float("nan"))
    with pytest.raises(
        Diverged, match=r"the loss is nan at step 1 \(epoch 1\): lower train.optimizer.lr, or set train.clip"
    ):
        list(fit(model, Parts(), Parts(), torch.optim.SGD(model.parameters(), lr=0.1), Training(epochs=1)))
    with pytest.raises(BadOption, match="lr_schedule='step': choose one of constant, cosine"):
        next(fit(model, Parts(), Parts(), torch.optim.SGD(model.parameters(), lr=0.1), Training(1, lr_schedule="step")))


def test_an_evaluation_pass_leaves_the_random_numbers_of_training_alone() -> None:
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    list(batches(Parts(), "cpu"))
    assert torch.equal(torch.rand(1), want)
