"""Structure learning in anyone's training loop: prune and regrow while the network trains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from snnsl_plugin.anatomy import matched, parameter_of, weight_layers, weight_name
from snnsl_plugin.core import masks as mask_functions
from snnsl_plugin.core.layer import Layer, State
from snnsl_plugin.core.rules.drop_grow import after_step_ as drop_dead_
from snnsl_plugin.core.rules.drop_grow import budget
from snnsl_plugin.core.update import Change, random_states, update
from snnsl_plugin.errors import BadCheckpoint, BadOption
from snnsl_plugin.training import newborn
from snnsl_plugin.training.budget import Budget
from snnsl_plugin.training.events import MaskUpdate
from snnsl_plugin.training.living import Living
from snnsl_plugin.training.mounting import mount_, unmount_
from snnsl_plugin.training.options import bind_rule
from snnsl_plugin.training.planning import as_if_recorded, check_budget, counts_at_end, density_at, needed_to_share
from snnsl_plugin.training.rewinding import Rewinding
from snnsl_plugin.training.rounds import Rounds
from snnsl_plugin.training.scores import Scores
from snnsl_plugin.training.seeds import generator
from snnsl_plugin.training.statistics import Statistics, check_trainable, needed
from snnsl_plugin.training.steering import least_density, steering
from snnsl_plugin.training.timetable import Timetable


class DynamicPruner:
    """Prunes and regrows the connections of a model while anyone's loop trains it.

    Call `step()` after `optimizer.step()` and before `optimizer.zero_grad()`. Dense gradients reach pruned weights, and
    the optimizer's moments keep running on them; dead weights are exactly zero after every step. Nothing is patched:
    the pruner keeps its own hooks and `finish()` removes them.

    Memory: one byte a prunable weight for the masks (criterion `fisher` adds four, growth `coincidence` eight).

    Args:
        model: whose convolutions and linear layers are pruned.
        optimizer: any optimizer over the model's parameters.
        rule: a rule of the registry.
        every: how often masks are updated, a duration; the rule's own habit where omitted.
        start: first update, a duration. At `0it` a density below 1 starts from random masks of the distribution.
        until: last update, a duration; there is always an update at this very step.
        total_steps: optimizer steps of the whole training; what percentages refer to.
        steps_per_epoch: what durations in epochs refer to.
        layers: shell-style patterns of module names to prune.
        exclude: patterns to leave dense. They count: a density is a fraction of all weights.
        newborn_v: what Adam's second moment of a grown connection starts from: `zero` or the `layer_mean`.
        sample_every: statistics are recorded at every n-th step.
        seed: of the random choices; each layer has its own stream.
        paths: whether live connections are found at each update, and channels without input silenced.
        budget: what the network may cost in the end: the last density then moves until that is what is measured, and
            masks are corrected after `until` too, as often as before and only as far as needed.
        vanish: patterns of layers that may lose all they have, as those of a residual branch; needs `paths`.
        first: scores of the connections that a sparse start takes, by layer name; random ones where omitted.
        **options: of the rule, e.g. `density`, `criterion`, `growth`, `distribution`, `swap`; functions or their names.

    Raises:
        BadOption: an option out of range; a duration that cannot be resolved.
        UnknownName: a name the registry does not have.
        NothingMatched: a pattern that matches no layer.

    Example:
        >>> from snnsl_plugin.core import schedules
        >>> model = nn.Linear(10, 10)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> pruner = DynamicPruner(model, optimizer, density=schedules.linear(first=1.0, last=0.2),
        ...                        every="1it", total_steps=5, until="100%")
        >>> for _ in range(5):
        ...     model(torch.ones(1, 10)).sum().backward()
        ...     optimizer.step()
        ...     _ = pruner.step()
        ...     optimizer.zero_grad()
        >>> pruner.density
        0.2
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        rule: str = "drop_grow",
        *,
        every: str | None = None,
        start: str = "0it",
        until: str = "80%",
        total_steps: int | None = None,
        steps_per_epoch: int | None = None,
        layers: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        newborn_v: newborn.NewbornV = "zero",
        sample_every: int = 10,
        seed: int = 0,
        paths: bool = True,
        budget: Budget | None = None,
        vanish: Sequence[str] = (),
        first: Mapping[str, Tensor] | None = None,
        **options: Any,
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._asked: dict[str, int] = {}
        self._rule = bind_rule(rule, options, counted=self._asked.update)
        self._when = (Rounds if self._rule.rewinds else Timetable).of(
            start=start,
            until=until,
            every=every or self._rule.every,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
        )
        if sample_every < 1:
            raise BadOption(f"sample_every={sample_every} must be at least one step")
        if newborn_v not in ("zero", "layer_mean"):
            raise BadOption(f"newborn_v={newborn_v!r}: choose 'zero' or 'layer_mean'")
        self._modules = weight_layers(model)
        self._newborn_v, self._sample_every = newborn_v, sample_every
        self._generators = {
            name: generator(seed, "mask", name) for name in matched(list(self._modules), layers, exclude)
        }
        self._weights = {name: parameter_of(module) for name, module in self._modules.items()}
        self.budget = budget
        self._steering = None
        if budget:
            floor = least_density({name: weight.numel() for name, weight in self._weights.items()}, self.prunable)
            self._steering = steering(budget, rule, options, self._when, floor)
            self._rule = bind_rule(rule, options, counted=self._asked.update)  # by the density that is steered
        needs = needed(self._rule.functions("criteria", "growth")) | self._rule.needs
        check_trainable({name: self._weights[name] for name in self._generators}, optimizer, needs)
        self._states: dict[str, State] = {name: self._initial(name) for name in self._modules}
        needs |= needed_to_share(self._rule, self._layers())
        self._statistics = Statistics(
            model,
            {name: self._weights[name] for name in self._generators},
            needs,
            # An update always has at least its own step to go by, also one that was put off.
            lambda step: step % sample_every == 0 or self._due(step) or self._postponed,
        )
        self.step_number = 0
        self.born = 0
        #: weights the distribution asked for at the last update, by layer; empty where the density is an outcome
        self.requested: dict[str, int] = {}
        self._since_event: dict[str, Counter[str]] = {"born": Counter(), "dropped": Counter()}
        self._event_step = self._when.start
        self._postponed = False
        if budget:
            budget.check(model, sum(weight.numel() for weight in self._weights.values()), paths=paths)
        if vanish and not paths:
            raise BadOption("vanish needs paths: nothing else tells whether the network still has a way through")
        self._vanish = matched(list(self._modules), vanish, ()) if vanish else []
        check_budget(self._rule, self._layers(), self._vanish)
        self._start_sparse(first)
        # What a rule learns beside the weights; None where it learns nothing.
        learned = {name: self._states[name] for name in self._generators}
        self._scores = Scores(model, self._rule, self._weights, learned) if self._rule.learner else None
        early_time = self._rule.chosen.get("early_time")
        self._rewinding = (
            Rewinding(model, optimizer, self._when, total_steps=total_steps, early_time=early_time)
            if isinstance(self._when, Rounds)
            else None
        )
        self._mount()
        self._living = Living(model, optimizer) if paths else None
        self._statistics.start()

    def __enter__(self) -> DynamicPruner:
        return self

    def __exit__(self, *error: object) -> None:
        self.finish()

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask of every layer, bool, by unwrapped dotted parameter name; all True where nothing is pruned."""
        return {weight_name(name): self._mask(name) for name in self._states}

    @property
    def density(self) -> float:
        """Kept / all weights over all convolutions and linear layers, in [0, 1]."""
        return mask_functions.density(self.masks.values())

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """The masks by the parameter that the optimizer sees, as `clip_` wants them.

        Empty for a rule with effective weights: there the gradient of a dead weight moves what lies beneath it.
        """
        if self._rule.effective:
            return {}
        return {self._weights[name]: state["mask"] for name, state in self._states.items()}

    @property
    def neuron_masks(self) -> dict[str, Tensor]:
        """Which neurons are there, bool, (C, ...), by name of the neuron layer; empty for a rule that masks none."""
        return self._scores.neuron_masks if self._scores else {}

    def score_optimizer(self) -> Optimizer | None:
        """For a loop that scales its loss: what `scaler.unscale_` is to be called with too, after each backward pass.

        None for a rule that learns nothing beside the weights, and once its scores stay.
        """
        return self._scores.optimizer() if self._scores else None

    @property
    def prunable(self) -> list[str]:
        """Dotted module names of the layers that are pruned."""
        return list(self._generators)

    @property
    def target(self) -> float | None:
        """The density asked for at the end, in (0, 1]; None where it is an outcome, of a rule or of a budget."""
        density = self._rule.chosen.get("density")
        return density(1.0) if density and not self.budget else None

    @property
    def until(self) -> int:
        """The step of the last update."""
        return self._when.until

    def planned_density(self, step: int) -> float | None:
        """The density asked for after a step, in (0, 1]; None for a rule whose density is an outcome."""
        return density_at(self._rule, self._when, step)

    def round_position(self, step: int) -> float | None:
        """Where a learning-rate schedule should stand after a step, in [0, 1], for a rule that rewinds; else None.

        It is the share of the round that has passed, which counts from the beginning of the training to `start`, and on
        from the rewind. For other rules a schedule follows the share of the whole training.
        """
        return self._rewinding.position(step) if self._rewinding else None

    def planned_counts(self) -> dict[str, int]:
        """Weights to keep per layer at the end, as the distribution shares them now; empty where it is no input.

        A distribution that ranks scores is shown the size of today's weights, so its answer is a guess.
        """
        layers = as_if_recorded(self._layers())
        scores = {each.name: each.weight.detach().abs() for each in layers if each.prunable}
        return counts_at_end(self._rule, layers, scores)

    def step(self, *, applied: bool = True) -> MaskUpdate | None:
        """Ends one training step: dead weights become zero, and masks are updated where one is due.

        Args:
            applied: False where the optimizer skipped this step (loss scaling met an overflow): the step counts, its
                gradients do not, and an update that was due waits for the next one.

        Returns:
            What the update changed, which may be nothing; None where no update was due.

        Raises:
            Disconnected: a mask without any path through the network.
            MissingStatistic: the rule asks for what was not recorded.
            Diverged: scores are NaN.
        """
        self.step_number += 1
        if self._scores:
            self._scores.step_(self._when.progress(self.step_number), applied=applied)
        if applied:
            self._drift()
        self._after_step()
        if self._rewinding:
            self._rewinding.after_step(self.step_number)
        event = None
        if not applied:
            self._postponed = self._postponed or self._due(self.step_number)
        else:
            self._statistics.after_step(self.step_number)
            if self._postponed or self._due(self.step_number):
                self._postponed = False
                with self._steering.explained() if self._steering else nullcontext():
                    event = self._update() if self._off_budget() else None
            elif self.step_number == 1 and self.density < 1.0:
                self._trace()  # a sparse start has silent channels from its first step on
        self._statistics.before_step(self.step_number + 1)
        return event

    def finish(self) -> None:
        """Ends structure learning: hooks go, and effective weights become the weights. Zeros stay zeros."""
        self._statistics.close()
        for each in (self._living, self._rewinding):
            if each:
                each.close()
        if self._scores:
            self._scores.finish()
        self._unmount()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs: plain data and tensors.

        Where several processes train the network, the spike counts in it are those of all of them: every rank makes
        this call, and whichever of them goes on, alone or with others, loads the same state on every rank.
        """
        return {
            "rule": self._rule.name,
            "step": self.step_number,
            "prunable": self.prunable,
            "when": list(astuple(self._when)),
            "born": self.born,
            "requested": self.requested,
            "since_event": self._since_event,
            "event_step": self._event_step,
            "postponed": self._postponed,
            "states": self._states,
            "scores": self._scores.state_dict() if self._scores else {},
            "generators": {name: stream.get_state() for name, stream in self._generators.items()},
            "statistics": self._statistics.state_dict(),
            "rewinding": self._rewinding.state_dict() if self._rewinding else {},
            "dead": self._living.dead if self._living else {},
            "example": self._living.example if self._living else None,
            "steering": self._steering.state_dict() if self._steering else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from `state_dict`, in place.

        Raises:
            BadCheckpoint: it belongs to another rule or another model.
        """
        shapes = {name: list(weight.shape) for name, weight in self._weights.items()}
        stored = {name: list(layer["mask"].shape) for name, layer in state["states"].items()}
        own = {"rule": self._rule.name, "prunable": self.prunable, "when": list(astuple(self._when))}
        other = [f"{key} {state[key]} instead of {value}" for key, value in own.items() if state[key] != value]
        if other or shapes != stored:
            raise BadCheckpoint(
                f"this pruner state is of another pruner ({'; '.join(other) or 'its layers have other shapes'}): "
                "resume with the model and options it was made by"
            )
        self.step_number, self.born, self.requested = state["step"], state["born"], dict(state["requested"])
        self._since_event = {word: Counter(counts) for word, counts in state["since_event"].items()}
        self._event_step, self._postponed = state["event_step"], state["postponed"]
        self._set(state["states"])
        if self._scores:
            self._scores.load_state_dict(state["scores"])
        for name, stream in self._generators.items():
            stream.set_state(state["generators"][name].cpu())
        if self._steering:
            self._steering.load_state_dict(state["steering"])
        self._statistics.load_state_dict(state["statistics"])
        if self._rewinding:
            self._rewinding.load_state_dict(state["rewinding"], self.step_number)
        if self._living and state["example"] is not None:
            device = next(iter(self._weights.values())).device
            self._living.example = state["example"].to(device)
            self._living.dead = {name: rows.to(device) for name, rows in state["dead"].items()}
        self._statistics.before_step(self.step_number + 1)

    # ------------------------------------------------------------------------------------------------ inside

    def _due(self, step: int) -> bool:
        return self._when.due(step) or (self._steering is not None and self._steering.due(step))

    def _off_budget(self) -> bool:
        """Whether masks are to be updated, as they always are where no budget is to be met."""
        if self._steering is None:
            return True
        example = self._living.example if self._living else None
        spent = self._steering.budget.spent(self._model, self.masks, example, few=self._steering.few(self.step_number))
        return self._steering.look(*spent, self.density, self.step_number)

    def _initial(self, name: str) -> State:
        weight = self._weights[name].detach()
        if self._rule.initial and name in self._generators:
            return self._rule.initial(weight)
        return {"mask": torch.ones_like(weight, dtype=torch.bool)}

    def _mask(self, name: str) -> Tensor:
        if self._rule.evaluated and name in self._generators:
            return self._rule.evaluated(self._weights[name].detach(), self._states[name]) != 0
        if self._rule.effective and name in self._generators:
            # Between two updates theta moves on, and what it makes of the weight is the truth.
            return self._effective(name).detach() != 0
        return self._states[name]["mask"]

    # A host that keeps weights in a place of its own says here how a layer computes with something else.

    def _mount(self) -> None:
        if self._rule.effective:
            for name in self.prunable:
                mount_(self._modules[name], self._rule.effective, self._states[name], self._rule.evaluated)

    def _effective(self, name: str) -> Tensor:
        return self._modules[name].weight

    def _unmount(self) -> None:
        for module in self._modules.values():
            unmount_(module)

    @torch.no_grad()
    def _set(self, states: dict[str, State]) -> None:
        # Copied into the tensors in place, because mounted parametrizations hold them.
        for name, state in states.items():
            for key, value in state.items():
                self._states[name][key].copy_(value)

    def _start_sparse(self, first: Mapping[str, Tensor] | None) -> None:
        density, distribution = (self._rule.chosen.get(word) for word in ("density", "distribution"))
        if self._when.start == 0 and density and distribution and density(0.0) < 1.0:
            layers = as_if_recorded(self._layers())
            self._set(random_states(layers, distribution, budget(layers, density(0.0)), first))
            for name in self.prunable:
                drop_dead_(self._weights[name].data, self._states[name])

    def _layers(self, recorded: Mapping[str, dict[str, Any]] | None = None) -> list[Layer]:
        return [self._layer(name, (recorded or {}).get(name, {})) for name in self._modules]

    def _layer(self, name: str, recorded: dict[str, Any]) -> Layer:
        weight = self._weights[name]
        if name not in self._generators:
            return Layer(name, weight, self._states[name], prunable=False)
        return Layer(
            name,
            weight.detach(),
            self._states[name],
            groups=getattr(self._modules[name], "groups", 1),
            grad=weight.grad,
            momentum=newborn.momentum(self._optimizer, weight),
            generator=self._generators[name],
            **recorded,
        )

    @torch.no_grad()
    def _update(self) -> MaskUpdate | None:
        hard = not self._rule.effective
        before = {name: self._states[name]["mask"].clone() for name in self._generators} if hard else {}
        progress = self._when.progress(self.step_number)
        change = update(self._rule.update, self._layers(self._statistics.all()), progress, may_vanish=self._vanish)
        if self._rewinding:
            self._rewinding.after_update_(progress)
        self._set(change.states)
        if self._scores:
            self._scores.update_(progress)
        for name, was in before.items():
            now, weight = self._states[name]["mask"], self._weights[name]
            newborn.forget_(self._optimizer, weight, mask_functions.grown(was, now), was & now, self._newborn_v)
        self._after_step()  # before paths are traced: a channel that has just lost all its connections must be silent
        self.born += sum(change.born.values())
        self.requested = {} if self.budget else dict(self._asked)
        self._since_event["born"].update(change.born)
        self._since_event["dropped"].update(change.dropped)
        # A rule whose habit is to move at every step is looked at as often as it is sampled.
        moves, ended = self._rule.every == "1it", self.step_number >= self._when.until
        if moves and not ended and self.step_number - self._event_step < self._sample_every:
            return None
        live = self._trace()
        event = MaskUpdate(
            step=self.step_number,
            progress=progress,
            density=self.density,
            layers={name: kept / self._weights[name].numel() for name, kept in self._kept(change).items()},
            connections=sum(int(mask.count_nonzero()) for mask in live.values()),
            born={name: self._since_event["born"][name] for name in self._modules},
            dropped={name: self._since_event["dropped"][name] for name in self._modules},
            rates=self._statistics.rates(),
            spent=self._steering.spent if self._steering else None,
        )
        self._since_event, self._event_step = {"born": Counter(), "dropped": Counter()}, self.step_number
        self._statistics.clear()
        return event

    def _kept(self, change: Change) -> dict[str, int]:
        # Until scores settle a mask is no fact yet, only what the network would be evaluated with now.
        return {name: int(self._mask(name).count_nonzero()) for name in self._modules} if self._scores else change.kept

    def _trace(self) -> dict[str, Tensor]:
        if self._living and self._scores and not self._scores.settled:
            return self._living.paths(self.masks).live
        live = self._living.update_(self.masks, self.step_number).live if self._living else self.masks
        self._after_step()
        return live

    @torch.no_grad()
    def _drift(self) -> None:
        if self._rule.drift_:
            rates = {id(each): group["lr"] for group in self._optimizer.param_groups for each in group["params"]}
            for name in self._generators:
                self._rule.drift_(self._weights[name], self._states[name], rates[id(self._weights[name])])

    @torch.no_grad()
    def _after_step(self) -> None:
        if self._rule.after_step_:
            for name in self._generators:
                self._rule.after_step_(self._weights[name], self._states[name])
        if self._living:
            self._living.after_step_()
