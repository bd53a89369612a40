"""Equal terms: the recipe of one run, in which only pruning, guide and seed are the entrant's own."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from snnsl_plugin import registry
from snnsl_plugin.comparison.entrants import DENSE, Entrant, pruning_types
from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.document import Document, Place
from snnsl_plugin.recipe.problems import problems
from snnsl_plugin.recipe.schema import Recipe

Kind = Literal["dense", "unstructured", "structured"]
#: where the end of a schedule stands in its block; a constant has but one value
_ENDS = ("last", "value")


@dataclass(frozen=True)
class Budget:
    """What every pruner of a table may keep.

    Attributes:
        kind: `density`, the share of weights kept (of weights on a live path where whole channels go), or `synops`, a
            share of the dense network's SynOps per sample.
        value: in (0, 1).
    """

    kind: Literal["density", "synops"]
    value: float

    def __str__(self) -> str:
        return f"{self.kind}-{self.value!r}"


def budgets(compare: Compare) -> list[Budget]:
    """All budgets of a comparison, densities first."""
    return [Budget("density", value) for value in compare.densities] + [
        Budget("synops", value) for value in compare.synops
    ]


def run_recipe(
    task: Recipe, compare: Compare, entrant: Entrant, *, seed: int, strength: float | None = None, epochs: int = 0
) -> Recipe:
    """The recipe of one run.

    Data, network, training and batches are the task's. Updates of masks follow the comparison's `every` and `until`
    where the pruner has such times; an interval that belongs to its rule, as STDS's, stays.

    Args:
        task: the recipe that says data, network and training.
        compare: the comparison's block.
        entrant: whose pruning and guide it is.
        seed: of weights, batches and pruning.
        strength: how much is kept, in the entrant's own measure; as its block says where None.
        epochs: instead of the task's, where not 0.

    Raises:
        BadRecipe: its blocks do not go together with this task.
    """
    data = task.model_dump(mode="json", by_alias=True)
    pruning = dict(entrant.pruning)
    if strength is not None:
        _set_strength(pruning, strength)
    if getattr(_block(pruning), "gradual", False):
        times = ("until",) if _has_own_interval(pruning) else ("every", "until")
        pruning |= {key: getattr(compare, key) for key in times if getattr(compare, key) is not None}
    data |= {
        "seed": seed,
        "threads": 1,
        "pruning": pruning,
        "distillation": dict(entrant.distillation) if entrant.distillation else None,
        "dense_baseline": False,
        "tracking": {"mlflow": False},
        "compare": None,
        "tune": None,
        "evolution": None,
        "parent": None,
    }
    if epochs:
        data["train"] = data["train"] | {"epochs": epochs}
    folds = data["data"].get("folds")
    if compare.cross_validate and folds:
        # One order for all, or the same seed would be tested on another fold by another entrant.
        order = list(dict.fromkeys([*compare.seeds, *(entrant.seeds or [])]))
        data["data"] = data["data"] | {"fold": order.index(seed) % folds}
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        found = problems(error, Document(data, {(): Place(f"pruner {entrant.name}")}), Recipe)
        raise BadRecipe([str(each) for each in found]) from error


def kind_of(recipe: Recipe) -> Kind:
    """Which table a run belongs to."""
    if recipe.pruning.type == DENSE:
        return "dense"
    return "structured" if getattr(recipe.pruning, "structured", False) else "unstructured"


def expected_kind(entrant: Entrant) -> Kind:
    """Which table an entrant belongs to, as far as its block says without being checked."""
    block = _block(entrant.pruning)
    if block is None:
        return "unstructured"
    known = {key: value for key, value in entrant.pruning.items() if key in block.model_fields}
    return "structured" if getattr(block.model_construct(**known), "structured", False) else "unstructured"


def strength_key(entrant: Entrant) -> str | None:
    """The key of its pruning block that says how much is kept; None where nothing does."""
    return _strength_key(entrant.pruning)


def written_strength(entrant: Entrant) -> float | None:
    """How much is kept as its block is written; None where it is not."""
    key = strength_key(entrant)
    value = entrant.pruning.get(key) if key else None
    if isinstance(value, Mapping):
        value = next((value[end] for end in _ENDS if end in value), None)
    return float(value) if isinstance(value, int | float) else None


def _block(pruning: Mapping[str, Any]) -> type[BaseModel] | None:
    return pruning_types().get(str(pruning["type"]))


def _strength_key(pruning: Mapping[str, Any]) -> str | None:
    # A rule's own comes first: NNI's door has a density for all of them, which stds does not know.
    found = getattr(_module_of_rule(pruning), "STRENGTH", None) or getattr(_block(pruning), "strength", None)
    return str(found) if found else None


def _set_strength(pruning: dict[str, Any], strength: float) -> None:
    key = _strength_key(pruning)
    if not key:
        return
    written = pruning.get(key)
    if isinstance(written, Mapping):
        end = next((end for end in _ENDS if end in written), "last")
        pruning[key] = {**written, end: strength}
    elif written is None and _is_schedule(pruning, key):
        pruning[key] = {"name": "cubic", "first": 1.0, "last": strength}
    else:
        pruning[key] = strength


def _is_schedule(pruning: Mapping[str, Any], key: str) -> bool:
    rule = _rule(pruning)
    if rule is None:
        return False
    annotation = registry.options("rules", rule)[key].annotation
    return "schedules" in getattr(annotation, "__metadata__", ())


def _has_own_interval(pruning: Mapping[str, Any]) -> bool:
    return hasattr(_module_of_rule(pruning), "EVERY")


def _module_of_rule(pruning: Mapping[str, Any]) -> Any:
    rule = _rule(pruning)
    return sys.modules[registry.get("rules", rule).__module__] if rule else None


def _rule(pruning: Mapping[str, Any]) -> str | None:
    name = str(pruning["type"])
    rule = name.removeprefix("snnsl.") if name.startswith("snnsl.") else pruning.get("rule")
    return rule if rule in registry.names("rules") else None
