"""Which channels may be cut: those that every layer which writes them could do without."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning.dependency.group import Group

from snnsl_plugin.anatomy import LAYERS, weight_layers, weight_name
from snnsl_plugin.errors import CannotCut
from snnsl_plugin.metrics.paths import Paths


@dataclass(frozen=True)
class Going:
    """Channels that leave together, and who writes, normalises and fires them.

    Attributes:
        root: the layer that Torch-Pruning starts from.
        channels: of the root.
        members: per module, by dotted name: its own numbers of these channels, in the order of `channels`; of a layer
            only where it writes them.
        useless: of `channels`, those that reach no output.
    """

    root: nn.Module
    channels: list[int]
    members: dict[str, list[tuple[int, int]]]
    useless: set[int]


def going(
    graph: DependencyGraph, paths: Paths, names: Mapping[nn.Module, str], ignored: Sequence[nn.Module]
) -> Iterator[Going]:
    """What may be cut: channels that every layer which writes them could do without.

    Args:
        graph: of the model.
        paths: of the same model.
        names: dotted names of its modules.
        ignored: layers whose channels stay.
    """
    for group in graph.get_all_groups(ignored_layers=list(ignored)):
        if _reaches_the_end(graph, group):
            continue
        stays, useful = _stays(graph, group, paths, names)
        count = len(group[0].idxs)
        # A layer without channels cannot run: of a branch that is dead altogether, the first channel stays.
        stays = _closed(group, stays or {0})
        channels = [channel for channel in range(count) if channel not in stays]
        if channels:
            members = dict(_members(graph, group, names, set(channels)))
            yield Going(group[0].dep.target.module, channels, members, set(channels) - useful)


def check_seen(graph: DependencyGraph, paths: Paths, model: nn.Module) -> None:
    """Whether Torch-Pruning saw every layer that runs.

    Raises:
        CannotCut: the gradient of some operation ends before a layer, which would then look useless.
    """
    for name, layer in weight_layers(model).items():
        runs = not bool(paths.dead_rows[weight_name(name)].all())
        if runs and layer not in graph.module2node:
            raise CannotCut(
                f"no gradient comes back to layer {name!r}, so nothing before it can be judged or cut: pass "
                "neuron_types where a neuron of your own has no surrogate gradient, or let the model return what "
                "depends on this layer"
            )


def _reaches_the_end(graph: DependencyGraph, group: Group) -> bool:
    # Torch-Pruning traces back from the outputs: a node that nothing reads is one.
    for dependency, _ in group.items:
        reads = isinstance(dependency.target.module, LAYERS) and not graph.is_out_channel_pruning_fn(dependency.handler)
        if not dependency.target.outputs and not reads:
            return True
    return False


def _stays(
    graph: DependencyGraph, group: Group, paths: Paths, names: Mapping[nn.Module, str]
) -> tuple[set[int], set[int]]:
    """Of the root's channels, those that some layer needs to write, and those that reach an output."""
    stays: set[int] = set()
    useful: set[int] = set()
    for item in group.items:
        module = item.dep.target.module
        if not isinstance(module, nn.Module) or not graph.is_out_channel_pruning_fn(item.dep.handler):
            continue
        name = weight_name(names[module]) if module in names else ""
        if name in paths.dead_rows:
            dead, useless = paths.dead_rows[name].tolist(), paths.useless_rows[name].tolist()
            useful.update(root for index, root in zip(item.idxs, item.root_idxs, strict=True) if not useless[index])
            live = [not (d or u) for d, u in zip(dead, useless, strict=True)]
            stays.update(root for index, root in zip(item.idxs, item.root_idxs, strict=True) if live[index])
        elif type(module) not in graph.CUSTOMIZED_PRUNERS and _is_matrix(getattr(module, "weight", None)):
            stays.update(item.root_idxs)  # synapses that the probe does not know, such as a transposed convolution's
    return stays, useful


def _is_matrix(weight: Any) -> bool:
    return isinstance(weight, Tensor) and weight.dim() > 1


def _closed(group: Group, stays: set[int]) -> set[int]:
    """With grouped convolutions a position goes in all their groups, or in none."""
    grouped = []
    for item in group.items:
        module = item.dep.target.module
        groups = getattr(module, "groups", 1) if isinstance(module, LAYERS) else 1
        if groups > 1 and not groups == module.in_channels == module.out_channels:
            writes = item.dep.handler.__name__ == "prune_out_channels"
            width = (module.out_channels if writes else module.in_channels) // groups
            grouped.append([(index % width, root) for index, root in zip(item.idxs, item.root_idxs, strict=True)])
    while True:
        more = set(stays)
        for pairs in grouped:
            positions = {position for position, root in pairs if root in more}
            more |= {root for position, root in pairs if position in positions}
        if more == stays:
            return stays
        stays = more


def _members(
    graph: DependencyGraph, group: Group, names: Mapping[nn.Module, str], channels: set[int]
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    for item in group.items:
        module = item.dep.target.module
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        if isinstance(module, nn.Module) and module in names and (writes or not isinstance(module, LAYERS)):
            yield names[module], [(i, r) for i, r in zip(item.idxs, item.root_idxs, strict=True) if r in channels]
