"""What one target of a distiller learns from its guide."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from nni.compression.base.target_space import DistillationTargetSpace
from torch import Tensor, nn

from snnsl_plugin import registry
from snnsl_plugin.errors import BadOption, did_you_mean
from snnsl_plugin.for_nni.answers import Answering, Predict, recorded, samples
from snnsl_plugin.for_nni.choices import chosen
from snnsl_plugin.training.distiller import ReverseDistiller

Labels = Callable[[Any], Tensor | None]


def check_number(word: str, value: Any) -> None:
    """Refuses what is no finite number of at least 0.

    Raises:
        BadOption: with the word and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise BadOption(f"{word}={value!r} must be a finite number of at least 0")


def _number(word: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise BadOption(f"{word}={value!r} must be a number above 0")

    return check


def _flag(value: Any) -> None:
    if not isinstance(value, bool):
        raise BadOption(f"per_step={value!r} must be True or False")


#: own key of a distiller's entry -> what raises where its value is wrong
DISTILLER_KEYS: dict[str, Callable[[Any], Any]] = {
    "temperature": _number("temperature"),
    "logit_scale": _number("logit_scale"),
    "divergence": lambda value: chosen("divergences", value),
    "per_step": _flag,
    "lambda": lambda value: check_number("lambda", value),
}


class Softened:
    """The divergence of softened answers, times what the guide's lesson asks for.

    Args:
        guide: from `guide_for`.
        entry: of the config list.
        learner: gives the learner's own answers where the guide looks at its past.
        labels: gives a batch's labels.
        needs_labels: whether the guide knows the right answer only from them.
    """

    def __init__(
        self, guide: Any, entry: Mapping[str, Any], learner: Answering, labels: Labels, *, needs_labels: bool
    ) -> None:
        self._learner, self._labels = learner, labels
        self._needs_labels = needs_labels and not getattr(guide, "reads_logits", False)
        self._distiller = ReverseDistiller(
            guide,
            temperature=entry.get("temperature", 4.0),
            divergence=chosen("divergences", entry.get("divergence", "kl")),
            per_step=entry.get("per_step", False),
            logit_scale=entry.get("logit_scale", 1.0),
        )

    def __call__(self, space: DistillationTargetSpace, batch: Any) -> Tensor | None:
        """A scalar, or None where the guide has nothing to say yet."""
        labels = self._labels(batch)
        if labels is None and self._needs_labels:
            raise BadOption(
                f"this guide needs the labels of a batch, and a {type(batch).__name__} does not show them: pass "
                "labels=, a function that takes the batch and gives them, shape (N,)"
            )
        logits = recorded(space, self._learner.network, samples(labels), trained=True)
        if logits.dim() != 3:
            raise BadOption(
                f"module {space._wrapper.name!r} gives {tuple(logits.shape)}, which are no logits (T, N, K): name the "
                "module that gives the logits, or set apply_method='mse' to match hidden outputs of a teacher"
            )
        target = logits.new_zeros(logits.shape[1], dtype=torch.long) if labels is None else labels
        said = self._distiller.lesson(logits, target.to(logits.device), x=batch)
        if said is None:
            return None
        taught = said.factor * said.divergence
        return taught if said.matched is None else taught + said.matched

    def observe(self, step: int) -> None:
        """Tells the guide that an optimizer step has passed."""
        self._distiller.observe(self._learner, step)


class Matched:
    """The squared distance of an output from a teacher's, of the mean over time or per step.

    Args:
        teacher: gives the teacher's output.
        network: the learner.
        labels: gives a batch's labels.
        per_step: whether every time step is compared.
    """

    def __init__(self, teacher: Answering, network: nn.Module, labels: Labels, *, per_step: bool) -> None:
        self._teacher, self._network, self._labels, self._per_step = teacher, network, labels, per_step

    def __call__(self, space: DistillationTargetSpace, batch: Any) -> Tensor | None:
        """A scalar."""
        mine = recorded(space, self._network, samples(self._labels(batch)), trained=True)
        other = self._teacher(batch).to(mine.device)
        if not self._per_step:
            mine, other = mine.mean(0), other.mean(0)
        if mine.shape != other.shape:
            raise BadOption(
                f"module {space._wrapper.name!r} gives {tuple(mine.shape)} and its teacher {tuple(other.shape)}: link "
                "modules of the same shape, or compare the mean over time (per_step=False)"
            )
        return F.mse_loss(mine, other.detach())

    def observe(self, step: int) -> None:
        """A teacher that stays as it is need not know."""


def check_guide(guide: Any, model: nn.Module, teacher: nn.Module | None, predict: Predict | None) -> Any:
    """The guide that is meant, checked against what it is given to ask.

    Args:
        guide: a name, a mapping, a guide, or None: `sparse`.
        model: the learner.
        teacher: the second network, or None.
        predict: runs a network on a batch, or None.

    Raises:
        BadOption: a guide without the network it needs, or with one it has no use for.
        UnknownName: no such guide.
    """
    wanted = "sparse" if guide is None else guide
    if guide is None and teacher is None:
        raise BadOption("there is nobody to teach: give a teacher_model, or guide='virtual' or guide='self'")
    if teacher is model:
        raise BadOption("teacher_model is the model itself: give a copy, or choose guide='self'")
    if callable(wanted):
        return wanted
    name, _ = _split(wanted)
    takes = _positional(name)
    if "network" in takes and teacher is None:
        raise BadOption(f"guide {name!r} is a network: give it as teacher_model")
    if "network" not in takes and teacher is not None:
        raise BadOption(f"guide {name!r} has no second network: leave teacher_model out, or choose guide='sparse'")
    if takes and predict is None:
        raise BadOption(f"guide {name!r} runs a network: give teacher_predict, e.g. lambda batch, net: net(batch[0])")
    return wanted


def guide_for(wanted: Any, teacher: Answering | None, known: Mapping[str, Any]) -> Any:
    """A guide, ready to be asked.

    Args:
        wanted: from `check_guide`.
        teacher: the second network.
        known: what a guide's other positional parameters stand for.

    Raises:
        BadOption: an option that the guide does not have.
    """
    if callable(wanted):
        return wanted
    name, options = _split(wanted)
    for option in options:
        if option not in (allowed := registry.options("guides", name)):
            raise BadOption(f"guide {name!r} has no option {option!r}{did_you_mean(option, allowed)}")
    given = dict(known) | {"network": teacher}
    return registry.get("guides", name)(**{each: given[each] for each in _positional(name) if each in given}, **options)


def _split(wanted: Any) -> tuple[str, dict[str, Any]]:
    options = dict(wanted) if isinstance(wanted, Mapping) else {"name": wanted}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise BadOption(f"guide={wanted!r}: give a name ({', '.join(registry.names('guides'))}) or a mapping with one")
    return name, options


def _positional(name: str) -> list[str]:
    parameters = inspect.signature(registry.get("guides", name)).parameters.values()
    return [each.name for each in parameters if each.kind is not each.KEYWORD_ONLY]
