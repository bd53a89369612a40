"""One of two data-parallel processes: trains under NNI and without, and writes what it saw. Arguments: rank, folder."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import nni
import torch
from ddp_worker import STEPS, batch
from networks import conv_net
from nni.compression import TorchEvaluator
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from snnsl_plugin.anatomy import reset_, weight_name
from snnsl_plugin.core import schedules
from snnsl_plugin.for_nni import ReverseKDDistiller, SpikingDynamicPruner
from snnsl_plugin.training.losses import cross_entropy
from snnsl_plugin.training.pruner import DynamicPruner

MODES = ("hosted", "alone", "taught", "looped", "apart")  # the last one breaks what the others need
EVERY, TIMES = 3, 4
OPTIONS = {
    "criterion": "spike_saliency",
    "growth": "gradient",
    "swap": schedules.constant(value=0.3),
    "sample_every": 1,
}


class Stepwise(nn.Module):
    """The loop over time is outside: each call takes one step of time, (N, C, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()
        for module in self.net:
            module.step_mode = "s"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def looped(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.stack([model(step) for step in x])


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for mode in MODES:
        torch.save(trained(rank, mode), folder / f"{mode}-{rank}.pt")
    gc.collect()  # replicas hold the group, which aborts a process that it outlives
    distributed.destroy_process_group()


def trained(rank: int, mode: str) -> dict[str, torch.Tensor]:
    loop_outside = mode == "looped"
    model = Stepwise() if loop_outside else conv_net()
    parallel = DistributedDataParallel(model)
    ask = looped if loop_outside else (lambda model, x: model(x))
    seen: dict[str, torch.Tensor] = {}

    def loss_of(step: int, model: nn.Module) -> torch.Tensor:
        x, target = batch(rank, step)
        reset_(model)
        return cross_entropy(ask(model, x), target)

    if mode == "apart":  # the control: what happens to masks if each rank goes by its own statistics
        distributed.all_reduce = lambda *given, **options: None
    if mode == "alone":
        optimizer = torch.optim.Adam(parallel.parameters(), lr=0.01)
        pruner = DynamicPruner(
            model, optimizer, density=schedules.cubic(first=1.0, last=0.3), distribution="uniform",
            every=f"{EVERY}it", until=f"{EVERY * TIMES}it", **OPTIONS,
        )  # fmt: skip
        for step in range(1, STEPS + 1):
            loss_of(step, parallel).backward()
            optimizer.step()
            if pruner.step():
                seen |= {f"{step}/{name}": mask.clone() for name, mask in pruner.masks.items()}
            optimizer.zero_grad()
        pruner.finish()
    else:

        def train(model, optimizer, training_step, scheduler, max_steps, max_epochs):  # type: ignore[no-untyped-def]
            assert isinstance(model, DistributedDataParallel)
            for step in range(1, max_steps + 1):
                training_step(step, model).backward()
                optimizer.step()
                if step % EVERY == 0:
                    masks = pruner.get_masks()
                    assert all(name.startswith("module.") for name in masks)
                    for name, mask in masks.items():
                        seen[f"{step}/{weight_name(name.removeprefix('module.'))}"] = mask["weight"].bool()
                optimizer.zero_grad()

        optimizer = nni.trace(torch.optim.Adam)(parallel.parameters(), lr=0.01)
        evaluator = TorchEvaluator(train, optimizer, loss_of)
        config = [{"op_types": ["Conv2d", "Linear"], "sparse_ratio": 0.7}]
        pruner = SpikingDynamicPruner(
            parallel, config, evaluator, interval_steps=EVERY, total_times=TIMES, distribution="uniform", **OPTIONS
        )
        head = pruner
        if mode == "taught":
            head = ReverseKDDistiller.from_compressor(
                pruner, [{"op_names": ["module.7"], "lambda": 0.3}], guide={"name": "self", "since": "4it"},
                teacher_predict=lambda step, model: model(batch(rank, step)[0]),
                labels=lambda step: batch(rank, step)[1],
            )  # fmt: skip
        head.compress(STEPS, None)
        head.unwrap_model()
        for name, mask in pruner.get_masks().items():
            weight = model.get_parameter(weight_name(name.removeprefix("module.")))
            seen[f"nonzero/{name}"] = weight[mask["weight"] == 0].count_nonzero()
    seen |= {f"weight/{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
    return seen


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
