"""The most memory that this process ever held."""

from __future__ import annotations

import sys

import torch


def peak_memory_mib(device: torch.device | str = "cpu") -> float:
    """Peak memory in MiB: resident memory of the whole process since it began, on cuda what torch allocated there.

    Args:
        device: `cpu` or a cuda device.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info().peak_wset) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB
