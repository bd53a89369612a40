"""The SpikingDynamicPruner, driven by the steps of a loop: channels are dropped and regrown, then cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import matched, weight_layers
from snnsl_plugin.compaction.optimizer_state import following
from snnsl_plugin.core.layer import Growth, Schedule
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_torch_pruning.builtin import importance, measured, ratio
from snnsl_plugin.for_torch_pruning.driver import DrivenPruner, checked, nobody_asks
from snnsl_plugin.for_torch_pruning.dynamic import SpikingDynamicPruner
from snnsl_plugin.for_torch_pruning.scopes import shares
from snnsl_plugin.for_torch_pruning.units import Units
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.newborn import NewbornV
from snnsl_plugin.training.timetable import Timetable


class DrivenDynamic(DrivenPruner):
    """Masks channels and lets others return while the network trains, and cuts at its last update.

    See `DrivenPruner` for how to use it. There are as many updates as fit between start and until; the last one masks
    what is then cut, at the same step.

    Args:
        model: from (T, N, ...) to (T, N, K); cut in place.
        optimizer: over all its parameters.
        scores: name of the importance.
        scores_options: of the importance.
        channels: share of the channels of each group that is kept in the end, in (0, 1).
        when: start, until, and steps between updates.
        total_steps: of the whole training.
        seed: of the random choices.
        per_layer: other shares, by shell-style pattern.
        schedule: name of the shape of the way there, e.g. `cubic`.
        swap: share of the survivors that is exchanged, by progress; the pruner's own where None.
        growth: what a channel returns for.
        newborn_v: second moment of a regrown channel in Adam, `zero` or `layer_mean`.
        options: of Torch-Pruning: `global_pruning`, `isomorphic`, `round_to`.
        **common: see `DrivenPruner`.

    Raises:
        BadOption: times that leave no update, or a share that leaves no channel.
        UnknownName: no such importance.
        NothingMatched: a pattern that matches no layer.
        NothingRemoved: no channel that may go.
        CannotCut: Torch-Pruning cannot follow this model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        scores: str,
        scores_options: Mapping[str, Any],
        channels: float,
        when: Timetable,
        total_steps: int,
        seed: int = 0,
        per_layer: Mapping[str, float] | None = None,
        schedule: str = "cubic",
        swap: Schedule | None = None,
        growth: Growth | str = "gradient",
        newborn_v: NewbornV = "zero",
        options: Mapping[str, Any] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(model, optimizer, **common)
        self._scores, self._when = scores, when
        updates = (when.until - when.start) // when.every
        if not updates:
            raise BadOption(
                f"every is {when.every} steps, and from start (step {when.start}) to until (step {when.until}) there "
                f"are {when.until - when.start}: update more often, or start earlier"
            )
        self._last = when.start + updates * when.every
        if self._last >= total_steps:
            raise BadOption(
                f"until is step {when.until} and the training ends at step {total_steps}, so nothing would be trained "
                "after the cut: let it be earlier"
            )
        self._importance = importance(scores, **scores_options)
        shares_of = {
            model.get_submodule(layer): ratio(share)
            for pattern, share in (per_layer or {}).items()
            for layer in matched(list(self.dense), [pattern], self._ignored)
        }
        swapped: dict[str, Any] = {} if swap is None else {"swap": swap}
        self._pruner = SpikingDynamicPruner(
            model,
            self._example,
            self._importance,
            pruning_ratio=ratio(channels),
            pruning_ratio_dict=shares_of,
            iterative_steps=updates,
            ignored_layers=[model.get_submodule(name) for name in self._ignored],
            optimizer=optimizer,
            interval=when.every,
            schedule=schedule,
            growth=growth,
            newborn_v=newborn_v,
            seed=seed,
            **swapped,
            **(options or {}),
        )
        self._postponed = False
        self._shapes = {name: layer.weight.shape for name, layer in weight_layers(model).items()}
        changed = self._living({units.name: torch.arange(units.count) > 0 for units in self._pruner.units})
        self._prunable = [name for name, mask in changed.items() if not mask.all()]
        self._plan = None if self._pruner.global_pruning else [self._planned(n) for n in range(1, updates + 1)]

    # -------------------------------------------------------------------------------------------- what a loop needs

    @property
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that lose channels: their own, or inputs that others no longer give."""
        return self._prunable

    @property
    def kept(self) -> dict[str, int]:
        """Weights of living channels, by layer: those that are left once the others are cut."""
        return super().kept if self._cut_at is not None else _counts(self._living(self._pruner.masks))

    @property
    def until(self) -> int:
        """The step of the cut; it is put off by steps that the optimizer skips."""
        return self._cut_at if self._cut_at is not None else max(self._last, self.step_number + 1)

    @property
    def requested(self) -> dict[str, int]:
        """Weights that are to be left, by layer; empty where groups are ranked together."""
        return self._plan[-1] if self._plan else {}

    def planned_density(self, step: int) -> float | None:
        """The density asked for after a step, in (0, 1]; None where groups are ranked together."""
        done = max(0, min(step, self._last) - self._when.start) // self._when.every
        if not done:
            return 1.0
        return sum(self._plan[done - 1].values()) / sum(self.dense.values()) if self._plan else None

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """Masks of the parameters of channels that may return; none once they are cut."""
        return self._pruner.by_parameter() if self._cut_at is None else {}

    def finish(self) -> None:
        """Nothing is left to do: what was masked has been cut."""

    def state_dict(self) -> dict[str, Any]:
        """Steps, and which channels live or lived at the cut."""
        return {
            "pruner": "spiking_dynamic",
            "when": [self._when.start, self._last, self._when.every],
            "step": self.step_number,
            "born": self.born,
            "cut_at": self._cut_at,
            "postponed": self._postponed,
            "units": self._pruner.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], *, at_each_cut: Callable[[], None] = nobody_asks) -> None:
        """Goes on from `state_dict`; see `DrivenPruner`."""
        checked(state, {"pruner": "spiking_dynamic", "when": [self._when.start, self._last, self._when.every]})
        self._pruner.load_state_dict(state["units"])
        if state["cut_at"] is not None:
            with following(self._model, self._optimizer), self.history:
                self._pruner.finish()
            at_each_cut()
        self.step_number, self.born, self._cut_at = state["step"], state["born"], state["cut_at"]
        self._postponed = state["postponed"]

    # ------------------------------------------------------------------------------------------------------- inside

    def _advance(self, applied: bool) -> MaskUpdate | None:
        if self._cut_at is not None or self.step_number <= self._when.start:
            return None
        due = self._postponed or (self.step_number - self._when.start) % self._when.every == 0
        self._postponed = due and not applied
        if not (due and applied):
            self._pruner.step(applied=applied)
            return None
        before = self._living(self._pruner.masks)
        # Importances that read gradients get those of this step, as growth does.
        draw = partial(self._draw, self._batches)
        with measured(self._scores, self._importance, self._model, draw, gradients=False):
            update = self._pruner.step()
        if update is None:
            return None
        now = self._living(self._pruner.masks)
        if update.update == update.updates:
            self._cutting(self._pruner.finish)
            self._cut_at = self.step_number
        born = {name: int((mask & ~before[name]).count_nonzero()) for name, mask in now.items()}
        return self._changed(update.update / update.updates, _counts(before), born)

    def _planned(self, update: int) -> dict[str, int]:
        """Weights by layer that Torch-Pruning's formula leaves at an update; scores decide which, not how many."""
        alive: dict[str, Tensor] = {}
        for scope, groups in self._pruner._scopes.items():
            whole = {units.name: torch.ones(units.count, dtype=torch.bool) for units in groups}
            scores = {name: torch.arange(len(mask), 0, -1).double() for name, mask in whole.items()}
            keep = self._pruner._kept(scope, groups, update)
            counts = shares(groups, scores, whole, keep, round_to=self._pruner.round_to, growth=_nothing_grows)
            alive |= {units.name: torch.arange(units.count) < counts[units.name] for units in groups}
        return _counts(self._living(alive))

    def _living(self, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights that living channels write and read, by layer: bool, the weight's shape in the dense network."""
        living = {name: torch.ones(self._shapes[name], dtype=torch.bool) for name in self.dense}
        graph = self._pruner.DG
        for units in self._pruner.units:
            masked = units.channels(~alive[units.name])
            for item in graph.get_pruning_group(units.root, units.prune, masked).items if masked else []:
                name = graph._module2name.get(item.dep.target.module)
                if name not in living:
                    continue
                mask, idxs = living[name], torch.tensor([int(index) for index in item.idxs])
                if graph.is_out_channel_pruning_fn(item.dep.handler):
                    mask[idxs] = False
                else:  # a grouped convolution has columns for the channels of one of its groups only
                    mask[:, idxs % mask.shape[1]] = False
        return living


def _counts(living: Mapping[str, Tensor]) -> dict[str, int]:
    return {name: int(mask.count_nonzero()) for name, mask in living.items()}


def _nothing_grows(units: Units) -> Tensor:
    return torch.zeros(units.count)
