"""A cut that is only tried: what cannot be cut at the end of a training is better refused before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from snnsl_plugin.compaction.cutting import Cutting
from snnsl_plugin.compaction.graph import dependency_graph
from snnsl_plugin.compaction.silence import copied
from snnsl_plugin.for_torch_pruning.arguments import pairs


def try_to_cut(pruner: Any, options: Mapping[str, Any]) -> None:
    """Cuts every second unit of each group out of a copy of a pruner's model.

    Args:
        pruner: a `SpikingDynamicPruner`; nothing of it is changed.
        options: what it was made with, beyond the arguments of its own.

    Raises:
        CannotCut: naming the module.
    """
    names = {parameter: name for name, parameter in pruner.model.named_parameters()}
    trial = copied(pruner.model)

    def twin(parameter: nn.Parameter) -> nn.Parameter:
        found: nn.Parameter = trial.get_parameter(names[parameter])
        return found

    unwrapped = options.get("unwrapped_parameters")
    graph = dependency_graph(
        trial,
        pruner._example,
        forward=pruner._forward,
        trace=pruner._how,
        neuron_types=pruner._neuron_types,
        customized_pruners=options.get("customized_pruners"),
        unwrapped_parameters=[(twin(each), axis) for each, axis in pairs(unwrapped)] if unwrapped else None,
        ignored_params=[twin(each) for each in pruner.ignored_params],
        output_transform=options.get("output_transform"),
        verbose=False,
    )
    with Cutting(trial, pruner._example, forward=pruner._forward, neuron_types=pruner._neuron_types) as cutting:
        for each in pruner.units:
            root = trial.get_submodule(each.name)
            size = each.count
            channels = [g * size + unit for g in range(each.channel_groups) for unit in range(0, size - 1, 2)]
            prune = graph.get_pruner_of_module(root).prune_out_channels
            cutting.cut(graph.get_pruning_group(root, prune, channels))
