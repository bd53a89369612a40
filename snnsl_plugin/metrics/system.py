"""How busy the machine is while a network trains, under the names by which MLflow shows system metrics."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def system_metrics(folder: Path, device: torch.device | str = "cpu") -> dict[str, float]:
    """What the machine is doing now; the names are MLflow's, so that its page "System metrics" shows them.

    Args:
        folder: whose disk is looked at.
        device: where the network trains; on cuda its memory is told as well.

    Returns:
        `system/cpu_utilization_percentage` (of all cores, since the last call of this function in this process; 0 at
        the first), `system/system_memory_usage_megabytes` and `_percentage` (of the machine),
        `system/process_memory_megabytes` (of this process, resident), `system/disk_available_megabytes`; on cuda
        `system/gpu_<number>_memory_usage_megabytes` and `_percentage` (of the whole device). A megabyte is 1e6 bytes.

    Example:
        >>> found = system_metrics(Path("."))
        >>> 0 < found["system/system_memory_usage_percentage"] < 100
        True
    """
    memory = psutil.virtual_memory()
    found = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": memory.used / 1e6,
        "system_memory_usage_percentage": 100.0 * memory.used / memory.total,
        "process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
        "disk_available_megabytes": psutil.disk_usage(str(folder)).free / 1e6,
    }
    where = torch.device(device)
    if where.type == "cuda":
        free, total = torch.cuda.mem_get_info(where)
        number = torch.cuda.current_device() if where.index is None else where.index
        found[f"gpu_{number}_memory_usage_megabytes"] = (total - free) / 1e6
        found[f"gpu_{number}_memory_usage_percentage"] = 100.0 * (total - free) / total
    return {f"system/{name}": round(value, 1) for name, value in found.items()}
