"""Fixtures: Wine, and a bench on which the server is the Windows program with a fake Codex."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from typing import Any, Iterator

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from client import PROGRAM, remaining  # noqa: E402
from wine import BIN, PYTHON, SHIM, alive, environment, windows_path  # noqa: E402


@pytest.fixture(scope="session")
def wine() -> Iterator[None]:
    """Wine's own processes, started here so that they hold no pipe of a test's."""
    quiet = {name: subprocess.DEVNULL for name in ("stdin", "stdout", "stderr")}
    run = functools.partial(subprocess.run, env=environment(), timeout=120, **quiet)
    run(["wineserver", "--kill"])  # what an earlier run left, if it was itself killed
    run(["wineserver", "--wait"])
    run(["wineserver", "--persistent"], check=True)
    run(["wine", "cmd", "/c", "exit"], check=True)
    yield
    run(["wineserver", "--kill"])


@pytest.fixture(params=["exe", "cmd"])
def codex(request: Any) -> str:
    """The path of Codex: the program itself, or npm's script, which finds node on PATH."""
    folder = BIN if request.param == "exe" else SHIM
    return windows_path(os.path.join(folder, "codex." + request.param))


@pytest.fixture
def bench(bench: Any, wine: None, codex: str, tmp_path: Any) -> Iterator[Any]:
    bench.env = {**environment(), **bench.env}
    bench.env.update(
        CODEX_BIN=codex,
        CODEX_HOME=windows_path(bench.home),
        CODEX_MCP_CWD=windows_path(bench.work),
        FAKE_CODEX_DIR=windows_path(bench.notes),
        WINEPATH=windows_path(os.path.join(SHIM, "bin")),
    )
    command = {"python": "wine", "program": PYTHON, "arguments": [windows_path(PROGRAM)]}
    bench.command = ["wine", PYTHON, windows_path(PROGRAM)]
    bench.start = functools.partial(bench.start, **command)
    #: The processes of this test, without the server.
    bench.alive = functools.partial(alive, windows_path(str(tmp_path)))
    bench.left = functools.partial(remaining, bench.alive)
    yield bench
    for client in bench.clients:
        if client.process.poll() is None:
            client.process.kill()
    for pid in bench.alive():
        try:
            os.kill(pid, 9)
        except ProcessLookupError:
            pass
