"""A Codex that misbehaves: the call ends in bounded time and memory, with the right answer."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

import pytest

from client import Client, text_of
from tools import CHAT, TOOLS

BEGIN = ["session", "started"]
GOOD = BEGIN + ["say The answer.", "completed"]
NOISE = ("Stack backtrace", "<unknown>", "WARNING:", "Traceback")
BIG_PROMPT = "p" * 1_000_000


def steps(lines: List[str]) -> str:
    return "\n".join("FAKE:" + line for line in lines)


def event(**what: Any) -> str:
    return "raw " + json.dumps(what)


def peak(server: Client) -> int:
    """The most memory the server has had so far, in MiB (0 where that can't be seen)."""
    try:
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
            return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) >> 10
    except OSError:
        return 0


def run(
    bench: Any,
    lines: List[str],
    early: bool = False,
    bound: float = 20,
    memory: int = 40,
    prompt: str = "",
    **arguments: Any,
) -> Tuple[Client, Dict[str, Any]]:
    """One call on a server whose codex takes `lines` from the prompt or, `early`, before it."""
    server = bench.start(env={"FAKE_CODEX_DO": steps(lines)} if early else {})
    before, began = peak(server), time.monotonic()
    result = server.call(
        CHAT, dict(arguments, prompt=(prompt or "please") + ("" if early else "\n" + steps(lines)))
    )
    assert time.monotonic() - began < bound
    assert peak(server) - before <= memory, f"{peak(server) - before} MiB more"
    assert list(server.tools()) == list(TOOLS)  # it lives
    return server, result


def answered(result: Dict[str, Any], reply: str = "The answer.") -> None:
    assert not result.get("isError"), result
    assert result["structuredContent"]["reply"] == reply


def failed(result: Dict[str, Any], *words: str) -> str:
    text = text_of(result)
    assert result.get("isError") is True and "structuredContent" not in result
    for word in words:
        assert word in text
    for noise in NOISE:
        assert noise not in text
    assert len(text) < 6000
    return text


# -- there is no codex to speak of -----------------------------------------------------------------


def make(path: str, mode: int, text: str = "") -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


@pytest.mark.parametrize(
    "kind, words",
    [
        ("missing", "does not exist"),
        ("not executable", "is not an executable file"),
        ("directory", "is not an executable file"),
        ("nowhere on PATH", "PATH"),
        ("wrong format", ""),
        ("no interpreter", ""),  # there a shell may word it
    ],
)
def test_a_codex_that_cannot_be_started_is_named_with_the_remedy(
    bench: Any, kind: str, words: str
) -> None:
    path = os.path.join(bench.work, "codex-here")
    if kind == "directory":
        os.mkdir(path)
    elif kind == "not executable":
        make(path, 0o644)
    elif kind == "wrong format":
        make(path, 0o755, "\x7fELF and then nothing\n")
    elif kind == "no interpreter":
        make(path, 0o755, "#!/no/such/interpreter\n")
    elif kind == "nowhere on PATH":
        path = "no-such-codex-anywhere"
    server = bench.start(env={"CODEX_BIN": path})
    text = failed(server.chat("hello"), path)
    if words:
        assert words in text and "CODEX_BIN" in text and "Install it" in text


def test_a_codex_that_is_installed_later_is_found_without_a_restart(bench: Any) -> None:
    path = os.path.join(bench.work, "codex-here")
    server = bench.start(env={"CODEX_BIN": path})
    failed(server.chat("hello"), "does not exist")
    os.symlink(bench.env["CODEX_BIN"], path)
    assert not server.chat("hello").get("isError")


@pytest.mark.parametrize(
    "lines, words",
    [
        (["exit 0"], []),
        (["exit 3"], ["3"]),
        (["stderr Error: boom", "exit 1"], ["Error: boom"]),
        (
            ["stderr Error: boom\\n\\nStack backtrace:\\n   0: <unknown>", "exit 101"],
            ["Error: boom"],
        ),
        (
            ["stderr 2026-11-24T11:30:15.5Z ERROR codex_core::auth: token expired", "exit 1"],
            ["token expired"],
        ),
        (["stderr Error: Not logged in", "exit 1"], ["Not logged in", "codex login"]),
        (["raw plain words instead of events", "exit 1"], ["plain words instead of events"]),
        (["close-stdout", "exit 0"], []),
    ],
)
def test_a_codex_that_leaves_before_it_starts_a_session(
    bench: Any, lines: List[str], words: List[str]
) -> None:
    text = failed(run(bench, lines, early=True, bound=10)[1], *words)
    assert "codex resume" not in text  # no session is known


def test_a_codex_that_is_killed_says_how_it_ended(bench: Any) -> None:
    server = bench.start()
    id = server.start_call(CHAT, {"prompt": steps(BEGIN + ["gate busy"])})
    bench.reached("busy")
    os.kill(bench.calls()[0]["pid"], signal.SIGKILL)
    failed(server.result(id), "signal 9", bench.resume(bench.calls()[0]["session"]))


# -- its events ------------------------------------------------------------------------------------

WRONG = [None, True, 5, 1e300, "text", "", [], [1], {}, {"message": 5}, {"type": 7}]
WRONG_EVENTS = (
    [event(type=value) for value in WRONG]
    + [
        event(type=kind, **{key: value})
        for value in WRONG
        for kind, key in (
            ("item.completed", "item"),
            ("item.started", "item"),
            ("item.updated", "item"),
            ("error", "message"),
            ("turn.started", "turn"),
            ("unknown", "x"),
        )
    ]
    + [
        event(type="item.completed", item={"id": value, "type": value, "text": value})
        for value in WRONG
    ]
    + [
        event(
            type=state,
            item={
                "id": value,
                "type": kind,
                "text": bad,
                "command": value,
                "changes": value,
                "query": value,
                "server": value,
                "tool": value,
                "items": value,
                "message": value,
                "status": value,
                "aggregated_output": value,
                "exit_code": value,
            },
        )
        for value in WRONG
        for bad in (None, 5, [])
        for state in ("item.started", "item.completed")
        for kind in (
            "agent_message",
            "reasoning",
            "command_execution",
            "file_change",
            "mcp_tool_call",
            "web_search",
            "todo_list",
            "error",
            "new_kind",
        )
    ]
    + [
        event(
            type="item.updated",
            item={"type": "todo_list", "items": [value, {"text": value, "completed": value}]},
        )
        for value in WRONG
    ]
    + [
        event(
            type="item.completed", item={"type": "file_change", "changes": [value, {"path": value}]}
        )
        for value in WRONG
    ]
)


@pytest.mark.parametrize(
    "lines, reply",
    [
        (
            BEGIN
            + ["raw [1, 2]", 'raw "text"', "raw 5", "raw null", "raw true", "raw {", "raw ]", "raw"]
            + GOOD[2:],
            None,
        ),
        (BEGIN + WRONG_EVENTS + GOOD[2:], None),
        (
            BEGIN
            + [
                event(type="turn.thinking", depth=3),
                event(type="item.completed", item={"type": "new_kind"}),
                event(type="item.melted", item={"type": "agent_message", "text": "no"}),
                event(type="session.ended"),
            ]
            + GOOD[2:],
            None,
        ),
        (GOOD + ["say Too late.", "error too late", "failed too late", "warning too late"], None),
        (
            GOOD + ["started", "say A second answer.", "completed"],
            "The answer.\n\nA second answer.",
        ),
        (["session"] + GOOD, None),
        (
            BEGIN
            + [
                "hex "
                + b'{"type":"item.completed",'
                b'"item":{"type":"agent_message","text":"caf\xe9"}}\n'.hex(),
                "completed",
            ],
            "caf\ufffd",
        ),
        (BEGIN + ["hex fffe0a00ff0a80800a"] + GOOD[2:], None),
        (BEGIN + ["raw " + "[" * 90_000] + GOOD[2:], None),
        (
            BEGIN + ["say The answer.", 'partial {"type":"turn.completed","usage":{}}', "exit 0"],
            None,
        ),
        (GOOD + ['partial {"type":"item.comp', "exit 0"], None),
        (GOOD + ["exit 7"], None),
        (GOOD + ["stderr Error: something at the very end", "exit 1"], None),
    ],
    ids=[
        "no objects",
        "wrong types",
        "unknown kinds",
        "events after the end",
        "two turns",
        "the same session twice",
        "not UTF-8 in a reply",
        "not UTF-8 at all",
        "too deep",
        "no newline at the end",
        "half a line after the end",
        "bad exit code",
        "errors after the end",
    ],
)
def test_what_codex_prints_beside_its_answer_does_no_harm(
    bench: Any, lines: List[str], reply: Optional[str]
) -> None:
    _, result = run(
        bench, lines, early=sum(map(len, lines)) < 100_000
    )  # an environment variable holds no more
    answered(result, reply or "The answer.")


@pytest.mark.parametrize("usage", WRONG)
def test_usage_that_is_no_object_is_left_out(bench: Any, usage: Any) -> None:
    _, result = run(
        bench, BEGIN + ["say The answer.", event(type="turn.completed", usage=usage)], early=True
    )
    answered(result)
    if usage and isinstance(usage, dict):
        assert result["structuredContent"]["usage"] == usage
    else:
        assert not result["structuredContent"].get("usage")


@pytest.mark.parametrize(
    "lines",
    [
        BEGIN + ["say Halfway.", 'partial {"type":"turn.compl', "exit 0"],
        BEGIN + ["say Halfway.", "exit 0"],
        BEGIN + ["say Halfway.", event(type="turn.failed"), "exit 0"],
        BEGIN + ["say Halfway.", event(type="turn.failed", error="text"), "exit 0"],
        BEGIN + ["say Halfway.", event(type="turn.failed", error={"message": 5}), "exit 1"],
    ],
    ids=[
        "half a last line",
        "after an interruption",
        "failed without words",
        "failed with a text",
        "failed with a number",
    ],
)
def test_a_turn_that_does_not_come_to_its_end_is_a_failure_with_what_was_said(
    bench: Any, lines: List[str]
) -> None:
    _, result = run(bench, lines, early=True)
    failed(result, "Halfway.", bench.resume(bench.calls()[0]["session"]))


@pytest.mark.parametrize(
    "id",
    [
        "nonsense",
        "../../../etc/passwd",
        "--last",
        "01a20d51-f3bf-7ba0-ade3-57d6af34c3c4x",
        "01a20d51f3bf7ba0ade357d6af34c3c4",
    ],
)
def test_a_session_id_that_is_no_uuid_is_not_passed_on(bench: Any, id: str) -> None:
    _, result = run(
        bench,
        ["session " + id, "started", "gate never", "say The answer.", "completed"],
        early=True,
    )
    assert "codex resume" not in failed(result)


@pytest.mark.parametrize("value", WRONG)
def test_a_session_id_that_is_no_text_is_a_failure(bench: Any, value: Any) -> None:
    _, result = run(bench, [event(type="thread.started", thread_id=value)] + GOOD[1:], early=True)
    assert "codex resume" not in failed(result)


def test_a_second_session_in_one_run_is_a_failure_and_stops_it(bench: Any) -> None:
    other = "22222222-2222-4222-8222-222222222222"
    _, result = run(
        bench,
        BEGIN + ["session " + other, "gate never", "say The answer.", "completed"],
        early=True,
    )
    text = failed(result, "second session")
    assert "codex resume " + other not in text


# -- too much --------------------------------------------------------------------------------------


def test_an_event_of_50_mb_is_survived(bench: Any) -> None:
    _, result = run(bench, BEGIN + ["long-line 50"] + GOOD[2:], memory=120, bound=30)
    answered(result)


def test_a_reply_of_50_mb_is_passed_on_or_refused_in_words(bench: Any) -> None:
    _, result = run(bench, BEGIN + ["long-reply 50", "completed"], memory=250, bound=40)
    if result.get("isError"):
        failed(result, "too long", "codex resume")
    else:
        answered(result, "r" * (50 << 20))


def test_output_without_any_newline_is_survived(bench: Any) -> None:
    server = bench.start(env={"FAKE_CODEX_DO": ""})
    before = peak(server)
    endless = make(
        os.path.join(bench.work, "endless"), 0o755, "#!/bin/sh\nexec head -c 300000000 /dev/zero\n"
    )
    server.close()
    server = bench.start(env={"CODEX_BIN": endless})
    failed(server.chat("hello"))
    assert peak(server) - before <= 120


def test_a_million_events_are_survived(bench: Any) -> None:
    _, result = run(bench, BEGIN + ["events 1000000"] + GOOD[2:], bound=58)
    answered(result)


def test_a_flood_on_standard_error_is_survived(bench: Any) -> None:
    _, result = run(bench, BEGIN + ["stderr-flood 300"] + GOOD[2:], bound=40)
    answered(result)


def test_a_flood_on_standard_error_leaves_the_words_at_its_end(bench: Any) -> None:
    _, result = run(
        bench, ["stderr-flood 20", "stderr \\nError: boom", "exit 1"], early=True, bound=30
    )
    failed(result, "Error: boom")


def test_a_thousand_warnings_are_not_all_passed_on(bench: Any) -> None:
    _, result = run(
        bench, BEGIN + [f"warning number {i} {'w' * 50}" for i in range(1000)] + GOOD[2:]
    )
    answered(result)
    assert 1 <= len(result["structuredContent"]["warnings"]) <= 100


# -- it does not go, or holds on -------------------------------------------------------------------


@pytest.fixture
def strays(bench: Any) -> Iterator[None]:
    """Ends the fake's children that no server can find: those that left the group."""
    yield
    path = os.path.join(bench.notes, "grandchildren")
    if os.path.exists(path):
        with open(path, encoding="ascii") as file:
            for pid in map(int, file):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass


@pytest.mark.parametrize(
    "lines",
    [
        GOOD + ["hang"],
        GOOD + ["stubborn", "hang"],
        GOOD + ["close-stdout", "stubborn", "hang"],
        GOOD + ["grandchild"],
        GOOD + ["grandchild detached"],
        GOOD + ["stubborn", "grandchild", "grandchild detached", "hang"],
        ["stubborn", "grandchild detached"] + GOOD + ["close-stdout", "exit 0"],
    ],
    ids=[
        "stays",
        "stays and is stubborn",
        "closes its output and stays",
        "its child holds the output",
        "its child outside the group holds the output",
        "all of it",
        "closed, gone, and a child outside holds on",
    ],
)
@pytest.mark.usefixtures("strays")
def test_a_codex_that_holds_on_after_its_answer_does_not_hold_the_answer(
    bench: Any, lines: List[str]
) -> None:
    _, result = run(bench, lines, early=True, bound=15)
    answered(result)


@pytest.mark.parametrize(
    "lines",
    [
        ["hang"],
        BEGIN + ["hang"],
        ["stubborn", "hang"],
        BEGIN + ["stubborn", "hang"],
        BEGIN + ["stubborn", "grandchild detached", "hang"],
    ],
    ids=["at once", "in the turn", "stubborn", "stubborn in the turn", "with a child outside"],
)
@pytest.mark.usefixtures("strays")
def test_silence_for_ever_ends_with_the_timeout(bench: Any, lines: List[str]) -> None:
    _, result = run(bench, lines, early=True, bound=12, timeout_ms=3000)
    text = failed(result, "timeout_ms")
    assert (bench.resume(bench.calls()[0]["session"]) in text) == ("session" in lines)


@pytest.mark.parametrize("more", [[], ["stubborn"]], ids=["listens", "stubborn"])
def test_a_codex_that_closes_its_output_and_lives_on_is_a_failure_in_bounded_time(
    bench: Any, more: List[str]
) -> None:
    _, result = run(
        bench, BEGIN + more + ["say Halfway.", "close-stdout", "hang"], early=True, bound=15
    )
    failed(result, "Halfway.", bench.resume(bench.calls()[0]["session"]))


@pytest.mark.usefixtures("strays")
def test_a_child_that_holds_the_output_of_a_failed_codex_does_not_hold_the_answer(
    bench: Any,
) -> None:
    _, result = run(
        bench,
        BEGIN + ["grandchild detached", "failed no more tokens", "exit 1"],
        early=True,
        bound=15,
    )
    failed(result, "no more tokens")


@pytest.mark.parametrize(
    "lines, fine",
    [(GOOD, True), (BEGIN + ["hang"], False), (["exit 1"], False)],
    ids=["answers", "hangs", "exits"],
)
def test_a_codex_that_never_reads_a_prompt_of_1_mb(
    bench: Any, lines: List[str], fine: bool
) -> None:
    _, result = run(bench, lines, early=True, prompt=BIG_PROMPT, bound=14, timeout_ms=4000)
    if fine:
        answered(result)
    else:
        failed(result)


@pytest.mark.usefixtures("strays")
def test_a_child_that_holds_an_unread_prompt_leaves_nothing_in_the_server(bench: Any) -> None:
    server = bench.start(env={"FAKE_CODEX_DO": steps(["grandchild detached"] + GOOD + ["exit 0"])})

    def held() -> List[int]:
        return [len(os.listdir(f"/proc/{server.process.pid}/{what}")) for what in ("task", "fd")]

    answered(server.chat(BIG_PROMPT))
    first = held()
    for _ in range(4):
        answered(server.chat(BIG_PROMPT))
    bench.wait(
        lambda: all(now <= then + 1 for now, then in zip(held(), first)),
        "threads and files given back",
        5,
    )


def test_one_codex_that_misbehaves_does_not_disturb_others(bench: Any) -> None:
    server = bench.start()
    ids = [
        server.start_call(CHAT, {"prompt": steps(lines), "timeout_ms": 3000})
        for lines in (
            BEGIN + ["stubborn", "hang"],
            BEGIN + ["stderr-flood 30", "hang"],
            BEGIN + ["close-stdout", "stubborn", "hang"],
        )
    ]
    for _ in range(5):
        assert not server.chat("hello").get("isError")
    assert all(server.result(id)["isError"] for id in ids)
