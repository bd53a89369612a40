"""Back to an early state of the training, for rules whose networks are trained anew after each pruning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import unwrapped
from snnsl_plugin.errors import BadOption
from snnsl_plugin.training.early_time import EarlyTime
from snnsl_plugin.training.rounds import Rounds


class Rewinding:
    """Keeps the model as it is at the first step of a timetable, and brings it back after each later update.

    What is kept and brought back is all of `state_dict()`: weights, biases, norms and their statistics. What the
    optimizer remembers is dropped, so the next round begins as if by a new one. Memory: one more copy of the model.

    Args:
        model: to be rewound.
        optimizer: over its parameters.
        when: the updates; its `start` is the step rewound to.
        total_steps: optimizer steps of the whole training, if known.
        early_time: see `EarlyTime`; all rounds see all time steps where None.

    Raises:
        BadOption: no step is left to train what the last update leaves; `early_time` and an untrained network.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, when: Rounds, *, total_steps: int | None, early_time: float | None
    ) -> None:
        if total_steps is not None and when.until >= total_steps:
            raise BadOption(
                f"until is step {when.until}, where the training ends, and the network is rewound there: end earlier, "
                "e.g. until='80%', so that a last round trains what is left"
            )
        if early_time is not None and when.start == 0:
            raise BadOption("early_time asks the network at `start`, and at 0 it is untrained: give e.g. start='5%'")
        self._model, self._optimizer, self._when, self._total = unwrapped(model), optimizer, when, total_steps
        self._early = EarlyTime(model, early_time) if early_time is not None else None
        self._kept: dict[str, Tensor] = {}
        self._rewound = 0.0
        self.after_step(0)

    def after_step(self, step: int) -> None:
        """Looks whether a step, numbered from 1, is the one to come back to; 0 is before training."""
        if step == self._when.start:
            self._kept = {name: tensor.clone() for name, tensor in self._tensors().items()}
            if self._early:
                self._early.choose()
        if self._early:
            self._early.listening = step + 1 == self._when.start

    @torch.no_grad()
    def after_update_(self, progress: float) -> None:
        """Rewinds the model, in place, and makes the optimizer forget, once where a round has ended.

        Args:
            progress: of the timetable; updates at which it is no further than at the last rewind, such as the first one
                at `start` and corrections after `until`, rewind nothing.
        """
        if progress <= self._rewound:
            return
        self._rewound = progress
        for name, tensor in self._tensors().items():
            tensor.copy_(self._kept[name])
        self._optimizer.state.clear()
        if self._early and progress == 1.0:
            self._early.steps = None

    def position(self, step: int) -> float:
        """See `Rounds.position`."""
        return self._when.position(step, self._total)

    def close(self) -> None:
        """Removes the hook."""
        if self._early:
            self._early.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain data and tensors."""
        return {"kept": self._kept, "rewound": self._rewound, "steps": self._early.steps if self._early else None}

    def load_state_dict(self, state: dict[str, Any], step: int) -> None:
        """Goes on from `state_dict` after a step."""
        device = {name: tensor.device for name, tensor in self._tensors().items()}
        self._kept = {name: tensor.to(device[name]) for name, tensor in state["kept"].items()}
        self._rewound = state["rewound"]
        if self._early:
            self._early.steps, self._early.listening = state["steps"], step + 1 == self._when.start

    def _tensors(self) -> dict[str, Tensor]:
        return {name: each for name, each in self._model.state_dict().items() if isinstance(each, Tensor)}
