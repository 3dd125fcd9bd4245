"""The server as the real MCP Python SDKs see it: sessions opened, continued, cancelled."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from client import PROGRAM
from install import venv_python
from real import Real, wait
from tools import CHAT, TOOLS

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sdk_client.py")


@pytest.mark.parametrize(
    "sdk, mode, revision",
    [
        ("mcp-1", "legacy", "2025-11-25"),
        ("mcp-2", "auto", "2026-07-28"),
        ("mcp-2", "legacy", "2025-11-25"),
        ("mcp-2", "2026-07-28", "2026-07-28"),
    ],
)
def test_a_conversation_through_the_python_sdk(
    newest: Real, sdk: str, mode: str, revision: str
) -> None:
    python = venv_python(sdk)
    assert os.path.exists(python), f"{python} is missing; run `python tests/e2e/install.py`"
    env = {name: value for name, value in newest.env.items() if value}
    order = {
        "mode": mode,
        "command": sys.executable,
        "args": [PROGRAM],
        "env": env,
        "chat": CHAT,
        "goes_on": sdk != "mcp-1",
    }
    run = subprocess.run(
        [python, SCRIPT, json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr.decode("utf-8", "replace")[-3000:]
    told = json.loads(run.stdout)
    assert told["revision"] == revision
    assert told["tools"] == list(TOOLS)
    first, second, error = told["first"], told["second"], told["error"]
    session = first["structuredContent"]["session_id"]
    assert first["structuredContent"]["reply"] == "First."
    assert any(session in message for message in told["progress"]), told["progress"]
    assert any(
        message.startswith("Running ") and "sleep 2" in message for message in told["progress"]
    )
    assert second["structuredContent"]["reply"] == "Second."
    assert second["structuredContent"]["session_id"] == session
    assert (
        error["isError"]
        and '"prompt"' in error["content"][0]["text"]
        and "structuredContent" not in error
    )
    assert told["cancelled"]
    if order["goes_on"]:
        assert told["third"]["structuredContent"]["reply"] == "Third."
        assert "sleep 303" in newest.heard()
    wait(lambda: not newest.processes(), lambda: f"end of {[p[:5] for p in newest.processes()]}", 3)
