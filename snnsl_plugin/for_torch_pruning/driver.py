"""A pruner of Torch-Pruning in a training loop of one's own: channels are cut while the training goes on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from snnsl_plugin.anatomy import matched, reset_, weight_layers
from snnsl_plugin.compaction.history import History
from snnsl_plugin.compaction.optimizer_state import following
from snnsl_plugin.errors import BadCheckpoint
from snnsl_plugin.metrics.paths import live_paths
from snnsl_plugin.training.events import MaskUpdate

#: A number of batches of the training part, always the same ones: inputs (T, N, ...) and classes (N,).
Draw: TypeAlias = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


def nobody_asks() -> None:
    """What is called where nobody wants to know of a cut."""


class DrivenPruner(ABC):
    """A pruner of Torch-Pruning, driven by the steps of a loop; `DrivenCuts` and `DrivenDynamic` are such.

    Call `regularize_()` after `loss.backward()`, `step()` after `optimizer.step()`, and `finish()` in the end. A cut
    puts smaller parameters into the model and into the optimizer, whose memory of them is cut likewise; whoever holds
    parameters of the model asks for them anew after a step.

    Args:
        model: from (T, N, ...) to (T, N, K); cut in place.
        optimizer: over all its parameters.
        example: an input of the model, (T, N, ...).
        draw: gives batches of the training part.
        layers: shell-style patterns of the layers whose output channels may go.
        exclude: patterns of those that keep theirs; the last layer where None.
        recalibrate: whether batch norms are estimated anew after each cut.
        batches: how many batches that, and scores, are measured on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        example: Tensor,
        draw: Draw,
        layers: Sequence[str],
        exclude: Sequence[str] | None,
        recalibrate: bool,
        batches: int,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._example = example[:, :1].detach().clone()
        self._draw, self._batches = draw, batches
        # A network without such norms has nothing to estimate.
        self._recalibrate = recalibrate and any(_estimates(module) for module in model.modules())
        names = list(weight_layers(model))
        chosen = matched(names, layers, names[-1:] if exclude is None else exclude)
        #: names of the layers that keep their output channels
        self._ignored = [name for name in names if name not in chosen]
        #: weights of the network as it began, by layer
        self.dense = sizes(model)
        #: what has been cut, for `save_compact`
        self.history = History(model)
        self.step_number = self.born = 0
        self._cut_at: int | None = None

    # -------------------------------------------------------------------------------------------- what a loop needs

    @property
    def density(self) -> float:
        """Weights of all convolutions and linear layers, as a share of those of the dense network, in (0, 1]."""
        return sum(self.kept.values()) / sum(self.dense.values())

    @property
    def kept(self) -> dict[str, int]:
        """Weights that are at work, by layer."""
        return sizes(self._model)

    @property
    @abstractmethod
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that lose channels: their own, or inputs that others no longer give."""

    @property
    @abstractmethod
    def until(self) -> int:
        """The step of the last cut."""

    @property
    @abstractmethod
    def requested(self) -> dict[str, int]:
        """Weights that are to be left, by layer; empty where that is an outcome."""

    @property
    def target(self) -> float | None:
        """What that comes to over all layers, in (0, 1]; None where it is an outcome."""
        return sum(self.requested.values()) / sum(self.dense.values()) if self.requested else None

    def planned_counts(self) -> dict[str, int]:
        """Weights that are to be left, by layer; empty where that is an outcome."""
        return self.requested

    @abstractmethod
    def planned_density(self, step: int) -> float | None:
        """The density asked for after a step, in (0, 1]; None where it is an outcome."""

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """Masks of the parameters that have gradients where they are masked: none."""
        return {}

    def regularize_(self) -> None:  # noqa: B027  (most have none)
        """Adds a penalty to the gradients, in place, where the pruner has one and its time has come."""

    def step(self, *, applied: bool = True) -> MaskUpdate | None:
        """Ends one training step.

        Args:
            applied: False where the optimizer skipped it (loss scaling met an overflow): what was due waits for the
                next one.

        Returns:
            What changed, in weights of the dense network; None where nothing was due.

        Raises:
            NothingRemoved: a cut that was to remove channels has removed none.
            CannotCut: what would be left does not compute the same.
        """
        self.step_number += 1
        return self._advance(applied)

    @abstractmethod
    def finish(self) -> None:
        """Ends structure learning: what is left is a plain network."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, in plain data and tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any], *, at_each_cut: Callable[[], None] = nobody_asks) -> None:
        """Goes on from `state_dict`: cuts the dense model as it was cut, in place, its weights not yet loaded.

        Args:
            state: of a pruner with the same options of the same model.
            at_each_cut: is called whenever the model is as it was after one of the cuts.

        Raises:
            BadCheckpoint: it belongs to another pruner or another model.
        """

    # ------------------------------------------------------------------------------------------ what each kind says

    @abstractmethod
    def _advance(self, applied: bool) -> MaskUpdate | None:
        """What is done at the end of a step."""

    # ------------------------------------------------------------------------------------------------------- inside

    def _cutting(self, cut: Callable[[], object]) -> None:
        """Runs what cuts the model; the optimizer goes on with what is left, and batch norms are estimated anew."""
        with following(self._model, self._optimizer), self.history:
            cut()
        if self._recalibrate:
            from snnsl_plugin.compaction.recalibration import recalibrate_

            recalibrate_(self._model, [x for x, _ in self._draw(self._batches)])
        reset_(self._model)

    def _changed(self, progress: float, before: Mapping[str, int], born: Mapping[str, int]) -> MaskUpdate:
        """The event of an update.

        Args:
            progress: of the whole course, in [0, 1].
            before: weights at work before it, by layer.
            born: weights that came back, by layer.
        """
        kept = self.kept
        self.born += sum(born.values())
        return MaskUpdate(
            step=self.step_number,
            progress=progress,
            density=self.density,
            layers={name: count / self.dense[name] for name, count in kept.items()},
            connections=live_paths(self._model, self._example).connections,
            born={name: born.get(name, 0) for name in kept},
            dropped={name: before[name] - count + born.get(name, 0) for name, count in kept.items()},
        )


def _estimates(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def sizes(model: nn.Module) -> dict[str, int]:
    """Weights by layer, of all convolutions and linear layers."""
    return {name: layer.weight.numel() for name, layer in weight_layers(model).items()}


def checked(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Compares what a state says of its pruner with the pruner that is to go on from it.

    Raises:
        BadCheckpoint: they differ.
    """
    other = [f"{word} {state.get(word)} instead of {value}" for word, value in own.items() if state.get(word) != value]
    if other:
        raise BadCheckpoint(
            f"this pruner state is of another pruner ({'; '.join(other)}): resume with the model and options it was "
            "made by"
        )
