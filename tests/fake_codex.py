#!/usr/bin/env python3
"""A stand-in for the Codex CLI: `codex exec --json`, a session store, every way to misbehave.

It behaves like the version in FAKE_CODEX_VERSION (0.169.0, 0.77.0, and those between them in what
its app-server, its locks and `fork` do). What it does in a turn is told by lines of the prompt, or
before it reads any prompt by FAKE_CODEX_DO, lines too: `FAKE:<step> [argument]`, in order. Without
steps it runs a plain good turn. Each start is noted in $FAKE_CODEX_DIR/calls.jsonl (arguments,
directory, prompt, pid, session). Sessions are kept as in Codex's store (fake_store.py), so a resume
knows the messages before it, and `codex app-server` (fake_index.py) the turns.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from typing import Any, Dict, List, NoReturn, Optional

import fake_store as store
from tools import CHAT

HOME = os.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")
NOTES = os.environ.get("FAKE_CODEX_DIR") or HOME
VERSION_TEXT = os.environ.get("FAKE_CODEX_VERSION") or "0.169.0"
VERSION = tuple(int(part) for part in re.findall("[0-9]+", VERSION_TEXT)[:3])
OLD = VERSION_TEXT.startswith("0.77")
OUT = sys.stdout.buffer


def write(data: bytes) -> None:
    OUT.write(data)
    OUT.flush()


def emit(kind: str, **more: Any) -> None:
    write(
        json.dumps(dict({"type": kind}, **more), separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8"
        )
        + b"\n"
    )


def item(state: str, kind: str, number: int = 0, **more: Any) -> None:
    emit("item." + state, item=dict({"id": f"item_{number}", "type": kind}, **more))


def say(text: str) -> None:
    item("completed", "agent_message", text=text)


def error(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


def fail(text: str, backtrace: bool = True) -> NoReturn:
    error(
        text
        + "\n"
        + ("\nStack backtrace:\n   0: <unknown>\n   1: <unknown>\n" if backtrace else "")
    )
    sys.exit(1)


def note(**what: Any) -> None:
    line = json.dumps(what).encode() + b"\n"
    fd = os.open(os.path.join(NOTES, "calls.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line)
    os.close(fd)


def gate(name: str) -> None:
    """Marks that the gate is reached, and waits until the test opens it. Bounded: nothing stays."""
    open(os.path.join(NOTES, name + ".reached"), "w").close()
    end = time.monotonic() + 120
    while not os.path.exists(os.path.join(NOTES, name + ".open")) and time.monotonic() < end:
        time.sleep(0.005)


class Session:
    """A session's file: its first line has the directory, each further one a message."""

    def __init__(self, id: Optional[str], cwd: str) -> None:
        id = id.lower() if id and not OLD else id  # 0.77.0 does not know an id in capitals
        found = store.rollouts(HOME, id) if id else []
        if OLD:  # it does not look into the archive
            found = [path for path in found if "archived_sessions" not in path]
        self.known = bool(found)
        self.archived = bool(found) and "archived_sessions" in found[0]
        self.id = id if found and id else str(uuid.uuid4())
        self.path = found[0] if found else store.rollout_path(HOME, self.id, time.time())
        self.cwd = cwd

    def interrupted(self) -> None:
        """Notes an interruption as a signal handler may: without the buffers of the open file."""
        if os.path.exists(self.path):
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            os.write(fd, b'{"type": "turn_aborted"}\n')
            os.close(fd)
            self.ended("interrupted")

    def begin(self, forked_from: Optional[str] = None) -> None:
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        if VERSION >= (0, 147):
            lock = store.hold(HOME, self.id)
            if not lock:
                text = f"thread {self.id} already has an active writer"
                error(
                    "2026-11-24T05:34:47.261850Z ERROR codex_core::session: "
                    "Failed to create session: "
                    f"thread-store conflict: {text}\n"
                )
                fail(f"Error: thread/resume: thread/resume failed: {text} (code -32600)")
            atexit.register(store.release, HOME, self.id, lock)
        self.file = open(self.path, "a+", encoding="utf-8", errors="replace")
        if not self.known:
            self.add({"type": "session_meta", "payload": {"id": self.id, "cwd": self.cwd}})
            more = {"source": "exec", "provider": os.environ.get("FAKE_CODEX_PROVIDER") or "fake"}
            more.update(version=VERSION_TEXT, cwd=self.cwd)
            store.add(HOME, self.id, "meta", forked_from=forked_from, **more)
        if forked_from:
            self._copy(forked_from)

    def _copy(self, source: str) -> None:
        """Copies the messages and turns of another session into this one, a fork of it."""
        with open(store.rollouts(HOME, source)[0], encoding="utf-8", errors="replace") as file:
            self.file.write("".join(line for line in file if '"session_meta"' not in line))
            self.file.flush()
        with open(store.state_path(HOME, source + ".jsonl"), "rb") as state:
            lines = b"".join(line for line in state if b'"kind": "meta"' not in line)
        with open(store.state_path(HOME, self.id + ".jsonl"), "ab") as copy:
            copy.write(lines)

    def add(self, line: Dict[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()

    def messages(self) -> List[str]:
        self.file.seek(0)
        return [
            entry["text"] for entry in map(json.loads, self.file) if entry.get("type") == "message"
        ]

    def said(self, text: str, phase: Optional[str] = None) -> None:
        """Says a message of Codex's, and notes it for the index."""
        store.add(HOME, self.id, "say", text=text, phase=phase)
        say(text)

    def ended(self, status: str, error: Optional[str] = None) -> None:
        """Notes the end of a turn for the index."""
        store.add(HOME, self.id, "end", status=status, error=error)


def usage(tokens: int = 10) -> Dict[str, int]:
    return {"input_tokens": tokens, "cached_input_tokens": 0, "output_tokens": 5}


def hang() -> NoReturn:
    while True:
        time.sleep(1)


def grandchild(detached: bool) -> None:
    """A child that keeps stdout and stderr open for two minutes, in the group or out of it."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(120)", NOTES], start_new_session=detached
    )
    with open(os.path.join(NOTES, "grandchildren"), "a") as file:
        file.write(f"{child.pid}\n")


def step(name: str, text: str, session: Session) -> None:
    """One step of a scenario."""
    number = int(text) if re.fullmatch("[0-9]+", text) else 0
    if name == "session":  # announces a session: this one, or the one named
        emit("thread.started", thread_id=text or session.id)
    elif name == "started":
        emit("turn.started")
    elif name == "say":
        session.said(text)
    elif name == "commentary":  # what it says before its answer
        session.said(text, "commentary")
    elif name == "completed":
        session.ended("completed")
        emit("turn.completed", usage=usage())
    elif name == "failed":
        session.ended("failed", text)
        emit("turn.failed", error={"message": text})
    elif name == "error":
        emit("error", message=text)
    elif name == "warning":
        item("completed", "error", message=text)
    elif name == "raw":
        write(text.encode("utf-8") + b"\n")
    elif name == "hex":
        write(bytes.fromhex(text))
    elif name == "partial":
        write(text.encode("utf-8"))
    elif name == "stderr":
        error(text.replace("\\n", "\n") + "\n")
    elif name == "exit":
        OUT.flush()
        os._exit(number)
    elif name == "gate":
        gate(text)
    elif (
        name == "mark"
    ):  # a line in $FAKE_CODEX_DIR/marks, so that a test sees what happened in which order
        mark(text)
    elif (
        name == "marks"
    ):  # the same line again and again, for as long as it lives (bounded, as a gate is)
        end = time.monotonic() + 120
        while time.monotonic() < end:
            mark(text)
            time.sleep(0.005)
    elif name == "mcp-child":  # says what the MCP server at that path answers to a call from here
        say(mcp_child(text))
    elif name == "hang":
        hang()
    elif name == "sleep":
        time.sleep(float(text))
    elif name == "stubborn":
        for one in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, one):
                signal.signal(getattr(signal, one), signal.SIG_IGN)
    elif (
        name == "polite"
    ):  # leaves on SIGINT as 0.77.0 does: exit 0, and the interruption in the session

        def leave(*_: Any) -> NoReturn:
            session.interrupted()
            os._exit(0)

        signal.signal(signal.SIGINT, leave)
    elif name == "close-stdout":
        OUT.flush()
        os.close(1)
    elif name == "grandchild":
        grandchild(text == "detached")
    elif name == "command":
        item(
            "started",
            "command_execution",
            1,
            command=f"/bin/bash -lc '{text}'",
            aggregated_output="",
            exit_code=None,
            status="in_progress",
        )
        item(
            "completed",
            "command_execution",
            1,
            command=f"/bin/bash -lc '{text}'",
            aggregated_output="out\n",
            exit_code=0,
            status="completed",
        )
    elif name == "long-line":  # an event of that many megabytes
        item(
            "completed",
            "command_execution",
            1,
            command="cat",
            aggregated_output="x" * (number << 20),
            exit_code=0,
            status="completed",
        )
    elif name == "long-reply":
        session.said("r" * (number << 20))
    elif name == "events":  # that many small events
        line = (
            b'{"type":"item.updated","item":{"id":"item_2","type":"todo_list","items":[]}}\n' * 1000
        )
        for _ in range(number // 1000):
            OUT.write(line)
        OUT.flush()
    elif name == "outputs":  # that many events of 2,000 bytes, most of it the output of a command
        event = (
            json.dumps(
                {
                    "type": "item.completed",
                    "item": {
                        "id": "item_1",
                        "type": "command_execution",
                        "command": "/bin/bash -lc 'cat big'",
                        "aggregated_output": "a line of output\n" * 108,
                        "exit_code": 0,
                        "status": "completed",
                    },
                },
                separators=(",", ":"),
            ).encode()
            + b"\n"
        )
        for _ in range(number // 100):
            OUT.write(event * 100)
        OUT.flush()
    elif name == "stderr-flood":  # that many megabytes
        for _ in range(number):
            error("noise " * ((1 << 20) // 6))
    else:
        error(f"fake_codex: unknown step {name}\n")
        os._exit(99)


def leave_as_codex_does(session: Session) -> None:
    """SIGINT: exit 0 (0.77.0) or 1, and a note. SIGTERM: exit 0 (0.77.0) or signalled, no note."""

    def on_sigint(*_: Any) -> NoReturn:
        session.interrupted()
        os._exit(0 if OLD else 1)

    signal.signal(signal.SIGINT, on_sigint)
    signal.signal(signal.SIGTERM, (lambda *_: os._exit(0)) if OLD else signal.SIG_DFL)


def mark(text: str) -> None:
    fd = os.open(os.path.join(NOTES, "marks"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, text.encode() + b"\n")
    os.close(fd)


def mcp_child(program: str) -> str:
    """Starts an MCP server as Codex does: stripped environment, own group, its POSIX session."""
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": CHAT, "arguments": {"prompt": "from inside"}},
    }
    kept = ("HOME", "PATH", "SYSTEMROOT", "FAKE_CODEX_DIR", "CODEX_HOME", "CODEX_BIN")
    kept = kept if os.name == "nt" else ("HOME", "PATH")
    environment = {key: os.environ[key] for key in kept if key in os.environ}
    child = subprocess.run(
        [sys.executable, program],
        input=json.dumps(call).encode() + b"\n",
        timeout=60,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        preexec_fn=getattr(os, "setpgrp", None),
    )  # noqa: PLW1509 (no threads here)
    return child.stdout.decode()


def steps_in(text: str) -> List[Any]:
    return re.findall(r"^FAKE:([a-z-]+) ?(.*)$", text, re.MULTILINE)


def positional(arguments: List[str]) -> List[str]:
    """The arguments without the options before them."""
    rest = list(arguments)
    while rest and rest[0] in ("-c", "-m", "-C", "-p", "--enable", "--disable"):
        del rest[:2]
    return rest


def archive(word: str, id: str) -> None:
    """`codex archive ID` and `codex unarchive ID`."""
    back = word == "unarchive"
    found = store.rollouts(HOME, id)
    if not found or ("archived_sessions" in found[0]) is not back:
        fail(f"Error: failed to {word} session")
    store.archive(HOME, id, back)
    print(f"{word.capitalize()}d session {id}.")


def refuse(word: str, session: Session, asked: str) -> None:
    """Ends a resume or a fork of a session that cannot be resumed or forked."""
    why = f"no rollout found for thread id {asked}"
    if session.archived and VERSION >= (0, 148):
        why = (
            f"session {session.id} is archived. Run `codex unarchive {session.id}` "
            "to unarchive it first."
        )
    if not session.known or session.archived:
        fail(f"Error: thread/{word}: thread/{word} failed: {why} (code -32600)")


def main() -> None:
    arguments = sys.argv[1:]
    if os.environ.get("FAKE_CODEX_HOLDER") and arguments[:1] != ["exec"]:
        grandchild(True)  # an updater, say
    if arguments == ["--version"]:
        print("codex-cli " + VERSION_TEXT)
        return
    words = positional(arguments)
    if words[:1] == ["app-server"]:
        import fake_index

        return fake_index.main(arguments)
    if words[:1] in (["archive"], ["unarchive"]):
        return archive(*words[:2])
    if arguments == ["login", "status"]:
        error("Logged in using an API key\n")
        return
    if arguments[:1] == ["sandbox"]:
        if os.environ.get("FAKE_CODEX_SANDBOX"):
            fail("bwrap: Creating new namespace failed: Operation not permitted", backtrace=False)
        sys.exit(subprocess.call(arguments[arguments.index("--") + 1 :]))
    if OLD and "--ignore-rules" in arguments:
        error("error: unexpected argument '--ignore-rules' found\n")
        sys.exit(2)
    early = steps_in(os.environ.get("FAKE_CODEX_DO", ""))
    rest = list(arguments)
    cwd = rest[rest.index("-C") + 1] if "-C" in rest else os.getcwd()
    asked = rest[rest.index("resume") + 1] if "resume" in rest else None
    source = rest[rest.index("fork") + 1] if "fork" in rest[:-2] else None
    if source and VERSION < (0, 148):
        error(
            f"error: unexpected argument '{source}' found\n\nUsage: codex exec [OPTIONS] [PROMPT]\n"
        )
        sys.exit(2)
    session = Session(asked, cwd)
    leave_as_codex_does(session)
    if not OLD:
        error(
            "WARNING: proceeding, even though we could not create PATH aliases: "
            "Refusing to create helpers\n"
        )
    if early:
        note(argv=arguments, cwd=os.getcwd(), pid=os.getpid(), prompt=None, session=session.id)
        session.begin()
        for name, text in early:
            step(name, text, session)
        return
    prompt_bytes = sys.stdin.buffer.read()
    try:
        prompt = prompt_bytes.decode("utf-8")
    except UnicodeDecodeError:
        fail("Failed to read prompt from stdin: input is not valid UTF-8", backtrace=False)
    note(
        argv=arguments,
        cwd=os.getcwd(),
        pid=os.getpid(),
        prompt=prompt,
        session=session.id,
        marker=os.environ.get("CODEX_PERSISTENT_MCP_ACTIVE"),
    )
    if not os.path.isdir(cwd):
        fail("Error: No such file or directory (os error 2)")
    effort = [
        value.split("=", 1)[1].strip('"')
        for value in rest
        if value.startswith("model_reasoning_effort=")
    ]
    if OLD and effort and effort[0] not in ("none", "minimal", "low", "medium", "high", "xhigh"):
        fail(
            f"Error loading config.toml: unknown variant `{effort[0]}`, expected one of "
            "`none`, `minimal`, `low`, `medium`, "
            "`high`, `xhigh`\nin `model_reasoning_effort`\n",
            backtrace=False,
        )
    if asked and not OLD:
        refuse("resume", session, asked)
    original = Session(source, cwd) if source else None
    if original:
        refuse("fork", original, str(source))
    if not OLD and len(prompt) > 1 << 20:  # the session is announced, but not kept
        emit("thread.started", thread_id=session.id)
        fail(
            (
                "Error: turn/start: turn/start failed: "
                "Input exceeds the maximum length of 1048576 characters. "
                '(code -32602), data: {"input_error_code":"input_too_large","max_chars":1048576,'
                f'"actual_chars":{len(prompt)}}}'
            )
        )
    session.begin(original.id if original else None)
    before = session.messages()
    store.begin_turn(HOME, session.id, prompt)
    steps = steps_in(prompt)
    if steps:
        for name, text in steps:
            step(name, text, session)
        return
    emit("thread.started", thread_id=session.id)
    if not OLD:
        item(
            "completed",
            "error",
            message="Model metadata for `fake` not found. Defaulting to fallback metadata.",
        )
    emit("turn.started")
    session.add({"type": "message", "text": prompt})
    item("completed", "reasoning", 1, text="**Looking at the question**\n\nMore of it.")
    session.said(f"You sent {len(before)} messages before this one. This one ends: {prompt[-200:]}")
    session.ended("completed")
    emit("turn.completed", usage=usage(10 * (1 if OLD else len(before) + 1)))


if __name__ == "__main__":
    main()
