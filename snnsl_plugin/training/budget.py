"""What a network may cost in the end: live connections, SynOps per sample, or energy, found by measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import as_found
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.metrics.measure import Operations, operations
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.pooling import over_ranks

#: A budget counts as met where what was measured is within this share of it.
TOLERANCE = 0.02
#: Samples that are enough to steer by while the density still falls.
_FEW = 256

Inputs: TypeAlias = Callable[[], Iterable[Tensor]]
_WORDS = {
    "connections": "live connections",
    "synops": "SynOps per sample",
    "energy": "pJ per sample in the energy model",
}


@dataclass(frozen=True)
class Budget:
    """A quantity and how much of it there may be.

    Attributes:
        name: `connections` (weights on a live path, a count), `synops` (per sample, over all time steps) or `energy`
            (the total of the energy model, pJ per sample); each as in `metrics.definitions`.
        amount: how much, > 0.
        inputs: gives batches (T, N, ...) to measure operations on, the same ones at each call; best the data on which
            the budget is judged, e.g. a validation part. Labels are not asked for. Connections need none.

    Raises:
        BadOption: another name, an amount that is not above 0, operations without inputs.
    """

    name: Literal["connections", "synops", "energy"]
    amount: float
    inputs: Inputs | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.name not in _WORDS:
            raise BadOption(f"budget {self.name!r}: choose one of {', '.join(_WORDS)}")
        if not 0 < self.amount < math.inf:
            raise BadOption(f"a budget of {self.amount} {_WORDS[self.name]} must be a finite number above 0")
        if self.name != "connections" and self.inputs is None:
            raise BadOption(
                f"a budget in {_WORDS[self.name]} is met by measuring: give inputs, a function that returns batches "
                "(T, N, ...), e.g. of the validation part"
            )

    def __str__(self) -> str:
        return f"{self.amount:,.6g} {_WORDS[self.name]}"

    def missed(self, measured: float) -> float:
        """By which share of the budget a measured amount misses it: 0 within the tolerance, else above it."""
        share = abs(measured / self.amount - 1.0)
        return 0.0 if share <= TOLERANCE else share

    def check(self, model: nn.Module, total: int, *, paths: bool) -> None:
        """Refuses, before anything is trained, what no mask could meet.

        Args:
            model: untrained; it is left as it was.
            total: weights of the dense network.
            paths: whether live paths are traced.

        Raises:
            BadOption: more connections than there are, or nobody who finds them; less energy than the neurons alone
                take.
        """
        if self.name == "connections" and not paths:
            raise BadOption("a budget in live connections needs paths=True: live paths are what it counts")
        if self.name == "connections" and self.amount > total:
            raise BadOption(f"a budget of {self} cannot be met: the dense network has {total:,} weights")
        if self.name == "energy":
            # Known from one batch, whatever other ranks see: no collective call.
            fixed = self._operations(model, {}, 1).energy_pj["neuron"]
            if fixed >= self.amount:
                raise BadOption(
                    f"a budget of {self} cannot be met: the updates of the neurons alone take {fixed:,.0f} pJ, "
                    "whatever is pruned; allow more, or take fewer time steps or a smaller network"
                )

    def spent(
        self, model: nn.Module, masks: Mapping[str, Tensor], example: Tensor | None, *, few: bool
    ) -> tuple[float, float]:
        """What the network costs now, over all ranks: a collective call where there are several.

        Args:
            model: measured in eval mode and left as it was.
            masks: bool, by dotted parameter name.
            example: an input of one sample, for connections.
            few: whether some of the inputs are enough.

        Returns:
            The amount, and how much of it no mask can change (the updates of neurons).
        """
        if self.name != "connections":
            found = self._operations(model, masks, _FEW if few else None)
            spent = found.synops if self.name == "synops" else found.energy_pj["total"]
            fixed = 0.0 if self.name == "synops" else found.energy_pj["neuron"]
            own = torch.tensor([spent, fixed], dtype=torch.float64) * found.samples
            device = next(model.parameters()).device
            total, seen = over_ranks({"spent": (own, float(found.samples))}, device)["spent"]
            return float(total[0]) / seen, float(total[1]) / seen
        if example is None:
            raise MissingStatistic(
                "the pruner saw no forward pass of its model, so live connections cannot be counted: call the model, "
                "not a part of it"
            )
        return float(live_paths(model, example, masks=dict(masks)).connections), 0.0

    def _operations(self, model: nn.Module, masks: Mapping[str, Tensor], samples: int | None) -> Operations:
        inputs = self.inputs() if self.inputs else ()
        with as_found(model):
            return operations(model, _first(inputs, samples), masks=masks)


def _first(inputs: Iterable[Tensor], samples: int | None) -> Iterator[Tensor]:
    """The first batches that have so many samples together; all of them for None."""
    seen = 0
    for x in inputs:
        yield x
        seen += x.shape[1]
        if samples is not None and seen >= samples:
            return
