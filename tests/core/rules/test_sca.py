import math

import pytest
import torch
from networks import batch, conv_net
from spikingjelly.activation_based import functional

from snnsl_plugin import registry
from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.compact import compact
from snnsl_plugin.core import schedules
from snnsl_plugin.core.layer import Layer
from snnsl_plugin.core.rules.sca import check, effective, sca
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner


def layer(potential: list[float], scale: list[float], alive: list[bool], width: int = 3) -> Layer:
    rows = torch.tensor(alive).view(-1, 1).expand(-1, width).clone()
    return Layer(
        "fc", torch.ones(len(alive), width), {"mask": rows},
        post_potential=torch.tensor(potential), scale_grad=torch.tensor(scale),
    )  # fmt: skip


READOUT = Layer("out", torch.ones(2, 6), {"mask": torch.ones(2, 6, dtype=torch.bool)}, prunable=False)


def channels(state: dict[str, torch.Tensor]) -> list[bool]:
    mask = state["mask"]
    assert torch.equal(mask, mask[:, :1].expand(mask.shape))  # whole rows
    return mask[:, 0].tolist()


def test_two_updates_by_hand() -> None:
    # 6 channels of 3 weights and a readout of 12, which counts: 21 of 30 weights leave 9 for the layer, 3 channels.
    density, swap = constant(value=0.7), constant(value=0.4)
    first = layer([5.0, 1.0, 3.0, 2.0, 4.0, 0.0], [0.0] * 6, [True] * 6)
    state = sca([first, READOUT], 0.5, density=density)["fc"]
    assert channels(state) == [True, False, True, False, True, False]
    # floor(0.4 x 3) = 1 goes: the third. Of the masked the fourth has the largest gradient, whatever its sign; the
    # third, which has a larger one, has only just gone.
    second = layer([5.0, 0.0, 3.0, 0.0, 4.0, 0.0], [0.0, 1.0, 9.0, -2.0, 0.0, 0.5], channels(state))
    after = sca([second, READOUT], 0.5, density=density, swap=swap)
    assert channels(after["fc"]) == [True, False, False, True, True, False]
    assert bool(after["out"]["mask"].all())


def test_what_lies_beneath_a_mask_has_no_gradient() -> None:
    weight = torch.tensor([[2.0], [3.0]], requires_grad=True)
    out = effective(weight, {"mask": torch.tensor([[True], [False]])})
    out.sum().backward()
    assert out.tolist() == [[2.0], [0.0]]
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1.0], [0.0]]


def slow_sca(potential: list[float], scale: list[float], alive: list[bool], n_keep: int, swap: float) -> list[bool]:
    """Sorted lists, ties to the first."""
    living = sorted((i for i, yes in enumerate(alive) if yes), key=lambda i: (-potential[i], i))
    kept = living[: min(n_keep, len(living))]
    kept = kept[: len(kept) - math.floor(swap * len(kept))]
    masked = sorted((i for i, yes in enumerate(alive) if not yes), key=lambda i: (-abs(scale[i]), i))
    kept += [*masked, *[i for i in living if i not in kept]][: n_keep - len(kept)]
    return [i in kept for i in range(len(alive))]


def test_equals_an_oracle_on_tied_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(40):
        n = 5 + trial % 7
        potential = torch.randint(0, 3, (n,), generator=generator).float().tolist()
        scale = (torch.randint(0, 5, (n,), generator=generator).float() - 2).tolist()
        alive = (torch.rand(n, generator=generator) < 0.6).tolist()
        alive[0] = True
        n_keep, swap = 1 + trial % (n - 1), (trial % 4) / 4
        density = constant(value=(12 + 3 * n_keep) / (12 + 3 * n))
        state = sca(
            [layer(potential, scale, alive), READOUT], 0.5, density=density, swap=constant(value=swap)
        )["fc"]  # fmt: skip
        assert channels(state) == slow_sca(potential, scale, alive, n_keep, swap)


def test_a_permutation_of_channels_permutes_the_mask() -> None:
    potential, scale, alive = [5.0, 1.0, 3.0, 2.0, 4.0, 0.5], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [True, False] * 3
    order = [3, 1, 5, 0, 4, 2]
    options = {"density": constant(value=0.7), "swap": constant(value=0.5)}
    plain = channels(sca([layer(potential, scale, alive), READOUT], 0.5, **options)["fc"])
    moved = layer(*([each[i] for i in order] for each in (potential, scale, alive)))
    assert channels(sca([moved, READOUT], 0.5, **options)["fc"]) == [plain[i] for i in order]


def test_a_layer_keeps_at_least_one_channel() -> None:
    state = sca([layer([1.0] * 6, [0.0] * 6, [True] * 6), READOUT], 1.0, density=constant(value=0.41))["fc"]
    assert channels(state) == [True, False, False, False, False, False]


def trained(steps: int = 40, **options):
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = DynamicPruner(
        model, optimizer, "sca", exclude=["7"], every="5it", total_steps=40, sample_every=2,
        **{"density": schedules.cubic(first=1.0, last=0.6), "swap": schedules.cosine(first=0.5, last=0.0)} | options,
    )  # fmt: skip
    for step in range(steps):
        x, y = batch(step)
        reset_(model)
        cross_entropy(model(x), y).backward()
        optimizer.step()
        yield model, pruner, pruner.step()
        optimizer.zero_grad()


def test_in_training_channels_fall_silent_wait_and_return_with_the_weights_they_had() -> None:
    gone: dict[int, torch.Tensor] = {}
    returned = 0
    for model, _, event in trained():
        beneath = model[4].parametrizations.weight.original.detach()
        alive = (model[4].weight != 0).flatten(1).any(1)
        for channel in range(8):
            if not alive[channel]:
                # SGD without momentum and decay moves nothing there
                assert torch.equal(gone.setdefault(channel, beneath[channel].clone()), beneath[channel])
            elif channel in gone:
                assert event is not None
                assert torch.equal(model[4].weight[channel], gone.pop(channel))
                returned += 1
    assert returned > 0


def test_the_survivors_are_cut_and_compute_the_same() -> None:
    *_, (model, pruner, _) = trained()
    pruner.finish()
    masks, (x, _) = pruner.masks, batch(0)
    alive = {name: int(masks[f"{name}.weight"].flatten(1).any(1).sum()) for name in ("0", "4")}
    # (0.6 x 646 - 160) / 486 of the weights: 25 of 54 in rows of 9, 203 of 432 in rows of 54
    assert alive == {"0": 3, "4": 4}
    assert bool(masks["7.weight"].all())
    small, _, removed = compact(model, masks, x)
    assert (small[0].out_channels, small[4].in_channels, small[4].out_channels) == (3, 3, 4)
    assert {name: len(gone) for name, gone in removed.channels.items()} == {"0": 3, "4": 4}
    assert not removed.silenced
    model.eval()
    small.eval()
    for net in (model, small):
        functional.reset_net(net)
    torch.testing.assert_close(small(x), model(x))


def test_what_would_prune_classes_or_start_sparse_is_refused_at_the_door() -> None:
    model = conv_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with pytest.raises(BadOption, match=r"the channels of '7', the last layer, .* exclude it \(exclude=\['7'\]\)"):
        DynamicPruner(model, optimizer, "sca", density=schedules.cubic(first=1.0, last=0.5), total_steps=10)
    with pytest.raises(BadOption, match="density starts at 0.5: the rule sca begins with all channels"):
        DynamicPruner(model, optimizer, "sca", density=constant(value=0.5), total_steps=10, exclude=["7"])


@pytest.mark.parametrize("name", ["gradient", "momentum", "coincidence", "gradient_per_synop"])
def test_growths_that_look_beneath_a_mask_are_refused(name):
    with pytest.raises(BadOption, match=f"growth '{name}' looks at weights beneath the mask"):
        check(density=schedules.cubic(first=1.0, last=0.5), swap=None, growth=registry.get("growth", name))
