"""How runs end under Wine: nothing is left, nothing held delays an answer, nothing planted runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import Any

import pytest

from client import BOUND, session_of, text_of
from tools import CHAT
from wine import LEFT, PLANTED, SHIM, windows_path

HANGING = "FAKE:session\nFAKE:started\nFAKE:grandchild\nFAKE:gate there\nFAKE:hang"


def nothing_left(bench: Any) -> None:
    assert bench.left(time.monotonic() + BOUND) == []


def test_a_timed_out_turn_is_answered_and_leaves_nothing(bench: Any) -> None:
    client = bench.start()
    result = client.call(
        CHAT, {"prompt": HANGING.replace("FAKE:gate there\n", ""), "timeout_ms": 8000}
    )
    assert result["isError"] and "No answer within 8 s" in text_of(result)
    assert "session_id: " in text_of(result)
    nothing_left(bench)


def test_a_cancelled_turn_leaves_nothing_and_frees_the_session(bench: Any) -> None:
    client = bench.start()
    session = session_of(client.chat("first"))
    id = client.start_call(CHAT, {"prompt": HANGING, "session_id": session})
    bench.reached("there")
    client.notify("notifications/cancelled", {"requestId": id})
    assert "You sent" in text_of(client.chat("next", session_id=session))
    nothing_left(bench)
    assert client.responses(id) == []


def test_the_end_of_input_leaves_nothing(bench: Any) -> None:
    client = bench.start()
    client.start_call(CHAT, {"prompt": HANGING})
    bench.reached("there")
    assert client.close() in LEFT
    nothing_left(bench)


def test_a_killed_server_leaves_nothing(bench: Any) -> None:
    client = bench.start()
    client.start_call(CHAT, {"prompt": HANGING})
    bench.reached("there")
    client.process.kill()
    nothing_left(bench)


def test_the_session_of_a_killed_server_is_free_when_its_codex_is_gone(bench: Any) -> None:
    client, other = bench.start(), bench.start()
    session = session_of(client.chat("first"))
    steps = "FAKE:session\nFAKE:started\nFAKE:gate there\nFAKE:marks old"
    client.start_call(CHAT, {"prompt": steps, "session_id": session})
    bench.reached("there")
    waiting = other.start_call(
        CHAT,
        {
            "prompt": "FAKE:session\nFAKE:mark new\nFAKE:started\nFAKE:say in\nFAKE:completed",
            "session_id": session,
        },
        token="t",
    )
    other.wait_for(
        lambda: any("another server" in p["message"] for p in other.progress("t")), "the wait"
    )
    bench.open("there")
    marks = os.path.join(bench.notes, "marks")
    bench.wait(lambda: os.path.exists(marks), "work of the old Codex")
    client.process.kill()
    assert "in" in text_of(other.result(waiting))
    with open(marks) as file:
        lines = file.read().split()
    assert lines.count("new") == 1 and lines[-1] == "new"


@pytest.mark.parametrize("where", ["", " detached"])
def test_what_a_good_turn_leaves_may_stay_and_delays_nothing(bench: Any, where: str) -> None:
    client = bench.start()
    steps = f"FAKE:session\nFAKE:started\nFAKE:grandchild{where}\nFAKE:say done\nFAKE:completed"
    for _ in range(2):  # the second is not disturbed by the first
        assert "done" in text_of(client.chat(steps))
    client.process.stdin.close()  # Wine's processes share the server's stderr, so it stays open
    assert client.process.wait(BOUND) in LEFT
    left = bench.alive()
    assert len(left) == 2, left


def test_a_codex_that_stays_after_its_answer_is_ended(bench: Any) -> None:
    client = bench.start()
    steps = "FAKE:session\nFAKE:started\nFAKE:say done\nFAKE:completed\nFAKE:hang"
    assert "done" in text_of(client.chat(steps))
    nothing_left(bench)


def test_a_turn_of_another_session_is_stopped(bench: Any) -> None:
    client = bench.start()
    session = session_of(client.chat("first"))
    steps = "FAKE:grandchild\nFAKE:session 00000000-0000-4000-8000-000000000000\nFAKE:hang"
    result = client.chat(steps, session_id=session)
    assert result["isError"] and "does not know the session" in text_of(result)
    nothing_left(bench)


def test_many_turns_leave_no_handles_behind(bench: Any) -> None:
    client = bench.start()

    def handles() -> int:
        return len(os.listdir(f"/proc/{client.process.pid}/fd"))

    steps = "FAKE:session\nFAKE:started\nFAKE:say done\nFAKE:completed"
    session_of(client.chat(steps))
    before = handles()
    for _ in range(4):
        session_of(client.chat(steps))
    bench.wait(lambda: handles() <= before + 1, "end of the turns' handles")


def test_a_log_that_nobody_reads_holds_up_nothing(bench: Any) -> None:
    # Not a test client's, which reads.
    env = dict(os.environ, **bench.env)
    process = subprocess.Popen(
        bench.command,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        call = {
            "jsonrpc": "2.0",
            "method": "tools/call",
            "params": {"name": CHAT, "arguments": {"prompt": "p", "cwd": "Z:\\" + "no" * 200}},
        }
        for number in range(1500):  # each makes a line of the log; a pipe holds 64 KiB
            process.stdin.write(json.dumps(dict(call, id=number)).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] is not None
        workers = f"/proc/{process.pid}/task"
        bench.wait(lambda: len(os.listdir(workers)) < 30, "end of the calls' workers")
        process.stdin.close()
        assert process.wait(BOUND) in LEFT
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_what_is_planted_in_the_working_directory_is_not_run(bench: Any, codex: str) -> None:
    project = os.path.join(bench.work, "project")
    os.mkdir(project)
    for planted in ("codex.exe", "node.exe", "taskkill.exe", "cmd.exe"):
        shutil.copy(PLANTED, os.path.join(project, planted))
    with open(os.path.join(project, "codex.cmd"), "w", newline="\r\n") as file:
        file.write("@echo off\necho codex.cmd> %~dp0executed\n")
    path = ".;" + windows_path(os.path.dirname(codex[2:].replace("\\", "/"))) + ";"
    env = {
        "CODEX_BIN": "codex",
        "CODEX_MCP_CWD": windows_path(project),
        "WINEPATH": path + windows_path(os.path.join(SHIM, "bin")),
    }
    client = bench.start(env=env, cwd=project)
    assert "You sent 0" in text_of(client.chat("hello", sandbox="read-only"))
    id = client.start_call(CHAT, {"prompt": HANGING})
    bench.reached("there")
    client.notify("notifications/cancelled", {"requestId": id})
    nothing_left(bench)
    assert not os.path.exists(os.path.join(project, "executed"))


@pytest.mark.parametrize("name", ["with space", "a & b", "a^b", "%OS%", "日本 ü"])
def test_codex_works_in_any_folder_or_is_refused_in_words(
    bench: Any, codex: str, name: str
) -> None:
    folder = os.path.join(bench.work, name)
    shutil.copytree(os.path.dirname(codex[2:].replace("\\", "/")), folder)
    first = os.path.join(bench.work, name.split(" &")[0])
    if not os.path.exists(first):
        shutil.copy(PLANTED, first + ".exe")  # what cmd.exe would run
    env = {"CODEX_BIN": windows_path(os.path.join(folder, codex.rpartition("\\")[2]))}
    result = bench.start(env=env).chat("hello", sandbox="read-only")
    if codex.endswith(".cmd") and any(sign in name for sign in "&^%"):
        assert result["isError"] and "cannot be given" in text_of(result)
    else:
        session_of(result)
    assert not os.path.exists(os.path.join(bench.work, "executed"))
