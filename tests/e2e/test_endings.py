"""However the server ends during a turn, nothing of the run is left, and the session goes on.

The run is whole: Codex's Node shim, its native binary, and a shell command of its, in the sandbox
(where Codex gives it a POSIX session of its own) and without one.

For a command that may write, the sandbox puts empty folders in the way of some that must not
appear, and takes them away after the command. A sandbox that is killed does not.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any, List, Tuple

import pytest

from client import Client, remaining, session_of
from real import Process, Real, still_there, wait
from tools import CHAT

#: Steps: a signal, "EOF", or seconds to wait.
ENDINGS = {
    "end of input": ["EOF"],
    "SIGINT": ["SIGINT"],
    "SIGHUP": ["SIGHUP"],
    "as Claude Code ends it": ["SIGINT", 0.1, "SIGTERM"],
    "as Codex ends it": ["EOF", "SIGTERM", 0.04, "SIGKILL"],
    "as Gemini CLI ends it": ["SIGTERM"],
    "SIGKILL to the server alone": ["SIGKILL"],
    "a crash of the interpreter": ["SIGSEGV"],
}
#: What the sandbox puts into each folder that a command may write in: Codex 0.169.0.
PLACEHOLDERS = {".agents", ".aws", ".codex", ".git"}
#: Seconds that the issue allows, and what a loaded machine gets on top.
GONE, LEFT, SLACK = 2.0, 0.5, 1.0


def end(client: Client, steps: List[object]) -> None:
    for step in steps:
        if step == "EOF":
            client.process.stdin.close()
        elif isinstance(step, float):
            time.sleep(step)
        elif client.process.poll() is None:
            os.kill(client.process.pid, getattr(signal, str(step)))


def run_with_a_command(
    real: Real, client: Client, sandbox: str, command: str = "sleep 302"
) -> Tuple[Any, List[Process]]:
    """Starts a turn, waits until all sleeps of its command run; returns the request's id and the
    run's processes.
    """
    id = client.start_call(CHAT, {"prompt": "MODEL:RUN " + command, "sandbox": sandbox}, token="t")
    wait(
        lambda: (
            len([p for p in real.processes() if p.command == "sleep 302"]) == command.count("sleep")
        ),
        "command of Codex",
    )
    members = [p for p in real.processes() if p.pid != client.process.pid]
    commands = [p.command for p in members]
    assert any(c.startswith("node ") for c in commands) and any(
        "/vendor/" in c for c in commands
    ), commands
    return id, members


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
@pytest.mark.parametrize("ending", list(ENDINGS))
def test_nothing_of_a_run_is_left(real: Real, ending: str, sandbox: str) -> None:
    client = real.start(env={"CODEX_MCP_SANDBOX": sandbox})
    _, members = run_with_a_command(real, client, sandbox)
    told = " ".join(p["message"] for p in client.progress("t"))
    session = re.search(r"codex resume ([0-9a-f-]{36})", told).group(1)
    steps = ENDINGS[ending]
    begin = time.monotonic()
    end(client, steps)
    client.process.wait(GONE + SLACK)
    left = time.monotonic() - begin
    wait(
        lambda: not still_there(members),
        lambda: f"end of {[p[:5] for p in still_there(members)]}",
        max(0.1, GONE + SLACK - left),
    )
    gone = time.monotonic() - begin
    assert (
        remaining(lambda: [p.pid for p in real.processes()], begin + GONE + SLACK) == []
    )  # nothing new either
    print(f"server left after {left:.2f} s, all gone after {gone:.2f} s")
    assert left < LEFT + SLACK or "SIGKILL" in steps
    answer = real.start().chat("Go on.", session_id=session)
    assert session_of(answer) == session
    assert "sleep 302" in real.heard() and "Go on." in real.heard()


@pytest.mark.parametrize("sandbox", ["workspace-write", "danger-full-access"])
@pytest.mark.parametrize("ending", ["SIGINT", "SIGKILL to the server alone"])
@pytest.mark.parametrize(
    "command",
    ["trap '' HUP INT TERM; sleep 302; true", "nohup sleep 302 >/dev/null 2>&1 & sleep 302"],
)
def test_a_command_that_ignores_signals_goes_too(
    real: Real, command: str, ending: str, sandbox: str
) -> None:
    client = real.start(env={"CODEX_MCP_SANDBOX": sandbox})
    _, members = run_with_a_command(real, client, sandbox, command)
    end(client, ENDINGS[ending])
    client.process.wait(GONE + SLACK)
    wait(
        lambda: not still_there(members),
        lambda: f"end of {[p[:5] for p in still_there(members)]}",
        GONE + SLACK,
    )


@pytest.mark.parametrize(
    "ending",
    ["cancelled", "end of input", "as Claude Code ends it", "SIGKILL to the server alone"],
)
def test_a_stopped_turn_that_may_write_leaves_no_empty_folders(newest: Real, ending: str) -> None:
    temporary = os.path.join(newest.root, "tmp")  # a folder to write in, too; /tmp is everybody's
    os.mkdir(temporary)
    client = newest.start(env={"TMPDIR": temporary})
    id, members = run_with_a_command(newest, client, "workspace-write")
    folders = [newest.work, temporary]
    for folder in folders:
        assert PLACEHOLDERS <= set(os.listdir(folder)), "with this Codex, the test shows nothing"
    if ending == "cancelled":
        client.notify("notifications/cancelled", {"requestId": id})
    else:
        end(client, ENDINGS[ending])
    wait(
        lambda: not still_there(members),
        lambda: f"end of {[p[:5] for p in still_there(members)]}",
        GONE + SLACK,
    )
    left = {folder: PLACEHOLDERS & set(os.listdir(folder)) for folder in folders}
    assert left == dict.fromkeys(folders, set())
