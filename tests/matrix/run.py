"""Runs the fast tests of the NNI door on every Python found, each in an environment of its own, and prints a table.

    python tests/matrix/run.py            # every Python from 3.11 on PATH and below pyenv
    python tests/matrix/run.py 3.12       # this one only

One interpreter a minor version, the newest. Environments stay in `.matrix/<version>` and are made anew when what
pyproject.toml and constraints.txt want installed changes; logs lie beside them. Needs only the standard library.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".matrix"
OLDEST = (3, 11)
NEEDED = ((3, 11), (3, 12))
TESTS = "tests/for_nni"
SHOWN = ("torch", "nni", "spikingjelly")
# A pyenv shim exists for versions that are not active, and a distribution may split venv off: both fail here.
PROBE = "import ensurepip, sys, venv; print(*sys.version_info[:3], sys.executable)"
ASK = f"from importlib.metadata import version; print(*map(version, {SHOWN!r}))"


class Python(NamedTuple):
    version: tuple[int, int, int]
    path: str

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


class Row(NamedTuple):
    python: str
    torch: str = "-"
    nni: str = "-"
    spikingjelly: str = "-"
    passed: str = "-"
    failed: str = "-"
    skipped: str = "-"
    seconds: str = "-"
    note: str = ""


def main(asked: list[str]) -> int:
    found = pythons()
    chosen = [each for each in found if not asked or ".".join(map(str, each.version[:2])) in asked]
    needed = [tuple(map(int, name.split("."))) for name in asked] or list(NEEDED)
    missing = [version for version in needed if version not in {each.version[:2] for each in chosen}]
    if missing:
        names = " and ".join(".".join(map(str, version)) for version in missing)
        have = ", ".join(each.name for each in found) or "none"
        sys.stderr.write(f"no Python {names} that runs was found on PATH or below pyenv (found: {have}): install it\n")
        return 1
    rows, failed = [], False
    for each in chosen:
        row, bad = checked(each)
        rows.append(row)
        failed |= bad
        print(table(rows), flush=True)
    return int(failed)


def pythons() -> list[Python]:
    """One interpreter a minor version from OLDEST, the newest that runs and can make environments."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], capture_output=True, text=True, check=True).stdout.strip()
        folders += sorted(Path(root).glob("versions/*/bin"))
    newest: dict[tuple[int, int], Python] = {}
    for folder in folders:
        for path in sorted(folder.glob("python3.*")) if folder.is_dir() else []:
            if not re.fullmatch(r"python3\.\d+", path.name) or not (answer := output(str(path), "-c", PROBE)):
                continue
            major, minor, micro, executable = answer.split(maxsplit=3)
            one = Python((int(major), int(minor), int(micro)), executable)
            if one.version[:2] >= OLDEST and one.version > newest.get(one.version[:2], Python((0, 0, 0), "")).version:
                newest[one.version[:2]] = one
    return [newest[key] for key in sorted(newest)]


def checked(python: Python) -> tuple[Row, bool]:
    """The row of one Python, and whether it fails the whole run.

    What cannot be installed fails it only on a Python in NEEDED: a newer one often waits for wheels. A test that fails
    does so anywhere.
    """
    print(f"Python {python.name}: {python.path}", flush=True)
    log = HOME / f"{python.name}.log"
    if not installed(python, log):
        return Row(python.name, note=f"not installed: {error_line(log)} ({shown(log)})"), python.version[:2] in NEEDED
    home = HOME / python.name
    report = HOME / f"{python.name}.xml"
    report.unlink(missing_ok=True)
    started = time.monotonic()
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", f"--junit-xml={report}", TESTS]
    with log.open("w") as file:
        told = subprocess.run(
            [home / "bin/python", *command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT
        ).returncode
    seconds = f"{time.monotonic() - started:.0f}"
    versions = output(str(home / "bin/python"), "-c", ASK).split() or ["-"] * len(SHOWN)
    said = f"{error_line(log)} ({shown(log)})"
    if not report.exists():
        return Row(python.name, *versions, seconds=seconds, note=f"no report of pytest: {said}"), True
    passed, failed, skipped = counts(report)
    # pytest may fail without a failed test: a warning after the last one, or nothing collected
    note = said if told or failed or not passed else ""
    return Row(python.name, *versions, str(passed), str(failed), str(skipped), seconds, note), bool(note)


def installed(python: Python, log: Path) -> bool:
    """Makes the environment unless it was made from the same requirements; every pin of constraints.txt holds."""
    home = HOME / python.name
    stamp = home / f".installed-{digest()}"
    if stamp.exists():
        return True
    print("  installing, which takes minutes", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    HOME.mkdir(exist_ok=True)
    pip = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with log.open("w") as file:
        for command in (
            [python.path, "-m", "venv", home],
            [*pip, "-c", "constraints.txt", "-e", ".[test]"],
        ):
            if subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode:
                return False
    stamp.touch()
    return True


def digest() -> int:
    """Of what is to be installed and how, so that an older environment never hides a missing install step."""
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [tables["build-system"], tables["project"], tables["tool"]["hatch"]]
    return zlib.crc32(json.dumps(wanted).encode() + (ROOT / "constraints.txt").read_bytes())


def counts(report: Path) -> tuple[int, int, int]:
    """Passed, failed (errors too) and skipped tests of pytest's JUnit report."""
    suite = ElementTree.parse(report).getroot().find("testsuite")
    tests, failures, errors, skipped = (int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped"))
    return tests - failures - errors - skipped, failures + errors, skipped


def error_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"E |ERROR|FAILED", line)]
    return (errors or lines or ["it said nothing"])[-1]


def output(*command: str) -> str:
    """What a program prints; nothing where it cannot be run or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()


def shown(path: Path) -> Path:
    return path.relative_to(ROOT)


def table(rows: list[Row]) -> str:
    lines = [Row._fields, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(Row._fields))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
