"""NNI's sparse ratios as a density schedule and a distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from nni.compression.base.target_space import PruningTargetSpace
from torch import Tensor

from snnsl_plugin.core.layer import Distribution, Layer
from snnsl_plugin.errors import BadOption


@dataclass(frozen=True)
class Group:
    """Layers that share one budget.

    Attributes:
        layers: their dotted module names.
        distribution: how they share it.
    """

    layers: frozenset[str]
    distribution: Distribution


class Goals:
    """Says how much is kept at a time: over all layers (`density`), and of each (`counts`).

    Layers of a group keep together what their ratios amount to, rounded to the nearest, and share it by the group's
    distribution. A layer in no group keeps what NNI's LevelPruner keeps, n - int(n x sparse_ratio).

    Args:
        spaces: the weights to prune, by dotted module name.
        groups: budgets that are shared.
        total: weights of all convolutions and linear layers, pruned or not, a count.
        move: brings the targets' `sparse_ratio` to a progress in [0, 1]; does nothing where another pruner does so.
    """

    def __init__(
        self,
        spaces: Mapping[str, PruningTargetSpace],
        groups: Sequence[Group],
        total: int,
        move: Callable[[float], None],
    ) -> None:
        self._spaces, self._groups, self._total, self._move = spaces, groups, total, move
        self._sizes = {name: space.target.numel() for name, space in spaces.items()}

    def density(self, progress: float) -> float:
        """Kept / all weights at a progress, in (0, 1].

        A rule asks for the density before it asks for counts, so both speak of the same moment.
        """
        self._move(progress)
        return 1.0 - sum(self._ratio(name) * size for name, size in self._sizes.items()) / self._total

    def counts(self, layers: Sequence[Layer], scores: dict[str, Tensor], budget: int) -> dict[str, int]:
        """Weights that each layer keeps, a distribution in the sense of `core.distributions`.

        Args:
            layers: all layers, those that are never pruned too.
            scores: by layer, for distributions that rank.
            budget: over all layers; the ratios themselves say more exactly what is asked for.
        """
        counts = {layer.name: layer.weight.numel() for layer in layers}
        for name, size in self._sizes.items():
            counts[name] = size - int(size * self._ratio(name))
        for group in self._groups:
            inside = [layer if layer.name in group.layers else replace(layer, prunable=False) for layer in layers]
            outside = sum(layer.weight.numel() for layer in inside if not layer.prunable)
            kept = round(sum((1.0 - self._ratio(name)) * self._sizes[name] for name in sorted(group.layers)))
            shared = group.distribution(inside, {n: s for n, s in scores.items() if n in group.layers}, outside + kept)
            if missing := sorted(group.layers - shared.keys()):
                raise BadOption(f"the distribution gives no count for layer {missing[0]!r}: it must give one for each")
            counts.update({name: shared[name] for name in group.layers})
        return counts

    def _ratio(self, name: str) -> float:
        return self._spaces[name].sparse_ratio or 0.0
