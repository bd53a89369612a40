"""Units that are masked and regrown while a network trains, on Torch-Pruning's groups; the survivors are cut out."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch_pruning.dependency.group import Group

from snnsl_plugin import registry
from snnsl_plugin.anatomy import parameter_of, unwrapped, weight_layers
from snnsl_plugin.compaction.cutting import Removed
from snnsl_plugin.core.layer import Growth, Schedule
from snnsl_plugin.core.schedules.constant import constant
from snnsl_plugin.core.schedules.cosine import cosine
from snnsl_plugin.core.schedules.cubic import cubic
from snnsl_plugin.errors import BadCheckpoint, BadOption, NothingRemoved
from snnsl_plugin.for_torch_pruning.gates import Gates, unread
from snnsl_plugin.for_torch_pruning.newborn_units import begin_
from snnsl_plugin.for_torch_pruning.pruners import _Spiking
from snnsl_plugin.for_torch_pruning.scopes import check_rounding, floor_of, kept, scope_of, shares
from snnsl_plugin.for_torch_pruning.trial import try_to_cut
from snnsl_plugin.for_torch_pruning.unit_choice import choose, scheduler
from snnsl_plugin.for_torch_pruning.unit_scores import growth_of, per_unit, weight_density
from snnsl_plugin.for_torch_pruning.unit_update import UnitUpdate
from snnsl_plugin.for_torch_pruning.units import Units, check_written, living_group, units_of
from snnsl_plugin.training import newborn
from snnsl_plugin.training.seeds import derived, generator
from snnsl_plugin.training.statistics import check_trainable, needed

#: Of Torch-Pruning's; a head is several units that only go together.
_HEADS = ("num_heads", "prune_num_heads", "head_pruning_ratio", "head_pruning_ratio_dict")


class SpikingDynamicPruner(_Spiking):
    """Torch-Pruning's groups as units that are dropped and regrown during training; `finish()` cuts the survivors out.

    Call `step()` after `optimizer.step()` and before `optimizer.zero_grad()`, at every optimizer step: masked units are
    made exactly zero, and every `interval` steps they are chosen anew. Per ranking scope of Torch-Pruning (a group; all
    groups with `global_pruning`; those alike with `isomorphic`) an update

        keeps    int(n (1 - ratio)) of the n units, as Torch-Pruning counts: the most important, wherever they are;
        drops    floor(swap k) of the k that a group keeps, the least important, and
        regrows  as many of the group's masked ones, those with the best growth; a unit that was dropped at this very
                 update returns only where no other is there to return.

    The ratio follows `schedule` and is reached exactly at the last update (with `round_to`, the multiple below it; a
    group keeps at least one unit). Importance is asked about living units only, with columns that read masked ones at
    zero: without a swap, the choices are those of Torch-Pruning's iterative pruning. What it draws from torch's global
    generator comes from the seed.

    A masked unit has rows, biases, norm scales and shifts of zero, and says nothing. Its columns in the layers behind
    it stay: they read zeros, and carry the gradient that growth reads (`gates.Gates`). A regrown unit starts from zero
    rows and new norms, and the optimizer forgets what it kept of it.

    With grouped convolutions, a unit is the i-th channel of every channel group, which thereby stay of one size.
    Attention heads and channels of transposed convolutions are no units: their layers go into `ignored_layers`.

    Args:
        model: masked in place; spiking or not, in either step mode. Of a data-parallel or compiled one, that inside.
        example_inputs: what it is called with, (T, N, ...) in multi-step mode.
        importance: any of Torch-Pruning's, or a function from a group to scores of `len(group[0].idxs)`, or to None for
            a group to be left alone.
        global_pruning: whether all groups are ranked together.
        pruning_ratio: share of the units masked at the end, in [0, 1).
        pruning_ratio_dict: ratios of some modules, or tuples of modules.
        max_pruning_ratio: of any one group.
        iterative_steps: updates, a count; they are over after `interval * iterative_steps` steps, and training on for
            a while does what was regrown last some good.
        iterative_pruning_ratio_scheduler: Torch-Pruning's way to say the ratio of each update; instead of `schedule`.
        ignored_layers: modules, types of modules, parameters; the last layer belongs here.
        round_to: channels of a group become a multiple of this.
        isomorphic: whether groups of the same pattern are ranked together.
        optimizer: over the model's parameters.
        interval: optimizer steps between two updates.
        schedule: how the ratio is reached, from 0 to 1: a function of the share of updates done, or a schedule's name.
        swap: share of the survivors exchanged, in [0, 1]: a schedule, a number, or None for none.
        growth: which masked units come back: `gradient`, `momentum`, `random`, or a function of a layer; scores of a
            unit's weights count by their L2 norm over all layers that write it.
        newborn_v: what Adam's second moment of a regrown unit starts from: `zero` or the `layer_mean`.
        seed: of random choices; each group has its own stream.
        **options: further ones of `SpikingPruner`: `forward_fn`, `trace`, `verify`, `neuron_types`,
            `root_module_types`, ... With `verify` a cut is also tried here, on a copy, before anything is trained.

    Raises:
        BadOption: an option out of range; a layer that the optimizer does not train; a `round_to` by which no group can
            lose a channel; a transposed convolution that is not ignored.
        NothingRemoved: there is no group of channels at all.
        CannotCut: the model cannot be traced or cut; it is as it was.

    Example:
        >>> import torch_pruning as tp
        >>> from spikingjelly.activation_based import layer, neuron
        >>> model = nn.Sequential(layer.Linear(4, 8), neuron.LIFNode(), layer.Linear(8, 2))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> pruner = SpikingDynamicPruner(
        ...     model, torch.rand(1, 4), tp.importance.MagnitudeImportance(p=2), optimizer=optimizer,
        ...     pruning_ratio=0.5, interval=1, iterative_steps=3, ignored_layers=[model[2]])
        >>> for _ in range(3):
        ...     model[1].reset()
        ...     model(torch.rand(16, 4)).sum().backward()
        ...     optimizer.step()
        ...     update = pruner.step()
        ...     optimizer.zero_grad()
        >>> update.kept, pruner.ratio
        ({'0': 4}, 0.5)
        >>> print(pruner.finish())
        0 4 of 8; parameters 58 -> 30
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # the old one holds the longer tensors
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        importance: Callable[[Any], Tensor | None],
        global_pruning: bool = False,
        pruning_ratio: float = 0.5,
        pruning_ratio_dict: Mapping[Any, float] | None = None,
        max_pruning_ratio: float = 1.0,
        iterative_steps: int = 10,
        iterative_pruning_ratio_scheduler: Callable[[float, int], Sequence[float]] | None = None,
        ignored_layers: Sequence[nn.Module | type[nn.Module] | nn.Parameter] | None = None,
        round_to: int | None = None,
        isomorphic: bool = False,
        *,
        optimizer: Optimizer,
        interval: int = 100,
        schedule: Schedule | str = cubic(first=0.0, last=1.0),
        swap: Schedule | float | None = cosine(first=0.3, last=0.0),
        growth: Growth | str = "gradient",
        newborn_v: newborn.NewbornV = "zero",
        seed: int = 0,
        **options: Any,
    ) -> None:
        if interval < 1 or iterative_steps < 1:
            raise BadOption(f"interval={interval} and iterative_steps={iterative_steps} must be at least 1")
        if newborn_v not in ("zero", "layer_mean"):
            raise BadOption(f"newborn_v={newborn_v!r}: choose 'zero' or 'layer_mean'")
        if heads := [word for word in _HEADS if options.get(word)]:
            raise BadOption(
                f"{', '.join(heads)}: attention heads are not masked and regrown; put their layers into ignored_layers"
            )
        self._growth: Growth = registry.get("growth", growth) if isinstance(growth, str) else growth
        self._swap = constant(value=swap) if isinstance(swap, float | int) else swap
        super().__init__(
            model := unwrapped(model),
            example_inputs,
            importance,
            global_pruning,
            pruning_ratio,
            pruning_ratio_dict,
            max_pruning_ratio,
            iterative_steps,
            iterative_pruning_ratio_scheduler or scheduler(schedule),
            ignored_layers=ignored_layers,
            round_to=round_to,
            isomorphic=isomorphic,
            **options,
        )
        self._optimizer, self._interval, self._newborn_v, self._seed = optimizer, interval, newborn_v, seed
        self._scopes: dict[str, list[Units]] = {}
        self._ratio_of: dict[str, nn.Module | None] = {}
        self._gather()
        self._units = [each for units in self._scopes.values() for each in units]
        rows = {member.name: parameter_of(member.module) for each in self._units for member in each.rows}
        needs = needed([self._growth])
        if beyond := needs - {"grad", "momentum"}:
            name = getattr(getattr(self._growth, "func", self._growth), "__name__", repr(growth))
            raise BadOption(
                f"growth {name!r} needs {', '.join(sorted(beyond))}, which is not recorded for units: choose one that "
                "needs no more than grad and momentum, e.g. 'gradient'"
            )
        check_trainable(rows, optimizer, needs)
        for step in range(1, iterative_steps + 1):
            for scope, units in self._scopes.items():
                self._kept(scope, units, step)
        asked = [units for scope, units in self._scopes.items() if self._kept(scope, units, step) < _count(units)]
        check_rounding([each for units in asked for each in units], self.round_to)
        if self._verify:
            try_to_cut(self, options)
        self._alive = {each.name: torch.ones(each.count, dtype=torch.bool) for each in self._units}
        self._generators = {each.name: generator(seed, "unit", each.name) for each in self._units}
        self._cut_out = False
        self.step_number = 0
        #: units that came back, over all updates
        self.regrown = 0
        self._sizes = {name: layer.weight.shape for name, layer in weight_layers(model).items()}
        self._gates = Gates(self._units)

    def __enter__(self) -> SpikingDynamicPruner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def units(self) -> list[Units]:
        """All groups of units, in the order of the model."""
        return list(self._units)

    @property
    def masks(self) -> dict[str, Tensor]:
        """Which units live: bool, (units,), by the name of the layer that their group starts at."""
        return {name: alive.clone() for name, alive in self._alive.items()}

    @property
    def ratio(self) -> float:
        """Masked / all units, in [0, 1]."""
        return 1.0 - self._living() / _count(self._units)

    @property
    def density(self) -> float:
        """Weights that neither write nor read a masked unit / all of convolutions and linear layers, in [0, 1].

        After `finish()` this is what is left of the dense network.
        """
        return weight_density(self._units, self._alive, self._sizes)

    def by_parameter(self) -> dict[nn.Parameter, Tensor]:
        """Bool masks by the parameters that have masked numbers, as `training.clipping.clip_` wants them."""
        return {} if self._cut_out else self._gates.masks()

    def step(self, interactive: bool = False, *, applied: bool = True) -> UnitUpdate | None:
        """Ends one optimizer step: masked units become zero, and units are chosen anew where an update is due.

        Args:
            interactive: of Torch-Pruning's pruners, which yield groups; this one does not.
            applied: False where the optimizer skipped this step (loss scaling met an overflow): an update that was due
                waits for the next one.

        Returns:
            What the update changed; None where none was due.

        Raises:
            BadOption: interactive, or finished.
            MissingStatistic: growth asks for gradients, and there are none.
            Diverged: scores are NaN.
            NothingRemoved: the importance returns None for every group.
        """
        if interactive:
            raise BadOption("SpikingDynamicPruner masks units and yields no groups: cut them with finish()")
        self._check_uncut()
        self.step_number += 1
        self._gates.hold_()
        left = self.current_step < self.iterative_steps
        due = left and self.step_number >= self._interval * (self.current_step + 1)
        return self._update() if due and applied else None

    def finish(self) -> Removed:
        """Cuts the masked units out of the model, in place, and ends the pruner; hooks go.

        The optimizer holds the longer tensors: make a new one over `model.parameters()`, or let it go on with what is
        left: `with compaction.optimizer_state.following(model, optimizer): pruner.finish()`.

        Returns:
            What was removed, per layer.

        Raises:
            BadOption: not all updates were made, so the ratio is not reached; or it was finished before.
            CannotCut: what is left would not compute the same; the model and the pruner are as they were.
        """
        self._check_uncut()
        if self.current_step < self.iterative_steps:
            raise BadOption(
                f"{self.current_step} of {self.iterative_steps} updates are done, so the pruning ratio is not reached: "
                f"take {self._interval * self.iterative_steps} steps, or lower interval or iterative_steps"
            )
        removed = self._cut(lambda: self._followed(self._masked_groups()))
        self._cut_out = True
        self.close()
        return removed

    def close(self) -> None:
        """Removes the hooks without cutting; what is masked is zero and trains from there."""
        self._gates.close()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, besides model and optimizer: plain data and tensors."""
        return {
            "options": self._options(),
            "step": self.step_number,
            "update": self.current_step,
            "regrown": self.regrown,
            "alive": self.masks,
            "generators": {name: stream.get_state() for name, stream in self._generators.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`, in place; what is masked there becomes zero here.

        Args:
            state: of a pruner made the same way, of a model that is not cut yet.

        Raises:
            BadCheckpoint: it belongs to another model or to other options, or is no such state; nothing is changed.
        """
        _check_state(state, self.state_dict())
        self.step_number, self.current_step = state["step"], state["update"]
        self.regrown = state["regrown"]
        self._alive = {name: alive.cpu().clone() for name, alive in state["alive"].items()}
        for name, stream in self._generators.items():
            stream.set_state(state["generators"][name].cpu())
        self._gates.set_(self._alive)

    # ------------------------------------------------------------------------------------------------ inside

    def _gather(self) -> None:
        graph = self.DG
        for group in graph.get_all_groups(ignored_layers=self.ignored_layers, root_module_types=self.root_module_types):
            units = units_of(group, self._get_channel_groups(group), self._neuron_types)
            if units.count > 1:
                check_written(units, group)
                scope, module = scope_of(self, group)
                self._scopes.setdefault(scope, []).append(units)
                self._ratio_of.setdefault(scope, module)
        if not self._scopes:
            raise NothingRemoved(
                "there is no group of channels that could be masked: check ignored_layers and root_module_types"
            )

    def _kept(self, scope: str, units: Sequence[Units], step: int) -> int:
        module = self._ratio_of[scope]
        ratio = self.per_step_pruning_ratio[step] if module is None else self.get_target_pruning_ratio(module, step)
        # One group alone can have no more than the largest ratio; several share what is left.
        ratio = min(ratio, self.max_pruning_ratio) if len(units) == 1 else ratio
        floor = sum(floor_of(each, self.max_pruning_ratio) for each in units)
        return kept(_count(units), ratio, scope, floor)

    def _check_uncut(self) -> None:
        if self._cut_out:
            raise BadOption("what was masked is cut out, and this pruner is done: make another to go on")

    def _living(self) -> int:
        return sum(int(alive.count_nonzero()) for alive in self._alive.values())

    def _options(self) -> dict[str, Any]:
        progress = [step / self.iterative_steps for step in range(1, self.iterative_steps + 1)]
        return {
            "units": {each.name: each.count for each in self._units},
            "interval": self._interval,
            "ratios": {
                scope: [self._kept(scope, units, step) for step in range(1, self.iterative_steps + 1)]
                for scope, units in self._scopes.items()
            },
            "schedule": [round(float(ratio) / (self.pruning_ratio or 1.0), 9) for ratio in self.per_step_pruning_ratio],
            "swap": None if self._swap is None else [round(float(self._swap(done)), 9) for done in progress],
            "growth": _called(self._growth),
            "newborn_v": self._newborn_v,
            "importance": _called(self.importance),
            "seed": self._seed,
        }

    @torch.no_grad()
    def _update(self) -> UnitUpdate:
        number = self.current_step + 1
        scores = self._scores(number)
        ranked = [each for each in self._units if each.name in scores]
        if not ranked:
            raise NothingRemoved(
                f"the importance returns None for all {len(self._units)} groups, so no unit can be chosen: use another"
            )
        counts = self._counts(ranked, scores, number)
        progress = number / self.iterative_steps
        change = choose(ranked, self._alive, counts, scores, self._grown, self._swap, progress)
        before, self.current_step = self._alive, number
        self._alive = before | {name: state["mask"] for name, state in change.states.items()}
        self._gates.set_(self._alive)
        for each in self._units:
            begin_(each, before[each.name], self._alive[each.name], self._optimizer, self._newborn_v)
        self.regrown += sum(change.born.values())
        return UnitUpdate(
            step=self.step_number,
            update=number,
            updates=self.iterative_steps,
            ratio=self.ratio,
            density=self.density,
            units={each.name: each.count for each in self._units},
            kept={name: int(alive.count_nonzero()) for name, alive in self._alive.items()},
            born=change.born,
            dropped=change.dropped,
            left_out=tuple(each.name for each in self._units if each.name not in scores),
        )

    def _counts(self, ranked: Sequence[Units], scores: Mapping[str, Tensor], number: int) -> dict[str, int]:
        counts: dict[str, int] = {}
        for scope, groups in self._scopes.items():
            among = [each for each in groups if each in ranked]
            if among:
                counts |= shares(
                    among,
                    scores,
                    self._alive,
                    self._kept(scope, among, number),
                    max_ratio=self.max_pruning_ratio,
                    round_to=self.round_to,
                    growth=self._grown,
                )
        return counts

    def _grown(self, units: Units) -> Tensor:
        if bool(self._alive[units.name].all()):
            return torch.zeros(units.count, dtype=torch.float64)  # nobody to come back, so no gradient is asked for
        return growth_of(units, self._growth, self._optimizer, self._generators[units.name])

    def _scores(self, number: int) -> dict[str, Tensor]:
        """Importance by name, (count,), 0 for masked units."""
        found = {}
        seed = derived(self._seed, "importance", number)
        devices = sorted({p.device.index or 0 for p in self.model.parameters() if p.is_cuda})
        with torch.random.fork_rng(devices=devices), unread(self._units, self._alive):
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            for each in self._units:
                alive = self._alive[each.name]
                answer = self.estimate_importance(living_group(self.DG, each, alive))
                if answer is not None:
                    found[each.name] = per_unit(answer, each, alive)
        return found

    def _masked_groups(self) -> Iterator[Group]:
        for each in self._units:
            if masked := each.channels(~self._alive[each.name]):
                yield self.DG.get_pruning_group(each.root, each.prune, masked)


def _count(units: Sequence[Units]) -> int:
    return sum(each.count for each in units)


def _called(asked: Any) -> str:
    """The qualified name of a function or, of any other callable, that of its class."""
    asked = asked.func if isinstance(asked, partial) else asked
    name: str = getattr(asked, "__qualname__", type(asked).__qualname__)
    return name


def _check_state(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if lacking := [word for word in own if word not in state]:
        raise BadCheckpoint(
            f"this is no state of a SpikingDynamicPruner, for it lacks {', '.join(lacking)}: load what state_dict() "
            "of one returned"
        )
    # Told in short: there are as many numbers in some as there are updates.
    told = reprlib.Repr()
    told.maxstring = 100
    other = [
        f"{word} {told.repr(state['options'].get(word))} instead of {told.repr(value)}"
        for word, value in own["options"].items()
        if state["options"].get(word) != value
    ]
    if other:
        raise BadCheckpoint(
            f"this pruner state is of another pruner ({'; '.join(other)}): resume with the model and options it was "
            "made by"
        )
