"""One of two data-parallel processes: trains with a pruner and writes what it saw. Arguments: rank, folder, mode."""

from __future__ import annotations

import copy
import gc
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from networks import conv_net
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from snnsl_plugin.anatomy import reset_
from snnsl_plugin.core import schedules
from snnsl_plugin.training.budget import Budget
from snnsl_plugin.training.pruner import DynamicPruner

STEPS = 12


def batch(rank: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first rank sees the left half of the pictures lit, the second the right half, and brighter."""
    stream = torch.Generator().manual_seed(100 * rank + step)
    x = torch.rand(3, 8, 1, 4, 4, generator=stream) * (1 + 2 * rank)
    x[..., : 2 if rank else 0] = 0.0
    x[..., 4 if rank else 2 :] = 0.0
    return x, torch.randint(0, 5, (8,), generator=stream)


def loss_of(model: torch.nn.Module, rank: int, step: int) -> torch.Tensor:
    x, target = batch(rank, step)
    reset_(model)
    return F.cross_entropy(model(x).mean(0), target)


def main(rank: int, folder: Path, mode: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    model = conv_net()
    model.eval()  # a batch norm in train mode looks at its own half of the batch only, so gradients would not add up
    model[2].train()
    alone = copy.deepcopy(model)
    parallel = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    loss_of(alone, rank, 0).backward()
    loss_of(parallel, rank, 0).backward()
    mine = alone[4].weight.grad.clone()
    mean = mine.clone()
    distributed.all_reduce(mean)
    seen = {"mine": mine, "mean": mean / 2, "averaged": model[4].weight.grad.clone()}
    optimizer.zero_grad()

    if mode == "apart":  # the control: what happens to masks if each rank goes by its own statistics
        distributed.all_reduce = lambda *given, **options: None
    for module in model:
        module.train()
    pruner = DynamicPruner(
        parallel.module, optimizer, criterion="spike_saliency", growth="gradient", distribution="uniform",
        density=schedules.linear(first=0.9, last=0.3), swap=schedules.constant(value=0.3),
        every="3it", until="50%" if mode == "budget" else "100%", total_steps=STEPS, sample_every=1,
        # Each rank measures on inputs of its own, and both must come to the same density.
        budget=Budget("synops", 200.0, lambda: [batch(rank, 0)[0]]) if mode == "budget" else None,
    )  # fmt: skip
    for step in range(1, STEPS + 1):
        loss_of(parallel, rank, step).backward()
        optimizer.step()
        change = pruner.step()
        if change:
            for name, mask in pruner.masks.items():
                seen[f"{step}/{name}"] = mask.clone()
            for name, rate in change.rates.items():
                seen[f"{step}/rate/{name}"] = torch.tensor(rate)
            for name, rows in pruner.state_dict()["dead"].items():
                seen[f"{step}/dead/{name}"] = rows.clone()
        optimizer.zero_grad()
    pruner.finish()
    seen |= {f"weight/{name}": parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.save(seen, folder / f"{rank}.pt")
    gc.collect()  # replicas hold the group, which aborts a process that it outlives
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
