"""Norms folded into the layers before them, and all that does nothing in eval mode taken out of the graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.equality import random_like
from snnsl_plugin.errors import BadOption

_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError, fx.proxy.TraceError)
_IDLE = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@torch.no_grad()
def fused(model: nn.Module, step: Tensor) -> fx.GraphModule:
    """The network of one time step as a graph of convolutions, linear layers, pools and neurons, without norms.

    Args:
        model: a copy in eval mode that may be taken apart; containers over time become what they contain.
        step: (N, ...), one time step of an example.

    Returns:
        A graph module in single-step mode, at rest.

    Raises:
        BadOption: it does not run in single steps, cannot be traced, or computes something else when it is.
    """
    from spikingjelly.activation_based import base, functional
    from spikingjelly.activation_based.functional.conv_bn_fusion import fuse_conv_bn_eval_modules

    model = _without_containers(model)
    for name, module in model.named_modules():
        if isinstance(module, base.MultiStepModule) or (
            isinstance(module, base.StepModule) and "s" not in module.supported_step_mode()
        ):
            raise BadOption(
                f"{name!r} ({type(module).__name__}) does not run in single steps, of which this is to be a graph: "
                "replace it"
            )
    functional.set_step_mode(model, "s")
    x = random_like(step)
    before, sizes = _observed(model, x)
    try:
        graph = fuse_conv_bn_eval_modules(model)
    except _FAILURES as error:
        raise BadOption(
            f"this {type(model).__name__} cannot be traced by torch.fx ({type(error).__name__}: {error}): export the "
            "network of one time step, whose forward does not loop or branch on values or shapes"
        ) from error
    for node in list(graph.graph.nodes):
        _simplify(graph, node, sizes)
    graph.delete_all_unused_submodules()
    graph.recompile()
    apart = float((before - _run(graph, x)).abs().max())
    if not apart <= 1e-9 * max(float(before.abs().max()), 1.0):
        raise BadOption(
            f"the traced {type(model).__name__} differs from the model by {apart:.3g}: export the network of one time "
            "step in double precision, which does not reset itself in its forward"
        )
    found: fx.GraphModule = graph
    return found


def _observed(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[nn.Module, tuple[Any, Any]]]:
    """What the network gives, and the sites that its adaptive pools get and give.

    Raises:
        BadOption: it does not run; the sentence names the module.
    """
    within: list[str] = []
    sizes: dict[nn.Module, tuple[Any, Any]] = {}
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, _: Any, name: str = name) -> None:
            within.append(f"{name!r} ({type(module).__name__})")

        def leave(module: nn.Module, args: Any, out: Any) -> None:
            within.pop()
            if isinstance(module, nn.AdaptiveAvgPool2d):
                sizes[module] = (tuple(args[0].shape[-2:]), tuple(out.shape[-2:]))

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        return _run(model, x), sizes
    except _FAILURES as error:
        raise BadOption(
            f"{within[-1]} does not run in single steps ({type(error).__name__}: {error}): replace it, or check the "
            "example"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def _run(model: nn.Module, x: Tensor) -> Tensor:
    """Three steps from rest, the outputs stacked."""
    reset_(model)
    out = torch.stack([model(x) for _ in range(3)])
    reset_(model)
    return out


def _without_containers(module: nn.Module) -> nn.Module:
    """Containers over time replaced, in place, by what they contain: in a single step that is what they are."""
    from spikingjelly.activation_based import layer

    for name, child in list(module.named_children()):
        setattr(module, name, _without_containers(child))
    if isinstance(module, layer.SeqToANNContainer | layer.MultiStepContainer):
        return nn.Sequential(*module.children())
    return module


def _simplify(graph: fx.GraphModule, node: fx.Node, sizes: dict[nn.Module, tuple[Any, Any]]) -> None:
    module = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
    if module is not None and (isinstance(module, _IDLE) or type(module).__name__.startswith("Dropout")):
        _skip(graph, node)
    elif module is not None and type(module).__name__ == "BatchNorm1d":
        source: Any = node.args[0]
        linear = graph.get_submodule(str(source.target)) if _alone(source, "call_module") else None
        if isinstance(linear, nn.Linear):
            _put(graph, str(source.target), fuse_linear_bn_eval(linear, module))  # type: ignore[arg-type]
            _skip(graph, node)
    elif isinstance(module, nn.AdaptiveAvgPool2d):
        inside, outside = sizes[module]
        if all(i % o == 0 for i, o in zip(inside, outside, strict=True)):
            kernel = tuple(i // o for i, o in zip(inside, outside, strict=True))
            _put(graph, str(node.target), nn.AvgPool2d(kernel))
    elif node.target in (torch.flatten, "flatten"):
        with graph.graph.inserting_before(node):
            graph.add_submodule(f"{node.name}_module", nn.Flatten(*node.args[1:], **node.kwargs))  # type: ignore[arg-type]
            put = graph.graph.call_module(f"{node.name}_module", (node.args[0],))
        node.replace_all_uses_with(put)
        graph.graph.erase_node(node)


def _alone(source: Any, operation: str) -> bool:
    return isinstance(source, fx.Node) and source.op == operation and len(source.users) == 1


def _skip(graph: fx.GraphModule, node: fx.Node) -> None:
    node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
    graph.graph.erase_node(node)


def _put(graph: fx.GraphModule, name: str, module: nn.Module) -> None:
    owner, _, word = name.rpartition(".")
    setattr(graph.get_submodule(owner), word, module.train(graph.training))
