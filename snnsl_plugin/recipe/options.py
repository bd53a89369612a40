"""From the signature of a registered function to the block that a recipe writes, and back to a call.

Keyword-only parameters become keys. A parameter annotated with a kind of the registry (`Annotated[..., "criteria"]`)
becomes a choice among all names of that kind, nested to any depth.
"""

from __future__ import annotations

import inspect
import keyword
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from snnsl_plugin import registry
from snnsl_plugin.errors import BadOption, SnnslError, UnknownName
from snnsl_plugin.recipe import docstrings

#: Kinds whose functions only check and close over their options, so that a recipe is checked by calling them.
_CALLED_TO_CHECK = ("schedules", "encoders")


class Block(BaseModel):
    """A part of a recipe: unknown keys, infinities and silent conversions (`true` for 1, "1" for 1) are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Choice(Block):
    """A block that names a registered function and gives its options."""

    registered_kind: ClassVar[str]
    registered_name: ClassVar[str]
    registered_function: ClassVar[Callable[..., Any]]
    registered_options: ClassVar[tuple[str, ...]]


AnyChoice = TypeVar("AnyChoice", bound=Choice)


def problem(message: str, key: str = "") -> PydanticCustomError:
    """An error to raise in a validator; `key` is the key below the validated block that it is about."""
    return PydanticCustomError("recipe", "{message}", {"message": message, "key": key})


def model(
    kind: str,
    name: str,
    base: type[AnyChoice] = Choice,  # type: ignore[assignment]
    *,
    tag: str = "name",
    prefix: str = "",
    checks: Mapping[str, Callable[[Any], Any]] | None = None,
) -> type[AnyChoice]:
    """The pydantic model of one registered name.

    Args:
        kind: a kind of the registry.
        name: a name of that kind.
        base: the model to add the options to.
        tag: the key that holds the name.
        prefix: what a recipe writes before the name.
        checks: a further validator for an option, by the option's name; ignored where there is no such option.

    Raises:
        BadOption: an option without a type, of the tag's name, or with a default that is not registered.
    """
    function = registry.get(kind, name)
    described = docstrings.options(function)
    fields: dict[str, Any] = {tag: (Literal[prefix + name], ...)}
    own = registry.options(kind, name)
    for option, parameter in own.items():
        here = f"option {option!r} of {registry.singular(kind)} {name!r}"
        if option in (tag, *base.model_fields):
            raise BadOption(f"{here} has the name of a key that every {registry.singular(kind)} has: rename it")
        annotation, default = _field(parameter, here)
        if checks and option in checks:
            annotation = Annotated[annotation, AfterValidator(_unless_none(checks[option]))]
        fields[option] = (annotation, FieldInfo(default=default, description=described.get(option)))
    made = create_model(
        f"{registry.singular(kind)}_{name}", __base__=base, __doc__=docstrings.summary(function), **fields
    )
    made.registered_kind, made.registered_name = kind, name
    made.registered_function, made.registered_options = staticmethod(function), tuple(own)
    return made


def option_types(kind: str, name: str) -> dict[str, Any]:
    """The types that a recipe gives the options of one registered name.

    Raises:
        BadOption: an option without a type.
    """
    return {
        option: _field(parameter, f"option {option!r} of {registry.singular(kind)} {name!r}")[0]
        for option, parameter in registry.options(kind, name).items()
    }


def bare(kind: str, name: str) -> Choice:
    """The choice of a name with none but default options, validated."""
    return _plain(kind, name).model_validate({"name": name})


@cache
def choice(kind: str) -> Any:
    """The type of a choice among all names of a kind: a block with a `name`, or the bare name."""
    annotation = union(registry.singular(kind), [_plain(kind, name) for name in registry.names(kind)])
    return Annotated[annotation, AfterValidator(_callable)] if kind in _CALLED_TO_CHECK else annotation


def union(word: str, models: Sequence[type[BaseModel]], tag: str = "name") -> Any:
    """The type of a choice among models by the literal of their tag.

    Args:
        word: what an error calls the choice, e.g. `criterion`.
        models: each with a field `tag` of one literal.
        tag: the key that decides.
    """
    known = {get_args(each.model_fields[tag].annotation)[0]: each for each in models}

    def named(value: Any) -> Any:
        if isinstance(value, BaseModel):
            return value
        block = {tag: value} if isinstance(value, str) else value
        if not isinstance(block, Mapping):
            raise problem(f"must be the name of a {word}, or a block with a {tag} and its options")
        if tag not in block:
            raise problem(f"must say which {word}: give it a {tag} (known: {', '.join(sorted(known)) or 'none'})")
        if not isinstance(block[tag], str) or block[tag] not in known:
            raise problem(str(UnknownName(word, str(block[tag]), known)), key=tag)
        return block

    members = Union[tuple(models)] if models else Any  # noqa: UP007  (built from a list)
    if len(models) > 1:
        members = Annotated[members, Field(discriminator=tag)]
    written = Union[members, Literal[tuple(known)]] if known else Any  # noqa: UP007
    return Annotated[members, BeforeValidator(named, json_schema_input_type=written)]


def build(kind: str, chosen: Choice) -> Any:
    """What a choice stands for, nested choices first.

    A function without positional parameters makes the thing (schedules, encoders, data sets): it is called. One with
    positional parameters is the thing (criteria, growth, distributions, rules, models): its options are bound.

    Args:
        kind: the kind of the choice; a choice knows its own, and the two must agree.
        chosen: a validated choice.

    Raises:
        BadOption: the choice is of another kind; or whatever the function says of its options.
    """
    if chosen.registered_kind != kind:
        raise BadOption(f"{chosen.registered_name!r} is one of the {chosen.registered_kind}, not one of the {kind}")
    function = type(chosen).registered_function
    values = {option: getattr(chosen, option) for option in chosen.registered_options}
    built = {
        option: build(value.registered_kind, value) if isinstance(value, Choice) else value
        for option, value in values.items()
    }
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters):
        return partial(function, **built)
    return function(**built)


@cache
def _plain(kind: str, name: str) -> type[Choice]:
    return model(kind, name)


def _field(parameter: inspect.Parameter, here: str) -> tuple[Any, Any]:
    """The annotation and the default (or ...) of the field of an option."""
    if parameter.annotation is parameter.empty:
        raise BadOption(f"{here} has no type: annotate it, the signature is the schema")
    default = ... if parameter.default is parameter.empty else parameter.default
    kind = _kind(parameter.annotation)
    if kind is None:
        return _relaxed(parameter.annotation), default
    annotation = choice(kind)
    if type(None) in get_args(parameter.annotation):
        annotation = annotation | None
    return annotation, default if default in (..., None) else _default(kind, default, here)


def _kind(annotation: Any) -> str | None:
    """The kind that `Annotated[..., kind]` or `Annotated[..., kind] | None` names."""
    if get_origin(annotation) is Annotated:
        return next((note for note in annotation.__metadata__ if note in registry.KINDS), None)
    if get_origin(annotation) in (Union, types.UnionType):
        return next(filter(None, map(_kind, get_args(annotation))), None)
    return None


def _default(kind: str, function: Callable[..., Any], here: str) -> Choice:
    stem = getattr(function, "__name__", "").removesuffix("_")
    word = stem if keyword.iskeyword(stem) else getattr(function, "__name__", "")
    if word not in registry.names(kind) or registry.get(kind, word) is not function:
        raise BadOption(f"the default of {here} is not one of the {kind}: give a registered function, or None")
    return bare(kind, word)


def _relaxed(annotation: Any) -> Any:
    """Lets a YAML list stand for a tuple and a string for a path, which strict validation refuses."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is tuple or annotation is Path:
        return Annotated[annotation, Strict(False)]
    if origin in (Union, types.UnionType):
        return Union[tuple(_relaxed(each) for each in inner)]  # noqa: UP007
    return annotation


def _callable(chosen: Choice) -> Choice:
    try:
        build(chosen.registered_kind, chosen)
    except SnnslError as error:
        raise problem(str(error)) from error
    return chosen


def _unless_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: value if value is None else check(value)
