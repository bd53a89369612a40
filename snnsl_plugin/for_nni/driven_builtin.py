"""NNI's own pruners, driven by the steps of a loop that is not NNI's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import matched, weight_layers, weight_name
from snnsl_plugin.core import masks as mask_functions
from snnsl_plugin.for_nni.builtin import builtin, kept
from snnsl_plugin.for_nni.driver import DrivenPruner
from snnsl_plugin.for_nni.norms import norms_to_prune
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.timetable import Timetable

#: A pruner that ranks anew at every step is told of every so many.
_TELL_EVERY = 10


class DrivenBuiltin(DrivenPruner):
    """One of NNI's own pruners; see `DrivenPruner` for how to use it.

    Args:
        model: from (T, N, ...) to (T, N, K); wrapped in place.
        optimizer: its class; NNI makes it anew.
        optimizer_options: of that class.
        name: of the pruner, e.g. `agp_level`; see `builtin.BUILTIN`.
        density: kept / all of the prunable weights at the end, in (0, 1]; NNI's sparse ratio is 1 - density.
        when: start, until, and steps between updates.
        total_steps: of the whole training.
        example: an input of the model, (T, N, ...).
        layers: shell-style patterns of the convolutions and linear layers to prune.
        exclude: patterns to leave dense; where None, the last layer where whole channels are pruned, else none.
        **options: of NNI's pruner (`regular_scale`), or of its config list (`granularity`).

    Raises:
        BadOption: times that leave no update.
        UnknownName: no such pruner.
        NothingMatched: a pattern that matches no layer, or a layer without the norm that is to be pruned.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: type[Optimizer],
        optimizer_options: Mapping[str, Any],
        name: str,
        *,
        density: float,
        when: Timetable,
        total_steps: int,
        example: Tensor,
        layers: Sequence[str] = ("*",),
        exclude: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        self._kind = kind = builtin(name)
        course = kind.course(when)
        # Some count the steps before their start themselves.
        begins_at = 0 if kind.warms_up else course.start
        super().__init__(model, optimizer, optimizer_options, course, begins_at=begins_at, total_steps=total_steps)
        self._example = example[:, :1].detach().clone()
        self._density = density
        # 1 - 0.9 is 0.0999..., of which int() would take one weight too few.
        self._ratio = round(1.0 - density, 12)
        granularity = options.pop("granularity", None)
        self._by_channel = kind.by_channel and granularity is None
        names = list(weight_layers(model))
        if exclude is None:
            exclude = names[-1:] if self._by_channel else ()
        self._prunable = matched(names, layers, exclude)
        self._norms: dict[str, list[str]] = {}
        targets = self._prunable
        if kind.of_norms:
            named = list(layers) != ["*"]
            self._norms = norms_to_prune(model, self._prunable, self._example, all_needed=named)
            self._prunable = list(self._norms)
            targets = [norm for norms in self._norms.values() for norm in norms]
        entry: dict[str, Any] = {"op_names": targets, "sparse_ratio": self._ratio}
        if granularity is not None:
            entry["granularity"] = granularity
        self._host(kind.build(model, [entry], self._evaluator, course, options))
        self._seen = {name: self._mask(name) for name in self._prunable}
        self._since_event: dict[str, Counter[str]] = {"born": Counter(), "dropped": Counter()}
        self._begin_if_due()

    @property
    def requested(self) -> dict[str, int]:
        """Weights that NNI's formula leaves at the end, by layer."""
        return self.planned_counts()

    def planned_density(self, step: int) -> float | None:
        """The density over all layers that NNI's counts come to after a step, in (0, 1]."""
        counts = self._counts(self._ratio * self._kind.share(self._course.progress(step)))
        sizes = {name: shape.numel() for name, shape in self._shapes.items()}
        return sum((sizes | counts).values()) / sum(sizes.values())

    def planned_counts(self) -> dict[str, int]:
        """Weights that NNI's formula leaves at the end, by layer."""
        return self._counts(self._ratio)

    def _counts(self, ratio: float) -> dict[str, int]:
        return {name: kept(self._shapes[name], ratio, by_channel=self._by_channel) for name in self._prunable}

    def _mask(self, name: str) -> Tensor:
        if name in self._prunable and not self._norms:
            return self._kept(name)
        whole = torch.ones(self._shapes[name], dtype=torch.bool, device=self._modules[name].weight.device)
        for norm in self._norms.get(name, []):
            # What a scale of zero is multiplied with has no say in any output.
            whole &= self._kept(norm).view(-1, *[1] * (whole.dim() - 1))
        return whole

    def _kept(self, module: str) -> Tensor:
        mask: Tensor = self._wrappers[module].pruning_target_spaces["weight"].mask
        return mask != 0

    def _begin(self) -> None:
        if self._kind.one_shot:
            self._pruner.compress()
            self._evaluator.unbind_model()
            self._bound = False
        else:
            super()._begin()

    def _implied(self) -> dict[str, dict[str, Tensor]]:
        return {name: {"weight": self._mask(name)} for name in self._norms}

    @torch.no_grad()
    def _looked(self, own: int) -> MaskUpdate | None:
        # Masks that were made before training are told of after its first step.
        first = self._course.start == self._course.until == 0 and own == 1
        if not first and not self._course.due(own):
            return None
        for name, before in self._seen.items():
            self._seen[name] = now = self._mask(name)
            self._since_event["born"][name] += int(mask_functions.grown(before, now).count_nonzero())
            self._since_event["dropped"][name] += int(mask_functions.grown(now, before).count_nonzero())
        if not self._course.settled and own not in (self._course.until, self._total) and own % _TELL_EVERY:
            return None
        counts, self._since_event = self._since_event, {"born": Counter(), "dropped": Counter()}
        self.born += counts["born"].total()
        masks = self.masks
        live = live_paths(self._model, self._example, masks=masks).live
        return MaskUpdate(
            step=self.step_number,
            progress=self._course.progress(own),
            density=mask_functions.density(masks.values()),
            layers={name: mask_functions.density([masks[weight_name(name)]]) for name in self._modules},
            connections=sum(int(mask.count_nonzero()) for mask in live.values()),
            born={name: counts["born"][name] for name in self._modules},
            dropped={name: counts["dropped"][name] for name in self._modules},
        )
