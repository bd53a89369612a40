"""A PostgreSQL server on loopback, run as user postgres where we are root, stopped and removed afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server() -> Iterator[Callable[..., str]]:
    """Gives a function that makes a fresh database and tells its URL: `fresh(name, owner, *sql)`."""
    tools = [Path(found).parent for found in [shutil.which("initdb")] if found]
    tools += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not tools:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    home = Path(tempfile.mkdtemp(prefix="snnsl-postgresql-"))
    home.chmod(0o777)
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def do(tool: str, *words: str) -> None:
        done = subprocess.run(
            [*as_user, str(tools[-1] / tool), *words], cwd=home, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    data = str(home / "data")
    do("initdb", "-D", data, "-A", "trust", "-U", "postgres", "-N")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
    do("pg_ctl", "-D", data, "-w", "-l", str(home / "log"), "-o", options, "start")

    def fresh(name: str, owner: str = "postgres", *settings: str) -> str:
        at = ["-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
        do("createdb", *at, name)
        for setting in settings:
            do("psql", *at, "-c", setting)
        return f"postgresql://{owner}@127.0.0.1:{port}/{name}"

    try:
        yield fresh
    finally:
        do("pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(home)
