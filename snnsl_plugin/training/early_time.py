"""Fewer time steps while structure is searched for: what the model trains on is cut short before it is called."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from snnsl_plugin.anatomy import set_aside, time_first, unwrapped
from snnsl_plugin.core.early_time import divergences, early
from snnsl_plugin.errors import BadOption, MissingStatistic
from snnsl_plugin.training.pooling import over_ranks

_log = logging.getLogger(__name__)


class EarlyTime:
    """Keeps the first steps of every training input, as many as `choose` found enough; evaluation sees all.

    Args:
        model: takes (T, N, ...) and returns (T, N, K); multi-step.
        threshold: see `core.early_time.early`.

    Raises:
        BadOption: a model that sees one step at a time.
    """

    def __init__(self, model: nn.Module, threshold: float) -> None:
        self._model, self._threshold = unwrapped(model), threshold
        if not time_first(self._model):
            raise BadOption("early_time needs a model that takes (T, N, ...): set its neurons to step_mode 'm'")
        #: whether the input of the coming step is kept, to be asked about
        self.listening = False
        #: time steps that training inputs keep; all where None
        self.steps: int | None = None
        self._heard: Tensor | None = None
        self._hook = self._model.register_forward_pre_hook(self._shortener())

    @torch.no_grad()
    def choose(self) -> None:
        """Asks the network, in eval mode, about the batch of this step: a collective call where ranks are several.

        Raises:
            MissingStatistic: there was no training pass.
            BadOption: the network does not answer at 4 steps at least.
        """
        own = {}
        if self._heard is not None:
            with set_aside(self._model):
                self._model.eval()
                own = {"kl": (divergences(self._model(self._heard)), float(self._heard.shape[0]))}
        device = next(self._model.parameters()).device
        self._heard = None
        pooled = over_ranks(own, device).get("kl")
        if pooled is None:
            raise MissingStatistic("early_time saw no training pass of its model at `start`: call the model itself")
        self.steps = early(pooled[0], self._threshold)
        _log.info("rounds before the last train on %d time steps", self.steps)

    def close(self) -> None:
        """Removes the hook."""
        self._hook.remove()

    def _shortener(self) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        # A closure, not a bound method, as in `living`: copies of the model do not copy this, and are not shortened.
        def shorten(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if module is not self._model or not module.training or not args:
                return None
            if self.listening:
                self._heard = args[0].detach()
            return None if self.steps is None else (args[0][: self.steps], *args[1:])

        return shorten
