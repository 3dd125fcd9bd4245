"""Turns under Wine: what goes to Codex, what comes back, and in which order."""

from __future__ import annotations

import os
from typing import Any

import pytest

from client import session_of, text_of
from tools import PLAN
from wine import LEFT, windows_path


def test_a_session_goes_on_in_the_next_call_and_after_a_restart(bench: Any) -> None:
    client = bench.start()
    first = client.chat("first")
    assert "You sent 0 messages" in text_of(first)
    session = session_of(first)
    assert "You sent 1 messages" in text_of(client.chat("second", session_id=session))
    assert client.close() in LEFT
    assert "You sent 2 messages" in text_of(bench.start().chat("third", session_id=session))


def test_a_guard_is_read_only_and_gives_its_verdict(bench: Any) -> None:
    result = bench.start().call(
        PLAN,
        {
            "requirements": "this",
            "plan": "FAKE:session\nFAKE:started\nFAKE:say GO: all good\nFAKE:completed",
        },
    )
    assert result["structuredContent"]["verdict"] == "go"
    argv = bench.calls()[-1]["argv"]
    assert argv[argv.index("-s") + 1] == "read-only"
    assert 'default_permissions=":read-only"' in argv


@pytest.mark.parametrize(
    "text", ["x" * 1_000_000, 'äöü 你好 😀 "quotes" %PATH% & ^ | <> !\n' * 500]
)
def test_a_prompt_reaches_codex_as_it_is(bench: Any, text: str) -> None:
    client = bench.start()
    assert "You sent 0 messages" in text_of(client.chat(text))
    assert bench.calls()[-1]["prompt"].split("\n", 1)[1] == text


@pytest.mark.parametrize("name", ["with space", "äöü 你好", "100 % & co (^)"])
def test_a_directory_works_or_is_refused_in_words(bench: Any, codex: str, name: str) -> None:
    folder = os.path.join(bench.work, name)
    os.mkdir(folder)
    result = bench.start().chat("there", cwd=windows_path(folder))
    if codex.endswith(".cmd") and "&" in name:
        assert result["isError"] and "cannot be given" in text_of(result)
        assert bench.calls() == []
    else:
        session_of(result)
        argv = bench.calls()[-1]["argv"]
        assert argv[argv.index("-C") + 1] == windows_path(folder)


def test_model_and_effort_reach_codex(bench: Any) -> None:
    session_of(bench.start().chat("hello", model="a-model", reasoning_effort="high"))
    argv = bench.calls()[-1]["argv"]
    assert argv[argv.index("-m") + 1] == "a-model" and 'model_reasoning_effort="high"' in argv


def test_calls_on_one_session_run_in_order(bench: Any) -> None:
    client = bench.start()
    session = session_of(client.chat("first"))
    gate = client.start_call(
        "codex_chat",
        {
            "prompt": "FAKE:session\nFAKE:gate one\nFAKE:started\nFAKE:say one\nFAKE:completed",
            "session_id": session,
        },
    )
    bench.reached("one")
    later = [
        client.start_call("codex_chat", {"prompt": f"number {n}", "session_id": session})
        for n in range(3)
    ]
    bench.open("one")
    for id in [gate, *later]:
        session_of(client.result(id))
    assert [call["prompt"][-1] for call in bench.calls()[-3:]] == ["0", "1", "2"]


def test_two_servers_take_turns_on_one_session(bench: Any) -> None:
    one, other = bench.start(), bench.start()
    session = session_of(one.chat("first"))
    held = one.start_call(
        "codex_chat",
        {
            "prompt": "FAKE:session\nFAKE:gate held\nFAKE:started\nFAKE:say one\nFAKE:completed",
            "session_id": session,
        },
    )
    bench.reached("held")
    waiting = other.start_call("codex_chat", {"prompt": "second", "session_id": session}, token="t")
    other.wait_for(
        lambda: any("another server" in p["message"] for p in other.progress("t")), "the wait"
    )
    assert len(bench.calls()) == 2
    bench.open("held")
    session_of(one.result(held))
    session_of(other.result(waiting))


def test_large_output_of_codex_is_read(bench: Any) -> None:
    steps = ["session", "started", "stderr-flood 2", "outputs 5000", "say done", "completed"]
    result = bench.start().chat("\n".join("FAKE:" + step for step in steps))
    assert "done" in text_of(result)


@pytest.mark.parametrize(
    "steps, words",
    [
        (["exit 3"], "exit code 3"),
        (["stderr Error: broken", "exit 1"], "broken"),
        (["session", "started", "exit 1"], "could not finish"),
        (["session", "started", "raw no json", "error bad", "failed worse"], "worse"),
        (["session", "started", "completed"], "without a message"),
    ],
)
def test_a_codex_that_fails_is_told_in_words(bench: Any, steps: Any, words: str) -> None:
    result = bench.start().chat("\n".join("FAKE:" + step for step in steps))
    assert result["isError"] and words in text_of(result)


def test_a_codex_that_reads_no_prompt_ends_the_turn(bench: Any) -> None:
    env = {"FAKE_CODEX_DO": "FAKE:session\nFAKE:started\nFAKE:say unread\nFAKE:completed"}
    result = bench.start(env=env).chat("x" * 900_000)
    assert "unread" in text_of(result)


def test_the_codex_inside_is_recognised_though_its_environment_is_stripped(bench: Any) -> None:
    from client import PROGRAM

    steps = f"FAKE:session\nFAKE:started\nFAKE:mcp-child {windows_path(PROGRAM)}\nFAKE:completed"
    assert "You are the Codex" in text_of(bench.start().chat(steps))
