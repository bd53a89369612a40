"""Which spiking neuron a layer drives, read off the graph of one training pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snnsl_plugin.anatomy import neurons


class Downstream:
    """Finds, for each layer, the first neuron whose input its weight reaches without passing another neuron.

    Nothing is run for it: hooks look at the graph that autograd builds in the first training pass, and are gone after
    that. A sum of branches, as in a residual block, drives one neuron with all of them.

    Args:
        model: whose neurons are looked at.
        weights: by layer name, the parameter that the optimizer sees.

    Example:
        >>> import torch
        >>> from spikingjelly.activation_based import neuron
        >>> net = nn.Sequential(nn.Linear(3, 4), neuron.IFNode(), nn.Linear(4, 2))
        >>> with Downstream(net, {"0": net[0].weight, "2": net[2].weight}) as downstream:
        ...     _ = net(torch.ones(1, 3))
        >>> downstream.found
        {'0': '1'}
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, nn.Parameter]) -> None:
        self._neurons = neurons(model)
        self._layers = {id(weight): name for name, weight in weights.items()}
        self._asked: set[str] = set()
        self._handles: list[RemovableHandle] = []
        #: by layer name, the name of the neuron that it drives; a layer that drives none is missing
        self.found: dict[str, str] = {}

    def __enter__(self) -> Downstream:
        for name, module in self._neurons.items():
            self._handles.append(module.register_forward_pre_hook(self._looks(name)))
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _looks(self, name: str):  # type: ignore[no-untyped-def]
        watched = self._neurons[name]

        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            # In single-step mode the first of its calls knows all that later ones do.
            if module is not watched or not module.training or name in self._asked:
                return
            self._asked.add(name)
            for layer in self._reached(args[0].grad_fn):
                self.found.setdefault(layer, name)  # a neuron between the two has run, and was noted, before this one
            if len(self._asked) == len(self._neurons):
                self.__exit__()

        return hook

    def _reached(self, start: Any) -> list[str]:
        """Layers whose weights lie behind a node of the graph."""
        open_, seen, layers = [start], set(), []
        while open_:
            node = open_.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            weight = getattr(node, "variable", None)  # the end of the graph: a parameter
            if weight is not None and id(weight) in self._layers:
                layers.append(self._layers[id(weight)])
            open_.extend(following for following, _ in node.next_functions)
        return layers
