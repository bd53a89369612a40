"""Which modules the entries of a config list select: NNI's own choice, and a sentence where it would go wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nni.compression.base.config import select_modules_by_config
from nni.compression.base.setting import PruningSetting
from torch import nn

from snnsl_plugin.errors import BadOption, NothingMatched, did_you_mean


def entries_by_module(model: nn.Module, config_list: list[dict[str, Any]], *, pruning: bool) -> dict[str, int]:
    """Which entry selects a module, by NNI's module name.

    Every word of an entry must match something: where one of two names is misspelt NNI selects the other in silence.

    Args:
        model: not wrapped, or wrapped by NNI.
        config_list: NNI's.
        pruning: whether NNI must know settings of a module's type.

    Raises:
        NothingMatched: an entry that selects no module, or a word that matches none.
        BadOption: a module that two entries select, that has two names, or whose type NNI does not know.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    found: dict[str, int] = {}
    for index, entry in enumerate(config_list):
        _check_words(entry, modules)
        selected = select_modules_by_config(model, entry)[0]
        if not selected and not _excludes_itself(entry):
            raise NothingMatched(
                f"config entry {entry!r} selects no module: look names and types up in model.named_modules()"
            )
        for name in selected:
            if name in found:
                raise BadOption(
                    f"two entries of the config list select {name!r}, and NNI would ignore the later one: add "
                    f"'exclude_op_names': [{name!r}] to the other"
                )
            found[name] = index
            kind = type(modules[name]).__name__
            if pruning and kind not in PruningSetting.registry:
                raise BadOption(
                    f"NNI knows no settings for {name!r}, a {kind}: call snnsl_plugin.for_nni.register_settings({kind})"
                    " first, or leave it out"
                )
    _check_names({name: modules[name] for name in found}, weights=pruning)
    return found


def check_unwrapped(model: Any, word: str, way_out: str) -> None:
    """Refuses what is no module, and a module that NNI has wrapped already.

    Raises:
        BadOption: with the word for the model and the way out.
    """
    if not isinstance(model, nn.Module):
        raise BadOption(f"{word}={model!r} is no torch.nn.Module")
    wrapped = [name for name, module in model.named_modules() if hasattr(module, "_nni_wrapper")]
    if wrapped:
        raise BadOption(f"{word} is wrapped by NNI already (module {wrapped[0]!r}): {way_out}")


def _check_words(entry: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> None:
    types = {type(module).__name__ for module in modules.values()}
    for key, known in (("op_names", modules), ("op_types", types)):
        for word in (*entry.get(key, []), *entry.get(f"exclude_{key}", [])):
            if word not in known:
                raise NothingMatched(f"config entry {entry!r}: {word!r} matches no module{did_you_mean(word, known)}")
    for pattern in (*entry.get("op_names_re", []), *entry.get("exclude_op_names_re", [])):
        try:
            matches = any(re.match(pattern, name) for name in modules)
        except re.error as error:
            raise BadOption(f"config entry {entry!r}: {pattern!r} is no regular expression ({error})") from error
        if not matches:
            raise NothingMatched(f"config entry {entry!r}: the expression {pattern!r} matches no module")


def _excludes_itself(entry: Mapping[str, Any]) -> bool:
    """What NNI makes of an `exclude` entry in a config list of the old format."""
    words = [set(entry.get(key, ())) - set(entry.get(f"exclude_{key}", ())) for key in ("op_names", "op_types")]
    return "sparse_ratio" not in entry and "target_settings" not in entry and not any(words)


def _check_names(selected: Mapping[str, nn.Module], *, weights: bool) -> None:
    first: dict[int, str] = {}
    owners: dict[int, str] = {}
    for name, module in selected.items():
        if (other := first.setdefault(id(module), name)) != name:
            raise BadOption(f"{other!r} and {name!r} are one module: select it by one of its names, in op_names")
        weight = module._parameters.get("weight") if weights else None
        if weight is not None and (other := owners.setdefault(id(weight), name)) != name:
            raise BadOption(f"{other!r} and {name!r} share one weight, and NNI would give each its own: leave both out")
