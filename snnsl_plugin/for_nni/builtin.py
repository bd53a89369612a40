"""NNI's own pruners by their words in a recipe: how each is built, and when it acts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nni.compression import TorchEvaluator
from nni.compression.base.compressor import Pruner
from nni.compression.pruning import (
    AGPPruner,
    FPGMPruner,
    L1NormPruner,
    L2NormPruner,
    LevelPruner,
    LinearPruner,
    MovementPruner,
    SlimPruner,
    TaylorPruner,
)
from torch import nn

from snnsl_plugin.errors import BadOption, UnknownName
from snnsl_plugin.training.timetable import Timetable

Config = list[dict[str, Any]]


@dataclass(frozen=True)
class Course:
    """When a pruner acts, in optimizer steps since the start of the training.

    Attributes:
        start: NNI's machinery begins after this step; 0 is before training.
        until: the masks are at their goal after this step.
        every: steps between two updates.
        settled: whether the masks stay from then on. MovementPruner ranks anew after every step to the very end.
    """

    start: int
    until: int
    every: int
    settled: bool = True

    @property
    def times(self) -> int:
        """How many updates there are up to `until`."""
        return max(1, (self.until - self.start) // self.every)

    def due(self, step: int) -> bool:
        """Whether masks may have changed after a step."""
        if self.start == self.until:
            return step == self.start
        after = step > self.start and (step - self.start) % self.every == 0
        return after and (step <= self.until or not self.settled)

    def progress(self, step: int) -> float:
        """The fraction of the updates that are over, in [0, 1]."""
        if self.start == self.until:
            return float(step >= self.start)
        return min(1.0, max(0, step - self.start) // self.every / self.times)


@dataclass(frozen=True)
class Builtin:
    """One of NNI's pruners.

    Attributes:
        build: from a model, NNI's config list, an evaluator, the course, and further options.
        course: from a timetable.
        share: the share of the sparse ratio that is asked for at a progress in [0, 1].
        by_channel: whether whole output channels are masked where the config says nothing else.
        warms_up: whether NNI's machinery counts the steps before `start` itself, and so begins before training.
        one_shot: whether `compress()` makes the masks at once, without training.
        of_norms: whether the targets are norms, not convolutions and linear layers.
    """

    build: Callable[[nn.Module, Config, TorchEvaluator, Course, Mapping[str, Any]], Pruner]
    course: Callable[[Timetable], Course]
    share: Callable[[float], float]
    by_channel: bool = True
    warms_up: bool = False
    one_shot: bool = False
    of_norms: bool = False


def builtin(name: str) -> Builtin:
    """One of NNI's pruners by name.

    Raises:
        UnknownName: with the nearest known name.
    """
    if name not in BUILTIN:
        raise UnknownName("pruner of NNI", name, BUILTIN)
    return BUILTIN[name]


def repeated(when: Timetable) -> Course:
    """The course of a pruner that counts intervals: as many as fit, so the last one may end before `until`.

    Raises:
        BadOption: none fits.
    """
    times = (when.until - when.start) // when.every
    if times < 1:
        raise BadOption(
            f"every is {when.every} steps, but from start to until there are only {when.until - when.start}, so no "
            "update would ever be made: lower every, or raise until"
        )
    return Course(when.start, when.start + times * when.every, when.every)


def kept(shape: Sequence[int], ratio: float, *, by_channel: bool) -> int:
    """How many weights of a layer NNI leaves at a sparse ratio: n - int(n x ratio), of channels or of weights.

    >>> kept((7, 3), 0.5, by_channel=True), kept((7, 3), 0.5, by_channel=False)
    (12, 11)
    """
    whole = math.prod(shape)
    units = shape[0] if by_channel else whole
    return (units - int(units * ratio)) * (whole // units)


def _at_once(when: Timetable) -> Course:
    return Course(when.start, when.start, 1)


def _at_end(when: Timetable) -> Course:
    return Course(when.start, when.until, when.until - when.start)


def _each_step(when: Timetable) -> Course:
    return Course(when.start, when.until, 1, settled=False)


def _all(progress: float) -> float:
    return float(progress >= 1.0)


def _linear(progress: float) -> float:
    return progress


def _cubic(progress: float) -> float:
    return 1.0 - (1.0 - progress) ** 3


def _norm(pruner: type[Pruner], **facts: Any) -> Builtin:
    return Builtin(lambda model, config, host, *_: pruner(model, config, host), _at_once, _all, one_shot=True, **facts)


def _taylor(
    model: nn.Module, config: Config, host: TorchEvaluator, course: Course, options: Mapping[str, Any]
) -> Pruner:
    return TaylorPruner(model, config, host, training_steps=course.every)


def _slim(model: nn.Module, config: Config, host: TorchEvaluator, course: Course, options: Mapping[str, Any]) -> Pruner:
    return SlimPruner(model, config, host, training_steps=course.every, **options)


def _movement(
    model: nn.Module, config: Config, host: TorchEvaluator, course: Course, options: Mapping[str, Any]
) -> Pruner:
    return MovementPruner(model, config, host, warmup_step=course.start, cooldown_begin_step=course.until, **options)


def _ramped(
    ramp: type[LinearPruner | AGPPruner], inner: Callable[[nn.Module, Config, TorchEvaluator, Course], Pruner]
) -> Callable[[nn.Module, Config, TorchEvaluator, Course, Mapping[str, Any]], Pruner]:
    def build(
        model: nn.Module, config: Config, host: TorchEvaluator, course: Course, options: Mapping[str, Any]
    ) -> Pruner:
        bound = inner(model, config, host, course)
        return ramp(bound, interval_steps=course.every, total_times=course.times)

    return build


#: A Taylor pruner that a ramp holds must see a whole interval (training_steps = interval_steps): with fewer steps it
#: makes its masks before the ramp has moved the goal, and the last goal is never met.
BUILTIN: dict[str, Builtin] = {
    "level": _norm(LevelPruner, by_channel=False),
    "l1_norm": _norm(L1NormPruner),
    "l2_norm": _norm(L2NormPruner),
    "fpgm": _norm(FPGMPruner),
    "slim": Builtin(_slim, _at_end, _all, of_norms=True),
    "taylor": Builtin(_taylor, _at_end, _all),
    "linear_l1_norm": Builtin(_ramped(LinearPruner, lambda m, c, h, _: L1NormPruner(m, c, h)), repeated, _linear),
    "agp_level": Builtin(
        _ramped(AGPPruner, lambda m, c, h, _: LevelPruner(m, c, h)), repeated, _cubic, by_channel=False
    ),
    "agp_taylor": Builtin(_ramped(AGPPruner, lambda m, c, h, course: _taylor(m, c, h, course, {})), repeated, _cubic),
    "movement": Builtin(_movement, _each_step, _cubic, warms_up=True),
}
