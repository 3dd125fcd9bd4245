#!/usr/bin/env python3
# /// script
# requires-python = ">=3.8"
# dependencies = []
# ///
"""An MCP server over stdio that runs each tool call as a turn of a real, persisted Codex session.

An AI agent (the MCP client) asks; OpenAI's Codex CLI answers in a session of its own store; a person
can go on with the same conversation in a terminal with `codex resume <session_id>`, and the agent after
that. (Codex's events call a session a thread; this file says session. A thread of this process is a
worker.)

The way of one call, top to bottom through the rooms of this file:

    bytes in        transport       the only reader of standard input
    message         messages        JSON-RPC: a line to a checked message
    dispatch        server          both protocol eras, requests in flight, cancellation
    tool            tools           arguments checked against the tool's own schema
    prompt          prompts         the attribution line, the text of each tool
    place           sessions        one turn at a time on a session, on this machine
    Codex run       codex process   `codex exec --json`, in a process group of its own
    events, turn    turn            Codex's events folded into a reply or a failure
    result          tools, server   structured and as text
    bytes out       transport       the only writer of standard output

What it starts: for each call one `codex exec` (through /bin/sh, which leaves a watcher in the same process
group, so that Codex ends even if this process is killed) and, on Windows, `taskkill`.
What it reads: its environment, and of Codex's session files the first line, for the session's directory.
What it writes: standard output (MCP), standard error (a log without prompts and replies), and one empty
lock file in the Codex home, `codex-persistent-mcp.lock`.
It keeps no state of its own: the conversations live in Codex's session store.
"""
from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple, Union

# ---------------------------------------------------------------------------------------------------------
# constants, settings
# ---------------------------------------------------------------------------------------------------------

NAME = "codex-persistent-mcp"
#: Version of this file, as told to clients and by `--version`.
VERSION = "1.0.0"

#: Revisions of MCP that begin with an `initialize` handshake, newest first.
LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
#: Revisions of MCP in which every request carries its own `_meta`.
MODERN_REVISIONS = ("2026-07-28",)
#: The only revision with JSON-RPC batches.
BATCH_REVISION = "2025-03-26"

#: Error codes of JSON-RPC 2.0, and the one of MCP 2026-07-28 that this server can need.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, UNSUPPORTED_REVISION = -32603, -32022

#: Sandboxes of Codex, from the least to the most rights.
SANDBOXES = ("read-only", "workspace-write", "danger-full-access")

#: Bytes of one line from the client; a longer one is skipped and refused.
MAX_MESSAGE = 128 << 20
#: Bytes of one event from Codex; of a longer one only the beginning is looked at.
MAX_EVENT = 32 << 20
#: Bytes of Codex's standard error kept from its beginning, and as many from its end.
MAX_STDERR = 32 << 10
#: Calls waiting and running at once; further ones are refused at once.
MAX_CALLS = 256
#: Bytes of answers that wait for a client that does not read; past that, no further message is read.
MAX_UNSENT = 64 << 20

MIN_TIMEOUT_MS, MAX_TIMEOUT_MS, DEFAULT_TIMEOUT_MS = 1_000, 7_200_000, 600_000

#: Seconds. How often a running call looks at its deadline, its cancellation and its process.
TICK = 0.1
#: Seconds that Codex gets to leave by itself after its turn has ended.
LEAVE = 3.0
#: Seconds between SIGINT, SIGTERM and SIGKILL for one call; and when the whole server leaves.
PATIENCE, HASTE = (1.0, 1.0), (0.15, 0.1)
#: Seconds that output may still come after Codex itself has gone (a child of its can hold the pipe).
DRAIN = 0.5
#: Seconds from one progress message to the next, at least; and the longest silence.
PROGRESS_GAP, PROGRESS_SILENCE = 0.5, 10.0

WINDOWS = os.name == "nt"
#: Set for Codex, so that a server that Codex or one of its commands starts knows where it stands.
MARKER = "CODEX_PERSISTENT_MCP_ACTIVE"
#: A session id as Codex makes it and `codex resume` takes it.
UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"


class Settings(NamedTuple):
    """What the operator set in the environment, read once. `problems` has a text for each bad value."""

    codex: str
    cwd: str
    origin: str
    timeout_ms: int
    sandbox: Optional[str]
    max_parallel: int
    codex_home: str
    problems: Tuple[str, ...]


def read_settings(env: Dict[str, str]) -> Settings:
    """Reads the settings from `env`; an empty value counts as not set. Never raises."""
    problems: List[str] = []

    def number(name: str, default: int, low: int, high: int) -> int:
        text = env.get(name) or str(default)
        if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high:
            return int(text)
        problems.append("%s is %r; it takes a whole number from %d to %d" % (name, text, low, high))
        return default

    sandbox = env.get("CODEX_MCP_SANDBOX") or None
    if sandbox and sandbox not in SANDBOXES:
        problems.append("CODEX_MCP_SANDBOX is %r; it takes one of %s" % (sandbox, ", ".join(SANDBOXES)))
        sandbox = "read-only"
    cwd = env.get("CODEX_MCP_CWD") or ""
    if cwd:
        cwd = os.path.expanduser(cwd)
        if not os.path.isabs(cwd) or not os.path.isdir(cwd):
            problems.append("CODEX_MCP_CWD is %r; it takes the absolute path of an existing directory" % cwd)
    else:
        try:
            cwd = os.getcwd()
        except OSError as error:
            problems.append("the directory in which the server was started is gone (%s); set CODEX_MCP_CWD to "
                            "the absolute path of an existing directory" % error.strerror)
    return Settings(
        codex=os.path.expanduser(env.get("CODEX_BIN") or "codex"), cwd=cwd,
        origin=env.get("CODEX_PERSISTENT_MCP_ORIGIN") or NAME,
        timeout_ms=number("CODEX_MCP_TIMEOUT_MS", DEFAULT_TIMEOUT_MS, MIN_TIMEOUT_MS, MAX_TIMEOUT_MS),
        sandbox=sandbox, max_parallel=number("CODEX_MCP_MAX_PARALLEL", 16, 1, 1000),
        codex_home=os.path.expanduser(env.get("CODEX_HOME") or os.path.join("~", ".codex")),
        problems=tuple(problems))


# ---------------------------------------------------------------------------------------------------------
# errors, and what a call watches while it waits
# ---------------------------------------------------------------------------------------------------------


class ProtocolError(Exception):
    """A message that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Refusal(Exception):
    """A call that is refused before anything is spawned. Its text tells the caller what to do."""


class RunFailure(Exception):
    """A turn that did not succeed. Its text says why and what the caller can do."""


class SessionBusy(RunFailure):
    """Codex refused to resume: the session has an active writer, in this or another program."""


class Stopped(Exception):
    """A call that must end now: `reason` is "timeout", "cancelled" or "shutdown"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def one_line(text: str, limit: int) -> str:
    """`text` on one line, without control characters, cut to `limit` characters."""
    text = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text[:limit * 4]).strip()
    return text if len(text) <= limit else text[:limit - 1].rstrip() + "\u2026"


def seconds(duration: float) -> str:
    """A duration as a person reads it."""
    return "%d s" % duration if duration < 100 else "%d min %02d s" % divmod(int(duration), 60)


class Progress:
    """Thins out what a call has to tell to what a person can follow. Only the call's worker uses it."""

    def __init__(self, send: Optional[Callable[[str], None]]) -> None:
        self._send = send
        self._start = time.monotonic()
        self._last = 0.0
        self.latest = "Waiting"
        self.pending = False

    def say(self, text: str, at_once: bool = False) -> None:
        """Tells `text` now, or soon, unless something newer comes first; with `at_once` surely now."""
        self.latest, self.pending = text, True
        self.tick(at_once)

    def tick(self, at_once: bool = False) -> None:
        """Tells what is due: the newest text, or after a silence a sign of life."""
        if self._send is None:
            return
        now = time.monotonic()
        silence = now - (self._last or self._start)
        if self.pending and (at_once or not self._last or silence >= PROGRESS_GAP):
            text = self.latest
        elif silence >= PROGRESS_SILENCE:
            text = "%s (%s so far)" % (self.latest, seconds(now - self._start))
        else:
            return
        self._last, self.pending = now, False
        self._send(one_line(text, 160))


class Control:
    """What one call watches: its deadline, its cancellation, its progress.

    `stop` and `wake` may be called by any worker, all else only by the call's own.
    """

    def __init__(self, timeout_s: float, progress: Progress) -> None:
        self.deadline = time.monotonic() + timeout_s
        self.progress = progress
        self._stop: Optional[str] = None
        self._wake = threading.Event()

    def stop(self, reason: str) -> None:
        """Makes the next `check` raise `Stopped`. The first reason stays."""
        self._stop = self._stop or reason
        self._wake.set()

    def wake(self) -> None:
        """Ends a `pause` early."""
        self._wake.set()

    def check(self) -> None:
        """Raises `Stopped` if the call must end; tells progress that is due."""
        if self._stop is None and time.monotonic() >= self.deadline:
            self._stop = "timeout"
        if self._stop is not None:
            raise Stopped(self._stop)
        self.progress.tick()

    def pause(self, duration: float) -> None:
        """Waits `duration` seconds, or until woken. Raises `Stopped`."""
        end = time.monotonic() + duration
        while True:
            self.check()
            left = min(end, self.deadline) - time.monotonic()
            if self._wake.wait(max(0.0, min(left, PROGRESS_GAP if self.progress.pending else PROGRESS_SILENCE))):
                self._wake.clear()
                return self.check()
            if left <= 0:
                return self.check()


# ---------------------------------------------------------------------------------------------------------
# messages: JSON-RPC 2.0, bytes to checked messages and back
# ---------------------------------------------------------------------------------------------------------

RequestId = Union[str, int]


class Message(NamedTuple):
    """A request, or a notification if `is_request` is false. `params` is an object, {} if left out."""

    method: str
    params: Dict[str, Any]
    id: Optional[RequestId]
    is_request: bool


def is_id(value: Any) -> bool:
    """Whether MCP allows `value` as a request id or progress token: a string or an integer."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def decode_line(line: bytes) -> Any:
    """The JSON value of one line. Raises ProtocolError."""

    def no_constant(name: str) -> None:
        raise ValueError("%s is not JSON" % name)

    try:
        return json.loads(line.decode("utf-8-sig" if line.startswith(b"\xef\xbb\xbf") else "utf-8"),
                          parse_constant=no_constant)
    except RecursionError:
        raise ProtocolError(PARSE_ERROR, "Parse error: nested too deeply") from None
    except ValueError as error:
        raise ProtocolError(PARSE_ERROR, "Parse error: " + one_line(str(error), 200)) from None


def read_message(value: Any) -> Optional[Message]:
    """Checks one JSON-RPC message; None for a response, which nobody here waits for. Raises ProtocolError."""
    if not isinstance(value, dict):
        raise ProtocolError(INVALID_REQUEST, "Invalid request: a message is an object")
    if "method" not in value and ("result" in value or "error" in value):
        return None
    if value.get("jsonrpc") != "2.0":
        raise ProtocolError(INVALID_REQUEST, 'Invalid request: "jsonrpc" must be "2.0"')
    if not isinstance(value.get("method"), str):
        raise ProtocolError(INVALID_REQUEST, 'Invalid request: "method" must be a string')
    if "id" in value and not is_id(value["id"]):
        raise ProtocolError(INVALID_REQUEST, 'Invalid request: "id" must be a string or an integer')
    params = value.get("params")
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS, 'Invalid params: "params" must be an object')
    return Message(value["method"], params, value.get("id"), "id" in value)


def id_of(value: Any) -> Optional[RequestId]:
    """The id to answer a malformed request under: its own if that can be read, else null."""
    found = value.get("id") if isinstance(value, dict) else None
    return found if is_id(found) else None


def error_response(request_id: Optional[RequestId], error: ProtocolError) -> Dict[str, Any]:
    """A JSON-RPC error response."""
    body: Dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


# ---------------------------------------------------------------------------------------------------------
# transport: lines from standard input, lines to standard output
# ---------------------------------------------------------------------------------------------------------


def read_lines(stream: Any) -> Iterator[Optional[bytes]]:
    """The lines of the client, until the end of input; None stands for one of over MAX_MESSAGE bytes."""
    while True:
        line = stream.readline(MAX_MESSAGE + 1)
        if not line:
            return
        if len(line) > MAX_MESSAGE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 20)
            yield None
        elif line.strip():
            yield line


class Writer:
    """The only writer of standard output. `send` may be called by any worker and never waits for the client.

    The lock guards `_queue`, `_unsent` and `_broken`; only the writer's own worker writes.
    """

    def __init__(self, fd: int, on_broken: Callable[[], None]) -> None:
        self._fd, self._on_broken = fd, on_broken
        self._changed = threading.Condition()
        self._queue: Deque[bytes] = deque()
        self._unsent = 0
        self._broken = False
        threading.Thread(target=self._work, name="writer", daemon=True).start()

    def send(self, message: Any) -> None:
        """Queues one message, as one line of ASCII."""
        line = json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
        with self._changed:
            if not self._broken:
                self._queue.append(line)
                self._unsent += len(line)
                self._changed.notify_all()

    def wait_for_room(self, limit: int, patience: float) -> bool:
        """Waits until at most `limit` bytes are unsent; false if for `patience` seconds none went out."""
        with self._changed:
            while self._unsent > limit and not self._broken:
                before = self._unsent
                if not self._changed.wait(patience) and self._unsent == before:
                    return False
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                line = memoryview(self._queue.popleft())
            while line:
                try:
                    # Not all at once, so that whoever waits for room can see that the client reads.
                    count = os.write(self._fd, line[:1 << 20])
                except OSError:
                    with self._changed:
                        self._broken = True
                        self._queue.clear()
                        self._changed.notify_all()
                    return self._on_broken()
                line = line[count:]
                with self._changed:
                    self._unsent -= count
                    self._changed.notify_all()


def log(text: str) -> None:
    """One line for people on standard error; dropped if nobody reads there, so that it never blocks a call."""
    data = ("%s: %s\n" % (NAME, one_line(text, 500))).encode("utf-8", "replace")
    try:
        if not WINDOWS:
            import select  # only POSIX can ask whether a write would block

            poller = select.poll()
            poller.register(2, select.POLLOUT)
            if not any(state & select.POLLOUT for _, state in poller.poll(0)):
                return
        os.write(2, data)
    except OSError:
        pass


# ---------------------------------------------------------------------------------------------------------
# turn: events of `codex exec --json` folded into a turn
# ---------------------------------------------------------------------------------------------------------

#: Most bytes of a long turn are the output of commands and tools, in events from which nothing is needed.
SKIPPED = re.compile(rb'\{"type":"item\.(?:updated|completed)",'
                     rb'"item":\{"id":"[^"]*","type":"(?:command_execution|mcp_tool_call)"')
MAX_WARNINGS = 20


def text_in(value: Any, *path: str) -> str:
    """The string at `path` in nested objects, or ""."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def codex_words(text: str) -> str:
    """What an error of Codex says, without the JSON around it, colours and backtraces."""
    for _ in range(4):
        start, end = text.find("{"), text.rfind("}")
        try:
            value = json.loads(text[start:end + 1]) if 0 <= start < end and len(text) < 1 << 20 else None
        except (ValueError, RecursionError):
            value = None
        inner = text_in(value, "error", "message") or text_in(value, "message") or text_in(value, "detail")
        if not inner:
            break
        text = text[:start] + inner + text[end + 1:]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = re.split(r"\n\s*(?:Stack backtrace|stack backtrace|Backtrace):", text)[0].strip()
    return text if len(text) <= 2000 else text[:2000] + "\u2026"


def stderr_words(text: str) -> str:
    """What Codex's standard error says of a failure, without its noise."""
    text = codex_words(text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    logged = re.compile(r"\d{4}-\d\d-\d\dT\S+\s+(?:ERROR|WARN|INFO|DEBUG|TRACE)\s+(?:\S+:\s+)?")
    noise = re.compile(r"WARNING: |Reading (?:additional input|prompt) from stdin|note: run with `RUST_BACKTRACE")
    plain = [line for line in lines if not noise.match(line) and not logged.match(line)]
    errors = [index for index, line in enumerate(plain) if line.startswith(("Error", "error"))]
    if errors:
        plain = plain[errors[0]:]
    elif not plain:
        plain = [logged.sub("", line) for line in lines if logged.match(line)]
    return "\n".join(plain[:12])


def item_progress(item: Dict[str, Any], finished: bool) -> Optional[str]:
    """The line of progress that an item deserves, if any."""
    kind = item.get("type")
    if kind == "command_execution" and not finished:
        command = text_in(item, "command")
        wrapped = re.fullmatch(r"\S*sh -l?c (['\"])(.*)\1", command, re.DOTALL)
        return "Runs: " + (wrapped.group(2) if wrapped else command)
    if kind == "file_change":
        changes = item.get("changes")
        paths = [text_in(change, "path") for change in changes[:5]] if isinstance(changes, list) else []
        return "Changes " + ", ".join(os.path.basename(path) for path in paths if path)
    if kind == "web_search":
        return "Searches the web: " + text_in(item, "query")
    if kind == "mcp_tool_call" and not finished:
        return "Calls %s.%s" % (text_in(item, "server"), text_in(item, "tool"))
    if kind == "todo_list" and isinstance(item.get("items"), list):
        steps = [step for step in item["items"] if isinstance(step, dict)]
        done = sum(step.get("completed") is True for step in steps)
        current = next((step for step in steps if step.get("completed") is not True), {})
        return "Plan, %d of %d: %s" % (min(done + 1, len(steps)), len(steps), text_in(current, "text") or "done")
    if kind == "reasoning" and finished:
        return "Thinks: " + text_in(item, "text").strip().split("\n")[0].strip("*# ")
    if kind == "agent_message" and finished:
        return "Writes: " + one_line(text_in(item, "text"), 100)
    return None


class Turn:
    """One turn, folded from its events. `feed` takes the lines in order; the rest is read afterwards.

    `state` goes from "running" to "completed" or "failed"; a turn that Codex adds in the same run opens it
    again. `broken` is set when the run must be stopped at once, before it does anything else; `lost` when the
    expected session does not exist.
    """

    def __init__(self, expected: Optional[str], on_session: Callable[[str], None] = lambda session_id: None) -> None:
        """`expected` is the session to continue, None for a new one; `on_session` hears the session's id at once."""
        self.expected = expected
        self._on_session = on_session
        self.session_id: Optional[str] = None
        self.lost = False
        self.reply: Optional[str] = None
        self.usage: Optional[Dict[str, Any]] = None
        self.warnings: List[str] = []
        self.state = "running"
        self.error = ""
        self.broken = ""
        self.stray: List[str] = []
        self.seen_events = False

    def feed(self, line: bytes, cut: bool = False) -> Optional[str]:
        """Takes one line of Codex's output, `cut` if it was too long to keep. Returns progress to tell."""
        if cut:
            if self.state == "running" and b'"agent_message"' in line[:200]:
                self.broken = "Codex's message is over %d MiB, too long to pass on" % (MAX_EVENT >> 20)
            return None
        if SKIPPED.match(line):
            return None
        try:
            event = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            if line.strip() and len(self.stray) < 5:
                self.stray.append(one_line(line[:1000].decode("utf-8", "replace"), 200))
            return None
        self.seen_events = True
        kind: str = event["type"]
        if kind == "thread.started":
            return self._session_started(text_in(event, "thread_id"))
        if kind == "turn.started":
            self.state = "running"
            return "Codex has started its turn"
        if self.state != "running":
            return None
        if kind.startswith("item."):
            item = event.get("item")
            return self._item(item, kind == "item.completed") if isinstance(item, dict) else None
        if kind == "turn.completed":
            self.state = "completed"
            self.usage = event["usage"] if isinstance(event.get("usage"), dict) else None
        elif kind == "turn.failed":
            self.state = "failed"
            self.error = codex_words(text_in(event, "error", "message")) or self.error
        elif kind == "error":
            self.error = codex_words(text_in(event, "message")) or self.error
            self.warn(self.error)
            return "Codex reports: " + self.error
        return None

    def warn(self, text: str) -> None:
        """Notes a warning for the answer, once."""
        text = codex_words(text)
        if text and text not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)

    def _session_started(self, session_id: str) -> Optional[str]:
        session_id = session_id.lower()
        if not re.fullmatch(UUID, session_id):
            self.broken = "Codex announced a session without a usable id (%s)" % (one_line(session_id, 80) or "none")
        elif self.expected and session_id != self.expected:
            self.broken = ("Codex does not know the session %s here and was about to answer from a new one; it was "
                           "stopped before that" % self.expected)
            self.lost = True
        elif self.session_id and session_id != self.session_id:
            self.broken = "Codex announced a second session, %s, in the same run" % session_id
        elif not self.session_id:
            self.session_id = session_id
            self._on_session(session_id)
            return "Session %s is open (codex resume %s)" % (session_id, session_id)
        return None

    def _item(self, item: Dict[str, Any], finished: bool) -> Optional[str]:
        text = text_in(item, "text")
        if finished and item.get("type") == "agent_message" and text:
            self.reply = text
        elif finished and item.get("type") == "error":
            self.warn(text_in(item, "message"))
        return item_progress(item, finished)

    def result(self, stderr: str, ending: str) -> None:
        """Returns if the turn is a success. `ending` says how the process went.

        Raises:
            SessionBusy: the session is open elsewhere.
            RunFailure: anything else, in Codex's own words where it had some.
        """
        if self.broken:
            known = "" if self.expected is None else (
                " Check the id; or leave session_id out to begin a new session.")
            raise RunFailure(self.broken + "." + known)
        if self.state == "completed":
            if self.reply is not None and self.session_id:
                return
            if self.reply is None:
                raise RunFailure("Codex finished the turn without a message. Ask again, or ask for a written answer.")
            raise RunFailure("Codex answered but did not say in which session, so it cannot be continued. Update "
                             "Codex (npm install -g @openai/codex).")
        words = self.error if self.state == "failed" or self.error else ""
        words = words or stderr_words(stderr) or " | ".join(self.stray)
        if "already has an active writer" in stderr and self.state == "running":
            raise SessionBusy("The session is open elsewhere")
        self.lost = "no rollout found" in words
        what = "Codex could not finish the turn" if self.seen_events else "Codex did not start the turn"
        raise RunFailure("%s (%s): %s\n%s" % (what, ending, words or "it gave no reason", advice(words)))


#: What a caller can do about a failure, by what is found in Codex's words.
ADVICE = (
    ("no rollout found", "Codex does not know this session here: check session_id, or leave it out to begin a new "
                         "session. Sessions live in the Codex home (CODEX_HOME) of the user who began them."),
    ("maximum length", "Send a shorter text; Codex can read files in its working directory itself."),
    ("unknown variant", "Leave reasoning_effort out or take a value that Codex names; or correct Codex's config.toml."),
    ("config.toml", "Ask the user to correct Codex's config.toml."),
    ("not logged in", "Ask the user to run `codex login`."),
    ("401", "Ask the user to run `codex login`, or to check the API key of the model provider."),
    ("usage limit", "Wait until the limit of the user's plan is reset, or ask for another model."),
    ("model", "If model was given, check that this Codex and account can use it, or leave it out."),
)


def advice(words: str) -> str:
    """What the caller can do about a failure that Codex describes with `words`."""
    low = words.lower()
    return next((text for key, text in ADVICE if key in low),
                "Try again; if it stays, ask the user to run the same with `codex exec` in a terminal.")


# ---------------------------------------------------------------------------------------------------------
# command: options of a turn to an argument list
# ---------------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What one run of Codex is given. `cwd` is an absolute path; None leaves it to Codex's configuration."""

    cwd: str
    session_id: Optional[str] = None
    model: Optional[str] = None
    effort: Optional[str] = None
    sandbox: Optional[str] = None


def exec_arguments(options: Options) -> List[str]:
    """The arguments after `codex`. The prompt is read from standard input (`-`)."""
    arguments = ["exec", "--skip-git-repo-check", "--json", "-C", options.cwd]
    if options.model:
        arguments += ["-m", options.model]
    if options.effort:
        arguments += ["-c", 'model_reasoning_effort="%s"' % options.effort]
    if options.sandbox:
        arguments += ["-s", options.sandbox]
    if options.session_id:
        arguments += ["resume", options.session_id]
    return arguments + ["-"]


def find_codex(name: str) -> str:
    """The executable that `name` (CODEX_BIN) stands for, looked up now. Raises Refusal."""
    import shutil  # needed by a call, not by the start of the server

    found = shutil.which(name)
    if found:
        return os.path.abspath(found)
    remedy = "Install it (npm install -g @openai/codex) or set CODEX_BIN to the absolute path of the executable."
    if os.path.dirname(name):
        state = ("is a directory" if os.path.isdir(name) else
                 "is not executable" if os.path.exists(name) else "does not exist")
        raise Refusal("CODEX_BIN is %s, which %s. %s" % (name, state, remedy))
    raise Refusal("The Codex CLI (%s) was not found on the PATH of this server. %s" % (name, remedy))


# ---------------------------------------------------------------------------------------------------------
# codex process: starts, watches and stops one Codex and its whole process group
# ---------------------------------------------------------------------------------------------------------

#: The shell becomes Codex; the watcher it leaves in the group ends the group when the pipe %d, whose other end
#: only this server holds, is closed: by the server's death, however it dies. It ignores the signals by which
#: Codex is asked to stop, holds none of Codex's pipes, and is swept away with the group after the run.
WATCHED = '(trap "" HUP INT TERM; read -r _ <&%d; kill -KILL 0) >/dev/null 2>&1 & exec %d<&-; exec "$@"'


def watch_pipe() -> Optional[Tuple[int, int]]:
    """The pipe of the watchers, or None where there can be none. Shells know only descriptors below 10."""
    if WINDOWS or not os.path.exists("/bin/sh"):
        return None
    read_end, write_end = os.pipe()
    return (read_end, write_end) if read_end < 10 else None


class LineSplitter:
    """Cuts chunks into lines. Of a line of over MAX_EVENT bytes it keeps only the beginning."""

    def __init__(self) -> None:
        self._parts: List[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Tuple[bytes, bool]]:
        """The lines that `chunk` completes, each with whether it was cut."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        for line in lines:
            self._hold(line)
            yield self.take()
        self._hold(rest)

    def take(self) -> Tuple[bytes, bool]:
        """What there is of the current line, which then begins anew."""
        line, cut = b"".join(self._parts), self._size > MAX_EVENT
        self._parts, self._size = [], 0
        return line, cut

    def _hold(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > MAX_EVENT:
            part, self._parts = b"", self._parts[:1] or [part[:4096]]
        if part:
            self._parts.append(part)


def pump(pipe: Any) -> Any:
    """Windows cannot wait for several pipes at once: a worker copies this one into a socket, which can be."""
    import socket

    near, far = socket.socketpair()

    def copy() -> None:
        try:
            for chunk in iter(lambda: os.read(pipe.fileno(), 1 << 16), b""):
                far.sendall(chunk)
        except OSError:
            pass
        far.close()

    threading.Thread(target=copy, daemon=True).start()
    return near


class CodexRun:
    """One Codex process with all that it starts. Only `signal` may be called by other workers."""

    def __init__(self, codex: str, arguments: List[str], cwd: str, watch: Optional[Tuple[int, int]]) -> None:
        """Starts the process. Raises OSError, ValueError."""
        import subprocess  # a quarter of the time that the server takes to start, and not needed for that

        command, options = [codex] + arguments, {}  # type: List[str], Dict[str, Any]
        if watch is not None:
            command = ["/bin/sh", "-c", WATCHED % (watch[0], watch[0]), "sh"] + command
            options["pass_fds"] = (watch[0],)
        if WINDOWS:
            options["creationflags"] = 0x08000200  # CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
        else:
            options["start_new_session"] = True
        self.process = subprocess.Popen(
            command, cwd=cwd, env=dict(os.environ, **{MARKER: str(os.getpid())}), bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        self.stderr_head, self.stderr_tail = b"", b""
        self._ladder: Deque[Tuple[float, str]] = deque()

    def signal(self, name: str) -> None:
        """Sends SIGINT, SIGTERM or SIGKILL to the whole group; on Windows any of them ends the tree.

        The group's number cannot have passed to anybody else: as long as the run is not swept, its watcher
        is in the group.
        """
        import signal
        import subprocess

        try:
            if WINDOWS:
                subprocess.call(["taskkill", "/T", "/F", "/PID", str(self.process.pid)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            else:
                os.killpg(self.process.pid, getattr(signal, name))
        except OSError:
            pass  # nobody is left in the group

    def finish(self, prompt: bytes, turn: Turn, control: Control) -> str:
        """Feeds the prompt, folds the output into `turn`, and returns when all is over how Codex ended.

        Raises Stopped if the call was stopped before the turn had ended. Nothing of the run is left then.
        """
        try:
            stopped = self._supervise(prompt, turn, control)
        finally:
            self.signal("SIGKILL")
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                try:
                    pipe.close()  # type: ignore[union-attr]
                except OSError:
                    pass
        if stopped and turn.state == "running" and not turn.broken:
            raise Stopped(stopped)
        code = self.process.returncode
        return "exit code %d" % code if code >= 0 else "ended by signal %d" % -code

    def stderr(self) -> str:
        """What was kept of Codex's standard error."""
        middle = b"\n...\n" if len(self.stderr_tail) >= MAX_STDERR else b""
        return (self.stderr_head + middle + self.stderr_tail).decode("utf-8", "replace")

    def _supervise(self, prompt: bytes, turn: Turn, control: Control) -> Optional[str]:
        """The loop of a run. Returns why it was stopped, if it was."""
        import selectors

        selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
        splitter, process = LineSplitter(), self.process
        out, err = (pump(pipe) if WINDOWS else pipe for pipe in (process.stdout, process.stderr))
        selector.register(out, selectors.EVENT_READ, "out")
        selector.register(err, selectors.EVENT_READ, "err")
        if WINDOWS:
            threading.Thread(target=self._feed_all, args=(prompt,), daemon=True).start()
        else:
            os.set_blocking(process.stdin.fileno(), False)  # type: ignore[union-attr]
            selector.register(process.stdin, selectors.EVENT_WRITE, "in")
        unsent = memoryview(prompt)
        stopped: Optional[str] = None
        over = gone = None  # when the turn, or all output, ended; when the process did
        out_open = True
        while True:
            now = time.monotonic()
            if stopped is None:
                try:
                    control.check()
                except Stopped as stop:
                    stopped = stop.reason
                    self._climb(now, HASTE if stopped == "shutdown" else PATIENCE)
            if turn.broken:
                self.signal("SIGKILL")
            over = (over or now) if turn.state != "running" or not out_open else None
            if over and now > over + LEAVE and not self._ladder:
                self._climb(now, PATIENCE)
            while self._ladder and self._ladder[0][0] <= now:
                self.signal(self._ladder.popleft()[1])
            if gone is None and process.poll() is not None:
                gone = now
            if gone is not None and (not out_open or now > gone + DRAIN):
                break
            if not out_open and gone is None:
                self._wait(TICK / 2)
            ready = selector.select(0 if not out_open else TICK / 4 if gone else TICK) if selector.get_map() else []
            if gone is not None and not ready:
                break
            for key, _ in ready:
                if key.data == "in":
                    unsent = self._feed(key, unsent, selector)
                    continue
                chunk = self._read(key.fileobj)
                if not chunk:
                    selector.unregister(key.fileobj)
                    out_open = out_open and key.data != "out"
                elif key.data == "err":
                    self._keep_stderr(chunk)
                else:
                    for line, cut in splitter.feed(chunk):
                        self._tell(turn.feed(line, cut), turn, control)
        self._tell(turn.feed(*splitter.take()), turn, control)
        return stopped

    def _climb(self, now: float, patience: Tuple[float, float]) -> None:
        self._ladder = deque([(now, "SIGINT"), (now + patience[0], "SIGTERM"), (now + sum(patience), "SIGKILL")])

    def _wait(self, duration: float) -> None:
        import subprocess

        try:
            self.process.wait(duration)
        except subprocess.TimeoutExpired:
            pass

    @staticmethod
    def _tell(progress: Optional[str], turn: Turn, control: Control) -> None:
        if turn.broken:
            return
        if progress is not None:
            control.progress.say(progress, at_once=progress.startswith("Session "))

    @staticmethod
    def _read(source: Any) -> bytes:
        try:
            return source.recv(1 << 16) if WINDOWS else os.read(source.fileno(), 1 << 16)
        except OSError:
            return b""

    def _keep_stderr(self, chunk: bytes) -> None:
        room = MAX_STDERR - len(self.stderr_head)
        self.stderr_head += chunk[:room] if room > 0 else b""
        self.stderr_tail = (self.stderr_tail + chunk[max(0, room):])[-MAX_STDERR:]

    def _feed(self, key: Any, unsent: memoryview, selector: Any) -> memoryview:
        """Writes what the pipe takes of the prompt; at its end, or if Codex closed it, closes the pipe."""
        try:
            unsent = unsent[os.write(key.fd, unsent[:1 << 16]):]
        except BlockingIOError:
            return unsent
        except OSError:
            unsent = unsent[:0]
        if not unsent:
            selector.unregister(key.fileobj)
            key.fileobj.close()
        return unsent

    def _feed_all(self, prompt: bytes) -> None:
        try:
            self.process.stdin.write(prompt)  # type: ignore[union-attr]
            self.process.stdin.close()  # type: ignore[union-attr]
        except OSError:
            pass


class Codex:
    """The Codex CLI of this machine. `run` may be called by any worker.

    The lock guards `_runs` and `_closed`.
    """

    def __init__(self, settings: Settings) -> None:
        self._name = settings.codex
        self._watch = watch_pipe()
        self._lock = threading.Lock()
        self._runs: Dict[int, CodexRun] = {}
        self._closed = False

    def run(self, options: Options, prompt: str, turn: Turn, control: Control) -> None:
        """Runs one turn to its end and folds it into `turn`; returns if it is a success.

        Raises:
            Refusal: there is no Codex to start.
            SessionBusy, RunFailure: the turn failed.
            Stopped: the call was stopped before the turn ended.
        """
        codex = find_codex(self._name)
        if WINDOWS and codex.lower().endswith((".cmd", ".bat")) and re.search(r'[&|<>^%!"\r\n]', options.cwd):
            raise Refusal("The directory %s has characters that Windows command files take as their own; use another "
                          "one, or set CODEX_BIN to codex.exe." % options.cwd)
        # Lone surrogates, which JSON can carry and UTF-8 cannot, become replacement characters.
        text = prompt.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode("utf-8")
        try:
            run = CodexRun(codex, exec_arguments(options), options.cwd, self._watch)
        except (OSError, ValueError) as error:
            raise RunFailure("Codex (%s) could not be started: %s. Check the installation of Codex." % (codex, error))
        with self._lock:
            self._runs[run.process.pid] = run
            if self._closed:
                control.stop("shutdown")
        try:
            ending = run.finish(text, turn, control)
        finally:
            with self._lock:
                self._runs.pop(run.process.pid, None)
        turn.result(run.stderr(), ending)

    def close(self, patience: float) -> None:
        """Asks all runs to stop at once, and ends those that are still there after `patience` seconds."""
        end = time.monotonic() + patience
        with self._lock:
            self._closed = True
            for run in self._runs.values():
                run.signal("SIGINT")
        while self._runs and time.monotonic() < end:
            time.sleep(0.005)
        with self._lock:
            for run in self._runs.values():
                run.signal("SIGKILL")


# ---------------------------------------------------------------------------------------------------------
# sessions: who may use a session now
# ---------------------------------------------------------------------------------------------------------


class Line:
    """First come, first served: of those in line, the first `capacity` are served. The caller locks."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._calls: List[Control] = []

    def join(self, call: Control) -> None:
        """Takes the last place."""
        self._calls.append(call)

    def serves(self, call: Control) -> bool:
        """Whether `call` is among the first."""
        return call in self._calls[:self._capacity]

    def leave(self, call: Control) -> bool:
        """Gives the place back and wakes who is served now. Returns whether somebody is still in line."""
        if call in self._calls:
            self._calls.remove(call)
            for other in self._calls[:self._capacity]:
                other.wake()
        return bool(self._calls)


class MachineLocks:
    """Locks on sessions among the servers of this user on this machine.

    They are locks on single bytes of one file in the Codex home, so they vanish with their holder and leave
    nothing that grows. Each session has two: one for its use, and one for being the next to use it, so that
    two servers with many calls take turns. Within a process the caller sees to it that nobody asks twice.
    """

    def __init__(self, codex_home: str) -> None:
        self._path = os.path.join(codex_home, NAME + ".lock")
        self._lock = threading.Lock()
        self._fd: Optional[int] = None
        self._useless = False

    def acquire(self, session_id: str, control: Control) -> None:
        """Waits for the session. Raises Stopped."""
        mine = self._byte(session_id)
        for byte in (mine + 1, mine):
            try:
                while not self._try(byte):
                    control.progress.say("Waits for session %s, which another server on this machine is using"
                                         % session_id)
                    control.pause(0.05)
            except Stopped:
                if byte == mine:
                    self._unlock(mine + 1)
                raise
        self._unlock(mine + 1)

    def try_acquire(self, session_id: str) -> bool:
        """Takes the session if it is free."""
        return self._try(self._byte(session_id))

    def release(self, session_id: str) -> None:
        """Gives the session back."""
        self._unlock(self._byte(session_id))

    @staticmethod
    def _byte(session_id: str) -> int:
        return int(session_id.replace("-", ""), 16) % (1 << 29) * 2

    def _file(self) -> Optional[int]:
        with self._lock:
            if self._fd is None and not self._useless:
                flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
                try:
                    self._fd = os.open(self._path, flags, 0o600)
                except OSError as error:
                    self._give_up(error)
            return None if self._useless else self._fd

    def _give_up(self, error: OSError) -> None:
        self._useless = True
        log("%s can't be used as a lock (%s): this server goes on, but does not see whether another one on this "
            "machine uses the same session" % (self._path, error.strerror or error))

    def _try(self, byte: int) -> bool:
        fd = self._file()
        if fd is None:
            return True
        try:
            if WINDOWS:
                import msvcrt

                with self._lock:
                    os.lseek(fd, byte, os.SEEK_SET)
                    msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                import fcntl

                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
            return True
        except OSError as error:
            import errno

            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return False
            self._give_up(error)
            return True

    def _unlock(self, byte: int) -> None:
        if self._fd is None:
            return
        try:
            if WINDOWS:
                import msvcrt

                with self._lock:
                    os.lseek(self._fd, byte, os.SEEK_SET)
                    msvcrt.locking(self._fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
            else:
                import fcntl

                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)
        except OSError:
            pass


class Place:
    """A call's place in the line of its session. Made by the reader; all else is for the call's worker."""

    def __init__(self, sessions: Sessions, session_id: Optional[str], control: Control) -> None:
        self._sessions, self._control = sessions, control
        self.session_id = session_id
        self._locked = False

    def wait(self) -> None:
        """Waits until the session is this call's: here, then on this machine. Raises Stopped."""
        if self.session_id is None:
            return
        while not self._sessions.serves(self.session_id, self._control):
            self._control.progress.say("Waits for an earlier call on session %s" % self.session_id)
            self._control.pause(PROGRESS_SILENCE)
        self._sessions.locks.acquire(self.session_id, self._control)
        self._locked = True

    def claim(self, session_id: str) -> None:
        """Takes the session that this call has just opened, so that the next one on it waits."""
        if self.session_id is None:
            self.session_id = session_id
            self._sessions.join(session_id, self._control)
            self._locked = self._sessions.locks.try_acquire(session_id)

    def leave(self) -> None:
        """Gives the session to the next call."""
        if self._locked and self.session_id:
            self._sessions.locks.release(self.session_id)
        self._sessions.leave(self.session_id, self._control)


class Sessions:
    """The lines of all sessions, and the one for the right to run a Codex at all. The lock guards the lines."""

    def __init__(self, settings: Settings) -> None:
        self.locks = MachineLocks(settings.codex_home)
        self._lock = threading.Lock()
        self._lines: Dict[str, Line] = {}
        self._running = Line(settings.max_parallel)
        self._calls = 0

    def enter(self, session_id: Optional[str], control: Control) -> Place:
        """Takes a place for a call, in the order of arrival. Raises Refusal if too many are waiting."""
        with self._lock:
            if self._calls >= MAX_CALLS:
                raise Refusal("This server already has %d calls waiting or running. Wait for answers before you "
                              "send more." % MAX_CALLS)
            self._calls += 1
        if session_id is not None:
            self.join(session_id, control)
        return Place(self, session_id, control)

    def join(self, session_id: str, control: Control) -> None:
        """Puts a call at the end of the line of a session."""
        with self._lock:
            self._lines.setdefault(session_id, Line(1)).join(control)

    def serves(self, session_id: str, control: Control) -> bool:
        """Whether it is this call's turn on the session."""
        with self._lock:
            return self._lines[session_id].serves(control)

    def leave(self, session_id: Optional[str], control: Control) -> None:
        """Ends a call's place."""
        with self._lock:
            self._calls -= 1
            if session_id in self._lines and not self._lines[session_id].leave(control):
                del self._lines[session_id]

    def start_run(self, control: Control) -> None:
        """Waits for the right to run one more Codex. Raises Stopped, and then `end_run` is still due."""
        with self._lock:
            self._running.join(control)
        while True:
            with self._lock:
                if self._running.serves(control):
                    return
            control.progress.say("Waits: this server runs as many Codex processes as it may (CODEX_MCP_MAX_PARALLEL)")
            control.pause(PROGRESS_SILENCE)

    def end_run(self, control: Control) -> None:
        """Gives that right back."""
        with self._lock:
            self._running.leave(control)


def session_directory(codex_home: str, session_id: str) -> Optional[str]:
    """The directory in which a session was started, if Codex's session file tells it."""
    import glob  # needed only for the first call on a session of an earlier server

    pattern = os.path.join(glob.escape(codex_home), "sessions", "*", "*", "*", "rollout-*-%s.jsonl" % session_id)
    try:
        with open(glob.glob(pattern)[0], "rb") as file:
            cwd = text_in(json.loads(file.readline(8 << 20)), "payload", "cwd")
    except (OSError, IndexError, ValueError, RecursionError):
        return None
    return cwd or None


# ---------------------------------------------------------------------------------------------------------
# prompts: the attribution line and the text of each tool
# ---------------------------------------------------------------------------------------------------------

#: Codex's session picker shows 98 characters of a first message on 120 columns. An attribution of at most 58
#: leaves 40 to tell sessions apart, so it gives way where client, tool and origin are long.
ATTRIBUTION_LENGTH = 58


def attribution(client: str, tool: str, origin: str) -> str:
    """The line that tells Codex, and a person in the picker, which AI agent sent a message, and how."""
    client, origin = one_line(client, 200) or "of unknown name", one_line(origin, 200) or NAME
    layout = "AI agent %s MCP %s/%s:"
    if len(layout % (client, origin, tool)) > ATTRIBUTION_LENGTH:
        tool = tool[len("codex_"):]
    over = len(layout % (client, origin, tool)) - ATTRIBUTION_LENGTH
    if over > 0:
        client = one_line(client, max(8, len(client) - over))
        over = len(layout % (client, origin, tool)) - ATTRIBUTION_LENGTH
    return layout % (client, one_line(origin, max(8, len(origin) - max(0, over))), tool)


REVIEWER = """\
You are a strict, independent reviewer for the AI agent that sent this. Your reader is that agent, not a person: \
be direct and specific, without praise.
- Look at the repository in the working directory yourself. Do not trust the summary: check its claims against \
the files, the history and, where that is possible without writing, the tests.
- Edit nothing, create nothing, commit nothing. Only review.
- %s
- Then list what blocks (it must change first) apart from what is only advice. Leave out a list that is empty.
- Name what is missing, risky, unclear or untested, each with file and line where you can, and say what would settle it.
- Write in the language of the request above."""

PLAN_VERDICT = """\
First line: the verdict, "GO", "GO WITH CHANGES" or "STOP", with the one reason that decides, so that the agent \
knows whether to start the work."""
FINAL_VERDICT = """\
First line: the verdict, "DONE", "DONE WITH REMARKS" or "NOT DONE", with the one reason that decides, so that the \
agent knows whether it may call the work done."""


def sections(first: str, *others: Tuple[str, str]) -> str:
    """A prompt: the request itself first, where the picker shows it, then the parts that are not empty."""
    parts = ["# %s\n%s" % (title, text.strip()) for title, text in others if text.strip()]
    return "\n\n".join([first.strip()] + parts)


def chat_prompt(arguments: Dict[str, Any]) -> str:
    """The text of `codex_chat`: what the agent wrote, as it is."""
    return arguments["prompt"]


def plan_prompt(arguments: Dict[str, Any]) -> str:
    """The text of `codex_guard_plan`."""
    return sections(arguments["requirements"],
                    ("Constraints", arguments.get("constraints", "")),
                    ("The plan to criticise, before any work starts", arguments["plan"]),
                    ("Your task", REVIEWER % PLAN_VERDICT))


def final_prompt(arguments: Dict[str, Any]) -> str:
    """The text of `codex_guard_final`."""
    return sections(arguments["change_summary"],
                    ("Test results, as the agent reports them", arguments.get("test_results", "")),
                    ("Open questions", arguments.get("open_questions", "")),
                    ("Your task: review this change before it is called done", REVIEWER % FINAL_VERDICT))


# ---------------------------------------------------------------------------------------------------------
# tools: schemas, checked arguments, a turn to a tool result
# ---------------------------------------------------------------------------------------------------------


class Tool(NamedTuple):
    """One tool: `texts` are its own arguments (name, description, required), `output` its text in the answer."""

    name: str
    title: str
    description: str
    texts: Tuple[Tuple[str, str, bool], ...]
    output: Tuple[str, str]
    prompt: Callable[[Dict[str, Any]], str]
    reviews: bool


CARRY_ON = (" The answer has session_id: pass it to the next call, of any of the codex tools, to go on in the same "
            "conversation; leave it out to begin a new one. Give resume_command to the user, who can open the same "
            "conversation in a terminal with it. A turn can take minutes.")

TOOLS = (
    Tool("codex_chat", "Ask Codex",
         "Send a message to OpenAI's Codex, a second coding agent that can read the repository and run commands "
         "there, and get its reply: a second opinion, an investigation, a discussion, or work on files if the "
         "sandbox allows it. To have a plan or a finished change reviewed, take codex_guard_plan or "
         "codex_guard_final instead." + CARRY_ON,
         (("prompt", "The message to Codex, with all that it needs to know and cannot read in the working "
                     "directory.", True),),
         ("reply", "Codex's reply."), chat_prompt, False),
    Tool("codex_guard_plan", "Have Codex criticise a plan",
         "Before you start work that is not trivial: Codex checks the plan against the repository as a strict, "
         "independent reviewer and says whether to go on, what blocks, and what is missing, risky or unclear. It "
         "edits nothing." + CARRY_ON,
         (("requirements", "What is to be achieved, as the user asked for it.", True),
          ("plan", "The plan: steps, files, decisions, how it will be tested.", True),
          ("constraints", "What must hold or must not be touched.", False)),
         ("critique", "Codex's criticism; its first line says whether to go on."), plan_prompt, True),
    Tool("codex_guard_final", "Have Codex review a change",
         "Before you tell the user that work is done: Codex reviews the change in the repository as a strict, "
         "independent reviewer and says whether it is done, what blocks, and what is missing, risky or untested. "
         "It edits nothing. Pass the session_id of the plan's check, so that it knows what was agreed." + CARRY_ON,
         (("change_summary", "What was changed and why, with the files.", True),
          ("test_results", "Which checks were run and what they printed.", False),
          ("open_questions", "What you are not sure of.", False)),
         ("review", "Codex's review; its first line says whether the change is done."), final_prompt, True),
)

INSTRUCTIONS = """\
A second opinion from OpenAI's Codex CLI, in real Codex sessions that the user can open in a terminal.
1. Before work that is not trivial, call codex_guard_plan with the requirements and your plan; mend what blocks.
2. Before you say that it is done, call codex_guard_final with the same session_id; mend what blocks.
3. For anything else, call codex_chat.
Keep the session_id of an answer and pass it to the next call on the same matter. Show the user the resume_command: \
it continues that conversation in a terminal, and you can go on in it afterwards."""


def allowed_sandboxes(settings: Settings) -> Tuple[str, ...]:
    """The sandboxes that a call may ask for: up to the operator's, or without one up to workspace-write."""
    return SANDBOXES[:SANDBOXES.index(settings.sandbox or "workspace-write") + 1]


def input_schema(tool: Tool, settings: Settings) -> Dict[str, Any]:
    """The JSON Schema (2020-12) of a tool's arguments. Each description begins with what is right."""
    properties: Dict[str, Any] = {
        name: {"type": "string", "pattern": r"\S" if required else "", "description": text}
        for name, text, required in tool.texts}
    for schema in properties.values():
        if not schema["pattern"]:
            del schema["pattern"]
    if not tool.reviews:
        properties["sandbox"] = {
            "type": "string", "enum": list(allowed_sandboxes(settings)),
            "description": "What Codex may do with files in this turn. Without it: %s." % (
                settings.sandbox or "as the user's Codex configuration says, read-only if it says nothing")}
    properties.update({
        "session_id": {"type": "string", "pattern": "^%s$" % UUID, "description":
                       "The UUID of the session to continue, from an earlier answer. Without it a new one begins."},
        "cwd": {"type": "string", "pattern": r"^(/|[A-Za-z]:[\\/]|\\\\)", "description":
                "The absolute path of an existing directory for Codex to work in. Without it: the session's own, "
                "or for a new session the server's."},
        "model": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._:/@+~=-]{0,199}$", "description":
                  "The name of a model, for this call alone. Without it the user's Codex configuration rules."},
        "reasoning_effort": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,31}$", "description":
                             "A reasoning effort that the model knows, such as low, medium, high or xhigh, for this "
                             "call alone. Without it the user's Codex configuration rules."},
        "timeout_ms": {"type": "integer", "minimum": MIN_TIMEOUT_MS, "maximum": MAX_TIMEOUT_MS, "description":
                       "Whole milliseconds from %d to %d until the call gives up, the wait for the session "
                       "included. Without it: %d." % (MIN_TIMEOUT_MS, MAX_TIMEOUT_MS, settings.timeout_ms)},
    })
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "required": [name for name, _, required in tool.texts if required]}


def output_schema(tool: Tool) -> Dict[str, Any]:
    """The JSON Schema (2020-12) of a successful answer's `structuredContent`."""
    name, text = tool.output
    return {"type": "object", "required": ["session_id", name, "resume_command"], "properties": {
        "session_id": {"type": "string", "description": "The session; pass it to the next call to go on in it."},
        name: {"type": "string", "description": text},
        "resume_command": {"type": "string", "description": "Opens the session in a terminal; for the user."},
        "usage": {"type": "object", "description": "The tokens, as Codex reported them."},
        "warnings": {"type": "array", "items": {"type": "string"}, "description": "What Codex warned of."}}}


def describe_tools(settings: Settings) -> List[Dict[str, Any]]:
    """The tools as `tools/list` tells them."""
    described = []
    for tool in TOOLS:
        sandbox = turn_sandbox(tool, {}, settings) or "workspace-write"
        writes = "read-only" not in (sandbox, settings.sandbox)
        described.append({
            "name": tool.name, "title": tool.title, "description": tool.description,
            "inputSchema": input_schema(tool, settings), "outputSchema": output_schema(tool),
            "annotations": {"title": tool.title, "readOnlyHint": not writes, "destructiveHint": writes,
                            "idempotentHint": False, "openWorldHint": True}})
    return described


def turn_sandbox(tool: Tool, arguments: Dict[str, Any], settings: Settings) -> Optional[str]:
    """The sandbox to ask Codex for. Reviews are read-only, unless the operator said that there is no sandbox."""
    if tool.reviews:
        return settings.sandbox if settings.sandbox == "danger-full-access" else "read-only"
    return arguments.get("sandbox") or settings.sandbox


def check_arguments(schema: Dict[str, Any], arguments: Dict[str, Any]) -> None:
    """Checks arguments by a tool's input schema. Raises Refusal, which names every bad one and what is right."""
    problems = []
    properties: Dict[str, Any] = schema["properties"]
    for name in arguments:
        if name not in properties:
            import difflib  # only a mistaken call needs it

            near = difflib.get_close_matches(name.lower(), list(properties), 1, 0.5)
            problems.append('unknown argument "%s"; %s' % (one_line(name, 60), 'did you mean "%s"?' % near[0] if near
                                                           else "known are " + ", ".join(properties)))
    for name, rule in properties.items():
        if name not in arguments:
            if name in schema["required"]:
                problems.append('missing argument "%s": %s' % (name, rule["description"]))
            continue
        value = arguments[name]
        if rule["type"] == "integer":
            whole = isinstance(value, int) or isinstance(value, float) and value.is_integer()
            good = whole and not isinstance(value, bool) and rule["minimum"] <= value <= rule["maximum"]
        else:
            good = isinstance(value, str) and value in rule.get("enum", [value]) and (
                re.search(rule.get("pattern", "").replace("$", r"\Z"), value) is not None)
        if not good:
            shown = one_line(json.dumps(value, ensure_ascii=False), 60)
            right = "one of " + ", ".join(rule["enum"]) if "enum" in rule else rule["description"]
            problems.append('argument "%s" is %s, but takes %s: %s' % (
                name, shown, "an integer" if rule["type"] == "integer" else "a string", right))
            if name == "sandbox" and value in SANDBOXES:
                problems.append("more than that is for the operator of this server to allow (CODEX_MCP_SANDBOX)")
    if problems:
        raise Refusal("Nothing was sent to Codex: " + "; ".join(problems))


def resume_command(session_id: str) -> str:
    """What a person types to go on with a session."""
    return "codex resume " + session_id


def footer(session_id: str) -> str:
    """The end of every answer's text, for clients that show their model nothing but text."""
    return "session_id: %s\nresume_command: %s" % (session_id, resume_command(session_id))


def success(tool: Tool, turn: Turn) -> Dict[str, Any]:
    """The result of a turn that went well: structured, and as text, each complete."""
    session_id, reply = turn.session_id or "", turn.reply or ""
    structured: Dict[str, Any] = {"session_id": session_id, tool.output[0]: reply,
                                  "resume_command": resume_command(session_id)}
    if turn.usage is not None:
        structured["usage"] = turn.usage
    if turn.warnings:
        structured["warnings"] = turn.warnings
    ending = footer(session_id) + "".join("\nwarning: " + warning for warning in turn.warnings)
    return {"content": [{"type": "text", "text": reply}, {"type": "text", "text": ending}],
            "structuredContent": structured}


def failure(text: str, turn: Optional[Turn] = None) -> Dict[str, Any]:
    """The result of a call that failed: text alone, with the session if one is known."""
    parts = [text]
    if turn is not None and turn.reply:
        parts.append("The last that Codex said in this turn:\n" + turn.reply)
    session_id = turn and not turn.lost and (turn.session_id or turn.expected)
    if session_id:
        parts.append(footer(session_id))
    return {"content": [{"type": "text", "text": "\n\n".join(parts)}], "isError": True}


def started_by_codex() -> bool:
    """Whether this server was started by a Codex that a server like this one runs.

    Codex strips the environment of its MCP servers, but leaves them in its POSIX session, whose leader is the
    process that the other server started, with the marker in its environment.
    """
    if os.environ.get(MARKER):
        return True
    if WINDOWS:
        return False
    try:
        if os.path.isdir("/proc/self"):
            with open("/proc/%d/environ" % os.getsid(0), "rb") as file:
                return b"\0" + MARKER.encode() + b"=" in b"\0" + file.read()
        import subprocess

        ps = subprocess.run(["ps", "-wwE", "-o", "command=", "-p", str(os.getsid(0))], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
        return b" " + MARKER.encode() + b"=" in ps.stdout
    except (OSError, subprocess.SubprocessError):
        return False


class Call(NamedTuple):
    """One checked call of a tool, with its place in line."""

    tool: Tool
    arguments: Dict[str, Any]
    prompt: str
    control: Control
    place: Place


class Desk:
    """Takes tool calls and turns them into turns of Codex. `accept` is for the reader, `perform` for workers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._codex = Codex(settings)
        self._sessions = Sessions(settings)
        self._nested: Optional[bool] = None
        self._directories: Dict[str, str] = {}

    def accept(self, tool: Tool, arguments: Dict[str, Any], client: str, send: Optional[Callable[[str], None]]) -> Call:
        """Checks a call and takes its place in line. Raises Refusal."""
        if self._settings.problems:
            raise Refusal("This server is not set up right: %s. The operator sets this in the environment of the "
                          "server." % "; ".join(self._settings.problems))
        check_arguments(input_schema(tool, self._settings), arguments)
        if self._nested is None:
            self._nested = started_by_codex()
        if self._nested:
            raise Refusal("You are the Codex that %s itself started: a call from here would start another Codex, and "
                          "so on without end. Answer with what you can do yourself." % NAME)
        arguments = dict(arguments)
        session_id = arguments["session_id"] = arguments.get("session_id", "").lower() or None
        control = Control(arguments.get("timeout_ms", self._settings.timeout_ms) / 1000, Progress(send))
        line = attribution(client, tool.name, self._settings.origin)
        prompt = line + "\n" + tool.prompt(arguments)
        return Call(tool, arguments, prompt, control, self._sessions.enter(session_id, control))

    def perform(self, call: Call) -> Tuple[Dict[str, Any], str, Optional[str]]:
        """Runs a call to its end: the tool result, a word for the log, the session if known."""
        turn = Turn(call.arguments["session_id"], call.place.claim)
        try:
            self._run(call, turn)
            return success(call.tool, turn), "ok", turn.session_id
        except Refusal as refusal:
            result, word = failure(str(refusal)), "refused"
        except RunFailure as error:
            result, word = failure(str(error), turn), "failed"
        except Stopped as stop:
            result, word = failure(self._stopped_text(call, turn, stop.reason), turn), stop.reason
        finally:
            call.place.leave()
        return result, word, turn.session_id

    def close(self, patience: float) -> None:
        """Stops every Codex within about `patience` seconds."""
        self._codex.close(patience)

    def _run(self, call: Call, turn: Turn) -> None:
        """One turn on the session of the call; tried again as long as the session is open elsewhere."""
        options = self._options(call)
        call.place.wait()
        pause, elsewhere = 0.5, False
        while True:
            try:
                self._sessions.start_run(call.control)
                return self._codex.run(options, call.prompt, turn, call.control)
            except SessionBusy:
                elsewhere = True
            except Stopped as stop:
                if elsewhere and stop.reason == "timeout":
                    break
                raise
            finally:
                self._sessions.end_run(call.control)
                if turn.session_id:
                    self._remember(turn.session_id, options.cwd)
            call.control.progress.say("Session %s is open elsewhere, most likely in a codex resume window; tries again"
                                      % options.session_id)
            try:
                call.control.pause(pause)
            except Stopped as stop:
                if stop.reason == "timeout":
                    break
                raise
            pause = min(pause * 2, 15.0)
        raise RunFailure("The session is open elsewhere, most likely in a `codex resume` window, and was not free within "
                         "the time of this call (Codex frees it up to a minute after the window is closed). Nothing was "
                         "sent. Ask the user to close it and call again, or begin a new session by leaving session_id "
                         "out.")

    def _options(self, call: Call) -> Options:
        """What Codex is given for a call. Raises Refusal if the directory is not there."""
        arguments, session_id = call.arguments, call.arguments["session_id"]
        where, cwd = "cwd", arguments.get("cwd")
        if cwd is None and session_id:
            where = "the directory in which this session was started"
            cwd = self._directories.get(session_id) or session_directory(self._settings.codex_home, session_id)
        if cwd is None:
            where, cwd = "the working directory of this server", self._settings.cwd
        if not os.path.isdir(cwd):
            raise Refusal("Nothing was sent to Codex: %s is %s, which is not an existing directory. Give another one "
                          "as cwd." % (where, one_line(json.dumps(cwd, ensure_ascii=False), 300)))
        return Options(cwd, session_id, arguments.get("model"), arguments.get("reasoning_effort"),
                       turn_sandbox(call.tool, arguments, self._settings))

    def _remember(self, session_id: str, cwd: str) -> None:
        """Keeps the directory in which a session was started, for the 1,000 newest."""
        if session_id not in self._directories:
            self._directories[session_id] = cwd
            for oldest in list(self._directories)[:-1000]:
                self._directories.pop(oldest, None)

    def _stopped_text(self, call: Call, turn: Turn, reason: str) -> str:
        if reason != "timeout":
            return "The call was stopped: the client left, or the server was told to end."
        limit = call.arguments.get("timeout_ms", self._settings.timeout_ms) / 1000
        then = ("Codex was stopped; what it did so far stays in the session. Call again with this session_id to go on, "
                "with a larger timeout_ms." if turn.seen_events else "Nothing was sent to Codex. Call again later, or "
                "with a larger timeout_ms.")
        return "No answer within %g s (timeout_ms). The last that was seen: %s. %s" % (
            limit, one_line(call.control.progress.latest, 200), then)


# ---------------------------------------------------------------------------------------------------------
# server: both protocol eras, requests in flight, cancellation, progress, shutdown
# ---------------------------------------------------------------------------------------------------------

META = "io.modelcontextprotocol/"
SERVER_INFO = {"name": NAME, "title": "Codex, in persistent sessions", "version": VERSION}
#: Milliseconds for which a client may keep the list of tools: it changes only with the server's environment.
LIST_TTL_MS = 300_000

Respond = Callable[[Optional[Dict[str, Any]]], None]


class Request(NamedTuple):
    """A tool call in flight."""

    id: RequestId
    respond: Respond
    finish: Callable[[Dict[str, Any]], Dict[str, Any]]
    control: Control


class Batch:
    """Collects the responses to a batch (2025-03-26), and sends them as one when the last is there."""

    def __init__(self, count: int, send: Callable[[Any], None]) -> None:
        self._missing, self._send = count, send
        self._lock = threading.Lock()
        self._responses: List[Dict[str, Any]] = []

    def respond(self, response: Optional[Dict[str, Any]]) -> None:
        """Takes one response; None for a message that has none."""
        with self._lock:
            self._missing -= 1
            if response is not None:
                self._responses.append(response)
            if self._missing == 0 and self._responses:
                self._send(self._responses)


class Server:
    """MCP. `receive` is for the reader alone.

    Messages of the modern era are served by their own `_meta`; the others by what `initialize` settled. The
    lock guards `_in_flight`: who takes a request out of it, by answering or cancelling, has the last word on it.
    """

    def __init__(self, settings: Settings, send: Callable[[Any], None]) -> None:
        self._desk = Desk(settings)
        self._tools = describe_tools(settings)
        self._send = send
        self._revision: Optional[str] = None
        self._client = ""
        self._lock = threading.Lock()
        self._in_flight: Dict[RequestId, Request] = {}

    def receive(self, line: Optional[bytes]) -> None:
        """Takes one line from the client, None for one that was too long. Never raises."""
        try:
            if line is None:
                raise ProtocolError(INVALID_REQUEST, "Invalid request: a line of over %d bytes" % MAX_MESSAGE)
            value = decode_line(line)
            if not isinstance(value, list):
                return self._receive_value(value, self._respond)
            if self._revision != BATCH_REVISION or not value:
                raise ProtocolError(INVALID_REQUEST, "Invalid request: %s" % (
                    "an empty batch" if not value else "only MCP 2025-03-26 has batches"))
            batch = Batch(len(value), self._send)
            for one in value:
                self._receive_value(one, batch.respond)
        except ProtocolError as error:
            self._send(error_response(None, error))

    def close(self, patience: float) -> None:
        """Stops all calls within about `patience` seconds."""
        with self._lock:
            requests = list(self._in_flight.values())
        for request in requests:
            request.control.stop("shutdown")
        self._desk.close(patience)
        end = time.monotonic() + 0.05
        while self._in_flight and time.monotonic() < end:
            time.sleep(0.002)

    def busy(self) -> bool:
        """Whether calls are in flight."""
        return bool(self._in_flight)

    def _respond(self, response: Optional[Dict[str, Any]]) -> None:
        if response is not None:
            self._send(response)

    def _receive_value(self, value: Any, respond: Respond) -> None:
        try:
            message = read_message(value)
            if message is None or message.id is None:
                if message is not None and message.method == "notifications/cancelled":
                    self._cancel(message.params.get("requestId"))
                return respond(None)
            if message.id in self._in_flight:
                # Answered under no id: under this one it would be taken for the answer to the first request.
                return respond(error_response(None, ProtocolError(
                    INVALID_REQUEST, "Invalid request: a request with the id %s is still in flight"
                    % one_line(json.dumps(message.id), 80))))
            self._dispatch(message, respond)
        except ProtocolError as error:
            has_answer = not isinstance(value, dict) or "id" in value or error.code == INVALID_REQUEST
            respond(error_response(id_of(value), error) if has_answer else None)
        except Exception as error:  # a fault of this server must cost no more than this one message
            log("internal error: %r" % error)
            respond(error_response(id_of(value), ProtocolError(INTERNAL_ERROR, "Internal error: %r" % error)))

    def _dispatch(self, message: Message, respond: Respond) -> None:
        """Serves one request. Raises ProtocolError."""
        meta = message.params.get("_meta", {})
        if not isinstance(meta, dict):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "_meta" must be an object')
        modern = META + "protocolVersion" in meta and message.method != "initialize"
        if modern:
            self._check_modern(meta)
            client = text_in(meta.get(META + "clientInfo"), "name")
        else:
            client = self._client

        def finish(result: Dict[str, Any]) -> Dict[str, Any]:
            if modern:
                result = dict(result, resultType="complete", _meta={META + "serverInfo": SERVER_INFO})
            return {"jsonrpc": "2.0", "id": message.id, "result": result}

        cacheable = {"ttlMs": LIST_TTL_MS, "cacheScope": "private"} if modern else {}
        capabilities: Dict[str, Any] = {"tools": {}}
        if message.method == "tools/call":
            self._call_tool(message, meta, client, respond, finish)
        elif message.method == "tools/list":
            if message.params.get("cursor") is not None:
                raise ProtocolError(INVALID_PARAMS, "Invalid params: all tools are on one page, there is no cursor")
            respond(finish(dict(cacheable, tools=self._tools)))
        elif message.method == "server/discover":
            if not modern:
                raise ProtocolError(INVALID_PARAMS, 'Invalid params: server/discover needs "_meta" with "%s"'
                                    % (META + "protocolVersion"))
            respond(finish(dict(cacheable, supportedVersions=list(MODERN_REVISIONS), capabilities=capabilities,
                                instructions=INSTRUCTIONS)))
        elif message.method == "initialize":
            respond(finish({"protocolVersion": self._initialize(message.params), "capabilities": capabilities,
                            "serverInfo": SERVER_INFO, "instructions": INSTRUCTIONS}))
        elif message.method == "ping" and not modern:
            respond(finish({}))
        else:
            raise ProtocolError(METHOD_NOT_FOUND, "Method not found: " + one_line(message.method, 100))

    def _check_modern(self, meta: Dict[str, Any]) -> None:
        """Checks what MCP 2026-07-28 wants in every request. Raises ProtocolError."""
        revision = meta[META + "protocolVersion"]
        if not isinstance(revision, str):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "%s" must be a string' % (META + "protocolVersion"))
        if revision not in MODERN_REVISIONS:
            raise ProtocolError(UNSUPPORTED_REVISION, "Unsupported protocol version", {
                "supported": list(MODERN_REVISIONS), "requested": revision})
        if not isinstance(meta.get(META + "clientCapabilities"), dict):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "_meta" needs "%s", an object'
                                % (META + "clientCapabilities"))

    def _initialize(self, params: Dict[str, Any]) -> str:
        """Settles the legacy revision: the client's, or the newest if this server does not know that."""
        wanted = params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "protocolVersion" must be a string')
        self._revision = wanted if wanted in LEGACY_REVISIONS else LEGACY_REVISIONS[0]
        self._client = text_in(params.get("clientInfo"), "name")
        return self._revision

    def _call_tool(self, message: Message, meta: Dict[str, Any], client: str, respond: Respond,
                   finish: Callable[[Dict[str, Any]], Dict[str, Any]]) -> None:
        """Takes a tool call: a refusal is answered at once, all else by a worker. Raises ProtocolError."""
        name, arguments = message.params.get("name"), message.params.get("arguments", {})
        tool = next((tool for tool in TOOLS if tool.name == name), None)
        if tool is None:
            raise ProtocolError(INVALID_PARAMS, "Unknown tool: %s; there are %s" % (
                one_line(json.dumps(name), 80), ", ".join(tool.name for tool in TOOLS)))
        if not isinstance(arguments, dict):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "arguments" must be an object')
        assert message.id is not None
        request_id, token, told = message.id, meta.get("progressToken"), 0

        def tell(text: str) -> None:
            nonlocal told
            told += 1
            with self._lock:
                if self._in_flight.get(request_id) is request:
                    self._send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
                        "progressToken": token, "progress": told, "message": text}})

        try:
            call = self._desk.accept(tool, arguments, client, tell if is_id(token) else None)
        except Refusal as refusal:
            return respond(finish(failure(str(refusal))))
        request = Request(request_id, respond, finish, call.control)
        with self._lock:
            self._in_flight[request_id] = request
        try:
            threading.Thread(target=self._work, args=(request, call), daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            call.place.leave()
            if self._take(request):
                respond(finish(failure("This server is out of threads. Wait for answers before you send more.")))

    def _work(self, request: Request, call: Call) -> None:
        """The life of a worker: one call."""
        begin, session_id = time.monotonic(), None
        try:
            result, word, session_id = self._desk.perform(call)
            response = request.finish(result)
        except Exception as error:  # a fault of this server must cost no more than this one call
            word = "internal error: %r" % error
            response = error_response(request.id, ProtocolError(INTERNAL_ERROR, "Internal error: %r" % error))
        if self._take(request):
            request.respond(response)
        log("%s, session %s, %.1f s, %s" % (call.tool.name, session_id or "none", time.monotonic() - begin, word))

    def _take(self, request: Request) -> bool:
        """Takes the last word on a request; false if somebody else had it."""
        with self._lock:
            if self._in_flight.get(request.id) is not request:
                return False
            del self._in_flight[request.id]
            return True

    def _cancel(self, request_id: Any) -> None:
        request = self._in_flight.get(request_id) if is_id(request_id) else None
        if request is not None and self._take(request):
            request.control.stop("cancelled")
            request.respond(None)


# ---------------------------------------------------------------------------------------------------------
# command line
# ---------------------------------------------------------------------------------------------------------


def serve(settings: Settings) -> None:
    """Serves MCP until the input ends, nobody reads the output, or SIGINT, SIGTERM or SIGHUP comes. Never returns."""
    import signal

    # One byte in this pipe means: leave. Signals write it in C, so that no handler runs in the middle of anything.
    wake_read, wake_write = os.pipe()
    if not WINDOWS:
        os.set_blocking(wake_write, False)

    def leave() -> None:
        os.write(wake_write, b".")

    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: None)
    writer = Writer(1, leave)
    server = Server(settings, writer.send)

    def read() -> None:
        try:
            with open(0, "rb", buffering=1 << 16, closefd=False) as stream:
                for line in read_lines(stream):
                    server.receive(line)
                    if not writer.wait_for_room(MAX_UNSENT, 30):
                        break
        except OSError:
            pass  # the input can't be read: as good as its end
        finally:
            leave()

    threading.Thread(target=read, name="reader", daemon=True).start()
    log("version %s serves MCP on standard input and output" % VERSION)
    os.read(wake_read, 1)
    busy = server.busy()
    server.close(0.3)
    writer.wait_for_room(0, 0.05 if busy else 0.4)
    os._exit(0)  # without waiting for workers that hang on a pipe


def main(argv: Optional[List[str]] = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    settings = read_settings(dict(os.environ))
    if not arguments:
        serve(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
