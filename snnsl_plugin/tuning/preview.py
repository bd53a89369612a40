"""What a study would do, without doing it."""

from __future__ import annotations

from typing import Any

import optuna

from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.for_nni.study import check_sampler
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.recipe.space import changed
from snnsl_plugin.tuning import study
from snnsl_plugin.tuning.ledger import quiet
from snnsl_plugin.tuning.proposals import own_point, suggest, values_of

_SHOWN = 5


def preview(recipe: Recipe) -> dict[str, Any]:
    """The space, the terms, and points that a random sampler would draw from it; nothing is trained or written.

    Args:
        recipe: with a `tune` block.

    Returns:
        `digest`, `space`, `objectives`, `constraints`, `sampler`, `trials`, `hours`, `stop`, `first` (the recipe's own
        values) and `examples`: points, each with `error` where it makes no recipe.
    """
    tune = study.tune_of(recipe)
    check_sampler(tune.sampler, 0)
    said = tune.model_dump(mode="json")
    with quiet():
        drawn = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=recipe.seed % 2**32))
        points = [suggest(drawn.ask(), tune.space) for _ in range(_SHOWN)]
    return {
        "digest": study.digest(recipe),
        **{key: said[key] for key in ("space", "objectives", "constraints", "sampler", "trials", "hours", "stop")},
        "first": values_of(tune.space, own_point(recipe)),
        "examples": [{"values": point, "error": _error(recipe, point)} for point in points],
    }


def _error(recipe: Recipe, point: dict[str, Any]) -> str | None:
    try:
        changed(recipe, point)
    except BadRecipe as error:
        return error.problems[0]
    return None
