"""For authors of extensions: slow, obvious oracles, and the contract that every registered name must keep.

from snnsl_plugin.testing import check_criterion

def test_my_criterion_keeps_the_contract():
    check_criterion(my_criterion)
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snnsl_plugin.core.layer import (
    PER_CHANNEL,
    Criterion,
    Distribution,
    Divergence,
    Growth,
    Layer,
    Schedule,
    State,
)
from snnsl_plugin.core.update import Update
from snnsl_plugin.errors import BadOption


def tied_layer(seed: int = 0, *, name: str = "layer.weight", shape: tuple[int, ...] = (6, 5, 3, 3)) -> Layer:
    """A layer with all statistics, rounded so coarsely that most scores tie, and a silent input channel.

    Args:
        seed: of everything random in it.
        name: its name.
        shape: of the weight, (out, in, ...).
    """
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        return (torch.randn(shape, generator=generator) * 2).round() / 2

    mask = torch.rand(shape, generator=generator) < 0.6
    mask.view(-1)[:2] = torch.tensor([True, False])
    spikes = torch.randint(0, 4, (shape[1],), generator=generator).double()
    spikes[0] = 0
    beside = torch.Generator().manual_seed(seed)  # so that what is drawn above stays as it is
    reads = torch.randint(0, 3, (1, *shape[1:]), generator=beside).double().expand(shape) / 2
    silent = torch.arange(shape[1]).view(-1, *(1,) * (len(shape) - 2)) == 0
    together = (torch.rand(shape, generator=beside) * 4 - 2).round() / 8
    return Layer(
        name,
        drawn() * mask,
        {"mask": mask},
        grad=drawn(),
        momentum=drawn(),
        grad_square=drawn().square(),
        pre_spikes=spikes,
        pre_slots=8.0,
        post_spikes=torch.randint(0, 4, (shape[0],), generator=torch.Generator().manual_seed(seed)).double(),
        post_slots=6.0,
        coincidence=together.masked_fill(silent, 0.0),
        correlation=4 * together.masked_fill(silent, 0.0),
        surrogate=torch.randint(0, 4, (shape[0],), generator=beside).double() / 4,
        synops=reads.masked_fill(silent, 0.0),
        macs=torch.zeros(shape, dtype=torch.float64),
        post_trace=torch.randint(0, 5, (shape[0],), generator=torch.Generator().manual_seed(seed)).double() / 2,
        trace_samples=3.0,
        trace_product=torch.randint(0, 5, shape[:2], generator=torch.Generator().manual_seed(seed)).double() / 4,
        trace_square=torch.randint(0, 5, shape[:2], generator=torch.Generator().manual_seed(seed + 1)).double() / 8,
        post_potential=torch.arange(shape[0]).double() % 3,
        scale_grad=torch.arange(shape[0]).double() % 4 - 2.0,
        generator=torch.Generator().manual_seed(seed),
    )


def slow_keep_top(scores: Tensor, n_keep: int, among: Tensor | None = None) -> Tensor:
    """The mask of a stable descending sort in plain Python: ties go to the lowest flat index."""
    flat = scores.flatten().tolist()
    candidates = range(len(flat)) if among is None else [i for i, yes in enumerate(among.flatten().tolist()) if yes]
    best = sorted(candidates, key=lambda i: (-flat[i], i))[:n_keep]
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[best] = True
    return mask.view(scores.shape)


def slow_drop_grow(layer: Layer, keep: Tensor, grow: Tensor, n_keep: int, swap: float) -> Tensor:
    """One layer's `drop_grow` as its docstring writes it, connection by connection."""
    alive = layer.mask.flatten().tolist()
    k = min(n_keep, sum(alive))
    survive = slow_keep_top(keep, k - math.floor(swap * k), layer.mask)
    return survive | slow_keep_top(grow, n_keep - int(survive.sum()), ~survive)


def slow_stds(theta: Sequence[float], thresholds: Sequence[float]) -> list[list[float]]:
    """The effective weights of STDS for a sequence of thresholds, number by number."""
    return [[math.copysign(max(abs(x) - d, 0.0), x) if x else 0.0 for x in theta] for d in thresholds]


def slow_driven_synapses(
    x: Tensor,
    kept: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] | str = (0, 0),
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """How many kept synapses the non-zero inputs drive, per sample of the leading axis.

    For spikes these are the synaptic operations (SynOps, accumulates); for other inputs they are multiply-accumulates.
    Every synapse is visited: ones are convolved with ones.

    Args:
        x: the layer's input, (N, F) for a linear layer, (N, C, *sites) for a convolution of 1 to 3 dimensions.
        kept: which weights are non-zero, (out, in) or (out, in / groups, *kernel).
        stride: as the layer's.
        padding: as the layer's; zeros pad, and zeros drive nothing.
        dilation: as the layer's.
        groups: as the layer's.

    Returns:
        Shape (N,), float64 counts.

    Raises:
        BadOption: `kept` has an unsupported number of dimensions.
    """
    active, weights = (x.detach() != 0).double(), (kept.detach() != 0).double()
    if kept.dim() == 2:
        return F.linear(active, weights).flatten(1).sum(1)
    convolutions = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
    if kept.dim() not in convolutions:
        raise BadOption(f"weights of {kept.dim()} dimensions: synapses are counted for linear and 1d to 3d conv layers")
    return convolutions[kept.dim()](active, weights, None, stride, padding, dilation, groups).flatten(1).sum(1)


def check_criterion(criterion: Criterion | Growth) -> None:
    """The contract of criteria and growths.

    Scores have the weight's shape, are finite, are the same when asked twice from the same state, change no input, and
    follow a permutation of output channels and of input channels.

    Raises:
        AssertionError: naming what was broken.
    """
    layer = tied_layer()
    before = {k: v.clone() for k, v in vars(layer).items() if isinstance(v, Tensor)}
    scores = criterion(layer)
    _require(scores.shape == layer.weight.shape, f"scores have shape {tuple(scores.shape)}, not the weight's")
    _require(bool(torch.isfinite(scores).all()), "scores are not finite")
    _require(torch.equal(scores, criterion(tied_layer())), "the same layer scores differently the second time")
    _require(all(torch.equal(before[k], getattr(layer, k)) for k in before), "an input was changed in place")
    if layer.generator is not None and not torch.equal(layer.generator.get_state(), tied_layer().generator.get_state()):  # type: ignore[union-attr]
        return  # a random score follows no permutation
    for axis in (0, 1):
        order = torch.randperm(layer.weight.shape[axis], generator=torch.Generator().manual_seed(1))
        moved = permuted(tied_layer(), order, axis)
        _require(
            torch.allclose(criterion(moved), scores.index_select(axis, order)),
            f"a permutation of axis {axis} does not permute the scores",
        )


def permuted(layer: Layer, order: Tensor, axis: int) -> Layer:
    """The layer with its output (axis 0) or input (axis 1) channels in another order."""
    of_weights = ("weight", "grad", "momentum", "grad_square", "coincidence", "correlation", "synops", "macs")
    of_channels = [each for each in PER_CHANNEL if (each == "pre_spikes") == (axis == 1)]
    moved: dict[str, Any] = {field: getattr(layer, field).index_select(axis, order) for field in of_weights}
    moved |= {field: layer.need(field)[order] for field in of_channels}
    return replace(layer, state={"mask": layer.mask.index_select(axis, order)}, **moved)


def check_schedule(make: Callable[[float, float], Schedule]) -> None:
    """The contract of schedules: exact ends, monotone and between them, an error outside [0, 1].

    Args:
        make: from (first, last) to a schedule.

    Raises:
        AssertionError: naming what was broken.
    """
    for first, last in ((1.0, 0.1), (0.0, 0.7), (0.3, 0.3)):
        schedule = make(first, last)
        _require(schedule(0.0) == first and schedule(1.0) == last, f"the ends of {first} -> {last} are not exact")
        values = [schedule(i / 100) for i in range(101)]
        slopes = [b - a for a, b in itertools.pairwise(values)]
        sign = 1 if last >= first else -1
        _require(all(sign * slope >= -1e-12 for slope in slopes), f"{first} -> {last} is not monotone")
        for outside in (-0.01, 1.01, float("nan")):
            try:
                schedule(outside)
            except ValueError:
                continue
            raise AssertionError(f"done={outside} raised no BadOption")


def check_distribution(distribution: Distribution) -> None:
    """The contract of distributions: any budget met to the last weight, no layer over its size, excluded ones full.

    Raises:
        AssertionError: naming what was broken.
    """
    shapes = {"a": (8, 1, 3, 3), "b": (16, 8, 3, 3), "c": (4, 16, 1, 1), "d": (10, 64)}
    for excluded in (set(), {"a"}, {"c", "d"}):
        layers = []
        for seed, (name, shape) in enumerate(shapes.items()):
            drawn = tied_layer(seed, name=name, shape=shape)
            full = torch.ones(shape, dtype=torch.bool)
            state = {"mask": full if name in excluded else drawn.mask}
            layers.append(replace(drawn, state=state, prunable=name not in excluded))
        scores = {layer.name: layer.weight.abs() for layer in layers if layer.prunable}
        total = sum(layer.weight.numel() for layer in layers)
        least = sum(layer.weight.numel() for layer in layers if not layer.prunable)
        for budget in {least + 1, (least + total) // 2, total - 1, total}:
            counts = distribution(layers, scores, budget)
            _require(list(counts) == list(shapes), "counts are not in the order of the layers")
            _require(sum(counts.values()) == budget, f"asked for {budget} weights, got {sum(counts.values())}")
            for layer in layers:
                _require(
                    0 <= counts[layer.name] <= layer.weight.numel(), f"layer {layer.name} got {counts[layer.name]}"
                )
                _require(layer.prunable or counts[layer.name] == layer.weight.numel(), f"{layer.name} was excluded")


def check_divergence(divergence: Divergence) -> None:
    """The contract of divergences: one number a sample, zero for equal answers, never negative, shape (...).

    Raises:
        AssertionError: naming what was broken.
    """
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    value = divergence(p, q)
    _require(value.shape == (3, 4), f"(3, 4, 5) log-probabilities gave shape {tuple(value.shape)}")
    _require(bool((value > 0).all()), "two different answers have no divergence")
    _require(torch.allclose(divergence(p, p), torch.zeros(3, 4, dtype=p.dtype)), "equal answers diverge")


def check_rule(rule: Update, initial: Callable[[Tensor], State] | None = None) -> None:
    """The contract of rules: a bool mask for every layer, excluded ones untouched, nothing changed in place.

    Args:
        rule: the update with its options bound.
        initial: the rule's first state of a weight, for a rule whose state is more than a mask.

    Raises:
        AssertionError: naming what was broken.
    """

    def layers() -> list[Layer]:
        excluded = tied_layer(2, name="c")
        full = {"mask": torch.ones_like(excluded.mask)}
        pruned = [tied_layer(0, name="a"), tied_layer(1, name="b")]
        if initial:
            pruned = [replace(each, state=initial(each.weight)) for each in pruned]
        return [*pruned, Layer("c", excluded.weight, full, prunable=False)]

    given, fresh = layers(), layers()
    states = rule(given, 0.5)
    _require(list(states) == ["a", "b", "c"], f"states are for {list(states)}, not for every layer in order")
    for layer, same in zip(given, fresh, strict=True):
        mask = states[layer.name]["mask"]
        _require(mask.dtype == torch.bool and mask.shape == layer.weight.shape, f"the mask of {layer.name} is no mask")
        _require(torch.equal(layer.weight, same.weight), f"the weight of {layer.name} was changed in place")
        _require(torch.equal(layer.mask, same.mask), f"the old mask of {layer.name} was changed in place")
    _require(bool(states["c"]["mask"].all()), "an excluded layer was pruned")
    again = rule(fresh, 0.5)
    for name, state in states.items():
        _require(all(torch.equal(state[key], again[name][key]) for key in state), "the same layers, another answer")


def check_guide(guide: Callable[..., object]) -> None:
    """The contract of guides: log-probabilities without a gradient, the same when asked twice; or nothing to say yet.

    Args:
        guide: takes (x, target, classes, soften), for x of shape (3, 4, 5): its classes are 5.

    Raises:
        AssertionError: naming what was broken.
    """
    from snnsl_plugin.training.guides._lesson import Lesson, Softening

    x, target = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 4, 2, 2])
    for per_step in (False, True):
        soften = Softening(4.0, per_step, 1.0)
        lesson, again = guide(x, target, 5, soften), guide(x, target, 5, soften)
        if lesson is None:
            continue
        _require(isinstance(lesson, Lesson) and isinstance(again, Lesson), f"a guide answered with {type(lesson)}")
        answer = lesson.answer  # type: ignore[attr-defined]
        _require(answer.shape in ((4, 5), (3, 4, 5)), f"the answer has shape {tuple(answer.shape)}")
        _require(torch.allclose(answer.exp().sum(-1), torch.ones(answer.shape[:-1])), "the answer is no distribution")
        _require(not answer.requires_grad, "the answer carries a gradient")
        _require(torch.equal(answer, again.answer), "the guide remembers the last batch")  # type: ignore[attr-defined]


def check_pruner(pruner: Callable[..., object], *, density: float | None = None) -> None:
    """The contract of pruners: the same masks twice, none after `until`, a plain network in the end, and a middle.

    A small spiking network of 500 weights or so is trained for 12 steps, 4 an epoch. A pruner with `state_dict()` and
    `load_state_dict()` is stopped on the way, and must go on bit for bit.

    Args:
        pruner: the function with its options bound; what its positional parameters name is filled in.
        density: the share of the prunable weights it was asked to leave, in (0, 1]; not looked at where None.

    Raises:
        AssertionError: naming what was broken.
        BadOption: a parameter that no runner knows, or an answer without `step()`.
    """
    whole, again, fresh = _Trainee(pruner), _Trainee(pruner), _small_net()
    masks = [whole.step() for _ in range(_STEPS)]
    same = [again.step() for _ in range(_STEPS)]
    _require(all(map(_equal, masks, same)), "two trainings of one seed have other masks: draw from torch's generators")
    until = whole.hosted.until
    settled = masks[max(until, 1) - 1 :]
    _require(all(_equal(settled[0], each) for each in settled), f"masks change after until, which is step {until}")
    _require(not all(bool(mask.all()) for mask in masks[-1].values()), "nothing is pruned")
    if density is not None:
        chosen = [masks[-1][f"{name}.weight"] for name in whole.hosted.prunable]
        kept, asked = sum(int(mask.sum()) for mask in chosen), density * sum(mask.numel() for mask in chosen)
        # One unit a layer is a matter of rounding: a channel where whole channels go.
        units = [
            mask[0].numel() if bool((mask.flatten(1).all(1) == mask.flatten(1).any(1)).all()) else 1 for mask in chosen
        ]
        _require(abs(kept - asked) <= sum(units), f"asked for {asked:g} weights, {kept} are left")
    for middle in (1, _STEPS // 2, _STEPS - 2) if whole.hosted.resumable else ():
        _check_goes_on(pruner, middle, masks, whole.model)
    whole.hosted.finish()
    left, plain = whole.model.state_dict(), fresh.state_dict()
    _require(left.keys() == plain.keys(), f"finish() leaves {sorted(left.keys() ^ plain.keys())} in the network")
    _require(all(left[key].shape == plain[key].shape for key in plain), "the network has other shapes in the end")
    zero = all(not bool(left[name][~mask].any()) for name, mask in masks[-1].items())
    _require(zero, "a pruned weight is not zero in the end")


_STEPS = 12


class _Trainee:
    """A small network, its optimizer and a pruner, in the middle of a training."""

    def __init__(self, pruner: Callable[..., object]) -> None:
        from snnsl_plugin.for_torch.hosting import hosted

        self.model = _small_net()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02, weight_decay=0.01)
        self.hosted = hosted(
            pruner, self.model, self.optimizer, name="checked", seed=0, total_steps=_STEPS, steps_per_epoch=4,
            example=_batch(0)[0], draw=lambda number: [_batch(step) for step in range(number)],
        )  # fmt: skip

    def step(self) -> dict[str, Tensor]:
        """Takes one step and returns the masks after it."""
        from snnsl_plugin.anatomy import reset_

        x, target = _batch(self.hosted.step_number)
        reset_(self.model)
        F.cross_entropy(self.model(x).mean(0), target).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.hosted.step()
        self.optimizer.zero_grad()
        return self.hosted.masks


def _check_goes_on(
    pruner: Callable[..., object], middle: int, masks: list[dict[str, Tensor]], ended: torch.nn.Module
) -> None:
    from snnsl_plugin.training import checkpoint

    stopped, resumed = _Trainee(pruner), _Trainee(pruner)
    for _ in range(middle):
        stopped.step()
    tree = {each: getattr(stopped, each).state_dict() for each in ("hosted", "model", "optimizer")}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "middle.safetensors", tree)
        tree = checkpoint.load(Path(folder) / "middle.safetensors")
    resumed.hosted.load_state_dict(tree["hosted"])
    resumed.model.load_state_dict(tree["model"])
    resumed.optimizer.load_state_dict(tree["optimizer"])
    rest = [resumed.step() for _ in range(_STEPS - middle)]
    _require(all(map(_equal, masks[middle:], rest)), f"stopped after step {middle}, it goes on to other masks")
    same = _equal(ended.state_dict(), resumed.model.state_dict())
    _require(same, f"stopped after step {middle}, it goes on to other weights")


def _equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def _small_net() -> torch.nn.Module:
    from spikingjelly.activation_based import functional, layer, neuron

    from snnsl_plugin.for_torch.randomness import own_random_numbers

    with own_random_numbers(0, "network"):
        net = torch.nn.Sequential(
            layer.Conv2d(1, 6, 3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.LIFNode(v_threshold=0.2),
            layer.MaxPool2d(2),
            layer.Conv2d(6, 8, 3, padding=1),
            neuron.LIFNode(v_threshold=0.2),
            layer.Flatten(),
            layer.Linear(32, 5),
        )
    functional.set_step_mode(net, "m")
    return net


def _batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = 2 * torch.rand(1, 8, 1, 4, 4, generator=generator).repeat(3, 1, 1, 1, 1)
    return x, torch.randint(0, 5, (8,), generator=generator)


def _require(holds: bool, broken: str) -> None:
    if not holds:
        raise AssertionError(broken)
