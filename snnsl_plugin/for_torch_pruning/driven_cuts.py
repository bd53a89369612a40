"""Torch-Pruning's own pruners, and ours of their form, driven by the steps of a loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import matched, weight_layers
from snnsl_plugin.compaction.optimizer_state import following
from snnsl_plugin.compaction.silence import copied
from snnsl_plugin.errors import BadCheckpoint, BadOption, NothingMatched, UnknownName
from snnsl_plugin.for_torch_pruning.builtin import importance, measured, ratio
from snnsl_plugin.for_torch_pruning.driver import DrivenPruner, checked, nobody_asks, sizes
from snnsl_plugin.for_torch_pruning.pruners import (
    SpikingBNScalePruner,
    SpikingGroupNormPruner,
    SpikingGrowingRegPruner,
    SpikingPruner,
)
from snnsl_plugin.for_torch_pruning.scopes import scope_of
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.timetable import Timetable

PRUNERS: Mapping[str, type[SpikingPruner]] = {
    "base": SpikingPruner,
    "spiking": SpikingPruner,
    "group_norm": SpikingGroupNormPruner,
    "bn_scale": SpikingBNScalePruner,
    "growing_reg": SpikingGrowingRegPruner,
}
_REGULARIZING = ("group_norm", "bn_scale", "growing_reg")


class DrivenCuts(DrivenPruner):
    """A pruner that cuts in a few steps and grows nothing back; see `DrivenPruner` for how to use it.

    Args:
        model: from (T, N, ...) to (T, N, K); cut in place.
        optimizer: over all its parameters.
        name: of the pruner, one of `PRUNERS`.
        scores: name of the importance.
        scores_options: of the importance.
        channels: share of the channels of each group that is kept in the end, in (0, 1).
        when: start of the way to the first cut (and of the regularization), the last cut, and steps between two
            additions of a growing penalty.
        total_steps: of the whole training.
        iterative_steps: number of cuts, at equal distances.
        per_layer: other shares, by shell-style pattern.
        alpha: GroupNormPruner draws the weakest channel 2^alpha times as hard as the strongest.
        options: of Torch-Pruning's pruner: `global_pruning`, `isomorphic`, `round_to`, `reg`, ...
        **common: see `DrivenPruner`.

    Raises:
        BadOption: times that leave no room for the cuts, or a share that leaves no channel.
        UnknownName: no such pruner or importance.
        NothingMatched: a pattern that matches no layer, or no channel that may go.
        CannotCut: Torch-Pruning cannot follow this model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        name: str,
        *,
        scores: str,
        scores_options: Mapping[str, Any],
        channels: float,
        when: Timetable,
        total_steps: int,
        iterative_steps: int = 1,
        per_layer: Mapping[str, float] | None = None,
        alpha: float | None = None,
        options: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(model, optimizer, **common)
        if name not in PRUNERS:
            raise UnknownName("pruner of Torch-Pruning", name, PRUNERS)
        self._kind, self._scores, self._when, self._alpha = name, scores, when, alpha
        self._cuts = _equally(when, iterative_steps, total_steps)
        self._importance = importance(scores, **scores_options)
        self._shares = {
            layer: share
            for pattern, share in (per_layer or {}).items()
            for layer in matched(list(self.dense), [pattern], self._ignored)
        }
        self._done = 0
        #: by cut: name of a layer, whether its outputs went, and their indices at that time
        self._roots: list[list[list[Any]]] = []
        self._options = {"pruning_ratio": ratio(channels), "iterative_steps": iterative_steps, **(options or {})}
        self._pruner = self._made(model, self._importance)
        groups = self._groups(self._pruner)
        if not groups:
            raise NothingMatched(
                "no group of channels may go: every one has a layer that keeps its channels; see layers and exclude"
            )
        together = bool(self._options.get("global_pruning"))
        if not together:
            self._check_counts(groups)
        plan = self._tried()
        self._plan = None if together else plan

    # -------------------------------------------------------------------------------------------- what a loop needs

    @property
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that lose channels: their own, or inputs that others no longer give."""
        layers = weight_layers(self._model)
        lose = {dependency.target.module for group in self._groups(self._pruner) for dependency, _ in group}
        return [name for name, layer in layers.items() if layer in lose]

    @property
    def until(self) -> int:
        """The step of the last cut; a cut that waits for a step of the optimizer puts it off."""
        if self._cut_at is not None and self._done == len(self._cuts):
            return self._cut_at
        return max(self._cuts[-1], self.step_number + 1 if self.step_number >= self._cuts[-1] else 0)

    @property
    def requested(self) -> dict[str, int]:
        """Weights that Torch-Pruning's formula leaves, by layer; empty where groups are ranked together."""
        return self._plan[-1] if self._plan else {}

    def planned_density(self, step: int) -> float | None:
        """The density that this formula comes to after a step, in (0, 1]; None where all groups are ranked together."""
        done = sum(at <= step for at in self._cuts)
        if not done:
            return 1.0
        return sum(self._plan[done - 1].values()) / sum(self.dense.values()) if self._plan else None

    def regularize_(self) -> None:
        """Adds Torch-Pruning's penalty to the gradients, from the start to the last cut."""
        since = self.step_number - self._when.start
        if self._kind not in _REGULARIZING or since < 0 or self._done == len(self._cuts):
            return
        if self._kind == "growing_reg" and since and since % self._when.every == 0:
            self._pruner.update_reg()
        with torch.no_grad():
            if self._alpha is not None:
                self._pruner.regularize(self._model, alpha=2.0**self._alpha)
            else:
                self._pruner.regularize(self._model)

    def finish(self) -> None:
        """Nothing is left to do: what was cut is gone."""

    def state_dict(self) -> dict[str, Any]:
        """Steps, what was cut, and the penalties."""
        return {
            "pruner": self._kind,
            "cuts": list(self._cuts),
            "step": self.step_number,
            "done": self._done,
            "cut_at": self._cut_at,
            "roots": self._roots,
            "scopes": dict(self._pruner._scope_initial_channels),
            "penalties": [self._pruner.group_reg[group] for group in self._pruner._groups]
            if self._kind == "growing_reg"
            else [],
        }

    def load_state_dict(self, state: dict[str, Any], *, at_each_cut: Callable[[], None] = nobody_asks) -> None:
        """Goes on from `state_dict`; see `DrivenPruner`."""
        checked(state, {"pruner": self._kind, "cuts": list(self._cuts)})
        try:
            for roots in state["roots"]:
                with following(self._model, self._optimizer), self.history:
                    self._pruner.load_pruning_history([(name, out, idxs) for name, out, idxs in roots])
                self._roots.append(roots)
                at_each_cut()
        except (AttributeError, KeyError, IndexError, RuntimeError, ValueError) as error:
            raise BadCheckpoint(
                f"this pruner state does not fit the model ({type(error).__name__}: {error}): resume with the model "
                "it was made by"
            ) from error
        self._pruner._scope_initial_channels = dict(state["scopes"])
        self._pruner.current_step = self._done = state["done"]
        self.step_number, self._cut_at = state["step"], state["cut_at"]
        self._pruner.update_regularizer()
        if state["penalties"]:
            self._pruner.group_reg = dict(zip(self._pruner._groups, state["penalties"], strict=True))

    # ------------------------------------------------------------------------------------------------------- inside

    def _advance(self, applied: bool) -> MaskUpdate | None:
        if not applied or self._done == len(self._cuts) or self.step_number < self._cuts[self._done]:
            return None
        before = self.kept
        with measured(self._scores, self._importance, self._model, lambda: self._draw(self._batches)):
            known = len(self._pruner.pruning_history())
            self._cutting(self._pruner.step)
        new = self._pruner.pruning_history()[known:]
        self._roots.append([[name, bool(out), [int(index) for index in idxs]] for name, out, idxs in new])
        self._done += 1
        self._cut_at = self.step_number
        self._pruner.update_regularizer()
        return self._changed(self._done / len(self._cuts), before, {})

    def _made(self, model: nn.Module, scores: Any, **others: Any) -> SpikingPruner:
        ratios = {model.get_submodule(name): ratio(share) for name, share in self._shares.items()}
        return PRUNERS[self._kind](
            model,
            self._example,
            importance=scores,
            ignored_layers=[model.get_submodule(name) for name in self._ignored],
            pruning_ratio_dict=ratios,
            **(self._options | others),
        )

    @staticmethod
    def _groups(pruner: SpikingPruner) -> list[Any]:
        return list(
            pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types)
        )

    def _check_counts(self, groups: list[Any]) -> None:
        """Torch-Pruning passes a group over, without a word, where a cut would leave no channel to it."""
        roots = {self._pruner.DG._module2name[group[0].dep.target.module]: group for group in groups}
        for name in (layer for layer in self.dense if layer in roots):
            group = roots[name]
            module = scope_of(self._pruner, group)[1]
            ratios = self._pruner.pruning_ratio_dict.get(module, self._pruner.per_step_pruning_ratio)
            count = len(group[0].idxs) // self._pruner._get_channel_groups(group)
            kept = int(count * (1.0 - ratios[-1]))
            if kept - kept % (self._pruner.round_to or 1) == 0:
                raise BadOption(
                    f"channels: the cuts would leave no channel to {name!r}, which has {count}: keep more of it by "
                    "per_layer, exclude it, or lower round_to"
                )

    def _tried(self) -> list[dict[str, int]]:
        """Weights by layer after each cut of a copy, ranked by layer: scores decide which channels go, not how many.

        The first cut is verified: what cannot be cut is better refused before the network trains.
        """
        copy = copied(self._model)
        ranked = self._importance if self._scores == "bn_scale" else _any_scores
        pruner = self._made(copy, ranked, global_pruning=False, isomorphic=False)
        pruner.step()
        plan = [sizes(copy)]
        for _ in self._cuts[1:]:
            for group in pruner.step(interactive=True):
                group.prune()
            plan.append(sizes(copy))
        return plan


def _equally(when: Timetable, number: int, total_steps: int) -> list[int]:
    if when.until >= total_steps:
        raise BadOption(
            f"until is step {when.until} and the training ends at step {total_steps}, so nothing would be trained "
            "after the last cut: let it be earlier"
        )
    if when.until - when.start < number:
        raise BadOption(
            f"iterative_steps={number}: from start (step {when.start}) to until (step {when.until}) there are only "
            f"{when.until - when.start} steps: ask for fewer cuts, or for a longer way"
        )
    return [when.start + round((when.until - when.start) * cut / number) for cut in range(1, number + 1)]


def _any_scores(group: Any) -> torch.Tensor:
    return torch.arange(len(group[0].idxs), dtype=torch.float32)
