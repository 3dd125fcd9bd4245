"""Progress that a person can follow: what Codex does, a sign of life in silence, never much."""

from __future__ import annotations

import json
import re
import time
import unicodedata
from typing import Any, Dict, Iterator, List

import pytest

from client import Client, session_of
from conftest import Bench
from tools import CHAT

TOKEN = "a token"
BEGIN = ["session", "started"]
END = ["say The answer.", "completed"]


def steps(lines: List[str]) -> str:
    return "please\n" + "\n".join("FAKE:" + line for line in lines)


def item(state: str, kind: str, **more: Any) -> str:
    return "raw " + json.dumps(
        {"type": "item." + state, "item": dict(more, id="item_1", type=kind)}
    )


def in_form(text: str) -> None:
    """Fails unless it is one short line without control characters."""
    assert 0 < len(text) <= 200
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Zl", "Zp")], text


def told(server: Client, token: Any = TOKEN) -> List[str]:
    """The texts of the progress for `token` so far, which must be in good form."""
    params: List[Dict[str, Any]] = server.progress(token)
    numbers = [one["progress"] for one in params]
    assert all(type(number) in (int, float) for number in numbers)
    assert all(a < b for a, b in zip(numbers, numbers[1:])), numbers
    for one in params:
        assert set(one) <= {"progressToken", "progress", "message", "total"} and type(
            one["progressToken"]
        ) is type(token)
        in_form(one["message"])
    return [one["message"] for one in params]


def test_the_session_is_told_as_soon_as_it_is_known(bench: Any) -> None:
    server = bench.start()
    id = server.start_call(
        CHAT, {"prompt": steps(["session", "gate hold", "started"] + END)}, token=TOKEN
    )
    bench.reached("hold")
    session = bench.calls()[0]["session"]
    server.wait_for(lambda: any(session in text for text in told(server)), "the session's id")
    assert server.responses(id) == []
    bench.open("hold")
    assert session_of(server.result(id)) == session


#: What Codex does, and what a person must be able to read of it.
SHOWN = {
    "command": (
        item("started", "command_execution", command="/bin/bash -lc 'npm test -- --watch=false'"),
        "npm test -- --watch=false",
    ),
    "command of another shell": (
        item("started", "command_execution", command='/usr/bin/zsh -lc "ls -la | wc"'),
        "ls -la | wc",
    ),
    "plain command": (item("started", "command_execution", command="make"), "make"),
    "file": (
        item(
            "completed",
            "file_change",
            changes=[{"path": "/w/src/app.py", "kind": "update"}],
            status="completed",
        ),
        "app.py",
    ),
    "search": (
        item("completed", "web_search", query="python selectors poll"),
        "python selectors poll",
    ),
    "tool": (
        item("started", "mcp_tool_call", server="docs", tool="lookup", arguments={}),
        "docs.lookup",
    ),
    "plan": (
        item(
            "started",
            "todo_list",
            items=[
                {"text": text, "completed": text == "Read"}
                for text in ("Read", "Write the test", "c", "d", "e")
            ],
        ),
        "2 of 5: Write the test",
    ),
    "plan done": (
        item(
            "updated",
            "todo_list",
            items=[{"text": "Read", "completed": True}, {"text": "Run", "completed": True}],
        ),
        "2 of 2",
    ),
    "reasoning": (
        item("completed", "reasoning", text="**Looking at the parser**\n\nThere is more."),
        "Looking at the parser",
    ),
    "message": (
        item("completed", "agent_message", text="I have found\nthe fault. " + "It is long. " * 50),
        "I have found the fault.",
    ),
    "error": ("error Reconnecting... 2/5", "Reconnecting... 2/5"),
}
#: What must only stay in form.
WILD = {
    "long command": item(
        "started", "command_execution", command="cat <<'E'\n" + "line\n" * 1000 + "E"
    ),
    "long reasoning": item("completed", "reasoning", text="\n\n" + "x" * 100_000),
    "control characters": item(
        "completed", "web_search", query="\x1b[31mred\x1b[0m\x07\r\n\u2028 \x00\x85 end"
    ),
    "emoji": item("completed", "agent_message", text="\U0001f600" * 1000),
    "half an emoji": item("completed", "agent_message", text="\ud83d" * 10),
    "empty reasoning": item("completed", "reasoning", text=""),
    "no changes": item("completed", "file_change", changes=[]),
    "no plan": item("started", "todo_list", items=[]),
    "empty command": item("started", "command_execution", command=""),
}


@pytest.fixture(scope="module")
def told_of(tmp_path_factory: Any) -> Iterator[Dict[str, List[str]]]:
    """What is told of a turn with each of these events, all run side by side on one server."""
    bench = Bench(str(tmp_path_factory.mktemp("progress")))
    server = bench.start()
    events = dict(WILD, **{name: event for name, (event, _) in SHOWN.items()})
    ids = [
        server.start_call(CHAT, {"prompt": steps(BEGIN + [event, "sleep 0.8"] + END)}, token=name)
        for name, event in events.items()
    ]
    for id in ids:
        assert not server.result(id).get("isError")
    server.close()
    yield {name: [one["message"] for one in server.progress(name)] for name in events}


@pytest.mark.parametrize("name", list(SHOWN))
def test_what_codex_does_is_told(told_of: Dict[str, List[str]], name: str) -> None:
    texts = told_of[name]
    assert any(SHOWN[name][1] in text for text in texts), texts
    assert not any(
        "bash -lc" in text or "zsh -lc" in text or "There is more" in text for text in texts
    )


@pytest.mark.parametrize("name", list(WILD) + list(SHOWN))
def test_each_is_one_short_line_whatever_codex_sends(
    told_of: Dict[str, List[str]], name: str
) -> None:
    assert len(told_of[name]) >= 2
    for text in told_of[name]:
        in_form(text)


def test_the_wait_for_the_session_is_told(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    held = server.start_call(
        CHAT,
        {"prompt": steps(["session", "gate hold", "started"] + END), "session_id": session},
        token=1,
    )
    bench.reached("hold")
    second = server.start_call(CHAT, {"prompt": "next", "session_id": session}, token=TOKEN)
    server.wait_for(
        lambda: any("ait" in text and session in text for text in told(server)), "word of the wait"
    )
    bench.open("hold")
    assert not server.result(held).get("isError") and not server.result(second).get("isError")
    told(server), told(server, 1)


def test_silence_has_a_sign_of_life_with_the_time_so_far(bench: Any) -> None:
    server = bench.start()
    session = session_of(server.chat("open"))
    running = server.start_call(
        CHAT, {"prompt": steps(BEGIN + ["gate hold"] + END), "session_id": session}, token=TOKEN
    )
    bench.reached("hold")
    queued = server.start_call(CHAT, {"prompt": "next", "session_id": session}, token="queued")
    server.wait_for(lambda: told(server) and told(server, "queued"), "the first progress")
    time.sleep(0.8)  # what came with the start has been told
    before, began = (
        {token: len(told(server, token)) for token in (TOKEN, "queued")},
        time.monotonic(),
    )
    for token in before:
        server.wait_for(
            lambda: len(told(server, token)) > before[token], "sign of life of " + token, bound=16
        )
        assert time.monotonic() - began > 2  # it is silence, not chatter
        assert re.search(r"[0-9]+ s\b", told(server, token)[-1])
    bench.open("hold")
    assert not server.result(running).get("isError") and not server.result(queued).get("isError")


def test_a_long_wait_for_another_server_is_not_told_again_and_again(bench: Any) -> None:
    one, two = bench.start(), bench.start()
    session = session_of(one.chat("open"))
    held = one.start_call(
        CHAT, {"prompt": steps(BEGIN + ["gate hold"] + END), "session_id": session}
    )
    bench.reached("hold")
    waiting = two.start_call(CHAT, {"prompt": "next", "session_id": session}, token=TOKEN)
    two.wait_for(lambda: told(two), "word of the wait")
    time.sleep(3)  # a silence in which a person needs no more than a sign of life
    assert len(told(two)) <= 2, told(two)
    bench.open("hold")
    assert not one.result(held).get("isError") and not two.result(waiting).get("isError")


def test_a_flood_of_events_is_told_a_few_times_a_second(bench: Any) -> None:
    server = bench.start()
    lines = (
        BEGIN
        + [
            line
            for i in range(30)
            for line in (item("started", "command_execution", command=f"run {i}"), "sleep 0.1")
        ]
        + ["events 200000"]
        + END
    )
    began = time.monotonic()
    server.call(CHAT, {"prompt": steps(lines)}, token=TOKEN)
    duration = time.monotonic() - began
    assert duration >= 3
    assert 3 <= len(told(server)) <= 4 * duration + 4
    assert any("run " in text for text in told(server))


def test_an_answer_never_comes_together_with_progress(bench: Any) -> None:
    server = bench.start()
    lines = BEGIN + ["command make", "sleep 0.6", "say I look.", "sleep 0.2"]
    ids = [
        server.start_call(CHAT, {"prompt": steps(lines + [f"sleep 0.{index}"] + END)}, token=index)
        for index in range(8)
    ]
    for index, id in enumerate(ids):
        assert session_of(server.result(id))
        at = {"progress": 0.0, "answer": 0.0}
        for message, moment in zip(server.messages, server.times):
            if message.get("id") == id:
                at["answer"] = moment
            elif message.get("params", {}).get("progressToken") == index:
                at["progress"] = moment
        assert at["progress"] and at["answer"] - at["progress"] >= 0.45, (index, at)


def test_the_answer_is_not_told_as_progress(bench: Any) -> None:
    server = bench.start()
    lines = BEGIN + ["sleep 1"] + END + ["sleep 2"]
    server.call(CHAT, {"prompt": steps(lines)}, token=TOKEN)
    assert told(server) and not any("The answer" in text for text in told(server))


def test_nothing_is_told_after_the_answer(bench: Any) -> None:
    server = bench.start()
    for index in range(10):
        server.call(
            CHAT, {"prompt": steps(BEGIN + ["command ls", "command pwd"] + END)}, token=index
        )
    server.ask("ping")
    time.sleep(0.8)  # longer than the pause in which a message can be held back
    server.ask("ping")
    seen: Dict[Any, bool] = {}
    for one in server.messages:
        if one.get("method") == "notifications/progress":
            assert one["params"]["progressToken"] not in seen
        elif "content" in one.get("result", {}):
            seen[one["id"] - 2] = True  # the handshake had the first id, the calls the next ten
    assert len(seen) == 10


def test_nothing_is_told_after_a_cancel(bench: Any) -> None:
    server = bench.start()
    id = server.start_call(
        CHAT,
        {
            "prompt": steps(
                BEGIN
                + ["stubborn", "gate hold"]
                + [
                    line
                    for i in range(50)
                    for line in (
                        item("started", "command_execution", command=f"run {i}"),
                        "sleep 0.05",
                    )
                ]
                + END
            )
        },
        token=TOKEN,
    )
    bench.reached("hold")
    bench.open("hold")
    server.wait_for(lambda: any("run" in text for text in told(server)), "the first command")
    server.notify("notifications/cancelled", {"requestId": id})
    server.ask("ping")  # the cancel has been taken
    count = len(told(server))
    time.sleep(1.5)  # Codex does not listen, and goes on meanwhile
    server.chat("next")
    assert len(told(server)) == count and server.responses(id) == []


@pytest.mark.parametrize("token", [0, 7, -1, "", "0", 1 << 53])
def test_the_token_comes_back_as_it_is(bench: Any, token: Any) -> None:
    server = bench.start()
    server.call(CHAT, {"prompt": "hello"}, meta={"progressToken": token})
    assert told(server, token)


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"progressToken": None},
        {"progressToken": True},
        {"progressToken": 1.5},
        {"progressToken": []},
        {"other": 1},
    ],
)
def test_without_a_usable_token_nothing_is_told(bench: Any, meta: Dict[str, Any]) -> None:
    server = bench.start()
    answer = server.response(
        server.request(
            "tools/call",
            {
                "name": CHAT,
                "arguments": {"prompt": steps(BEGIN + ["command ls"] + END)},
                "_meta": meta,
            },
        )
    )
    assert "result" in answer or "error" in answer
    assert not [one for one in server.messages if one.get("method") == "notifications/progress"]
