"""Cuts Torch-Pruning's groups out of a model, and proves that nothing but those channels is gone, or takes it back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from torch import nn
from torch_pruning import DependencyGraph
from torch_pruning.dependency.group import Group

from snnsl_plugin.anatomy import is_neuron, reset_
from snnsl_plugin.compaction.equality import difference
from snnsl_plugin.compaction.graph import TRACE_ERRORS, dependency_graph, holding
from snnsl_plugin.compaction.plain import CUTTABLE, shared_parameters, why_not
from snnsl_plugin.compaction.silence import copied, silence_
from snnsl_plugin.compaction.tracing import Forward
from snnsl_plugin.errors import CannotCut
from snnsl_plugin.training.affine import NORMS


@dataclass(frozen=True)
class Removed:
    """What was cut.

    Attributes:
        channels: by dotted name of a convolution or linear layer, the output channels that are gone, as they were
            numbered before.
        before: output channels of these layers before.
        parameters: of the whole model, before and after.
        silenced: by dotted name of a norm or of a layer with a bias, the removed channels that would have fired by
            themselves (a shift above zero) and were silenced first; only where masks said what goes.
    """

    channels: dict[str, list[int]]
    before: dict[str, int]
    parameters: tuple[int, int]
    silenced: dict[str, list[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.channels.values())

    def __str__(self) -> str:
        cut = ", ".join(f"{name} {len(gone)} of {self.before[name]}" for name, gone in self.channels.items())
        return f"{cut or 'nothing'}; parameters {self.parameters[0]:,} -> {self.parameters[1]:,}"


class Cutting:
    """A context in which groups are cut; at its end the cut is verified, and where anything fails it is undone.

    Args:
        model: cut in place.
        example: what it is called with.
        forward: how it is called, where `model(x)` is not how.
        verify: whether the result is compared with the model as it was, those channels silent.
        neuron_types: classes of one's own that are neurons.

    Raises:
        CannotCut: at the end, naming the module; parameters, buffers and attributes are the very objects they were.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Any,
        *,
        forward: Forward | None = None,
        verify: bool = True,
        neuron_types: Sequence[type[nn.Module]] = (),
    ) -> None:
        self._model, self._example, self._forward = model, example, forward
        self._verify, self._neuron_types = verify, tuple(neuron_types)
        self._names = {module: name for name, module in model.named_modules()}
        self._alive: dict[nn.Module, list[int]] = {}
        self._gone: dict[str, list[int]] = {}
        self._before: dict[str, int] = {}
        self._roots: list[tuple[str, list[int]]] = []
        self._graphs: dict[DependencyGraph, Callable[[], None]] = {}
        #: filled at the end
        self.removed: Removed | None = None

    def __enter__(self) -> Cutting:
        self._snapshot = _Snapshot(self._model)
        reset_(self._model)
        self._parameters, self._shared = _count(self._model), shared_parameters(self._model)
        self._frozen = [name for name, parameter in self._model.named_parameters() if not parameter.requires_grad]
        self._dense = copied(self._model) if self._verify else None
        return self

    def cut(self, group: Group) -> None:
        """Removes one group from the model, in place.

        Raises:
            CannotCut: Torch-Pruning cannot; leave the context with this error, and everything is as it was.
        """
        if group._DG not in self._graphs:
            self._graphs[group._DG] = holding(group._DG)
        root, channels = group[0].dep.target.module, list(group[0].idxs)
        name = self._names.get(root, type(root).__name__)
        for dependency, _ in group.items:
            module = dependency.target.module
            if isinstance(module, nn.Module) and (why := why_not(module, self._shared)):
                raise self._refusal(self._names.get(module, name), why)
        try:
            for dependency, idxs in group.items:
                module = dependency.target.module
                writes = group._DG.is_out_channel_pruning_fn(dependency.handler)
                if isinstance(module, nn.Module) and module in self._names and self._has_channels(module, writes):
                    self._note(module, idxs, group)
            group.prune()
        except TRACE_ERRORS as error:
            raise self._refusal(name, f"Torch-Pruning fails ({type(error).__name__}: {error})") from error
        self._roots.append((name, channels))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        told = None
        try:
            if error is None:
                told = self._told()
        except BaseException:
            self._undo()
            raise
        if error is None and told is None:
            for name in self._frozen:  # Torch-Pruning's new tensors all have gradients
                self._model.get_parameter(name).requires_grad_(False)
            layers = {name: gone for name, gone in self._gone.items() if name in self._before}
            self.removed = Removed(layers, self._before, (self._parameters, _count(self._model)))
            reset_(self._model)
            return
        self._undo()
        if told is not None:
            raise self._refusal(self._culprit(), told)
        if isinstance(error, IndexError | RuntimeError):
            # An importance met indices that a layer does not have: the graph does not understand the model.
            where = self._roots[-1][0] if self._roots else type(self._model).__name__
            told = f"what was to be cut next does not fit ({type(error).__name__}: {error})"
            raise self._refusal(where, told) from error

    def _undo(self) -> None:
        self._snapshot.restore_()
        for restore in self._graphs.values():
            restore()

    def _refusal(self, where: str, why: str) -> CannotCut:
        return CannotCut(f"{where!r} cannot be cut: {why}; the model is as it was: put this module into ignored_layers")

    def _has_channels(self, module: nn.Module, writes: bool) -> bool:
        own = isinstance(module, NORMS) or is_neuron(module, self._neuron_types)
        return own or (writes and isinstance(module, CUTTABLE))

    def _note(self, module: nn.Module, idxs: Sequence[int], group: Group) -> None:
        # A group speaks of channels as they are numbered when it is cut; the silent model has them all.
        name = self._names[module]
        if module not in self._alive:
            channels = _channels(module, group)
            self._alive[module] = list(range(channels))
            if isinstance(module, CUTTABLE) and not isinstance(module, NORMS):
                self._before[name] = channels
        alive, now = self._alive[module], set(idxs)
        self._gone.setdefault(name, []).extend(alive[index] for index in sorted(now))
        self._alive[module] = [channel for index, channel in enumerate(alive) if index not in now]

    def _told(self) -> str | None:
        if self._dense is None or not self._roots:
            return None
        silence_(self._dense, self._gone, self._neuron_types)
        return difference(self._dense, copied(self._model), self._example, self._forward, self._neuron_types)

    def _culprit(self) -> str:
        """The first group that alone does not pass, looked for on copies."""
        options: dict[str, Any] = {"forward": self._forward, "neuron_types": self._neuron_types}
        for name, channels in self._roots if len(self._roots) > 1 else []:
            trial = copied(self._model)
            try:
                graph = dependency_graph(trial, self._example, verbose=False, **options)
                root = trial.get_submodule(name)
                group = graph.get_pruning_group(root, graph.get_pruner_of_module(root).prune_out_channels, channels)
                with Cutting(trial, self._example, **options) as cutting:
                    cutting.cut(group)
            except (CannotCut, *TRACE_ERRORS):
                return name
        return ", ".join(dict.fromkeys(name for name, _ in self._roots))


class _Snapshot:
    """What makes up every module, to be put back. Torch-Pruning makes new tensors and leaves the old ones alone."""

    def __init__(self, model: nn.Module) -> None:
        # Dicts are put back as the objects they were, because the handle of a hook knows the dict that it is in.
        self._held = [(module, dict(vars(module)), _dicts(module)) for module in model.modules()]

    def restore_(self) -> None:
        for module, attributes, dicts in self._held:
            for held, before in ((vars(module), attributes), *dicts):
                held.clear()
                held.update(before)


def _dicts(module: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    return [(value, dict(value)) for value in vars(module).values() if isinstance(value, dict)]


def _channels(module: nn.Module, group: Group) -> int:
    for word in ("out_channels", "out_features", "num_features", "num_channels"):
        if isinstance(own := getattr(module, word, None), int):
            return own
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    seen: dict[nn.Module, int] = group._DG.CUSTOMIZED_PRUNERS[type(module)]._seen
    return seen[module]


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
