import inspect
import sys
from functools import partial

import pytest
import torch

from snnsl_plugin import registry
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.errors import UnknownName
from snnsl_plugin.testing import (
    check_criterion,
    check_distribution,
    check_divergence,
    check_guide,
    check_rule,
    check_schedule,
)


@pytest.mark.parametrize("kind", ["criteria", "growth"])
def test_every_registered_criterion_and_growth_keeps_its_contract(kind: str) -> None:
    assert registry.names(kind)
    for name in registry.names(kind):
        check_criterion(registry.get(kind, name))


def test_every_registered_distribution_keeps_its_contract() -> None:
    for name in registry.names("distributions"):
        check_distribution(registry.get("distributions", name))


def test_every_registered_divergence_keeps_its_contract() -> None:
    for name in registry.names("divergences"):
        check_divergence(registry.get("divergences", name))


def test_every_registered_schedule_keeps_its_contract() -> None:
    for name in registry.names("schedules"):
        function = registry.get("schedules", name)
        if {"first", "last"} <= set(registry.options("schedules", name)):
            check_schedule(lambda first, last, f=function: f(first=first, last=last))
        else:
            assert function(value=0.4)(0.0) == function(value=0.4)(1.0) == 0.4


def test_every_registered_rule_keeps_its_contract() -> None:
    for name in registry.names("rules"):
        needed = [o.name for o in registry.options("rules", name).values() if o.default is inspect.Parameter.empty]
        # What a rule cannot do without are schedules so far: densities, thresholds.
        rule = registry.get("rules", name)
        initial = getattr(sys.modules[rule.__module__], "initial", None)
        check_rule(partial(rule, **{option: constant(value=0.6) for option in needed}), initial)


def test_every_registered_guide_keeps_its_contract() -> None:
    for name in registry.names("guides"):
        function = registry.get("guides", name)
        given = {"network": torch.nn.Identity(), "total_steps": 10, "steps_per_epoch": 5}
        given |= {"learner": torch.nn.Identity(), "example": torch.zeros(3, 1, 5)}
        positional = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.KEYWORD_ONLY]
        guide = function(**{each: given[each] for each in positional})
        if hasattr(guide, "observe"):
            guide.observe(torch.nn.Identity(), 10)
        check_guide(guide)


@pytest.mark.parametrize("kind", sorted(registry.KINDS))
def test_every_name_is_a_function_with_typed_documented_options(kind: str) -> None:
    for name in registry.names(kind):
        function = registry.get(kind, name)
        assert inspect.getdoc(function), name
        for option in registry.options(kind, name).values():
            assert option.annotation is not inspect.Parameter.empty, f"{name}.{option.name}"
            assert f"{option.name}:" in (inspect.getdoc(function) or "") or kind == "schedules", f"{name}.{option.name}"


def test_a_keyword_loses_its_underscore_in_recipes_only() -> None:
    assert "global" in registry.names("distributions")
    assert registry.get("distributions", "global").__name__ == "global_"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"unknown criterion 'magnitud'; did you mean 'magnitude'\?"):
        registry.get("criteria", "magnitud")
    with pytest.raises(UnknownName, match="unknown kind 'critera'"):
        registry.names("critera")


def test_an_entry_point_joins_and_a_second_provider_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    points = [EntryPoint("halves", "builtins:abs", "snnsl_plugin.criteria")]
    monkeypatch.setattr(registry, "_joined", lambda group: points if group == "snnsl_plugin.criteria" else [])
    assert registry.get("criteria", "halves") is abs
    points.append(EntryPoint("fisher", "builtins:abs", "snnsl_plugin.criteria"))
    with pytest.raises(ValueError, match="two providers of criterion 'fisher'"):
        registry.names("criteria")


def test_packages_offer_the_functions_of_their_files() -> None:
    from snnsl_plugin.core import criteria, schedules

    assert schedules.cubic(first=1.0, last=0.0)(0.5) == 0.125
    assert partial(criteria.spike_saliency, power=1.0).keywords == {"power": 1.0}
