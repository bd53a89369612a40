"""The live paths of a masked model, however it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import LAYERS, weight_name
from snnsl_plugin.compaction.equality import random_like
from snnsl_plugin.compaction.graph import TRACE_ERRORS
from snnsl_plugin.compaction.tracing import Forward, call
from snnsl_plugin.errors import CannotCut, Disconnected, SnnslError
from snnsl_plugin.metrics.layers import connection_masks
from snnsl_plugin.metrics.paths import Paths, live_paths
from snnsl_plugin.training.affine import NORMS, norms_behind


def paths_of(
    model: nn.Module,
    example: Any,
    masks: Mapping[str, Tensor],
    *,
    forward: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
) -> Paths:
    """The live paths of a model however it is called, where a masked scale of a norm cuts what it reads.

    Args:
        model: left as it was.
        example: what it is called with.
        masks: bool, by dotted parameter name, of any parameters.
        forward: how it is called, where `model(x)` is not how.
        neuron_types: classes of one's own that are neurons.

    Raises:
        Disconnected: no path is left.
        CannotCut: paths cannot be traced, or a masked scale belongs to no layer.
    """
    probe, x = (model, example) if forward is None and isinstance(example, Tensor) else _called(model, example, forward)
    prefix = "" if probe is model else "model."
    kept = {name: mask.clone() for name, mask in connection_masks(model, _of_layers(model, masks)).items()}
    try:
        for name, rows in _behind_masked_scales(model, probe, prefix, x, masks).items():
            kept[weight_name(name)][rows] = False
        paths = live_paths(probe, x, {prefix + name: mask for name, mask in kept.items()}, identities=neuron_types)
    except SnnslError:
        raise
    except TRACE_ERRORS as error:
        raise CannotCut(
            f"live paths cannot be traced through this {type(model).__name__} ({type(error).__name__}: {error}): check "
            "the example, or pass a forward that calls the model"
        ) from error
    if not any(bool(mask.any()) for mask in paths.live.values()):
        raise Disconnected(
            "under these masks no path leads from the input to the output, so nothing would be left: raise the "
            "density, or check that masks and model belong together"
        )
    return Paths(
        *({name.removeprefix(prefix): each for name, each in vars(paths)[word].items()} for word in vars(paths))
    )


class _Called(nn.Module):
    """A model that takes one tensor: the first of its example, the others stay."""

    def __init__(self, model: nn.Module, example: Any, forward: Forward | None) -> None:
        super().__init__()
        self.model = model
        self._example, self._call = example, forward or call

    def forward(self, x: Tensor) -> Any:
        return self._call(self.model, _filled(self._example, [x]))


def _called(model: nn.Module, example: Any, forward: Forward | None) -> tuple[nn.Module, Tensor]:
    found: list[Tensor] = []
    _filled(example, [], found)
    if not found:
        raise CannotCut("the example holds no tensor of floating point numbers that paths could start from")
    return _Called(model, example, forward), found[0]


def _filled(example: Any, left: list[Tensor], found: list[Tensor] | None = None) -> Any:
    if isinstance(example, Tensor):
        if example.is_floating_point() and found is not None:
            found.append(example)
        return left.pop() if left and example.is_floating_point() else random_like(example)
    if isinstance(example, dict):
        return {key: _filled(value, left, found) for key, value in example.items()}
    if isinstance(example, tuple | list):
        return type(example)(_filled(value, left, found) for value in example)
    return example


def _of_layers(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = {weight_name(name) for name, module in model.named_modules() if isinstance(module, LAYERS)}
    return {name: mask for name, mask in masks.items() if name in weights}


def _behind_masked_scales(
    model: nn.Module, probe: nn.Module, prefix: str, x: Tensor, masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Rows whose every norm has a masked scale, by layer name."""
    scales: dict[nn.Module, Tensor] = {
        module: ~masks[weight_name(name)]
        for name, module in model.named_modules()
        if isinstance(module, NORMS) and weight_name(name) in masks and not bool(masks[weight_name(name)].all())
    }
    if not scales:
        return {}
    cut: dict[str, Tensor] = {}
    placed: set[nn.Module] = set()
    for layer, behind in norms_behind(probe, x).items():
        rows = [scales[norm] for norm in behind if norm in scales]
        placed.update(norm for norm in behind if norm in scales)
        if len(rows) == len(behind):  # where a layer has several, one may be on another way
            cut[layer.removeprefix(prefix)] = torch.stack(rows).all(0)
    if lost := [name for name, module in model.named_modules() if module in scales and module not in placed]:
        raise CannotCut(
            f"the scale of {lost[0]!r} is masked, and this norm does not stand right behind a convolution or linear "
            "layer: mask the rows of the layers that feed it"
        )
    return cut
