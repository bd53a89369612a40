"""Keys of our own in NNI's config lists, validated by NNI's own means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nni.compression.base.config import default_config_schema
from schema import Optional, Schema, SchemaError

from snnsl_plugin.errors import BadOption, SnnslError
from snnsl_plugin.for_nni.choices import chosen

#: own key of an entry for a pruner -> kind of the registry
PRUNER_KEYS = {"criterion": "criteria", "growth": "growth", "distribution": "distributions"}
#: what a compressor may take of a module, by how it begins
_TARGETS = {"pruning": ("weight", "bias"), "distillation": ("_output_",)}
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
    if (
        not isinstance(config_list, list)
        or not all(isinstance(entry, dict) for entry in config_list)
        or not config_list
    ):
        raise BadOption(f"config_list={config_list!r}: give a list of dicts, e.g. [{{'op_types': ['Conv2d'], ...}}]")
    known = dict(default_config_schema(mode).schema)
    for key in [key for key in known if getattr(key, "schema", key) in keys]:
        del known[key]
    schema = Schema(known | {Optional(key): _Checked(check) for key, check in keys.items()})
    for entry in config_list:
        try:
            schema.validate(entry)
        except SchemaError as error:
            raise BadOption(f"config entry {entry!r}: {_sentence(error)}") from error
        wrong = [name for name in entry.get("target_names", []) if not name.startswith(_TARGETS[mode])]
        if wrong:
            raise BadOption(
                f"config entry {entry!r}: {wrong[0]!r} is no target here, choose among {', '.join(_TARGETS[mode])}"
            )


def with_float_lambda(config_list: Any) -> Any:
    """The same entries with `lambda` as a float: NNI's schema takes a whole number, and its setter asserts on one."""
    if not isinstance(config_list, list):
        return config_list
    return [
        entry | {"lambda": float(entry["lambda"])}
        if isinstance(entry, dict) and isinstance(entry.get("lambda"), int) and not isinstance(entry["lambda"], bool)
        else entry
        for entry in config_list
    ]


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
    lines = [line.strip() for line in dict.fromkeys(error.code.splitlines()) if line.strip()]
    said = " ".join(lines)
    return f"{said} (write {float(1)} for 1)" if "instance of 'float'" in said else said
