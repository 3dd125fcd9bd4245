"""Calls on the real Codex: the model gets what the user asks for, and its words come back."""

from __future__ import annotations

import os
import uuid

import pytest

from client import session_of, text_of
from real import Real, wait
from tools import CHAT, FINAL, PLAN, TOOLS


def test_a_chat_is_answered_with_its_session_and_the_model_gets_the_prompt(real: Real) -> None:
    result = real.start().chat("Name a colour.\nMODEL:SAY Blue.")
    session = session_of(result)
    assert result["structuredContent"]["reply"] == "Blue."
    assert result["structuredContent"]["resume_command"] == real.resume(session)
    assert "Name a colour." in real.heard()
    assert [session in path for path in real.rollouts()] == [True]


def test_a_session_keeps_its_context_also_after_a_restart_of_the_server(real: Real) -> None:
    client = real.start()
    session = session_of(client.chat("My cat is called Pomponius.\nMODEL:SAY A fine name."))
    second = client.chat("Second.\nMODEL:SAY Two.", session_id=session)
    client.close()
    third = real.start().chat("Third.", session_id=session)
    assert [session_of(second), session_of(third)] == [session, session]
    heard = real.heard()
    for text in ("Pomponius", "A fine name.", "Second.", "Two.", "Third."):
        assert text in heard
    assert len(real.rollouts()) == 1


@pytest.mark.parametrize(
    "tool, arguments",
    [
        (
            PLAN,
            {
                "requirements": "Keep the crown safe.",
                "plan": "Lock it up.",
                "constraints": "No noise.",
            },
        ),
        (
            FINAL,
            {
                "change_summary": "Keep the crown safe.",
                "test_results": "Lock it up.",
                "open_questions": "No noise.",
            },
        ),
    ],
)
def test_a_guard_reviews_and_can_not_write(real: Real, tool: str, arguments: dict) -> None:
    first = next(iter(arguments))
    order = "\nMODEL:RUN touch written; echo touched\nMODEL:SAY GO"
    client = real.start()
    # First the counterpart, so that the guard's empty directory means something.
    client.chat("Write.\nMODEL:RUN touch by-chat; echo touched", sandbox="workspace-write")
    assert "touched" in real.outputs()[-1]
    result = client.call(tool, dict(arguments, **{first: arguments[first] + order}))
    assert result["structuredContent"][TOOLS[tool].text] == "GO"
    assert "touched" in real.outputs()[-1]
    heard = real.heard()
    assert [text in heard for text in ("Keep the crown safe.", "Lock it up.", "No noise.")] == [
        True
    ] * 3
    mode = "<sandbox_mode>read-only</sandbox_mode>" if real.old else "`sandbox_mode` is `read-only`"
    assert mode in heard
    assert os.listdir(real.work) == ["by-chat"]


def test_a_guard_can_not_write_in_a_session_that_could(real: Real) -> None:
    client = real.start()
    session = session_of(
        client.chat("Write.\nMODEL:RUN touch by-chat; echo touched", sandbox="workspace-write")
    )
    client.call(
        FINAL,
        {"change_summary": "Done.\nMODEL:RUN touch by-guard; echo touched", "session_id": session},
    )
    assert "touched" in real.outputs()[-1]
    assert os.listdir(real.work) == ["by-chat"]


def test_an_overridden_model_and_effort_hold_for_one_call(real: Real) -> None:
    client = real.start()

    def seen() -> tuple:
        request = real.last_request()
        return request["model"], (request.get("reasoning") or {}).get("effort")

    session = session_of(client.chat("One.", model="gpt-5", reasoning_effort="high"))
    assert seen() == ("gpt-5", "high")
    client.chat("Two.", session_id=session)
    assert seen() == ("mock-model", None)
    client.chat("Three.", session_id=session, model="gpt-5", reasoning_effort="low")
    assert seen() == ("gpt-5", "low")
    client.chat("Four.")
    assert seen() == ("mock-model", None)


@pytest.mark.parametrize("status, words", [(500, "high demand"), (400, "the model is on strike")])
def test_a_failing_model_is_told_in_words_and_the_session_lives(
    real: Real, status: int, words: str
) -> None:
    client = real.start()
    session = session_of(client.chat("Begin."))
    result = client.chat(f"MODEL:FAIL {status}", session_id=session)
    text = text_of(result)
    assert result["isError"] and words in text and real.resume(session) in text, text
    assert '{"' not in text and "backtrace" not in text.lower(), text
    assert session_of(client.chat("Go on.", session_id=session)) == session


def test_an_unknown_session_is_refused_and_costs_no_turn(real: Real) -> None:
    client = real.start()
    client.chat("So that the model has been asked once.")
    for _ in range(
        20 if real.old else 3
    ):  # 0.77.0 begins a new session, and must be stopped in time
        unknown = str(uuid.uuid4())
        result = client.chat("Nobody must hear this.", session_id=unknown)
        text = text_of(result)
        assert result["isError"] and unknown in text and "session" in text, text
        assert "backtrace" not in text.lower() and "codex resume" not in text, text
    assert len(real.model.requests) == 1


def test_a_prompt_of_one_megabyte_arrives_whole(real: Real) -> None:
    prompt = "word " * 199_990 + "and the last word."
    result = real.start().chat(prompt + "\nMODEL:SAY Long.")
    assert not result.get("isError"), text_of(result)
    assert prompt in real.heard()


def test_a_prompt_over_the_limit_of_codex_fails_in_words(newest: Real) -> None:
    text = text_of(newest.start().chat("x" * (1 << 20)))
    assert "maximum length of 1048576 characters" in text and "shorter" in text, text


def test_a_timeout_during_a_command_leaves_nothing_running_and_the_session_goes_on(
    real: Real,
) -> None:
    client = real.start()
    before = [process.pid for process in real.processes()]
    call = client.start_call(CHAT, {"prompt": "MODEL:RUN sleep 301", "timeout_ms": 4000})
    wait(lambda: [p for p in real.processes() if p.command == "sleep 301"], "sleep of Codex")
    result = client.result(call)
    text = text_of(result)
    assert result["isError"] and "4 s" in text and "sleep 301" in text, text
    assert [p for p in real.processes() if p.pid not in before] == []
    session = text.split("session_id: ")[1].split()[0]
    assert session_of(client.chat("Go on.", session_id=session)) == session
    assert "sleep 301" in real.heard()


def test_two_servers_on_one_session_take_turns(real: Real) -> None:
    clients = [real.start("left"), real.start("right")]
    session = session_of(clients[0].chat("Begin.\nMODEL:SAY Begun."))
    calls = [
        (
            client,
            client.start_call(
                CHAT,
                {"prompt": f"MODEL:WAIT 0.3\nMODEL:SAY Answer {number}.", "session_id": session},
            ),
        )
        for number, client in enumerate(clients * 3)
    ]
    results = [client.result(call) for client, call in calls]
    assert [(r.get("structuredContent") or r)["reply"] for r in results] == [
        f"Answer {n}." for n in range(6)
    ]
    # Each turn began when the one before it was over: each time the model heard one answer more.
    answers = [
        [i for i in request["input"] if i.get("role") == "assistant"]
        for request in real.model.requests
    ]
    assert [len(each) for each in answers] == list(range(7))
