"""What data-parallel ranks train in the tests, and what one process trains to compare them with."""

from __future__ import annotations

from typing import Any

import torch
from networks import conv_net
from spikingjelly.activation_based import layer, neuron
from torch import Tensor, nn

from snnsl_plugin.core import schedules
from snnsl_plugin.core.criteria.criticality import criticality
from snnsl_plugin.core.criteria.hebbian import hebbian
from snnsl_plugin.datasets._loader import Loader
from snnsl_plugin.recipe.load import load
from snnsl_plugin.recipe.schema import Recipe
from snnsl_plugin.training.distiller import ReverseDistiller
from snnsl_plugin.training.events import Epoch, MaskUpdate
from snnsl_plugin.training.guides.ann import ann
from snnsl_plugin.training.guides.self import self as self_guide
from snnsl_plugin.training.guides.sparse import sparse
from snnsl_plugin.training.guides.virtual import virtual
from snnsl_plugin.training.loop import Training, fit
from snnsl_plugin.training.pruner import DynamicPruner
from snnsl_plugin.training.ranks import ALONE, Ranks

SAMPLES, BATCH, EPOCHS = (
    29,
    7,
    4,
)  # batches of 7, 7, 7, 7 and 1: two ranks share 4 to 3, and the last is for one of them
STEPS = 20
#: networks with what trains them: with and without batch norm, every rule, every guide
CASES = (
    "plain", "norm", "fisher", "costs", "ends", "stds", "dpap", "upr", "lth", "virtual", "self", "sparse", "features",
)  # fmt: skip
#: by case: the criterion, the growth, and layers that drive no neuron
ASKING = {
    "fisher": ("fisher", "gradient", ()),
    "costs": ("synop_value", "gradient_per_synop", ()),
    "ends": (lambda layer: hebbian(layer) + criticality(layer), "coincidence", ("6",)),
}

RECIPE = (
    "train.epochs=3",
    "train.optimizer.lr=0.02",
    "model.channels=[4, 8]",
    "model.hidden=16",
    "model.v_threshold=0.5",
    "data.encoder={name: poisson, T: 2}",
    "dense_baseline=false",
    "threads=1",
    "tracking.mlflow=false",
    "distillation.guide={name: self, since: 30%, ema: 0.9}",
    "pruning.criterion=spike_saliency",
    "pruning.growth=random",
    "pruning.every=7it",
    "pruning.sample_every=5",
)


def words(*changes: str) -> list[str]:
    """A tiny recipe with statistics that live from one epoch to the next, and random numbers wherever there can be."""
    keys = {change.partition("=")[0] for change in changes}
    kept = [word for word in RECIPE if not {word.partition("=")[0], word.partition(".")[0]} & keys]
    return kept + list(changes)


def recipe(*changes: str) -> Recipe:
    """The recipe of `words`."""
    return load("digits", words(*changes))


class Pictures:
    """Random ones, in float64."""

    def __init__(self) -> None:
        stream = torch.Generator().manual_seed(5)
        self.x = torch.rand(SAMPLES, 1, 4, 4, generator=stream, dtype=torch.float64) * 2
        self.y = torch.randint(0, 5, (SAMPLES,), generator=stream)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], int(self.y[index])

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.x[indices], self.y[indices]


def plain_net(seed: int = 0) -> nn.Sequential:
    """Without a batch norm: what a sample gives does not depend on the others."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1),
        neuron.LIFNode(v_threshold=0.2),
        layer.MaxPool2d(2),
        layer.Conv2d(6, 8, 3, padding=1),
        neuron.LIFNode(v_threshold=0.2),
        layer.Flatten(),
        layer.Linear(32, 5),
    )
    for module in net:
        module.step_mode = "m"
    return net


def wide_net() -> nn.Sequential:
    """A guide whose first layers are wider than the learner's."""
    torch.manual_seed(1)
    net = nn.Sequential(
        layer.Conv2d(1, 9, 3, padding=1, step_mode="m"),
        neuron.LIFNode(v_threshold=0.2, step_mode="m"),
        layer.Flatten(step_mode="m"),
        layer.Linear(144, 5, step_mode="m"),
    )
    return net.double()


def trained(case: str, ranks: Ranks = ALONE) -> dict[str, Any]:
    """Trains 20 steps, and tells masks at every update, the figures of every epoch, the end and its statistics."""
    model = (conv_net() if case == "norm" else plain_net()).double()
    distiller = _taught(case, model)
    beside = distiller.parameters() if distiller else []
    optimizer = torch.optim.SGD([*model.parameters(), *beside], lr=0.1, momentum=0.9)
    how = {"every": "3it", "until": "100%", "total_steps": STEPS, "sample_every": 1}
    if case == "stds":
        pruner = DynamicPruner(model, optimizer, "stds", threshold=schedules.linear(first=0.0, last=0.1), **how)
    elif case == "dpap":
        pruner = DynamicPruner(model, optimizer, "dpap", pressure=4.0, **how | {"every": "1it"})
    elif case == "upr":
        pruner = DynamicPruner(model, optimizer, "upr", price=1e-5, score_lr=1e-2, **how)
    elif case == "lth":
        how |= {"start": "2it", "every": "5it", "until": "17it", "early_time": 0.6}
        pruner = DynamicPruner(model, optimizer, "lth", density=schedules.geometric(first=1.0, last=0.4), **how)
    else:
        criterion, growth, exclude = ASKING.get(case, ("spike_saliency", "gradient", ()))
        pruner = DynamicPruner(
            model, optimizer, growth=growth, distribution="uniform", swap=schedules.constant(value=0.3),
            criterion=criterion, exclude=exclude, density=schedules.linear(first=0.9, last=0.3), **how,
        )  # fmt: skip
    part = Loader(
        Pictures(), BATCH, shuffle=True, encoder=lambda x: x.unsqueeze(0).repeat(5 if case == "lth" else 3, 1, 1, 1, 1)
    )
    training = Training(epochs=EPOCHS, seed=3, clip=1.0)
    seen: dict[str, Any] = {"losses": [], "accuracies": []}
    for event in fit(model, part, part, optimizer, training, pruner=pruner, distiller=distiller, ranks=ranks):
        if isinstance(event, MaskUpdate):
            seen |= {f"mask/{event.step}/{name}": mask.clone() for name, mask in pruner.masks.items()}
            seen |= {f"rate/{event.step}/{name}": rate for name, rate in event.rates.items()}
        elif isinstance(event, Epoch):
            seen["losses"].append(event.loss)
            seen["accuracies"].append(event.accuracy)
            kept = pruner.state_dict()
            pruner.load_state_dict(kept)  # as a resumed run does: nothing may be lost or counted twice
            again = pruner.state_dict()["statistics"]
            for word in ("spikes", "operations", "coincidences", "surrogates"):
                for name, value in kept["statistics"].get(word, {}).items():
                    seen[f"spikes/{event.epoch}/{word}/{name}"] = torch.as_tensor(value)
                    seen[f"again/{event.epoch}/{word}/{name}"] = torch.as_tensor(again[word][name])
    seen |= {f"state/beside/{number}": value.detach().clone() for number, value in enumerate(beside)}
    return seen | {f"state/{name}": value.clone() for name, value in model.state_dict().items()}


def _taught(case: str, model: nn.Module) -> ReverseDistiller | None:
    guides = {
        "virtual": virtual,
        "self": lambda: self_guide(STEPS, since="30%", ema=0.9),
        "sparse": lambda: sparse(plain_net(1).double()),
        "features": lambda: ann(wide_net(), model, torch.ones(3, 2, 1, 4, 4).double(), features="1"),
    }
    return ReverseDistiller(guides[case](), weight=0.5) if case in guides else None
