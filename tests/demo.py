#!/usr/bin/env python3
"""Runs the real thing once and shows it: an MCP client, the server, Codex, a continued session.

Needs only python3, and no account: the model is a stand-in on 127.0.0.1. Codex is the real CLI from
npm, kept in .e2e/; where npm isn't there or fails, a fake takes its place, and the output says so.
Exits 0 only if it worked.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from typing import Any, Dict, Iterator, List, Tuple

from client import Client, text_of
from loopback_model import LoopbackModel, write_codex_home
from tools import CHAT, PLAN, SESSIONS

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
VERSION = "0.169.0"
INSTALLED = os.path.join(ROOT, ".e2e", "codex-" + VERSION)
COLOUR = sys.stdout.isatty() and os.name != "nt" and not os.environ.get("NO_COLOR")
WIDTH = max(60, min(shutil.get_terminal_size((100, 24)).columns, 100))

#: What the agent sends: a title, the tool, its arguments.
CALLS: List[Tuple[str, str, Dict[str, str]]] = [
    (
        "The agent opens a session",
        CHAT,
        {"prompt": "We call the release Heron. Keep that in mind."},
    ),
    (
        "The agent goes on in it, and Codex still has the context",
        CHAT,
        {"prompt": "What was it that I told you?"},
    ),
    (
        "The agent has its plan checked, in the same session",
        PLAN,
        {"requirements": "Release Heron on Friday.", "plan": "1. Tag it.\n2. Run the tests."},
    ),
]
VERDICT = "STOP: the tests run after the tag. Run them first."
#: What the stand-ins are told to do, by the number of the call and the argument that tells it.
STAGE_REAL = {
    (1, "prompt"): "MODEL:SAY Noted: the release is Heron.",
    (3, "plan"): "MODEL:RUN cat CHANGES.md; sleep 1\nMODEL:SAY " + VERDICT,
}
STAGE_FAKE = {
    (3, "plan"): "FAKE:session\nFAKE:started\nFAKE:command cat CHANGES.md\nFAKE:sleep 1\n"
    f"FAKE:say {VERDICT}\nFAKE:completed"
}


def style(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def show(mark: str, text: str, code: str = "") -> None:
    """Prints `text` behind `mark`, wrapped, its own line breaks kept."""
    room = " " * len(mark)
    wrapper = textwrap.TextWrapper(
        WIDTH - len(room) - 3, break_on_hyphens=False, subsequent_indent="  "
    )
    lines = [part for line in text.splitlines() for part in wrapper.wrap(line)]
    for number, line in enumerate(lines):
        line = f"  {room if number else mark} {line}"
        print(style(code, line) if code else line, flush=True)


def works(codex: str) -> bool:
    """Whether `codex` starts and is the version wanted; an interrupted install is not."""
    try:
        said = subprocess.run(
            [codex, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return VERSION.encode() in said


def real_codex() -> Tuple[str, str]:
    """The real Codex CLI, installed if need be: its path and "", or "" and why it can't be had."""
    codex = os.path.join(
        INSTALLED, "node_modules", ".bin", "codex.cmd" if os.name == "nt" else "codex"
    )
    if works(codex):
        return codex, ""
    npm = shutil.which("npm")
    if npm is None:
        return "", "npm is not installed"
    print(f"Installing Codex {VERSION} from npm into .e2e/ (about 400 MB, once) ...", flush=True)
    try:
        done = subprocess.run(
            [
                npm,
                "install",
                "--prefix",
                INSTALLED,
                "@openai/codex@" + VERSION,
                "--no-audit",
                "--no-fund",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return "", f"npm could not install it: {error}"
    if done.returncode or not works(codex):
        words = [
            line for line in done.stdout.decode("utf-8", "replace").splitlines() if line.strip()
        ]
        return "", f"npm could not install it: {words[0] if words else 'it does not start'}"
    return codex, ""


def environment(codex: str, home: str, work: str) -> Dict[str, str]:
    """The server's environment: nothing that the person has set may change what is shown."""
    settings = ("SANDBOX", "TIMEOUT_MS", "MAX_PARALLEL")
    env = dict({"CODEX_MCP_" + name: "" for name in settings}, CODEX_PERSISTENT_MCP_ORIGIN="")
    # Codex also reads the profile of the person's shell, which can take its time.
    env.update(
        CODEX_BIN=codex,
        CODEX_HOME=home,
        CODEX_MCP_CWD=work,
        FAKE_CODEX_DIR=home,
        FAKE_CODEX_DO="",
        HOME=home,
        FAKE_CODEX_VERSION=VERSION,
        NO_PROXY="127.0.0.1",
        no_proxy="127.0.0.1",
    )
    return env


@contextlib.contextmanager
def server(codex: str, home: str, work: str) -> Iterator[Client]:
    """A server and its client, until both have left."""
    with Client(environment(codex, home, work)) as client:
        client.initialize(name="demo-agent")
        yield client
        assert client.close() == 0, "the server did not leave as it should"


def in_lines(value: Dict[str, Any]) -> str:
    """An object as JSON, each of its members on a line."""
    members = (
        f"{json.dumps(name)}: {json.dumps(member, ensure_ascii=False)}"
        for name, member in value.items()
    )
    return "{" + ",\n ".join(members) + "}"


def call(client: Client, tool: str, arguments: Dict[str, Any], token: int) -> Dict[str, Any]:
    """Calls the tool, prints what goes there and comes back, and returns the result."""
    show("sent     ", f"{tool} {in_lines(arguments)}")
    id, shown = client.start_call(tool, arguments, token=token), 0
    while True:
        client.wait_for(
            lambda: client.responses(id) or client.progress(token)[shown:], "answer or progress"
        )
        over = bool(client.responses(id))
        for message in client.progress(token)[shown:]:
            show("meanwhile", message["message"], "2")
            shown += 1
        if over:
            break
    result = client.result(id)
    if result.get("isError"):
        show("got      ", "an error: " + text_of(result))
        raise AssertionError("the call failed")
    show("got      ", in_lines(result["structuredContent"]))
    return result["structuredContent"]


def run(client: Client, home: str, is_real: bool) -> Dict[str, Any]:
    """The three calls, each checked; returns the last answer."""
    answers: List[Dict[str, Any]] = []
    for number, (title, tool, arguments) in enumerate(CALLS, 1):
        print("\n" + style("1", f"{number}. {title}"))
        arguments = dict(arguments)
        if answers:
            arguments["session_id"] = answers[0]["session_id"]
        for (call_number, name), directions in (STAGE_REAL if is_real else STAGE_FAKE).items():
            if call_number == number:
                arguments[name] += "\n" + directions
        answers.append(call(client, tool, arguments, number))
        assert answers[-1]["session_id"] == answers[0]["session_id"], "the session was not kept"
    remembers = "message 2 of the conversation" if is_real else "You sent 1 messages before"
    assert remembers in answers[1]["reply"], "the second call did not have the context of the first"
    assert answers[2]["critique"] == VERDICT, "the guard's answer is not what Codex said"
    stored = os.path.join(
        home, "sessions", "*", "*", "*", f"rollout-*-{answers[0]['session_id']}.jsonl"
    )
    assert glob.glob(stored), "Codex's store has no such session"
    return answers[-1]


def find(client: Client, lost: Dict[str, Any]) -> None:
    """A new server is asked for the session and its last answer, and what it tells is checked."""
    print("\n" + style("1", "4. The server is restarted, and the agent has forgotten the session"))
    (found,) = call(client, SESSIONS, {}, 4)["sessions"]
    assert found["session_id"] == lost["session_id"], "the session was not found"
    print("\n" + style("1", "5. It has found it again, and asks for the last answer"))
    told = call(client, SESSIONS, {"session_id": found["session_id"]}, 5)
    assert told["reply"] == lost["critique"], "the last answer was not found"
    assert told["verdict"] == lost["verdict"], "the verdict was not found"


def main() -> int:
    codex, missing = real_codex()
    is_real = not missing
    if missing:
        codex = os.path.join(HERE, "fake_codex.py")
    print(style("1", "One agent, one Codex session, two servers"))
    show(
        "agent  ",
        "tests/client.py, an MCP client; what it got is shown as Claude Code and Codex show it "
        "to their models",
    )
    show("server ", "the real one, codex_persistent_mcp.py, started by that client")
    if is_real:
        show("Codex  ", f"the real CLI {VERSION} from npm, in .e2e/")
        show(
            "model  ",
            "a stand-in on 127.0.0.1, so nothing leaves this machine and no account is needed. "
            "It counts and quotes the conversation that Codex sends it, or does what a line "
            '"MODEL:..." tells it',
        )
    else:
        show(
            "Codex  ",
            f"NOT the real one ({missing}) but a stand-in, tests/fake_codex.py. "
            "It counts the messages "
            'of its session, or does what lines "FAKE:..." tell it',
        )
    root = tempfile.mkdtemp(prefix="codex-persistent-mcp-demo-")
    try:
        home, work = os.path.join(root, "home"), os.path.join(root, "work")
        os.mkdir(work)
        with open(os.path.join(work, "CHANGES.md"), "w") as file:
            file.write("# Heron\n")
        with LoopbackModel() as model:
            write_codex_home(home, model.url)
            with server(codex, home, work) as client:
                last = run(client, home, is_real)
            with server(codex, home, work) as client:
                find(client, last)
    except AssertionError as error:
        print(f"\nThe demo did NOT work: {error}")
        return 1
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print("\n" + style("1", "The person would go on with the same conversation in a terminal, by"))
    show("$", last["resume_command"])
    print(
        "\nIt worked. Everything that the demo made, its Codex home too, is removed again"
        + ("; Codex stays in .e2e/." if is_real else ".")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
