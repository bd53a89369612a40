"""The lottery ticket: train, drop the smallest, rewind what is left, and train again, round after round."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from snnsl_plugin.core.criteria.magnitude import magnitude
from snnsl_plugin.core.distributions.global_ import global_
from snnsl_plugin.core.layer import Criterion, Distribution, Layer, Schedule, State
from snnsl_plugin.core.masks import keep_top
from snnsl_plugin.core.rules.drop_grow import after_step_, budget
from snnsl_plugin.core.rules.drop_grow import check as check_budget
from snnsl_plugin.errors import BadOption

__all__ = ["EVERY", "REWINDS", "after_step_", "check", "lth"]

#: The length of a round. The source's is 280 epochs of 4,220.
EVERY = "20%"
#: After each update but that at `start` the whole network goes back to what it was at `start`.
REWINDS = True


def lth(
    layers: Sequence[Layer],
    progress: float,
    *,
    density: Schedule,
    criterion: Criterion = magnitude,
    distribution: Distribution = global_,
    early_time: float | None = None,
) -> dict[str, State]:
    """The pruning between two rounds (iterative magnitude pruning of spiking networks, Kim et al., ECCV 2022).

    Of the living the n_keep best stay, and nothing grows. Then weights, biases, norms and their statistics are rewound
    to the step `start`, the optimizer forgets, and the learning rate begins again from there; masks stay. The source
    trains 15 rounds of 300 epochs at most, rewinds to epoch 20, and drops a quarter of the living each time, ranked
    over the whole network: `geometric` from 1 to 0.75^14. Its code rewinds weights and biases alone (biases share
    memory with what is kept, so they move on after the first time); we rewind statistics too. It goes on with a full
    learning rate at epoch 20, we with what the schedule says there.

    Args:
        layers: all layers, those that are never pruned too.
        progress: rounds that have ended / prunings that there will be, in [0, 1].
        density: the fraction of all weights kept, in (0, 1].
        criterion: what a connection is kept for.
        distribution: how the budget is shared among layers.
        early_time: all rounds but the last see the first t time steps alone, t the fewest of 2, 3, ... whose answer at
            `start` has a normalised divergence below this from that of all steps, in (0, 1]; the source's is 0.6. All
            rounds see all steps where omitted.

    Returns:
        The new state of each layer: its mask.

    Raises:
        BadOption: a density outside its range.
        MissingStatistic: the criterion needs what nobody recorded.
        Diverged: a score is NaN.
    """
    scores = {layer.name: criterion(layer) for layer in layers if layer.prunable}
    counts = distribution(layers, scores, budget(layers, density(progress)))
    return {
        layer.name: {"mask": _kept(layer, scores[layer.name], counts[layer.name])} if layer.prunable else layer.state
        for layer in layers
    }


def check(*, density: Schedule, early_time: float | None) -> None:
    """Refuses, before anything is trained, a density that starts or ends outside its range, or an early time of 0.

    Raises:
        BadOption: with the value.
    """
    check_budget(density=density, swap=None)
    if early_time is not None and not 0.0 < early_time <= 1.0:
        raise BadOption(f"early_time={early_time:g}: a share of the largest divergence is in (0, 1], e.g. 0.6")


def _kept(layer: Layer, scores: Tensor, n_keep: int) -> Tensor:
    return keep_top(scores, min(n_keep, int(layer.mask.count_nonzero())), among=layer.mask)
