"""What is to be trained: every task, pruner, budget and seed, and how much each pruner has to keep."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from snnsl_plugin.comparison import strengths
from snnsl_plugin.comparison.entrants import Entrant, chosen
from snnsl_plugin.comparison.failures import sentence
from snnsl_plugin.comparison.numbers import layer_macs
from snnsl_plugin.comparison.strengths import Search, Strength
from snnsl_plugin.comparison.terms import (
    Budget,
    Kind,
    budgets,
    expected_kind,
    kind_of,
    run_recipe,
    strength_key,
    written_strength,
)
from snnsl_plugin.errors import BadRecipe
from snnsl_plugin.recipe import assemble
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.digest import digest
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training.loop import batches

_log = logging.getLogger(__name__)


@dataclass
class Task:
    """Data, network and training that pruners are compared on.

    Attributes:
        name: of its recipe.
        recipe: whose data, model and train blocks count.
    """

    name: str
    recipe: Recipe

    @cached_property
    def parts(self) -> assemble.Data:
        """Its data, loaded once."""
        return assemble.data(self.recipe)

    @cached_property
    def macs(self) -> dict[str, int]:
        """Multiply-accumulates of a sample in its dense network, by layer."""
        model = assemble.network(self.recipe, self.parts.splits)
        return layer_macs(model, next(batches(self.parts.validation, assemble.device(self.recipe)))[0])

    @cached_property
    def weights(self) -> dict[str, int]:
        """Weights of its dense network, by layer."""
        from snnsl_plugin.anatomy import weight_layers

        model = assemble.network(self.recipe, self.parts.splits)
        return {name: layer.weight.numel() for name, layer in weight_layers(model).items()}


@dataclass
class Row:
    """One pruner at one budget on one task.

    Attributes:
        task: where.
        entrant: who.
        budget: how much may be kept; None for the dense network.
        compare: on which terms.
        kind: of its table.
        strength: how much it is told to keep; None before that is known.
        search: for that, where trainings have to tell.
        epochs: of its trainings; 0 for the task's.
        error: why it cannot take part.
    """

    task: Task
    entrant: Entrant
    budget: Budget | None
    compare: Compare
    kind: Kind = "unstructured"
    strength: Strength | None = None
    search: Search | None = None
    epochs: int = 0
    error: str | None = None

    @property
    def seeds(self) -> Sequence[int]:
        """Of its runs."""
        return self.entrant.seeds or self.compare.seeds

    @property
    def name(self) -> str:
        """Of its runs, but for the seed."""
        words = [self.task.name, self.entrant.name, str(self.budget) if self.budget else ""]
        return "-".join(filter(None, words)).replace("/", "-")

    def run_name(self, seed: int) -> str:
        """Of the run of a seed, and of its folder."""
        return f"{self.name}-s{seed}"

    def recipe(self, seed: int, *, value: float | None = None, epochs: int | None = None) -> Recipe:
        """The recipe of one of its runs.

        Args:
            seed: of the run.
            value: how much is kept, instead of what was found.
            epochs: instead of its own.
        """
        if value is None and self.strength:
            value = self.strength.value
        return run_recipe(
            self.task.recipe,
            self.compare,
            self.entrant,
            seed=seed,
            strength=value,
            epochs=self.epochs if epochs is None else epochs,
        )


@dataclass
class Plan:
    """All rows of a comparison.

    Attributes:
        name: of the comparison.
        recipe: with the `compare` block.
        tasks: the recipe's own first.
        entrants: the dense network first.
        rows: in the order in which they are trained.
    """

    name: str
    recipe: Recipe
    tasks: list[Task]
    entrants: list[Entrant]
    rows: list[Row] = field(default_factory=list)

    @property
    def compare(self) -> Compare:
        """The block."""
        if self.recipe.compare is None:
            raise BadRecipe([f"{self.name}: has no `compare` block: say there who takes part and at which densities"])
        return self.recipe.compare

    @property
    def digest(self) -> str:
        """Sixteen digits that are equal where the same is compared on the same terms."""
        block = self.compare.model_dump(mode="json", exclude_defaults=True, exclude={"workers"})
        entrants = [[each.name, each.pruning, each.distillation, each.seeds] for each in self.entrants]
        text = json.dumps([[digest(task.recipe) for task in self.tasks], block, entrants], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan(recipe: Recipe, name: str) -> Plan:
    """Who is compared on what; nothing is loaded yet.

    Raises:
        BadRecipe: no `compare` block, or a pruner or task that is not there.
    """
    made = Plan(name, recipe, [], [])
    compare = made.compare
    made.tasks = [Task(recipe.data.registered_name, recipe)]
    made.tasks += [Task(Path(each).stem, load(each)) for each in compare.tasks]
    if compare.cross_validate:
        # What is planned and searched is that of the first seed, and the first seed has the first fold.
        for task in made.tasks:
            if getattr(task.recipe.data, "folds", None):
                first = task.recipe.data.model_copy(update={"fold": 0})
                task.recipe = task.recipe.model_copy(update={"data": first})
    names = [task.name for task in made.tasks]
    if len(set(names)) != len(names):
        raise BadRecipe([f"{name}: compare.tasks: two tasks are called {max(names, key=names.count)!r}: rename a file"])
    made.entrants = chosen(compare)
    for task in made.tasks:
        made.rows.append(Row(task, made.entrants[0], None, compare, kind="dense"))
        made.rows += [
            Row(task, entrant, budget, compare, kind=expected_kind(entrant))
            for budget in budgets(compare)
            for entrant in made.entrants[1:]
        ]
    return made


def prepare(row: Row) -> None:
    """Finds how much a row's pruner has to keep, as far as that shows before training, and rehearses its run.

    What cannot work is noted in `error`, one sentence, and stops no other row.
    """
    try:
        _prepare(row)
    except (Exception, SystemExit) as error:  # a host's own failure is its row's, whatever it is
        _log.info("%s failed while it was planned", row.name, exc_info=True)
        row.error = sentence(error)


def _prepare(row: Row) -> None:
    if row.budget is None:
        assemble.assemble(row.recipe(row.seeds[0]), row.task.parts)
        return
    key, wanted, seed = strength_key(row.entrant), row.budget.value, row.seeds[0]
    # Scores decide which weights go and not how many, so that an epoch more or less changes no plan.
    first = row.recipe(seed, value=wanted if key else None)
    row.kind = kind_of(first)
    if key is None:
        row.strength = Strength(None, None, "given", missed=False)
        assemble.assemble(first, row.task.parts)
        return
    if row.budget.kind == "density":
        row.strength = strengths.planned(
            key, wanted, lambda value: strengths.planned_share(row.recipe(seed, value=value), row.task.parts)
        )
    if row.strength is None:
        written = written_strength(row.entrant)
        bounded = key in ("density", "channels")
        row.search = Search(wanted, wanted if bounded or written is None else written, bounded=bounded)
    assemble.assemble(row.recipe(seed, value=row.strength.value if row.strength else row.search.first), row.task.parts)  # type: ignore[union-attr]
