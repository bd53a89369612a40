"""What the machine is doing, against the operating system's own files and MLflow's own names."""

import os
import time
from pathlib import Path

import psutil
import pytest
import torch

from snnsl_plugin.metrics.system import system_metrics

OURS = {"system/process_memory_megabytes"}


def test_memory_and_disk_are_those_that_the_operating_system_tells(tmp_path):
    ballast = torch.ones(25_000_000)  # 100 MB that are really there
    found = system_metrics(tmp_path)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert found["system/process_memory_megabytes"] == pytest.approx(resident, abs=20)
    assert found["system/process_memory_megabytes"] > 4e-6 * ballast.numel()
    disk = os.statvfs(tmp_path)
    assert found["system/disk_available_megabytes"] == pytest.approx(disk.f_bavail * disk.f_frsize / 1e6, rel=0.05)
    used, total = found["system/system_memory_usage_megabytes"], psutil.virtual_memory().total / 1e6
    assert found["system/system_memory_usage_percentage"] == pytest.approx(100 * used / total, abs=0.1)


def test_the_processor_is_counted_since_the_last_call(tmp_path):
    system_metrics(tmp_path)
    until = time.perf_counter() + 0.4
    while time.perf_counter() < until:
        pass
    # One core of so many is busy, whatever the others do.
    assert system_metrics(tmp_path)["system/cpu_utilization_percentage"] > 50 / psutil.cpu_count()


def test_all_but_our_own_bear_the_names_that_mlflow_gives_them(tmp_path):
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor

    theirs: set[str] = set()
    for monitor in (CPUMonitor(), DiskMonitor()):
        monitor.collect_metrics()
        theirs |= {f"system/{name}" for name in monitor.aggregate_metrics()}
    assert set(system_metrics(tmp_path)) - OURS < theirs
