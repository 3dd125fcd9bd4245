"""How a run is stopped: which signals, in which order, how far apart; and what attempts share."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Dict, List, Tuple

import pytest

from client import Client, session_of, text_of
from tools import CHAT

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc (Linux)"
)

#: A Codex that notes each signal and when it came, and begins with a child that has left its group.
#: Both survive all signals but SIGKILL, unless the child is to clean up: then it leaves on SIGTERM.
NOTING = """\
#!{python}
import json, os, signal, subprocess, sys, time
NOTES = {notes!r}
def note(who, what):
    fd = os.open(os.path.join(NOTES, "signals"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, json.dumps([who, what, time.monotonic()]).encode() + b"\\n")
    os.close(fd)
def listen(who, leave):
    def handler(number, frame):
        note(who, signal.Signals(number).name)
        if leave and number == signal.SIGTERM:
            os.unlink(os.path.join(NOTES, "lock"))
            os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)
    note(who, "ready")
    while True:
        time.sleep(0.01)
if sys.argv[1:] == ["child"]:
    open(os.path.join(NOTES, "lock"), "w").close()
    listen("child", {leave})
sys.stdin.read()
print(json.dumps({{"type": "thread.started", "thread_id": {session!r}}}), flush=True)
print(json.dumps({{"type": "turn.started"}}), flush=True)
subprocess.Popen([{path!r}, "child"], start_new_session=True)
listen("codex", False)
"""
SESSION = "0199a213-81c0-7800-8aa1-bbab2a035a53"


def executable(bench: Any, name: str, text: str) -> str:
    path = os.path.join(bench.work, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)
    return path


def noting(bench: Any, leave: bool) -> Client:
    """A server whose Codex notes its signals."""
    path = os.path.join(bench.work, "codex")
    text = NOTING.format(
        python=sys.executable, notes=bench.notes, leave=leave, session=SESSION, path=path
    )
    return bench.start(env={"CODEX_BIN": executable(bench, "codex", text)})


def noted(bench: Any) -> List[Tuple[str, str, float]]:
    path = os.path.join(bench.notes, "signals")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [tuple(json.loads(line)) for line in file]  # type: ignore[misc]


def ready(bench: Any) -> None:
    bench.wait(lambda: [what for _, what, _ in noted(bench)].count("ready") == 2, "two processes")


def test_the_ladder_is_climbed_in_order_and_without_haste(bench: Any) -> None:
    server = noting(bench, leave=False)
    id = server.start_call(CHAT, {"prompt": "hello", "timeout_ms": 3000})
    ready(bench)
    assert server.result(id)["isError"]
    signals = [one for one in noted(bench) if one[1] != "ready"]
    assert [(who, what) for who, what, _ in signals] == [
        ("child", "SIGTERM"),
        ("codex", "SIGINT"),
        ("codex", "SIGTERM"),
    ]
    times = [at for _, _, at in signals]
    assert times[1] - times[0] >= 0.02  # the sandbox of a command cleans up first
    assert times[2] - times[1] >= 0.8  # Codex has time to note the interruption
    assert time.monotonic() - times[2] >= 0.8  # and to leave, before SIGKILL


ENDINGS: Dict[str, Any] = {
    "timeout": lambda server, id: server.result(id),
    "cancel": lambda server, id: server.notify("notifications/cancelled", {"requestId": id}),
    "end of input": lambda server, id: server.process.stdin.close(),
    "SIGTERM": lambda server, id: server.signal("SIGTERM"),
    "SIGKILL": lambda server, id: server.signal("SIGKILL"),
}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_what_a_stopped_turn_leaves_outside_its_group_can_clean_up(bench: Any, ending: str) -> None:
    server = noting(bench, leave=True)
    id = server.start_call(CHAT, {"prompt": "hello", "timeout_ms": 3000})
    ready(bench)
    assert os.path.exists(os.path.join(bench.notes, "lock"))
    ENDINGS[ending](server, id)
    bench.wait(lambda: not os.path.exists(os.path.join(bench.notes, "lock")), "clean-up")
    signals = [(who, what) for who, what, _ in noted(bench) if what != "ready"]
    assert signals[0] == ("child", "SIGTERM")


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM"])
def test_a_server_that_leaves_gives_a_stubborn_child_a_fifth_of_a_second(
    bench: Any, ending: str
) -> None:
    server = noting(bench, leave=False)
    id = server.start_call(CHAT, {"prompt": "hello"})
    ready(bench)
    ENDINGS[ending](server, id)
    assert server.process.wait(5) == 0
    signals = [one for one in noted(bench) if one[1] != "ready"]
    assert ("codex", "SIGINT") in [one[:2] for one in signals]
    assert time.monotonic() - signals[0][2] >= 0.2  # SIGKILL came no sooner


# -- attempts --------------------------------------------------------------------------------------

#: Refuses the first resume as a Codex whose session is open elsewhere does, but says more.
REFUSES_ONCE = """\
#!/bin/sh
if [ -e {notes}/opened ] && [ ! -e {notes}/refused ]; then
    touch {notes}/refused
    echo 'a line of the first attempt that is no event'
    echo '{{"type":"item.completed","item":{{"id":"0","type":"error","message":"only the first"}}}}'
    echo 'Error: thread {notes} already has an active writer' >&2
    exit 1
fi
touch {notes}/opened
exec {fake} "$@"
"""


def refusing_once(bench: Any) -> Client:
    text = REFUSES_ONCE.format(notes=bench.notes, fake=bench.env["CODEX_BIN"])
    return bench.start(env={"CODEX_BIN": executable(bench, "codex", text)})


def test_nothing_of_a_refused_attempt_shows_in_the_answer(bench: Any) -> None:
    server = refusing_once(bench)
    session = session_of(server.chat("first"))
    result = server.chat("second", session_id=session)
    assert session_of(result) == session and "only the first" not in text_of(result)


def test_nothing_of_a_refused_attempt_shows_in_the_failure(bench: Any) -> None:
    server = refusing_once(bench)
    session = session_of(server.chat("first"))
    text = text_of(server.chat("FAKE:session\nFAKE:started\nFAKE:exit 1", session_id=session))
    assert "gave no reason" in text and "first attempt" not in text


def test_a_timeout_after_a_wait_names_codex_and_not_the_wait(bench: Any) -> None:
    server = bench.start(env={"FAKE_CODEX_DO": ""})
    session = session_of(server.chat("open"))
    held = server.start_call(
        CHAT,
        {
            "prompt": "FAKE:session\nFAKE:started\nFAKE:gate hold\nFAKE:say ok\nFAKE:completed",
            "session_id": session,
        },
    )
    bench.reached("hold")
    late = server.start_call(
        CHAT,
        {"prompt": "FAKE:gate never", "session_id": session, "timeout_ms": 3000},
        token="p",
    )
    server.wait_for(
        lambda: any("earlier call" in one["message"] for one in server.progress("p")), "the wait"
    )
    bench.open("hold")
    bench.reached("never")
    text = text_of(server.result(late))
    assert "last that was seen: Starting Codex" in text and "earlier call" not in text
    assert not server.result(held).get("isError")


# -- one Codex home --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["~/of the user", "here/below", "./here"])
def test_codex_gets_the_codex_home_that_the_server_uses(bench: Any, value: str) -> None:
    home, start = os.path.join(bench.work, "user"), os.path.join(bench.work, "start")
    os.makedirs(home)
    os.makedirs(start)
    used = value.replace("~", home) if "~" in value else os.path.normpath(f"{start}/{value}")
    os.makedirs(used)
    server = bench.start(env={"CODEX_HOME": value, "HOME": home}, cwd=start)
    session = session_of(server.chat("one"))
    assert session_of(server.chat("two", session_id=session)) == session
    assert bench.left(used) == ["codex-persistent-mcp.lock"]
    assert "sessions" in os.listdir(used)
    assert os.listdir(bench.home) == [] and "sessions" not in os.listdir(bench.work)
