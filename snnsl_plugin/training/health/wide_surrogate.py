"""A wider surrogate derivative while the drive gets sparse."""

from __future__ import annotations

from types import TracebackType

from torch import nn

from snnsl_plugin.anatomy import neurons
from snnsl_plugin.errors import BadOption, NothingMatched
from snnsl_plugin.training.duration import steps
from snnsl_plugin.training.health._care import Care


def wide_surrogate(
    model: nn.Module, total_steps: int, steps_per_epoch: int, *, factor: float = 0.5, until: str = "70%"
) -> WideSurrogate:
    """The steepness alpha of every neuron's surrogate falls to `factor` alpha at `until`, and rises back to the end.

    Fewer inputs leave a membrane farther from its threshold, where a narrow surrogate has no gradient left. Both ways
    are linear in the steps taken, so a resumed run needs no state. What is computed forward does not change.

    Args:
        model: its neurons' `surrogate_function.alpha` is set, and put back in the end.
        total_steps: of the training.
        steps_per_epoch: what epochs in `until` refer to.
        factor: of the steepness at its lowest, in (0, 1).
        until: when that is, e.g. the end of the ramp.

    Raises:
        BadOption: a factor outside (0, 1), or a duration that is not within the training.
        NothingMatched: no neuron has a surrogate with an alpha.
    """
    if not 0.0 < factor < 1.0:
        raise BadOption(f"factor={factor:g}: a surrogate gets wider by a factor on its alpha in (0, 1), e.g. 0.5")
    turn = steps(until, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    if not 0 < turn <= total_steps:
        raise BadOption(f"until={until!r} is step {turn}: it must lie within the {total_steps} steps of the training")
    found = [getattr(module, "surrogate_function", None) for module in neurons(model).values()]
    shared = {id(each): each for each in found if isinstance(getattr(each, "alpha", None), float | int)}
    if not shared:
        raise NothingMatched("wide_surrogate: no neuron of the model has a surrogate_function with an alpha")
    return WideSurrogate(list(shared.values()), factor, turn, total_steps)


class WideSurrogate(Care):
    """Sets the steepness of surrogates step by step.

    Args:
        surrogates: each with an `alpha`.
        factor: see `wide_surrogate`.
        turn: the step at which they are widest.
        total: steps of the training.
    """

    def __init__(self, surrogates: list[nn.Module | None], factor: float, turn: int, total: int) -> None:
        self._own = [(each, float(each.alpha)) for each in surrogates]  # type: ignore[arg-type, union-attr]
        self._factor, self._turn, self._total = factor, turn, total

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._set(1.0)

    def before_step(self, step: int) -> None:
        """Sets the steepness of the coming step."""
        done = step - 1
        way = done / self._turn if done <= self._turn else (self._total - done) / (self._total - self._turn)
        self._set(1.0 - (1.0 - self._factor) * way)

    def _set(self, factor: float) -> None:
        for surrogate, alpha in self._own:
            surrogate.alpha = alpha * factor  # type: ignore[union-attr]
