"""Torch-Pruning's pruners for spiking networks: the same arguments, neurons in the groups, and a step that reports."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch_pruning as tp
from torch import nn

from snnsl_plugin.compaction.cutting import Cutting, Removed
from snnsl_plugin.compaction.graph import Trace, mend_time_axis_, traced
from snnsl_plugin.compaction.tracing import Forward, How
from snnsl_plugin.errors import BadOption, NothingRemoved

#: Torch-Pruning's defaults for these are dicts that all its pruners write to.
_SHARED = ("in_channel_groups", "out_channel_groups", "num_heads", "channel_groups")


class _Spiking(tp.pruner.BasePruner):  # type: ignore[misc]
    """What spiking networks need of any pruner of Torch-Pruning; comes before it in the order of classes."""

    _how: How = "s"

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        *args: Any,
        forward_fn: Forward | None = None,
        customized_pruners: dict[type[nn.Module], Any] | None = None,
        ignored_layers: Sequence[nn.Module | type[nn.Module] | nn.Parameter] | None = None,
        trace: Trace = "auto",
        verify: bool = True,
        neuron_types: Sequence[type[nn.Module]] = (),
        **options: Any,
    ) -> None:
        options |= {word: dict(options.get(word) or {}) for word in _SHARED}
        self._example, self._forward = example_inputs, forward_fn
        self._verify, self._neuron_types = verify, tuple(neuron_types)

        def build(given: dict[str, Any], how: How) -> None:
            self._how = how
            given["customized_pruners"] |= customized_pruners or {}
            ignored = expanded(model, ignored_layers)
            super(_Spiking, self).__init__(model, example_inputs, *args, ignored_layers=ignored, **(options | given))

        traced(model, build, forward=forward_fn, trace=trace, neuron_types=neuron_types)
        self._removed_before = False

    @property
    def DG(self) -> tp.DependencyGraph:
        """Torch-Pruning's dependency graph."""
        return self._graph

    @DG.setter
    def DG(self, graph: tp.DependencyGraph) -> None:
        # BasePruner sets this once it has traced, and asks for its groups next.
        if self._how == "m":
            mend_time_axis_(graph)
        self._graph = graph

    def step(self, interactive: bool = False) -> Any:
        """Removes the channels of one iterative step.

        Args:
            interactive: yields Torch-Pruning's groups, for the caller to prune; nothing is verified or reported then.

        Returns:
            What was removed, per layer; a generator of groups where interactive.

        Raises:
            NothingRemoved: channels were to go and none has gone.
            CannotCut: what is left would not compute the same; the model is as it was.
            BadOption: all iterative steps are done.
        """
        if self.current_step >= self.iterative_steps:
            raise BadOption(
                f"all {self.iterative_steps} iterative steps are done: ask for more iterative_steps, or make another "
                "pruner"
            )
        if interactive:
            return super().step(interactive=True)
        cutting = Cutting(
            self.model, self._example, forward=self._forward, verify=self._verify, neuron_types=self._neuron_types
        )
        try:
            with cutting:
                for group in super().step(interactive=True):
                    cutting.cut(group)
        except Exception:
            self.current_step -= 1
            raise
        removed = cutting.removed or Removed({}, {}, (0, 0))
        self._removed_before = self._removed_before or bool(removed)
        if not self._removed_before and self._asked():
            raise NothingRemoved(
                f"step {self.current_step} of {self.iterative_steps} was to remove channels and has removed none: "
                f"{self._groups_seen()}; check pruning_ratio, max_pruning_ratio, round_to, ignored_layers and what the "
                "importance returns (None skips a group)"
            )
        return removed

    def _asked(self) -> bool:
        ratios = [self.per_step_pruning_ratio, *self.pruning_ratio_dict.values()]
        return any(each[self.current_step] > 0 for each in ratios)

    def _groups_seen(self) -> str:
        groups = list(
            self.DG.get_all_groups(ignored_layers=self.ignored_layers, root_module_types=self.root_module_types)
        )
        names = [self.DG._module2name.get(group[0].dep.target.module, "?") for group in groups]
        return (
            f"there are {len(names)} groups ({', '.join(names)})" if names else "there is no group of channels at all"
        )


class SpikingPruner(_Spiking):
    pass


class SpikingGroupNormPruner(_Spiking, tp.pruner.GroupNormPruner):  # type: ignore[misc]
    pass


class SpikingBNScalePruner(_Spiking, tp.pruner.BNScalePruner):  # type: ignore[misc]
    pass


class SpikingGrowingRegPruner(_Spiking, tp.pruner.GrowingRegPruner):  # type: ignore[misc]
    pass


def expanded(model: nn.Module, ignored: Sequence[Any] | None) -> list[Any]:
    """Ignored layers with types replaced by the modules of that type; Torch-Pruning drops types silently.

    Raises:
        BadOption: neither a module, nor a parameter, nor a type.
    """
    found: list[Any] = []
    for each in ignored or []:
        if isinstance(each, type) and issubclass(each, nn.Module):
            found.extend(module for module in model.modules() if isinstance(module, each))
        elif isinstance(each, nn.Module | nn.Parameter):
            found.append(each)
        else:
            raise BadOption(f"ignored_layers holds {each!r}: modules, types of modules and parameters can be ignored")
    return found


def _signature(theirs: Callable[..., Any]) -> inspect.Signature:
    own = [p for p in inspect.signature(_Spiking.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    known = inspect.signature(theirs).parameters
    further = [p for p in own if p.name not in known]
    return inspect.Signature([*known.values(), *further])


for _class, _theirs in (
    (SpikingPruner, tp.pruner.BasePruner),
    (SpikingGroupNormPruner, tp.pruner.GroupNormPruner),
    (SpikingBNScalePruner, tp.pruner.BNScalePruner),
    (SpikingGrowingRegPruner, tp.pruner.GrowingRegPruner),
):
    _class.__signature__ = _signature(_theirs)  # type: ignore[attr-defined]
