"""A session of the real Codex that another process has open, and what a call on it comes to.

In `make e2e` that is an app-server over stdio, as an editor's panel has it; `make versions` adds
windows of `codex resume` of versions that have no control socket.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from app_server import AppServer
from client import Client, session_of, text_of
from real import Real, Terminal, wait
from tools import CHAT, FINAL

#: Seconds: a holder looks every ten for messages; until a lock is said to be free at once.
SOON, AT_ONCE = 25, 8


def numbers(version: str) -> Tuple[int, ...]:
    return tuple(map(int, version.split(".")))


class Held:
    """A session that an agent began, and the app-server that then opened it."""

    def __init__(self, real: Real) -> None:
        self.real, self.client = real, real.start()
        said = self.client.chat("My cat is called Pomponius.\nMODEL:SAY A fine name.")
        self.session = session_of(said)
        self.holder = AppServer(real)
        # Without `excludeTurns`: this is what a window or panel asks for.
        self.holder.ask("thread/resume", threadId=self.session)

    def call(self, prompt: str, token: Any = None, **arguments: Any) -> Any:
        arguments.update(prompt=prompt, session_id=self.session)
        return self.client.start_call(CHAT, arguments, token)

    def chat(self, prompt: str, **arguments: Any) -> Any:
        return self.client.result(self.call(prompt, "chat", **arguments))

    def is_taken(self, text: str) -> None:
        wait(lambda: text in self.real.heard(), "the message at the model")


@pytest.fixture
def held(real: Real) -> Iterator[Held]:
    held = Held(real)
    yield held
    held.holder.close()


def ran_there(result: Any, session: str) -> bool:
    assert session_of(result) == session, result
    warnings = result["structuredContent"].get("warnings", [])
    return any("open elsewhere" in text for text in warnings)


@pytest.mark.versions((0, 149))
def test_a_call_is_answered_through_an_app_server_that_has_the_session_open(held: Held) -> None:
    result = held.chat("The agent asks about the harbour.\nMODEL:SAY The harbour is deep.")
    assert ran_there(result, held.session)
    assert result["structuredContent"]["reply"] == "The harbour is deep."
    heard = held.real.heard()
    assert "Pomponius" in heard and "AI agent test-client MCP" in heard
    told = str(held.client.progress("chat"))
    assert "Queued" in told and "socket" not in told
    assert not held.holder.queue(held.session)
    # Nothing but the server and the holder is left: no app-server of its own.
    pids = {held.client.process.pid, held.holder.process.pid}

    def others() -> List[str]:
        those = held.real.processes()
        family = {p.pid for p in those if p.pid in pids or p.parent in pids}
        return [p.command for p in those if p.pid not in family and "app-server" in p.command]

    wait(lambda: not others(), others, 10)

    held.holder.close()
    begin = time.monotonic()
    result = held.chat("It is closed.\nMODEL:SAY Gone on.")
    assert not ran_there(result, held.session) and time.monotonic() - begin < AT_ONCE
    assert "The harbour is deep." in held.real.heard()
    assert len(held.real.rollouts()) == 1


@pytest.mark.versions((0, 149))
def test_a_turn_that_runs_there_is_waited_for_and_not_disturbed(held: Held) -> None:
    text = "The person is first. MODEL:WAIT 9"
    held.holder.ask("turn/start", threadId=held.session, input=[{"type": "text", "text": text}])
    held.is_taken("The person is first")
    result = held.chat("The agent is second.\nMODEL:SAY Second.")
    assert ran_there(result, held.session) and result["structuredContent"]["reply"] == "Second."
    turns = held.holder.ask("thread/turns/list", threadId=held.session, limit=5)["data"]
    assert ["second" in json.dumps(turn["items"][0]) for turn in turns] == [True, False, False]
    assert "You wrote: The person is first" in json.dumps(turns[1]["items"])


@pytest.mark.versions((0, 149))
def test_a_message_that_is_cancelled_while_it_is_queued_is_not_answered(held: Held) -> None:
    id = held.call("Never to be heard.")
    wait(lambda: held.holder.queue(held.session), "queued message")
    held.client.notify("notifications/cancelled", {"requestId": id})
    wait(lambda: not held.holder.queue(held.session), "withdrawal", 5)
    result = held.chat("Next.\nMODEL:SAY Next.")
    assert ran_there(result, held.session) and held.client.responses(id) == []
    assert "Never to be heard" not in held.real.heard()


@pytest.mark.versions((0, 149))
def test_a_holder_that_goes_away_leaves_a_failure_or_an_answer(held: Held) -> None:
    id = held.call("Wait for me.\nMODEL:SAY Here.")
    wait(lambda: held.holder.queue(held.session), "queued message")
    held.holder.close()
    result = held.client.result(id)
    assert not ran_there(result, held.session)
    assert result["structuredContent"]["reply"] == "Here."

    held.holder = AppServer(held.real)
    held.holder.ask("thread/resume", threadId=held.session)
    id = held.call("A long turn.\nMODEL:WAIT 60")
    held.is_taken("A long turn.")
    held.holder.kill()
    text = text_of(held.client.result(id, 40))
    assert "may still be working" in text or "interrupted" in text, text
    assert held.real.resume(held.session) in text and "socket" not in text
    assert not ran_there(held.chat("Go on.\nMODEL:SAY Gone on."), held.session)


@pytest.mark.versions((0, 149))
def test_a_failed_turn_there_is_told_in_codex_words(held: Held) -> None:
    result = held.chat("MODEL:FAIL 400")
    text = text_of(result)
    assert result["isError"] is True and '{"' not in text and "codex resume" in text
    assert re.search("400|strike|Bad Request", text), text


@pytest.mark.versions((0, 149))
def test_a_guard_is_refused_at_once_and_goes_on_in_a_fork(held: Held) -> None:
    order = "Check this.\nMODEL:RUN touch written; echo touched\nMODEL:SAY GO"
    given: Dict[str, Any] = {"change_summary": order, "session_id": held.session}
    before, begin = len(held.real.model.requests), time.monotonic()
    text = text_of(held.client.call(FINAL, given))
    assert "fork" in text and time.monotonic() - begin < AT_ONCE
    assert not held.holder.queue(held.session) and len(held.real.model.requests) == before

    result = held.client.call(FINAL, dict(given, fork=True))
    structured = result["structuredContent"]
    assert structured["review"] == "GO" and structured["forked_from"] == held.session
    assert structured["session_id"] != held.session and os.listdir(held.real.work) == []
    assert "Pomponius" in held.real.heard()


# -- windows ---------------------------------------------------------------------------------------


def opened(real: Real) -> Tuple[Client, str, Terminal]:
    """A client, a session that it began, and the window in which that is open."""
    client = real.start()
    session = session_of(client.chat("My cat is called Pomponius.\nMODEL:SAY A fine name."))
    window = Terminal(real, ["resume", session])
    window.wait_for("A fine name.")
    return client, session, window


def test_a_call_on_a_session_that_is_open_in_a_window(real: Real) -> None:
    client, session, window = opened(real)
    version = numbers(real.version)

    def chat(prompt: str) -> Any:
        return client.call(CHAT, {"prompt": prompt, "session_id": session}, token="p")

    with window:
        begin = time.monotonic()
        result = chat("About the harbour.\nMODEL:SAY The harbour is deep.")
        took = time.monotonic() - begin
        if version < (
            0,
            147,
        ):  # no lock: neither sees the other's turns until the window is reopened
            assert not ran_there(result, session)
            time.sleep(3)
            assert "The harbour is deep." not in window.screen()
        elif version < (0, 149):
            text = text_of(result)
            assert result["isError"] and "`codex resume` window" in text and took < AT_ONCE
            assert "The harbour" not in real.heard()
        else:  # through the queue; from 0.157 on, on the daemon
            assert ran_there(result, session) and took < SOON
            assert result["structuredContent"]["reply"] == "The harbour is deep."
            window.wait_for("The harbour is deep.")
            assert "Pomponius" in real.heard()
            assert ("Queued" in str(client.progress("p"))) is (version < (0, 157))
    if version < (0, 157):
        begin = time.monotonic()
        result = chat("It is closed.\nMODEL:SAY Gone on.")
        assert not ran_there(result, session) and time.monotonic() - begin < AT_ONCE
        again = Terminal(real, ["resume", session])
        with again:
            again.wait_for("Gone on.")


@pytest.mark.versions((0, 149), (0, 157))
def test_a_call_that_times_out_says_what_became_of_its_message_in_the_window(
    real: Real,
) -> None:
    client, session, window = opened(real)
    with window:
        result = client.chat("A long turn.\nMODEL:WAIT 40", session_id=session, timeout_ms=20000)
        text = text_of(result)
        assert result["isError"] and "may still be working" in text
        window.type("Escape")
        window.wait_for("interrupted")
        text = text_of(client.chat("Next.", session_id=session, timeout_ms=8000))
        assert "Nothing was sent" in text and "8 s" in text
        window.close()
        result = client.chat("Go on.\nMODEL:SAY Gone on.", session_id=session)
        assert result["structuredContent"]["reply"] == "Gone on."
        assert "Next." not in real.heard()


@pytest.mark.versions((0, 148))
def test_a_fork_of_a_session_that_is_open_in_a_window_is_one_of_its_own(real: Real) -> None:
    client, session, window = opened(real)
    with window:
        result = client.chat("A copy.\nMODEL:SAY In the copy.", session_id=session, fork=True)
        structured = result["structuredContent"]
        fork = structured["session_id"]
        assert structured["forked_from"] == session != fork
        assert structured["reply"] == "In the copy." and "forked_from: " in text_of(result)
        assert "Pomponius" in real.heard() and len(real.rollouts()) == 2
        result = client.chat("More.\nMODEL:SAY More of it.", session_id=fork)
        assert not ran_there(result, fork) and "In the copy." in real.heard()
        assert "In the copy." not in window.screen()
    with Terminal(real, ["resume", fork]) as copy:
        copy.wait_for("More of it.")
        assert "A fine name." in copy.screen()
