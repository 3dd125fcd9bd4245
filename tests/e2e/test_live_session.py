"""The agent and a person at `codex resume` share a session of the real Codex 0.169.0."""

from __future__ import annotations

import os
import re
import time
from typing import Any, Iterator

import pytest

from client import BOUND, Client, session_of, text_of
from real import Real, Terminal, wait
from tools import CHAT, FINAL


class Shared:
    """A session that an agent opened, and the window in which a person then opened it."""

    def __init__(self, real: Real, *options: str) -> None:
        self.real = real
        self.client: Client = real.start()
        self.session = session_of(
            self.client.chat("My cat is called Pomponius.\nMODEL:SAY A fine name.")
        )
        self.window = Terminal(real, ["resume", *options, self.session])
        self.window.wait_for("A fine name.")

    def chat(self, prompt: str, **arguments: Any) -> Any:
        """Calls; with progress, which says in a failure what the call waited for."""
        arguments.update(prompt=prompt, session_id=self.session)
        return self.client.call(CHAT, arguments, token="chat")

    def ran_live(self, result: Any) -> bool:
        assert session_of(result) == self.session
        return any(
            "open elsewhere" in text for text in result["structuredContent"].get("warnings", [])
        )

    def lock_is_held(self) -> bool:
        """Whether anybody holds the session's writer lock."""
        path = os.path.join(self.real.home, "thread-writer-locks", self.session + ".lock")
        if not os.path.exists(path):
            return False
        with open("/proc/locks") as locks:
            return f":{os.stat(path).st_ino} " in locks.read()


@pytest.fixture
def shared(newest: Real) -> Iterator[Shared]:
    shared = Shared(newest)
    yield shared
    shared.window.close()


def test_an_agent_and_a_person_talk_in_one_session_and_the_agent_goes_on_when_the_window_is_closed(
    shared: Shared,
) -> None:
    result = shared.chat("The agent asks about the harbour.\nMODEL:SAY The harbour is deep.")
    assert (
        shared.ran_live(result) and result["structuredContent"]["reply"] == "The harbour is deep."
    )
    assert (
        result["structuredContent"]["usage"]["input_tokens"] == 20
    )  # the whole session's, as `codex exec` says it
    shared.window.wait_for("The agent asks about the harbour.")
    shared.window.wait_for("The harbour is deep.")
    assert "AI agent test-client MCP" in shared.window.screen()
    assert "Pomponius" in shared.real.heard()

    shared.window.say("The person adds: MODEL:SAY The lighthouse is red.")
    wait(lambda: "lighthouse" in shared.real.heard(), "the person's message at the model")
    wait(
        lambda: shared.window.screen().count("The lighthouse is red.") > 1,
        "the answer to the person",
    )
    result = shared.chat("What colour is it?\nMODEL:SAY As red as you said.")
    assert shared.ran_live(result)
    assert (
        "The person adds" in shared.real.heard() and "The harbour is deep." in shared.real.heard()
    )
    shared.window.wait_for("As red as you said.")

    shared.window.close()
    result = shared.chat("At once.\nMODEL:SAY One.")
    assert session_of(result) == shared.session and result["structuredContent"]["reply"] == "One."
    wait(lambda: not shared.lock_is_held(), "end of the lock", 150)
    result = shared.chat("Minutes later.\nMODEL:SAY Two.")
    assert not shared.ran_live(result) and result["structuredContent"]["reply"] == "Two."
    heard = shared.real.heard()
    assert [
        text in heard for text in ("Pomponius", "lighthouse", "At once.", "Minutes later.")
    ] == [True] * 4
    assert len(shared.real.rollouts()) == 1


@pytest.mark.parametrize("end", ["timeout", "cancel", "server leaves"])
def test_a_turn_in_an_open_session_is_stopped_with_its_command(shared: Shared, end: str) -> None:
    marker = f"sleep 54{os.getpid()}"
    id = shared.client.start_call(
        CHAT,
        {
            "prompt": "MODEL:RUN " + marker,
            "session_id": shared.session,
            "timeout_ms": 20000 if end == "timeout" else 100000,
        },
    )

    def sleeping() -> bool:
        return any(process.command == marker for process in shared.real.processes())

    wait(sleeping, "command")
    if end == "timeout":
        text = text_of(shared.client.result(id))
        assert "within 20 s" in text and shared.real.resume(shared.session) in text
    elif end == "cancel":
        shared.client.notify("notifications/cancelled", {"requestId": id})
    else:
        shared.client.close()
    shared.window.wait_for("interrupted")
    wait(lambda: not sleeping(), "end of the command", 10)
    shared.client = shared.real.start()
    result = shared.chat("Go on.\nMODEL:SAY Gone on.")
    assert shared.ran_live(result) and result["structuredContent"]["reply"] == "Gone on."
    shared.window.wait_for("Gone on.")


def test_a_turn_of_the_persons_is_waited_for_and_not_disturbed(shared: Shared) -> None:
    shared.window.say("The person is first. MODEL:WAIT 8")
    wait(lambda: "The person is first" in shared.real.heard(), "the person's message at the model")
    id = shared.client.start_call(
        CHAT, {"prompt": "MODEL:SAY The agent is second.", "session_id": shared.session}, token="p"
    )
    shared.client.wait_for(
        lambda: re.search("[Ww]ait.*turn", str(shared.client.progress("p"))), "progress of the wait"
    )
    assert shared.client.result(id)["structuredContent"]["reply"] == "The agent is second."
    screen = re.sub(r"\s+", " ", shared.window.wait_for("The agent is second."))
    # The person's message, its answer, and only then the agent's message.
    assert re.search(
        "The person is first.*You wrote: The person is first.*AI agent test-client", screen
    )


def test_after_the_person_pressed_escape_the_agents_next_call_answers(shared: Shared) -> None:
    id = shared.client.start_call(CHAT, {"prompt": "MODEL:WAIT 60", "session_id": shared.session})
    shared.window.wait_for("esc to interrupt")
    end, again = time.monotonic() + BOUND, 0.0
    while not shared.client.responses(id) and time.monotonic() < end:
        if time.monotonic() > again:  # as a person would: a window can miss a key
            shared.window.type("Escape")
            again = time.monotonic() + 10
        time.sleep(0.05)
    assert "interrupted" in text_of(shared.client.result(id))
    assert shared.ran_live(shared.chat("Go on.\nMODEL:SAY Gone on."))


def test_a_guard_reviews_in_an_open_session_only_where_that_is_read_only(newest: Real) -> None:
    shared = Shared(newest, "-s", "read-only")
    order = "Check this.\nMODEL:RUN touch written; echo touched\nMODEL:SAY GO"
    result = shared.client.call(FINAL, {"change_summary": order, "session_id": shared.session})
    assert shared.ran_live(result) and result["structuredContent"]["review"] == "GO"
    assert os.listdir(newest.work) == []
    shared.window.close()
    wider = Shared(newest, "-s", "workspace-write")
    before = len(newest.model.requests)
    result = wider.client.call(FINAL, {"change_summary": order, "session_id": wider.session})
    assert result["isError"] is True and "read-only" in text_of(result)
    assert len(newest.model.requests) == before and os.listdir(newest.work) == []
    wider.window.close()


def test_only_the_person_approves_what_codex_asks_for(newest: Real) -> None:
    shared = Shared(newest, "-a", "on-request", "-s", "workspace-write")
    prompt = {
        "session_id": shared.session,
        "prompt": "MODEL:ASK echo all right > asked\nMODEL:SAY Asked.",
    }
    id = shared.client.start_call(CHAT, prompt, token="p")
    shared.window.wait_for("Would you like to run the following command?")
    shared.client.wait_for(
        lambda: "approv" in str(shared.client.progress("p")), "progress of the request"
    )
    assert os.listdir(newest.work) == []
    shared.window.type("y")
    assert shared.client.result(id)["structuredContent"]["reply"] == "Asked."
    assert os.listdir(newest.work) == ["asked"], (newest.outputs(), shared.window.screen())

    prompt["prompt"] = "MODEL:ASK echo never > never\nMODEL:SAY Never."
    result = shared.client.call(CHAT, dict(prompt, timeout_ms=6000))
    assert result["isError"] is True and "6 s" in text_of(result)
    assert os.listdir(newest.work) == ["asked"]
    shared.window.close()
