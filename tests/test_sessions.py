"""Who may use a session now: one call at a time, in order of arrival, and between servers."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import Any, Dict, List, Optional

import pytest

import fake_store as store
from client import Client, session_of, text_of
from tools import CHAT

both = pytest.mark.parametrize("version", ["0.77.0", "0.169.0"])
LOCK = "codex-persistent-mcp.lock"


def turn(name: str, *lines: str) -> str:
    """A turn that leaves marks where it begins and where it ends, with `lines` between them."""
    return "\n".join(
        ["FAKE:session", "FAKE:started", "FAKE:mark begin " + name]
        + ["FAKE:" + line for line in lines]
        + ["FAKE:mark end " + name, "FAKE:say done " + name, "FAKE:completed"]
    )


def marks(bench: Any) -> List[str]:
    path = os.path.join(bench.notes, "marks")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def order(bench: Any) -> List[str]:
    """The names of the turns in the order in which they began; fails if two were open at a time."""
    names, lines = [], marks(bench)
    for begin, end in zip(lines[::2], lines[1::2]):
        assert begin.split()[0] == "begin" and end == begin.replace("begin", "end"), (
            f"interleaved: {lines!r}"
        )
        names.append(begin.split()[1])
    assert len(lines) == 2 * len(names)
    return names


def call(server: Client, prompt: str, session: Optional[str] = None, **more: Any) -> Any:
    arguments: Dict[str, Any] = dict(more, prompt=prompt)
    if session:
        arguments["session_id"] = session
    return server.start_call(CHAT, arguments, token="progress")


def told(server: Client, words: str) -> bool:
    return any(
        words in str(m.get("params", {}).get("message"))
        for m in server.messages
        if isinstance(m, dict)
    )


def spoken(server: Client, words: str) -> None:
    """Waits until a progress message has `words`."""
    server.wait_for(lambda: told(server, words), f"progress {words!r}")


# -- in one server ---------------------------------------------------------------------------------


@both
def test_calls_on_one_session_run_in_the_order_of_arrival_one_at_a_time(
    bench: Any, version: str
) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": version})
    session = session_of(server.chat("open"))
    ids = [call(server, turn(str(index)), session) for index in range(12)]
    for id in ids:
        assert not server.result(id).get("isError")
    assert order(bench) == [str(index) for index in range(12)]


def test_capitals_do_not_make_it_another_session(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    first = call(server, turn("lower", "gate hold"), session)
    bench.reached("hold")
    second = call(server, turn("upper"), session.upper())
    spoken(server, "Waiting for")
    bench.open("hold")
    assert session_of(server.result(first)) == session_of(server.result(second)) == session
    assert order(bench) == ["lower", "upper"]


def test_other_sessions_and_new_ones_run_beside(bench: Any) -> None:
    server = bench.start()
    one, other = session_of(server.chat("open")), session_of(server.chat("open"))
    held = call(server, turn("held", "gate hold"), one)
    bench.reached("hold")
    assert not server.chat(turn("other"), session_id=other).get("isError")
    assert not server.chat(turn("new")).get("isError")
    assert marks(bench)[0] == "begin held" and "end held" not in marks(bench)
    bench.open("hold")
    assert not server.result(held).get("isError")


def test_at_most_the_configured_number_of_codex_processes_runs(bench: Any) -> None:
    server = bench.start(env={"CODEX_MCP_MAX_PARALLEL": "2"})
    ids = [call(server, turn(str(index), f"gate {index}")) for index in range(5)]
    bench.wait(lambda: len(marks(bench)) == 2, "two that run")
    server.wait_for(
        lambda: sum("CODEX_MCP_MAX_PARALLEL" in str(m) for m in server.messages) >= 3,
        "three that wait",
    )
    assert len(bench.calls()) == 2
    for index in range(5):
        bench.open(str(index))
    assert not any(server.result(id).get("isError") for id in ids)
    running = 0
    for line in marks(bench):
        running += 1 if line.startswith("begin") else -1
        assert running <= 2


def test_a_call_that_waits_for_its_session_takes_no_codex_process_from_others(bench: Any) -> None:
    server = bench.start(env={"CODEX_MCP_MAX_PARALLEL": "2"})
    session = session_of(server.chat("open"))
    held = call(server, turn("held", "gate hold"), session)
    bench.reached("hold")
    waiting = [call(server, turn(f"waiting{index}"), session) for index in range(3)]
    assert not server.chat(turn("new")).get("isError")
    bench.open("hold")
    assert not any(server.result(id).get("isError") for id in [held] + waiting)


def test_a_queued_call_that_is_cancelled_never_runs_and_the_next_one_does(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    held = call(server, turn("held", "gate hold"), session)
    bench.reached("hold")
    dropped, last = call(server, turn("dropped"), session), call(server, turn("last"), session)
    server.notify("notifications/cancelled", {"requestId": dropped})
    server.ask("ping")
    bench.open("hold")
    assert not server.result(held).get("isError") and not server.result(last).get("isError")
    assert order(bench) == ["held", "last"] and server.responses(dropped) == []


def test_a_queued_call_that_times_out_never_runs_and_the_next_one_does(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    held = call(server, turn("held", "gate hold"), session)
    bench.reached("hold")
    late, last = (
        call(server, turn("late"), session, timeout_ms=1000),
        call(server, turn("last"), session),
    )
    assert "earlier call" in text_of(server.result(late))  # it says what it waited for
    bench.open("hold")
    assert not server.result(held).get("isError") and not server.result(last).get("isError")
    assert order(bench) == ["held", "last"]


def test_a_call_on_a_session_whose_opening_call_still_runs_waits_for_it(bench: Any) -> None:
    server = bench.start()
    opening = call(server, turn("opening", "gate hold"))
    bench.reached("hold")
    session = bench.calls()[0]["session"]
    spoken(server, session)  # that is how a caller can know it
    second = call(server, turn("second"), session)
    spoken(server, "Waiting for")
    bench.open("hold")
    assert session_of(server.result(opening)) == session_of(server.result(second)) == session
    assert order(bench) == ["opening", "second"]


def test_a_failed_turn_gives_the_session_on(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    ids = [
        call(server, "FAKE:session\nFAKE:failed no", session),
        call(server, turn("next"), session),
    ]
    assert server.result(ids[0])["isError"] and not server.result(ids[1]).get("isError")


# -- between servers -------------------------------------------------------------------------------


@both
def test_two_servers_take_turns_on_one_session(bench: Any, version: str) -> None:
    env = {"FAKE_CODEX_VERSION": version}
    one, two = bench.start(env=env), bench.start(env=env)
    session = session_of(one.chat("open"))
    calls = [
        (server, call(server, turn(f"{name}{index}", "sleep 0.02"), session))
        for index in range(5)
        for name, server in (("a", one), ("b", two))
    ]
    for server, id in calls:
        assert session_of(server.result(id)) == session  # nobody is refused
    names = order(bench)  # nothing interleaves
    assert [n for n in names if n[0] == "a"] == [f"a{i}" for i in range(5)]
    assert [n for n in names if n[0] == "b"] == [f"b{i}" for i in range(5)]
    assert not "".join(n[0] for n in names).startswith(("aaaaa", "bbbbb"))  # they do take turns
    assert bench.left() == [LOCK]


@both
def test_the_wait_for_another_server_says_what_it_waits_for(bench: Any, version: str) -> None:
    env = {"FAKE_CODEX_VERSION": version}
    one, two = bench.start(env=env), bench.start(env=env)
    session = session_of(one.chat("open"))
    held = call(one, turn("held", "gate hold"), session)
    bench.reached("hold")
    waiting = call(two, turn("waiting"), session)
    spoken(two, "another server")
    late = two.result(call(two, turn("late"), session, timeout_ms=1000))
    assert late["isError"]
    two.notify("notifications/cancelled", {"requestId": waiting})
    alone = bench.start(env=env).chat(turn("alone"), session_id=session, timeout_ms=1000)
    assert "another server" in text_of(alone)
    bench.open("hold")
    assert not one.result(held).get("isError")
    assert not two.chat(turn("after"), session_id=session).get("isError")
    assert order(bench) == ["held", "after"]


@both
def test_a_session_that_another_server_has_just_opened_is_waited_for(
    bench: Any, version: str
) -> None:
    env = {"FAKE_CODEX_VERSION": version}
    one, two = bench.start(env=env), bench.start(env=env)
    opening = call(one, turn("opening", "gate hold"))
    bench.reached("hold")
    session = bench.calls()[0]["session"]
    spoken(one, session)
    second = call(two, turn("second"), session)
    spoken(two, "another server")
    bench.open("hold")
    assert session_of(one.result(opening)) == session_of(two.result(second)) == session
    assert order(bench) == ["opening", "second"]


@both
def test_a_killed_server_frees_its_session(bench: Any, version: str) -> None:
    env = {"FAKE_CODEX_VERSION": version}
    one, two = bench.start(env=env), bench.start(env=env)
    session = session_of(one.chat("open"))
    call(one, turn("held", "stubborn", "gate hold"), session)
    bench.reached("hold")
    waiting = call(two, turn("next"), session)
    spoken(two, "another server")
    one.signal("SIGKILL")
    assert session_of(two.result(waiting, bound=10)) == session


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only there can a lock outlive its server"
)
@both
@pytest.mark.parametrize(
    "opened", [False, True], ids=["the turn opens the session", "the session was there"]
)
def test_the_session_of_a_killed_server_is_free_when_its_codex_is_gone(
    bench: Any, version: str, opened: bool
) -> None:
    env = {"FAKE_CODEX_VERSION": version}
    one, two = bench.start(env=env), bench.start(env=env)
    session = session_of(bench.start(env=env).chat("open")) if opened else None
    call(one, "FAKE:session\nFAKE:started\nFAKE:stubborn\nFAKE:marks held", session)
    bench.wait(lambda: marks(bench), "mark")
    session = bench.calls()[-1]["session"]
    spoken(one, session)  # it has read the id, and so taken the lock
    one.signal("SIGKILL")
    assert session_of(two.result(call(two, turn("next"), session), bound=10)) == session
    assert marks(bench)[-2:] == [
        "begin next",
        "end next",
    ]  # nothing of the killed server's turn after it began
    assert set(marks(bench)[:-2]) == {"held"}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks for open files in /proc (Linux)")
def test_codex_holds_neither_the_locks_nor_the_watcher_s_pipe(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    id = call(server, turn("held", "gate hold"), session)
    bench.reached("hold")
    folder = f"/proc/{bench.calls()[-1]['pid']}/fd"
    files = {name: os.readlink(os.path.join(folder, name)) for name in os.listdir(folder)}
    bench.open("hold")
    assert session_of(server.result(id)) == session
    assert sorted(name for name, file in files.items() if "pipe:" in file) == ["0", "1", "2"], files
    assert not [file for file in files.values() if LOCK in file], files


#: Has fcntl(2) know no locks of open files.
NO_LOCKS_OF_FILES = """\
import errno, fcntl
def unknown(*arguments):
    raise OSError(errno.EINVAL, "Invalid argument")
fcntl.fcntl = unknown
"""


def test_where_locks_belong_to_processes_servers_take_turns_too(bench: Any) -> None:
    env = {"FAKE_CODEX_VERSION": "0.77.0"}
    one, two = bench.start_after(NO_LOCKS_OF_FILES, env=env), bench.start(env=env)
    session = session_of(one.chat("open"))
    held = call(one, turn("held", "gate hold"), session)
    bench.reached("hold")
    waiting = call(two, turn("waiting"), session)
    spoken(two, "another server")
    bench.open("hold")
    assert session_of(one.result(held)) == session_of(two.result(waiting)) == session
    assert order(bench) == ["held", "waiting"]
    one.close()
    assert not [line for line in one.errors if LOCK in line]


def test_other_sessions_do_not_wait_for_another_server(bench: Any) -> None:
    one, two = bench.start(), bench.start()
    session = session_of(one.chat("open"))
    held = call(one, turn("held", "gate hold"), session)
    bench.reached("hold")
    for _ in range(3):
        assert not two.chat("hello", session_id=session_of(two.chat("open"))).get("isError")
    bench.open("hold")
    assert not one.result(held).get("isError")


def test_many_sessions_leave_one_small_file_that_only_its_owner_may_use(bench: Any) -> None:
    server = bench.start()
    for _ in range(4):
        server.chat("again", session_id=session_of(server.chat("open")))
    server.close()
    assert bench.left() == [LOCK]
    state = os.stat(os.path.join(bench.home, LOCK))
    assert (
        stat.S_IMODE(state.st_mode) == 0o600 and state.st_uid == os.getuid() and state.st_size == 0
    )


def test_a_lock_file_of_an_earlier_server_serves_again(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    server.chat("again", session_id=session)
    server.close()
    before = os.stat(os.path.join(bench.home, LOCK)).st_ino
    server = bench.start()
    assert not server.chat("again", session_id=session).get("isError")
    server.close()
    assert os.stat(os.path.join(bench.home, LOCK)).st_ino == before
    assert not [line for line in server.errors if "lock" in line]


def test_where_no_lock_can_be_made_the_server_says_so_once_and_goes_on(bench: Any) -> None:
    os.mkdir(os.path.join(bench.home, LOCK))
    server = bench.start()
    session = session_of(server.chat("open"))
    for _ in range(3):
        assert not server.chat("again", session_id=session).get("isError")
    ids = [call(server, turn(str(index)), session) for index in range(3)]
    assert not any(server.result(id).get("isError") for id in ids)
    assert order(bench) == ["0", "1", "2"]  # in this server they still wait for each other
    server.close()
    assert len([line for line in server.errors if LOCK in line]) == 1


def test_a_codex_home_that_is_not_there_stops_no_call(bench: Any) -> None:
    missing = os.path.join(bench.home, "not", "yet")
    server = bench.start(env={"CODEX_HOME": missing})
    first = server.chat("open")  # the codex makes its home itself
    assert not server.chat("again", session_id=session_of(first)).get("isError")
    server.close()
    assert len([line for line in server.errors if LOCK in line]) <= 1


def test_a_link_planted_in_the_lock_s_place_is_not_followed(bench: Any) -> None:
    target = os.path.join(bench.work, "precious")
    os.symlink(target, os.path.join(bench.home, LOCK))
    server = bench.start()
    session = session_of(server.chat("open"))
    assert not server.chat("again", session_id=session).get("isError")
    assert not os.path.exists(target)
    server.close()
    assert len([line for line in server.errors if LOCK in line]) == 1


def test_a_fifo_in_the_lock_s_place_does_not_hang_the_call(bench: Any) -> None:
    os.mkfifo(os.path.join(bench.home, LOCK))
    server = bench.start()
    session = session_of(server.chat("open"))
    assert not server.chat("again", session_id=session).get("isError")


# -- open elsewhere --------------------------------------------------------------------------------


def held_open(bench: Any, session: str) -> Any:
    """Holds the writer lock of a session, as `codex resume` in a terminal does."""
    lock = store.hold(bench.home, session)
    assert lock, "the session is held already"
    return lock


def test_a_session_open_elsewhere_is_tried_again_until_it_is_free(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    holder = held_open(bench, session)
    waiting = call(server, "hello", session)
    spoken(server, "open elsewhere")
    bench.wait(lambda: len(bench.calls()) >= 3, "second try")
    holder.close()
    result = server.result(waiting)
    assert session_of(result) == session
    assert (
        "You sent 1 messages before" in result["structuredContent"]["reply"]
    )  # one turn, of the three tries


def test_a_session_that_stays_open_elsewhere_is_a_plain_failure_and_never_a_new_session(
    bench: Any,
) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    holder = held_open(bench, session)
    began = time.monotonic()
    result = server.chat("hello", session_id=session, timeout_ms=4000)
    assert 3 < time.monotonic() - began < 20
    text = text_of(result)
    assert (
        result["isError"]
        and "open elsewhere" in text
        and "codex resume" in text
        and session in text
    )
    assert "Stack backtrace" not in text and "code -32600" not in text
    tries = bench.calls()[1:]
    assert 2 <= len(tries) <= 6  # the pauses grow
    assert all(one["argv"][-3:] == ["resume", session, "-"] for one in tries)
    holder.close()
    assert session_of(server.chat("hello", session_id=session)) == session


def test_a_cancel_ends_the_wait_for_a_session_open_elsewhere(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    holder = held_open(bench, session)
    waiting = call(server, "hello", session)
    spoken(server, "open elsewhere")
    server.notify("notifications/cancelled", {"requestId": waiting})
    server.ask("ping")
    tries = len(bench.calls())
    holder.close()
    assert (
        session_of(server.chat("next", session_id=session)) == session
    )  # the place in line was given back
    assert server.responses(waiting) == [] and len(bench.calls()) <= tries + 2
