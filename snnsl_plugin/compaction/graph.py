"""The dependency graph of a spiking network: which tensors share a channel, across neurons and time steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn
from torch_pruning import DependencyGraph
from torch_pruning.dependency import index_mapping
from torch_pruning.ops import OPTYPE

from snnsl_plugin.anatomy import set_aside
from snnsl_plugin.compaction.neurons import NeuronPruner, neuron_pruners
from snnsl_plugin.compaction.tracing import Forward, How, forward_fn
from snnsl_plugin.errors import BadOption, CannotCut
from snnsl_plugin.training.neuron_masks import refuse_masked_neurons

Trace = Literal["auto", "s", "m"]
#: What a trace that does not understand a model fails with, inside Torch-Pruning or inside the model.
TRACE_ERRORS = (RuntimeError, ValueError, IndexError, AssertionError, TypeError, AttributeError, KeyError)


def dependency_graph(
    model: nn.Module,
    example: Any,
    *,
    forward: Forward | None = None,
    trace: Trace = "auto",
    neuron_types: Sequence[type[nn.Module]] = (),
    **options: Any,
) -> DependencyGraph:
    """Traces a spiking network by one forward pass; the network is left as it was.

    Args:
        model: in either step mode.
        example: what it is called with: a tensor, arguments or a mapping, (T, N, ...) in multi-step mode.
        forward: how it is called, where `model(x)` is not how.
        trace: `s` in one time step, `m` as the code stands, or the first of the two that works.
        neuron_types: classes of one's own that are neurons.
        **options: of Torch-Pruning's `build_dependency`.

    Raises:
        CannotCut: it cannot be traced.
    """

    def build(given: dict[str, Any], how: How) -> DependencyGraph:
        given["customized_pruners"] |= options.get("customized_pruners") or {}
        graph = DependencyGraph().build_dependency(model, example_inputs=example, **(options | given))
        if how == "m":
            mend_time_axis_(graph)
        return graph

    return traced(model, build, forward=forward, trace=trace, neuron_types=neuron_types)[0]


def traced(
    model: nn.Module,
    build: Callable[[dict[str, Any], How], Any],
    *,
    forward: Forward | None = None,
    trace: Trace = "auto",
    neuron_types: Sequence[type[nn.Module]] = (),
) -> tuple[Any, How]:
    """Lets something of Torch-Pruning trace a model, in the first mode that works.

    Args:
        model: left as it was: hooks, modes, memories.
        build: is given `forward_fn` and `customized_pruners`, and the mode.
        forward: how the model is called.
        trace: which modes to try.
        neuron_types: classes of one's own that are neurons.

    Returns:
        What was built, and the mode.

    Raises:
        CannotCut: no mode works.
        BadOption: another mode; or single neurons are masked, which no cut of channels can follow.
    """
    refuse_masked_neurons(model, "nothing can be cut out of this network")
    if trace not in ("auto", "s", "m"):
        raise BadOption(f"trace={trace!r}: choose 'auto', 's' (single steps) or 'm' (the code as it stands)")
    modes: tuple[How, ...] = ("s", "m") if trace == "auto" else (trace,)
    failures = []
    for how in modes:
        seen: dict[nn.Module, int] = {}
        held: dict[nn.Module, dict[str, int]] = {}
        given = {
            "forward_fn": forward_fn(how, seen, held, user=forward, neuron_types=neuron_types),
            "customized_pruners": neuron_pruners(model, seen, held, neuron_types=neuron_types),
        }
        try:
            # Torch-Pruning leaves its hooks where a pass fails, and eval mode in any case.
            with set_aside(model), torch.enable_grad(), _thawed(model):
                return build(given, how), how
        except TRACE_ERRORS as error:
            failures.append((how, error))
    told = "; ".join(f"in mode {how!r}: {type(error).__name__}: {error}" for how, error in failures)
    raise CannotCut(
        f"Torch-Pruning cannot trace this {type(model).__name__} ({told}): check the example inputs, pass a forward_fn "
        "that calls the model, or replace the module that the message names"
    ) from failures[-1][1]


@contextmanager
def _thawed(model: nn.Module) -> Iterator[None]:
    """All parameters with gradients, for as long: what is frozen is not in the graph that Torch-Pruning walks."""
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def mend_time_axis_(graph: DependencyGraph) -> None:
    """Tells Torch-Pruning, in place, which nodes of a multi-step graph move time and batch and leave channels alone.

    It takes every unbind for a split of channels, and every reshape between layers of different widths for a
    flattening of sites. Only a reshape that merges a trailing (C, *sites) into one axis is that.
    """
    for node in graph.module2node.values():
        if node.type == OPTYPE.UNBIND or (node.type == OPTYPE.RESHAPE and not _flattens(node.grad_fn)):
            node.type = OPTYPE.ELEMENTWISE
            for neighbour in (node, *node.inputs, *node.outputs):
                for dependency in neighbour.dependencies:
                    if neighbour is node or dependency.target is node:
                        dependency.index_mapping = [None, None]
    graph._2d_4d = True
    index_mapping.update_index_mapping(graph)


def _flattens(node: Any) -> bool:
    before = list(getattr(node, "_saved_self_sym_sizes", []))
    metadata = getattr(node, "_input_metadata", None)
    if not before or not metadata:
        return False
    after = list(metadata[0].shape)
    tail = len(before) - len(after) + 1  # how many trailing axes have become one
    merged = int(torch.tensor(before[-tail:]).prod()) if tail >= 2 else 0
    return tail >= 2 and after[-1] == merged and after[:-1] == before[:-tail]


def holding(graph: DependencyGraph) -> Callable[[], None]:
    """Remembers a graph, to be put back where the cut that it was used for is undone.

    Cutting replaces parameters of modules that Torch-Pruning does not know, and counts channels down in concatenations,
    splits, slices and outputs, in neurons and in the history.

    Args:
        graph: not changed.

    Returns:
        What puts everything back, in place.
    """
    nodes, names, history = dict(graph.module2node), dict(graph._param_to_name), list(graph._pruning_history)
    operations = {
        module: {key: list(value) if isinstance(value, list) else value for key, value in vars(module).items()}
        for module in nodes
        if isinstance(module, nn.Module) and type(module).__module__ == "torch_pruning.ops"
    }
    pruners = {each: dict(each._seen) for each in graph.CUSTOMIZED_PRUNERS.values() if isinstance(each, NeuronPruner)}

    def restore() -> None:
        for held, before in ((graph.module2node, nodes), (graph._param_to_name, names)):
            held.clear()
            held.update(before)
        for module, node in nodes.items():
            node.module = module
        for module, attributes in operations.items():
            vars(module).update(attributes)
        for pruner, seen in pruners.items():
            pruner._seen.clear()
            pruner._seen.update(seen)
        graph._pruning_history[:] = history

    return restore
