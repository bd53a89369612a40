"""LTH in any loop: rounds, what is rewound, and that a run that was killed anywhere goes on bit for bit."""

import copy

import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import functional
from torch import nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.core.early_time import divergences, early
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.training import checkpoint
from snnsl_plugin.training.loop import Training, fit
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

STEPS = 20
LTH = {"rule": "lth", "start": "3it", "every": "4it", "until": "15it", "total_steps": STEPS}
DENSITY = schedules.geometric(first=1.0, last=0.343)  # 0.7, 0.49 and 0.343 from steps 7, 11 and 15 on


def long_batch(seed: int):
    x, y = batch(seed)
    return x[:1].repeat(6, 1, 1, 1, 1), y


def copied(model: nn.Module) -> nn.Module:
    """With the pruner's hooks, but without memories and the ear of `Run`."""
    reset_(model)
    made = copy.deepcopy(model)
    made._forward_hooks.clear()
    return made


class Run:
    """A network, its optimizer and its pruner, in the middle of a training."""

    def __init__(self, make=torch.optim.Adam, model: nn.Module | None = None, **options) -> None:
        self.model = model or conv_net()
        self.optimizer = make(self.model.parameters(), lr=1e-2)
        self.pruner = DynamicPruner(self.model, self.optimizer, **({"density": DENSITY} | LTH | options))
        self.seen: list[int] = []
        self.model.register_forward_hook(lambda module, args, out: self.seen.append(len(out)))

    def train(self, steps: int, *, applied: bool = True) -> list:
        events = []
        for _ in range(steps):
            x, y = long_batch(self.pruner.step_number)
            reset_(self.model)
            self.model.train()
            cross_entropy(self.model(x), y).backward()
            if applied:
                self.optimizer.step()
            event = self.pruner.step(applied=applied)
            self.optimizer.zero_grad()
            events += [event] if event else []
        return events

    def state(self) -> dict:
        return {each: getattr(self, each).state_dict() for each in ("model", "optimizer", "pruner")}

    def load(self, state: dict) -> None:
        for each in ("model", "optimizer", "pruner"):
            getattr(self, each).load_state_dict(state[each])


def test_after_each_pruning_the_whole_network_is_what_it_was_at_start_but_for_the_dead() -> None:
    run = Run()
    run.train(3)
    early = copy.deepcopy(run.model.state_dict())
    for number in (1, 2, 3):
        events = run.train(3)
        assert not events
        moved = run.model.state_dict()
        assert any(not torch.equal(value, early[name]) for name, value in moved.items() if "running" in name)
        events = run.train(1)
        assert [event.step for event in events] == [3 + 4 * number]
        assert run.pruner.density == round(646 * 0.7**number) / 646
        assert not sum(events[0].born.values())
        assert not run.optimizer.state_dict()["state"]
        dead = run.pruner._living.dead
        for name, value in run.model.state_dict().items():
            mask = run.pruner.masks.get(name)
            if mask is not None:
                assert torch.equal(value, early[name] * mask)
            elif value.dim():
                alive = ~dead.get({"1": "0"}.get(name[0], name[0]), torch.zeros(len(value), dtype=torch.bool))
                assert torch.equal(value[alive], early[name][alive]), name
            else:
                assert torch.equal(value, early[name]), name


def test_one_round_more_is_a_training_of_its_own_from_there() -> None:
    # By hand: the early state, the mask, a new optimizer, and the batches of those steps.
    run = Run(torch.optim.SGD, paths=False)
    run.train(3)
    by_hand = copied(run.model)
    run.train(4)
    masks = {name: mask.clone() for name, mask in run.pruner.masks.items()}
    run.train(3)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=1e-2)

    def mask_() -> None:
        with torch.no_grad():
            for name, parameter in by_hand.named_parameters():
                parameter.mul_(masks.get(name, torch.ones(())))

    mask_()
    for step in (7, 8, 9):
        x, y = long_batch(step)
        reset_(by_hand)
        cross_entropy(by_hand(x), y).backward()
        optimizer.step()
        mask_()
        optimizer.zero_grad()
    for name, value in by_hand.state_dict().items():
        assert torch.equal(value, run.model.state_dict()[name]), name


def test_rewound_to_before_the_first_step_where_start_is_nothing() -> None:
    run = Run(start="0it", every="5it", until="15it")
    initial = copy.deepcopy(run.model.state_dict())
    run.train(5)
    mask = run.pruner.masks["4.weight"]
    assert 0 < int(mask.sum()) < mask.numel()
    assert torch.equal(run.model.state_dict()["4.weight"], initial["4.weight"] * mask)


@pytest.mark.parametrize("make", [torch.optim.Adam, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)])
@pytest.mark.parametrize("middle", [1, 2, 3, 5, 7, 9, 11, 15, 18])
def test_a_run_that_was_killed_goes_on_bit_for_bit_before_within_and_between_rounds(tmp_path, middle, make) -> None:
    whole, stopped, resumed = (Run(make, early_time=0.9) for _ in range(3))
    whole.train(STEPS)
    stopped.train(middle)
    checkpoint.save(tmp_path / "c.safetensors", stopped.state())
    resumed.load(checkpoint.load(tmp_path / "c.safetensors"))
    resumed.train(STEPS - middle)
    assert whole.seen[middle:] == resumed.seen
    for name, mask in whole.pruner.masks.items():
        assert torch.equal(mask, resumed.pruner.masks[name])
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_pruning_that_a_skipped_step_puts_off_has_its_own_budget_and_rewinds_as_well() -> None:
    run = Run()
    run.train(3)
    early = run.model.state_dict()["4.weight"].clone()
    run.train(3)
    assert not run.train(1, applied=False)
    assert [event.step for event in run.train(1)] == [8]
    assert run.pruner.density == round(646 * 0.7) / 646
    assert torch.equal(run.model.state_dict()["4.weight"], early * run.pruner.masks["4.weight"])
    assert [event.step for event in run.train(3)] == [11]


def test_a_skipped_step_at_start_rewinds_nothing() -> None:
    run = Run()
    run.train(2)
    run.train(1, applied=False)
    before = run.model.state_dict()["4.weight"].clone()
    run.train(1)  # the update that was put off drops nothing yet
    assert run.optimizer.state_dict()["state"]
    assert not torch.equal(run.model.state_dict()["4.weight"], before)


def test_early_rounds_train_on_the_fewest_steps_that_answer_alike_and_the_last_one_on_all() -> None:
    run = Run(early_time=0.6)
    run.train(2)
    run.train(1)
    # By hand: in eval mode, on the batch of step 3.
    model = copied(run.model).eval()
    with torch.no_grad():
        steps = early(divergences(model(long_batch(2)[0])), 0.6)
    assert 2 < steps < 6
    run.train(STEPS - 3)
    assert run.seen == [6] * 3 + [steps] * 12 + [6] * 5
    run.model.eval()
    reset_(run.model)
    assert len(run.model(long_batch(0)[0])) == 6


def test_evaluation_between_steps_sees_all_steps_and_copies_are_not_shortened() -> None:
    run = Run(early_time=0.6)
    run.train(5)
    assert len(copied(run.model).train()(long_batch(0)[0])) == 6
    run.model.eval()
    reset_(run.model)
    assert len(run.model(long_batch(0)[0])) == 6
    run.pruner.finish()
    reset_(run.model)
    assert len(run.model.train()(long_batch(0)[0])) == 6


def test_the_learning_rate_starts_again_from_where_the_network_is_rewound_to() -> None:
    class Parts:
        def __len__(self) -> int:
            return 4

        def epoch(self, generator):
            yield from (long_batch(i) for i in range(4))

    rates = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    run = Run(Watched)
    list(fit(run.model, Parts(), Parts(), run.optimizer, Training(epochs=5), pruner=run.pruner))
    # Rounds of 7, 7, 7 and 8 steps, of which the first 3 are trained once.
    cosine = schedules.cosine(first=0.01, last=0.0)
    first = [cosine(step / 7) for step in range(7)]
    assert rates == pytest.approx(first + first[3:] * 2 + [cosine(step / 8) for step in range(3, 8)])


def test_other_rules_have_no_rounds() -> None:
    model = conv_net()
    pruner = DynamicPruner(model, torch.optim.SGD(model.parameters(), lr=0.1), density=DENSITY, total_steps=20)
    assert pruner.round_position(7) is None
    assert pruner.state_dict()["rewinding"] == {}


@pytest.mark.parametrize(("options", "words"), [
    ({"until": "20it"}, "until is step 20, where the training ends, and the network is rewound there"),
    ({"early_time": 0.6, "start": "0it"}, "early_time asks the network at `start`, and at 0 it is untrained"),
    ({"early_time": 2.0}, "early_time=2"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_training(options, words: str) -> None:
    with pytest.raises(BadOption, match=words):
        Run(**options)


def test_early_time_needs_time_first_and_a_call_of_the_model() -> None:
    single = conv_net()
    functional.set_step_mode(single, "s")
    with pytest.raises(BadOption, match="early_time needs a model that takes"):
        Run(model=single, early_time=0.6)
    run = Run(early_time=0.6, paths=False)
    with pytest.raises(MissingStatistic, match="early_time saw no training pass"):
        for _ in range(3):
            run.pruner.step()
