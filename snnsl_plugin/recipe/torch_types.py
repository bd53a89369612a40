"""The pruning types `torch.*`, those of torch.nn.utils.prune, and `user.*`, those that other distributions join."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from snnsl_plugin import registry
from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe.options import Choice, model, problem
from snnsl_plugin.training.duration import steps


class HostedPruning(Choice):
    """A pruner that is a function of the registry; its options are the function's."""

    if TYPE_CHECKING:
        type: str
    #: whether whole channels go: `STRUCTURED` in the function's file
    structured: ClassVar[bool] = False
    #: the key that says how much is kept
    strength: ClassVar[str | None] = None
    #: whether masks change at an interval `every` until `until`
    gradual: ClassVar[bool] = False


def _share(value: Any) -> Any:
    if isinstance(value, int | float) and not 0 < value <= 1:
        raise problem(f"is {value:g}; it must be in (0, 1]")
    return value


def _duration(value: str) -> str:
    try:
        steps(value, total_steps=1, steps_per_epoch=1)
    except BadOption as error:
        raise problem(str(error)) from error
    return value


def _above_zero(value: float) -> float:
    if not value > 0:
        raise problem(f"is {value:g}; it must be above 0")
    return value


def _type(name: str, host: str, checks: dict[str, Callable[[Any], Any]]) -> type[HostedPruning]:
    made = model("pruners", name, HostedPruning, tag="type", prefix=f"{host}.", checks=checks)
    known = set(made.registered_options)
    made.structured = getattr(sys.modules[made.registered_function.__module__], "STRUCTURED", False) is True
    made.strength = next((word for word in ("density", "channels") if word in known), None)
    made.gradual = {"every", "until"} <= known
    return made


_JOINED = registry.joined("pruners")
_BUILT_IN = [name for name in registry.names("pruners") if name not in _JOINED]
_CHECKS: dict[str, Callable[[Any], Any]] = {"density": _share, "start": _duration, "n": _above_zero}
HOSTED_TYPES: list[type[HostedPruning]] = [
    *(_type(name, "torch", _CHECKS) for name in _BUILT_IN),
    *(_type(name, "user", {"density": _share}) for name in sorted(_JOINED)),
]
