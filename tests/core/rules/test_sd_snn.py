import math

import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.sd_snn import after_step_, effective, initial, sd_snn
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.pruner import DynamicPruner


def readout(inputs: int) -> Layer:
    weight = torch.ones(3, inputs)
    return Layer("readout", weight, {"mask": weight.bool()})


def test_four_updates_of_two_ranges_by_hand() -> None:
    state, seen, clamped = initial(torch.ones(1, 2)), [], []
    for values in ([1.0, -2.0], [2.5, -1.0], [3.0, -0.5], [3.75, -2.0]):
        weight = torch.tensor([values])
        state = sd_snn([Layer("fc", weight, state), readout(1)], 0.0, patience=1)["fc"]
        seen.append((state["low"].tolist(), state["high"].tolist()))
        after_step_(weight, state)
        clamped.append(weight.tolist())
    # First to the largest size. Beyond it once and smaller once say nothing; twice widen by the mean excess of the last
    # one, and shrink to three quarters.
    assert seen[0] == seen[1] == ([[-2.0, -2.0]], [[2.0, 2.0]])
    assert seen[2] == ([[-2.0, -1.5]], [[3.0, 1.5]])
    assert seen[3] == ([[-2.0, -1.5]], [[3.75, 1.5]])
    # Clamped from the second update after the first on, and no earlier.
    assert clamped == [[[1.0, -2.0]], [[2.5, -1.0]], [[3.0, -0.5]], [[3.75, -1.5]]]
    assert not state["due"]
    assert int(state["updates"]) == 4


def test_channels_go_by_their_ranges_and_the_share_adapts_by_hand() -> None:
    # Two convolutions; at the fourth update, 2 x 1 + 1 after the first, channels go: pressure 50 makes 0.5 % a quarter.
    first, second = torch.ones(4, 1, 1, 1), torch.ones(8, 4, 1, 1)
    states = {"a": initial(first), "b": initial(second)}
    sizes = torch.tensor([4.0, 1.0, 3.0, 2.0]).view(4, 1, 1, 1)
    for update in range(4):
        first = sizes * (4 - update)  # all shrink, so ranges stay equal ...
        first[1] = 4.0 + update  # ... but for the one that grows
        layers = [Layer("a", first, states["a"]), Layer("b", second, states["b"]), readout(8)]
        states = sd_snn(layers, 0.0, patience=1, pressure=50.0)
        assert states["a"]["mask"].flatten().tolist() == [True, True, True, update < 3]  # ties keep the lowest index
    # 0.5 + exp(0) 3 / 6 alive: the second has lost its quarter of 8 after the first was counted, so 3 / 8
    assert float(states["a"]["share"]) == 0.5 + 3 / 8
    assert float(states["b"]["share"]) == 0.5 + 6 / 8
    assert states["b"]["mask"].flatten(1).any(1).tolist() == [True] * 6 + [False] * 2


def test_a_synapse_that_the_gradient_wants_for_long_comes_back_with_its_value() -> None:
    patience, state, back = 2, initial(torch.ones(4, 5)), []
    state["mask"][0], state["pruned"][0] = False, True
    for _ in range(12):
        weight = torch.full((4, 5), 0.5)
        weight[3, 4] = 1.0
        weight[0] = torch.tensor([-1.0, -1.0, -1.0, 0.75, -1.0])  # beneath its mask
        state = sd_snn([Layer("fc", weight, state), readout(4)], 0.0, patience=patience, pressure=1e-3)["fc"]
        after_step_(weight, state)
        back.append(bool(state["mask"][0, 3]))
        assert float(weight[0, 3]) == (0.75 if back[-1] or len(back) <= patience + 1 else 0.0)
        assert not state["mask"][0, :3].any()
    # Looked for from the update after 2 x patience + 1 on, and wanted at more than patience + 1 in a row.
    assert back.index(True) == (2 * patience + 1) + (patience + 1)
    assert all(back[back.index(True) :])


class Slow:
    """One layer, weight by weight, in the words of the source: a count, and what held the last time."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rows, self.columns, self.sites = shape[0], shape[1], math.prod(shape[2:])
        self.linear, total = len(shape) == 2, math.prod(shape)
        self.code, self.pruned = [1] * total, set()
        self.count = {word: [0] * total for word in ("up", "down", "in")}
        self.last = {word: [False] * total for word in ("up", "down", "in")}
        self.sum = {word: [0.0] * total for word in ("up", "down")}
        self.wanted, self.before = [0] * self.rows * self.columns, set()
        self.share = 2.0 if self.linear else 0.5

    def ranges(self, w: list[float], epoch: int, patience: int) -> None:
        w = [value * code for value, code in zip(w, self.code, strict=True)]
        if epoch == 0:
            top = max(abs(value) for value in w)
            self.high, self.low = [top] * len(w), [-top] * len(w)
        else:
            for i, value in enumerate(w):
                holds = {"up": value >= self.high[i], "down": value <= self.low[i], "in": abs(value) < self.size[i]}
                for word, held in holds.items():
                    twice = held and self.last[word][i]
                    self.count[word][i] = self.count[word][i] + 1 if twice else 0
                    self.last[word][i] = held
                    if word != "in":
                        edge = self.high[i] if word == "up" else self.low[i]
                        self.sum[word][i] = self.sum[word][i] + value - edge if twice else 0.0
                for word, edges in (("up", self.high), ("down", self.low)):
                    if self.count[word][i] >= patience:
                        edges[i] += self.sum[word][i] / patience
                        self.count[word][i], self.sum[word][i] = 0, 0.0
                if self.count["in"][i] >= patience:
                    self.high[i], self.low[i], self.count["in"][i] = 0.75 * self.high[i], 0.75 * self.low[i], 0
        self.size = [abs(value) for value in w]

    def grow(self, w: list[float], since: int, patience: int) -> None:
        w = [min(max(value, low), high) for value, low, high in zip(w, self.low, self.high, strict=True)]
        kernels = [sum(w[k * self.sites : (k + 1) * self.sites]) for k in range(self.rows * self.columns)]
        rate = min(99.0, (60 if self.linear else 65) + 1.1**since)
        number = len(kernels) - 1 - math.floor((len(kernels) - 1) * rate / 100)
        best = sorted(range(len(kernels)), key=lambda k: (-kernels[k], k))[:number]
        asking = {k for k in best if not any(self.code[k * self.sites : (k + 1) * self.sites])}
        for k in range(len(kernels)):
            self.wanted[k] = self.wanted[k] + 1 if k in asking & self.before else 0
        self.before = asking
        for k, count in enumerate(self.wanted):
            if count > patience:
                self.code[k * self.sites : (k + 1) * self.sites] = [1] * self.sites
                self.wanted[k] = 0

    def alive(self) -> int:
        each = self.columns * self.sites
        return sum(any(self.code[row * each : (row + 1) * each]) for row in range(self.rows))

    def prune(self, since: int, pressure: float, following: "Slow | None") -> None:
        each = self.columns * self.sites
        width = [high - low for high, low in zip(self.high, self.low, strict=True)]
        unit = [value - min(width) if max(width) > min(width) else 1.0 for value in width]
        sums = [sum(unit[i] * self.code[i] for i in range(row * each, (row + 1) * each)) for row in range(self.rows)]
        number = min(self.rows - 1, int(self.rows * pressure * self.share / 100))
        for row in sorted(range(self.rows), key=lambda row: (sums[row], -row))[:number]:
            if row not in self.pruned:
                self.pruned.add(row)
                self.code[row * each : (row + 1) * each] = [0] * each
        if self.linear:
            self.share += (0.5 * math.exp(-since) if since <= 23 else 0.0005) * 51.2 * self.alive() / self.rows
        else:
            self.share += math.exp(-since / 5) * self.alive() / (following.alive() if following else self.rows)


def test_equals_the_slow_oracle_on_tied_inputs() -> None:
    shapes, patience, pressure = {"a": (6, 2, 2, 1), "b": (8, 3, 1, 2), "c": (10, 7)}, 2, 9.0
    generator = torch.Generator().manual_seed(5)
    slow = {name: Slow(shape) for name, shape in shapes.items()}
    states = {name: initial(torch.zeros(shape, dtype=torch.float64)) for name, shape in shapes.items()}
    weights = {
        name: (torch.randn(shape, generator=generator).double() * 8).round() / 4 for name, shape in shapes.items()
    }
    born = gone = 0
    for epoch in range(30):
        if epoch % 6 == 0:
            pull = {name: (torch.randn(shape, generator=generator) * 2).round() / 8 for name, shape in shapes.items()}
        for name, weight in weights.items():
            weight += pull[name]
        given = {name: weight.flatten().tolist() for name, weight in weights.items()}
        was = {name: state["mask"] for name, state in states.items()}
        layers = [*(Layer(name, weights[name], states[name]) for name in shapes), readout(10)]
        states = sd_snn(layers, 0.0, patience=patience, pressure=pressure)
        since, order = epoch - 2 * patience - 1, list(slow.values())
        for each, name in zip(order, shapes, strict=True):
            each.ranges(given[name], epoch, patience)
            if since >= 0:
                each.grow(given[name], since, patience)
        for place, each in enumerate(order if since >= 0 else []):
            each.prune(since, pressure, order[place + 1] if place < 2 else None)
        for name, each in slow.items():
            assert states[name]["mask"].flatten().int().tolist() == each.code, (epoch, name)
            assert states[name]["high"].flatten().tolist() == each.high
            assert states[name]["low"].flatten().tolist() == each.low
            born += int((states[name]["mask"] & ~was[name]).sum())
            gone += int((was[name] & ~states[name]["mask"]).sum())
            after_step_(weights[name], states[name])
    assert born > 0
    assert gone > born


def test_the_readout_stays_and_the_gradient_reaches_what_is_pruned() -> None:
    weight = torch.tensor([[1.0, 2.0]], requires_grad=True)
    (effective(weight, {"mask": torch.tensor([[True, False]])}) * 3).sum().backward()
    assert weight.grad.tolist() == [[3.0, 3.0]]
    last = readout(2)
    assert sd_snn([last], 0.0)["readout"] is last.state
    for options in ({"patience": 0}, {"pressure": 0.0}, {"pressure": float("inf")}):
        with pytest.raises(BadOption, match=next(iter(options))):
            net = conv_net()
            DynamicPruner(net, torch.optim.SGD(net.parameters(), lr=0.1), "sd_snn", total_steps=10, **options)


def test_in_training_channels_go_synapses_return_and_weights_stay_in_their_ranges() -> None:
    net = conv_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    pruner = DynamicPruner(
        net, optimizer, "sd_snn", patience=1, pressure=25.0, every="2it", until="100%", total_steps=60
    )
    densities = []
    for step in range(60):
        x, target = batch(step)
        reset_(net)
        torch.nn.functional.cross_entropy(net(x).mean(0), target).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        densities.append(pruner.density)
        if step % 2 and step > 5:
            for name in ("0", "4"):
                state = pruner.state_dict()["states"][name]
                weight = net[int(name)].parametrizations.weight.original.detach()
                assert bool(((weight >= state["low"]) & (weight <= state["high"])).all())
                assert not weight[~state["mask"]].any()
    assert densities[-1] < 0.85
    assert pruner.born > 0
    assert pruner.masks["7.weight"].all()
    masks = pruner.masks
    pruner.finish()
    assert not net[4].weight.detach()[~masks["4.weight"]].any()
