"""From the words of a call to a bound rule: names become functions, options are checked against the signature."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

from torch import Tensor
from torch.optim import Optimizer

from snnsl_plugin import registry
from snnsl_plugin.core.layer import Distribution, Layer, State
from snnsl_plugin.core.update import Update
from snnsl_plugin.errors import BadOption, did_you_mean

#: what may stand beside a rule in its file
_BESIDE = ("initial", "effective", "after_step_", "drift_", "evaluated", "penalty", "learner")


@dataclass(frozen=True)
class Rule:
    """A rule with its options bound, and the optional functions beside it in its file.

    Attributes:
        name: as in a recipe.
        update: `update(layers, progress) -> states`.
        chosen: the options in force, functions resolved.
        initial: `initial(weight) -> state`, or None: an all-True mask.
        effective: `effective(weight, state) -> weight`, or None: the weight itself.
        after_step_: `after_step_(weight, state)` in place, or None.
        drift_: `drift_(weight, state, lr)` in place, once after a step of the optimizer, or None.
        evaluated: `evaluated(weight, state) -> weight` in eval mode, or None: what is effective.
        penalty: `penalty(layers, progress) -> scalar` that the scores pay, or None: nothing.
        learner: `learner(scores) -> optimizer` of the tensors "score" in the states, or None: there are none.
        every: how often the source updates, a duration.
        needs: the statistics that the rule itself asks layers for.
        check_layers: `check_layers(layers)` refuses, before anything is trained, layers that it cannot prune, or None.
        rewinds: whether the network goes back to an early state after each update.
    """

    name: str
    update: Update
    chosen: dict[str, Any]
    initial: Callable[[Tensor], State] | None
    effective: Callable[[Tensor, State], Tensor] | None
    after_step_: Callable[[Tensor, State], None] | None
    drift_: Callable[[Tensor, State, float], None] | None
    evaluated: Callable[[Tensor, State], Tensor] | None
    penalty: Callable[[Sequence[Layer], float], Tensor] | None
    learner: Callable[[Sequence[Tensor]], Optimizer] | None
    every: str
    needs: frozenset[str]
    check_layers: Callable[[Sequence[Layer]], None] | None
    rewinds: bool

    def functions(self, *kinds: str) -> list[Callable[..., Any]]:
        """The chosen functions of some kinds, e.g. all criteria and growths."""
        signature = registry.options("rules", self.name)
        return [
            f for option, f in self.chosen.items() if f is not None and kind_of(signature[option].annotation) in kinds
        ]


def bind_rule(name: str, options: dict[str, Any], *, counted: Callable[[dict[str, int]], None]) -> Rule:
    """A rule ready to run.

    Args:
        name: a rule of the registry.
        options: by option name: a value, a function, or the registry name of a function.
        counted: is told the counts that a distribution gives, each time the rule asks it.

    Raises:
        UnknownName: no such rule, criterion, growth, ...
        BadOption: an option the rule does not have, or one it needs and did not get.
    """
    function = registry.get("rules", name)
    known = registry.options("rules", name)
    for option in options:
        if option not in known:
            raise BadOption(
                f"rule {name!r} has no option {option!r}{did_you_mean(option, known)} (options: {', '.join(known)})"
            )
    chosen = {}
    for option, parameter in known.items():
        value = options.get(option, parameter.default)
        if value is inspect.Parameter.empty:
            raise BadOption(f"rule {name!r} needs the option {option!r}")
        kind = kind_of(parameter.annotation)
        if kind and isinstance(value, str):
            value = _by_name(kind, option, value)
        if value is None and (parameter.default is parameter.empty or not _optional(parameter.annotation)):
            raise BadOption(f"rule {name!r} needs the option {option!r}, and None is none")
        if kind and value is not None and not callable(value):
            example = f", e.g. {kind}.constant(value={value!r})" if kind == "schedules" else ""
            raise BadOption(
                f"{option}={value!r} is neither a function nor the name of one of: {registry.names(kind)}{example}"
            )
        chosen[option] = _told(value, counted) if kind == "distributions" and value is not None else value
    file = sys.modules[function.__module__]
    if check := getattr(file, "check", None):
        check(**_own(check, chosen))

    def beside(word: str) -> Any:
        found = getattr(file, word, None)
        return partial(found, **own) if found and (own := _own(found, chosen)) else found

    return Rule(
        name,
        partial(function, **chosen),
        chosen,
        every=getattr(file, "EVERY", "100it"),
        needs=frozenset(getattr(file, "NEEDS", ())),
        check_layers=getattr(file, "check_layers", None),
        rewinds=getattr(file, "REWINDS", False),
        **{word: beside(word) for word in _BESIDE},
    )


def _own(function: Callable[..., Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """The options in force that a function beside the rule has too."""
    own = inspect.signature(function).parameters.values()
    return {each.name: chosen[each.name] for each in own if each.kind is each.KEYWORD_ONLY}


def _optional(annotation: Any) -> bool:
    return type(None) in get_args(annotation)


def _told(distribution: Distribution, counted: Callable[[dict[str, int]], None]) -> Distribution:
    def telling(layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
        counts = distribution(layers, scores, budget)
        counted(counts)
        return counts

    return telling


def _by_name(kind: str, option: str, name: str) -> Callable[..., Any]:
    function = registry.get(kind, name)
    if all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(function).parameters.values()):
        options = ", ".join(f"{each}=..." for each in registry.options(kind, name))
        raise BadOption(f"{option}={name!r}: a {registry.singular(kind)} needs its options, as in {name}({options})")
    return function


def kind_of(annotation: Any) -> str | None:
    """The registry kind that an annotation such as `Criterion` or `Schedule | None` carries, or None.

    >>> from snnsl_plugin.core.layer import Criterion
    >>> kind_of(Criterion)
    'criteria'
    """
    for candidate in (annotation, *get_args(annotation)):
        for mark in getattr(candidate, "__metadata__", ()):
            if mark in registry.KINDS:
                return str(mark)
    return None
