"""Units: Torch-Pruning's groups seen as things that come and go together, and where each of them has its numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_pruning import DependencyGraph
from torch_pruning.dependency.group import Group

from snnsl_plugin.anatomy import LAYERS, is_neuron
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.affine import NORMS

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Member:
    """What one module holds of the units of a group.

    Attributes:
        name: dotted module name.
        module: a layer, a norm or a neuron.
        positions: channels of the module, (k,).
        units: to which unit each belongs, (k,).
    """

    name: str
    module: nn.Module
    positions: Tensor
    units: Tensor


@dataclass(frozen=True)
class Units:
    """The units of one group.

    A unit is one channel of everything in the group; with grouped convolutions, where all channel groups must stay of
    one size, it is the i-th channel of each of them.

    Attributes:
        name: dotted name of the layer that the group starts at.
        count: how many units there are.
        channel_groups: channels a unit has in that layer.
        root: that layer.
        prune: Torch-Pruning's function that cuts its outputs.
        rows: layers that write the units: row i of their weight makes channel i.
        norms: norms behind them.
        neurons: neurons behind them.
        columns: layers that read the units: column j of their weight reads channel j, with grouped convolutions that of
            each channel group.
    """

    name: str
    count: int
    channel_groups: int
    root: nn.Module
    prune: Callable[..., nn.Module]
    rows: tuple[Member, ...]
    norms: tuple[Member, ...]
    neurons: tuple[Member, ...]
    columns: tuple[Member, ...]

    def channels(self, units: Tensor) -> list[int]:
        """The channels of the root that belong to some units.

        Args:
            units: bool, (count,).
        """
        return [int(channel) for channel in units.repeat(self.channel_groups).nonzero().flatten()]


def living_group(graph: DependencyGraph, units: Units, alive: Tensor) -> Group:
    """The group without its masked units, for an importance to score.

    Args:
        graph: that the units come from.
        units: of one group.
        alive: bool, (count,).
    """
    channels = units.channels(alive)
    group = graph.get_pruning_group(units.root, units.prune, channels)
    # Torch-Pruning's importances take an index into the root for one into the scores, as it is when groups are whole.
    place = {channel: index for index, channel in enumerate(channels)}
    for item in group.items:
        item.root_idxs = [place[int(channel)] for channel in item.root_idxs]
    return group


def units_of(group: Group, channel_groups: int, neuron_types: Sequence[type[nn.Module]] = ()) -> Units:
    """The units of a group that holds all channels of its root.

    Args:
        group: as Torch-Pruning finds it.
        channel_groups: into how many groups of equal size the channels fall.
        neuron_types: classes of one's own that are neurons.
    """
    graph, size = group._DG, len(group[0].idxs) // channel_groups
    found: dict[str, list[Member]] = {"rows": [], "norms": [], "neurons": [], "columns": []}
    for item in group.items:
        module = item.dep.target.module
        writes = graph.is_out_channel_pruning_fn(item.dep.handler)
        kind = _kind(module, writes, tuple(neuron_types))
        if kind is not None:
            positions = torch.tensor([int(index) for index in item.idxs])
            if kind == "columns":
                positions %= module.weight.shape[1]
            units = torch.tensor([int(index) % size for index in item.root_idxs])
            found[kind].append(Member(graph._module2name[module], module, positions, units))
    root = group[0].dep
    return Units(
        graph._module2name[root.target.module],
        size,
        channel_groups,
        root.target.module,
        root.handler,
        **{kind: tuple(members) for kind, members in found.items()},
    )


def check_written(units: Units, group: Group) -> None:
    """Refuses units with numbers that masking does not reach, so that they would not fall silent.

    Args:
        units: of that group.
        group: as Torch-Pruning finds it.

    Raises:
        BadOption: a transposed convolution writes the units, or no layer that masking knows.
    """
    graph = group._DG
    for item in group.items:
        module = item.dep.target.module
        if isinstance(module, _TRANSPOSED) and graph.is_out_channel_pruning_fn(item.dep.handler):
            raise BadOption(
                f"{graph._module2name[module]!r} is a {type(module).__name__}: transposed convolutions are not masked "
                "and regrown; put them into ignored_layers"
            )
    if not units.rows:
        raise BadOption(
            f"{units.name!r} is a {type(units.root).__name__}: only convolutions and linear layers are masked and "
            "regrown; put it into ignored_layers"
        )


def _kind(module: nn.Module, writes: bool, neuron_types: tuple[type[nn.Module], ...]) -> str | None:
    if isinstance(module, NORMS):
        return "norms"
    if isinstance(module, LAYERS):
        return "rows" if writes else "columns"
    return "neurons" if isinstance(module, nn.Module) and is_neuron(module, neuron_types) else None
