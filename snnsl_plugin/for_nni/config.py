"""Keys of our own in NNI's config lists, validated by NNI's own means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni.compression.base.config import default_config_schema, select_modules_by_config
from schema import Optional, Schema, SchemaError
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched, SnnslError, did_you_mean
from snnsl_plugin.for_nni.choices import chosen

#: own key of an entry for a pruner -> kind of the registry
PRUNER_KEYS = {"criterion": "criteria", "growth": "growth", "distribution": "distributions"}
_NOT_OURS = {
    "sparse_threshold": "its density would be an outcome: choose rule='stds' with a threshold schedule",
    "max_sparse_ratio": "give layers that need another ratio an entry of their own",
    "min_sparse_ratio": "give layers that need another ratio an entry of their own",
    "dependency_group_id": "connections are pruned one by one here, so no layer depends on another",
    "internal_metric_block": "connections are pruned one by one here",
    "align": "connections are pruned one by one here",
}


def validate(config_list: list[dict[str, Any]], mode: str, keys: Mapping[str, Callable[[Any], Any]]) -> None:
    """Validates entries by NNI's schema, extended by our keys.

    Args:
        config_list: NNI's.
        mode: `pruning` or `distillation`.
        keys: own key -> a function that raises where its value is wrong.

    Raises:
        BadOption: with NNI's own words, or ours for our keys.
    """
    known = dict(default_config_schema(mode).schema)
    schema = Schema(known | {Optional(key): _Checked(check) for key, check in keys.items()})
    for entry in config_list:
        try:
            schema.validate(entry)
        except SchemaError as error:
            raise BadOption(f"config entry {entry!r}: {_sentence(error)}") from error


def pruner_keys() -> dict[str, Callable[[Any], Any]]:
    """Our keys of a pruner's entry, and how each is checked."""

    def checker(kind: str) -> Callable[[Any], Any]:
        return lambda value: chosen(kind, value)

    return {key: checker(kind) for key, kind in PRUNER_KEYS.items()}


def refuse_foreign(config_list: list[dict[str, Any]]) -> None:
    """Refuses settings of NNI's pruners that mean nothing to one of single connections.

    Raises:
        BadOption: with the key and the way out.
    """
    for entry in config_list:
        weight = entry.get("target_settings", {}).get("weight", {})
        for key, way_out in _NOT_OURS.items():
            if key in entry or key in weight:
                raise BadOption(f"config key {key!r} is not for SpikingDynamicPruner: {way_out}")
        granularity = weight.get("granularity", entry.get("granularity", "default"))
        if granularity != "default":
            raise BadOption(
                f"granularity={granularity!r}: SpikingDynamicPruner prunes single connections; leave it out, or prune "
                "channels with one of NNI's norm pruners"
            )
        method = weight.get("apply_method", entry.get("apply_method", "mul"))
        if method != "mul":
            raise BadOption(
                f"apply_method={method!r}: SpikingDynamicPruner applies masks by its own means; leave it out"
            )


def entries_by_module(model: nn.Module, config_list: list[dict[str, Any]]) -> dict[str, int]:
    """Which entry selects a module, by NNI's module name; the first that does, as in NNI.

    Raises:
        NothingMatched: an entry that selects no module, or names one that the model does not have.
    """
    found: dict[str, int] = {}
    modules = [name for name, _ in model.named_modules()]
    for index, entry in enumerate(config_list):
        for name in entry.get("op_names", []):
            if name not in modules:
                raise NothingMatched(f"config entry {entry!r} names {name!r}, no module{did_you_mean(name, modules)}")
        selected = select_modules_by_config(model, entry)[0]
        if not selected:
            raise NothingMatched(
                f"config entry {entry!r} selects no module: look names and types up in model.named_modules()"
            )
        for name in selected:
            found.setdefault(name, index)
    return found


class _Checked:
    """A value of ours inside NNI's schema."""

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self._check = check

    def validate(self, data: Any, **_: Any) -> Any:
        try:
            self._check(data)
        except SnnslError as error:
            raise SchemaError(str(error)) from error
        return data


def _sentence(error: SchemaError) -> str:
    return "; ".join(line for line in dict.fromkeys(error.code.splitlines()) if line)
