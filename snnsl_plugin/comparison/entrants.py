"""Who takes part: the recipes below `pruners/`, every pruning type that none of them uses, and what a user writes."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from snnsl_plugin.errors import BadRecipe, did_you_mean
from snnsl_plugin.recipe import catalog
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.load import resolve
from snnsl_plugin.recipe.schema import Recipe

#: the folder of the shipped recipes whose pruning and distillation blocks take part under their file's name
SHELF = "pruners/"
DENSE = "dense"


@dataclass(frozen=True)
class Entrant:
    """A pruner that is compared.

    Attributes:
        name: in tables and folders.
        pruning: its pruning block, as written; how much is kept, and when, is set by the comparison.
        distillation: its distillation block; None for none.
        summary: one sentence.
        seeds: of its own; None for the comparison's.
    """

    name: str
    pruning: Mapping[str, Any]
    distillation: Mapping[str, Any] | None = None
    summary: str = ""
    seeds: tuple[int, ...] | None = None

    @property
    def host(self) -> str:
        """Whose pruner it is: `snnsl`, `nni`, `torch_pruning`, `torch`, `user`; `dense` for none."""
        return str(self.pruning["type"]).partition(".")[0]


@cache
def pruning_types() -> dict[str, type[BaseModel]]:
    """The block of every pruning type that a recipe may name, by that name; joined ones too."""
    return {get_args(each.model_fields["type"].annotation)[0]: each for each in _members(_pruning_annotation())}


@cache
def available() -> dict[str, Entrant]:
    """Every pruner that takes part in `all`, by name: those of the shelf first, then the types that none of them uses.

    A pruning type that was joined is here as soon as it is installed, and a recipe below `pruners/` as soon as it lies
    there; a type whose options have no defaults can only take part under a name of its own.
    """
    found: dict[str, Entrant] = {}
    for recipe in catalog.names():
        if recipe.startswith(SHELF):
            name = recipe.removeprefix(SHELF)
            written = resolve(recipe).data
            found[name] = Entrant(name, written["pruning"], written.get("distillation"), catalog.summary(recipe))
    used = {str(each.pruning["type"]) for each in found.values()}
    for name, block in sorted(pruning_types().items()):
        if name not in used:
            found[name] = Entrant(name, {"type": name}, summary=_first_line(block))
    return found


def chosen(compare: Compare) -> list[Entrant]:
    """Those that a recipe lets take part, the dense network first and always.

    Raises:
        BadRecipe: a name or a pattern that is nobody's, two entrants of one name.
    """
    everyone, found, wrong = available(), dict[str, Entrant](), list[str]()

    def add(entrant: Entrant, place: str) -> None:
        if entrant.name == DENSE and entrant != everyone[DENSE]:
            wrong.append(f"{place}: {DENSE!r} is the network that nothing is pruned in: choose another name")
        if entrant.name in found and found[entrant.name] != entrant:
            wrong.append(f"{place}: {entrant.name!r} takes part already, and is another pruner: choose another name")
        found[entrant.name] = entrant

    for number, each in enumerate(compare.pruners):
        place = f"compare.pruners[{number}]"
        if isinstance(each, str):
            names = list(everyone) if each == "all" else fnmatch.filter(everyone, each)
            if not names:
                wrong.append(f"{place}: {_unknown(each, everyone)}")
            for name in names:
                add(everyone[name], place)
        elif each.like is not None and each.like not in everyone:
            wrong.append(f"{place}.like: {_unknown(each.like, everyone)}")
        else:
            like = everyone[each.like] if each.like else Entrant(each.name, {})
            add(
                replace(
                    like,
                    name=each.name,
                    pruning=_changed(like.pruning, each.pruning),
                    distillation=each.distillation if "distillation" in each.model_fields_set else like.distillation,
                    summary=like.summary,
                    seeds=tuple(each.seeds) if each.seeds else None,
                ),
                place,
            )
    for number, pattern in enumerate(compare.without):
        names = fnmatch.filter(found, pattern)
        if not names:
            wrong.append(f"compare.without[{number}]: {_unknown(pattern, found)}")
        for name in names:
            del found[name]
    wrong += [
        f"compare.pruners: {each.name!r} prunes nothing, so it has no budget: leave it out, dense takes part by itself"
        for each in found.values()
        if each.name != DENSE and each.host == DENSE
    ]
    if wrong:
        raise BadRecipe(wrong)
    found.pop(DENSE, None)
    return [everyone[DENSE], *found.values()]


def _unknown(name: str, known: Iterable[str]) -> str:
    return f"no pruner is called {name!r}{did_you_mean(name, known)} (known: {', '.join(known)})"


def _changed(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A block with another laid over it; one that names another choice replaces it whole."""
    if any(tag in above and above[tag] != below.get(tag) for tag in ("type", "name")):
        return dict(above)
    return dict(below) | {
        key: _changed(below[key], value)
        if isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        else value
        for key, value in above.items()
    }


def _pruning_annotation() -> Any:
    return Recipe.model_fields["pruning"].annotation


def _members(annotation: Any) -> Sequence[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for inner in get_args(annotation) for member in _members(inner)]


def _first_line(block: type[BaseModel]) -> str:
    return (inspect.getdoc(block) or "").partition("\n")[0]
