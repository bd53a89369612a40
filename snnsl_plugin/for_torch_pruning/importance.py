"""What a channel is worth keeping for: how often its spikes arrive, times the weights that make and read it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.dependency.group import Group
from torch_pruning.pruner import function

from snnsl_plugin import registry
from snnsl_plugin.anatomy import LAYERS
from snnsl_plugin.compaction.neurons import NeuronPruner
from snnsl_plugin.core.layer import Criterion, Layer
from snnsl_plugin.errors import BadOption, Diverged, MissingStatistic
from snnsl_plugin.for_torch_pruning.calibration import Spikes, known
from snnsl_plugin.training.statistics import needed

_OUT = (function.prune_conv_out_channels, function.prune_linear_out_channels)
_IN = (function.prune_conv_in_channels, function.prune_linear_in_channels)
_NORM = (function.prune_batchnorm_out_channels, function.prune_layernorm_out_channels)
_RECORDED = {"grad", "grad_square", "pre_spikes"}
_TYPES = inspect.signature(tp.importance.GroupMagnitudeImportance).parameters["target_types"].default
#: The smallest score above zero: of a saturated channel; others have at least twice as much.
_TINY = torch.finfo(torch.float32).tiny


class SpikingImportance(tp.importance.GroupMagnitudeImportance):  # type: ignore[misc]
    """Firing rate times weights, of each channel of a group: rate ** rate_power * weights ** weight_power.

    The weights are reduced over the group as in Torch-Pruning: with the default criterion, `rate_power=0` and
    `uninformative_first=False` the scores are those of `GroupMagnitudeImportance`. The rate is the mean over all that
    fires, or reads, in the group, and the product is normalized. Ties and how many channels go are Torch-Pruning's.

    Before it is used, `calibrate(model, loader)` has to see the very model that is pruned.

    Args:
        p: what a weight's score is raised to before a channel's are summed.
        group_reduction: how layers of a group are put together: `mean`, `sum`, `max`, `prod`, `first` or `gate`.
        normalizer: of the scores of a group; Torch-Pruning's words, a function, or None.
        bias: whether biases count as weights.
        target_types: which modules' weights count; Torch-Pruning's where omitted.
        statistic: `output`: rates of the neurons in a group, which only the pruners of this package put there;
            `input`: the share of non-zero inputs of the layers that read the channels, also across pools and flatten,
            which any pruner of Torch-Pruning has.
        rate_power: above 0, channels that fire often are worth more; below 0, spikes are a cost, and a channel is kept
            for its weights per spike, which saves synaptic operations; 0 leaves rates out.
        weight_power: >= 0; 0 takes rates alone.
        criterion: the score of a weight: a registered name such as `magnitude`, `taylor`, `fisher` or `spike_saliency`,
            or a function of a `Layer`, as `partial(spike_saliency, power=1.0)`. Gradients are taken through the
            surrogate: those of `calibrate(..., loss=...)`, or for `taylor` also those of `loss.backward()`. `taylor`
            with `p=1` is Torch-Pruning's `GroupTaylorImportance`, which leaves out norms where ours counts them.
        uninformative_first: whether channels that say nothing come first, whatever their weights: those that never fire
            (score 0), then those with one spike at every step (the smallest number above 0).

    Raises:
        BadOption: an option outside its range.
        UnknownName: no such criterion.

    Example:
        >>> from spikingjelly.activation_based import neuron
        >>> from snnsl_plugin.for_torch_pruning import SpikingPruner, calibrate
        >>> model = nn.Sequential(nn.Linear(4, 8), neuron.IFNode(v_threshold=0.1), nn.Linear(8, 2))
        >>> x = torch.rand(16, 4, generator=torch.Generator().manual_seed(0))
        >>> rates = calibrate(model, [x])
        >>> pruner = SpikingPruner(model, x, importance=SpikingImportance(p=2), ignored_layers=[model[2]])
        >>> {name: len(gone) for name, gone in pruner.step().channels.items()}
        {'0': 4}
    """

    def __init__(
        self,
        p: float = 2,
        group_reduction: str = "mean",
        normalizer: str | Callable[[Tensor], Tensor] | None = "mean",
        bias: bool = False,
        target_types: Sequence[type[nn.Module]] | None = None,
        *,
        statistic: Literal["output", "input"] = "output",
        rate_power: float = 1.0,
        weight_power: float = 1.0,
        criterion: str | Criterion = "magnitude",
        uninformative_first: bool = True,
    ) -> None:
        types = list(_TYPES if target_types is None else target_types)
        super().__init__(p, group_reduction, normalizer, bias, types)
        if statistic not in ("output", "input"):
            raise BadOption(
                f"statistic={statistic!r}: choose 'output' (of neurons) or 'input' (of the layers that read)"
            )
        for word, power in (("weight_power", weight_power), ("p", p)):
            if not (math.isfinite(power) and power >= 0):
                raise BadOption(f"{word}={power} is not a finite number >= 0")
        if not math.isfinite(rate_power) or (rate_power < 0 and not uninformative_first):
            raise BadOption(
                f"rate_power={rate_power}: it is finite, and below 0 only with uninformative_first, because a silent "
                "channel would be worth infinitely much"
            )
        self.statistic, self.rate_power, self.weight_power = statistic, rate_power, weight_power
        self.uninformative_first = uninformative_first
        self.criterion = registry.get("criteria", criterion) if isinstance(criterion, str) else criterion
        self._needs = needed([self.criterion])
        if beyond := self._needs - _RECORDED:
            name = getattr(getattr(self.criterion, "func", self.criterion), "__name__", repr(criterion))
            raise BadOption(
                f"criterion {name!r} needs {', '.join(sorted(beyond))}, which a calibration does not record: choose "
                f"one that needs no more than {', '.join(sorted(_RECORDED))}, e.g. 'spike_saliency'"
            )

    @torch.no_grad()
    def __call__(self, group: Group) -> Tensor | None:
        """Scores of a group, shape (channels of its root in it,); None, which skips it, where it has no weights.

        Raises:
            MissingStatistic: no calibration saw these modules, or channels have gone since unseen.
            Diverged: a score is NaN or infinite.
        """
        weights = self._weights(group)
        if weights is None:
            return None
        scores, silent, saturated = weights, None, None
        if self.rate_power or self.uninformative_first:
            rate, saturated = self._rates(group, weights)
            silent = rate == 0
            rate = rate.masked_fill(silent, 1.0) if self.rate_power < 0 else rate  # the silent go first in any case
            scores = rate.pow(self.rate_power) * weights.pow(self.weight_power)
        elif self.weight_power != 1:
            scores = weights.pow(self.weight_power)
        if bool(scores.any()):  # all-zero scores have no mean to be divided by
            scores = self._normalize(scores, self.normalizer)
        if not bool(torch.isfinite(scores).all()):
            raise Diverged(f"scores of {_name(group)!r} are NaN or infinite: its weights, gradients or normalizer are")
        if self.uninformative_first and silent is not None and saturated is not None:
            scores = _uninformative_first(scores, silent, saturated)
        return scores

    def _weights(self, group: Group) -> Tensor | None:
        found, roots, places = [], [], _places(group)
        for item in group.items:
            module, handler = item.dep.target.module, item.dep.handler
            if isinstance(module, tuple(self.target_types)):
                for scores in self._per_channel(module, handler, item.idxs, _name(group, item)):
                    found.append(scores)
                    roots.append(places(item))
        return self._reduce(found, roots) if found else None

    def _per_channel(self, module: Any, handler: Any, idxs: list[int], name: str) -> Iterator[Tensor]:
        if handler in _IN:
            scores = self._scored(module, "weight", name).transpose(0, 1).flatten(1).sum(1)
            if handler == function.prune_conv_in_channels and module.groups not in (1, module.in_channels):
                scores = scores.repeat(module.groups)  # as Torch-Pruning: channels at one place of their group are one
            yield scores[idxs]
        elif handler in _OUT or (handler in _NORM and module.weight is not None and "pre_spikes" not in self._needs):
            yield self._scored(module, "weight", name).flatten(1).sum(1)[idxs]
            if self.bias and module.bias is not None and "pre_spikes" not in self._needs:
                yield self._scored(module, "bias", name).flatten(1).sum(1)[idxs]

    def _scored(self, module: Any, word: str, name: str) -> Tensor:
        """The criterion of each number of a parameter, to the power of p, laid out (out, in / groups, ...)."""
        parameter: Tensor = getattr(module, word)
        now = known(module)

        def laid_out(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or tensor.shape != parameter.shape:  # of before a cut
                return None
            if tensor.dim() == 1:
                return tensor.detach().view(-1, 1)
            return tensor.detach().transpose(0, 1) if getattr(module, "transposed", False) else tensor.detach()

        weight = laid_out(parameter)
        gradient, square = now.gradients.get(word, (None, None))
        if gradient is None or gradient.shape != parameter.shape:
            gradient = parameter.grad
        if missing := [
            each
            for each, tensor in (("grad", gradient), ("grad_square", square))
            if each in self._needs and laid_out(tensor) is None
        ]:
            raise MissingStatistic(
                f"{name}.{word} has no {' and no '.join(missing)}: call calibrate(model, loader, loss=...) on this "
                "model, and again after a cut"
            )
        inputs = None
        if "pre_spikes" in self._needs:
            inputs = _checked(now.inputs, _width(module), f"inputs of {name!r}")
        layer = Layer(
            f"{name}.{word}",
            weight,  # type: ignore[arg-type]
            {"mask": torch.ones_like(weight, dtype=torch.bool)},  # type: ignore[arg-type]
            groups=getattr(module, "groups", 1),
            grad=laid_out(gradient),
            grad_square=laid_out(square),
            pre_spikes=inputs.counts if inputs else None,
            pre_slots=inputs.slots if inputs else 0.0,
        )
        return self.criterion(layer).abs().pow(self.p)

    def _rates(self, group: Group, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rate of each root channel, and whether all that fires or reads in the group is saturated by it."""
        places = _places(group)
        total, full, times = (torch.zeros(len(group[0].idxs), dtype=torch.float64) for _ in range(3))
        for item in group.items:
            spikes = self._spikes(group, item)
            if spikes is None or None in item.root_idxs:
                continue
            channels = torch.tensor(places(item))
            total.index_add_(0, channels, spikes.rate[item.idxs])
            full.index_add_(0, channels, spikes.saturated[item.idxs].double())
            times.index_add_(0, channels, torch.ones(len(channels), dtype=torch.float64))
        if not bool(times.all()):
            what, way = (
                ("no neuron in the group of", "take statistic='input' or a pruner of snnsl_plugin.for_torch_pruning")
                if self.statistic == "output"
                else ("no layer that reads the channels of", "take statistic='output'")
            )
            raise MissingStatistic(
                f"there is {what} {_name(group)!r}, so no rate: {way}, or put it into ignored_layers"
            )
        return (total / times).to(like), (full == times).to(like.device)

    def _spikes(self, group: Group, item: Any) -> Spikes | None:
        module, graph = item.dep.target.module, group._DG
        if not isinstance(module, nn.Module):
            return None
        name = _name(group, item)
        if self.statistic == "input":
            if isinstance(module, LAYERS) and graph.is_in_channel_pruning_fn(item.dep.handler):
                return _checked(known(module).inputs, _width(module), f"inputs of {name!r}")
            return None
        pruner = graph.get_pruner_of_module(module)
        if isinstance(pruner, NeuronPruner):
            return _checked(known(module).outputs, pruner._seen[module], f"spikes of {name!r}")
        return None


def _checked(spikes: Spikes | None, channels: int, what: str) -> Spikes:
    if spikes is None:
        raise MissingStatistic(
            f"no {what} were recorded: call calibrate(model, loader) on the very model that is pruned, not on a copy"
        )
    if len(spikes.counts) != channels:
        raise MissingStatistic(
            f"the {what} were recorded for {len(spikes.counts)} channels and there are {channels} now: call "
            "calibrate(model, loader) again after each cut by others than the pruners of snnsl_plugin.for_torch_pruning"
        )
    return spikes


def _uninformative_first(scores: Tensor, silent: Tensor, saturated: Tensor) -> Tensor:
    others = ~(silent | saturated)
    lowest = float(scores[others].min()) if bool(others.any()) else 0.0
    if lowest >= 0:
        # Not below zero: regularizers take the root of scores.
        scores = scores.clamp_min(2 * _TINY)
        return scores.masked_fill(silent, 0.0).masked_fill(saturated, _TINY)
    return scores.masked_fill(silent, lowest - 2.0).masked_fill(saturated, lowest - 1.0)


def _places(group: Group) -> Callable[[Any], list[Any]]:
    """Where in the scores a member's channels belong; Torch-Pruning's own importances only know whole groups."""
    place = {channel: number for number, channel in enumerate(group[0].root_idxs)}
    return lambda item: [place.get(channel) for channel in item.root_idxs]


def _width(layer: Any) -> int:
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _name(group: Group, item: Any = None) -> str:
    module = (item or group[0]).dep.target.module
    return str(group._DG._module2name.get(module, type(module).__name__))
