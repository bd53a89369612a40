"""The pruning types that NNI does: `nni.*`. Their words are those of recipes; NNI itself is not imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field, create_model, model_validator

from snnsl_plugin import registry
from snnsl_plugin.recipe import docstrings
from snnsl_plugin.recipe.durations import Duration, in_order
from snnsl_plugin.recipe.options import Block, bare, choice, option_types, problem
from snnsl_plugin.recipe.schedule_ends import ends

if TYPE_CHECKING:
    Criterion: TypeAlias = Any
    Growth: TypeAlias = Any
    Distribution: TypeAlias = Any
    Swap: TypeAlias = Any
    Threshold: TypeAlias = Any
    Shape: TypeAlias = str
    Rule: TypeAlias = str
else:
    Criterion, Growth, Distribution = map(choice, ("criteria", "growth", "distributions"))
    Swap = Annotated[choice("schedules"), AfterValidator(ends(0, 1))]
    Threshold = Annotated[choice("schedules"), AfterValidator(ends(0, float("inf")))]
    Shape = Literal[tuple(registry.names("schedules"))]
    Rule = Literal[tuple(registry.names("rules"))]
#: pruners whose masks are those of whole channels
_OF_CHANNELS = ("l1_norm", "l2_norm", "fpgm", "taylor", "slim", "linear_l1_norm", "agp_taylor", "movement")
Density = Annotated[float, Field(gt=0, le=1)]


class NniPruning(Block):
    """What all pruners of NNI share."""

    #: the key that says how much is kept
    strength: ClassVar[str | None] = "density"
    #: whether masks change at an interval `every` until `until`
    gradual: ClassVar[bool] = False
    type: str
    density: Density | None
    """Share of the prunable weights that is kept in the end; NNI's sparse ratio is 1 - density, in every layer."""
    layers: Annotated[list[str], Field(min_length=1)] = ["*"]  # noqa: RUF012  (pydantic copies it)
    """Patterns of the layers that may be pruned, e.g. `features.*`."""
    exclude: list[str] | None = None
    """Patterns of the layers that stay dense; where omitted the last layer, if whole channels are pruned."""

    @property
    def name(self) -> str:
        """What follows `nni.`."""
        return self.type.removeprefix("nni.")

    @property
    def structured(self) -> bool:
        """Whether whole channels go."""
        return self.name in _OF_CHANNELS

    def passed(self) -> dict[str, Any]:
        """Further options of NNI's pruner or of its config list, in NNI's words."""
        return {}


class _Builtin(NniPruning):
    density: Density


class _OneShot(_Builtin):
    start: Duration = "50%"
    """When the masks are made; before it the network trains dense, after it the masks stay."""


class Level(_OneShot):
    """NNI's LevelPruner: the smallest weights of each layer, at once."""

    type: Literal["nni.level"]


class L1Norm(_OneShot):
    """NNI's L1NormPruner: the output channels of the smallest L1 norm, at once."""

    type: Literal["nni.l1_norm"]


class L2Norm(_OneShot):
    """NNI's L2NormPruner: the output channels of the smallest L2 norm, at once."""

    type: Literal["nni.l2_norm"]


class Fpgm(_OneShot):
    """NNI's FPGMPruner: the output channels that others can replace best, at once."""

    type: Literal["nni.fpgm"]


class _Watching(_Builtin):
    start: Duration = "40%"
    """When the pruner begins to watch the training."""
    until: Duration = "50%"
    """When the masks are made; afterwards they stay."""

    @model_validator(mode="after")
    def _in_order(self) -> _Watching:
        in_order(self.start, self.until)
        return self


class Taylor(_Watching):
    """NNI's TaylorPruner: the output channels of the smallest (weight x gradient)^2 over a while."""

    type: Literal["nni.taylor"]


class Slim(_Watching):
    """NNI's SlimPruner: the channels whose batch norm has the smallest scale after a while under an L1 penalty."""

    type: Literal["nni.slim"]
    regular_scale: Annotated[float, Field(ge=0)] = 1.0
    """NNI's factor of the penalty."""

    def passed(self) -> dict[str, Any]:
        """The factor."""
        return {"regular_scale": self.regular_scale}


class _Ramped(_Builtin):
    gradual: ClassVar[bool] = True
    start: Duration = "0it"
    """When the ramp begins; the first masks are made `every` later."""
    every: Duration = "100it"
    """Between two updates of the masks."""
    until: Duration = "80%"
    """The ramp has as many updates as fit before this; after the last one the masks stay."""

    @model_validator(mode="after")
    def _in_order(self) -> _Ramped:
        in_order(self.start, self.until, self.every)
        return self


class LinearL1Norm(_Ramped):
    """NNI's LinearPruner over L1NormPruner: output channels of the smallest L1 norm, ever more of them."""

    type: Literal["nni.linear_l1_norm"]


class AgpLevel(_Ramped):
    """NNI's AGPPruner over LevelPruner: gradual magnitude pruning."""

    type: Literal["nni.agp_level"]


class AgpTaylor(_Ramped):
    """NNI's AGPPruner over TaylorPruner: output channels, ever more of them, by the gradients since the last update."""

    type: Literal["nni.agp_taylor"]


class Movement(_Builtin):
    """NNI's MovementPruner: what moves towards zero goes; masks are ranked anew after every step to the very end."""

    type: Literal["nni.movement"]
    start: Duration = "0it"
    """When masks begin to be made; scores are learned from the first step on."""
    until: Duration = "80%"
    """When the density is reached."""
    granularity: Literal["out_channel", "weight"] = "out_channel"
    """Whether whole output channels go, as NNI has it by itself, or single weights."""

    @property
    def structured(self) -> bool:
        """Whether whole channels go."""
        return self.granularity != "weight"

    @model_validator(mode="after")
    def _in_order(self) -> Movement:
        in_order(self.start, self.until)
        return self

    def passed(self) -> dict[str, Any]:
        """NNI's granularity: blocks of one weight, or what it does by itself."""
        return {"granularity": [1]} if self.granularity == "weight" else {}


#: options of rules that `SpikingDynamic` writes out, with defaults of its own
_WRITTEN = ("density", "criterion", "growth", "distribution", "swap", "threshold")


def _further() -> dict[str, Any]:
    """A field for each option of a rule that is not written out: the rule's own default where omitted."""
    annotations: dict[str, Any] = {}
    says: dict[str, list[str]] = {}
    for rule in registry.names("rules"):
        described = docstrings.options(registry.get("rules", rule))
        for option, annotation in option_types("rules", rule).items():
            if option not in _WRITTEN:
                annotations[option] = annotations[option] | annotation if option in annotations else annotation
                says.setdefault(option, []).append(f"Of the rule `{rule}`: {described.get(option, '')}")
    return {
        option: (annotation | None, Field(default=None, description=" ".join(says[option])))
        for option, annotation in annotations.items()
    }


_FURTHER = _further()
if TYPE_CHECKING:
    _OfRules: TypeAlias = NniPruning
else:
    _OfRules = create_model("_OfRules", __base__=NniPruning, **_FURTHER)


class SpikingDynamic(_OfRules):
    """The SpikingDynamicPruner of this package, inside NNI: prune and regrow."""

    gradual: ClassVar[bool] = True
    type: Literal["nni.spiking_dynamic"]
    rule: Rule = "drop_grow"
    """How masks change. Every option of every rule is a key here; one that the rule does not know is an error."""
    density: Density | None = None
    """Share of the prunable weights that is kept in the end; required, but for `stds`, where it is an outcome."""
    schedule: Shape | None = None
    """How the way to that density is shaped, `cubic` where omitted; `constant` starts there."""
    criterion: Criterion = bare("criteria", "magnitude")
    """What a connection is kept for."""
    growth: Growth = bare("growth", "gradient")
    """Where one is grown."""
    distribution: Distribution | None = bare("distributions", "erk")
    """How the budget is shared; the same density in every layer where it is null."""
    swap: Swap | None = None
    """Share of the survivors that is exchanged at an update."""
    threshold: Threshold | None = None
    """Of the rule `stds`."""
    start: Duration = "0it"
    """First update."""
    every: Duration | None = None
    """Between two updates of the masks; the rule's own where omitted."""
    until: Duration = "80%"
    """There are as many updates as fit before this; after the last one the masks stay."""
    newborn_v: Literal["zero", "layer_mean"] = "zero"
    """Second moment of a grown weight in Adam: zero, or the mean of its layer's live ones."""
    sample_every: Annotated[int, Field(ge=1)] = 10
    """Spike statistics are recorded at every n-th step."""
    paths: bool = True
    """Whether live connections are traced at each update, and channels without input silenced."""

    @model_validator(mode="after")
    def _possible(self) -> SpikingDynamic:
        in_order(self.start, self.until, self.every)
        known = registry.options("rules", self.rule)
        for option in (*_WRITTEN, *_FURTHER):
            if option not in known and getattr(self, option) != type(self).model_fields[option].default:
                raise problem(f"is nothing that the rule {self.rule!r} knows: leave it out", option)
        if "density" not in known and self.schedule is not None:
            raise problem(f"is nothing that the rule {self.rule!r} knows: leave it out", "schedule")
        for option, parameter in known.items():
            if parameter.default is parameter.empty and getattr(self, option) is None:
                raise problem(f"is missing, and the rule {self.rule!r} needs it", option)
        return self

    @property
    def chosen(self) -> dict[str, Any]:
        """The choices that the rule takes, by option; `density` is apart."""
        known = registry.options("rules", self.rule)
        values = {option: getattr(self, option) for option in known if option != "density"}
        return {option: value for option, value in values.items() if option in _WRITTEN or value is not None}


NNI_TYPES: list[type[NniPruning]] = [
    Level,
    L1Norm,
    L2Norm,
    Fpgm,
    Slim,
    Taylor,
    LinearL1Norm,
    AgpLevel,
    AgpTaylor,
    Movement,
    SpikingDynamic,
]
