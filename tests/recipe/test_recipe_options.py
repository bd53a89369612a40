"""From signatures to blocks and back to calls."""

import functools
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from snnsl_plugin import registry
from snnsl_plugin.core import criteria
from snnsl_plugin.core.layer import Criterion
from snnsl_plugin.errors import BadOption
from snnsl_plugin.recipe import docstrings, options
from snnsl_plugin.recipe.schema import AnyData, AnyPruning

EVERY_NAME = [(kind, name) for kind in registry.KINDS for name in registry.names(kind)]


def read(kind: str, value: Any) -> Any:
    return TypeAdapter(options.choice(kind)).validate_python(value)


def smallest(kind: str, name: str) -> dict[str, Any]:
    """A block with the required options only."""
    block: dict[str, Any] = {"name": name}
    for option, parameter in registry.options(kind, name).items():
        if parameter.default is parameter.empty:
            nested = options._kind(parameter.annotation)
            block[option] = (
                {"name": "constant", "value": 0.5} if nested == "schedules" else _SAMPLES[parameter.annotation]
            )
    return block


_SAMPLES = {float: 0.5, int: 2, str: "some", bool: True, list[int]: [4, 4], list[str]: ["a"]}


def test_a_bare_name_is_a_block_without_options():
    assert read("criteria", "magnitude") == read("criteria", {"name": "magnitude"})


def test_a_criterion_is_bound_and_a_schedule_is_made():
    saliency = options.build("criteria", read("criteria", {"name": "spike_saliency", "power": 1.0}))
    assert isinstance(saliency, functools.partial)
    assert saliency.func is criteria.spike_saliency
    assert saliency.keywords == {"power": 1.0}
    half = options.build("schedules", read("schedules", {"name": "linear", "first": 1.0, "last": 0.0}))
    assert half(0.5) == 0.5


def test_nested_choices_are_built_and_a_default_function_becomes_its_name():
    block = {"type": "snnsl.drop_grow", "density": {"name": "constant", "value": 0.25}, "distribution": "global"}
    pruning = TypeAdapter(AnyPruning).validate_python(block)
    assert (pruning.criterion.name, pruning.distribution.name, pruning.swap) == ("magnitude", "global", None)
    update = options.build("rules", pruning)
    assert set(update.keywords) == set(registry.options("rules", "drop_grow"))
    assert update.keywords["density"](1.0) == 0.25


def test_a_choice_of_another_kind_is_refused():
    with pytest.raises(BadOption, match="'magnitude' is one of the criteria, not one of the growth"):
        options.build("growth", read("criteria", "magnitude"))


@pytest.mark.parametrize(("kind", "name"), EVERY_NAME, ids=lambda word: word)
def test_every_registered_name_can_be_read_dumped_and_read_again(kind, name):
    block = smallest(kind, name)
    if kind == "rules":
        block["type"] = f"snnsl.{block.pop('name')}"
    adapter = TypeAdapter({"rules": AnyPruning, "datasets": AnyData}.get(kind) or options.choice(kind))
    chosen = adapter.validate_python(block)
    assert adapter.validate_python(chosen.model_dump(mode="json")) == chosen
    assert adapter.validate_python(chosen.model_dump(exclude_defaults=True)) == chosen
    assert (chosen.registered_kind, chosen.registered_name) == (kind, name)
    if kind != "datasets":  # making one of these reads it
        assert options.build(kind, chosen) is not None


@pytest.mark.parametrize("kind", registry.KINDS)
def test_an_unknown_name_of_every_kind_lists_the_known_ones(kind):
    with pytest.raises(ValidationError) as caught:
        read(kind, "nosuchname")
    known = ", ".join(registry.names(kind)) or "none"
    assert f"unknown {registry.singular(kind)} 'nosuchname' (known: {known})" in str(caught.value)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"name": "spike_saliency", "power": "0.5"}, "valid number"),
        ({"name": "spike_saliency", "power": True}, "valid number"),
        ({"name": "spike_saliency", "power": float("nan")}, "finite"),
        ({"name": "spike_saliency", "powre": 1}, "Extra inputs"),
        ({"power": 1.0}, "must say which criterion"),
        ({"name": ["magnitude"]}, "unknown criterion"),
        ([1], "must be the name of a criterion"),
        (None, "must be the name of a criterion"),
    ],
)
def test_nothing_is_converted_in_silence(block, said):
    with pytest.raises(ValidationError, match=said):
        read("criteria", block)


def test_a_factory_that_refuses_its_options_says_so_on_reading():
    with pytest.raises(ValidationError, match="T"):
        read("encoders", {"name": "direct", "T": 0})


def test_a_name_from_another_distribution_joins(monkeypatch):
    point = EntryPoint("mine", "snnsl_plugin.core.criteria.spike_saliency:spike_saliency", "snnsl_plugin.criteria")
    monkeypatch.setattr(registry, "_joined", lambda group: [point] if group == point.group else [])
    joined = TypeAdapter(options.choice.__wrapped__("criteria")).validate_python({"name": "mine", "power": 2.0})
    assert options.build("criteria", joined).keywords == {"power": 2.0}


def without_type(*, a=1):
    """No type."""


def with_a_foreign_default(*, criterion: Criterion = print):
    """A default that no file provides."""


def with_the_tag(*, name: str = "x"):
    """An option called like the tag."""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (without_type, "has no type"),
        (with_a_foreign_default, "is not one of the criteria"),
        (with_the_tag, "rename it"),
    ],
)
def test_a_signature_that_is_no_schema_is_refused(monkeypatch, function, said):
    point = EntryPoint("odd", f"{__name__}:{function.__name__}", "snnsl_plugin.criteria")
    monkeypatch.setattr(registry, "_joined", lambda group: [point])
    monkeypatch.setattr(EntryPoint, "load", lambda self: function)
    with pytest.raises(BadOption, match=said):
        options.model("criteria", "odd")


def test_tuples_and_paths_are_written_as_lists_and_text(monkeypatch):
    def pair(*, sides: tuple[int, int] | None = None, root: Path = Path("here")) -> None:
        """Two sides."""

    monkeypatch.setattr(registry, "get", lambda kind, name: pair)
    model = options.model("criteria", "pair")
    read_back = model.model_validate({"name": "pair", "sides": [3, 4], "root": "there"})
    assert (read_back.sides, read_back.root) == ((3, 4), Path("there"))
    with pytest.raises(ValidationError):
        model.model_validate({"name": "pair", "sides": ["3", 4]})


def test_the_docstring_describes_block_and_options():
    schema = options.model("criteria", "spike_saliency").model_json_schema()
    assert schema["description"].startswith("|w| r^power")
    assert schema["properties"]["power"]["description"] == "exponent of the rate, >= 0; 0 is plain magnitude."


def test_the_args_section_ends_where_the_next_begins():
    def documented(*, one: int, two: int) -> None:
        """Summary over
        two lines.

        Args:
            one: first,
                continued.
            two: second.

        Returns:
            three: not an option.
        """

    assert docstrings.summary(documented) == "Summary over two lines."
    assert docstrings.options(documented) == {"one": "first, continued.", "two": "second."}
