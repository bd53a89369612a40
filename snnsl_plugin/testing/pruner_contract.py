"""The contract of pruners that others write: a small training, repeated, stopped and resumed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from snnsl_plugin.testing.contracts import require


def check_pruner(pruner: Callable[..., object], *, density: float | None = None) -> None:
    """The contract of pruners: the same masks twice, none after `until`, a plain network in the end, and a middle.

    A small spiking network of 500 weights or so is trained for 12 steps, 4 an epoch. A pruner with `state_dict()` and
    `load_state_dict()` is stopped on the way, and must go on bit for bit.

    Args:
        pruner: the function with its options bound; what its positional parameters name is filled in.
        density: the share of the prunable weights it was asked to leave, in (0, 1]; not looked at where None.

    Raises:
        AssertionError: naming what was broken.
        BadOption: a parameter that no runner knows, or an answer without `step()`.
    """
    whole, again, fresh = _Trainee(pruner), _Trainee(pruner), _small_net()
    masks = [whole.step() for _ in range(_STEPS)]
    same = [again.step() for _ in range(_STEPS)]
    require(all(map(_equal, masks, same)), "two trainings of one seed have other masks: draw from torch's generators")
    until = whole.hosted.until
    settled = masks[max(until, 1) - 1 :]
    require(all(_equal(settled[0], each) for each in settled), f"masks change after until, which is step {until}")
    require(not all(bool(mask.all()) for mask in masks[-1].values()), "nothing is pruned")
    if density is not None:
        chosen = [masks[-1][f"{name}.weight"] for name in whole.hosted.prunable]
        kept, asked = sum(int(mask.sum()) for mask in chosen), density * sum(mask.numel() for mask in chosen)
        # One unit a layer is a matter of rounding: a channel where whole channels go.
        units = [
            mask[0].numel() if bool((mask.flatten(1).all(1) == mask.flatten(1).any(1)).all()) else 1 for mask in chosen
        ]
        require(abs(kept - asked) <= sum(units), f"asked for {asked:g} weights, {kept} are left")
    for middle in (1, _STEPS // 2, _STEPS - 2) if whole.hosted.resumable else ():
        _check_goes_on(pruner, middle, masks, whole.model)
    whole.hosted.finish()
    left, plain = whole.model.state_dict(), fresh.state_dict()
    require(left.keys() == plain.keys(), f"finish() leaves {sorted(left.keys() ^ plain.keys())} in the network")
    require(all(left[key].shape == plain[key].shape for key in plain), "the network has other shapes in the end")
    zero = all(not bool(left[name][~mask].any()) for name, mask in masks[-1].items())
    require(zero, "a pruned weight is not zero in the end")


_STEPS = 12


class _Trainee:
    """A small network, its optimizer and a pruner, in the middle of a training."""

    def __init__(self, pruner: Callable[..., object]) -> None:
        from snnsl_plugin.for_torch.hosting import hosted

        self.model = _small_net()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02, weight_decay=0.01)
        self.hosted = hosted(
            pruner, self.model, self.optimizer, name="checked", seed=0, total_steps=_STEPS, steps_per_epoch=4,
            example=_batch(0)[0], draw=lambda number: [_batch(step) for step in range(number)],
        )  # fmt: skip

    def step(self) -> dict[str, Tensor]:
        """Takes one step and returns the masks after it."""
        from snnsl_plugin.anatomy import reset_

        x, target = _batch(self.hosted.step_number)
        reset_(self.model)
        F.cross_entropy(self.model(x).mean(0), target).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.hosted.step()
        self.optimizer.zero_grad()
        return self.hosted.masks


def _check_goes_on(
    pruner: Callable[..., object], middle: int, masks: list[dict[str, Tensor]], ended: torch.nn.Module
) -> None:
    from snnsl_plugin.training import checkpoint

    stopped, resumed = _Trainee(pruner), _Trainee(pruner)
    for _ in range(middle):
        stopped.step()
    tree = {each: getattr(stopped, each).state_dict() for each in ("hosted", "model", "optimizer")}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(Path(folder) / "middle.safetensors", tree)
        tree = checkpoint.load(Path(folder) / "middle.safetensors")
    resumed.hosted.load_state_dict(tree["hosted"])
    resumed.model.load_state_dict(tree["model"])
    resumed.optimizer.load_state_dict(tree["optimizer"])
    rest = [resumed.step() for _ in range(_STEPS - middle)]
    require(all(map(_equal, masks[middle:], rest)), f"stopped after step {middle}, it goes on to other masks")
    same = _equal(ended.state_dict(), resumed.model.state_dict())
    require(same, f"stopped after step {middle}, it goes on to other weights")


def _equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def _small_net() -> torch.nn.Module:
    from spikingjelly.activation_based import functional, layer, neuron

    from snnsl_plugin.for_torch.randomness import own_random_numbers

    with own_random_numbers(0, "network"):
        net = torch.nn.Sequential(
            layer.Conv2d(1, 6, 3, padding=1, bias=False),
            layer.BatchNorm2d(6),
            neuron.LIFNode(v_threshold=0.2),
            layer.MaxPool2d(2),
            layer.Conv2d(6, 8, 3, padding=1),
            neuron.LIFNode(v_threshold=0.2),
            layer.Flatten(),
            layer.Linear(32, 5),
        )
    functional.set_step_mode(net, "m")
    return net


def _batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = 2 * torch.rand(1, 8, 1, 4, 4, generator=generator).repeat(3, 1, 1, 1, 1)
    return x, torch.randint(0, 5, (8,), generator=generator)
