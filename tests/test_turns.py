"""What a turn of Codex becomes for the caller: every row of the `codex exec --json` table."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any, Dict, List, Optional

import pytest

from client import HERE, PROGRAM, session_of, text_of

sys.path.insert(0, os.path.dirname(PROGRAM))
import codex_persistent_mcp as program  # noqa: E402 (it lies one folder up)
from tools import CHAT

OLD, NEW = "0.77.0", "0.169.0"
both = pytest.mark.parametrize("version", [OLD, NEW])
UNKNOWN = "11111111-1111-4111-8111-111111111111"
NOISE = (
    "Stack backtrace",
    "<unknown>",
    "WARNING:",
    "Reading additional",
    "codex_core",
    '{"',
    '\\"',
)


def start(bench: Any, version: str = NEW, **env: str) -> Any:
    return bench.start(env=dict(env, FAKE_CODEX_VERSION=version))


def steps(*lines: str) -> str:
    return "please\n" + "\n".join("FAKE:" + line for line in lines)


def failed(result: Dict[str, Any], *words: str, session: Optional[str] = None) -> str:
    """The text of a failed call: it must have `words`, no noise, and the session if known."""
    text = text_of(result)
    assert result.get("isError") is True and "structuredContent" not in result, result
    for word in words:
        assert word in text
    for noise in NOISE:
        assert noise not in text
    if session:
        assert " codex resume " + session in text and "session_id: " + session in text
    return text


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def only_session(bench: Any) -> str:
    return bench.calls()[-1]["session"]


# -- good turns ------------------------------------------------------------------------------------


@both
def test_good_turn_gives_reply_session_usage_and_resume_command(bench: Any, version: str) -> None:
    result = start(bench, version).chat("What is 2 + 2?")
    answer = result["structuredContent"]
    assert not result.get("isError")
    assert answer["session_id"] == only_session(bench)
    assert answer["resume_command"] == bench.resume(answer["session_id"])
    assert answer["reply"].endswith("What is 2 + 2?")
    assert answer["usage"] == {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 5}
    first, blank, rest = text_of(result).split("\n", 2)
    assert answer["session_id"] in first and answer["resume_command"] in first
    assert blank == "" and rest.startswith(answer["reply"])


@both
def test_error_item_in_a_good_turn_is_a_warning_and_no_failure(bench: Any, version: str) -> None:
    result = start(bench, version).chat("hello")
    warnings = result["structuredContent"].get("warnings", [])
    assert len(warnings) == (0 if version == OLD else 1)
    if warnings:
        assert "Model metadata for `fake` not found" in warnings[0]
        assert "Model metadata for `fake` not found" in text_of(
            result
        )  # for clients that show only text


@both
def test_usage_is_passed_on_as_codex_reports_it(bench: Any, version: str) -> None:
    server = start(bench, version)
    session = session_of(server.chat("one"))
    usage = server.chat("two", session_id=session)["structuredContent"]["usage"]
    assert usage["input_tokens"] == (
        10 if version == OLD else 20
    )  # that turn's; the whole session's


def test_usage_of_an_unknown_shape_is_passed_on_whole(bench: Any) -> None:
    usage = {"input_tokens": 1, "new_kind": {"deep": [1, 2]}, "cost": 0.25}
    result = start(bench).chat(
        steps(
            "session",
            "started",
            "say done",
            "raw " + json.dumps({"type": "turn.completed", "usage": usage}),
        )
    )
    assert result["structuredContent"]["usage"] == usage


def test_the_last_message_is_the_reply(bench: Any) -> None:
    result = start(bench).chat(
        steps("session", "started", "say I look first.", "command ls", "say It is 4.", "completed")
    )
    assert result["structuredContent"]["reply"] == "It is 4."
    assert text_of(result).endswith("\n\nIt is 4.")


@both
def test_a_resume_knows_the_conversation_also_after_a_restart_of_the_server(
    bench: Any, version: str
) -> None:
    server = start(bench, version)
    session = session_of(server.chat("first"))
    assert (
        "You sent 1 messages before"
        in server.chat("second", session_id=session)["structuredContent"]["reply"]
    )
    server.close()
    again = start(bench, version).chat("third", session_id=session)
    assert session_of(again) == session
    assert "You sent 2 messages before" in again["structuredContent"]["reply"]


@both
def test_an_id_in_capitals_continues_the_session(bench: Any, version: str) -> None:
    server = start(bench, version)
    session = session_of(server.chat("first"))
    assert session_of(server.chat("second", session_id=session.upper())) == session


@both
@pytest.mark.parametrize("count", [200_000, 1_000_000])
def test_a_prompt_of_that_many_characters_arrives_whole(
    bench: Any, version: str, count: int
) -> None:
    prompt = ("0123456789" * (count // 10))[:-4] + "end\u00e9"
    result = start(bench, version).chat(prompt)
    assert result["structuredContent"]["reply"].endswith("end\u00e9")
    assert bench.calls()[0]["prompt"].endswith("\n" + prompt)
    assert not any("0123456789" in argument for argument in bench.calls()[0]["argv"])


# -- failures, each as Codex words it --------------------------------------------------------------


STRIKE = json.dumps({"error": {"message": "the model is on strike", "type": "server_error"}})


@both
@pytest.mark.parametrize(
    "message",
    [
        "the model is on strike",
        STRIKE,
        "unexpected status 400 Bad Request: " + STRIKE,
        json.dumps({"error": {"message": STRIKE}}),
        json.dumps({"detail": "the model is on strike"}),
    ],
)
def test_a_failing_model_is_told_in_its_own_words(bench: Any, version: str, message: str) -> None:
    server = start(bench, version)
    result = server.chat(
        steps("session", "started", "error " + message, "failed " + message, "exit 1")
    )
    text = failed(result, "the model is on strike", session=only_session(bench))
    assert text.count("the model is on strike") == 1 and "server_error" not in text
    assert not server.chat("next", session_id=only_session(bench)).get("isError")


@both
def test_a_failed_turn_that_had_said_something_gives_its_last_message(
    bench: Any, version: str
) -> None:
    result = start(bench, version).chat(
        steps(
            "session",
            "started",
            "say Half of it is done.",
            "say All but one.",
            "failed the model is on strike",
            "exit 1",
        )
    )
    text = failed(result, "the model is on strike", "All but one.", session=only_session(bench))
    assert "Half of it is done." not in text


@both
def test_a_resume_that_fails_names_the_session(bench: Any, version: str) -> None:
    server = start(bench, version)
    session = session_of(server.chat("first"))
    result = server.chat(
        steps("session", "started", "failed the model is on strike", "exit 1"), session_id=session
    )
    failed(result, "the model is on strike", session=session)


def test_an_unknown_session_on_0_77_is_stopped_before_it_spends_a_turn(bench: Any) -> None:
    server = start(bench, OLD)
    result = server.chat(
        steps("session", "started", "gate spend", "mark spent", "say Hi, I am new.", "completed"),
        session_id=UNKNOWN,
    )
    text = failed(result, UNKNOWN, "session_id")
    assert "Hi, I am new" not in text
    assert "codex resume" not in text  # neither session is one to go on with
    assert only_session(bench) not in text
    bench.open("spend")
    pid = bench.calls()[0]["pid"]
    bench.wait(lambda: not alive(pid), "end of the stray codex")
    assert not os.path.exists(os.path.join(bench.notes, "marks"))


def test_an_unknown_session_on_0_77_gives_no_answer_from_a_new_one(bench: Any) -> None:
    failed(start(bench, OLD).chat("hello", session_id=UNKNOWN), UNKNOWN)


def test_an_unknown_session_on_0_169_is_told_with_what_to_do(bench: Any) -> None:
    text = failed(
        start(bench, NEW).chat("hello", session_id=UNKNOWN),
        "no rollout found",
        UNKNOWN,
        "session_id",
    )
    assert "codex resume" not in text


@both
def test_a_bad_effort_is_told_where_codex_refuses_it(bench: Any, version: str) -> None:
    result = start(bench, version).chat("hello", reasoning_effort="huge")
    if version == NEW:
        assert not result.get("isError")
    else:
        failed(result, "unknown variant `huge`", "reasoning_effort", "xhigh")


@both
@pytest.mark.parametrize("code", [0, 1])
def test_a_turn_that_somebody_interrupts_is_a_failure_whatever_the_exit_code(
    bench: Any, version: str, code: int
) -> None:
    server = start(bench, version)
    result = server.chat(steps("session", "started", "say Halfway.", f"exit {code}"))
    failed(result, "Halfway.", session=only_session(bench))
    assert not server.chat("go on", session_id=only_session(bench)).get("isError")


@both
@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_codex_stopped_by_a_signal_from_outside_is_a_failure_and_the_session_goes_on(
    bench: Any, version: str, signal: str
) -> None:
    import signal as signals

    server = start(bench, version)
    id = server.start_call(CHAT, {"prompt": steps("session", "started", "gate busy", "completed")})
    bench.reached("busy")
    session, pid = bench.calls()[0]["session"], bench.calls()[0]["pid"]
    os.killpg(pid, getattr(signals, signal))
    failed(server.result(id), session=session)
    assert session_of(server.chat("go on", session_id=session)) == session


def test_a_completed_turn_without_a_message_is_a_failure(bench: Any) -> None:
    failed(start(bench).chat(steps("session", "started", "completed")), session=only_session(bench))


def test_a_prompt_over_codex_s_own_limit_says_so_and_names_no_session_that_was_not_kept(
    bench: Any,
) -> None:
    result = start(bench, NEW).chat("x" * (1 << 20))
    text = text_of(result)
    assert result["isError"] and "exceeds the maximum length of 1048576 characters" in text
    assert "horter" in text  # what the caller can do
    assert "Stack backtrace" not in text
    assert "codex resume" not in text  # 0.169.0 announces the session but keeps nothing of it


@both
def test_a_directory_that_vanishes_before_the_turn_is_named(bench: Any, version: str) -> None:
    gone = os.path.join(bench.work, "gone")
    os.mkdir(gone)
    server = start(bench, version)
    session = session_of(server.chat("first"))
    first = server.start_call(
        CHAT,
        {
            "prompt": steps("session", "gate hold", "started", "say ok", "completed"),
            "session_id": session,
        },
    )
    bench.reached("hold")
    second = server.start_call(CHAT, {"prompt": "hello", "session_id": session, "cwd": gone})
    server.ask("ping")  # the second is in line
    shutil.rmtree(gone)
    bench.open("hold")
    assert not server.result(first).get("isError")
    text = failed(server.result(second), gone)
    assert "installation" not in text


# -- the working directory -------------------------------------------------------------------------


def directory_of(bench: Any, index: int = -1) -> str:
    argv: List[str] = bench.calls()[index]["argv"]
    return argv[argv.index("-C") + 1]


def spoil_session_files(bench: Any) -> None:
    for root, _, files in os.walk(os.path.join(bench.home, "sessions")):
        for name in files:
            with open(os.path.join(root, name), "w", encoding="utf-8") as file:
                file.write("not JSON\n")


def folder(bench: Any, name: str) -> str:
    path = os.path.join(bench.work, name)
    os.mkdir(path)
    return path


def test_cwd_is_the_call_s_else_the_session_s_own_else_the_configured_one(bench: Any) -> None:
    mine, other = folder(bench, "mine"), folder(bench, "other")
    server = start(bench)
    session = session_of(server.chat("one", cwd=mine))
    assert directory_of(bench) == mine
    server.chat("two", session_id=session)
    assert directory_of(bench) == mine
    server.chat("three", session_id=session, cwd=other)
    assert directory_of(bench) == other
    server.chat("four", session_id=session)
    assert directory_of(bench) == mine
    server.chat("new one")
    assert directory_of(bench) == bench.work


@both
def test_cwd_of_a_session_is_known_after_a_restart(bench: Any, version: str) -> None:
    mine, other = folder(bench, "mine"), folder(bench, "other")
    server = start(bench, version)
    session = session_of(server.chat("one", cwd=mine))
    server.close()
    server = start(bench, version)
    server.chat("two", session_id=session, cwd=other)
    server.chat("three", session_id=session)
    assert directory_of(bench) == mine  # where it was started, not where it was last


def test_the_index_knows_the_directory_when_the_session_file_cannot_be_read(
    bench: Any,
) -> None:
    server, mine = start(bench), folder(bench, "mine")
    session = session_of(server.chat("one", cwd=mine))
    server.close()
    spoil_session_files(bench)
    start(bench).chat(steps("session", "started", "say ok", "completed"), session_id=session)
    assert directory_of(bench) == mine


def test_a_call_that_waits_for_the_opening_one_works_in_its_directory(bench: Any) -> None:
    mine = folder(bench, "mine")
    server = start(bench)
    opening = server.start_call(
        CHAT,
        {"cwd": mine, "prompt": steps("session", "gate hold", "started", "say ok", "completed")},
    )
    bench.reached("hold")
    session = only_session(bench)
    spoil_session_files(bench)  # so that only the server can know it
    second = server.start_call(CHAT, {"prompt": "hello", "session_id": session})
    server.ask("ping")
    bench.open("hold")
    assert not server.result(opening).get("isError")
    server.result(second)
    assert directory_of(bench) == mine


def test_cwd_without_any_setting_is_where_the_server_was_started(bench: Any) -> None:
    here = folder(bench, "here")
    bench.start(env={"CODEX_MCP_CWD": ""}, cwd=here).chat("one")
    assert os.path.realpath(directory_of(bench)) == os.path.realpath(here)


def test_a_cwd_that_is_not_there_is_refused_and_named(bench: Any) -> None:
    missing = os.path.join(bench.work, "missing")
    for bad in (missing, HERE + "/client.py"):
        failed(start(bench).chat("one", cwd=bad), bad, "cwd")
    assert bench.calls() == []


def test_a_session_whose_directory_is_gone_says_so_and_takes_another(bench: Any) -> None:
    mine = folder(bench, "mine")
    server = start(bench)
    session = session_of(server.chat("one", cwd=mine))
    os.rmdir(mine)
    failed(server.chat("two", session_id=session), mine, "cwd")
    assert session_of(server.chat("three", session_id=session, cwd=bench.work)) == session


# -- timeouts --------------------------------------------------------------------------------------


@both
def test_a_timeout_stops_codex_and_names_the_session(bench: Any, version: str) -> None:
    server = start(bench, version)
    result = server.chat(steps("session", "started", "say Halfway.", "hang"), timeout_ms=3000)
    failed(result, "3 s", "timeout_ms", "Halfway.", session=only_session(bench))
    assert not alive(bench.calls()[0]["pid"])
    assert session_of(server.chat("go on", session_id=only_session(bench))) == only_session(bench)


def test_a_timeout_covers_the_wait_for_the_session(bench: Any) -> None:
    server = start(bench)
    session = session_of(server.chat("one"))
    first = server.start_call(
        CHAT,
        {
            "prompt": steps("session", "gate hold", "started", "say ok", "completed"),
            "session_id": session,
        },
    )
    bench.reached("hold")
    failed(server.chat("two", session_id=session, timeout_ms=1000), "timeout_ms", session=session)
    bench.open("hold")
    assert not server.result(first).get("isError")
    assert len(bench.calls()) == 2  # the one that timed out never reached Codex


def test_the_operator_s_timeout_holds_for_calls_without_their_own(bench: Any) -> None:
    failed(
        start(bench, CODEX_MCP_TIMEOUT_MS="1000").chat(steps("session", "started", "hang")), "1 s"
    )


# -- the pure parts --------------------------------------------------------------------------------

ID = "01a20d51-f3bf-7ba0-ade3-57d6af34c3c4"
STARTED = {"type": "thread.started", "thread_id": ID}
COMPLETED = {"type": "turn.completed", "usage": {"input_tokens": 1}}


def message(text: Any) -> Dict[str, Any]:
    return {
        "type": "item.completed",
        "item": {"id": "item_1", "type": "agent_message", "text": text},
    }


def folded(*events: Any, expected: Optional[str] = None) -> Any:
    turn = program.Turn(expected)
    for event in events:
        line = event if isinstance(event, bytes) else json.dumps(event).encode()
        decoded = program.decode_event(line)
        if decoded is not None:
            turn.fold(decoded)
    turn.fold({"type": program.ENDED, "stderr": "", "ending": "exit code 0"})
    return turn


@pytest.mark.parametrize(
    "events, reply",
    [
        ([STARTED, message("a"), COMPLETED], "a"),
        ([STARTED, message("a"), message("b"), COMPLETED], "b"),
        ([STARTED, message("a"), COMPLETED, message("b")], "a"),
        (
            [STARTED, message("a"), COMPLETED, {"type": "turn.started"}, message("b"), COMPLETED],
            "a\n\nb",
        ),
        ([STARTED, message("a"), message(5), message(None), COMPLETED], "a"),
        (
            [
                STARTED,
                message("a"),
                {"type": "item.updated", "item": message("b")["item"]},
                COMPLETED,
            ],
            "a",
        ),
        (
            [STARTED, message("a"), {"type": "error", "message": "Reconnecting... 1/5"}, COMPLETED],
            "a",
        ),
        ([STARTED, b"", b"noise", b"[]", b"\xff\xfe", b"{", message("a"), COMPLETED], "a"),
        ([dict(STARTED, thread_id=ID.upper()), message("a"), COMPLETED], "a"),
        ([STARTED, STARTED, message("a"), COMPLETED], "a"),
    ],
)
def test_turns_that_succeed(events: List[Any], reply: str) -> None:
    turn = folded(*events)
    turn.result()
    assert (turn.reply, turn.session, turn.state, turn.usage) == (
        reply,
        ID,
        program.State.COMPLETED,
        {"input_tokens": 1},
    )


@pytest.mark.parametrize(
    "events, expected",
    [
        ([], None),
        ([STARTED], None),
        ([STARTED, message("a")], None),
        ([STARTED, COMPLETED], None),
        ([message("a"), COMPLETED], None),
        ([STARTED, message("a"), {"type": "turn.failed", "error": {"message": "no"}}], None),
        ([STARTED, message("a"), {"type": "turn.failed"}], None),
        ([STARTED, message("a"), COMPLETED], UNKNOWN),
        ([{"type": "thread.started"}, message("a"), COMPLETED], None),
        ([{"type": "thread.started", "thread_id": "../../etc"}, message("a"), COMPLETED], None),
        ([{"type": "thread.started", "thread_id": ID + "\n"}, message("a"), COMPLETED], None),
        ([STARTED, dict(STARTED, thread_id=UNKNOWN), message("a"), COMPLETED], None),
    ],
)
def test_turns_that_fail(events: List[Any], expected: Optional[str]) -> None:
    with pytest.raises(program.Failure) as caught:
        folded(*events, expected=expected).result()
    assert str(caught.value).strip()


@pytest.mark.parametrize(
    "text, words",
    [
        ("plain", "plain"),
        ('{"error":{"message":"inner"}}', "inner"),
        ('{"error": {"message": "{\\"error\\": {\\"message\\": \\"twice\\"}}"}}', "twice"),
        ('{"message":"short"}', "short"),
        ('{"detail":"The model is not supported"}', "The model is not supported"),
        (
            'unexpected status 400: {"error":{"message":"inner","code":null}}',
            "unexpected status 400: inner",
        ),
        ("a {brace} that is no JSON", "a {brace} that is no JSON"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("Error: it broke\n\nStack backtrace:\n   0: <unknown>\n", "Error: it broke"),
        ("[" * 100_000, None),
        ('{"error":' * 50_000, None),
        ("", ""),
    ],
)
def test_codex_s_words_without_their_wrapping(text: str, words: Optional[str]) -> None:
    found = program.codex_words(text)
    assert len(found) <= 2100
    assert words is None or found == words


BACKTRACE = "\n\nStack backtrace:\n   0: <unknown>\n   1: <unknown>\n"


@pytest.mark.parametrize(
    "stderr, words",
    [
        ("", ""),
        ("WARNING: proceeding, even though we could not create PATH aliases: x\n", ""),
        ("Reading additional input from stdin...\n", ""),
        (
            "WARNING: even so\nError: thread/resume: no rollout found for thread id X (code -32600)"
            + BACKTRACE,
            "Error: thread/resume: no rollout found for thread id X (code -32600)",
        ),
        (
            "Error: No such file or directory (os error 2)" + BACKTRACE,
            "Error: No such file or directory (os error 2)",
        ),
        (
            "Error loading config.toml: unknown variant `x`\nin `model_reasoning_effort`\n\n",
            "Error loading config.toml: unknown variant `x`\nin `model_reasoning_effort`",
        ),
        (
            "2026-11-24T11:30:15.5Z ERROR codex_core::session: "
            "Failed to create session: conflict\n",
            "Failed to create session: conflict",
        ),
        (
            "2026-11-24T11:30:15.5Z ERROR codex_core::session: conflict\nError: it has a writer"
            + BACKTRACE,
            "Error: it has a writer",
        ),
        (
            "".join(
                f"2026-11-24T11:30:15.5Z ERROR codex_core::mcp: server {i} is not there\n"
                for i in range(80)
            )
            + "Error: no rollout found"
            + BACKTRACE,
            "Error: no rollout found",
        ),
        (
            "".join(f"loading plugin number {i}\n" for i in range(200))
            + "Error: it broke"
            + BACKTRACE,
            "Error: it broke",
        ),
        ("No prompt provided via stdin.\n", "No prompt provided via stdin."),
    ],
)
def test_stderr_without_its_noise(stderr: str, words: str) -> None:
    assert program.stderr_words(stderr) == words
