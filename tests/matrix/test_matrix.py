"""The runner of the Python matrix, without an installation."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("matrix_run", RUN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("PATH", str(tmp_path))
    return module


def program(path: Path, says: str, status: int = 0) -> None:
    path.write_text(f"#!/bin/sh\necho {says}\nexit {status}\n")
    path.chmod(0o755)


def test_the_newest_python_of_a_minor_version_counts_and_a_shim_that_fails_does_not(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{other}:{tmp_path / 'absent'}")
    program(tmp_path / "python3.11", "3 11 2 /old/python3.11")
    program(other / "python3.11", "3 11 7 /new/python3.11")
    program(tmp_path / "python3.12", "3 12 1 /shim/python3.12", status=127)
    program(tmp_path / "python3.10", "3 10 9 /python3.10")
    program(tmp_path / "python3.11-config", "3 11 9 /config")
    assert run.pythons() == [run.Python((3, 11, 7), "/new/python3.11")]


def test_a_pyenv_installation_counts_without_being_active(run: ModuleType, tmp_path: Path) -> None:
    binaries = tmp_path / "versions" / "3.13.0" / "bin"
    binaries.mkdir(parents=True)
    program(tmp_path / "pyenv", str(tmp_path))
    program(binaries / "python3.13", "3 13 0 /pyenv/python3.13")
    assert run.pythons() == [run.Python((3, 13, 0), "/pyenv/python3.13")]


def test_a_missing_python_is_said_in_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, RUN], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "no Python 3.11 and 3.12 that runs was found on PATH or below pyenv (found: none): install it\n"
    )


def test_an_environment_of_other_requirements_is_made_anew(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((run.ROOT / name).read_text())
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "HOME", tmp_path / ".matrix")
    python = run.Python((3, 11, 7), str(tmp_path / "absent"))
    home = tmp_path / ".matrix" / "3.11.7"
    home.mkdir(parents=True)
    (home / f".installed-{run.digest()}").touch()
    log = tmp_path / "log"
    assert run.installed(python, log)
    with (tmp_path / "constraints.txt").open("a") as file:
        file.write("another==1\n")
    program(tmp_path / "absent", "ERROR: no wheel for another==1", status=1)
    assert not run.installed(python, log)
    assert not home.exists()
    assert run.error_line(log) == "ERROR: no wheel for another==1"


def test_a_row_counts_what_pytest_reported(run: ModuleType, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10"></testsuite></testsuites>'
    )
    assert run.counts(report) == (4, 3, 3)


@pytest.mark.parametrize("status", [0, 1])
def test_a_pytest_that_fails_after_its_last_test_fails_the_row(
    run: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(run, "HOME", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "digest", lambda: 0)
    binaries = tmp_path / "3.13.0" / "bin"
    binaries.mkdir(parents=True)
    (tmp_path / "3.13.0" / ".installed-0").touch()
    suite = "<testsuites><testsuite errors='0' failures='0' skipped='0' tests='2'/></testsuites>"
    program(binaries / "python", f'"{suite}" > {tmp_path}/3.13.0.xml; echo E unclosed database', status)
    row, bad = run.checked(run.Python((3, 13, 0), ""))
    assert (row.passed, row.failed, bad) == ("2", "0", bool(status))
    assert row.note == ("E unclosed database (3.13.0.log)" if status else "")
