"""How unequal weights are, and so how many of them could go."""

from __future__ import annotations

import math

from torch import Tensor

from snnsl_plugin.errors import BadOption


def pq_index(weights: Tensor, *, p: float = 0.5, q: float = 1.0) -> float:
    """1 - d^(1/q - 1/p) |w|_p / |w|_q of d weights, in [0, 1 - d^(1/q - 1/p)].

    The PQ index of Diao et al. (ICLR 2023, "Pruning deep neural networks from a sparsity perspective"): 0 where all
    weights have one size, largest where a single one is not zero. Weights that are all zero have an index of 0 here:
    none of them stands out.

    Args:
        weights: any shape, those that live.
        p: exponent of the smaller norm, > 0.
        q: that of the larger one, > p.

    Raises:
        BadOption: exponents out of order.

    >>> import torch
    >>> pq_index(torch.tensor([1.0, 0.0, 0.0, 0.0])), pq_index(torch.tensor([2.0, -2.0]))
    (0.75, 0.0)
    """
    if not (math.isfinite(q) and 0.0 < p < q):
        raise BadOption(f"p={p:g} and q={q:g}: the PQ index needs 0 < p < q")
    # Sums come in another order on a GPU: rounded, so that it exchanges as many connections as a CPU.
    size = weights.detach().double().abs()
    largest = float(size.max()) if size.numel() else 0.0
    if largest == 0.0:
        return 0.0
    size = size / largest  # no power overflows
    norms = [float(size.pow(each).sum()) ** (1.0 / each) for each in (p, q)]
    index: float = 1.0 - size.numel() ** (1.0 / q - 1.0 / p) * norms[0] / norms[1]
    return round(min(1.0, max(0.0, index)), 9)


def prunable_share(weights: Tensor, *, p: float = 0.5, q: float = 1.0, eta: float = 0.0) -> float:
    """1 - (1 + eta)^(-q / (q - p)) (1 - I)^(q p / (q - p)), in [0, 1]: more cannot go by the bound of Diao et al.

    As long as the sum of |w|^p of those that go is at most eta times that of those that stay, at least d times the rest
    must stay. With p = 1/2 and q = 1, exponents of the authors' examples, and eta = 0 the share is the index itself.

    Args:
        weights: any shape, those that live.
        p: see `pq_index`.
        q: likewise.
        eta: what may go, relative to what stays, >= 0.

    Raises:
        BadOption: exponents out of order, or a negative eta.
    """
    if not (math.isfinite(eta) and eta >= 0.0):
        raise BadOption(f"eta={eta:g}: what may go is a number >= 0")
    index = pq_index(weights, p=p, q=q)  # first: it refuses exponents out of order
    stay: float = (1.0 + eta) ** (-q / (q - p)) * (1.0 - index) ** (q * p / (q - p))
    return round(1.0 - stay, 9)
