"""A guide of torchvision's: the architecture by its name, the weights from a file that runs no code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.errors import BadCheckpoint, BadOption, MissingExtra, UnknownName
from snnsl_plugin.training.guides.ann import Pictures

#: What a file that is damaged, cut short or of another kind makes torch raise.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    ImportError,
)


def load_guide(architecture: str, checkpoint: Path, classes: int, example: Tensor) -> Pictures:
    """A classification network of torchvision with the weights of a file.

    Args:
        architecture: as `torchvision.models.get_model` knows it, e.g. `resnet18`.
        checkpoint: a state dict, by `torch.save` or as safetensors; one below `state_dict` or `model` is found, and
            names that begin with `module.` are those behind it.
        classes: how many the network tells apart.
        example: an input, (T, N, C, H, W), to see whether it fits.

    Raises:
        UnknownName: torchvision has no such network.
        BadCheckpoint: no such file, or other weights.
        BadOption: a network that does not take these pictures.
        MissingExtra: torchvision cannot be imported.
    """
    try:
        from torchvision import models
    except ImportError as error:
        raise MissingExtra("a guide of torchvision's needs torchvision: pip install torchvision") from error
    known = models.list_models(module=models)
    if architecture not in known:
        raise UnknownName("architecture", architecture, known)
    network: nn.Module = models.get_model(architecture, weights=None, num_classes=classes)
    try:
        network.load_state_dict(_state(checkpoint))
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise BadCheckpoint(
            f"{checkpoint} holds no {architecture} of {classes} classes ({lines[min(1, len(lines) - 1)]}): name the "
            "architecture that it was saved from, trained on these classes"
        ) from error
    guide = Pictures(network.eval())
    try:
        with torch.no_grad():
            guide(example.cpu())
    except (RuntimeError, AssertionError, ValueError) as error:
        raise BadOption(
            f"architecture {architecture!r} does not take pictures of {tuple(example.shape[2:])} "
            f"({_first_line(error)}): choose another guide"
        ) from error
    return guide


def _state(checkpoint: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if checkpoint.suffix == ".safetensors":
            found: Any = load_file(checkpoint)
        else:
            found = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"distillation.guide.checkpoint: there is no file {checkpoint}") from error
    except (*_UNREADABLE, SafetensorError) as error:
        raise BadCheckpoint(
            f"{checkpoint} cannot be read as plain weights ({_first_line(error)}): save the state dict alone, "
            "torch.save(network.state_dict(), file)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadCheckpoint(f"{checkpoint} holds no state dict: save one with torch.save(network.state_dict(), file)")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
