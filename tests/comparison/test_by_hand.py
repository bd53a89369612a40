"""What the comparison trains, a plain script in the pruner's own library trains too: equal masks, bit for bit.

This file is both. Run as a script it is what a user of that library writes, with torch, SpikingJelly and the library
alone; of the test it takes no more than the task: the pictures in their order and the weights to begin with.
"""

import json
import math
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

EPOCHS, STEPS_PER_EPOCH, RATE = 2, 21, 2.0e-3
STEPS, HALF = EPOCHS * STEPS_PER_EPOCH, STEPS_PER_EPOCH
# 60 % of 42 steps is step 25, so updates of every five steps end there.
EVERY, TIMES = 5, 5
DENSITY = 0.2
SHAPES = {"conv1": (8, 1, 3, 3), "conv2": (16, 8, 3, 3), "fc1": (32, 64), "fc2": (10, 32)}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
#: as it is called in a recipe, and the function below
PRUNERS = {
    "nni.level": "level",
    "nni.agp_level": "agp_level",
    "torch.l1": "l1",
    "torch_pruning.magnitude": "magnitude",
}
# n - int(0.8 n) of NNI and n - round(0.8 n) of torch.
LEFT_BY_NNI = {"conv1": 15, "conv2": 231, "fc1": 410, "fc2": 64}
LEFT_BY_TORCH = {"conv1": 14, "conv2": 230, "fc1": 410, "fc2": 64}

# ------------------------------------------------------------------------------------------- the scripts of a user


def spiking_net(weights: dict[str, Tensor]) -> nn.Module:
    """The network in SpikingJelly's own words."""

    def lif():
        return neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(alpha=2.0), detach_reset=True)

    net = nn.Sequential(
        OrderedDict(
            conv1=layer.Conv2d(1, 8, 3, padding=1, bias=False),
            norm1=layer.BatchNorm2d(8),
            spike1=lif(),
            pool1=layer.MaxPool2d(2),
            conv2=layer.Conv2d(8, 16, 3, padding=1, bias=False),
            norm2=layer.BatchNorm2d(16),
            spike2=lif(),
            pool2=layer.MaxPool2d(2),
            flatten=layer.Flatten(),
            fc1=layer.Linear(64, 32, bias=False),
            norm3=layer.BatchNorm1d(32),
            spike3=lif(),
            fc2=layer.Linear(32, 10),
        )
    )
    functional.set_step_mode(net, "m")
    net.load_state_dict(weights)
    return net


def loss_of(batch: tuple[Tensor, Tensor], net: nn.Module) -> Tensor:
    pictures, labels = batch
    functional.reset_net(net)
    logits = net(pictures.repeat(4, 1, 1, 1, 1))
    return nn.functional.cross_entropy(logits.mean(0), labels)


def training(net, optimizer, loss_of, batches, steps):
    """So many steps of Adam under half a cosine."""
    net.train()
    for step, batch in enumerate(batches[:steps]):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - (1 - math.cos(math.pi * (step / STEPS))) / 2)
        optimizer.zero_grad()
        loss_of(batch, net).backward()
        optimizer.step()


def trained_to_the_half(task):
    net = spiking_net(task["weights"])
    training(net, torch.optim.Adam(net.parameters(), lr=RATE), loss_of, task["batches"], HALF)
    return net


def level(task):
    from nni.compression.pruning import LevelPruner

    net = trained_to_the_half(task)
    _, masks = LevelPruner(net, [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.8}]).compress()
    return {name: targets["weight"].bool() for name, targets in masks.items()}


def agp_level(task):
    import nni
    from nni.compression import TorchEvaluator
    from nni.compression.pruning import AGPPruner, LevelPruner

    def whole_training(net, optimizers, training_step, schedulers, max_steps, max_epochs):
        training(net, optimizers, training_step, task["batches"], max_steps)

    net = spiking_net(task["weights"])
    evaluator = TorchEvaluator(whole_training, nni.trace(torch.optim.Adam)(net.parameters(), lr=RATE), loss_of)
    inner = LevelPruner(net, [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.8}], evaluator)
    _, masks = AGPPruner(inner, interval_steps=EVERY, total_times=TIMES).compress(STEPS, None)
    return {name: targets["weight"].bool() for name, targets in masks.items()}


def l1(task):
    from torch.nn.utils import prune

    net = trained_to_the_half(task)
    for name in SHAPES:
        prune.l1_unstructured(net.get_submodule(name), "weight", amount=0.8)
    return {name: net.get_submodule(name).weight_mask.bool() for name in SHAPES}


def magnitude(task):
    import torch_pruning as tp

    net = trained_to_the_half(task)
    # All that Torch-Pruning asks of such a network is to be traced at rest and in single steps.
    functional.reset_net(net)
    functional.set_step_mode(net, "s")
    pruner = tp.pruner.BasePruner(
        net,
        task["batches"][0][0][:1],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=task["pruning_ratio"],
        ignored_layers=[net.fc2],
    )
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    names = {net.get_submodule(name): name for name in SHAPES}
    for group in pruner.step(interactive=True):
        for dependency, channels in group:
            name = names.get(dependency.target.module)
            if name and pruner.DG.is_out_channel_pruning_fn(dependency.handler):
                masks[name][channels] = False
            elif name:
                masks[name][:, channels] = False
        group.prune()
    for name, mask in masks.items():
        assert net.get_submodule(name).weight.numel() == int(mask.sum()), name
    return masks


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    given = torch.load(sys.argv[1], weights_only=True)
    torch.save({name: globals()[name](given) for name in PRUNERS.values()}, sys.argv[2])
    sys.exit(any(name.partition(".")[0] == "snnsl_plugin" for name in sys.modules))

# ------------------------------------------------------------------------------------------------------- the tests

pytestmark = pytest.mark.slow

RECIPE = f"""
extends: digits
model: {{name: spiking_cnn, channels: [8, 16], hidden: 32}}
train: {{epochs: {EPOCHS}, batch_size: 64, optimizer: {{name: adam, lr: {RATE}}}, lr_schedule: cosine}}
dense_baseline: false
tracking: {{mlflow: false}}
compare:
  pruners: [{", ".join(PRUNERS)}]
  densities: [{DENSITY}]
  seeds: [0]
  every: {EVERY}it
  until: 60%
  workers: 2
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    from snnsl_plugin.recipe.load import load

    path = tmp_path_factory.mktemp("recipe") / "by_hand.yaml"
    path.write_text(RECIPE)
    return load(path)


@pytest.fixture(scope="module")
def compared(recipe, tmp_path_factory):
    """The folder of the comparison, and what it found by pruner."""
    from snnsl_plugin.comparison.run import compare

    root = tmp_path_factory.mktemp("compared")
    found = compare(recipe, name="by_hand", run_dir=root / "by_hand", root=root / "runs")
    assert [row["error"] for row in found["rows"]] == [None] * 5
    return root / "by_hand", {row["pruner"]: row for row in found["rows"]}


@pytest.fixture(scope="module")
def by_hand(recipe, compared, tmp_path_factory):
    """The masks of the scripts for a seed, by script and layer; each script runs in a process of its own kind."""
    from snnsl_plugin.recipe import assemble
    from snnsl_plugin.training.seeds import generator

    parts, made = assemble.data(recipe), {}
    channels = compared[1]["torch_pruning.magnitude"]["strength"]["value"]

    def masks(seed: int) -> dict[str, dict[str, Tensor]]:
        if seed not in made:
            orders = (generator(seed, "order", epoch) for epoch in range(1, EPOCHS + 1))
            seeded = recipe.model_copy(update={"seed": seed})
            task = {
                "weights": assemble.network(seeded, parts.splits).state_dict(),
                "batches": [(x[0].clone(), y) for order in orders for x, y in parts.train.epoch(order)],
                "pruning_ratio": round(1 - channels, 6),
            }
            folder = tmp_path_factory.mktemp("task")
            torch.save(task, folder / "task.pt")
            command = [sys.executable, "-P", __file__, str(folder / "task.pt"), str(folder / "masks.pt")]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            made[seed] = torch.load(folder / "masks.pt", weights_only=True)
        return made[seed]

    return masks


def masks_of(run: Path) -> dict[str, Tensor]:
    """The masks that a run left, by layer: those of its checkpoint, or the channels that its network kept."""
    from snnsl_plugin.training import checkpoint

    if (run / "compact.json").is_file():
        kept = json.loads((run / "compact.json").read_text())["kept"]
        masks = {}
        for name, shape in SHAPES.items():
            mask = torch.ones(shape, dtype=torch.bool)
            for axis, channels in enumerate(kept.get(f"{name}.weight", [])):
                if channels is not None:
                    gone = sorted(set(range(shape[axis])) - set(channels))
                    mask.index_fill_(axis, torch.tensor(gone, dtype=torch.int64), False)
            masks[name] = mask
        return masks
    saved = checkpoint.load(run / "checkpoint.safetensors")["masks"]
    return {key.removesuffix(".weight"): mask for key, mask in saved.items()}


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_run_of_the_comparison_and_a_script_in_the_library_itself_give_equal_masks(pruner, compared, by_hand):
    folder, rows = compared
    (run,) = rows[pruner]["runs"]
    ours, theirs = masks_of(folder / run["folder"]), by_hand(0)[PRUNERS[pruner]]
    assert ours.keys() == theirs.keys() == SHAPES.keys()
    for name, mask in theirs.items():
        assert torch.equal(ours[name], mask), name
    other = by_hand(1)[PRUNERS[pruner]]
    assert all(not torch.equal(ours[name], other[name]) for name in SHAPES)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_the_masks_keep_what_was_asked_for(pruner, compared):
    folder, rows = compared
    (run,) = rows[pruner]["runs"]
    left = {name: int(mask.sum()) for name, mask in masks_of(folder / run["folder"]).items()}
    assert run["numbers"]["density"] == pytest.approx(sum(left.values()) / sum(SIZES.values()))
    if pruner == "torch_pruning.magnitude":
        share = rows[pruner]["strength"]["value"]
        one, two, three = (int(channels * share) for channels in (8, 16, 32))
        # A picture has 4 sites when it is flattened.
        assert left == {"conv1": 9 * one, "conv2": 9 * one * two, "fc1": 4 * two * three, "fc2": 10 * three}
        # Channels come in whole numbers: nearer than this no share of them is.
        assert sum(left.values()) / sum(SIZES.values()) == pytest.approx(DENSITY, rel=0.05)
    else:
        assert left == (LEFT_BY_TORCH if pruner == "torch.l1" else LEFT_BY_NNI)
