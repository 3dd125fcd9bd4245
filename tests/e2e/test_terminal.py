"""What a person sees in a terminal: `codex resume` shows all, the picker tells sessions apart."""

from __future__ import annotations

import os

from client import session_of
from real import Real, Terminal
from tools import CHAT, FINAL, PLAN

CLIENTS = (
    "claude-code",
    "codex-mcp-client",
    "an-agent-with-a-name-that-is-much-longer-than-any-other",
)
REQUESTS = {
    CHAT: ("prompt", "Find out why the build of the documentation fails on every second Tuesday"),
    PLAN: ("requirements", "Add a button that prints the whole page in colour, or in black"),
    FINAL: ("change_summary", "Moved the parser into a module of its own, tests too"),
}
#: Characters of a request that the picker must show at least.
VISIBLE = 40


def test_codex_resume_shows_the_conversation_and_the_agent_goes_on_afterwards(real: Real) -> None:
    client = real.start()
    session = session_of(client.chat("How tall is the tower?\nMODEL:SAY As tall as nine oaks."))
    client.chat("And how wide?\nMODEL:SAY Two horses wide.", session_id=session)
    with Terminal(real, ["resume", session]) as terminal:
        picture = terminal.wait_for("Two horses wide.")
        for text in (
            "AI agent test",
            "How tall is the tower?",
            "As tall as nine oaks.",
            "And how wide?",
        ):
            assert text in picture, picture
        # With 0.169.0 the window's daemon holds the session until about a minute after its end.
        if real.old:
            terminal.say("Is it old?")
            terminal.wait_for("This is message 3 of the conversation")
    if real.old:
        answer = client.chat("Go on.", session_id=session)
        assert session_of(answer) == session
        assert answer["structuredContent"]["reply"].startswith(
            "This is message 4 of the conversation"
        )
        assert "Is it old?" in real.heard()


def test_the_picker_tells_the_sessions_of_agents_apart(newest: Real) -> None:
    for name in CLIENTS:
        client = newest.start(name)
        for tool, (argument, request) in REQUESTS.items():
            arguments = {argument: request}
            if tool == PLAN:
                arguments["plan"] = "1. Look. 2. Do."
            session_of(client.call(tool, arguments))
    with Terminal(newest, ["resume", "--include-non-interactive"]) as terminal:
        terminal.wait_for(f"1 / {len(CLIENTS) * len(REQUESTS)}")
        picture = terminal.screen()
    lines = [line for line in picture.splitlines() if "AI agent" in line]
    assert len(lines) == len(CLIENTS) * len(REQUESTS), picture
    for line in lines:
        request = next(text for _, text in REQUESTS.values() if text[:9] in line)
        shown = len(
            os.path.commonprefix(
                [request + " ", line[line.find(request[:9]) :].replace("...", " ")]
            )
        )
        assert shown >= VISIBLE, f"only {shown} characters of the request in {line!r}"
