"""The dynamic pruner of this package through NNI's door, driven by the steps of a loop that is not NNI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import matched, weight_name
from snnsl_plugin.for_nni.builtin import repeated
from snnsl_plugin.for_nni.driver import DrivenPruner
from snnsl_plugin.for_nni.hosted import HostedPruner
from snnsl_plugin.for_nni.pruner import SpikingDynamicPruner
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.timetable import Timetable


class DrivenDynamic(DrivenPruner):
    """A SpikingDynamicPruner; see `DrivenPruner` for how to use it.

    Args:
        model: from (T, N, ...) to (T, N, K); wrapped in place.
        optimizer: its class; NNI makes it anew.
        optimizer_options: of that class.
        rule: a rule of the registry.
        density: kept / all of the prunable weights at the end, in (0, 1]; None for a rule whose density is an outcome.
        when: start, until, and steps between updates.
        total_steps: of the whole training.
        layers: shell-style patterns of the convolutions and linear layers to prune.
        exclude: patterns to leave dense.
        **options: of SpikingDynamicPruner and of the rule: `schedule`, `seed`, `criterion`, ...

    Raises:
        UsageError: see `SpikingDynamicPruner`.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: type[Optimizer],
        optimizer_options: Mapping[str, Any],
        rule: str,
        *,
        density: float | None,
        when: Timetable,
        total_steps: int,
        layers: Sequence[str] = ("*",),
        exclude: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        # It holds dead weights at zero to the very end, and counts the steps before its start itself.
        course = replace(repeated(when), settled=False)
        super().__init__(model, optimizer, optimizer_options, course, begins_at=0, total_steps=total_steps)
        self._density = density
        self._prunable = matched(list(self._modules), layers, exclude or ())
        entry: dict[str, Any] = {"op_names": self._prunable}
        if density is not None:
            entry["sparse_ratio"] = round(1.0 - density, 12)
        self._nni = SpikingDynamicPruner(
            model,
            [entry],
            self._evaluator,
            interval_steps=course.every,
            total_times=course.times,
            start_step=course.start,
            rule=rule,
            **options,
        )
        self._nni.total_steps = total_steps
        self._host(self._nni)
        self._begin_if_due()

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask of every layer, bool, by unwrapped dotted parameter name; all True where nothing is pruned."""
        return self._dynamic.masks

    @property
    def requested(self) -> dict[str, int]:
        """Weights asked for at the last update, by layer."""
        return self._dynamic.requested

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """The masks by the parameter that the optimizer sees: here dead weights have gradients."""
        return self._dynamic.by_parameter()

    def round_position(self, step: int) -> float | None:
        """Where the learning rate stands after a step, as `DynamicPruner` says it."""
        return self._dynamic.round_position(step)

    def score_optimizer(self) -> Optimizer | None:
        """What a loop that scales its loss unscales too, as `DynamicPruner` says it."""
        return self._dynamic.score_optimizer()

    def planned_density(self, step: int) -> float | None:
        """The density over all layers asked for after a step; None where it is an outcome."""
        return self._dynamic.planned_density(step)

    def planned_counts(self) -> dict[str, int]:
        """Weights to keep per layer at the end, as they would be shared now; empty where that is an outcome."""
        return self._dynamic.planned_counts()

    @property
    def _dynamic(self) -> HostedPruner:
        return cast(HostedPruner, self._nni.dynamic)  # there since the machinery began, in the constructor

    def _mask(self, name: str) -> Tensor:
        return self.masks[weight_name(name)]

    def _looked(self, own: int) -> MaskUpdate | None:
        event, self._nni.event = self._nni.event, None
        self.born = self._dynamic.born
        return replace(event, step=self.step_number) if event else None
