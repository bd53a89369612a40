"""`snnsl env`: versions, device, data, and what will not work here and why."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

from snnsl_plugin import __version__
from snnsl_plugin.cli.arguments import Json

_LIBRARIES = (
    "torch", "torchvision", "spikingjelly", "tonic", "nni", "torch-pruning", "optuna", "mlflow",
    "setuptools",
)  # fmt: skip
#: Asked in another process: a library that is broken here may take its whole process down.
_PROBE = """
import json
said = {}
try:
    import torch
    said.update(threads=torch.get_num_threads(), cuda=torch.cuda.is_available())
    said["gpu"] = torch.cuda.get_device_name() if said["cuda"] else None
except Exception as error:
    said["torch"] = f"{type(error).__name__}: {error}"
else:
    try:
        import torchvision
    except Exception as error:
        said["torchvision"] = f"{type(error).__name__}: {error}"
print(json.dumps(said))
"""


def env(as_json: Json = False) -> None:
    """Report versions, device, data sets found, and what will not work here."""
    found = survey()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for name, version in found["versions"].items():
        print(f"{name:14} {version or 'absent'}")
    device = found["device"]
    threads = device["threads"] or "unknown"
    print(f"{'processor':14} {device['machine']}, {device['cpus']} CPUs, torch threads: {threads}")
    print(f"{'GPU':14} {device['gpu'] or 'none'}")
    print(f"{'data':14} {found['data']['folder']}: {', '.join(found['data']['found']) or 'no data sets yet'}")
    for sentence in found["will_not_work"]:
        print(f"will not work: {sentence}")


def survey() -> dict[str, Any]:
    """The same as plain data: "versions", "device", "data", "will_not_work"."""
    from snnsl_plugin import registry
    from snnsl_plugin.datasets._root import VARIABLE, data_root

    versions: dict[str, str | None] = {"python": platform.python_version(), "snnsl-plugin": __version__}
    versions |= {name: _version(name) for name in _LIBRARIES}
    probed = _probe()
    root = data_root()
    return {
        "versions": versions,
        "device": {
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "threads": probed.get("threads"),
            "cuda": bool(probed.get("cuda")),
            "gpu": probed.get("gpu"),
        },
        "data": {
            "variable": VARIABLE,
            "folder": str(root),
            "found": [name for name in registry.names("datasets") if (root / name).is_dir()],
        },
        "will_not_work": _missing(versions, probed),
    }


def _missing(versions: dict[str, str | None], probed: dict[str, Any]) -> list[str]:
    said = []
    if "torch" in probed:
        said.append(f"everything: torch cannot be imported ({probed['torch']})")
    if "torchvision" in probed:
        said.append(f"picture data sets and the model zoo: torchvision cannot be imported ({probed['torchvision']})")
    if versions["nni"] is None and platform.machine().lower() not in ("x86_64", "amd64"):
        said.append(f"snnsl_plugin.for_nni: NNI has wheels for x86_64 only, and this is {platform.machine()}")
    elif versions["nni"] is None:
        said.append("snnsl_plugin.for_nni: nni is not installed (pip install nni)")
    elif int((versions["setuptools"] or "0").partition(".")[0]) >= 82:
        said.append("nnictl: it imports pkg_resources, which setuptools 82 dropped (pip install 'setuptools<82')")
    for name, used in (
        ("spikingjelly", "models"),
        ("tonic", "event data sets"),
        ("torch-pruning", "snnsl_plugin.for_torch_pruning"),
        ("optuna", "tuning"),
        ("mlflow", "the picture of a run in MLflow"),
    ):
        if versions[name] is None:
            said.append(f"{used}: {name} is not installed (pip install {name})")
    if probed.get("cuda") is False:
        said.append("device cuda: torch sees no GPU here")
    return said


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _probe() -> dict[str, Any]:
    try:
        done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=120, check=False)
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return {"torch": "the process that tried it died or took more than two minutes"}
