"""Budgets, met by measuring while a small network trains."""

import copy

import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.errors import BadOption, Disconnected
from snnsl_plugin.metrics.measure import measure, operations
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.budget import TOLERANCE, Budget
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

HELD = [batch(500 + number, 64) for number in range(2)]
STEPS = 120


def inputs():
    return (x for x, _ in HELD)


def cost(name, model, masks):
    """What the network costs, found without the code under test."""
    measured = measure(model, HELD, masks=masks)
    return {
        "connections": live_paths(model, HELD[0][0][:, :1], masks=masks).connections,
        "synops": measured.synops_per_sample,
        "energy": measured.energy_pj_per_sample["total"],
    }[name]


class Training:
    """A training that can be looked at between its steps."""

    def __init__(self, budget, seed=0, **options):
        self.model = conv_net(seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)
        own = {"every": "5it", "until": "60%", "total_steps": STEPS, "density": schedules.cubic(first=1.0, last=0.5)}
        self.pruner = DynamicPruner(self.model, self.optimizer, **(own | options), budget=budget)

    def run(self, steps, skipped=()):
        events = []
        for _ in range(steps):
            x, y = batch(self.pruner.step_number)
            reset_(self.model)
            cross_entropy(self.model(x), y).backward()
            applied = self.pruner.step_number + 1 not in skipped
            if applied:
                self.optimizer.step()
            events.append(self.pruner.step(applied=applied))
            self.optimizer.zero_grad()
        return [event for event in events if event]


def test_operations_are_those_that_measure_counts() -> None:
    model = conv_net().train()
    masks = {"4.weight": torch.rand(8, 6, 3, 3) < 0.5}
    whole, found = measure(model, HELD, masks=masks), operations(model, inputs(), masks=masks)
    assert (found.samples, found.synops) == (128, whole.synops_per_sample)
    assert found.energy_pj == whole.energy_pj_per_sample
    assert model.training


@pytest.mark.parametrize(("name", "share"), [("connections", 0.3), ("synops", 0.25), ("energy", 0.45)])
@pytest.mark.parametrize("rule", ["drop_grow", "dpf"])
def test_a_budget_is_met_by_measurement(name, share, rule) -> None:
    plain = conv_net()
    amount = share * cost(name, plain, {})
    budget = Budget(name, amount, inputs)
    swap = {"swap": schedules.constant(value=0.2)} if rule == "drop_grow" else {}
    training = Training(budget, rule=rule, **swap)
    events = training.run(STEPS)
    pruner = training.pruner
    assert cost(name, training.model, pruner.masks) == pytest.approx(amount, rel=TOLERANCE)
    assert pruner.density < 0.9
    assert pruner.target is None  # it is an outcome now
    assert all(event.spent is not None for event in events)
    late = [event for event in events if event.step > pruner.until]
    assert all(event.step % 5 == 2 for event in late)  # until is step 72
    if rule == "drop_grow":  # corrections exchange nothing
        assert all(sum(event.born.values()) == 0 or sum(event.dropped.values()) == 0 for event in late)


def test_measuring_leaves_no_trace() -> None:
    training = Training(Budget("synops", 1.0, inputs))
    training.run(3)
    before = copy.deepcopy(training.model.state_dict())
    memories = [dict(getattr(module, "_memories", {})) for module in training.model]
    hooks = [len(module._forward_pre_hooks) for module in training.model]
    random = torch.get_rng_state()
    training.pruner.budget.spent(training.model, training.pruner.masks, None, few=False)
    assert all(torch.equal(value, before[key]) for key, value in training.model.state_dict().items())
    assert all(module.training for module in training.model)
    assert hooks == [len(module._forward_pre_hooks) for module in training.model]
    assert torch.equal(random, torch.get_rng_state())
    for module, memory in zip(training.model, memories, strict=True):
        now = dict(getattr(module, "_memories", {}))
        assert now.keys() == memory.keys()
        assert all(now[key] is memory[key] for key in memory)


@pytest.mark.parametrize("stop", [33, 80])
def test_a_resumed_training_goes_on_bit_for_bit(stop) -> None:
    budget = Budget("synops", 60.0, inputs)
    whole, half, rest = Training(budget), Training(budget), Training(budget, seed=9)
    whole.run(STEPS)
    half.run(stop)
    rest.model.load_state_dict(half.model.state_dict())
    rest.optimizer.load_state_dict(half.optimizer.state_dict())
    rest.pruner.load_state_dict(half.pruner.state_dict())
    rest.run(STEPS - stop)
    for name, mask in whole.pruner.masks.items():
        assert torch.equal(mask, rest.pruner.masks[name])
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[key])


def test_a_correction_at_a_skipped_step_comes_a_step_later() -> None:
    events = Training(Budget("synops", 60.0, inputs)).run(90, skipped={72, 77})
    assert {event.step for event in events if event.step >= 72} <= {73, 78, 82, 87}
    assert 73 in {event.step for event in events}


@pytest.mark.parametrize(
    ("words", "budget", "options"),
    [
        ("choose one of connections, synops, energy", ("watts", 1.0), {}),
        ("must be a finite number above 0", ("synops", 0.0), {}),
        ("the dense network has 646 weights", ("connections", 647), {}),
        ("needs paths=True", ("connections", 100), {"paths": False}),
        ("the updates of the neurons alone take", ("energy", 100.0), {}),
    ],
)
def test_an_unreachable_budget_is_refused_in_one_sentence(words, budget, options) -> None:
    with pytest.raises(BadOption) as caught:
        Training(Budget(*budget, inputs), **options)
    assert words in str(caught.value)
    with pytest.raises(BadOption, match="met by measuring: give inputs"):
        Budget("synops", 1.0)


def test_a_budget_that_leaves_no_path_says_so_itself() -> None:
    with pytest.raises(Disconnected, match=r"a budget of 2 live connections cannot be met: it asks for density"):
        Training(Budget("connections", 2), distribution="uniform").run(STEPS)


def test_more_than_the_dense_network_costs_leaves_it_dense() -> None:
    training = Training(Budget("synops", 1e9, inputs))
    training.run(STEPS)
    assert training.pruner.density == 1.0
    assert training.pruner.budget.missed(cost("synops", training.model, training.pruner.masks)) > 0.9
