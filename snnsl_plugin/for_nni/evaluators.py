"""What NNI's evaluators do not offer: their optimizer, a step count on today's Lightning, and a reset between samples."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any, Literal

from nni.compression.utils import evaluator as nni_evaluators
from nni.compression.utils.evaluator import Evaluator, TorchEvaluator, TransformersEvaluator
from torch import nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption

AutoReset = Literal["never", "forward", "step"]


class LightningEvaluator(nni_evaluators.LightningEvaluator):
    """NNI's LightningEvaluator whose `max_steps` works with pytorch-lightning 2, too.

    There `trainer.fit_loop.max_steps` has no setter, so `compress(max_steps=...)` fails, and with it every pruner that
    counts steps.
    """

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """Fits the bound model for so many optimizer steps or epochs, whichever ends first."""
        trainer = self.trainer.trace_copy().get()
        trainer.num_sanity_val_steps = 0  # a sanity pass would be recorded by hooks, as NNI says
        if max_steps:
            trainer.fit_loop.epoch_loop.max_steps = max_steps
        if max_epochs:
            trainer.fit_loop.max_epochs = max_epochs
        elif max_steps:
            trainer.fit_loop.max_epochs = -1  # Lightning's default of 1,000 epochs is not what was asked for
        trainer.fit(self.model, self.data_module)
        self.model.trainer = None  # as NNI does: nobody wants the trainer in a dump of the model


def check_evaluator(evaluator: Evaluator, max_steps: int | None) -> None:
    """Refuses, before anything is trained, an evaluator that cannot do what is asked.

    Raises:
        BadOption: DeepSpeed; or steps on an evaluator of NNI that cannot count them.
    """
    if isinstance(evaluator, getattr(nni_evaluators, "DeepspeedTorchEvaluator", ())):
        raise BadOption(
            "DeepspeedTorchEvaluator shards weights and optimizer, and masks need both whole: use TorchEvaluator under "
            "DistributedDataParallel"
        )
    if max_steps and type(evaluator) is nni_evaluators.LightningEvaluator:
        raise BadOption(
            "NNI's LightningEvaluator cannot count steps with pytorch-lightning 2: use "
            "snnsl_plugin.for_nni.LightningEvaluator, which takes the same arguments, or max_epochs"
        )


def with_optimizer(evaluator: Evaluator, begin: Callable[[Optimizer], None]) -> None:
    """Calls `begin` with the optimizer that will train the bound model, as soon as there is one.

    Args:
        evaluator: bound to its model.
        begin: called once, before the first forward pass of the training.

    Raises:
        BadOption: an evaluator of an unknown kind.
    """
    if isinstance(evaluator, TorchEvaluator):
        begin(evaluator._optimizers[0])
    elif isinstance(evaluator, nni_evaluators.LightningEvaluator):
        _at_configuration(evaluator.model, begin)
    elif isinstance(evaluator, TransformersEvaluator):
        begin(evaluator.trainer.optimizer)
    else:
        raise BadOption(
            f"{type(evaluator).__name__} is unknown here: use NNI's TorchEvaluator or TransformersEvaluator, or "
            "snnsl_plugin.for_nni.LightningEvaluator"
        )


def resetting(model: nn.Module, evaluator: Evaluator, when: AutoReset) -> Callable[[], None]:
    """Lets neurons forget between samples, which NNI knows nothing of.

    Args:
        model: the bound model.
        evaluator: bound to it.
        when: `forward`: before each call of the model, right for a multi-step model and for one that loops over time
            itself; `step`: after each training step, and where training and evaluation change over, right where the
            loop over time is outside the model; `never`.

    Returns:
        What ends it, and lets them forget once more, so that the model can be copied.
    """
    if when == "never":
        return lambda: None
    mode = model.training

    def before(module: nn.Module, *_: Any) -> None:
        nonlocal mode
        if when == "forward" or module.training != mode:
            mode = module.training
            reset_(module)

    if when == "step":

        def forget(loss: Any, batch: Any) -> Any:
            reset_(model)
            return loss

        evaluator.patch_loss(forget)
    handle = model.register_forward_pre_hook(before)

    def end() -> None:
        handle.remove()
        reset_(model)

    return end


def _at_configuration(model: Any, begin: Callable[[Optimizer], None]) -> None:
    configure = model.configure_optimizers

    def configured(_: Any) -> Any:
        made = configure()
        first: Any = made
        while isinstance(first, list | tuple):  # NNI hands back a list, or a list of optimizers and one of schedulers
            first = first[0]
        begin(first["optimizer"] if isinstance(first, dict) else first)
        return made

    model.configure_optimizers = types.MethodType(configured, model)
