"""The block `compare`: who is compared, at which budgets, on which terms."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from snnsl_plugin.recipe.durations import Duration
from snnsl_plugin.recipe.options import Block, problem

Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Entrant(Block):
    """A pruner under a name of its own."""

    name: Name
    """What it is called in tables and folders: letters, digits, `.`, `_`, `-`."""
    like: str | None = None
    """The pruner that it changes; a pruner of its own where omitted."""
    pruning: dict[str, Any] = {}  # noqa: RUF012  (pydantic copies it)
    """Its pruning block, or what changes in that of `like`; how much is kept is set by the comparison."""
    distillation: dict[str, Any] | None = None
    """Its distillation block; that of `like` where omitted."""
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    """Seeds of its own instead of the comparison's; differences are unpaired then."""

    @model_validator(mode="after")
    def _says_something(self) -> Entrant:
        if self.like is None and "type" not in self.pruning:
            raise problem("needs a pruner to be like, or a pruning block with a type", "like")
        if self.seeds and len(set(self.seeds)) != len(self.seeds):
            raise problem("names a seed twice: keep one", "seeds")
        return self


class Compare(Block):
    """Pruners on equal terms: data, network, training and seeds are the recipe's, only pruning and guide differ."""

    pruners: Annotated[list[str | Entrant], Field(min_length=1)] = ["all"]  # noqa: RUF012
    """Names of pruners, patterns such as `nni.*`, `all`, or blocks with a name."""
    without: list[str] = []  # noqa: RUF012
    """Patterns of names that stay out."""
    densities: list[Share] = []  # noqa: RUF012
    """Budgets: the share of all weights kept; of weights on a live path where whole channels go."""
    synops: list[Share] = []  # noqa: RUF012
    """Budgets: SynOps per sample as a share of the dense network's, on the validation part."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0, 1, 2]  # noqa: RUF012
    """Of weights, batches and pruning; the same for every pruner."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock budget of a training: as many epochs as fit, measured first; `train.epochs` where omitted."""
    every: Duration | None = None
    """Between two updates of those whose masks change on the way; each pruner's own where omitted."""
    until: Duration | None = None
    """Their last update; each pruner's own where omitted."""
    references: list[str] = ["snnsl.default", "torch_pruning.spiking_dynamic"]  # noqa: RUF012
    """Who the others of a table are compared with: the first of these that is in it."""
    judge: Literal["test", "validation"] = "test"
    """The part whose accuracy is compared. Choose by `validation` and leave the test set for the last table."""
    tasks: list[str] = []  # noqa: RUF012
    """Further recipes whose data, network and training are compared on."""
    cross_validate: bool = False
    """Whether the n-th seed takes the n-th fold, where the data has folds."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Processes that train at the same time, each on one thread; as many as cores where omitted."""

    @model_validator(mode="after")
    def _possible(self) -> Compare:
        for key in ("densities", "synops", "seeds", "references", "tasks"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                raise problem("names a value twice: keep one", key)
        names = [each.name if isinstance(each, Entrant) else each for each in self.pruners]
        if len(set(names)) != len(names):
            raise problem("has two entries of one name: rename one", "pruners")
        if not self.densities and not self.synops and names != ["dense"]:
            raise problem(
                "needs a budget: a density in densities, or a share of the dense SynOps in synops", "densities"
            )
        return self
