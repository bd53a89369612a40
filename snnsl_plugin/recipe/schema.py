"""What a recipe may say. The blocks of registered functions come from their signatures (`options.py`)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, Field, Strict, model_validator

from snnsl_plugin import registry
from snnsl_plugin.recipe.budget_types import AnyBudget
from snnsl_plugin.recipe.compare_types import Compare
from snnsl_plugin.recipe.durations import Duration, in_order
from snnsl_plugin.recipe.evolution_types import Evolution, Parent, check_evolution, check_parent
from snnsl_plugin.recipe.learning_rate import LearningRate
from snnsl_plugin.recipe.nni_types import NNI_TYPES, NniPruning, Slim
from snnsl_plugin.recipe.options import Block, Choice, bare, choice, model, problem, union
from snnsl_plugin.recipe.schedule_ends import ends
from snnsl_plugin.recipe.torch_pruning_types import TORCH_PRUNING_TYPES, Cut, SpikingDynamic
from snnsl_plugin.recipe.torch_types import HOSTED_TYPES, HostedPruning
from snnsl_plugin.recipe.tune_types import Tune

Share = Annotated[float, Field(ge=0, lt=1)]
#: What the options of a rule must stay within, by name; a rule checks the same at each update.
_RANGES = {"density": ends(0, 1, open_below=True), "swap": ends(0, 1), "threshold": ends(0, float("inf"))}

if TYPE_CHECKING:
    Encoder: TypeAlias = Choice
    Model: TypeAlias = Choice
    Guide: TypeAlias = Any
    Divergence: TypeAlias = Choice
    Health: TypeAlias = Choice
else:
    Encoder, Model, Guide, Divergence, Health = map(choice, ("encoders", "models", "guides", "divergences", "health"))


class Data(Choice):
    """A data set and how its samples become spikes."""

    encoder: Encoder | None = None
    """How a sample becomes T steps; where omitted `direct` for pictures, `frames` for events."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches while the network trains; results are the same for any number."""


class Sgd(Block):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    lr: Annotated[float, Field(gt=0)]
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Sgd:
        if self.nesterov and not self.momentum:
            raise problem("needs a momentum above 0", "nesterov")
        return self


class Adam(Block):
    """Adam; weight decay is added to the gradient."""

    name: Literal["adam"]
    lr: Annotated[float, Field(gt=0)]
    betas: Annotated[tuple[Share, Share], Strict(False)] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class AdamW(Block):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]
    lr: Annotated[float, Field(gt=0)]
    betas: Annotated[tuple[Share, Share], Strict(False)] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01


if TYPE_CHECKING:
    Optimizer: TypeAlias = Sgd | Adam | AdamW
else:
    Optimizer = union("optimizer", [Sgd, Adam, AdamW])


class Train(Block):
    """How long and with what the network is trained."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    optimizer: Optimizer
    lr_schedule: LearningRate = "cosine"
    """Whether the learning rate stays (`constant`), falls to 0 along half a `cosine`, or starts again (`restart`)."""
    clip: Annotated[float, Field(gt=0)] | None = None
    """Largest norm of the gradient of the live weights; none where omitted."""
    amp: bool = False
    """Automatic mixed precision."""
    label_smoothing: Share = 0.0
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    """What the labels say; `mse` is the squared error to one-hot targets, for networks whose output is a rate."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "cpu"
    """`cpu`, `cuda`, `cuda:1`, or `auto`: a GPU where there is one."""

    @model_validator(mode="after")
    def _smoothing_needs_cross_entropy(self) -> Train:
        if self.label_smoothing and self.loss != "cross_entropy":
            raise problem("belongs to loss: cross_entropy; leave it out with loss: mse", "label_smoothing")
        return self


class Dense(Block):
    """No pruning: the dense network alone."""

    structured: ClassVar[bool] = False
    strength: ClassVar[str | None] = None
    gradual: ClassVar[bool] = False
    type: Literal["dense"]


class Pruning(Choice):
    """Options that every rule has."""

    if TYPE_CHECKING:
        type: str
    #: whether whole channels go
    structured: ClassVar[bool] = False
    #: the key that says how much is kept; None where the density is an outcome
    strength: ClassVar[str | None] = None
    #: whether the network goes back to an early state after each update
    rewinds: ClassVar[bool] = False
    #: whether masks change at an interval `every` until `until`
    gradual: ClassVar[bool] = True
    every: Duration | None = None
    """Between two updates of the masks; the rule's own where omitted."""
    start: Duration = "0it"
    """First update."""
    until: Duration = "80%"
    """Last update: the schedules are at their end, and the masks stay."""
    layers: Annotated[list[str], Field(min_length=1)] = ["*"]  # noqa: RUF012  (pydantic copies it)
    """Patterns of the layers that may be pruned, e.g. `features.*`."""
    exclude: list[str] = []  # noqa: RUF012
    """Patterns of the layers that stay dense; they count in the density. The last layer, where whole channels go."""
    newborn_v: Literal["zero", "layer_mean"] = "zero"
    """Second moment of a grown weight in Adam: zero, or the mean of its layer's live ones."""
    sample_every: Annotated[int, Field(ge=1)] = 10
    """Spike statistics are recorded at every n-th step."""
    paths: bool = True
    """Whether live connections are traced at each update, and channels without input silenced."""
    budget: AnyBudget | None = None
    """What the network may cost in the end, met by measuring: the last density is then a first guess."""
    vanish: list[str] = []  # noqa: RUF012
    """Patterns of layers that may lose all they have, as those of a residual block, which is an identity then."""

    @model_validator(mode="after")
    def _in_order(self) -> Pruning:
        in_order(self.start, self.until, self.every)
        return self

    @model_validator(mode="after")
    def _budget_can_be_steered(self) -> Pruning:
        if self.budget and self.strength is None:
            raise problem("is met by moving the density, and the density of this rule is an outcome", "budget")
        if self.budget and self.rewinds:
            raise problem(
                "is met by correcting masks after the last update, and this rule rewinds the network at each: give it "
                "a density alone",
                "budget",
            )
        if self.vanish and not self.paths:
            raise problem("needs paths: true, for live paths tell what may vanish", "vanish")
        if self.budget and self.budget.name == "connections" and not self.paths:
            raise problem("in live connections needs paths: true, for live paths are what it counts", "budget")
        return self


class Distillation(Block):
    """Reverse distillation: a weaker guide teaches the sparse network."""

    guide: Guide
    divergence: Divergence = bare("divergences", "kl")
    """How far the learner is from the guide."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    weight: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the guide in the loss; the labels have the rest."""
    per_step: bool = False
    """Compare at each time step, not the mean over steps."""
    logit_scale: Annotated[float, Field(gt=0)] = 1.0
    """Factor on all logits, the guide's and the learner's."""


class Tracking(Block):
    """Where the run is shown besides its own folder."""

    mlflow: bool = True
    uri: str | None = None
    """MLflow's tracking URI; a sqlite file beside the runs where omitted."""
    experiment: str | None = None


if TYPE_CHECKING:
    AnyData: TypeAlias = Data
    AnyPruning: TypeAlias = Dense | Pruning | NniPruning | Cut | SpikingDynamic | HostedPruning
else:
    AnyData = union("data set", [model("datasets", name, Data) for name in registry.names("datasets")])
    _RULES = [
        model("rules", name, Pruning, tag="type", prefix="snnsl.", checks=_RANGES) for name in registry.names("rules")
    ]
    for each in _RULES:
        each.strength = "density" if "density" in each.registered_options else None
        each.rewinds = getattr(sys.modules[each.registered_function.__module__], "REWINDS", False) is True
        each.structured = getattr(sys.modules[each.registered_function.__module__], "STRUCTURED", False) is True
    AnyPruning = union("pruning type", [Dense, *_RULES, *NNI_TYPES, *TORCH_PRUNING_TYPES, *HOSTED_TYPES], tag="type")


def _mention_extends(schema: dict[str, Any]) -> None:
    schema["properties"]["extends"] = {"type": "string", "description": "A recipe that this one changes."}


class Recipe(Block):
    """One run: data, model, training, pruning, distillation, tracking.

    Read one with `snnsl_plugin.recipe.load.load`, which knows files, `extends` and overrides, and says where a problem
    is. `Recipe.model_validate` takes the same as a dict.
    """

    model_config = ConfigDict(serialize_by_alias=True, json_schema_extra=_mention_extends)

    schema_version: Literal[1] = Field(1, alias="schema")
    """Version of this format."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the weights, the batches and the pruning."""
    threads: Annotated[int, Field(ge=1)] = 2
    """CPU threads; the results are equal for equal numbers of threads."""
    data: AnyData
    model: Model
    train: Train
    pruning: AnyPruning
    distillation: Distillation | None = None
    health: list[Health] = []  # noqa: RUF012  (pydantic copies it)
    """What looks after the signal while connections go, e.g. `[{name: rate_band, low: 0.02}]`."""
    evolution: Evolution | None = None
    """Generations of networks, each with the best of the one before as guide and parent."""
    parent: Parent | None = None
    """A finished run whose mask a sparse start takes first; random connections where omitted."""
    dense_baseline: bool = False
    """Train the dense network as well, from the same seed, to compare with."""
    tracking: Tracking = Tracking()
    compare: Compare | None = None
    """Who `snnsl compare` lets train on this data; a run of the recipe takes no notice."""
    tune: Tune | None = None
    """What `snnsl tune` searches; a run of the recipe takes no notice."""

    @model_validator(mode="after")
    def _each_care_once(self) -> Recipe:
        named = [each.registered_name for each in self.health]
        if len(set(named)) != len(named):
            raise problem("names one kind of care twice: keep one", "health")
        return self

    @model_validator(mode="after")
    def _features_stay(self) -> Recipe:
        guide = self.distillation.guide if self.distillation else None
        if isinstance(self.pruning, NniPruning | Cut | SpikingDynamic) and getattr(guide, "features", None) is not None:
            raise problem(
                "features cannot be compared with those of a network that gets another form on the way: leave features "
                "out, or choose another pruning type",
                "distillation",
            )
        return self

    @model_validator(mode="after")
    def _can_inherit(self) -> Recipe:
        if self.parent:
            check_parent(self.pruning)
        if self.evolution:
            check_evolution(self)
        return self

    @model_validator(mode="after")
    def _rewound_stay_as_they_were(self) -> Recipe:
        rewinds = isinstance(self.pruning, Pruning) and self.pruning.rewinds
        if rewinds and any(each.registered_name == "rescale" for each in self.health):
            raise problem(
                f"rescale would change the weights that {self.pruning.type} has just rewound: leave one of them out",
                "health",
            )
        return self

    @model_validator(mode="after")
    def _fewer_steps_can_be_taught(self) -> Recipe:
        taught, early = self.distillation, getattr(self.pruning, "early_time", None)
        if taught and early is not None and (taught.per_step or getattr(taught.guide, "features", None)):
            raise problem(
                "early_time gives the learner fewer time steps than its guide sees: leave it out, or compare means "
                "over time (per_step: false, no features)",
                "pruning",
            )
        return self

    @model_validator(mode="after")
    def _average_can_follow(self) -> Recipe:
        guide = self.distillation.guide if self.distillation else None
        if isinstance(self.pruning, Cut | SpikingDynamic) and getattr(guide, "ema", None) is not None:
            raise problem(
                "an average (ema) cannot follow a network that gets smaller on the way: leave ema out, or choose "
                "another pruning type",
                "distillation",
            )
        if isinstance(self.pruning, Slim) and getattr(guide, "ema", None) is not None:
            raise problem(
                "an average (ema) cannot follow a network to which NNI's SlimPruner adds parameters on the way: leave "
                "ema out, or choose another pruning type",
                "distillation",
            )
        if isinstance(self.pruning, HostedPruning) and getattr(guide, "ema", None) is not None:
            raise problem(
                "an average (ema) cannot follow a network whose weights torch.nn.utils.prune holds in another way once "
                "they are masked: leave ema out, or choose another pruning type",
                "distillation",
            )
        return self
