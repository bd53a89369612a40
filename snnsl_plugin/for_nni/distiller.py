"""Reverse distillation as a distiller of NNI: a weaker, sparser network teaches, or none at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from nni.compression.base.compressor import Compressor
from nni.compression.base.target_space import DistillationTargetSpace
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.distillation.basic_distiller import TeacherModelBasedDistiller
from nni.compression.utils.evaluator import Evaluator
from torch import Tensor, nn

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni import config
from snnsl_plugin.for_nni.answers import Answering, Predict, labels_of
from snnsl_plugin.for_nni.evaluators import check_evaluator, clean_end, ending
from snnsl_plugin.for_nni.lessons import DISTILLER_KEYS, Matched, Softened, check_guide, check_number, guide_for
from snnsl_plugin.for_nni.selection import check_unwrapped, entries_by_module
from snnsl_plugin.for_nni.wrapper import lighten_


class ReverseKDDistiller(TeacherModelBasedDistiller):
    """Adds a guide's lesson to the loss of NNI's training step, at every time step or of the mean over time:

        loss = origin_loss_lambda x original + sum of lambda x tau^2 x divergence(guide, learner)

    With `origin_loss_lambda=0.7` and `'lambda': 0.3` that is the loss of `ReverseDistiller` at weight 0.3. NNI's own
    distillers see the last time step only where a network loops over time, and never reset a teacher.

    An entry of the config list names modules whose output is taught, usually the one that gives the logits. Its keys
    are NNI's: `lambda` (1 where omitted), `link` (the teacher's module, by default of the same name), `apply_method`
    (`kl`: the softened divergence; `mse`: the squared distance of outputs, for hidden layers of a teacher); and ours:
    `temperature` (4), `divergence` (`kl`), `per_step` (False), `logit_scale` (1).

    Args:
        model: the learner.
        config_list: NNI's, with the keys above.
        evaluator: any of NNI's that `SpikingDynamicPruner` takes.
        teacher_model: the guide's network, for guide `sparse`; frozen, in eval mode, reset before every batch. None for
            guides that need no second network.
        teacher_predict: `predict(batch, network)` runs a network on a batch, all its time steps; needed where a network
            teaches, be it the learner's own past.
        origin_loss_lambda: factor of the training step's own loss.
        existed_wrappers: for `from_compressor`.
        guide: a registered name, a mapping with a name and options, or a guide; `sparse` where a teacher is given.
        labels: gives the labels of a batch, (N,), or None; by default the second of a pair, or the entry `labels`,
            `label` or `target` of a mapping.
        total_steps: what a percentage in a guide's options refers to.
        steps_per_epoch: what epochs in a guide's options refer to.

    Raises:
        BadOption: a guide that has no network though it needs one, or has one it does not need; a key out of range.
        UnknownName: a name the registry does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: list[dict[str, Any]],
        evaluator: Evaluator | None = None,
        teacher_model: nn.Module | None = None,
        teacher_predict: Predict | None = None,
        origin_loss_lambda: float = 1.0,
        existed_wrappers: dict[str, ModuleWrapper] | None = None,
        *,
        guide: Any = None,
        labels: Callable[[Any], Tensor | None] = labels_of,
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self._guide = check_guide(guide, model, teacher_model, teacher_predict)
        if existed_wrappers is None:
            check_unwrapped(model, "model", "unwrap it, or make this distiller by from_compressor(...)")
        if teacher_model is not None:
            check_unwrapped(teacher_model, "teacher_model", "unwrap it first")
        for word, function in (("teacher_predict", teacher_predict), ("labels", labels)):
            if function is not None and not callable(function):
                raise BadOption(f"{word}={function!r} is no function: it takes a batch")
        check_number("origin_loss_lambda", origin_loss_lambda)
        config_list = config.with_float_lambda(config_list)
        self._labels = labels
        self._known = {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
        super().__init__(
            model, config_list, evaluator, teacher_model, teacher_predict, origin_loss_lambda, existed_wrappers
        )
        try:
            self._lessons = {
                (module, target): self._lesson(module, target, space)
                for module, targets in self._target_spaces.items()
                for target, space in targets.items()
            }
        except BaseException:
            self.unwrap_model()  # who is refused gets both networks back as they were
            raise
        for space in (*self._learned(), *self._taught()):
            space._buffer_mode = "append"  # one tensor a time step where the network loops over time
        self._step = 0
        self._batch: Any = None
        self._end: Callable[[], None] = lambda: None

    @classmethod
    def from_compressor(
        cls,
        compressor: Compressor,
        new_config_list: list[dict[str, Any]],
        teacher_model: nn.Module | None = None,
        teacher_predict: Predict | None = None,
        origin_loss_lambda: float = 1.0,
        evaluator: Evaluator | None = None,
        **options: Any,
    ) -> ReverseKDDistiller:
        """A distiller that works together with another compressor, such as a pruner; `compress()` runs both."""
        made: ReverseKDDistiller = super(TeacherModelBasedDistiller, cls).from_compressor(
            compressor,
            new_config_list,
            evaluator=evaluator,
            teacher_model=teacher_model,
            teacher_predict=teacher_predict,
            origin_loss_lambda=origin_loss_lambda,
            **options,
        )
        return made

    def wrap_model(self) -> None:
        """Wraps the modules, in wrappers that cost less than NNI's own."""
        if not self._is_wrapped:
            lighten_(self._module_wrappers)
        super().wrap_model()

    def unwrap_model(self) -> None:
        """Unwraps the learner, and the teacher, who may then teach somewhere else."""
        super().unwrap_model()
        if self.teacher_model is not None and self._teacher_is_wrapped:
            self.unwrap_teacher_model()

    def compute_distill_loss(self) -> Tensor | None:
        """The guide's part of the loss of the batch at hand, a scalar; None where the guide says nothing yet."""
        parts = []
        for (module, target), lesson in self._lessons.items():
            space = self._target_spaces[module][target]
            part = lesson(space, self._batch)
            if part is not None:
                parts.append(space.lambda_ * part)
        for space in (*self._learned(), *self._taught()):
            space.clean()
        return torch.stack(parts).sum() if parts else None

    def _validate_config(self) -> None:
        config.validate(self.config_list, "distillation", DISTILLER_KEYS)
        self._entries = entries_by_module(self.bound_model, self.config_list, pruning=False)

    def _register_teacher_wrappers(self) -> tuple[dict[str, ModuleWrapper], dict[str, Any]]:
        if self.teacher_model is None:
            return {}, {}
        return super()._register_teacher_wrappers()

    def compress(self, max_steps: int | None, max_epochs: int | None) -> nn.Module:
        """Trains the model by the evaluator while the guide teaches, and while a fused pruner prunes.

        Args:
            max_steps: optimizer steps; None where epochs are given.
            max_epochs: passes over the data; None where steps are given.

        Returns:
            The wrapped model; the masks of a fused pruner are its `get_masks()`.

        Raises:
            BadOption: no duration, or an evaluator that cannot do it.
            MissingStatistic: a module that is to learn was not called.
        """
        if max_steps is None and max_epochs is None:
            raise BadOption("compress() needs max_steps or max_epochs: a guide teaches while the model trains")
        check_evaluator(self.evaluator, max_steps)
        if not self._is_wrapped:
            raise BadOption("the model is not wrapped: call wrap_model() before compress()")
        with clean_end(self.evaluator, self.fused_compressors):
            return super().compress(max_steps, max_epochs)

    def _fuse_preprocess(self, evaluator: Evaluator) -> None:
        self._end()
        if self.teacher_model is not None and not self._teacher_is_wrapped:
            self.wrap_teacher_model()
        self._step = 0
        self._observe()
        # What a validation leaves behind is of no use, and would pile up.
        self._end = evaluator.model.register_forward_pre_hook(self._forgetter()).remove
        self._register_loss_patch(evaluator)
        evaluator.patch_optimizer_step(before_step_tasks=[], after_step_tasks=[self._after_step])
        ending(evaluator, self._finish)

    def _fuse_postprocess(self, evaluator: Evaluator) -> None:
        self._finish()

    def _finish(self) -> None:
        self._end()
        self._end = lambda: None

    def _register_loss_patch(self, evaluator: Evaluator) -> None:
        def patched(original: Tensor, batch: Any) -> Tensor:
            self._batch = batch
            self._ask_teacher(batch)
            lesson = self.compute_distill_loss()
            self._batch = None
            # Before a guide says anything the loss is what it was, and not a part of it.
            return original if lesson is None else self.origin_loss_lambda * original + lesson

        evaluator.patch_loss(patched)

    # ------------------------------------------------------------------------------------------------------ inside

    def _lesson(self, module: str, target: str, space: DistillationTargetSpace) -> Softened | Matched:
        entry = self.config_list[self._entries[module]]
        teacher = None
        if self.teacher_model is None and "link" in entry:
            raise BadOption(
                f"link={entry['link']!r} of module {module!r} names a teacher's module: there is no teacher"
            )
        if self.teacher_model is not None:
            if len(space.link) != 1:
                raise BadOption(f"module {module!r} has the links {space.link}: one guide teaches at a time, link one")
            teacher = Answering(self.teacher_model, space.link[0], target, None, self._labels)
        if space.setting.get("apply_method") == "mse":  # where it is unset, NNI would say mse
            if teacher is None:
                raise BadOption(f"apply_method='mse' of module {module!r} needs a teacher_model to match")
            return Matched(teacher, self.bound_model, self._labels, per_step=entry.get("per_step", False))
        learner = Answering(self.bound_model, module, target, self.teacher_predict, self._labels)
        guide = guide_for(self._guide, teacher, self._known)
        return Softened(
            guide, entry, learner, self._labels, needs_labels=teacher is None and self.teacher_predict is None
        )

    def _ask_teacher(self, batch: Any) -> None:
        if self.teacher_model is None:
            return
        self.teacher_model.eval()
        reset_(self.teacher_model)
        for space in self._taught():
            space.clean()
        with torch.no_grad():
            self.teacher_predict(batch, self.teacher_model)
        reset_(self.teacher_model)

    def _after_step(self) -> None:
        self._step += 1
        self._observe()

    def _observe(self) -> None:
        for lesson in self._lessons.values():
            lesson.observe(self._step)

    def _forgetter(self) -> Callable[..., None]:
        spaces = list(self._learned())

        def forget(*_: Any) -> None:
            if not torch.is_grad_enabled():
                for space in spaces:
                    space.clean()

        return forget

    def _learned(self) -> Iterator[DistillationTargetSpace]:
        return (space for targets in self._target_spaces.values() for space in targets.values())

    def _taught(self) -> Iterator[DistillationTargetSpace]:
        return (space for targets in self._teacher_target_spaces.values() for space in targets.values())
