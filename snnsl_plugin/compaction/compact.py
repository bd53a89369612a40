"""From connection masks to a smaller network: channels without a live path are cut, and the masks along with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snnsl_plugin.anatomy import reset_, set_aside, unwrapped
from snnsl_plugin.compaction.cutting import Cutting, Removed
from snnsl_plugin.compaction.equality import difference
from snnsl_plugin.compaction.graph import dependency_graph
from snnsl_plugin.compaction.lifeless import Going, check_seen, going
from snnsl_plugin.compaction.masked_paths import paths_of
from snnsl_plugin.compaction.plain import shared_parameters
from snnsl_plugin.compaction.self_firing import self_firing
from snnsl_plugin.compaction.silence import copied, silence_
from snnsl_plugin.compaction.tracing import Forward
from snnsl_plugin.errors import BadOption, CannotCut, NothingMatched, did_you_mean


class Compacted(NamedTuple):
    """A network without the channels that did nothing.

    Attributes:
        model: the smaller network; a masked weight that is left is exactly zero.
        masks: the masks given, cut alongside: bool, by dotted parameter name.
        removed: what went, false where every channel was needed; `removed.silenced` tells which of it fired by itself.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    removed: Removed


def compact(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    example: Any,
    *,
    verify: bool = True,
    forward: Forward | None = None,
    neuron_types: Sequence[type[nn.Module]] = (),
    ignored_layers: Sequence[str] = (),
) -> Compacted:
    """Cuts channels and neurons that no input reaches or that reach no output, out of a copy of a masked network.

    Masked connections become zero, paths are traced through what is left (`metrics.paths.live_paths`), and a channel
    goes where every layer that writes it is off all paths: in a residual sum, all of its branches; before a linear
    layer that reads sites, all sites. Paths are transitive, so one pass finds everything. The first channel of a branch
    that is dead altogether stays, because no layer runs without channels; inputs and outputs of the model stay whole.

    A channel that no input reaches may still fire, by its bias or the shift of its norm. It is silenced first and
    reported. But for those channels the result computes what the masked network computes, in eval mode.

    Args:
        model: its weights are plain parameters: after `DynamicPruner.finish()`, after NNI's `unwrap_model()`. Not
            touched. Gradients are not copied.
        masks: bool or 0 and 1, by unwrapped dotted parameter name (`conv1.weight`), as `DynamicPruner.masks`. A layer
            without one keeps its non-zero weights. Masks of biases and of a norm's scale and shift count too: where a
            scale is masked, nothing gets through.
        example: what the model is called with, (T, N, ...) in multi-step mode.
        verify: whether the result is compared with the masked network, in float64.
        forward: how the model is called, where `model(x)` is not how.
        neuron_types: classes of one's own that are neurons.
        ignored_layers: dotted names of layers whose output channels stay.

    Raises:
        Disconnected: the masks leave no path.
        CannotCut: what is left would not compute the same; names the module.
        NothingMatched: a mask or an ignored layer that the model does not have.
        BadOption: a mask of the wrong shape, or weights that a pruner still holds.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Linear(3, 1, bias=False))
        >>> masks = {"0.weight": torch.tensor([[1, 0], [0, 0], [1, 1]]) > 0, "1.weight": torch.ones(1, 3) > 0}
        >>> small, masks, removed = compact(net, masks, torch.ones(1, 2))
        >>> small[0].weight.shape, removed.channels
        (torch.Size([2, 2]), {'0': [1]})
        >>> masks["0.weight"].tolist()
        [[True, False], [True, True]]
    """
    inner = unwrapped(model)
    kept = _checked(inner, masks)
    if strangers := [name for name in ignored_layers if name not in dict(inner.named_modules())]:
        raise NothingMatched(
            f"ignored_layers: the model has no module {strangers[0]!r}"
            f"{did_you_mean(strangers[0], [name for name, _ in inner.named_modules()])}"
        )
    with set_aside(inner):
        small = copied(inner)
    trainable = _masked_(small, kept)
    dense = copied(small) if verify else None

    how: dict[str, Any] = {"forward": forward, "neuron_types": tuple(neuron_types)}
    paths = paths_of(small, example, kept, **how)
    names = {module: name for name, module in small.named_modules()}
    graph = dependency_graph(small, example, verbose=False, **how)
    check_seen(graph, paths, small)
    leaving = list(going(graph, paths, names, [small.get_submodule(name) for name in ignored_layers]))
    silenced = self_firing(small, example, leaving, **how)

    # Torch-Pruning cuts the gradient of whatever it cuts. A mask in its place is cut just as its weight is.
    for name, mask in kept.items():
        parameter = small.get_parameter(name)
        parameter.grad = mask.to(parameter)
    cutting = Cutting(small, example, verify=verify, **how)
    with cutting:
        for each in leaving:
            prune = graph.get_pruner_of_module(each.root).prune_out_channels
            cutting.cut(graph.get_pruning_group(each.root, prune, each.channels))
    removed = replace(cutting.removed, silenced=silenced) if cutting.removed is not None else Removed({}, {}, (0, 0))
    left = {name: small.get_parameter(name).grad for name in kept}
    for name, parameter in small.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(trainable[name])
    if dense is not None:
        _compare(dense, small, leaving, names, example, **how)
    return Compacted(small, {name: mask != 0 for name, mask in left.items() if mask is not None}, removed)


def compact_(model: nn.Module, masks: Mapping[str, Tensor], example: Any, **options: Any) -> Compacted:
    """Does the same in place; where it fails the model is as it was.

    Parameters that lose channels are new ones without a gradient, so optimizers have to be made anew.

    Args:
        model: changed.
        masks: as `compact` takes them.
        example: what the model is called with.
        **options: of `compact`.
    """
    small, left, removed = compact(model, masks, example, **options)
    become_(model, small)
    return Compacted(model, left, removed)


def become_(model: nn.Module, small: nn.Module) -> None:
    """Gives a model, in place, the parameters, buffers and sizes of its compact copy; its modules stay.

    Args:
        model: changed; hooks, train flags and parameters of the same shape stay its own, neurons are at rest.
        small: made from it.
    """
    inner = unwrapped(model)
    for name, module in inner.named_modules():
        _become_(module, small.get_submodule(name))
    reset_(inner)


def _checked(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise BadOption(
                f"the weights of {name!r} are parametrized: let their pruner end first (`finish()` of a DynamicPruner, "
                "torch's `remove_parametrizations`)"
            )
        if hasattr(module, "_nni_wrapper"):
            raise BadOption(f"{name!r} is wrapped by a pruner of NNI: call its `unwrap_model()` first")
    for names in shared_parameters(model).values():
        raise BadOption(f"{' and '.join(names)} are one tensor, which a cut would make two: give each layer its own")
    parameters = dict(model.named_parameters())
    kept = {}
    for name, mask in masks.items():
        if name not in parameters:
            raise NothingMatched(f"the model has no parameter {name!r} to mask{did_you_mean(name, parameters)}")
        if mask.shape != parameters[name].shape:
            raise BadOption(
                f"the mask of {name} is {tuple(mask.shape)}, the parameter {tuple(parameters[name].shape)}: these are "
                "masks of another model"
            )
        kept[name] = mask.to(parameters[name].device, torch.bool)
    return kept


@torch.no_grad()
def _masked_(model: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, bool]:
    """Zeroes masked values, and unfreezes all: Torch-Pruning does not see a frozen layer, and thaws what it cuts."""
    for name, mask in masks.items():
        model.get_parameter(name).masked_fill_(~mask, 0.0)
    trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return trainable


def _compare(
    dense: nn.Module,
    small: nn.Module,
    leaving: Sequence[Going],
    names: Mapping[nn.Module, str],
    example: Any,
    forward: Forward | None,
    neuron_types: Sequence[type[nn.Module]],
) -> None:
    """Channels that reach no output are not silenced here: that they do nothing is what is asked.

    `Cutting` has asked whether the right indices went, with all that went silent. A neuron without a gradient would
    make everything before it look useless, and would pass there.
    """
    dead: dict[str, list[int]] = {}
    for each in leaving:
        for name, pairs in each.members.items():
            dead.setdefault(name, []).extend(index for index, root in pairs if root not in each.useless)
    silence_(dense, {name: gone for name, gone in dead.items() if gone}, neuron_types)
    if told := difference(dense, copied(small), example, forward, neuron_types):
        raise CannotCut(
            f"channels of {', '.join(repr(names[each.root]) for each in leaving)} seem to reach no output, but {told}; "
            "the model is as it was: pass neuron_types where it has neurons of your own, or ignored_layers"
        )


@torch.no_grad()
def _become_(module: nn.Module, small: nn.Module) -> None:
    for own, other in ((module._parameters, small._parameters), (module._buffers, small._buffers)):
        for word, tensor in other.items():
            held = own[word]
            if held is not None and tensor is not None and held.shape == tensor.shape:
                held.copy_(tensor)
            else:
                own[word] = tensor  # type: ignore[assignment]
    for word, value in vars(small).items():
        held = vars(module).get(word)
        if isinstance(value, Tensor):  # one that is neither parameter nor buffer
            if not isinstance(held, Tensor) or held.shape != value.shape:
                vars(module)[word] = value
        elif word != "training" and isinstance(value, int | tuple | list) and held != value:
            vars(module)[word] = value
