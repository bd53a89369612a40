"""Torch-Pruning's pruners for spiking networks: the same arguments, neurons in the groups, and a step that reports."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency.group import Group

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.compaction.cutting import Cutting, Removed
from snnsl_plugin.compaction.graph import Trace, mend_time_axis_, traced
from snnsl_plugin.compaction.tracing import How
from snnsl_plugin.errors import BadOption, Diverged, NothingRemoved
from snnsl_plugin.for_torch_pruning.arguments import check_importance, check_ratios, expanded, pairs
from snnsl_plugin.for_torch_pruning.calibration import follow, held, put_back

#: Torch-Pruning's defaults for these are dicts that all its pruners write to.
_SHARED = ("in_channel_groups", "out_channel_groups", "num_heads", "channel_groups")


class _Spiking(tp.pruner.BasePruner):  # type: ignore[misc]
    """What spiking networks need of any pruner of Torch-Pruning; comes before it in the order of classes."""

    current_step: int
    _how: How = "s"
    _choosing = False

    def __init__(
        self,
        *args: Any,
        trace: Trace = "auto",
        verify: bool = True,
        neuron_types: Sequence[type[nn.Module]] = (),
        **options: Any,
    ) -> None:
        given = inspect.signature(super().__init__).bind(*args, **options).arguments
        model, self._example = given.pop("model"), given["example_inputs"]
        self._forward = given.pop("forward_fn", None)
        self._verify, self._neuron_types = verify, tuple(neuron_types)
        self._removed_before = False
        check_ratios(given)
        check_importance(given["importance"], model)
        customized = given.pop("customized_pruners", None) or {}
        given["ignored_layers"] = expanded(model, given.get("ignored_layers"))
        given |= {word: dict(given.get(word) or {}) for word in _SHARED}
        unwrapped = given.pop("unwrapped_parameters", None)

        def build(trace_options: dict[str, Any], how: How) -> None:
            self._how = how
            trace_options["customized_pruners"] |= customized
            trace_options["unwrapped_parameters"] = pairs(unwrapped)
            super(_Spiking, self).__init__(model, **(given | trace_options))

        traced(model, build, forward=self._forward, trace=trace, neuron_types=neuron_types)

    @property
    def DG(self) -> tp.DependencyGraph:  # noqa: N802  (Torch-Pruning's name)
        """Torch-Pruning's dependency graph."""
        return self._graph

    @DG.setter
    def DG(self, graph: tp.DependencyGraph) -> None:  # noqa: N802  (Torch-Pruning's name)
        # BasePruner sets this once it has traced, and asks for its groups next.
        if self._how == "m":
            mend_time_axis_(graph)
        self._graph = graph

    def step(self, interactive: bool = False) -> Any:
        """Removes the channels of one iterative step.

        Args:
            interactive: yields Torch-Pruning's groups, for the caller to prune; nothing is verified or reported then.

        Returns:
            What was removed, per layer (`Removed`); a generator of groups where interactive.

        Raises:
            NothingRemoved: channels were to go and none has gone, in this step or before.
            CannotCut: what is left would not compute the same; model and pruner are as they were.
            Diverged: a score is NaN; the same.
            BadOption: all iterative steps are done, or the importance does not give a score for each channel.
        """
        if self.current_step >= self.iterative_steps:
            raise BadOption(
                f"all {self.iterative_steps} iterative steps are done: ask for more iterative_steps, or make another "
                "pruner"
            )
        if interactive:
            return super().step(interactive=True)

        def chosen() -> Iterator[Group]:
            yield from super(_Spiking, self).step(interactive=True)

        removed = self._cut(chosen)
        self._removed_before = self._removed_before or bool(removed)
        if not self._removed_before and self._asked():
            raise NothingRemoved(
                f"step {self.current_step} of {self.iterative_steps} was to remove channels and has removed none: "
                f"{self._groups_seen()}; check pruning_ratio, max_pruning_ratio, round_to, ignored_layers and the "
                "importance"
            )
        return removed

    def manual_prune_width(
        self, layer: nn.Module, pruning_fn: Callable[..., Any], pruning_ratios_or_idxs: float | Sequence[int]
    ) -> Removed:
        """Removes chosen channels of one layer, and what hangs on them; reported and verified like a step.

        Args:
            layer: a module of the model.
            pruning_fn: as `tp.prune_conv_out_channels`.
            pruning_ratios_or_idxs: indices of channels; or a float, the share of channels to remove, of which as many
                are kept as `step` keeps. Torch-Pruning's own float leaves a module whose weights do not fit its sizes.

        Returns:
            What was removed.

        Raises:
            CannotCut: what is left would not compute the same; model and pruner are as they were.
            NothingRemoved: no channel is left to remove, or none was named.
        """

        def chosen() -> Iterator[Group]:
            gone = pruning_ratios_or_idxs
            if isinstance(gone, float):
                writes = self.DG.is_out_channel_pruning_fn(pruning_fn)
                channels = self.DG.get_out_channels(layer) if writes else self.DG.get_in_channels(layer)
                scores = self.estimate_importance(self.DG.get_pruning_group(layer, pruning_fn, list(range(channels))))
                if scores is None:
                    raise NothingRemoved(f"the importance of {layer} is None, which skips it: name indices")
                gone = torch.argsort(scores)[: channels - int(channels * (1 - gone))].tolist()
            if gone:
                yield from self._followed([self.DG.get_pruning_group(layer, pruning_fn, sorted(set(gone)))])

        removed = self._cut(chosen)
        if not removed:
            raise NothingRemoved(f"pruning_ratios_or_idxs={pruning_ratios_or_idxs!r} names no channel of {layer}")
        return removed

    def load_pruning_history(self, pruning_history: Sequence[Any]) -> None:
        """Cuts the model, in place, as `pruning_history()` of another pruner of the same model says.

        Args:
            pruning_history: (module name, whether outputs were cut, indices), in order; not changed. Unverified.
        """
        with _freezing(self.model):
            super().load_pruning_history([list(each) for each in pruning_history])
        reset_(self.model)

    def estimate_importance(self, group: Group) -> Tensor | None:
        """Scores of a group, or None: it is skipped.

        Raises:
            Diverged: a score is NaN, while channels are chosen; regularizers skip such groups by themselves.
            BadOption: there is not one score for each channel; Torch-Pruning would take the wrong ones or skip them.
        """
        scores: Tensor | None = super().estimate_importance(group)
        if not self._choosing or scores is None:
            return scores
        if scores.shape != (len(group[0].idxs),):
            raise BadOption(
                f"the importance gives {self._name(group)!r} scores of shape {tuple(scores.shape)} for "
                f"{len(group[0].idxs)} channels: it must give one for each"
            )
        if bool(torch.isnan(scores).any()):
            raise Diverged(
                f"scores of {self._name(group)!r} are NaN (0 / 0, where a normalized group is all zero): train or "
                "re-initialize these weights, or put the module into ignored_layers"
            )
        return scores

    def _prune(self) -> Iterator[Group]:
        self._choosing = True
        try:
            yield from self._followed(super()._prune())
        finally:
            self._choosing = False

    def _followed(self, groups: Any) -> Iterator[Group]:
        """Groups, what is known of whose modules is cut when the one who gets them has cut the modules."""
        graph = self.DG
        for group in groups:
            members = [(dep.target.module, dep.handler, list(idxs)) for dep, idxs in group]
            before = len(graph._pruning_history)
            with _freezing(self.model):
                yield group
            if len(graph._pruning_history) > before and list(graph._pruning_history[-1][2]) == members[0][2]:
                for module, handler, idxs in members:
                    follow(module, idxs, reads=graph.is_in_channel_pruning_fn(handler))

    def _cut(self, chosen: Callable[[], Iterator[Group]]) -> Removed:
        cutting = Cutting(
            self.model, self._example, forward=self._forward, verify=self._verify, neuron_types=self._neuron_types
        )
        with self._undone_on_failure():
            groups = chosen()
            first = list(itertools.islice(groups, 1))  # all is scored here: what an importance raises is its own
            with cutting:
                for group in itertools.chain(first, groups):
                    cutting.cut(group)
        return cutting.removed if cutting.removed is not None else Removed({}, {}, (0, 0))

    @contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        # `Cutting` gives model and graph back; this is what pruner and calibration know of them.
        rates, step = held(self.model), self.current_step
        heads, widths = dict(self.num_heads), dict(self.out_channel_groups)
        try:
            yield
        except Exception:
            self.current_step = step
            self.num_heads.update(heads)
            self.out_channel_groups.update(widths)
            put_back(rates)
            raise

    def _asked(self) -> bool:
        ratios = [self.per_step_pruning_ratio, *self.pruning_ratio_dict.values()]
        ratios += [self.per_step_head_pruning_ratio, *self.head_pruning_ratio_dict.values()]
        return any(each[self.current_step] > 0 for each in ratios)

    def _groups_seen(self) -> str:
        told = []
        for group in self.DG.get_all_groups(
            ignored_layers=self.ignored_layers, root_module_types=self.root_module_types
        ):
            scores = self.estimate_importance(group)
            if scores is None:
                told.append(f"{self._name(group)} (its importance is None, which skips it)")
            elif len(scores) > 1 and float(scores.min()) == float(scores.max()):
                told.append(f"{self._name(group)} (all {len(scores)} scores tie, so global pruning drops none)")
            else:
                told.append(f"{self._name(group)} ({len(scores)} channels)")
        if not told:
            return "there is no group of channels at all, or each has a layer that is ignored"
        return f"there are {len(told)} groups: {', '.join(told)}"

    def _name(self, group: Group) -> str:
        return str(self.DG._module2name.get(group[0].dep.target.module, "?"))


@contextmanager
def _freezing(model: nn.Module) -> Iterator[None]:
    """What is frozen stays so: Torch-Pruning's new tensors all have gradients."""
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    try:
        yield
    finally:
        for name in frozen:
            model.get_parameter(name).requires_grad_(False)


class SpikingPruner(_Spiking):
    """Torch-Pruning's `BasePruner` for a spiking network in either step mode: the same arguments, in the same order.

    What differs: `ignored_layers` takes types as well as modules and parameters, and `unwrapped_parameters` a dict as
    well as pairs, as Torch-Pruning's docstring promises; dicts are never shared between pruners; neurons are part of
    the groups, so their thresholds, time constants and buffers are cut; `step()` reports what it removed, proves that
    the rest computes as before, or raises and leaves the model as it was; train flags, hooks and memories survive the
    trace. Further keyword arguments:

    * `trace`: `s` follows one time step, `m` the code as it stands, `auto` the first of the two that works.
    * `verify`: whether each cut is compared with the dense model in which the same channels are silent. This takes a
      copy of the model and a few forward passes on an input like `example_inputs`.
    * `neuron_types`: classes of one's own that are spiking neurons; those of SpikingJelly are known.

    `example_inputs` is what the model takes, (T, N, ...) in multi-step mode, and `forward_fn(model, example_inputs)`
    how it is called, where that is not `model(x)`; resetting is done here. Put the output layer into `ignored_layers`.

    Raises:
        BadOption: a pruning ratio outside [0, 1], something that cannot be ignored, or one of the two importances of
            Torch-Pruning that cannot score such a model: its OBDCImportance none, ActivationImportance none over time.
        CannotCut: the model cannot be traced.

    Example:
        >>> from spikingjelly.activation_based import layer, neuron
        >>> model = nn.Sequential(layer.Linear(4, 8, step_mode="m"), neuron.LIFNode(step_mode="m"), nn.Linear(8, 2))
        >>> importance = tp.importance.MagnitudeImportance(p=2)
        >>> pruner = SpikingPruner(model, torch.rand(4, 1, 4), importance, pruning_ratio=0.5, ignored_layers=[model[2]])
        >>> len(pruner.step().channels["0"]), model[2].in_features
        (4, 4)
    """


class SpikingGroupNormPruner(_Spiking, tp.pruner.GroupNormPruner):  # type: ignore[misc]
    """Torch-Pruning's `GroupNormPruner` for a spiking network; `SpikingPruner` says what differs."""

    _groups: list[Group]

    def regularize(self, model: nn.Module, alpha: float = 2**4, bias: bool = False) -> None:
        """Adds the penalty to the gradients; call it after `loss.backward()`.

        Groups that the importance skips, or whose channels all score the same, are left alone: Torch-Pruning fails on
        the first and makes NaN of the gradients of the second.

        Args:
            model: the model.
            alpha: how much harder the weakest channel is drawn to zero than the strongest.
            bias: whether biases are too.
        """
        every = self._groups
        self._groups = [group for group in every if self._ranks(group)]
        try:
            super().regularize(model, alpha=alpha, bias=bias)
        finally:
            self._groups = every

    def _ranks(self, group: Group) -> bool:
        scores = self.estimate_importance(group)
        return scores is not None and float(scores.min()) < float(scores.max())


class SpikingBNScalePruner(_Spiking, tp.pruner.BNScalePruner):  # type: ignore[misc]
    """Torch-Pruning's `BNScalePruner` for a spiking network; `SpikingPruner` says what differs."""

    _groups: list[Group]

    def regularize(self, model: nn.Module, reg: float | None = None, bias: bool = False) -> None:
        """Adds the penalty to the gradients of the scales; call it after `loss.backward()`.

        Groups without batch norm are left alone; with `group_lasso` Torch-Pruning fails on them.

        Args:
            model: the model.
            reg: in place of the pruner's own.
            bias: without effect, as in Torch-Pruning.
        """
        every = self._groups
        self._groups = [group for group in every if not self.group_lasso or self._l2_imp(group) is not None]
        try:
            super().regularize(model, reg=reg, bias=bias)
        finally:
            self._groups = every


class SpikingGrowingRegPruner(_Spiking, tp.pruner.GrowingRegPruner):  # type: ignore[misc]
    """Torch-Pruning's `GrowingRegPruner` for a spiking network; `SpikingPruner` says what differs."""


def _signature(theirs: Callable[..., Any]) -> inspect.Signature:
    own = [p for p in inspect.signature(_Spiking.__init__).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return inspect.Signature([*inspect.signature(theirs).parameters.values(), *own])


for _class, _theirs in (
    (SpikingPruner, tp.pruner.BasePruner),
    (SpikingGroupNormPruner, tp.pruner.GroupNormPruner),
    (SpikingBNScalePruner, tp.pruner.BNScalePruner),
    (SpikingGrowingRegPruner, tp.pruner.GrowingRegPruner),
):
    _class.__signature__ = _signature(_theirs)
