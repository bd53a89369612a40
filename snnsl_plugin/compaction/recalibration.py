"""Running statistics of batch norms, estimated anew after a cut: what flows through the network has changed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snnsl_plugin.anatomy import as_found, reset_
from snnsl_plugin.compaction.tracing import Forward
from snnsl_plugin.errors import BadData, BadOption, MissingStatistic, NothingMatched


@torch.no_grad()
def recalibrate_(model: nn.Module, batches: Iterable[Any], *, forward: Forward | None = None) -> list[str]:
    """Re-estimates the running mean and variance of every batch norm, in place; nothing is trained.

    Like `torch.optim.swa_utils.update_bn`, the average over all batches, each counting the same. That function neither
    resets neurons between batches nor leaves dropout alone, and after a failure it leaves a network in training mode
    with its statistics lost; here only the norms are in training mode, and a failure changes nothing.

    Args:
        model: train flags, momenta and hooks are left as they are; neurons are at rest afterwards.
        batches: of the training data, each an input or a tuple or list that begins with it, as the model takes it:
            (T, N, ...) in multi-step mode. A few hundred samples are enough.
        forward: how the model is called with an input, where `model(x)` is not how.

    Returns:
        The dotted names of the norms.

    Raises:
        NothingMatched: no batch norm with running statistics.
        MissingStatistic: no batch, or a norm that no batch came by.
        BadOption: a batch of one value a channel.
        BadData: statistics that are not finite.

    Example:
        >>> net = nn.Sequential(nn.BatchNorm1d(1))
        >>> recalibrate_(net, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
        ['0']
        >>> net[0].running_mean
        tensor([4.])
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor)
    }
    if not norms:
        raise NothingMatched(f"this {type(model).__name__} has no batch norm with running statistics to recalibrate")
    before = [(buffer, buffer.clone()) for norm in norms.values() for buffer in norm.buffers(recurse=False)]
    try:
        with ExitStack() as stack:
            for norm in norms.values():
                stack.callback(setattr, norm, "momentum", norm.momentum)
            stack.enter_context(as_found(model))
            _estimate_(model, norms, batches, forward)
    except BaseException:
        for buffer, held in before:
            buffer.copy_(held)
        raise
    finally:
        reset_(model)
    return list(norms)


def _estimate_(model: nn.Module, norms: dict[str, _BatchNorm], batches: Iterable[Any], forward: Forward | None) -> None:
    model.eval()
    for norm in norms.values():
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    for batch in batches:
        x = batch[0] if isinstance(batch, tuple | list) else batch
        reset_(model)
        try:
            forward(model, x) if forward else model(x)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise BadOption(
                "a batch holds one value a channel, which has no variance: use larger batches, or drop the last one"
            ) from error
    for name, norm in norms.items():
        if not norm.num_batches_tracked:
            raise MissingStatistic(
                f"batch norm {name!r} saw no batch: pass at least one, and a model that runs all of its norms; the "
                "statistics are as they were"
            )
        if not all(bool(stat.isfinite().all()) for stat in (norm.running_mean, norm.running_var) if stat is not None):
            raise BadData(
                f"the statistics of batch norm {name!r} over these batches are not finite: look for NaN in the inputs; "
                "the statistics are as they were"
            )
