"""A cut model in one file: its weights, and the history that makes a fresh dense model fit for them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_, unwrapped
from snnsl_plugin.compaction.history import FORMAT, History, sizes
from snnsl_plugin.compaction.selection import registered, tensors
from snnsl_plugin.errors import BadCheckpoint, BadOption
from snnsl_plugin.training.checkpoint import write_tensors, write_text

_KEY = "snnsl_compact"


def save_compact(path: Path | str, model: nn.Module, history: History) -> None:
    """Writes a cut model, all or nothing: its tensors as safetensors, with the history in the file's metadata.

    The same history stands beside it as `.json`, for people to read. What neurons remember is not saved.

    Args:
        path: ends in `.safetensors`; its folder is made.
        model: after any number of cuts, in any mode.
        history: made of it before the first cut.

    Raises:
        BadOption: another ending, or a history of another model.
        OSError: the disk is full or gone.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadOption(f"{path}: a compact model is saved as a .safetensors file")
    plain = history.plain(model)
    # Tied tensors are refused by safetensors, and others stay laid out as they are only where contiguous.
    stored = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in tensors(model).items()
        if name in plain["dense"]
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, stored, {_KEY: json.dumps(plain, sort_keys=True)})
    write_text(path.with_suffix(".json"), json.dumps(plain, sort_keys=True))


def load_compact(path: Path | str, model: nn.Module) -> nn.Module:
    """A cut model, made from a file and a fresh dense model of the same architecture.

    Nothing is traced, and neither data nor importances nor Torch-Pruning are needed: each tensor takes the place of
    the dense one, and modules are told their new sizes. It computes what the saved model computes, bit for bit.

    Args:
        path: what `save_compact` wrote.
        model: dense, on the device that the result is to be on; left alone.

    Returns:
        A copy of the model, cut, in the mode of the model, at rest.

    Raises:
        BadCheckpoint: no such file, a damaged one, or one of another architecture; the sentence names the first
            tensor that does not fit.
    """
    path = Path(path)
    plain, stored = _read(path)
    _check_fits(path, plain, stored, model)
    reset_(model)
    cut = copy.deepcopy(model)
    for name, changed in plain["sizes"].items():
        module = unwrapped(cut).get_submodule(name)
        for word, (_, now) in changed.items():
            before = getattr(module, word)
            setattr(module, word, now if isinstance(now, int) else type(before)(now))
    placed: dict[int, Tensor] = {}  # tied tensors stay tied
    for name, dense in tensors(cut).items():
        if name not in stored:
            continue
        owner, _, word = name.rpartition(".")
        module = unwrapped(cut).get_submodule(owner)
        if id(dense) not in placed:
            value = stored[name].to(dense.device)
            parameter = isinstance(dense, nn.Parameter)
            placed[id(dense)] = nn.Parameter(value, requires_grad=dense.requires_grad) if parameter else value
        # A tensor that stands in place of another of the same name is registered as that was.
        setattr(module, word, placed[id(dense)])
    reset_(cut)
    return cut


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: cannot be read as a compact model ({error}): save it anew") from error
    if _KEY not in metadata:
        raise BadCheckpoint(f"{path}: holds tensors but no history of cuts: write it with save_compact")
    try:
        plain = json.loads(metadata[_KEY])
    except ValueError as error:
        raise BadCheckpoint(f"{path}: its history is not JSON ({error}): save it anew") from error
    if not isinstance(plain, dict) or plain.get("format") != FORMAT:
        told = plain.get("format") if isinstance(plain, dict) else plain
        raise BadCheckpoint(f"{path}: its history is of format {told!r}, this version reads {FORMAT}: save it anew")
    for word, kind in (("model", str), ("dense", dict), ("cut", dict), ("sizes", dict)):
        if not isinstance(plain.get(word), kind):
            raise BadCheckpoint(f"{path}: its history has no {word!r} that can be read: save it anew")
    return plain, stored


def _check_fits(path: Path, plain: dict[str, Any], stored: dict[str, Tensor], model: nn.Module) -> None:
    where, whose = f"{path}: does not fit this {type(unwrapped(model)).__name__}", plain["model"]
    dense = {name: list(tensor.shape) for name, tensor in tensors(model).items()}
    for name in sorted((registered(model).keys() - plain["dense"].keys()) | (plain["dense"].keys() - dense.keys())):
        side = "the model" if name in dense else "the file"
        raise BadCheckpoint(f"{where}: only {side} has {name!r}; give it the dense {whose} that was cut")
    for name in plain["dense"]:
        shape = dense[name]
        if shape != plain["dense"][name]:
            raise BadCheckpoint(
                f"{where}: {name!r} has shape {tuple(shape)}, in the dense {whose} that was cut it had "
                f"{tuple(plain['dense'][name])}; make the model with the same options"
            )
        now = plain["cut"].get(name, shape)
        if name not in stored or list(stored[name].shape) != now:
            told = f"shape {tuple(stored[name].shape)}" if name in stored else "no such tensor"
            raise BadCheckpoint(f"{path}: its history says {name!r} is {tuple(now)}, it holds {told}: save it anew")
    modules = dict(unwrapped(model).named_modules())
    for name, changed in plain["sizes"].items():
        for word, (before, _) in changed.items():
            own = sizes(modules[name]).get(word) if name in modules else None
            if own != before:
                raise BadCheckpoint(
                    f"{where}: {name!r} has {word} {own}, in the dense {whose} that was cut it had {before}; make the "
                    "model with the same options"
                )
