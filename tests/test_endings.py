"""However a call or the server ends, nothing Codex started is left, and the session goes on."""

from __future__ import annotations

import os
import time
from typing import Any, Callable, Dict, List, Tuple

import pytest

from client import PROGRAM, Client, remaining, session_of, text_of
from tools import CHAT, TOOLS

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc (Linux)"
)

#: Seconds in which a run's processes must be gone, and the server; slack for a busy machine.
GONE, LEFT = 2.0 + 1.0, 0.5 + 1.0

#: A Codex in the middle of a turn, with a child that holds its output; it leaves when asked to.
TURN = (
    "FAKE:session",
    "FAKE:started",
    "FAKE:grandchild",
    "FAKE:gate busy",
    "FAKE:say never",
    "FAKE:completed",
)
#: The same, but neither it nor its child cares for SIGINT, SIGTERM and SIGHUP.
STUBBORN = TURN[:2] + ("FAKE:stubborn",) + TURN[2:]


def processes(bench: Any) -> List[int]:
    """Every process with this test's notes in its environment: server, Codex, all they started."""
    mark = (f"FAKE_CODEX_DIR={bench.notes}\0").encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read():
                        found.append(int(name))
            except OSError:
                pass  # it has gone meanwhile, or is a zombie
    return found


def begin(bench: Any, server: Client, lines: Tuple[str, ...], **more: Any) -> Tuple[Any, str]:
    """Starts a call that stands in the middle of its turn; gives its id and the session's."""
    id = server.start_call(CHAT, dict(more, prompt="\n".join(("work",) + lines)))
    bench.reached("busy")
    # Server, watcher, codex, its child, else the test would see nothing. A new one may not show
    # yet.
    bench.wait(lambda: len(processes(bench)) >= 4, "four processes")
    return id, bench.calls()[-1]["session"]


def nothing_left(bench: Any, server: Client, since: float, also: float = 0.0) -> None:
    """Waits until every process but the server is gone, at most GONE seconds after `since`."""

    def others() -> List[int]:
        return [pid for pid in processes(bench) if pid != server.process.pid]

    assert remaining(others, since + GONE + also) == []


def eof(server: Client) -> None:
    server.process.stdin.close()


def sigint_sigterm(server: Client) -> None:
    server.signal("SIGINT")
    time.sleep(0.1)
    server.signal("SIGTERM")


def eof_sigterm_sigkill(server: Client) -> None:
    server.process.stdin.close()
    server.signal("SIGTERM")
    time.sleep(0.04)
    server.signal("SIGKILL")


ENDINGS: Dict[str, Callable[[Client], None]] = {
    "end of input": eof,
    "SIGINT": lambda server: server.signal("SIGINT"),
    "SIGINT, 100 ms, SIGTERM": sigint_sigterm,
    "SIGTERM, input open": lambda server: server.signal("SIGTERM"),
    "SIGHUP": lambda server: server.signal("SIGHUP"),
    "end of input and SIGTERM, 40 ms, SIGKILL": eof_sigterm_sigkill,
    "SIGKILL": lambda server: server.signal("SIGKILL"),
}
POLITE = [name for name in ENDINGS if "SIGKILL" not in name]


@pytest.mark.parametrize(
    "version, lines",
    [("0.77.0", TURN), ("0.169.0", TURN), ("0.169.0", STUBBORN)],
    ids=["0.77.0", "0.169.0", "stubborn codex"],
)
@pytest.mark.parametrize("ending", list(ENDINGS))
def test_nothing_is_left_and_the_session_goes_on(
    bench: Any, ending: str, version: str, lines: Tuple[str, ...]
) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": version})
    _, session = begin(bench, server, lines)
    since = time.monotonic()
    ENDINGS[ending](server)
    server.process.wait(LEFT)
    if "SIGKILL" not in ending:
        assert server.process.returncode == 0
    nothing_left(bench, server, since)
    again = bench.start(env={"FAKE_CODEX_VERSION": version}).chat("go on", session_id=session)
    assert session_of(again) == session


@pytest.mark.parametrize("ending", POLITE)
def test_the_session_knows_that_it_was_interrupted(bench: Any, ending: str) -> None:
    server = bench.start()
    _, session = begin(bench, server, TURN)
    ENDINGS[ending](server)
    server.process.wait(LEFT)
    path = [
        os.path.join(root, name)
        for root, _, names in os.walk(bench.home)
        for name in names
        if session in name and name.startswith("rollout-")
    ]
    with open(path[0], encoding="utf-8") as file:
        assert "turn_aborted" in file.read()


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM, input open", "SIGKILL"])
def test_many_runs_at_once_are_all_gone(bench: Any, ending: str) -> None:
    server = bench.start()
    for index in range(5):
        server.start_call(CHAT, {"prompt": "\n".join(STUBBORN).replace("busy", f"busy{index}")})
    for index in range(5):
        bench.reached(f"busy{index}")
    since = time.monotonic()
    ENDINGS[ending](server)
    server.process.wait(LEFT)
    nothing_left(bench, server, since)


@pytest.mark.parametrize("ending", POLITE)
def test_an_idle_server_leaves_at_once(bench: Any, ending: str) -> None:
    server = bench.start()
    ENDINGS[ending](server)
    assert server.process.wait(LEFT) == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_the_server_starts_ends_it(bench: Any, name: str) -> None:
    for pause in (0.0, 0.01, 0.03, 0.06):
        server = bench.start(handshake=False)
        time.sleep(pause)  # not to wait for anything: only to hit different moments of the start
        server.signal(name)
        server.process.wait(5)
        assert not processes(bench)


def test_a_signal_right_after_the_call_leaves_no_codex(bench: Any) -> None:
    for pause in (0.0, 0.002, 0.005, 0.01, 0.02, 0.04):
        for end in (eof, lambda server: server.signal("SIGTERM")):
            # It does not wait for its prompt: one that does would leave by itself.
            server = bench.start(env={"FAKE_CODEX_DO": "\n".join(STUBBORN[2:])})
            server.start_call(CHAT, {"prompt": "work"})
            time.sleep(pause)  # to hit different moments of the start of Codex
            since = time.monotonic()
            end(server)
            server.process.wait(LEFT)
            nothing_left(bench, server, since)


def breakable(how: str) -> str:
    """Breaks the program when the test asks: in a signal handler, so in the main thread."""
    return f"""\
import ctypes, os, signal, sys
def broken(*_):
    {how}
signal.signal(signal.SIGUSR1, broken)
"""


#: Has the start of Codex, once Codex is there, still take a minute.
SLOW_START = """\
import subprocess, time
start = subprocess.Popen.__init__
def slowly(*arguments, **options):
    start(*arguments, **options)
    time.sleep(60)
subprocess.Popen.__init__ = slowly
"""


@pytest.mark.parametrize("ending", ["end of input", "SIGTERM, input open", "SIGKILL"])
def test_a_codex_that_the_server_does_not_yet_know_of_goes_too(bench: Any, ending: str) -> None:
    server = bench.start_after(SLOW_START, env={"FAKE_CODEX_DO": "\n".join(STUBBORN[2:])})
    id = server.start_call(CHAT, {"prompt": "work"})
    bench.reached("busy")
    bench.wait(lambda: len(processes(bench)) >= 4, "four processes")
    since = time.monotonic()
    ENDINGS[ending](server)
    server.process.wait(LEFT)
    nothing_left(bench, server, since)
    assert server.responses(id) == []


@pytest.mark.parametrize(
    "how",
    [
        "raise RuntimeError('a fault')",
        "raise MemoryError",
        "os.abort()",
        "os.kill(os.getpid(), signal.SIGSEGV)",
        "ctypes.string_at(0)",
        "os._exit(3)",
    ],
)
def test_nothing_is_left_when_the_server_crashes(bench: Any, how: str) -> None:
    server = bench.start_after(breakable(how))
    _, session = begin(bench, server, STUBBORN)
    since = time.monotonic()
    server.signal("SIGUSR1")
    assert server.process.wait(LEFT) != 0
    nothing_left(bench, server, since)
    assert session_of(bench.start().chat("go on", session_id=session)) == session


@pytest.mark.parametrize("lines", [TURN, STUBBORN], ids=["codex that listens", "stubborn codex"])
def test_a_cancel_stops_the_whole_group_and_nothing_more_is_said(
    bench: Any, lines: Tuple[str, ...]
) -> None:
    server = bench.start()
    id, session = begin(bench, server, lines)
    since = time.monotonic()
    server.notify("notifications/cancelled", {"requestId": id, "reason": "the test"})
    nothing_left(bench, server, since, also=2.0)  # it is asked before it is killed
    bench.open("busy")
    assert session_of(server.chat("go on", session_id=session)) == session
    assert server.responses(id) == []


@pytest.mark.parametrize("lines", [TURN, STUBBORN], ids=["codex that listens", "stubborn codex"])
def test_a_timeout_stops_the_whole_group(bench: Any, lines: Tuple[str, ...]) -> None:
    server = bench.start()
    id, session = begin(bench, server, lines, timeout_ms=3000)
    result = server.result(id, bound=3 + GONE + 2)
    assert result["isError"] and bench.resume(session) in text_of(result)
    nothing_left(bench, server, time.monotonic())
    assert session_of(server.chat("go on", session_id=session)) == session


def test_a_good_end_leaves_nothing_in_the_group_either(bench: Any) -> None:
    server = bench.start()
    result = server.chat(
        "\n".join(
            (
                "FAKE:session",
                "FAKE:started",
                "FAKE:stubborn",
                "FAKE:grandchild",
                "FAKE:say ok",
                "FAKE:completed",
            )
        )
    )
    assert not result.get("isError")
    nothing_left(bench, server, time.monotonic())


def test_cancels_at_every_moment_of_a_turn_leave_nothing_and_answer_at_most_once(
    bench: Any,
) -> None:
    server = bench.start()
    ids = []
    for pause in (0.0, 0.001, 0.01, 0.03, 0.06, 0.09, 0.12, 0.15):
        ids.append(server.start_call(CHAT, {"prompt": "hello"}))
        time.sleep(pause)  # to hit different moments
        server.notify("notifications/cancelled", {"requestId": ids[-1]})
    assert not server.chat("last").get("isError")
    nothing_left(bench, server, time.monotonic())
    assert all(len(server.responses(id)) <= 1 for id in ids)


def test_calls_leave_no_children_not_even_dead_ones(bench: Any) -> None:
    server = bench.start()
    for lines in (
        TURN[:2] + ("FAKE:say ok", "FAKE:completed"),
        TURN[:2] + ("FAKE:exit 1",),
        ("FAKE:exit 0",),
    ):
        server.chat("\n".join(lines))
    children = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if int(parent) == server.process.pid:
                    children.append((name, state))
            except OSError:
                pass  # it has gone meanwhile
    assert children == []


@pytest.mark.parametrize("ending", ["SIGKILL", "end of input"])
def test_nothing_is_left_of_a_server_that_inherited_many_open_files(
    bench: Any, ending: str
) -> None:
    filled = []
    for fd in range(3, 16):  # so that the server's own files get numbers that a shell cannot name
        try:
            os.fstat(fd)
        except OSError:
            spare = os.open(os.devnull, os.O_RDONLY)
            if spare != fd:
                os.dup2(spare, fd)
                os.close(spare)
            filled.append(fd)
    try:
        server = bench.start(pass_fds=range(3, 16))
    finally:
        for fd in filled:
            os.close(fd)
    begin(bench, server, STUBBORN)
    since = time.monotonic()
    ENDINGS[ending](server)
    server.process.wait(LEFT)
    nothing_left(bench, server, since)


# -- no way back in --------------------------------------------------------------------------------


def test_a_server_inside_a_codex_of_a_server_refuses_by_its_environment(bench: Any) -> None:
    server = bench.start(env={"CODEX_PERSISTENT_MCP_ACTIVE": "1"})
    result = server.chat("hello")
    assert result["isError"] and "without end" in text_of(result)
    assert bench.calls() == []
    assert list(server.tools()) == list(TOOLS)  # it is there, and says why it does not help


def test_a_server_inside_a_codex_of_a_server_refuses_with_a_stripped_environment(
    bench: Any,
) -> None:
    result = bench.start().chat(
        "\n".join(("FAKE:session", "FAKE:started", "FAKE:mcp-child " + PROGRAM, "FAKE:completed"))
    )
    reply = result["structuredContent"]["reply"]
    assert '"isError":true' in reply.replace(" ", "") and "without end" in reply
    assert len(bench.calls()) == 1


def test_a_server_in_a_codex_that_no_server_started_serves(bench: Any) -> None:
    server = bench.start(start_new_session=True)
    assert not server.chat("hello").get("isError")


def test_the_marker_reaches_codex(bench: Any) -> None:
    bench.start().chat("hello")
    assert bench.calls()[0]["marker"]
