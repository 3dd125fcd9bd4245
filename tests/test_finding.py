"""Lost sessions and lost answers: how they are found, calls in the background, and their end."""

from __future__ import annotations

import os
import re
import subprocess
import time
from typing import Any, Callable, Dict, List, Optional

import pytest
from jsonschema import Draft202012Validator

import fake_store as store
from client import Client, remaining, session_of, text_of
from conftest import Bench
from fake_daemon import FakeDaemon
from fake_store import Holder, make_session
from test_endings import processes
from tools import CHAT, FINAL, GUARDS, PLAN, SESSIONS, STOP, TOOLS, TURNS

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes in /proc (Linux)"
)

UNKNOWN = "01a20d52-0000-7000-8000-000000000001"
SIGNED = "AI agent my-agent MCP desk-7/codex_chat:\n"
NEEDS = "needs Codex 0.125 or newer"
#: Seconds since the epoch, long ago.
PAST = 1700000000
#: Seconds in which a question to Codex's index ends in any case (10 for each answer), and in which
#: what was started is gone; slack for a busy machine.
BOUNDED, GONE = 45.0, 5.0


def steps(*lines: str) -> str:
    return "\n".join(["FAKE:session", "FAKE:started"] + ["FAKE:" + line for line in lines])


def gated(gate: str, reply: str = "done") -> str:
    """A turn that stands at a gate before its reply."""
    return "work\n" + steps("gate " + gate, "say " + reply, "completed")


def flat(value: Any) -> List[str]:
    """All that a structure says."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in flat(member)]
    if isinstance(value, list):
        return [text for member in value for text in flat(member)]
    return [str(value)]


def good(server: Client, tool: str, result: Dict[str, Any]) -> Dict[str, Any]:
    """The structure of a success: as its schema says, and the text says all of it, too."""
    assert not result.get("isError"), result
    structured: Dict[str, Any] = result["structuredContent"]
    Draft202012Validator(server.tools()[tool]["outputSchema"]).validate(structured)
    (block,) = result["content"]
    for said in flat(structured):
        assert said in block["text"], (said, block["text"])
    return structured


def bad(result: Dict[str, Any], *words: str) -> str:
    """The text of a failure, which has these words."""
    text = text_of(result)
    assert result.get("isError") is True and "structuredContent" not in result, result
    for word in words:
        assert word in text, (word, text)
    assert "The server failed" not in text and "Traceback" not in text and len(text) < 3000, text
    return text


def look(server: Client, session: str, **more: Any) -> Dict[str, Any]:
    """What is told of one session."""
    found = good(server, SESSIONS, server.call(SESSIONS, dict(more, session_id=session)))
    assert found["session_id"] == session and "sessions" not in found
    return found


def listed(server: Client, **arguments: Any) -> List[Dict[str, Any]]:
    """The list of sessions, without warnings."""
    found = good(server, SESSIONS, server.call(SESSIONS, arguments))
    assert set(found) == {"sessions"}, found
    sessions: List[Dict[str, Any]] = found["sessions"]
    return sessions


def ids(sessions: List[Dict[str, Any]]) -> List[str]:
    return [one["session_id"] for one in sessions]


def warned(result: Dict[str, Any]) -> str:
    return "\n".join(result["structuredContent"].get("warnings", []))


def running(bench: Any, server: Client, gate: str, **arguments: Any) -> Any:
    """Starts a call, which stands at a gate in its turn; gives the request's id."""
    id = server.start_call(CHAT, dict(arguments, prompt=gated(gate)), token=gate)
    bench.reached(gate)
    return id


def known(bench: Any, server: Client, token: str) -> str:
    """The session of the newest call, as soon as the server knows it."""
    session: str = bench.calls()[-1]["session"]
    server.wait_for(
        lambda: any(session in one["message"] for one in server.progress(token)), "session"
    )
    return session


def stop(server: Client, session: str) -> int:
    """Stops the calls of a session; gives how many there were."""
    found = good(server, STOP, server.call(STOP, {"session_id": session}))
    assert set(found) == {"session_id", "resume_command", "stopped"}
    stopped: int = found["stopped"]
    return stopped


def nothing_left(bench: Any, *servers: Client) -> None:
    """Waits until only these servers and their watchers are left of what the test has started."""
    pids = [server.process.pid for server in servers]

    def others() -> List[int]:
        return [pid for pid in processes(bench) if pid not in pids]

    assert remaining(others, time.monotonic() + GONE) == []


def person(bench: Any, text: str = "hello", reply: Optional[str] = "hi", **more: Any) -> str:
    """A session that a person has begun in a terminal."""
    options = dict({"source": "cli", "at": PAST}, **more)
    return make_session(bench.home, bench.work, text, reply, **options)


# -- the tools -------------------------------------------------------------------------------------


def test_a_client_is_told_which_of_the_two_changes_nothing(bench: Bench) -> None:
    tools = bench.start().tools()
    for name, reads in ((SESSIONS, True), (STOP, False)):
        hints = tools[name]["annotations"]
        assert hints["readOnlyHint"] is reads and hints["destructiveHint"] is not reads
        assert hints["idempotentHint"] is True and hints["openWorldHint"] is False


def test_the_instructions_tell_where_a_lost_session_is_found(bench: Bench) -> None:
    told = bench.start(handshake=False).initialize()["instructions"]
    assert SESSIONS in told and "background: true; it ends when you do" in told


BAD: List[Any] = [
    (SESSIONS, {"limit": 0}, "limit"),
    (SESSIONS, {"limit": 51}, "limit"),
    (SESSIONS, {"limit": 2.5}, "limit"),
    (SESSIONS, {"limit": True}, "limit"),
    (SESSIONS, {"limit": "many"}, "limit"),
    (SESSIONS, {"all": "yes"}, "all"),
    (SESSIONS, {"all": 2}, "all"),
    (SESSIONS, {"wait_ms": -1}, "wait_ms"),
    (SESSIONS, {"session_id": UNKNOWN, "wait_ms": 7200001}, "wait_ms"),
    (SESSIONS, {"session_id": "last"}, "session_id"),
    (SESSIONS, {"session_id": 7}, "session_id"),
    (SESSIONS, {"cwd": "relative"}, "cwd"),
    (SESSIONS, {"sessionId": UNKNOWN}, "sessionId"),
    (SESSIONS, {"prompt": "x"}, "prompt"),
    (SESSIONS, {"stop": True}, "stop"),
    (STOP, {}, "session_id"),
    (STOP, {"session_id": None}, "session_id"),
    (STOP, {"session_id": ""}, "session_id"),
    (STOP, {"session_id": "last"}, "session_id"),
    (STOP, {"session_id": UNKNOWN, "wait_ms": 1}, "wait_ms"),
    (CHAT, {"prompt": "x", "background": "yes"}, "background"),
    (CHAT, {"prompt": "x", "background": 2}, "background"),
]


@pytest.mark.parametrize("tool, arguments, name", BAD, ids=lambda value: str(value)[:50])
def test_a_bad_argument_is_named_and_codex_is_not_asked(
    bench: Bench, tool: str, arguments: Dict[str, Any], name: str
) -> None:
    bad(bench.start().call(tool, arguments), name)
    assert bench.calls() == [] and bench.index() == []


@pytest.mark.parametrize("nothing", [None, "", " \n"], ids=ascii)
def test_an_argument_that_could_not_be_left_out_is_none(bench: Bench, nothing: Any) -> None:
    server, session = bench.start(), person(bench)
    assert ids(listed(server, **{name: nothing for name in TOOLS[SESSIONS].optional})) == [session]
    assert session_of(server.chat("hello", background=nothing, sandbox=nothing))


def test_arguments_are_taken_in_whatever_dress(bench: Bench) -> None:
    server = bench.start()
    one, other = person(bench), person(bench, at=PAST + 1)
    far = make_session(bench.home, "/", at=PAST + 2)
    assert ids(listed(server, limit="2", all="True")) == [far, other]
    assert ids(listed(server, limit=1.0, all="false", cwd=f" {bench.work}\n")) == [other]
    assert look(server, one, wait_ms="5", limit=50)["asked"] == "hello"
    found = server.call(SESSIONS, {"session_id": f" {one.upper()}\n"})
    assert found["structuredContent"]["session_id"] == one
    answer = server.chat("x\n" + steps("say x", "completed"), background="True")
    assert answer["structuredContent"]["state"] == "running"


# -- lists -----------------------------------------------------------------------------------------


def test_no_session_at_all_is_said_in_words(bench: Bench) -> None:
    server = bench.start()
    result = server.call(SESSIONS, {})
    assert good(server, SESSIONS, result) == {"sessions": []}
    assert "none" in text_of(result) or "no " in text_of(result).lower()


def test_a_lost_session_is_found_by_its_title(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("Why is the harbour test red?\nIt was green."))
    (found,) = listed(server)
    assert found == {
        "session_id": session,
        "resume_command": bench.resume(session),
        "title": "Why is the harbour test red? It was green.",
        "agent": "test-client",
        "cwd": bench.work,
        "updated_at": found["updated_at"],
        "state": "idle",
    }
    when = time.strptime(found["updated_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert time.time() - 120 < time.mktime(when) - time.timezone < time.time() + 120


def test_a_session_is_found_after_a_restart_of_the_server(bench: Bench) -> None:
    before = bench.start()
    session = session_of(before.chat("Why is the harbour test red?"))
    told = listed(before)
    before.close()
    assert listed(bench.start()) == told and ids(told) == [session]


def test_the_newest_session_comes_first_and_no_more_than_asked_for(bench: Bench) -> None:
    server = bench.start()
    made = [person(bench, f"number {n}", at=PAST + n / 4) for n in range(24)]
    assert ids(listed(server)) == made[:-11:-1]
    assert ids(listed(server, limit=3)) == made[:-4:-1]
    assert ids(listed(server, limit=50)) == made[::-1]
    newest = session_of(server.chat("hello"))
    assert ids(listed(server, limit=2)) == [newest, made[-1]]


def test_a_session_that_is_gone_on_with_becomes_the_newest(bench: Bench) -> None:
    server = bench.start()
    first, second = person(bench), person(bench, at=PAST + 60)
    session_of(server.chat("go on", session_id=first))
    assert ids(listed(server)) == [first, second]


def test_only_sessions_of_the_directory_are_listed_unless_all_are_wanted(bench: Bench) -> None:
    server, other = bench.start(), os.path.join(bench.work, "other")
    os.mkdir(other)
    here, there = person(bench), make_session(bench.home, other, at=PAST + 1)
    opened = session_of(server.chat("there", cwd=other))
    assert ids(listed(server)) == [here]
    assert ids(listed(server, cwd=other)) == [opened, there]
    assert ids(listed(server, all=True)) == [opened, there, here]
    assert listed(server, cwd="/does/not/exist") == []


def test_a_link_to_the_directory_is_the_directory(bench: Bench) -> None:
    server, link = bench.start(), os.path.join(bench.notes, "link")
    os.symlink(bench.work, link)
    session = session_of(server.chat("hello"))
    assert ids(listed(server, cwd=link)) == [session]


def test_archived_sessions_are_in_their_place_and_marked(bench: Bench) -> None:
    server = bench.start()
    first, second, third = [person(bench, at=PAST + n) for n in range(3)]
    store.archive(bench.home, second)
    found = listed(server)
    assert ids(found) == [third, second, first]
    assert [one.get("archived") for one in found] == [None, True, None]
    assert look(server, second)["archived"] is True and "archived" not in look(server, first)


def test_a_person_s_own_session_is_listed_and_has_no_agent(bench: Bench) -> None:
    server = bench.start()
    session = person(bench, "my own question")
    (found,) = listed(server)
    assert found["session_id"] == session and found["title"] == "my own question"
    assert found["updated_at"] == "2023-11-14T22:13:20Z" and "agent" not in found


def test_the_sessions_of_codex_s_own_helpers_are_not_listed(bench: Bench) -> None:
    server = bench.start()
    made = [person(bench, source=source) for source in ("cli", "vscode", "exec", "appServer")]
    person(bench, source="subAgentReview")
    other = person(bench, provider="another")
    assert set(ids(listed(server))) == {*made, other}


def test_the_agent_is_told_by_the_attribution_and_it_is_not_in_the_title(bench: Bench) -> None:
    server = bench.start()
    one = person(bench, SIGNED + "Find the bug.\nIt bites.", source="exec")
    (found,) = listed(server)
    assert (found["agent"], found["title"]) == ("my-agent", "Find the bug. It bites.")
    assert look(server, one)["asked"] == "Find the bug.\nIt bites."


@pytest.mark.parametrize("tool", GUARDS)
def test_the_agent_is_told_whatever_tool_and_origin_it_used(bench: Bench, tool: str) -> None:
    bench.env["CODEX_PERSISTENT_MCP_ORIGIN"] = "a MCP host/b: c"
    server = bench.start()
    session_of(server.call(tool, TOOLS[tool].required))
    (found,) = listed(server)
    assert found["agent"].startswith("test-c") and found["title"].startswith("The ")
    server.close()
    assert listed(bench.start()) == [found]


def test_a_message_that_only_looks_like_an_attribution_is_the_person_s(bench: Bench) -> None:
    server = bench.start()
    person(bench, "AI agent systems need an MCP server: why?\nTell me.")
    (found,) = listed(server)
    assert found["title"] == "AI agent systems need an MCP server: why? Tell me."
    assert "agent" not in found


def test_a_name_is_the_title(bench: Bench) -> None:
    server = bench.start()
    session = person(bench, SIGNED + "Find the bug.", name="The harbour")
    (found,) = listed(server)
    assert (found["title"], found["agent"]) == ("The harbour", "my-agent")
    assert look(server, session)["title"] == "The harbour"


@pytest.mark.parametrize("named", [False, True])
def test_a_title_is_one_line_of_at_most_120_characters(bench: Bench, named: bool) -> None:
    server, text = bench.start(), "a\u2028b\r\n\x1b[2Jc\t" + "\u4e2d\U0001f600" * 5000
    person(bench, *(["x"] if named else [text]), name=text if named else None)
    (found,) = listed(server)
    assert 110 < len(found["title"]) <= 120 and len(found["title"].splitlines()) == 1
    assert "\x1b" not in found["title"] and found["title"].startswith("a b ")


def test_the_text_of_a_list_can_be_read_in_a_terminal(bench: Bench) -> None:
    server = bench.start()
    made = [person(bench, f"number {n}\nmore of it", at=PAST + n) for n in range(3)]
    lines = text_of(server.call(SESSIONS, {})).splitlines()
    for n, session in enumerate(made):
        (at,) = [index for index, line in enumerate(lines) if session in line]
        assert lines[at - 1] == f"number {n} more of it"
        assert lines[at].startswith(f"  session_id: {session} | ") and "state: idle" in lines[at]


def test_the_state_tells_who_has_a_session_open(bench: Bench) -> None:
    server = bench.start()
    idle, elsewhere = person(bench), person(bench, at=PAST + 1)
    lock = store.hold(bench.home, elsewhere)
    call = running(bench, server, "busy")
    session = known(bench, server, "busy")
    found = listed(server)
    assert [(one["session_id"], one["state"]) for one in found] == [
        (session, "running"),
        (elsewhere, "open_elsewhere"),
        (idle, "idle"),
    ]
    assert look(server, elsewhere)["state"] == "open_elsewhere"
    bench.open("busy")
    session_of(server.result(call))
    store.release(bench.home, elsewhere, lock)
    assert {one["state"] for one in listed(server)} == {"idle"}


def test_a_look_leaves_no_lock_and_no_file(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    before = bench.left()
    listed(server)
    look(server, session)
    assert bench.left() == before and bench.calls() == []
    lock = store.hold(bench.home, session)
    assert lock and {one["method"] for one in bench._noted("index.jsonl") if "method" in one} == {
        "initialize",
        "initialized",
        "thread/list",
        "thread/read",
        "thread/turns/list",
    }
    store.release(bench.home, session, lock)
    nothing_left(bench, server)


# -- one session -----------------------------------------------------------------------------------


def test_a_session_tells_its_last_message_and_the_whole_answer(bench: Bench) -> None:
    server, reply = bench.start(), 'Zeile "eins"  | x: y ' + "word " * 3000 + "the end."
    session = session_of(server.chat("first"))
    session_of(server.chat(f"second\n{steps('say ' + reply, 'completed')}", session_id=session))
    found = look(server, session)
    assert set(found) == {
        *("session_id", "resume_command", "title", "agent", "cwd", "updated_at", "state"),
        *("asked", "reply"),
    }
    assert found["reply"] == reply and found["asked"].startswith("second\nFAKE:")
    assert (found["title"], found["state"]) == ("first", "idle")
    assert list(found)[:2] == ["session_id", "resume_command"]


def test_the_last_answer_is_the_same_after_a_restart(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    session_of(server.chat("second " * 500, session_id=session))
    before = look(server, session)
    server.close()
    after = look(bench.start(), session)
    assert after == before and len(after["asked"]) == 2000


def test_a_session_of_another_server_is_told_as_its_own(bench: Bench) -> None:
    one, other = bench.start(), bench.start()
    session = session_of(one.chat("hello"))
    assert look(one, session) == look(other, session)


@pytest.mark.parametrize("version", ["0.125.0", "0.147.0", "0.169.0"])
def test_of_many_messages_the_final_answer_counts(bench: Bench, version: str) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": version})
    session = person(bench, reply=None)
    for text, phase in (
        ("I look at it.", "commentary"),
        ("The answer.", "final_answer"),
        ("I clean up.", "commentary"),
    ):
        store.add(bench.home, session, "say", text=text, phase=phase)
    assert look(server, session)["reply"] == "The answer."
    plain = person(bench, reply="First I look.")
    store.add(bench.home, plain, "say", text="The last one.", phase=None)
    assert look(server, plain)["reply"] == "The last one."
    own = session_of(server.chat(steps("commentary I look.", "say The reply.", "completed")))
    assert look(server, own)["reply"] == "The reply."


@pytest.mark.parametrize("restarted", [False, True])
def test_only_a_guard_s_answer_has_a_verdict(bench: Bench, restarted: bool) -> None:
    server = bench.start()
    said = {}
    for tool, reply, verdict in (
        (PLAN, "**GO WITH CHANGES**: no red.", "go_with_changes"),
        (FINAL, "NOT DONE. The test is red.", "not_done"),
        (CHAT, "GO", None),
        (PLAN, "It depends.", None),
    ):
        first = next(iter(TOOLS[tool].required))
        order = steps("say " + reply, "completed")
        result = server.call(tool, dict(TOOLS[tool].required, **{first: order}))
        assert result["structuredContent"].get("verdict") == verdict
        said[session_of(result)] = verdict
    if restarted:
        server.close()
        server = bench.start()
    assert {session: look(server, session).get("verdict") for session in said} == said


def test_the_verdict_is_of_the_last_message(bench: Bench) -> None:
    server = bench.start()
    order = steps("say GO", "completed")
    session = session_of(server.call(PLAN, {"requirements": order, "plan": "x"}))
    session_of(server.chat(steps("say GO", "completed"), session_id=session))
    assert "verdict" not in look(server, session)
    server.close()
    assert "verdict" not in look(bench.start(), session)


ENDINGS: Dict[str, Any] = {
    "failed": (["say Halfway.", "failed the model is on fire"], ["the model is on fire"]),
    "timed out": (["say Halfway.", "hang"], ["within 3 s"]),
    "killed": (["say Halfway.", "exit 3"], []),
}


@pytest.mark.parametrize("ending", list(ENDINGS))
def test_how_the_last_turn_failed_is_told_instead_of_an_answer(bench: Bench, ending: str) -> None:
    server, (lines, words) = bench.start(), ENDINGS[ending]
    session = person(bench)
    bad(server.chat("work\n" + steps(*lines), session_id=session, timeout_ms=3000), *words)
    found = look(server, session)
    assert "reply" not in found and found["asked"].startswith("work\n")
    assert found["error"] and all(word in found["error"] for word in [*words, "Halfway."])
    server.close()
    found = look(bench.start(), session)
    assert "reply" not in found and found["error"] and found["asked"].startswith("work\n")
    assert ending != "failed" or "the model is on fire" in found["error"]


def test_a_cancelled_turn_is_told_as_stopped(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    call = running(bench, server, "busy", session_id=session)
    server.notify("notifications/cancelled", {"requestId": call})
    found = look(server, session, wait_ms=60000)
    assert found["state"] == "idle" and found["error"] and "reply" not in found


def test_a_call_that_never_began_hides_no_answer(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    before = look(server, session)
    bad(server.chat("x" * (1 << 20), session_id=session), "maximum length")
    bad(server.chat("hello", session_id=session, cwd="/nonexistent"), "nonexistent")
    assert look(server, session) == before and before["reply"]


def test_a_session_of_which_codex_keeps_nothing_is_not_listed(bench: Bench) -> None:
    server = bench.start()
    bad(server.chat("x" * (1 << 20)), "maximum length")
    assert listed(server) == []


def test_a_turn_that_is_not_over_elsewhere_has_neither_answer_nor_error(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    with Holder(bench.home, session) as holder:
        holder.person("my next question\nFAKE:say Half of it.\nFAKE:gate more\nFAKE:say The rest.")
        bench.wait(lambda: store.known(bench.home, session).turns[1:], "turn")  # type: ignore
        found = look(server, session)
        assert found["state"] == "open_elsewhere" and found["asked"].startswith("my next question")
        assert "error" not in found and "reply" not in found
        holder.open("more")
        bench.wait(lambda: look(server, session).get("reply") == "The rest.", "answer")


def test_a_turn_whose_process_is_gone_has_an_error(bench: Bench) -> None:
    server = bench.start()
    call = running(bench, server, "busy")
    session = known(bench, server, "busy")
    server.signal("SIGKILL")
    server.process.wait()
    nothing_left(bench)
    assert call and look(bench.start(), session)["error"]


def test_an_answer_to_the_person_afterwards_is_the_last_one(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.call(PLAN, TOOLS[PLAN].required))
    with Holder(bench.home, session) as holder:
        holder.person("my own question\nFAKE:say My own answer.")
        bench.wait(lambda: len(store.known(bench.home, session).turns) > 1, "turn")  # type: ignore
    found = look(server, session)
    assert (found["asked"][:15], found["reply"]) == ("my own question", "My own answer.")
    assert "verdict" not in found and "error" not in found


def test_the_same_words_again_are_another_message(bench: Bench) -> None:
    one, other = bench.start(), bench.start()
    call = running(bench, one, "busy")
    session = known(bench, one, "busy")
    one.notify("notifications/cancelled", {"requestId": call})
    assert look(one, session, wait_ms=60000)["error"]
    bench.open("busy")
    time.sleep(1.0)  # Codex's index knows the time of a turn in seconds
    assert session_of(other.chat(gated("busy"), session_id=session)) == session
    found = look(one, session)
    assert found["reply"] == "done" and "error" not in found


def test_an_answer_elsewhere_after_the_call_had_given_up_is_found(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    with Holder(bench.home, session) as holder:
        prompt = "please\nFAKE:gate busy\nFAKE:say From elsewhere."
        arguments = {"session_id": session, "background": True, "timeout_ms": 9000}
        good(server, CHAT, server.chat(prompt, **arguments))
        found = look(server, session, wait_ms=60000)
        assert "still be working" in found["error"] and "reply" not in found
        time.sleep(1.0)
        holder.open("busy")
        bench.wait(lambda: look(server, session).get("reply") == "From elsewhere.", "answer")
        assert "error" not in look(server, session)
    nothing_left(bench, server)


def test_what_is_remembered_is_told_though_the_index_does_not_answer(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    bench.trouble("thread/read error out of order")
    result = server.call(SESSIONS, {"session_id": session})
    found = good(server, SESSIONS, result)
    assert found["reply"].endswith("first") and found["asked"] == "first"
    assert "out of order" in warned(result)


def test_an_answer_after_more_output_than_is_read_is_found(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    bench.trouble("thread/turns/list verbose 40")
    result = server.call(SESSIONS, {"session_id": session})
    found = good(server, SESSIONS, result)
    assert (found["asked"], found["reply"]) == ("hello", "hi") and not warned(result)


def test_an_unknown_session_is_said_to_be_unknown(bench: Bench) -> None:
    server = bench.start()
    text = bad(server.call(SESSIONS, {"session_id": UNKNOWN}), UNKNOWN)
    assert re.search("not loaded|unknown|no such|not know|no session", text)
    assert "codex resume " not in text


def test_the_last_hundred_sessions_are_remembered(bench: Bench) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": "0.120.0"})
    calls = [server.start_call(CHAT, {"prompt": f"number {n}"}) for n in range(104)]
    sessions = [session_of(server.result(call)) for call in calls]
    order = [one for one in bench.calls() if one["session"] in sessions]
    assert len(order) == 104
    found = server.call(SESSIONS, {"limit": 50})["structuredContent"]["sessions"]
    told = [server.call(SESSIONS, {"session_id": one}) for one in sessions]
    known = [one["structuredContent"]["reply"] for one in told if not one.get("isError")]
    assert len(found) == 50 and len(known) >= 100


# -- waiting for an answer -------------------------------------------------------------------------


def test_an_answer_can_be_waited_for(bench: Bench) -> None:
    server = bench.start()
    call = running(bench, server, "busy")
    session = known(bench, server, "busy")
    waits = [
        server.start_call(SESSIONS, {"session_id": session, "wait_ms": 7200000}, token=f"w{n}")
        for n in range(3)
    ]
    for n in range(3):
        server.wait_for(
            lambda: any(session in one["message"] for one in server.progress(f"w{n}")),
            "progress of the wait",
        )
    bench.open("busy")
    assert server.result(call)["structuredContent"]["reply"] == "done"
    for wait in waits:
        found = good(server, SESSIONS, server.result(wait))
        assert (found["state"], found["reply"]) == ("idle", "done")


def test_while_a_call_runs_there_is_no_answer_yet(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    call = running(bench, server, "busy", session_id=session)
    for wait_ms in (0, 700):
        found = look(server, session, wait_ms=wait_ms)
        assert found["state"] == "running" and found["asked"].startswith("work\n")
        assert "reply" not in found and "error" not in found and "verdict" not in found
    bench.open("busy")
    session_of(server.result(call))


def test_the_wait_is_for_calls_in_line_too(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    running(bench, server, "one", session_id=session)
    second = server.start_call(
        CHAT, {"prompt": gated("two", "second"), "session_id": session}, token="two"
    )
    wait = server.start_call(SESSIONS, {"session_id": session, "wait_ms": 60000})
    bench.open("one")
    bench.reached("two")
    assert look(server, session)["state"] == "running" and server.responses(wait) == []
    bench.open("two")
    session_of(server.result(second))
    assert good(server, SESSIONS, server.result(wait))["reply"] == "second"


def test_a_wait_without_anything_to_wait_for_ends_at_once(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    begin = time.monotonic()
    assert look(server, session, wait_ms=7200000)["reply"] == "hi"
    assert time.monotonic() - begin < 20


def test_a_cancelled_wait_does_not_disturb_the_call(bench: Bench) -> None:
    server = bench.start()
    call = running(bench, server, "busy")
    session = known(bench, server, "busy")
    wait = server.start_call(SESSIONS, {"session_id": session, "wait_ms": 60000}, token="w")
    server.wait_for(lambda: server.progress("w"), "progress")
    server.notify("notifications/cancelled", {"requestId": wait})
    server.ask("ping")
    assert look(server, session)["state"] == "running"
    bench.open("busy")
    assert server.result(call)["structuredContent"]["reply"] == "done"
    assert look(server, session)["reply"] == "done" and server.responses(wait) == []


def test_many_look_while_calls_run_wait_and_are_stopped(bench: Bench) -> None:
    server = bench.start()
    sessions = [session_of(server.chat(f"open {n}")) for n in range(3)]
    first = running(bench, server, "one", session_id=sessions[0])
    second = server.start_call(CHAT, {"prompt": "second", "session_id": sessions[0]})
    doomed = running(bench, server, "doomed", session_id=sessions[1])
    looks = [
        server.start_call(SESSIONS, arguments)
        for _ in range(8)
        for arguments in [{}] + [{"session_id": one, "wait_ms": 300} for one in sessions]
    ]
    server.notify("notifications/cancelled", {"requestId": doomed})
    bench.open("one")
    for one in looks:
        good(server, SESSIONS, server.result(one))
    assert server.result(first)["structuredContent"]["reply"] == "done"
    reply = server.result(second)["structuredContent"]["reply"]
    assert reply.startswith("You sent 1 messages before this one")  # the gated one has no message
    assert look(server, sessions[0])["reply"] == reply
    assert len(bench.calls()) == 6
    nothing_left(bench, server)


def test_an_answer_that_came_after_the_client_had_given_up_is_found(bench: Bench) -> None:
    server = bench.start()
    running(bench, server, "busy")  # and nobody cares for the answer, nor says so
    (found,) = listed(server)
    session = found["session_id"]
    assert found["state"] == "running" and session == bench.calls()[0]["session"]
    bench.open("busy")
    assert look(server, session, wait_ms=60000)["reply"] == "done"
    server.close()
    assert look(bench.start(), session)["reply"] == "done"


# -- calls in the background -----------------------------------------------------------------------


@pytest.mark.parametrize("tool", TURNS)
@pytest.mark.parametrize("version", ["0.77.0", "0.169.0"])
def test_a_call_in_the_background_answers_when_codex_has_begun(
    bench: Bench, tool: str, version: str
) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": version})
    first = next(iter(TOOLS[tool].required))
    arguments = dict(TOOLS[tool].required, background=True, **{first: gated("busy", "GO, DONE")})
    result = server.call(tool, arguments, token="p")
    found = good(server, tool, result)
    session = bench.calls()[0]["session"]
    assert set(found) == {"session_id", "resume_command", "state", "next"}
    assert (found["session_id"], found["state"]) == (session, "running")
    assert SESSIONS in found["next"] and "wait_ms" in found["next"]
    assert found["resume_command"] == bench.resume(session)
    told = len(server.progress("p"))
    bench.open("busy")
    for _ in range(3):
        answer = server.call(SESSIONS, {"session_id": session, "wait_ms": 60000})
        assert good(server, SESSIONS, answer)["reply"] == "GO, DONE"
    assert len(server.progress("p")) == told  # none after the answer


def test_the_verdict_of_a_review_in_the_background_is_found(bench: Bench) -> None:
    server = bench.start()
    order = steps("say **STOP**: it is wrong.", "completed")
    result = server.call(PLAN, {"requirements": order, "plan": "x", "background": True})
    found = look(server, session_of(result), wait_ms=60000)
    assert (found["verdict"], found["reply"]) == ("stop", "**STOP**: it is wrong.")


def test_a_cancel_after_the_answer_stops_nothing(bench: Bench) -> None:
    server = bench.start()
    call = server.start_call(CHAT, {"prompt": gated("busy"), "background": True})
    session = session_of(server.result(call))
    server.notify("notifications/cancelled", {"requestId": call})
    server.ask("ping")
    bench.reached("busy")
    assert look(server, session)["state"] == "running"
    bench.open("busy")
    assert look(server, session, wait_ms=60000)["reply"] == "done"
    assert len(server.responses(call)) == 1


def test_a_cancel_before_the_answer_stops_the_call(bench: Bench) -> None:
    server = bench.start()
    prompt = "FAKE:session\nFAKE:gate early\nFAKE:started\nFAKE:say no\nFAKE:completed"
    call = server.start_call(CHAT, {"prompt": prompt, "background": True})
    bench.reached("early")
    server.notify("notifications/cancelled", {"requestId": call})
    nothing_left(bench, server)
    assert server.responses(call) == []


def test_a_failure_before_codex_has_begun_is_the_answer(bench: Bench) -> None:
    server = bench.start()
    bad(server.chat("FAKE:session\nFAKE:failed on strike", background=True), "on strike")
    bad(server.chat("x", background=True, session_id=UNKNOWN), "no rollout found")
    bad(server.chat("x", background=True, cwd="/does/not/exist"), "cwd")
    bad(bench.start(env={"CODEX_BIN": "/does/not/exist"}).chat("x", background=True), "CODEX_BIN")
    late = server.chat("FAKE:session\nFAKE:hang", background=True, timeout_ms=3000)
    bad(late, "within 3 s", "timeout_ms")


def test_a_failure_in_the_background_is_kept(bench: Bench) -> None:
    server = bench.start()
    order = steps("gate busy", "say Halfway.", "failed the model is on fire")
    session = session_of(server.chat(order, background=True))
    bench.open("busy")
    for _ in range(2):
        found = look(server, session, wait_ms=60000)
        assert "the model is on fire" in found["error"] and "reply" not in found


def test_a_timeout_in_the_background_is_kept(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat(steps("hang"), background=True, timeout_ms=3000))
    found = look(server, session, wait_ms=60000)
    assert "within 3 s" in found["error"] and found["state"] == "idle"
    nothing_left(bench, server)


def test_when_the_client_leaves_what_runs_in_the_background_is_stopped(bench: Bench) -> None:
    server = bench.start()
    order = steps("stubborn", "grandchild", "gate busy", "say no", "completed")
    session = session_of(server.chat(order, background=True))
    bench.reached("busy")
    assert server.close() == 0
    nothing_left(bench)
    assert "reply" not in look(bench.start(), session)


def test_calls_in_the_background_wait_in_line(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat(gated("one", "first"), background=True))
    calls = [
        server.start_call(
            CHAT,
            {"prompt": gated(name, name), "session_id": session, "background": True},
            token=name,
        )
        for name in ("two", "three")
    ]
    server.wait_for(lambda: server.progress("three"), "progress")
    assert len(bench.calls()) == 1 and server.responses(calls[0]) == []
    bench.open("one")
    assert session_of(server.result(calls[0])) == session
    bench.reached("two")
    assert server.responses(calls[1]) == []
    bench.open("two")
    assert session_of(server.result(calls[1])) == session
    bench.open("three")
    assert look(server, session, wait_ms=60000)["reply"] == "three"


def test_a_copy_in_the_background_is_a_session_of_its_own(bench: Bench) -> None:
    server, original = bench.start(), person(bench)
    result = server.chat(gated("busy"), session_id=original, fork=True, background=True)
    found = good(server, CHAT, result)
    assert found["session_id"] != original and found["forked_from"] == original
    assert look(server, original)["state"] == "idle"
    bench.open("busy")
    assert look(server, found["session_id"], wait_ms=60000)["reply"] == "done"


def test_a_session_that_is_open_in_a_window_takes_a_call_in_the_background(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    prompt = "please\nFAKE:gate busy\nFAKE:say From the window."
    with FakeDaemon(bench.home, session) as daemon:
        result = server.chat(prompt, session_id=session, background=True)
        assert good(server, CHAT, result)["state"] == "running"
        assert len(daemon.turns) == 1 and look(server, session)["state"] == "running"
        daemon.open("busy")
        assert look(server, session, wait_ms=60000)["reply"] == "From the window."


def test_a_session_that_is_open_elsewhere_takes_a_call_in_the_background(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    with Holder(bench.home, session) as holder:
        prompt = "please\nFAKE:gate busy\nFAKE:say From elsewhere."
        result = server.chat(prompt, session_id=session, background=True)
        assert good(server, CHAT, result)["state"] == "running" and len(holder.taken) == 1
        holder.open("busy")
        assert look(server, session, wait_ms=60000)["reply"] == "From elsewhere."
    nothing_left(bench, server)


# -- codex_stop ------------------------------------------------------------------------------------


def test_a_running_call_is_stopped_and_told_so(bench: Bench) -> None:
    server = bench.start()
    order = steps("grandchild", "gate busy", "say no", "completed")
    call = server.start_call(CHAT, {"prompt": order}, token="p")
    bench.reached("busy")
    session = known(bench, server, "p")
    result = server.call(STOP, {"session_id": session})
    found = good(server, STOP, result)
    assert found == {
        "session_id": session,
        "resume_command": bench.resume(session),
        "stopped": 1,
    }
    nothing_left(bench, server)
    bad(server.result(call), "stopped", STOP, bench.resume(session))
    told = look(server, session)
    assert told["state"] == "idle" and "stopped" in told["error"] and "reply" not in told
    assert session_of(server.chat("go on", session_id=session)) == session


def test_a_call_in_the_background_is_stopped(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat(gated("busy"), background=True))
    assert stop(server, session) == 1
    assert "stopped" in look(server, session)["error"]
    nothing_left(bench, server)


def test_calls_in_line_are_stopped_too_and_never_run(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    calls = [running(bench, server, "busy", session_id=session)]
    calls += [
        server.start_call(CHAT, {"prompt": f"line {n}", "session_id": session}) for n in range(3)
    ]
    wait = server.start_call(SESSIONS, {"session_id": session, "wait_ms": 60000})
    assert stop(server, session) == 4
    for call in calls:
        bad(server.result(call), "stopped")
    assert (
        len(bench.calls()) == 2 and "stopped" in server.result(wait)["structuredContent"]["error"]
    )
    assert session_of(server.chat("go on", session_id=session)) == session


def test_calls_on_other_sessions_and_of_other_servers_go_on(bench: Bench) -> None:
    server, other = bench.start(), bench.start()
    mine = session_of(server.chat(gated("mine"), background=True))
    theirs = session_of(other.chat(gated("theirs"), background=True))
    assert stop(server, theirs) == 0 and stop(server, mine) == 1
    bench.open("theirs")
    assert look(other, theirs, wait_ms=60000)["reply"] == "done"


def test_where_nothing_runs_nothing_is_stopped_and_that_is_no_error(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat("first"))
    assert [stop(server, one) for one in (session, session, UNKNOWN)] == [0, 0, 0]
    assert look(server, session)["reply"].endswith("first")
    assert not [one for one in bench.index("thread/read") if one["params"]["threadId"] == UNKNOWN]


def test_two_may_stop_the_same_call(bench: Bench) -> None:
    server = bench.start()
    session = session_of(server.chat(steps("stubborn", "gate busy"), background=True))
    bench.reached("busy")
    both = [server.start_call(STOP, {"session_id": session}) for _ in range(2)]
    counts = [good(server, STOP, server.result(one))["stopped"] for one in both]
    assert counts[0] == 1 and counts[1] in (0, 1)
    nothing_left(bench, server)


@pytest.mark.parametrize("dress", [str.upper, lambda text: f" {text}\n"], ids=["upper", "spaces"])
def test_a_session_is_stopped_in_whatever_dress_its_id_comes(
    bench: Bench, dress: Callable[[str], str]
) -> None:
    server = bench.start()
    session = session_of(server.chat(gated("busy"), background=True))
    found = server.call(STOP, {"session_id": dress(session)})["structuredContent"]
    assert (found["session_id"], found["stopped"]) == (session, 1)


def test_stopping_works_with_every_version(bench: Bench) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": "0.77.0"})
    session = session_of(server.chat(gated("busy"), background=True))
    assert stop(server, session) == 1
    assert "stopped" in server.call(SESSIONS, {"session_id": session})["structuredContent"]["error"]


# -- the command for the person --------------------------------------------------------------------

PASTED = '#!/bin/sh\nprintf "%s\\n" "${CODEX_HOME-unset}" "$@"\n'


def pasted(bench: Bench, command: str) -> List[str]:
    """What `codex` gets of a command that a person pastes into a shell: its home, its arguments."""
    folder = os.path.join(bench.notes, "bin")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "codex")
    with open(path, "w", encoding="utf-8") as file:
        file.write(PASTED)
    os.chmod(path, 0o755)
    env = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": bench.work}
    out = subprocess.run(["sh", "-c", command], env=env, stdout=subprocess.PIPE, timeout=30).stdout
    return out.decode().splitlines()


@pytest.mark.parametrize(
    "name",
    ["plain", "with space", "quote's", 'double"', "$HOME", "`id`;&|*?[a]", "\u00e9\u4e2d", "-x=y"],
)
def test_the_resume_command_works_where_it_is_pasted(bench: Bench, name: str) -> None:
    home = os.path.join(bench.work, name)
    os.mkdir(home)
    server = bench.start(env={"CODEX_HOME": home})
    result = server.chat("hello")
    session = session_of(result)
    commands = [
        result["structuredContent"]["resume_command"],
        listed(server)[0]["resume_command"],
        look(server, session)["resume_command"],
        server.call(STOP, {"session_id": session})["structuredContent"]["resume_command"],
    ]
    failure = bad(server.chat(steps("failed no"), session_id=session))
    commands += re.findall("^resume_command: (.*)$", failure, re.MULTILINE)
    assert len(commands) == 5 and len(set(commands)) == 1
    assert pasted(bench, commands[0]) == [home, "resume", session]
    assert commands[0] in text_of(result).split("\n")[0]


def test_progress_has_the_whole_resume_command(bench: Bench) -> None:
    home = os.path.join(bench.work, *["a folder of a rather long name, as some have it"] * 9)
    os.makedirs(home)
    server = bench.start(env={"CODEX_HOME": home})
    result = server.call(CHAT, {"prompt": "hello"}, token="p")
    command = result["structuredContent"]["resume_command"]
    assert any(command in one["message"] for one in server.progress("p"))


@pytest.mark.parametrize("given", ["", "{}/.codex", "~/.codex", "{}/x/../.codex/"])
def test_with_the_usual_codex_home_the_command_is_short(bench: Bench, given: str) -> None:
    home = os.path.join(bench.work, ".codex")
    os.mkdir(home)
    server = bench.start(env={"CODEX_HOME": given.format(bench.work), "HOME": bench.work})
    result = server.chat("hello")
    session = session_of(result)
    assert result["structuredContent"]["resume_command"] == "codex resume " + session
    assert listed(server)[0]["resume_command"] == "codex resume " + session
    assert "sessions" in os.listdir(home)
    assert pasted(bench, "codex resume " + session) == ["unset", "resume", session]


# -- the directory of a session --------------------------------------------------------------------


def directory(bench: Bench) -> str:
    """The directory in which the newest call of Codex worked."""
    argv: List[str] = bench.calls()[-1]["argv"]
    return argv[argv.index("-C") + 1]


def gone(home: str, session: str) -> None:
    os.unlink(store.rollouts(home, session)[0])


@pytest.mark.parametrize("lost", [store.archive, store.hide, gone])
def test_the_directory_of_a_session_whose_file_does_not_tell_is_codex_s_to_know(
    bench: Bench, lost: Callable[[str, str], None]
) -> None:
    own = os.path.join(bench.work, "own")
    os.mkdir(own)
    session = make_session(bench.home, own, at=PAST)
    lost(bench.home, session)
    result = bench.start().chat("hello", session_id=session)
    assert directory(bench) == own and len(bench.index()) == 1
    if lost is store.hide:  # the fake codex refuses the others
        assert session_of(result) == session and "not known" not in text_of(result)


def test_a_session_whose_file_tells_costs_no_question(bench: Bench) -> None:
    own = os.path.join(bench.work, "own")
    os.mkdir(own)
    session = make_session(bench.home, own, at=PAST)
    session_of(bench.start().chat("hello", session_id=session))
    assert directory(bench) == own and bench.index() == []


@pytest.mark.parametrize("trouble", ["error", "null", "missing", "types", "unknown"])
def test_a_directory_that_nobody_knows_is_said_in_a_warning(bench: Bench, trouble: str) -> None:
    server, own = bench.start(), os.path.join(bench.work, "own")
    os.mkdir(own)
    session = make_session(bench.home, own, at=PAST)
    store.hide(bench.home, session)
    bench.trouble("thread/read " + trouble)
    result = server.chat("hello", session_id=session)
    (warning,) = [
        text
        for text in result["structuredContent"]["warnings"]
        if text.startswith("The directory of this session is not known")
    ]
    assert bench.work in warning and warning in text_of(result)
    assert directory(bench) == bench.work
    given = server.chat("hello", session_id=session, cwd=own)
    assert directory(bench) == own and session_of(given) == session


def test_an_old_codex_is_not_asked_for_a_directory(bench: Bench) -> None:
    server = bench.start(env={"FAKE_CODEX_VERSION": "0.120.0"})
    session = make_session(bench.home, bench.work, at=PAST)
    store.hide(bench.home, session)
    result = server.chat("hello", session_id=session)
    assert "The directory of this session is not known" in warned(result)
    assert bench.index() == []


# -- old versions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.77.0", "0.98.0", "0.120.0"])
def test_with_an_old_codex_the_server_s_own_sessions_are_found(bench: Bench, version: str) -> None:
    server, foreign = bench.start(env={"FAKE_CODEX_VERSION": version}), person(bench)
    result = server.call(SESSIONS, {})
    assert good(server, SESSIONS, result)["sessions"] == [] and NEEDS in warned(result)
    first, second = [session_of(server.chat(text)) for text in ("first", "second")]
    other = session_of(server.chat("third", cwd="/"))
    result = server.call(SESSIONS, {})
    found = good(server, SESSIONS, result)["sessions"]
    assert set(ids(found)) == {first, second} and NEEDS in warned(result)
    assert {one["title"] for one in found} == {"first", "second"}
    for one in found:
        assert one["cwd"] == bench.work and one["state"] == "idle" and one["updated_at"]
        assert one["agent"] == "test-client"
    assert ids(server.call(SESSIONS, {"cwd": "/"})["structuredContent"]["sessions"]) == [other]
    assert len(server.call(SESSIONS, {"all": True})["structuredContent"]["sessions"]) == 3
    assert len(server.call(SESSIONS, {"limit": 1})["structuredContent"]["sessions"]) == 1

    told = good(server, SESSIONS, server.call(SESSIONS, {"session_id": first}))
    assert told["reply"].endswith("first") and told["asked"] == "first"
    bad(server.call(SESSIONS, {"session_id": foreign}), NEEDS)
    call = running(bench, server, "busy", session_id=first)
    assert server.call(SESSIONS, {"session_id": first})["structuredContent"]["state"] == "running"
    bench.open("busy")
    session_of(server.result(call))
    assert bench.index() == []  # no app-server was started


def test_from_0_125_on_all_sessions_are_found(bench: Bench) -> None:
    server, foreign = bench.start(env={"FAKE_CODEX_VERSION": "0.125.0"}), person(bench)
    own = session_of(server.chat("first"))
    assert ids(listed(server)) == [own, foreign]
    assert look(server, own)["reply"].endswith("first") and look(server, foreign)["reply"] == "hi"
    server.close()
    assert look(bench.start(env={"FAKE_CODEX_VERSION": "0.125.0"}), own)["asked"] == "first"


# -- an index that misbehaves ----------------------------------------------------------------------

POINTS = {
    "initialize": "thread/read",
    "thread/list": "",
    "thread/read": "thread/read",
    "thread/turns/list": "thread/read",
}
#: Misbehaviours after which an answer comes, or the connection ends.
ODD = (
    *("die", "die 0", "garbage", "list", "null", "text", "number", "empty", "missing", "types"),
    *("junk", "other-thread", "error", "error broken", "error-odd", "error-null", "both"),
    *("unknown", "twice", "asks", "huge 8", "late 1"),
)
#: Those after which none comes.
MUTE = ("silent", "half", "close-stdout", "flood", "long-line", "wrong-id", "string-id", "huge 64")
#: What does no harm.
HARMLESS = ("garbage", "twice", "asks", "late 1")


def survives(bench: Bench, server: Client, own: str, foreign: str, calls: List[Any]) -> None:
    """Three lookups end in time and well: a list, a session of the server's own, a foreign one."""
    list_of, mine, other = [server.result(call, BOUNDED) for call in calls]
    assert own in ids(good(server, SESSIONS, list_of)["sessions"])
    found = good(server, SESSIONS, mine)
    assert found["session_id"] == own and found["reply"].endswith("first")
    if not other.get("isError"):
        found = good(server, SESSIONS, other)
        assert found["session_id"] == foreign
        assert found.get("reply") in (None, "", "hi")
    else:
        bad(other)
    for one in (list_of, mine, other):
        assert "Infinity" not in text_of(one) and len(text_of(one)) < 5000


def ask_all(server: Client, own: str, foreign: str) -> List[Any]:
    return [
        server.start_call(SESSIONS, arguments)
        for arguments in ({}, {"session_id": own}, {"session_id": foreign})
    ]


@pytest.mark.parametrize("point", list(POINTS))
def test_an_index_that_answers_oddly_costs_no_answer(bench: Bench, point: str) -> None:
    server, foreign = bench.start(), person(bench)
    own = session_of(server.chat("first"))
    for what in ODD:
        bench.trouble(f"{point} {what}")
        try:
            survives(bench, server, own, foreign, ask_all(server, own, foreign))
            if what in HARMLESS:
                assert ids(listed(server)) == [own, foreign]
                assert look(server, foreign)["reply"] == "hi"
                assert "warnings" not in look(server, own)
        except AssertionError as failed:
            raise AssertionError(f"at {point} {what}: {failed}") from None
    bench.trouble("")
    assert ids(listed(server)) == [own, foreign] and look(server, foreign)["reply"] == "hi"
    nothing_left(bench, server)


@pytest.mark.parametrize("point", list(POINTS))
def test_an_index_that_does_not_answer_ends_in_bounded_time(bench: Bench, point: str) -> None:
    foreign, servers = person(bench), []
    for what in MUTE:
        server = bench.start(env={"FAKE_INDEX": f"{point} {what}"})
        servers.append((what, server, session_of(server.chat("first"))))
    asked = [ask_all(server, own, foreign) for _, server, own in servers]
    for (what, server, own), calls in zip(servers, asked):
        try:
            survives(bench, server, own, foreign, calls)
            results = [server.result(call) for call in calls]
            hurt = results[0] if point == "thread/list" else results[1]
            assert what == "huge 64" or warned(hurt), results
            assert session_of(server.chat("go on", session_id=own)) == own
        except AssertionError as failed:
            raise AssertionError(f"at {point} {what}: {failed}") from None
    nothing_left(bench, *[server for _, server, _ in servers])


STARTS = ("start silent", "start die", "start flood", "start long-line", "start garbage")
STARTS += ("start child", "start child-detached", "end ignore", "initialized die")


def test_an_app_server_that_does_not_come_up_or_go_down_leaves_nothing(bench: Bench) -> None:
    foreign, servers = person(bench), []
    for what in STARTS:
        server = bench.start(env={"FAKE_INDEX": what})
        servers.append((what, server, session_of(server.chat("first"))))
    asked = [ask_all(server, own, foreign) for _, server, own in servers]
    for (what, server, own), calls in zip(servers, asked):
        try:
            survives(bench, server, own, foreign, calls)
        except AssertionError as failed:
            raise AssertionError(f"with {what}: {failed}") from None
    nothing_left(bench, *[server for _, server, _ in servers])


def test_a_warning_says_in_words_what_went_wrong_with_the_index(bench: Bench) -> None:
    server = bench.start()
    own = session_of(server.chat("first"))
    bench.trouble("thread/list error the disk is full")
    result = server.call(SESSIONS, {})
    assert ids(good(server, SESSIONS, result)["sessions"]) == [own]
    assert "the disk is full" in warned(result) and '{"' not in warned(result)
    bench.trouble("initialize die")
    assert "fake panic" in warned(server.call(SESSIONS, {}))


def test_no_more_than_two_app_servers_are_asked_at_once(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    bench.trouble("initialize gate held")
    calls = [
        server.start_call(SESSIONS, {"session_id": session} if n % 2 else {}, token=f"t{n}")
        for n in range(6)
    ]
    bench.wait(lambda: len(bench.index()) == 2, "two app-servers")
    server.wait_for(
        lambda: sum(bool(server.progress(f"t{n}")) for n in range(6)) >= 4, "four that wait"
    )
    assert len(bench.index()) == 2
    assert session_of(server.chat("calls do not wait for that"))
    bench.open("held")
    for call in calls:
        good(server, SESSIONS, server.result(call))
    assert len(bench.index()) == 6
    nothing_left(bench, server)


def test_a_cancelled_lookup_ends_its_app_server(bench: Bench) -> None:
    server, session = bench.start(), person(bench)
    bench.trouble("thread/read silent")
    call = server.start_call(SESSIONS, {"session_id": session})
    bench.wait(lambda: bench.index("thread/read"), "question")
    server.notify("notifications/cancelled", {"requestId": call})
    nothing_left(bench, server)
    bench.trouble("")
    assert look(server, session)["reply"] == "hi" and server.responses(call) == []


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "end of input"])
@pytest.mark.parametrize("trouble", ["start silent", "thread/list silent", "end ignore"])
def test_nothing_is_left_of_an_app_server_when_the_server_ends(
    bench: Bench, ending: str, trouble: str
) -> None:
    server = bench.start(env={"FAKE_INDEX": f"thread/list silent;{trouble}"})
    server.start_call(SESSIONS, {})
    bench.wait(bench.index, "app-server")
    assert len(processes(bench)) >= 2
    if ending == "end of input":
        server.process.stdin.close()
    else:
        server.signal(ending)
    server.process.wait(GONE)
    nothing_left(bench)
