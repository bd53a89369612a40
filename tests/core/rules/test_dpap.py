import math

import numpy as np
import pytest
import torch
from networks import batch, conv_net

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.dpap import dpap, initial
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.training.pruner import DynamicPruner


def seen(weight: torch.Tensor, state: dict, y: torch.Tensor, x: torch.Tensor, groups: int = 1) -> Layer:
    """A layer that has seen samples with the traces y (N, out) and x (N, in)."""
    y, x = y.double(), x.double()
    grouped = [part.unflatten(1, (groups, -1)) for part in (y, y.square(), x)]
    product, square = (torch.einsum("ngo,ngi->goi", grouped[k], grouped[2]).flatten(0, 1) for k in (0, 1))
    return Layer(
        "fc", weight, state, groups=groups,
        post_trace=y.sum(0), trace_samples=float(len(y)), trace_product=product, trace_square=square,
    )  # fmt: skip


def test_three_updates_of_a_linear_layer_by_hand() -> None:
    # Two samples: the mean of y is (2, 1), so B = (1-2) 1 1 + (3-2) 3 2 = 5 and (0-1) 0 1 + (2-1) 2 2 = 4. Both shares
    # are 1 and 0, so the first unit gains 2 - 1.5 + 2 and the second loses 1.5; its synapse does likewise.
    weight = torch.ones(2, 1)
    y, x = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[1.0], [2.0]])
    state, reserves = initial(weight), []
    for _ in range(3):
        state = dpap([seen(weight, state, y, x)], 0.0)["fc"]
        reserves.append(state["reserve"].tolist())
    assert state["bcm"].tolist() == [[15.0], [12.0]]
    assert state["trace"].tolist() == [12.0, 6.0]
    assert (float(state["samples"]), int(state["updates"])) == (6.0, 3)
    assert reserves[0] == pytest.approx([9.99 + 2.5, 9.99 - 1.5])
    assert reserves[1] == pytest.approx([0.999 * 12.49 + 2.5, 0.999 * 8.49 - 1.5])
    assert reserves[2] == pytest.approx([0.999 * 14.97751 + 2.5, 0.999 * 6.98151 - 1.5])
    assert state["synapses"].flatten().tolist() == reserves[2]


def test_an_idle_channel_of_a_convolution_lasts_twenty_updates_and_an_idle_neuron_seven() -> None:
    # 10 - 0.65 an update, 0.65 / e from the 13th on; and 10 - 1.5. Those that fire gain and stay.
    y, x = torch.tensor([[0.0, 4.0, 4.0, 4.0], [0.0, 8.0, 8.0, 8.0]]), torch.tensor([[1.0], [2.0]])
    for weight, last in ((torch.ones(4, 1, 3, 3), 20), (torch.ones(4, 1), 6)):
        state = initial(weight)
        for update in range(1, 40):
            state = dpap([seen(weight, state, y, x)], 0.0)["fc"]
            assert bool(state["mask"][0].any()) == (update <= last), update
            assert state["mask"][1:].all()
        assert not state["mask"][0].any()


def slow_dpap(kind: str, history: list, pressure: float, groups: int) -> list[list[list[bool]]]:
    """The masks after each update, from raw traces, number by number; rows of `in` synapses."""
    cost, bonus, period = (1.5, 2.0, 13) if kind == "linear" else (0.65, 5.0, 12)
    bar = 2 * (1 - (1 - cost / 2) ** pressure)
    out, inner = len(history[0][0][0]), len(history[0][1][0]) // groups
    bcm, trace, samples = [[0.0] * inner for _ in range(out)], [0.0] * out, 0
    units, synapses = [10.0] * out, [[10.0] * inner for _ in range(out)]
    alive, masks = [[True] * inner for _ in range(out)], []

    def stretched(values: list[float], top: float) -> list[float]:
        low = min(values)
        if top == low:
            return [0.5] * len(values)
        return [min(1.0, max(0.0, (v - low) / (top - low))) for v in values]

    for number, (ys, xs) in enumerate(history):
        samples += len(ys)
        for o in range(out):
            trace[o] += sum(y[o] for y in ys)
            for i in range(inner):
                at = o // (out // groups) * inner + i
                bcm[o][i] += sum(y[o] * (y[o] - trace[o] / samples) * x[at] for y, x in zip(ys, xs, strict=True))
        sums = [sum(row) for row in bcm]
        product = zip(stretched(sums, max(sums)), stretched(trace, max(trace)), strict=True)
        activity = [one * other for one, other in product]
        fading = math.exp(-(number // period))

        def lived(reserve: float, share: float, fading: float = fading) -> float:
            gain = 2 * share - bar
            return 0.999 * reserve + (gain + bonus if gain > 0 else gain) * fading

        shares = stretched(activity, float(np.percentile(activity, 75)))
        units = [lived(r, s) for r, s in zip(units, shares, strict=True)]
        if kind == "linear":
            flat = [value for row in bcm for value in row]
            each = stretched(flat, float(np.percentile(flat, 75)))
            synapses = [[lived(synapses[o][i], each[o * inner + i]) for i in range(inner)] for o in range(out)]
        for o in range(out):
            for i in range(inner):
                alive[o][i] = alive[o][i] and units[o] >= 0 and synapses[o][i] >= 0
        masks.append([list(row) for row in alive])
    return masks


@pytest.mark.parametrize("pressure", [1.0, 2.5])
@pytest.mark.parametrize(("kind", "groups"), [("linear", 1), ("convolution", 1), ("convolution", 2)])
def test_equals_the_slow_oracle_on_tied_inputs(kind: str, groups: int, pressure: float) -> None:
    generator = torch.Generator().manual_seed(3)
    idle = (torch.rand(12, generator=generator) < 0.7).double()
    history = []
    for _ in range(30):
        y = torch.randint(0, 3, (4, 12), generator=generator).double() / 2 * idle
        history.append((y, torch.randint(0, 3, (4, 6), generator=generator).double() / 2))
    expected = slow_dpap(kind, [(y.tolist(), x.tolist()) for y, x in history], pressure, groups)
    weight = torch.ones(12, 6 // groups, *([] if kind == "linear" else [3, 3]), dtype=torch.float64)
    state, before = initial(weight), torch.ones_like(weight, dtype=torch.bool)
    for (y, x), want in zip(history, expected, strict=True):
        state = dpap([seen(weight, state, y, x, groups)], 0.0, pressure=pressure)["fc"]
        assert state["mask"].flatten(2)[..., 0].tolist() == want if kind != "linear" else state["mask"].tolist() == want
        assert not (state["mask"] & ~before).any()  # what is gone stays away
        before = state["mask"]
    assert 0 < int(before.sum()) < before.numel()


def test_more_pressure_keeps_less() -> None:
    generator = torch.Generator().manual_seed(0)
    y, x = torch.rand(6, 40, generator=generator), torch.rand(6, 8, generator=generator)
    kept = []
    for pressure in (0.3, 1.0, 3.0):
        state = initial(torch.ones(40, 8))
        for _ in range(12):
            state = dpap([seen(torch.ones(40, 8), state, y, x)], 0.0, pressure=pressure)["fc"]
        kept.append(int(state["mask"].sum()))
    assert kept == sorted(kept, reverse=True)
    assert len(set(kept)) == 3


def test_the_readout_stays_and_a_network_without_neurons_is_named() -> None:
    weight = torch.ones(2, 1)
    readout = Layer("readout", weight, initial(weight))
    driven = seen(weight, initial(weight), torch.ones(1, 2), torch.ones(1, 1))
    states = dpap([driven, readout], 0.0)
    assert states["readout"] is readout.state
    assert int(states["fc"]["updates"]) == 1
    with pytest.raises(MissingStatistic, match="'readout' has no post_trace"):
        dpap([readout], 0.0)
    with pytest.raises(BadOption, match="above 0"):
        DynamicPruner(conv_net(), torch.optim.SGD(conv_net().parameters(), lr=0.1), "dpap", pressure=0.0)


def test_in_training_whole_channels_go_for_good() -> None:
    net = conv_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    pruner = DynamicPruner(
        net, optimizer, "dpap", every="1it", start="6it", until="100%", total_steps=40, sample_every=1
    )
    before = pruner.masks
    for step in range(40):
        x, target = batch(step)
        reset_(net)
        torch.nn.functional.cross_entropy(net(x).mean(0), target).backward()
        optimizer.step()
        pruner.step()
        optimizer.zero_grad()
        assert not any((mask & ~before[name]).any() for name, mask in pruner.masks.items())
        before = {name: mask.clone() for name, mask in pruner.masks.items()}
    rows = before["4.weight"].flatten(1)
    assert torch.equal(rows.any(1), rows.all(1))
    assert 0 < int(rows.any(1).sum()) < 8
    assert before["7.weight"].all()
    assert not net[4].weight.detach()[~before["4.weight"]].any()
    assert pruner.born == 0
