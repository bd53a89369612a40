"""The batch norms that NNI's SlimPruner prunes, found by the layers in front of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from snnsl_plugin.anatomy import weight_layers
from snnsl_plugin.errors import NothingMatched
from snnsl_plugin.training.affine import norms_behind


def norms_to_prune(
    model: nn.Module, layers: Sequence[str], example: Tensor, *, all_needed: bool
) -> dict[str, list[str]]:
    """The names of the batch norms behind each layer; layers without one are left out.

    Args:
        model: not wrapped.
        layers: dotted names of convolutions and linear layers.
        example: an input of the model.
        all_needed: whether a layer without a batch norm is an error.

    Raises:
        NothingMatched: such a layer; or none of them has one.
    """
    names = {id(module): name for name, module in model.named_modules()}
    modules, behind = weight_layers(model), norms_behind(model, example)
    found: dict[str, list[str]] = {}
    for layer in layers:
        channels = modules[layer].weight.shape[0]
        norms = [
            names[id(norm)]
            for norm in behind.get(layer, [])
            if isinstance(norm, _NormBase) and norm.affine and norm.num_features == channels
        ]
        if norms:
            found[layer] = norms
        elif all_needed:
            raise NothingMatched(
                f"layer {layer!r} has no batch norm behind it, and SlimPruner prunes the scales of batch norms: leave "
                "it out of layers, or choose a pruner of weights"
            )
    if not found:
        raise NothingMatched(
            "no layer to be pruned has a batch norm behind it, and SlimPruner prunes the scales of batch norms: choose "
            "a pruner of weights, e.g. l1_norm"
        )
    return found
