"""Sessions and answers that got lost are found again: with the real Codex, and from real agents."""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from typing import Any, Dict, List

import pytest

from app_server import AppServer
from client import BOUND, PROGRAM, Client, session_of, text_of
from install import venv_python
from install_clients import client_path
from install_frameworks import framework_path, framework_python
from loopback_claude import LoopbackClaude
from real import Real, Terminal, wait
from tools import CHAT, PLAN, SESSIONS, STOP

HERE = os.path.dirname(os.path.abspath(__file__))
NEEDS = "needs Codex 0.125 or newer"
KEY = "sk-dummy-0123456789abcdef0123456789"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
NEWER, OLDER = pytest.mark.versions((0, 125)), pytest.mark.versions((0,), (0, 125))


def good(result: Dict[str, Any]) -> Dict[str, Any]:
    """The structure of a success, all of which the text says, too."""
    assert not result.get("isError"), result
    structured: Dict[str, Any] = result["structuredContent"]
    for entry in [structured, *structured.get("sessions", [])]:
        for name, value in entry.items():
            if isinstance(value, str):
                assert value in text_of(result), (name, text_of(result))
    return structured


def listed(client: Client, **arguments: Any) -> List[Dict[str, Any]]:
    """The sessions that are listed, without a warning."""
    found = good(client.call(SESSIONS, arguments))
    assert "warnings" not in found, found
    sessions: List[Dict[str, Any]] = found["sessions"]
    return sessions


def look(client: Client, session: str, **more: Any) -> Dict[str, Any]:
    """What is told of one session."""
    found = good(client.call(SESSIONS, dict(more, session_id=session)))
    assert found["session_id"] == session, found
    return found


def running(real: Real, client: Client, prompt: str, **arguments: Any) -> Any:
    """Starts a call whose model is silent for a minute; returns its id once the model is asked."""
    asked = len(real.model.requests)
    id = client.start_call(
        CHAT, dict(arguments, prompt=prompt + "\nMODEL:WAIT 60"), token=f"running {asked}"
    )
    wait(lambda: len(real.model.requests) > asked, "request to the model")
    return id


def left(real: Real, *clients: Client) -> List[str]:
    """What runs besides these servers and their watchers, and Codex's own daemon."""
    mine = {client.process.pid for client in clients}
    return [
        process.command
        for process in real.processes()
        if process.pid not in mine and process.parent not in mine
    ]


# -- lists, and one session ------------------------------------------------------------------------


@NEWER
def test_a_lost_session_is_found_after_a_restart_and_its_last_answer_read(real: Real) -> None:
    client = real.start("claude-code")
    assert listed(client) == []
    session = session_of(
        client.chat("We call the release Heron.\nIt leaves on Friday.\nMODEL:SAY Noted.")
    )
    answer = "It is Heron.\n\nAnd it leaves on **Friday**."
    client.chat("What is it called?\nMODEL:SAY " + answer.replace("\n", " "), session_id=session)
    other = session_of(client.chat("Another matter."))
    before, asked = listed(client), len(real.model.requests)
    client.close()

    client = real.start("gemini-cli")
    found = listed(client)
    assert found == before and [one["session_id"] for one in found] == [other, session]
    updated = found[1].pop("updated_at")
    assert found[1] == {
        "session_id": session,
        "resume_command": real.resume(session),
        "title": "We call the release Heron. It leaves on Friday. MODEL:SAY Noted.",
        "agent": "claude-code",
        "cwd": real.work,
        "state": "idle",
    }
    then = datetime.datetime.strptime(updated + "+0000", "%Y-%m-%dT%H:%M:%SZ%z").timestamp()
    assert abs(time.time() - then) < 2 * BOUND
    told = look(client, session)
    assert told["asked"].startswith("What is it called?\nMODEL:SAY")
    assert told["reply"] == answer.replace("\n", " ") and "error" not in told
    assert len(real.model.requests) == asked, "it costs no turn"
    assert session_of(client.chat("Go on.", session_id=session)) == session
    assert "It leaves on Friday." in real.heard()
    wait(lambda: not left(real, client), lambda: f"end of {left(real, client)}", 10)


@OLDER
def test_an_old_codex_shows_the_sessions_of_this_server_alone(real: Real) -> None:
    client = real.start()
    session = session_of(client.chat("Remember Heron.\nMODEL:SAY Noted."))
    found = good(client.call(SESSIONS, {}))
    assert [one["session_id"] for one in found["sessions"]] == [session]
    assert found["sessions"][0]["title"] == "Remember Heron. MODEL:SAY Noted."
    assert NEEDS in " ".join(found["warnings"])
    told = look(client, session)
    assert (told["reply"], told["state"]) == ("Noted.", "idle")
    client.close()
    client = real.start()
    found = good(client.call(SESSIONS, {"all": True}))
    assert found["sessions"] == [] and NEEDS in " ".join(found["warnings"])
    refused = client.call(SESSIONS, {"session_id": session})
    assert refused["isError"] and NEEDS in text_of(refused), refused
    assert session_of(client.chat("Go on.", session_id=session)) == session
    assert look(client, session)["reply"].startswith("This is message 2 of the conversation")


def test_only_the_sessions_of_a_directory_are_listed_unless_all_are_wanted(newest: Real) -> None:
    other = os.path.join(newest.root, "other")
    os.mkdir(other)
    client = newest.start()
    here = session_of(client.chat("Here."))
    there = session_of(client.chat("There.", cwd=other))
    client.close()
    client = newest.start()

    def ids(**arguments: Any) -> List[str]:
        return [one["session_id"] for one in listed(client, **arguments)]

    assert [ids(), ids(cwd=other), ids(all=True)] == [[here], [there], [there, here]]
    assert ids(all=True, limit=1) == [there] and ids(cwd=newest.person) == []


@NEWER
def test_an_archived_session_and_a_named_one_are_found(real: Real) -> None:
    client = real.start()
    kept, away, named = [
        session_of(client.chat(f"{word}.\nMODEL:SAY {word} is done."))
        for word in ("Kept", "Away", "Named")
    ]
    client.close()
    subprocess.run(
        [real.codex, "archive", away],
        env=real.env_of_a_person(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=BOUND,
    )
    with AppServer(real) as codex:
        codex.ask("thread/name/set", threadId=named, name="the heron")
    client = real.start()
    found = {one["session_id"]: one for one in listed(client)}
    assert {id: one.get("archived") for id, one in found.items()} == {
        named: None,
        away: True,
        kept: None,
    }
    assert [found[named]["title"], found[away]["title"]] == [
        "the heron",
        "Away. MODEL:SAY Away is done.",
    ]
    for session, word in ((away, "Away"), (named, "Named")):
        told = look(client, session)
        assert told["reply"] == word + " is done." and told["state"] == "idle"
        assert {name: told.get(name) for name in ("title", "archived")} == {
            name: found[session].get(name) for name in ("title", "archived")
        }


def test_a_session_of_the_persons_is_found_while_the_window_is_open(newest: Real) -> None:
    client = newest.start()
    with Terminal(newest, []) as window:
        window.wait_for("mock-model")
        text = "The person asks. MODEL:SAY The person is told."
        window.say(text)
        wait(lambda: window.screen().count("The person is told.") > 1, window.screen)
        (entry,) = listed(client)
        assert entry["title"] == text and "agent" not in entry
        assert entry["state"] == "open_elsewhere" and entry["cwd"] == newest.work
        told = look(client, entry["session_id"])
        assert [told["asked"], told["reply"], told["state"]] == [
            text,
            "The person is told.",
            "open_elsewhere",
        ]
        # A turn of the agent's own is found there, too, and then the person's next one.
        answer = client.chat("And me?\nMODEL:SAY You too.", session_id=entry["session_id"])
        assert answer["structuredContent"]["reply"] == "You too."
        told = look(client, entry["session_id"])
        assert [told["asked"], told["reply"]] == ["And me?\nMODEL:SAY You too.", "You too."]
        window.wait_for("You too.")
        time.sleep(1.1)  # the index tells whole seconds
        text = "Once more. MODEL:SAY Once more to the person."
        window.say(text)
        wait(lambda: window.screen().count("Once more to the person.") > 1, window.screen)
        told = look(client, entry["session_id"])
        assert [told["asked"], told["reply"]] == [text, "Once more to the person."]


def test_an_unknown_session_is_said_in_words(real: Real) -> None:
    client = real.start()
    result = client.call(SESSIONS, {"session_id": "01a20d52-0000-7000-8000-000000000001"})
    assert result["isError"], result
    text = text_of(result)
    assert (NEEDS if real.old else "session") in text and "jsonrpc" not in text.lower(), text
    assert real.model.requests == []


# -- how turns ended -------------------------------------------------------------------------------


def test_a_failed_turn_is_found_with_what_it_failed_with(real: Real) -> None:
    client = real.start()
    session = session_of(client.chat("Begin.\nMODEL:SAY Begun."))
    failed = client.chat("Now fail.\nMODEL:FAIL 400", session_id=session)
    assert failed["isError"] and "the model is on strike" in text_of(failed)
    told = look(client, session)
    assert "the model is on strike" in told["error"] and "reply" not in told
    assert told["asked"] == "Now fail.\nMODEL:FAIL 400"
    if real.old:
        return
    client.close()
    told = look(real.start(), session)
    assert "the model is on strike" in told["error"] and "reply" not in told
    assert '{"' not in told["error"] and told["asked"] == "Now fail.\nMODEL:FAIL 400"


@pytest.mark.parametrize("end", ["cancel", "timeout", "codex_stop", "server leaves"])
def test_an_interrupted_turn_is_found_as_one(real: Real, end: str) -> None:
    client = real.start()
    session = session_of(client.chat("Begin.\nMODEL:SAY Begun."))
    id = running(
        real,
        client,
        "Never answered.",
        session_id=session,
        timeout_ms=4000 if end == "timeout" else 60000,
    )
    if end == "cancel":
        client.notify("notifications/cancelled", {"requestId": id})
        wait(lambda: look(client, session)["state"] != "running", "end of the call")
    elif end == "timeout":
        assert "within 4 s" in text_of(client.result(id))
    elif end == "codex_stop":
        assert good(client.call(STOP, {"session_id": session}))["stopped"] == 1
        text = text_of(client.result(id))
        assert "codex_stop" in text and session in text, text
    if end == "server leaves":
        client.close()
    else:
        told = look(client, session)
        words = {"cancel": "stopped", "timeout": "within 4 s", "codex_stop": "stopped"}[end]
        assert words in told["error"] and "reply" not in told, told
        assert told["asked"].startswith("Never answered.") and told["state"] == "idle"
        client.close()
    client = real.start()
    if not real.old:
        told = look(client, session)
        assert "interrupted" in told["error"] and "reply" not in told, told
        assert told["asked"].startswith("Never answered.")
    answer = client.chat("Go on.\nMODEL:SAY Gone on.", session_id=session)
    assert answer["structuredContent"]["reply"] == "Gone on."
    assert look(client, session)["reply"] == "Gone on."


@NEWER
def test_the_verdict_of_a_guard_is_found_after_a_restart(real: Real) -> None:
    client = real.start()
    critique = "GO WITH CHANGES: the test comes first."
    result = client.call(
        PLAN, {"requirements": "Release it.", "plan": "1. Tag it.\nMODEL:SAY " + critique}
    )
    session = session_of(result)
    assert look(client, session)["verdict"] == "go_with_changes"
    client.close()
    client = real.start()
    told = look(client, session)
    assert (told["verdict"], told["reply"]) == ("go_with_changes", critique)
    assert told["asked"].startswith("Release it.\n"), told
    client.chat("Thanks.\nMODEL:SAY GO", session_id=session)
    client.close()
    told = look(real.start(), session)
    assert told["reply"] == "GO" and "verdict" not in told


# -- background, and calls that nobody waits for any more ------------------------------------------


def test_a_call_in_the_background_is_answered_when_it_is_asked_for(real: Real) -> None:
    client = real.start()
    begun = good(client.chat("Long work.\nMODEL:WAIT 3\nMODEL:SAY Done.", background=True))
    session = begun["session_id"]
    assert begun["state"] == "running" and SESSIONS in begun["next"] and "reply" not in begun
    assert begun["resume_command"] == real.resume(session)
    told = look(client, session)
    assert told["state"] == "running" and not {"reply", "error"} & set(told), told
    assert told["asked"].startswith("Long work.")
    # In line behind it, as ever; and the first does not have to be heard.
    second = client.start_call(CHAT, {"prompt": "Next.\nMODEL:SAY Two.", "session_id": session})
    early = look(client, session, wait_ms=100)
    assert early["state"] == "running"
    waited = client.call(
        SESSIONS, {"session_id": session, "wait_ms": 60000}, token="waiting", bound=BOUND
    )
    told = good(waited)
    assert (told["reply"], told["state"]) == ("Two.", "idle")
    assert client.progress("waiting"), "it tells that it waits"
    assert client.result(second)["structuredContent"]["reply"] == "Two."
    assert "Done." in real.heard()
    assert look(client, session) == dict(told, updated_at=look(client, session)["updated_at"])
    if not real.old:
        client.close()
        assert look(real.start(), session)["reply"] == "Two."


def test_a_cancel_of_a_call_in_the_background_stops_nothing_but_codex_stop_does(
    real: Real,
) -> None:
    client = real.start()
    id = client.start_call(CHAT, {"prompt": "A.\nMODEL:WAIT 4\nMODEL:SAY One.", "background": True})
    session = session_of(client.result(id))
    client.notify("notifications/cancelled", {"requestId": id})
    assert look(client, session, wait_ms=60000)["reply"] == "One."
    asked = len(real.model.requests)
    client.chat("B.\nMODEL:WAIT 60", session_id=session, background=True)
    wait(lambda: len(real.model.requests) > asked, "request to the model")
    assert good(client.call(STOP, {"session_id": session}))["stopped"] == 1
    told = look(client, session)
    assert told["state"] == "idle" and "stopped" in told["error"] and "reply" not in told
    wait(lambda: not left(real, client), lambda: f"end of {left(real, client)}", 10)
    assert good(client.call(STOP, {"session_id": session}))["stopped"] == 0


def test_what_runs_in_the_background_ends_with_its_client(real: Real) -> None:
    client = real.start()
    session = session_of(client.chat("A.\nMODEL:WAIT 60", background=True))
    client.close()
    wait(lambda: not real.processes(), lambda: f"end of {real.processes()!r}", 10)
    if not real.old:
        assert "interrupted" in look(real.start(), session)["error"]


def test_an_answer_that_came_when_nobody_listened_any_more_is_found(real: Real) -> None:
    """The client gives up without a cancel, as the Python SDK 1.x does, and knows no id."""
    client = real.start()
    client.start_call(CHAT, {"prompt": "Slow.\nMODEL:WAIT 4\nMODEL:SAY Here it is."})
    wait(lambda: real.model.requests, "request to the model")
    found = good(client.call(SESSIONS, {}))["sessions"]
    assert [one["state"] for one in found] == ["running"]
    told = look(client, found[0]["session_id"], wait_ms=60000)
    assert (told["reply"], told["state"]) == ("Here it is.", "idle")


def test_looking_does_not_disturb_what_runs_waits_and_is_stopped(real: Real) -> None:
    client = real.start()
    session = session_of(client.chat("Begin.\nMODEL:SAY Begun."))
    calls = [
        client.start_call(
            CHAT,
            {"prompt": f"{n}\nMODEL:WAIT 1\nMODEL:SAY Answer {n}.", "session_id": session},
            token=f"call {n}",
        )
        for n in range(3)
    ]
    cancelled = client.start_call(CHAT, {"prompt": "Cancelled.", "session_id": session})
    apart = client.start_call(CHAT, {"prompt": "Apart.\nMODEL:WAIT 2\nMODEL:SAY Apart."})
    waiting = client.start_call(SESSIONS, {"session_id": session, "wait_ms": 60000})
    given_up = client.start_call(SESSIONS, {"session_id": session, "wait_ms": 60000})
    looked = 0
    while not all(client.responses(id) for id in calls):
        asked: List[Any] = [client.start_call(SESSIONS, {"session_id": session}) for _ in range(2)]
        asked += [client.start_call(SESSIONS, {"all": True}) for _ in range(2)]
        for id in asked:
            told = good(client.result(id))
            if told.get("state") == "running":
                assert not {"reply", "error"} & set(told), told
            looked += 1
        if looked == 4:
            client.notify("notifications/cancelled", {"requestId": cancelled})
            client.notify("notifications/cancelled", {"requestId": given_up})
    assert [client.result(id)["structuredContent"]["reply"] for id in calls] == [
        f"Answer {n}." for n in range(3)
    ]
    assert client.result(apart)["structuredContent"]["reply"] == "Apart."
    told = good(client.result(waiting))
    assert told["reply"] == "Answer 2." and told["state"] == "idle"
    assert client.responses(cancelled) == [] and client.responses(given_up) == []
    assert "Cancelled." not in real.heard() and looked >= 4
    wait(lambda: not left(real, client), lambda: f"end of {left(real, client)}", 10)


# -- resume_command --------------------------------------------------------------------------------


class Shell(Terminal):
    """A tmux window in which a plain shell with nothing in its environment runs a command."""

    def __init__(self, real: Real, command: str, home: str) -> None:
        tools = os.path.join(real.root, "bin")
        os.makedirs(tools, exist_ok=True)
        for name, target in (("codex", real.codex), ("node", shutil.which("node") or "")):
            if not os.path.lexists(os.path.join(tools, name)):
                os.symlink(target, os.path.join(tools, name))
        self._socket = os.path.join(real.root, "tmux-shell")
        env = {"HOME": home, "PATH": tools + ":/usr/bin:/bin", "TERM": "xterm-256color"}
        words = ["env", "-i"] + [f"{name}={value}" for name, value in env.items()]
        words += ["sh", "-c", command]
        subprocess.run(
            ["tmux", "-S", self._socket, "-f", "/dev/null", "new-session", "-d"]
            + ["-x", "120", "-y", "40", "-c", real.work, " ".join(map(shlex.quote, words))],
            check=True,
            timeout=BOUND,
            env={"PATH": os.environ["PATH"], "TERM": "xterm-256color"},
        )


@pytest.mark.parametrize("where", ["its own", "the default"])
def test_the_resume_command_opens_the_session_in_a_plain_shell(real: Real, where: str) -> None:
    real.home = os.path.join(real.root, 'it\'s a "home"; $HOME & more')
    if where == "the default":
        real.home = os.path.join(real.person, ".codex")
    real.configure()
    real.env["CODEX_HOME"] = real.home
    client = real.start()
    result = client.chat("How tall is it?\nMODEL:SAY As tall as nine oaks.", background=False)
    command = result["structuredContent"]["resume_command"]
    assert command.startswith("codex resume ") == (where == "the default")
    assert look(client, session_of(result))["resume_command"] == command
    client.close()
    with Shell(real, command, real.person) as window:
        window.wait_for("As tall as nine oaks.")


# -- real agents -----------------------------------------------------------------------------------


@pytest.fixture
def claude(newest: Real) -> Any:
    """Runs `claude -p` with this server; returns what the tools told its model, in order."""
    user = os.path.join(newest.root, "user")
    os.mkdir(user)
    server = {
        "command": sys.executable,
        "args": [PROGRAM],
        "env": {name: value for name, value in newest.env.items() if value},
    }
    config = os.path.join(newest.root, "mcp.json")
    with open(config, "w", encoding="utf-8") as file:
        json.dump({"mcpServers": {"codex": server}}, file)

    def run(*lines: str, **env: str) -> LoopbackClaude:
        with LoopbackClaude() as model:
            done = subprocess.run(
                [client_path("claude"), "-p", "\n".join(lines), "--mcp-config", config]
                + ["--strict-mcp-config", "--allowedTools", "mcp__codex"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=newest.work,
                timeout=2 * BOUND,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": user,
                    "LANG": "C.UTF-8",
                    "ANTHROPIC_BASE_URL": model.url,
                    "ANTHROPIC_API_KEY": KEY,
                    "DISABLE_AUTOUPDATER": "1",
                    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                    **env,
                },
            )
        assert done.returncode == 0, done
        return model

    return run


def ask(tool: str, **arguments: Any) -> str:
    return f"CLAUDE:CALL {tool} {json.dumps(arguments)}"


def test_claude_code_finds_a_session_of_an_earlier_window_by_its_own_search_for_tools(
    claude: Any,
) -> None:
    first = claude(ask(CHAT, prompt="My cat is Pomponius.\nMODEL:SAY A fine name."))
    session = json.loads(first.results[0])["session_id"]
    second = claude(
        "CLAUDE:SEARCH find a lost session",
        ask(SESSIONS),
        ask(SESSIONS, session_id="SESSION"),
        ask(CHAT, prompt="What is it called?", session_id="SESSION"),
    )
    everything, one, answer = [json.loads(result) for result in second.results]
    assert f'"query": "{SESSIONS}"' not in json.dumps(second.requests), "the words found the tool"
    assert [entry["session_id"] for entry in everything["sessions"]] == [session]
    assert everything["sessions"][0]["agent"] == "claude-code"
    assert one["reply"] == "A fine name." and one["session_id"] == session
    assert 'before it I said ["A fine name."]' in answer["reply"]


def test_claude_code_hears_an_answer_that_takes_longer_than_its_limit(
    newest: Real, claude: Any
) -> None:
    model = claude(
        ask(CHAT, prompt="Slow.\nMODEL:WAIT 8\nMODEL:SAY Never heard."),
        ask(SESSIONS),
        ask(SESSIONS, session_id="SESSION"),
        ask(CHAT, prompt="Slow.\nMODEL:WAIT 8\nMODEL:SAY Heard.", background=True),
        *[ask(SESSIONS, session_id="SESSION", wait_ms=4000)] * 3,
        MCP_TOOL_TIMEOUT="5000",
    )
    lost, everything, one, begun, *waits = model.results
    assert "timed out" in lost.lower(), lost
    (entry,) = json.loads(everything)["sessions"]
    assert json.loads(one)["session_id"] == entry["session_id"]
    assert json.loads(begun)["state"] == "running"
    assert json.loads(waits[0])["state"] == "running", waits
    assert json.loads(waits[-1])["reply"] == "Heard.", waits
    # Claude Code cancels what it gives up on.
    assert "stopped" in json.loads(one)["error"], one
    wait(lambda: not newest.processes(), lambda: f"end of {newest.processes()!r}", 10)


def test_codex_as_the_agent_finds_its_session_and_waits_for_the_answer(real: Real) -> None:
    real.configure(
        "[mcp_servers.helper]\n"
        f"command = {json.dumps(sys.executable)}\n"
        f"args = [{json.dumps(PROGRAM)}]\n"
        "tool_timeout_sec = 6\n"
        'default_tools_approval_mode = "approve"\n'
        "[mcp_servers.helper.env]\n"
        + "".join(
            f"{name} = {json.dumps(real.env[name])}\n"
            for name in ("CODEX_BIN", "CODEX_HOME", "CODEX_MCP_CWD")
        )
    )
    inner = {"prompt": "Inner.\nMODEL:WAIT 8\nMODEL:SAY From within.", "background": True}
    wait_for_it = {"session_id": "SESSION", "wait_ms": 4000}
    order = "\n".join(
        f"MODEL:CALL {tool} {json.dumps(arguments)}"
        for tool, arguments in [(CHAT, inner), (SESSIONS, {})] + [(SESSIONS, wait_for_it)] * 4
    )
    run = subprocess.run(
        [real.codex, "exec", "--skip-git-repo-check", "--json", "-C", real.person, "-"],
        input=order.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=2 * BOUND,
        env=real.env_of_a_person(),
    )
    assert run.returncode == 0, run
    begun, everything, *waits = real.outputs()
    assert "running" in begun and re.search(UUID, begun), begun
    session = re.search(UUID, begun).group()  # type: ignore[union-attr]
    assert session in everything, everything
    reply = r'\\*"reply\\*": *\\*"From within'
    assert not re.search(reply, waits[0]) and re.search(reply, waits[-1]), waits


@pytest.fixture
def agent(newest: Real) -> Any:
    """Runs an agent of openai-agents, which gives up after 5 s; returns what its model saw."""
    name = "openai-agents"
    assert os.path.exists(os.path.join(framework_path(name), "made")), (
        f"{name} is missing; run `python tests/e2e/install_frameworks.py`"
    )
    env = {name: value for name, value in newest.env.items() if value}

    def run(*steps: Any) -> List[str]:
        order = {
            "command": sys.executable,
            "args": [PROGRAM],
            "env": dict(env, PATH=os.environ["PATH"]),
            "steps": steps,
        }
        done = subprocess.run(
            [framework_python(name), os.path.join(HERE, "impatient_agent.py"), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "HOME": newest.person,
                "OPENAI_AGENTS_DISABLE_TRACING": "1",
            },
            cwd=newest.work,
            timeout=3 * BOUND,
        )
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
        seen: List[str] = json.loads(done.stdout)["seen"]
        return seen

    return run


def test_an_agent_that_cancels_after_five_seconds_reads_an_answer_that_takes_longer(
    newest: Real, agent: Any
) -> None:
    slow = {"prompt": "Slow.\nMODEL:WAIT 9\nMODEL:SAY Here it is."}
    lost, everything, one, begun, *waits = agent(
        [CHAT, slow, ""],  # lost, with its id
        [SESSIONS, {}, ""],
        [SESSIONS, {"session_id": "SESSION"}, ""],
        [CHAT, dict(slow, session_id="SESSION", background=True), ""],
        [SESSIONS, {"session_id": "SESSION", "wait_ms": 3000}, "reply: Here it is."],
    )
    assert not re.search(UUID, lost), lost
    session = re.search(UUID, everything).group()  # type: ignore[union-attr]
    assert session in one and "stopped" in one and "reply: " not in one, one
    assert session in begun and "running" in begun, begun
    assert len(waits) > 1 and "reply: Here it is." in waits[-1], waits
    wait(lambda: not newest.processes(), lambda: f"end of {newest.processes()!r}", 10)


def test_a_client_that_gives_up_without_a_cancel_finds_the_answer_that_came_afterwards(
    real: Real,
) -> None:
    python = venv_python("mcp-1")
    assert os.path.exists(python), f"{python} is missing; run `python tests/e2e/install.py`"
    order = {
        "command": sys.executable,
        "args": [PROGRAM],
        "env": {name: value for name, value in real.env.items() if value},
        "chat": CHAT,
        "sessions": SESSIONS,
        "prompt": "Slow.\nMODEL:WAIT 9\nMODEL:SAY Here it is.",
    }
    done = subprocess.run(
        [python, os.path.join(HERE, "impatient_client.py"), json.dumps(order)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=2 * BOUND,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")[-3000:]
    told = json.loads(done.stdout)
    assert "Timed out" in told["first"], told
    assert [one["state"] for one in told["listed"]] == ["running"], told
    assert [look["state"] for look in told["looks"][:1]] == ["running"], told
    assert told["looks"][-1]["reply"] == "Here it is.", told
    wait(lambda: not real.processes(), lambda: f"end of {real.processes()!r}", 10)
