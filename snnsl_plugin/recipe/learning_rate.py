"""How a recipe says the course of the learning rate: `cosine`, `constant`, or a block `restart`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from snnsl_plugin.errors import UnknownName
from snnsl_plugin.recipe.durations import Duration
from snnsl_plugin.recipe.options import Block, problem
from snnsl_plugin.training import learning_rate

Name = Literal["constant", "cosine"]
Course = learning_rate.Course


class Restart(Block):
    """A learning rate that starts again, e.g. where the ramp of the density ends."""

    name: Literal["restart"]
    at: Duration
    """When it starts again, e.g. `70%`; with a rule that rewinds, as a share of each round."""
    before: Course = "cosine"
    """The course up to there: to 0 along half a cosine or a straight line, or none."""
    after: Course = "cosine"
    """The course from there to the end."""
    to: Annotated[float, Field(gt=0)] = 1.0
    """Where it starts again, as a share of the first rate."""


def _one_of_them(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value
    name = value.get("name") if isinstance(value, Mapping) else value
    if isinstance(value, str) and value == "restart":
        raise problem("must say when it restarts: {name: restart, at: 70%}")
    if isinstance(value, Mapping) and name in get_args(Name):
        raise problem(f"takes {name} as a word, without a block", "name")
    if not isinstance(name, str) or name not in (*get_args(Name), "restart"):
        known = str(UnknownName("learning rate schedule", str(name), (*get_args(Name), "restart")))
        raise problem(known, "name" if isinstance(value, Mapping) else "")
    return value


if TYPE_CHECKING:
    LearningRate: TypeAlias = Name | Restart
else:
    LearningRate = Annotated[
        Annotated[Name, Tag("word")] | Annotated[Restart, Tag("restart")],
        Discriminator(lambda value: "word" if isinstance(value, str) else "restart"),
        BeforeValidator(_one_of_them, json_schema_input_type=Name | Restart),
    ]


def course(chosen: LearningRate, *, total_steps: int, steps_per_epoch: int) -> str | learning_rate.Restart:
    """What `fit` takes for a choice.

    Raises:
        BadOption: it restarts at no step of this training.
    """
    if isinstance(chosen, str):
        return chosen
    made = learning_rate.Restart(at=chosen.at, before=chosen.before, after=chosen.after, to=chosen.to)
    made.schedule(total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    return made
