"""The pruning types that Torch-Pruning does, `torch_pruning.*`: channels cut for real in the middle of a training.

The words are those of recipes; Torch-Pruning itself is not imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from snnsl_plugin import registry
from snnsl_plugin.recipe.durations import Duration, in_order
from snnsl_plugin.recipe.options import Block, bare, choice, problem, union
from snnsl_plugin.recipe.schedule_ends import ends

if TYPE_CHECKING:
    Criterion: TypeAlias = Any
    Growth: TypeAlias = Any
    Swap: TypeAlias = Any
    Shape: TypeAlias = str
else:
    Criterion, Growth = map(choice, ("criteria", "growth"))
    Swap = Annotated[choice("schedules"), AfterValidator(ends(0, 1))]
    Shape = Literal[tuple(registry.names("schedules"))]
Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Reduction: TypeAlias = Literal["mean", "sum", "max", "prod", "first", "gate"]
Normalizer: TypeAlias = Literal["mean", "sum", "max", "gaussian", "standarization"] | None


class Importance(Block):
    """How channels are scored; the lowest go."""

    name: str

    def passed(self) -> dict[str, Any]:
        """The options of the class, by its own words."""
        return {word: getattr(self, word) for word in type(self).model_fields if word != "name"}


class Random(Importance):
    """Torch-Pruning's RandomImportance."""

    name: Literal["random"]


class _OfGroups(Importance):
    group_reduction: Reduction = "mean"
    """How the scores of the layers that share a channel become one."""


class _Normalized(_OfGroups):
    normalizer: Normalizer = "mean"
    """What the scores of a group are divided by, so that groups compare; Torch-Pruning's spelling."""


class Magnitude(_Normalized):
    """Torch-Pruning's GroupMagnitudeImportance: the norm of all weights that read or write a channel."""

    name: Literal["magnitude"]
    p: Annotated[int, Field(ge=1)] = 2
    """1 or 2 for the L1 or the squared L2 norm."""
    bias: bool = False
    """Whether biases count."""


class Lamp(_OfGroups):
    """Torch-Pruning's LAMPImportance: a channel's norm as a share of all that are not smaller."""

    name: Literal["lamp"]
    p: Annotated[int, Field(ge=1)] = 2
    """1 or 2 for the L1 or the squared L2 norm."""
    bias: bool = False
    """Whether biases count."""


class Fpgm(_Normalized):
    """Torch-Pruning's FPGMImportance: how far a channel is from all others of its layer."""

    name: Literal["fpgm"]
    p: Annotated[int, Field(ge=1)] = 2
    """Power of the weights between which distances are taken."""


class BnScale(_Normalized):
    """Torch-Pruning's BNScaleImportance: the scale of batch norms; groups without one keep all their channels."""

    name: Literal["bn_scale"]


class Taylor(_Normalized):
    """Torch-Pruning's GroupTaylorImportance: |weight x gradient|, with the mean gradient of `batches` batches."""

    name: Literal["taylor"]
    multivariable: bool = False
    """Whether products are summed over a channel before their sign goes."""
    bias: bool = False
    """Whether biases count."""


class Hessian(_Normalized):
    """Torch-Pruning's GroupHessianImportance: weight^2 x gradient^2, with the gradients of a batch's samples."""

    name: Literal["hessian"]
    bias: bool = False
    """Whether biases count."""


class Spiking(_Normalized):
    """The SpikingImportance of this package: firing rate ^ rate_power x weights ^ weight_power."""

    name: Literal["spiking"]
    p: Annotated[float, Field(ge=0)] = 2.0
    """What a weight's score is raised to before those of a channel are summed."""
    bias: bool = False
    """Whether biases count as weights."""
    statistic: Literal["output", "input"] = "output"
    """Rates of the neurons of a group, or of what arrives at the layers that read them."""
    rate_power: float = 1.0
    """Above 0 what fires often is worth more, below 0 less; 0 leaves rates out."""
    weight_power: Annotated[float, Field(ge=0)] = 1.0
    """0 leaves weights out."""
    criterion: Criterion = bare("criteria", "magnitude")
    """The score of a weight."""
    uninformative_first: bool = True
    """Whether channels that never fire go first, and then those that fire at every step."""

    @model_validator(mode="after")
    def _silent_are_not_priceless(self) -> Spiking:
        if self.rate_power < 0 and not self.uninformative_first:
            raise problem("below 0 needs uninformative_first: true, or silent channels were priceless", "rate_power")
        return self


#: Scores that are measured on data, and not there at every step.
_MEASURED = ("taylor", "hessian", "spiking")
_IMPORTANCES: list[type[Importance]] = [Random, Magnitude, Lamp, Fpgm, BnScale, Taylor, Hessian, Spiking]
if TYPE_CHECKING:
    AnyImportance: TypeAlias = Importance
else:
    AnyImportance = union("importance", _IMPORTANCES)


class TorchPruning(Block):
    """What all pruners of Torch-Pruning share."""

    #: whether whole channels go
    structured: ClassVar[bool] = True
    #: the key that says how much is kept
    strength: ClassVar[str | None] = "channels"
    #: whether masks change at an interval `every` until `until`
    gradual: ClassVar[bool] = False
    type: str
    channels: Share
    """Share of the channels of each group of layers that is kept; Torch-Pruning's pruning_ratio is 1 - channels."""
    per_layer: dict[str, Share] = {}  # noqa: RUF012  (pydantic copies it)
    """Other shares to keep, by pattern, e.g. `{conv1: 0.75}`."""
    importance: AnyImportance
    """What a channel is kept for."""
    layers: Annotated[list[str], Field(min_length=1)] = ["*"]  # noqa: RUF012
    """Patterns of the layers whose output channels may go, e.g. `features.*`."""
    exclude: list[str] | None = None
    """Patterns of the layers that keep all their output channels; where omitted the last one, whose are the classes."""
    global_pruning: bool = False
    """Whether channels of all groups are ranked together; each group by itself where false."""
    isomorphic: bool = False
    """Whether only groups of the same structure are ranked together; needs `global_pruning`."""
    round_to: Annotated[int, Field(ge=1)] | None = None
    """Channels are kept in multiples of this."""
    start: Duration = "0it"
    """When the way to the first cut begins, and regularization with it; the network trains dense before."""
    until: Duration = "50%"
    """The last cut; what is left is trained to the end."""
    recalibrate: bool = True
    """Whether the statistics of batch norms are estimated anew after each cut."""
    batches: Annotated[int, Field(ge=1)] = 10
    """Batches of the training part that gradients, rates and batch norms are measured on at a cut."""

    @model_validator(mode="after")
    def _possible(self) -> TorchPruning:
        in_order(self.start, self.until)
        if self.isomorphic and not self.global_pruning:
            raise problem("ranks groups of one structure together, so it needs global_pruning: true", "isomorphic")
        return self

    @property
    def name(self) -> str:
        """What follows `torch_pruning.`."""
        return self.type.removeprefix("torch_pruning.")


class Cut(TorchPruning):
    """A pruner that cuts channels in a few steps and never grows one back."""

    iterative_steps: Annotated[int, Field(ge=1)] = 1
    """Number of cuts, at equal distances between `start` and `until`, each of an equal share of the channels."""

    def passed(self) -> dict[str, Any]:
        """Further options of Torch-Pruning's pruner, in its words."""
        return {}


class Base(Cut):
    """Torch-Pruning's BasePruner: the channels of the lowest importance go."""

    type: Literal["torch_pruning.base"]
    importance: AnyImportance = Magnitude(name="magnitude")
    """What a channel is kept for."""


class SpikingCut(Cut):
    """The SpikingPruner of this package, with its own importance: what fires rarely and weighs little goes."""

    type: Literal["torch_pruning.spiking"]
    importance: AnyImportance = Spiking(name="spiking")
    """What a channel is kept for."""


class _Regularized(Cut):
    importance: AnyImportance = Magnitude(name="magnitude")
    """What a channel is kept for."""

    @model_validator(mode="after")
    def _at_every_step(self) -> _Regularized:
        if self.importance.name in _MEASURED:
            raise problem(
                f"{self.importance.name!r} is measured on data at a cut, and {self.type} asks for scores at every "
                "step: choose magnitude, lamp or fpgm",
                "importance",
            )
        if getattr(self.importance, "normalizer", None) == "gaussian":
            raise problem("makes scores negative, and what is regularized is their root: choose mean", "importance")
        return self


class GroupNorm(_Regularized):
    """Torch-Pruning's GroupNormPruner (DepGraph): weak groups are drawn to zero before they are cut."""

    type: Literal["torch_pruning.group_norm"]
    reg: Positive = 1e-4
    """Strength of the penalty."""
    alpha: Annotated[float, Field(ge=0)] = 4.0
    """The weakest channel is drawn 2^alpha times as hard as the strongest."""

    def passed(self) -> dict[str, Any]:
        """Strength and spread."""
        return {"reg": self.reg, "alpha": self.alpha}


class BnScalePruner(Cut):
    """Torch-Pruning's BNScalePruner (network slimming): batch norm scales under an L1 penalty."""

    type: Literal["torch_pruning.bn_scale"]
    importance: AnyImportance = BnScale(name="bn_scale")
    """What a channel is kept for."""
    reg: Positive = 1e-5
    """Strength of the penalty."""
    group_lasso: bool = False
    """Whether the scales of a group are drawn to zero together."""

    def passed(self) -> dict[str, Any]:
        """Strength and form."""
        return {"reg": self.reg, "group_lasso": self.group_lasso}


class GrowingReg(_Regularized):
    """Torch-Pruning's GrowingRegPruner: a penalty that grows faster for weaker channels."""

    type: Literal["torch_pruning.growing_reg"]
    reg: Positive = 1e-5
    """Strength at the start."""
    delta_reg: Positive = 1e-5
    """What is added for the weakest channel every so often."""
    every: Duration = "10it"
    """Between two such additions."""

    @model_validator(mode="after")
    def _grows(self) -> GrowingReg:
        in_order(self.start, self.until, self.every)
        return self

    def passed(self) -> dict[str, Any]:
        """Strength and growth."""
        return {"reg": self.reg, "delta_reg": self.delta_reg}


class SpikingDynamic(TorchPruning):
    """The SpikingDynamicPruner of this package: channels are masked and regrown, and cut at the last update."""

    gradual: ClassVar[bool] = True
    type: Literal["torch_pruning.spiking_dynamic"]
    importance: AnyImportance = Spiking(name="spiking")
    """What a channel is kept for."""
    growth: Growth = bare("growth", "gradient")
    """What a channel returns for."""
    schedule: Shape = "cubic"
    """How the way to that share is shaped."""
    swap: Swap | None = None
    """Share of the survivors that is exchanged at an update; 0.3 falling to 0 along half a cosine where omitted."""
    every: Duration = "100it"
    """Between two updates; as many as fit before `until`."""
    newborn_v: Literal["zero", "layer_mean"] = "zero"
    """Second moment of a grown channel in Adam: zero, or the mean of its layer's live weights."""

    @model_validator(mode="after")
    def _updates(self) -> SpikingDynamic:
        in_order(self.start, self.until, self.every)
        if self.importance.name == "hessian":
            raise problem("takes one pass a sample, too many for each update: choose taylor", "importance")
        return self


TORCH_PRUNING_TYPES: list[type[TorchPruning]] = [
    Base,
    GroupNorm,
    BnScalePruner,
    GrowingReg,
    SpikingCut,
    SpikingDynamic,
]
