"""What the server finds at its start: odd descriptors, and importable files beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any, List

import pytest

from client import PROGRAM

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


def run(command: List[str], **options: Any) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, **options
    )


@pytest.mark.parametrize("last", range(3, 12))
def test_descriptors_that_the_client_left_open_do_no_harm(last: int) -> None:
    numbers = " ".join(map(str, range(3, last)))
    command = f'for fd in {numbers}; do eval "exec $fd<&2"; done; exec "$0" "$1"'
    done = run(["/bin/bash", "-c", command, sys.executable, PROGRAM], input=PING)
    assert (
        done.returncode == 0 and b'"result":{}' in done.stdout and b"Traceback" not in done.stderr
    )


@pytest.mark.parametrize("redirection", ["<&-", "2>&-"])
def test_a_closed_standard_stream_is_taken_as_its_end(redirection: str) -> None:
    done = run(
        ["/bin/sh", "-c", 'exec "$0" "$1" ' + redirection, sys.executable, PROGRAM], input=PING
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert (b'"result":{}' in done.stdout) == (redirection == "2>&-")


@pytest.mark.parametrize("how", ["as a file", "as pipx runs it"])
def test_nothing_beside_the_file_or_in_the_working_directory_is_imported(
    tmp_path: Any, how: str
) -> None:
    file = str(tmp_path / "codex_persistent_mcp.py")
    shutil.copy(PROGRAM, file)
    (tmp_path / "json.py").write_text("print('planted')\n")
    with open(file, encoding="utf-8") as source:
        command = [file] if how == "as a file" else ["-c", source.read()]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = run([sys.executable, *command, "--version"], cwd=str(tmp_path), env=environment)
    assert done.returncode == 0 and b"planted" not in done.stdout


def test_the_file_itself_can_be_run() -> None:
    done = run([PROGRAM, "--version"])
    assert done.returncode == 0 and done.stdout.startswith(b"codex-persistent-mcp ")
