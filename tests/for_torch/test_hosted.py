"""Anyone's pruner in the loop: masks are read off the network, and what it lacks is made up for."""

import logging
from functools import partial

import pytest
import torch
from networks import batch, conv_net
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadCheckpoint, BadOption, CannotCut
from snnsl_plugin.for_torch.hosted import HostedPruner
from snnsl_plugin.for_torch.hosting import hosted
from snnsl_plugin.testing import check_pruner
from snnsl_plugin.training.clipping import clip_

STEPS = 30


class Zeroing:
    """Sets the first weights of the last layer to zero after each step: as many as `counts` says."""

    def __init__(self, model, counts):
        self.weight, self.counts, self.done = model[7].weight, counts, 0

    def step(self):
        self.done += 1
        with torch.no_grad():
            self.weight.view(-1)[: self.counts(self.done)] = 0.0


class Remembers(Zeroing):
    """The same, with a memory."""

    until = 20

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


class Gate(nn.Module):
    """A parametrization by a mask."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight):
        return weight * self.mask


def host(net, make, **options):
    given = {"name": "user.zeroing", "example": batch()[0], "total_steps": STEPS} | options
    return HostedPruner(make, net, **given)


def train(net, pruner, steps, first=0, *, applied=lambda number: True):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    events = []
    for number in range(first, first + steps):
        x, y = batch(number)
        reset_(net)
        F.cross_entropy(net(x).mean(0), y).backward()
        if applied(number):
            optimizer.step()
        events.append(pruner.step(applied=applied(number)))
        optimizer.zero_grad()
    return [event for event in events if event]


def test_zeros_are_what_is_pruned_and_a_change_is_told():
    net = conv_net()
    pruner = host(net, lambda: Zeroing(net, lambda done: 40 if done >= 3 else 0))
    assert pruner.density == 1.0
    (event,) = train(net, pruner, 6)
    assert (event.step, event.dropped["7"], event.born["7"]) == (3, 40, 0)
    assert event.progress == 0.1
    assert event.layers == {"0": 1.0, "4": 1.0, "7": 0.75}
    assert event.density == pruner.density == (646 - 40) / 646
    assert pruner.masks["7.weight"].flatten().tolist() == [False] * 40 + [True] * 120
    assert event.connections <= 646 - 40


def test_a_pruner_that_says_nothing_of_itself_may_change_to_the_end():
    net = conv_net()
    pruner = host(net, lambda: Zeroing(net, lambda done: done))
    assert (pruner.until, pruner.target, pruner.requested, pruner.planned_counts()) == (STEPS, None, {}, {})
    assert pruner.prunable == ["0", "4", "7"]
    assert [pruner.planned_density(step) for step in (0, 29, 30)] == [None] * 3
    assert not pruner.resumable
    with pytest.raises(BadCheckpoint, match=r"user.zeroing has no state_dict\(\)"):
        pruner.load_state_dict(pruner.state_dict())


def test_what_changes_at_every_step_is_told_now_and_then_and_nothing_is_lost():
    net = conv_net()

    class ComesAndGoes(Zeroing):
        def step(self):
            super().step()
            if self.done % 2 == 0:
                self.weight.data.view(-1)[100:110] = 0.5

    pruner = host(net, lambda: ComesAndGoes(net, lambda done: 100 + 10 * (done % 2) if done > 1 else 0))
    events = train(net, pruner, STEPS)
    assert [event.step for event in events] == [2, 12, 22, 30]
    dropped, born = (sum(getattr(event, word)["7"] for event in events) for word in ("dropped", "born"))
    # Steps 3, 5, ..., 29 set ten more to zero, and the steps between give them back.
    assert (dropped, born) == (100 + 14 * 10, 14 * 10)
    assert pruner.born == born
    assert int((~pruner.masks["7.weight"]).sum()) == dropped - born


def test_a_density_is_the_target_over_what_is_prunable():
    net = conv_net()

    def make():
        pruner = Zeroing(net, lambda done: 120)
        pruner.prunable, pruner.until = ["7"], 10
        return pruner

    pruner = host(net, make, density=0.25)
    assert pruner.target == pytest.approx((646 - 120) / 646)
    assert [pruner.planned_density(step) for step in (9, 10)] == [None, pruner.target]


def test_a_step_that_the_optimizer_skipped_is_none():
    net = conv_net()
    pruner = host(net, lambda: Remembers(net, lambda done: 40 if done >= 20 else 0))
    events = train(net, pruner, STEPS, applied=lambda number: number not in (4, 5, 27))
    assert [event.step for event in events] == [22]
    assert pruner.until == 22  # the third came when all was done
    assert pruner._pruner.done == STEPS - 3


def test_dead_gradients_are_not_counted_in_a_norm():
    net = conv_net()
    pruner = host(net, lambda: Zeroing(net, lambda done: 40))
    train(net, pruner, 2)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    net[7].weight.grad.view(-1)[:40] = 100.0
    net[7].weight.grad.view(-1)[40] = 0.5
    clip_(list(net.parameters()), 1.0, pruner.by_parameter())
    assert float(net[7].weight.grad.view(-1)[40]) == 0.5


def test_its_random_numbers_are_its_own():
    def drawn(before):
        net = conv_net()
        seen = []

        class Draws:
            def step(self):
                seen.append(float(torch.rand(())))

        pruner = host(net, Draws, seed=7)
        torch.manual_seed(before)
        for _ in range(3):
            pruner.step()
        torch.manual_seed(before)
        expected = torch.rand(())
        torch.manual_seed(before)
        pruner.step()
        assert torch.equal(torch.rand(()), expected)
        return seen

    assert drawn(1) == drawn(2)
    assert len(set(drawn(1))) == 4


@pytest.mark.parametrize("middle", [5, 25])
def test_a_pruner_with_a_memory_goes_on(middle):
    def made():
        net = conv_net()
        return net, host(net, lambda: Remembers(net, lambda done: min(done, 20)))

    whole, stopped, resumed = made(), made(), made()
    events = train(*whole, STEPS)
    early = train(*stopped, middle)
    resumed[1].load_state_dict(stopped[1].state_dict())
    resumed[0].load_state_dict(stopped[0].state_dict())
    late = train(*resumed, STEPS - middle, first=middle)
    assert early + late == events
    assert all(torch.equal(one, two) for one, two in zip(whole[0].parameters(), resumed[0].parameters(), strict=True))


def test_a_state_of_another_model_is_refused():
    net, other = conv_net(), nn.Sequential(nn.Linear(3, 2))
    state = host(net, lambda: Remembers(net, lambda done: 0)).state_dict()
    pruner = host(other, lambda: Remembers(conv_net(), lambda done: 0))
    with pytest.raises(BadCheckpoint, match="is of another model"):
        pruner.load_state_dict(state)


def test_masks_of_torch_are_made_permanent_whoever_put_them_there():
    net = conv_net()
    names = set(net.state_dict())

    class Forgets:
        def step(self):
            if not prune.is_pruned(net):
                prune.l1_unstructured(net[7], "weight", amount=100)
                prune.l1_unstructured(net[7], "bias", amount=1)

    pruner = host(net, Forgets)
    (event,) = train(net, pruner, 3)
    assert event.dropped["7"] == 100
    assert pruner.by_parameter().keys() == {net[0].weight, net[4].weight}
    pruner.finish()
    assert set(net.state_dict()) == names
    assert int((net[7].weight == 0).sum()) == 100
    assert int((net[7].bias == 0).sum()) == 1


def test_a_parametrization_is_seen_and_one_left_behind_is_told(caplog):
    net = conv_net()

    class Leaves:
        def step(self):
            if not parametrize.is_parametrized(net[7]):
                parametrize.register_parametrization(net[7], "weight", Gate(torch.arange(160).view(5, 32) >= 60))

    pruner = host(net, Leaves)
    (event,) = train(net, pruner, 3)
    assert event.dropped["7"] == 60
    with caplog.at_level(logging.WARNING, "snnsl_plugin"):
        pruner.finish()
    assert "user.zeroing leaves a network that is not the one it was given (7.parametrizations" in caplog.text


def test_a_pruner_that_cuts_is_told_where_to_go():
    net = conv_net()

    class Cuts:
        def step(self):
            net[7].weight = nn.Parameter(net[7].weight[:, :16])

    with pytest.raises(CannotCut, match=r"gave the weight of '7' the shape \(5, 16\) instead of \(5, 32\)"):
        train(net, host(net, Cuts), 1)


# ------------------------------------------------------------------------------------------ what a function is given


def given(make):
    net = conv_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    known = {
        "name": "user.mine", "seed": 4, "total_steps": 30, "steps_per_epoch": 10, "example": batch()[0],
        "draw": lambda number: [batch(each) for each in range(number)],
    }  # fmt: skip
    return net, optimizer, hosted(make, net, optimizer, **known)


def test_a_function_is_given_what_it_names():
    seen = {}

    def mine(optimizer, draw, model, example, seed, steps_per_epoch, total_steps, rest=5, *, option=1):
        seen.update(locals())
        return Zeroing(model, lambda done: option)

    net, optimizer, _ = given(partial(mine, option=2))
    assert seen["model"] is net
    assert seen["optimizer"] is optimizer
    assert [seen[word] for word in ("seed", "total_steps", "steps_per_epoch", "rest", "option")] == [4, 30, 10, 5, 2]
    assert torch.equal(seen["example"], batch()[0])
    assert len(seen["draw"](2)) == 2


def test_what_no_runner_knows_and_what_has_no_step_is_said():
    with pytest.raises(BadOption, match=r"pruner 'user.mine' asks for 'density', which no runner knows \(known: model"):
        given(lambda model, density: Zeroing(model, density))
    with pytest.raises(
        BadOption, match=r"pruner 'user.mine' gave something of type Linear: let it return an object with step\(\)"
    ):
        given(lambda model: nn.Linear(1, 1))


# ----------------------------------------------------------------------------------------------------- the contract


def whole(model, total_steps, *, count=200):
    """Prunes the second convolution's first weights, after half the training."""
    weight, done = model[4].weight, 0

    class Whole:
        until = total_steps // 2

        def step(self):
            nonlocal done
            done += 1
            if done >= total_steps // 2:
                with torch.no_grad():
                    weight.view(-1)[:count] = 0.0

        def state_dict(self):
            return {"done": done}

        def load_state_dict(self, state):
            nonlocal done
            done = state["done"]

    return Whole()


def test_a_pruner_that_keeps_the_contract_passes():
    check_pruner(whole, density=1 - 200 / 646)


def broken(change):
    def make(model, total_steps):
        made = whole(model, total_steps)
        change(made, model)
        return made

    return make


def forgets(made, model):
    made.load_state_dict = lambda state: None


def never(made, model):
    made.until = 3


def leaves(made, model):
    model.register_buffer("litter", torch.zeros(1))


def revives(made, model):
    made.finish = lambda: model[4].weight.data.fill_(1.0)


draws = iter(range(1000))


def differs(made, model):
    step = made.step

    def other():
        step()
        if next(draws) == 20:  # in the second training
            model[0].weight.data[0] = 0.0

    made.step = other


BROKEN = {
    "one that cannot go on": (forgets, "stopped after step 1, it goes on to other masks"),
    "one whose masks change after its end": (never, "masks change after until, which is step 3"),
    "one that leaves something behind": (leaves, r"finish\(\) leaves \['litter'\] in the network"),
    "one whose zeros come back": (revives, "a pruned weight is not zero in the end"),
    "one that is another each time": (differs, "two trainings of one seed have other masks"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_the_contract_names_what_is_broken(case):
    change, said = BROKEN[case]
    with pytest.raises(AssertionError, match=said):
        check_pruner(broken(change))


def test_the_contract_asks_for_the_density_and_for_something_pruned():
    with pytest.raises(AssertionError, match="asked for 323 weights, 446 are left"):
        check_pruner(whole, density=0.5)
    with pytest.raises(AssertionError, match="nothing is pruned"):
        check_pruner(partial(whole, count=0))
