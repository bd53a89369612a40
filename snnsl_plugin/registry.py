"""The folder is the registry: the word in a recipe is a file, and the function in it.

    core/criteria/spike_saliency.py: def spike_saliency(layer, *, power=0.5)

Keyword-only parameters are the options, so the signature is the schema. A trailing underscore (`global_`, where the
word is a Python keyword) is written in files and functions, never in recipes. Other distributions join through entry
points named like the kind (`snnsl_plugin.criteria`). Nothing is imported to list names, and a recipe can name only
what is listed here.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import pkgutil
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from snnsl_plugin.errors import BadOption, MissingExtra, UnknownName

#: kind -> the folder that holds it, below the package
KINDS = {
    "criteria": "core.criteria",
    "growth": "core.growth",
    "rules": "core.rules",
    "schedules": "core.schedules",
    "distributions": "core.distributions",
    "divergences": "core.divergences",
    "guides": "training.guides",
    "health": "training.health",
    "pruners": "for_torch.pruners",
    "models": "models",
    "datasets": "datasets",
    "encoders": "datasets.encoders",
}
_SINGULAR = {"criteria": "criterion", "growth": "growth", "health": "kind of care"}


def singular(kind: str) -> str:
    """The word for one of a kind, as errors use it: `criteria` -> `criterion`."""
    return _SINGULAR.get(kind, kind.removesuffix("s"))


def names(kind: str) -> list[str]:
    """The sorted recipe names of a kind, built in and joined, without importing any of them.

    Raises:
        UnknownName: there is no such kind.
        BadOption: two providers of one name.
    """
    return sorted(_providers(kind))


def get(kind: str, name: str) -> Callable[..., Any]:
    """The function that a recipe name stands for.

    Raises:
        UnknownName: with the nearest known name.
    """
    providers = _providers(kind)
    if name not in providers:
        raise UnknownName(singular(kind), name, providers)
    provider = providers[name]
    if isinstance(provider, str):
        found = getattr(importlib.import_module(provider), provider.rpartition(".")[2])
    else:
        found = _loaded(kind, provider)
    return found  # type: ignore[no-any-return]


def joined(kind: str) -> set[str]:
    """The names of a kind that other distributions provide; which of `names(kind)` are not built in.

    Raises:
        UnknownName: there is no such kind.
        BadOption: two providers of one name.
    """
    return {name for name, provider in _providers(kind).items() if not isinstance(provider, str)}


def options(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The options of a name: the keyword-only parameters of its function, with annotations resolved."""
    signature = inspect.signature(get(kind, name), eval_str=True)
    return {p.name: p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}


def _providers(kind: str) -> dict[str, str | EntryPoint]:
    if kind not in KINDS:
        raise UnknownName("kind", kind, KINDS)
    package = f"{__package__}.{KINDS[kind]}"
    folder = Path(__file__).parent.joinpath(*KINDS[kind].split("."))
    found: dict[str, str | EntryPoint] = {
        _word(module.name): f"{package}.{module.name}"
        for module in pkgutil.iter_modules([str(folder)])
        if not module.ispkg and not module.name.startswith("_")
    }
    for point in _joined(f"snnsl_plugin.{kind}"):
        if point.name in found:
            raise BadOption(
                f"two providers of {singular(kind)} {point.name!r}: {found[point.name]} and {point.value}; "
                "uninstall one or rename its entry point"
            )
        found[point.name] = point
    return found


def _loaded(kind: str, point: EntryPoint) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = point.load()
    except (ImportError, AttributeError, SyntaxError) as error:
        owner = f" of the package {point.dist.name}" if point.dist else ""
        raise MissingExtra(
            f"{singular(kind)} {point.name!r}{owner} ({point.value}) cannot be imported: {error}; mend or uninstall it"
        ) from error
    return found


@cache
def _installed() -> EntryPoints:
    # Reading the metadata of every installed distribution takes 40 ms; what is installed does not change in a process.
    return entry_points()  # type: ignore[return-value]  # typeshed has the old type for 3.11


def _joined(group: str) -> EntryPoints:
    return _installed().select(group=group)


def _word(module: str) -> str:
    stem = module.removesuffix("_")
    return stem if keyword.iskeyword(stem) else module
