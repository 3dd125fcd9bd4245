"""Every CPython from 3.8 to 3.13 that this machine has runs the server and holds a conversation."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
from typing import Any, Dict

import pytest

from client import session_of
from tools import FINAL, TOOLS

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")


def interpreters() -> Dict[str, str]:
    """The interpreters found, by version: pyenv's, else the one on PATH."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = {}
    for version in VERSIONS:
        candidates = glob.glob(
            os.path.join(glob.escape(root), "versions", version + ".*", "bin", "python")
        )
        on_path = shutil.which("python" + version)
        for path in sorted(candidates, reverse=True) + ([on_path] if on_path else []):
            if says(path) == "CPython " + version:  # a shim of pyenv may stand for nothing
                found[version] = path
                break
    return found


def says(path: str) -> str:
    """Implementation and version of an interpreter, or "" if it does not run."""
    code = (
        "import platform as p; "
        "print(p.python_implementation(), '.'.join(p.python_version_tuple()[:2]))"
    )
    try:
        run = subprocess.run(
            [path, "-I", "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except OSError:
        return ""
    return run.stdout.decode().strip()


FOUND = interpreters()


def test_at_least_one_python_was_found() -> None:
    assert FOUND, "no CPython from 3.8 to 3.13, neither pyenv's nor on PATH"


@pytest.mark.parametrize("version", list(FOUND))
def test_this_python_holds_a_conversation(bench: Any, version: str) -> None:
    # Warnings are errors, so that nothing deprecated creeps in; none may reach the user's screen.
    client = bench.start(
        python=FOUND[version], env={"PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}
    )
    assert list(client.tools()) == list(TOOLS)
    session = session_of(client.chat("Hello, Codex."))
    result = client.call(FINAL, {"change_summary": "All done.", "session_id": session}, token="t")
    assert "You sent 1 messages before this one." in result["structuredContent"]["review"]
    assert client.progress("t")
    timed_out = client.chat("FAKE:hang", timeout_ms=1000)
    assert timed_out["isError"]
    assert client.close() == 0
    noise = [line for line in client.errors if not line.startswith("codex-persistent-mcp: ")]
    assert not noise
