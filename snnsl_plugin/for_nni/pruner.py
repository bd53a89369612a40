"""Dynamic structure learning as a pruner of NNI: prune and regrow while NNI's evaluator trains."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from nni.compression.base.target_space import PruningTargetSpace
from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.pruning.scheduled_pruner import ScheduledPruner
from nni.compression.utils.evaluator import Evaluator
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import weight_name
from snnsl_plugin.core.layer import Schedule
from snnsl_plugin.errors import BadOption
from snnsl_plugin.for_nni import config
from snnsl_plugin.for_nni.choices import ramp_to_goal
from snnsl_plugin.for_nni.evaluators import check_evaluator, clean_end, ending, with_optimizer
from snnsl_plugin.for_nni.hosted import HostedPruner
from snnsl_plugin.for_nni.plan import (
    bound_options,
    check_ratios,
    check_schedule,
    check_whole,
    steps_of,
    weights_to_prune,
)
from snnsl_plugin.for_nni.resetting import AutoReset, resetting
from snnsl_plugin.for_nni.selection import check_unwrapped, entries_by_module
from snnsl_plugin.for_nni.wrapper import lighten_
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.options import bind_rule

_log = logging.getLogger(__name__)


class SpikingDynamicPruner(ScheduledPruner):
    """Prunes and regrows connections while NNI's evaluator trains, with the rules of `snnsl_plugin.core`.

    The masks are those that `DynamicPruner` gives in a loop of one's own, bit for bit: the gradient reaches pruned
    weights, dead weights are exactly zero, what the optimizer remembers of a regrown weight is forgotten. Unlike those
    of NNI's pruners the weights are still sparse after `unwrap_model()`.

    Budgets are met to the last weight. The layers of an entry of the config list keep together what their
    `sparse_ratio` says, and share it by a `distribution`, ERK where nothing else is said: small layers are left denser
    than large ones. With `distribution=None` each layer keeps what NNI's LevelPruner keeps, n - int(n x sparse_ratio).
    Layers of one `global_group_id` share one budget, ranked globally, as in NNI.

    Args:
        model: to be pruned; its selected convolutions and linear layers are wrapped, as NNI does.
        config_list: NNI's, for op types or names of convolutions and linear layers. Further keys of an entry:
            `criterion`, `growth` and `distribution`, each a registered name or a mapping with a name and options.
        evaluator: NNI's TorchEvaluator, or LightningEvaluator or TransformersEvaluator of `snnsl_plugin.for_nni`.
        interval_steps: optimizer steps between two updates of the masks; 100, or the rule's own habit, where omitted.
        total_times: how many updates there are; after the last one the masks stay.
        existed_wrappers: for `from_compressor`.
        rule: a rule of the registry.
        schedule: the share of `sparse_ratio` over progress, a registered name, a mapping or a function that ends at 1,
            `cubic` where omitted;
            `constant` starts sparse, from random masks. Where AGPPruner or LinearPruner hold this pruner, theirs
            counts.
        start_step: the optimizer step from which on the schedule runs.
        newborn_v: what Adam's second moment of a grown weight starts from: `zero` or the `layer_mean`.
        sample_every: statistics are recorded at every n-th step.
        seed: of the random choices.
        paths: whether live connections are found at each update, and channels without input silenced.
        auto_reset: `forward`: neurons forget before each call of the model (multi-step models, and those that loop over
            time themselves); `step`: after each training step (the loop over time is outside); `never`: the training
            function sees to it.
        **options: of the rule: `criterion`, `growth`, `swap`, `threshold`, ...; names, mappings or functions.
            Connections are exchanged by a `swap` that falls from 0.1 to 0 along a cosine; `swap=None` prunes only.

    Raises:
        BadOption: a config or an option that cannot be met.
        UnknownName: a name the registry does not have.
        NothingMatched: an entry that selects no module.

    Example:
        >>> import nni
        >>> from nni.compression import TorchEvaluator
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> def training_step(batch, model):
        ...     return nn.functional.cross_entropy(model(batch[0]), batch[1])
        >>> def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):
        ...     for _ in range(max_steps):
        ...         optimizer.zero_grad()
        ...         training_step((torch.randn(4, 8), torch.tensor([0, 1, 0, 1])), model).backward()
        ...         optimizer.step()
        >>> optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=0.1)
        >>> evaluator = TorchEvaluator(train, optimizer, training_step)
        >>> config_list = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
        >>> pruner = SpikingDynamicPruner(model, config_list, evaluator, interval_steps=5, total_times=4)
        >>> _, masks = pruner.compress(max_steps=30, max_epochs=None)
        >>> [int(masks[name]["weight"].sum()) for name in ("0", "2")]  # half of 64 + 16
        [25, 15]
    """

    def __init__(
        self,
        model: nn.Module,
        config_list: list[dict[str, Any]],
        evaluator: Evaluator | None = None,
        interval_steps: int | None = None,
        total_times: int = 30,
        existed_wrappers: dict[str, ModuleWrapper] | None = None,
        *,
        rule: str = "drop_grow",
        schedule: Any = None,
        start_step: int = 0,
        newborn_v: str = "zero",
        sample_every: int = 10,
        seed: int = 0,
        paths: bool = True,
        auto_reset: AutoReset = "never",
        **options: Any,
    ) -> None:
        check_whole(1, interval_steps=interval_steps, total_times=total_times, sample_every=sample_every)
        check_whole(0, start_step=start_step, seed=seed)
        check_schedule(schedule, rule)
        if auto_reset not in ("never", "forward", "step"):
            raise BadOption(f"auto_reset={auto_reset!r}: choose 'never', 'forward' or 'step'")
        if not isinstance(paths, bool):
            raise BadOption(f"paths={paths!r} must be True or False")
        if existed_wrappers is None:
            check_unwrapped(model, "model", "unwrap it, or make this pruner by from_compressor(...)")
        self._shape: Schedule = ramp_to_goal("cubic" if schedule is None else schedule)
        super().__init__(model, config_list, evaluator, existed_wrappers)
        self._driven = self._running = self._over = False
        self._rule = rule
        self._kept_options = {"newborn_v": newborn_v, "sample_every": sample_every, "seed": seed, "paths": paths}
        self._auto_reset = auto_reset
        self._end_reset: Callable[[], None] = lambda: None
        try:
            self._spaces = weights_to_prune(model, self._target_spaces, self._entries)
            check_ratios(self._spaces, rule)
            self._init_sparse_goals()
            self._options = bound_options(rule, options, model, self._entry_of(), self._spaces, self._move)
            habit = bind_rule(rule, self._options, counted=lambda counts: None).every
            self.interval_steps = steps_of(habit) if interval_steps is None else interval_steps
        except BaseException:
            self.unwrap_model()  # who is refused gets the model back as it was
            raise
        self._update_sparse_goals_by_ratio(1.0)  # binding the rule has moved them
        self.total_times, self._start = total_times, start_step
        #: optimizer steps of the whole training, where they are known; `compress()` is told them
        self.total_steps: int | None = None
        #: the pruner of any training loop that does the work; None before `compress()`
        self.dynamic: HostedPruner | None = None
        #: what the last update of the masks changed
        self.event: MaskUpdate | None = None

    # ------------------------------------------------------------------------------------ what NNI asks of a pruner

    def wrap_model(self) -> None:
        """Wraps the modules, in wrappers that cost less than NNI's own."""
        if not self._is_wrapped:
            lighten_(self._module_wrappers)
        super().wrap_model()

    def compress(self, max_steps: int | None, max_epochs: int | None) -> tuple[nn.Module, dict[str, dict[str, Tensor]]]:
        """Trains the model by the evaluator, and prunes and regrows meanwhile.

        Args:
            max_steps: optimizer steps; None where epochs are given.
            max_epochs: passes over the data; None where steps are given.

        Returns:
            The wrapped model, and NNI's masks: module name -> target name -> mask of 0 and 1.

        Raises:
            BadOption: no duration; fewer steps than the updates take; an evaluator that cannot do it.
            Disconnected: a mask without any path through the network.
            MissingStatistic: the rule asks for what was not recorded.
        """
        self._check_duration(max_steps, max_epochs)
        self.total_steps = max_steps
        with clean_end(self.evaluator, self.fused_compressors):
            return super().compress(max_steps, max_epochs)

    def update_sparse_goals(self, current_times: int) -> None:
        """Brings the ratios to the schedule's value after so many updates."""
        self._update_sparse_goals_by_ratio(self._shape(min(1.0, current_times / self.total_times)))

    def generate_masks(self) -> dict[str, dict[str, Tensor]]:
        """The masks in force, in NNI's format. They come from training: there is no one-shot form."""
        return self.get_masks()

    def _validate_config(self) -> None:
        config.validate(self.config_list, "pruning", config.pruner_keys())
        config.refuse_foreign(self.config_list)
        self._entries = entries_by_module(self.bound_model, self.config_list, pruning=True)

    def _set_default_sparse_granularity(self, target_space: PruningTargetSpace) -> None:
        return None

    def _single_compress(self, max_steps: int | None, max_epochs: int | None) -> None:
        self._fusion_compress(max_steps, max_epochs)

    def _fuse_preprocess(self, evaluator: Evaluator) -> None:
        self._finish()
        if self._over:
            _log.info("structure learning is over: the masks stay while the model trains on")
            self._end_reset = resetting(evaluator.model, evaluator, self._auto_reset)
            ending(evaluator, self._finish)
            return
        # AGPPruner and LinearPruner have set the ratios of their bound pruner by now, and go on to do so.
        self._driven = any(
            space.sparse_ratio != self.sparse_goals[name][target].get("sparse_ratio")
            for name, targets in self._target_spaces.items()
            for target, space in targets.items()
            if "sparse_ratio" in self.sparse_goals[name][target]
        )
        with_optimizer(evaluator, lambda optimizer: self._begin(evaluator.model, optimizer))
        self._end_reset = resetting(evaluator.model, evaluator, self._auto_reset)
        evaluator.patch_optimizer_step(before_step_tasks=[], after_step_tasks=[self._after_step])
        ending(evaluator, self._finish)

    def _fuse_postprocess(self, evaluator: Evaluator) -> None:
        dynamic = self.dynamic
        self._finish()
        if self._over:
            return
        if dynamic is None or dynamic.step_number == 0:
            raise BadOption(
                "the training function never stepped the optimizer that NNI hands it. NNI gives the wrapped model new "
                "parameters, so an optimizer of your own no longer trains it: use the `optimizers` argument of the "
                "training function, built by nni.trace(...)(model.parameters(), ...)"
            )
        if dynamic.step_number < dynamic.until:
            _log.warning(
                "training ended at step %d, before the last update of the masks at step %d: density is %.4g and not "
                "yet what the config asks for; train longer, or lower total_times or interval_steps",
                dynamic.step_number,
                dynamic.until,
                dynamic.density,
            )
        self._over = dynamic.step_number >= dynamic.until

    # ------------------------------------------------------------------------------------------------------ inside

    def _begin(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.dynamic = HostedPruner(
            model,
            optimizer,
            self._rule,
            self._spaces,
            every=f"{self.interval_steps}it",
            start=f"{self._start}it",
            until=f"{self._last_update}it",
            total_steps=self.total_steps,
            **self._kept_options,
            **self._options,
        )
        self._optimizer, self._running = optimizer, True
        self._hand_over()

    def _entry_of(self) -> dict[str, dict[str, Any]]:
        return {name: self.config_list[self._entries[space._wrapper.name]] for name, space in self._spaces.items()}

    @property
    def _last_update(self) -> int:
        return self._start + self.interval_steps * self.total_times

    def _move(self, progress: float) -> None:
        if not self._driven:
            self._update_sparse_goals_by_ratio(self._shape(progress))

    def _check_duration(self, max_steps: int | None, max_epochs: int | None) -> None:
        check_evaluator(self.evaluator, max_steps)
        check_whole(1, max_steps=max_steps, max_epochs=max_epochs)
        if not self._is_wrapped:
            raise BadOption("the model is not wrapped: call wrap_model() before compress()")
        if max_steps is None and max_epochs is None:
            raise BadOption("compress() needs max_steps or max_epochs: structure is learned while the model trains")
        if max_steps is not None and max_steps < self._last_update and not self._over:
            raise BadOption(
                f"max_steps={max_steps} ends before the last update of the masks at step {self._last_update} "
                f"(start_step + interval_steps x total_times): train longer, or lower one of them"
            )

    def _after_step(self) -> None:
        if self.dynamic is None:
            return
        # A fused optimizer is stepped by a loss scaler on an overflow too, and skips the step inside.
        overflow = getattr(self._optimizer, "found_inf", None)
        if (event := self.dynamic.step(applied=overflow is None or not bool(overflow))) is not None:
            self.event = event
            self._hand_over()

    def _finish(self) -> None:
        self._end_reset()
        self._end_reset = lambda: None
        if self._running and self.dynamic is not None:
            self._running = False
            self.dynamic.finish()
            self._hand_over()
            if not self._driven:
                self._update_sparse_goals_by_ratio(1.0)  # where they are left says who moves them next time

    def _hand_over(self) -> None:
        """Writes the masks into NNI's buffers."""
        dynamic = self.dynamic
        if dynamic is None:
            return
        masks = dynamic.masks
        for name, space in self._spaces.items():
            space.mask = masks[weight_name(name)]
            bias = space._wrapper.pruning_target_spaces.get("bias")
            if bias is not None and bias.mask is not None:
                dead = dynamic.dead_rows(name)
                bias.mask = torch.ones_like(bias.mask) if dead is None else ~dead
