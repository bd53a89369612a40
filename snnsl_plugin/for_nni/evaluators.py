"""What NNI's evaluators do not offer: their optimizer, work with today's trainers, a clean end of a failed one."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nni
from nni.compression.utils import evaluator as nni_evaluators
from nni.compression.utils.evaluator import Evaluator, TorchEvaluator
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.errors import BadOption

Task = Callable[[], None]


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
        try:
            trainer.fit(self.model, self.data_module)
        finally:
            self.model.trainer = None  # as NNI does: nobody wants the trainer in a dump of the model


class TransformersEvaluator(nni_evaluators.TransformersEvaluator):
    """NNI's TransformersEvaluator that works with transformers 5, and runs the tasks of every compressor.

    NNI's takes an optimizer of DeepSpeed for granted where the trainer has such an attribute, which it always has now;
    its patches take fewer arguments than the trainer gives them; and it keeps the tasks of the last compressor only, so
    that of a pruner and a distiller, or of AGPPruner and the pruner it holds, one never acts.
    """

    def train(self, max_steps: int | None = None, max_epochs: int | None = None) -> None:
        """Trains the bound model for so many optimizer steps; for epochs where no steps are given."""
        arguments = self.trainer.args
        before = arguments.max_steps, arguments.num_train_epochs
        if max_steps is None and max_epochs is not None:
            arguments.max_steps = -1  # steps of the user's own would win over the epochs asked for
        try:
            super().train(max_steps, max_epochs)
        finally:
            arguments.max_steps, arguments.num_train_epochs = before

    def patch_loss(self, patch: Callable[[Tensor, Any], Tensor]) -> None:
        """Lets a compressor change the loss of every training step; an evaluation keeps its own."""
        compute = self.trainer.compute_loss

        def patched(_: Any, model: nn.Module, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            batch = dict(inputs)  # the trainer takes the labels out of it where it computes the loss itself
            result = compute(model, inputs, return_outputs, **more)
            if not model.training:
                return result
            return (patch(result[0], batch), *result[1:]) if return_outputs else patch(result, batch)

        self.trainer.compute_loss = types.MethodType(patched, self.trainer)

    def patch_optimizer_step(self, before_step_tasks: list[Task], after_step_tasks: list[Task]) -> None:
        """Runs tasks before and after each step that the optimizer takes."""
        optimizer = self.trainer.optimizer  # torch's own: the trainer wraps it when it begins
        step = optimizer.step

        def patched(_: Any, *args: Any, **options: Any) -> Any:
            for task in before_step_tasks:
                task()
            output = step(*args, **options)
            for task in after_step_tasks:
                task()
            return output

        optimizer.step = types.MethodType(patched, optimizer)

    def revert_optimizer_step(self) -> None:
        """The optimizer is this binding's own, and goes with it."""

    def _init_optimizer_helpers(self, pure_model: nn.Module) -> None:
        trainer = self.traced_trainer
        if trainer.optimizer is None:
            kind, options = trainer.optimizer_cls_and_kwargs or trainer.get_optimizer_cls_and_kwargs(
                trainer.args, pure_model
            )
            given, trainer.optimizer_cls_and_kwargs = trainer.optimizer_cls_and_kwargs, (nni.trace(kind), options)
            trainer.create_optimizer()
            trainer.optimizer_cls_and_kwargs = given
        super()._init_optimizer_helpers(pure_model)


def check_evaluator(evaluator: Evaluator | None, max_steps: int | None) -> None:
    """Refuses, before anything is trained, an evaluator that cannot do what is asked.

    Raises:
        BadOption: none at all; DeepSpeed; NNI's own TransformersEvaluator; or steps on its own LightningEvaluator.
    """
    if evaluator is None:
        raise BadOption("structure is learned while the model trains: give it an evaluator")
    if isinstance(evaluator, getattr(nni_evaluators, "DeepspeedTorchEvaluator", ())):
        raise BadOption(
            "DeepspeedTorchEvaluator shards weights and optimizer, and masks need both whole: use TorchEvaluator under "
            "DistributedDataParallel"
        )
    if type(evaluator) is nni_evaluators.TransformersEvaluator:
        raise BadOption(
            "NNI's TransformersEvaluator never reaches the optimizer of today's trainer, and keeps the tasks of one "
            "compressor only: use snnsl_plugin.for_nni.TransformersEvaluator, which takes the same arguments"
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
        check_evaluator(evaluator, None)
        raise BadOption(
            f"{type(evaluator).__name__} is unknown here: use NNI's TorchEvaluator, or LightningEvaluator or "
            "TransformersEvaluator of snnsl_plugin.for_nni"
        )


def ending(evaluator: Evaluator, end: Callable[[], None]) -> None:
    """Sees to it that a training that fails leaves no hooks and no patches behind, which NNI does not.

    Args:
        evaluator: bound to its model; its next `train()` is the one that is watched.
        end: called where that raises; then the evaluator is unbound.
    """
    train = evaluator.train

    def watched(*args: Any, **options: Any) -> None:
        vars(evaluator).pop("train", None)
        try:
            train(*args, **options)
        except BaseException:
            end()
            if evaluator.model is not None:  # two compressors may watch
                evaluator.unbind_model()
            raise

    evaluator.train = watched


@contextmanager
def clean_end(evaluator: Evaluator, compressors: Sequence[Any]) -> Iterator[None]:
    """Whatever raises inside, the evaluator is unbound afterwards and no hook of ours is left.

    Args:
        evaluator: of a compressor that begins.
        compressors: all that are fused; those of ours have a `_finish()`.
    """
    try:
        yield
    except BaseException:
        vars(evaluator).pop("train", None)
        for compressor in compressors:
            if hasattr(compressor, "_finish"):
                compressor._finish()
        if evaluator.model is not None:
            evaluator.unbind_model()
        raise


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
