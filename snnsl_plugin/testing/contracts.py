"""The contracts of criteria, growths, schedules, distributions, divergences, rules and guides."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from snnsl_plugin.core.layer import Criterion, Distribution, Divergence, Growth, Layer, Schedule, State
from snnsl_plugin.core.update import Update
from snnsl_plugin.testing.oracles import permuted, tied_layer


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
    require(scores.shape == layer.weight.shape, f"scores have shape {tuple(scores.shape)}, not the weight's")
    require(bool(torch.isfinite(scores).all()), "scores are not finite")
    require(torch.equal(scores, criterion(tied_layer())), "the same layer scores differently the second time")
    require(all(torch.equal(before[k], getattr(layer, k)) for k in before), "an input was changed in place")
    if layer.generator is not None and not torch.equal(layer.generator.get_state(), tied_layer().generator.get_state()):  # type: ignore[union-attr]
        return  # a random score follows no permutation
    for axis in (0, 1):
        order = torch.randperm(layer.weight.shape[axis], generator=torch.Generator().manual_seed(1))
        moved = permuted(tied_layer(), order, axis)
        require(
            torch.allclose(criterion(moved), scores.index_select(axis, order)),
            f"a permutation of axis {axis} does not permute the scores",
        )


def check_schedule(make: Callable[[float, float], Schedule]) -> None:
    """The contract of schedules: exact ends, monotone and between them, an error outside [0, 1].

    Args:
        make: from (first, last) to a schedule.

    Raises:
        AssertionError: naming what was broken.
    """
    for first, last in ((1.0, 0.1), (0.0, 0.7), (0.3, 0.3)):
        schedule = make(first, last)
        require(schedule(0.0) == first and schedule(1.0) == last, f"the ends of {first} -> {last} are not exact")
        values = [schedule(i / 100) for i in range(101)]
        slopes = [b - a for a, b in itertools.pairwise(values)]
        sign = 1 if last >= first else -1
        require(all(sign * slope >= -1e-12 for slope in slopes), f"{first} -> {last} is not monotone")
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
            require(list(counts) == list(shapes), "counts are not in the order of the layers")
            require(sum(counts.values()) == budget, f"asked for {budget} weights, got {sum(counts.values())}")
            for layer in layers:
                require(0 <= counts[layer.name] <= layer.weight.numel(), f"layer {layer.name} got {counts[layer.name]}")
                require(layer.prunable or counts[layer.name] == layer.weight.numel(), f"{layer.name} was excluded")


def check_divergence(divergence: Divergence) -> None:
    """The contract of divergences: one number a sample, zero for equal answers, never negative, shape (...).

    Raises:
        AssertionError: naming what was broken.
    """
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    value = divergence(p, q)
    require(value.shape == (3, 4), f"(3, 4, 5) log-probabilities gave shape {tuple(value.shape)}")
    require(bool((value > 0).all()), "two different answers have no divergence")
    require(torch.allclose(divergence(p, p), torch.zeros(3, 4, dtype=p.dtype)), "equal answers diverge")


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
    require(list(states) == ["a", "b", "c"], f"states are for {list(states)}, not for every layer in order")
    for layer, same in zip(given, fresh, strict=True):
        mask = states[layer.name]["mask"]
        require(mask.dtype == torch.bool and mask.shape == layer.weight.shape, f"the mask of {layer.name} is no mask")
        require(torch.equal(layer.weight, same.weight), f"the weight of {layer.name} was changed in place")
        require(torch.equal(layer.mask, same.mask), f"the old mask of {layer.name} was changed in place")
    require(bool(states["c"]["mask"].all()), "an excluded layer was pruned")
    again = rule(fresh, 0.5)
    for name, state in states.items():
        require(all(torch.equal(state[key], again[name][key]) for key in state), "the same layers, another answer")


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
        require(isinstance(lesson, Lesson) and isinstance(again, Lesson), f"a guide answered with {type(lesson)}")
        answer = lesson.answer  # type: ignore[attr-defined]
        require(answer.shape in ((4, 5), (3, 4, 5)), f"the answer has shape {tuple(answer.shape)}")
        require(torch.allclose(answer.exp().sum(-1), torch.ones(answer.shape[:-1])), "the answer is no distribution")
        require(not answer.requires_grad, "the answer carries a gradient")
        require(torch.equal(answer, again.answer), "the guide remembers the last batch")  # type: ignore[attr-defined]


def require(holds: bool, broken: str) -> None:
    """Raises an AssertionError that names what was broken."""
    if not holds:
        raise AssertionError(broken)
