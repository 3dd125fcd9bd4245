#!/usr/bin/env python3
# /// script
# requires-python = ">=3.8"
# dependencies = []
# ///
"""An MCP server over stdio that runs each tool call as a turn of a real, persisted Codex session.

An AI agent (the MCP client) asks; OpenAI's Codex CLI answers in a session of its own store; a person can go
on with the same conversation in a terminal with `codex resume <session_id>`, and the agent after that.
(Codex's events call a session a thread; this file says session. A thread of this process is a worker.)

The way of one call through the rooms of this file, each of which uses only rooms above it:

    bytes in       transport      the only reader of standard input
    message        messages       JSON-RPC: a line to a checked message
    dispatch       server         both protocol eras, requests in flight, cancellation
    tool           tools          arguments checked against the tool's own schema
    prompt         prompts        the attribution line, the text of each tool
    place          sessions       one turn at a time on a session, on this machine
    Codex run      codex process  `codex exec --json`, in a process group of its own; or, in a session that is
                   live session   open in a `codex resume` window, a turn on the app-server that holds it
    turn           turn           Codex's events folded into a reply or a failure
    result         tools, server  structured and as text
    bytes out      transport      the only writer of standard output

What it starts: for each call one `codex exec` (several, while the session is open elsewhere), through
/bin/sh, which leaves a watcher in the same process group, so that Codex ends even if this process is killed;
on macOS `ps`, once; for --check, `codex --version` and `codex login status`.
What it reads: its environment; the first line of a session's file, for the session's directory; on Linux the
environments of this user's processes, to see who started it and to end what a stopped turn has left; for
--check, Codex's config.toml.
What it writes: standard output (MCP), standard error (a log without prompts and replies), and one empty lock
file in the Codex home, codex-persistent-mcp.lock. What it connects to: Codex's control socket, there too.
It keeps no state of its own: the conversations live in Codex's session store.
"""
from __future__ import annotations

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # nothing is imported from the file's directory, nor from the working one (pipx run URL)

import json
import os
import re
import select
import signal
import threading
import time
from collections import deque
from typing import Any, Callable, Deque, Dict, Generator, Iterator, List, NamedTuple, Optional, Tuple, Union

# ----------------------------------------------------------------------------------------------------------
# constants, settings
# ----------------------------------------------------------------------------------------------------------

NAME = "codex-persistent-mcp"
#: Version of this file, as told to clients and by `--version`.
VERSION = "1.0.0"

#: Revisions of MCP that begin with an `initialize` handshake, newest first; and the one that has batches.
LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
BATCH_REVISION = "2025-03-26"
#: Revisions of MCP in which every request carries its own `_meta`.
MODERN_REVISIONS = ("2026-07-28",)
#: Error codes of JSON-RPC 2.0, and the one of MCP 2026-07-28 that this server can need.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, UNSUPPORTED_REVISION = -32603, -32022

#: Sandboxes of Codex, from the least to the most rights.
SANDBOXES = ("read-only", "workspace-write", "danger-full-access")
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS, DEFAULT_TIMEOUT_MS = 1_000, 7_200_000, 600_000

#: Bytes of one line from the client; a longer one is skipped and refused.
MAX_MESSAGE = 128 << 20
#: Bytes of one event from Codex; of a longer one only the beginning is looked at.
MAX_EVENT = 32 << 20
#: Bytes of Codex's standard error kept from its beginning, and as many from its end.
MAX_STDERR = 32 << 10
#: Bytes of answers that wait for a client that does not read; past that, no further message is read.
MAX_UNSENT = 64 << 20
#: Calls waiting and running at once, further ones are refused at once; and warnings of one answer.
MAX_CALLS, MAX_WARNINGS = 256, 20

#: Seconds. How often a running call looks at its deadline, its cancellation and its process.
TICK = 0.1
#: Seconds that Codex gets to leave by itself after its turn has ended.
LEAVE = 3.0
#: Seconds from SIGINT to SIGTERM, and from SIGTERM to SIGKILL.
PATIENCE = 1.0
#: Seconds that output may still come after Codex itself has gone (a child of its can hold the pipe).
DRAIN = 0.5
#: Seconds from one progress message to the next, at least; and the longest silence.
PROGRESS_GAP, PROGRESS_SILENCE = 0.5, 10.0
#: Seconds for one answer of Codex's app-server, and for stopping a turn there.
ANSWER, WITHDRAW = 10.0, 2.0

#: A session id as Codex makes it and `codex resume` takes it.
UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

JsonObject = Dict[str, Any]


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


#: The environment variables that are read, with the field of Settings that each one sets.
VARIABLES = (("CODEX_BIN", "codex"), ("CODEX_MCP_CWD", "cwd"), ("CODEX_PERSISTENT_MCP_ORIGIN", "origin"),
             ("CODEX_MCP_TIMEOUT_MS", "timeout_ms"), ("CODEX_MCP_SANDBOX", "sandbox"),
             ("CODEX_MCP_MAX_PARALLEL", "max_parallel"), ("CODEX_HOME", "codex_home"))


def read_settings(env: Dict[str, str]) -> Settings:
    """Reads the settings from `env`; an empty value counts as not set. Never raises."""
    problems: List[str] = []

    def number(name: str, default: int, low: int, high: int) -> int:
        text = env.get(name) or str(default)
        if re.fullmatch(r"[0-9]{1,9}", text) and low <= int(text) <= high:
            return int(text)
        problems.append(f"{name} is {text!r}; it takes a whole number from {low} to {high}")
        return default

    sandbox = env.get("CODEX_MCP_SANDBOX") or None
    if sandbox and sandbox not in SANDBOXES:
        problems.append(f"CODEX_MCP_SANDBOX is {sandbox!r}; it takes one of {', '.join(SANDBOXES)}")
        sandbox = "read-only"
    cwd = os.path.expanduser(env.get("CODEX_MCP_CWD") or "")
    if not cwd:
        try:
            cwd = os.getcwd()
        except OSError:
            problems.append("the directory where the server was started is gone; CODEX_MCP_CWD takes another")
    elif not os.path.isabs(cwd) or not os.path.isdir(cwd):
        problems.append(f"CODEX_MCP_CWD is {cwd!r}; it takes the absolute path of an existing directory")
    return Settings(
        codex=os.path.expanduser(env.get("CODEX_BIN") or "codex"), cwd=cwd,
        origin=env.get("CODEX_PERSISTENT_MCP_ORIGIN") or NAME,
        timeout_ms=number("CODEX_MCP_TIMEOUT_MS", DEFAULT_TIMEOUT_MS, MIN_TIMEOUT_MS, MAX_TIMEOUT_MS),
        sandbox=sandbox, max_parallel=number("CODEX_MCP_MAX_PARALLEL", 16, 1, 1000),
        codex_home=os.path.expanduser(env.get("CODEX_HOME") or os.path.join("~", ".codex")),
        problems=tuple(problems))


# ----------------------------------------------------------------------------------------------------------
# errors, and what a call watches while it waits
# ----------------------------------------------------------------------------------------------------------


class ProtocolError(Exception):
    """A message that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Optional[JsonObject] = None) -> None:
        super().__init__(message)
        self.body: JsonObject = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data

    def response(self, request_id: Any) -> JsonObject:
        """The JSON-RPC error response; its id is null if that of the request can't be told."""
        return {"jsonrpc": "2.0", "id": request_id, "error": self.body}


class RunFailure(Exception):
    """A call that failed. Its text says why, and what the caller can do."""


class SessionBusy(RunFailure):
    """The session is open elsewhere; nothing was sent to it. Its text says why it can't be reached there."""


class Stopped(Exception):
    """A call that must end now. Its text is the reason: "timeout", "cancelled" or "shutdown"."""


def one_line(text: str, limit: int) -> str:
    """`text` on one line, without control characters and lone surrogates, cut to `limit` characters."""
    text = text[:limit * 4].encode("utf-8", "replace").decode("utf-8")
    text = re.sub(r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+", " ", text).strip()
    return text if len(text) <= limit else text[:limit - 1].rstrip() + "\u2026"


class Control:
    """What one call watches: its deadline, its cancellation; and its progress, thinned out for a person.

    `stop` and `wake` may be called by any worker, all else only by the call's own.
    """

    def __init__(self, timeout_s: float, send: Optional[Callable[[str], None]] = None) -> None:
        self.latest = "waiting"
        self._begin = self._told_at = time.monotonic()
        self._deadline = self._begin + timeout_s
        self._send, self._pending, self._told = send, False, False
        self._stop = ""
        self._wake = threading.Event()

    def stop(self, reason: str) -> None:
        """Makes the next `check` raise `Stopped`. The first reason stays."""
        self._stop = self._stop or reason
        self._wake.set()

    def wake(self) -> None:
        """Ends a `pause` early."""
        self._wake.set()

    def check(self) -> None:
        """Raises `Stopped` if the call must end; tells the progress that is due."""
        if not self._stop and time.monotonic() >= self._deadline:
            self._stop = "timeout"
        if self._stop:
            raise Stopped(self._stop)
        self._tell(False)

    def pause(self, duration: float) -> None:
        """Waits `duration` seconds, or until woken. Raises `Stopped`."""
        end = min(time.monotonic() + duration, self._deadline)
        while time.monotonic() < end and not self._wake.wait(min(end - time.monotonic(), PROGRESS_GAP)):
            self.check()
        self._wake.clear()
        self.check()

    def say(self, text: str, at_once: bool = False) -> None:
        """Tells `text`, if any: soon, unless something newer comes first; with `at_once` surely and now."""
        if text and text != self.latest:
            self.latest, self._pending = text, True
        self._tell(at_once)

    def _tell(self, at_once: bool) -> None:
        if self._send is None:
            return
        now = time.monotonic()
        silence, text = now - self._told_at, self.latest
        if not (self._pending and (at_once or not self._told or silence >= PROGRESS_GAP)):
            if silence < PROGRESS_SILENCE:
                return
            text = f"{one_line(text, 140)} ({now - self._begin:.0f} s so far)"
        self._told_at, self._told, self._pending = now, True, False
        self._send(one_line(text, 160))


# ----------------------------------------------------------------------------------------------------------
# messages: JSON and JSON-RPC 2.0, bytes to checked messages and back
# ----------------------------------------------------------------------------------------------------------

RequestId = Union[str, int]


class Message(NamedTuple):
    """A request, or a notification if `id` is None. `params` is an object, {} if left out."""

    method: str
    params: JsonObject
    id: Optional[RequestId]


def is_id(value: Any) -> bool:
    """Whether MCP allows `value` as a request id or progress token: a string or an integer."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def value_in(value: Any, *path: str) -> Any:
    """The value at `path` in nested objects, or None."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text_in(value: Any, *path: str) -> str:
    """The string at `path` in nested objects, or ""."""
    found = value_in(value, *path)
    return found if isinstance(found, str) else ""


def object_in(value: Any, *path: str) -> JsonObject:
    """The object at `path` in nested objects, or {}."""
    found = value_in(value, *path)
    return found if isinstance(found, dict) else {}


def objects_in(value: Any, *path: str) -> List[JsonObject]:
    """The objects in the array at `path` in nested objects, or []."""
    found = value_in(value, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def json_number(text: str) -> Union[int, float]:
    """A number of JSON. One that no float holds becomes the nearest that can be written again.

    A whole number of hundreds of digits counts as such a one: on many millions, Python would work for hours.
    """
    if len(text) < 400 and not re.search("[.eE]", text):
        return int(text)
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def json_constant(text: str) -> None:
    """Refuses NaN and the like, which Python would take."""
    raise ValueError(f"{text} is not JSON")


DECODER = json.JSONDecoder(parse_int=json_number, parse_float=json_number, parse_constant=json_constant)


def load_json(text: str) -> Any:
    """The JSON value in `text`. Raises ValueError."""
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def well_formed(text: str) -> str:
    """`text` with U+FFFD for lone surrogates, which UTF-8 cannot carry and some clients refuse."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_clean(text: str) -> Any:
    """The JSON value in `text`, well formed in all its strings. Raises ValueError."""
    value = load_json(text)
    if "\\ud" in text or "\\uD" in text:
        value = load_json(well_formed(json.dumps(value, ensure_ascii=False)))
    return value


def quoted(value: Any) -> str:
    """A value of the client's, for an error message."""
    try:
        return one_line(json.dumps(value, ensure_ascii=False), 100)
    except RecursionError:  # what could just be read can't always be written
        return "nested too deeply"


def decode_line(line: bytes) -> Any:
    """The JSON value of one line of the client's. Raises ProtocolError."""
    try:
        return load_json(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ProtocolError(PARSE_ERROR, f"Parse error: {one_line(str(error), 200)}") from None


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
    params = {} if value.get("params") is None else value["params"]
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS, 'Invalid params: "params" must be an object')
    return Message(value["method"], params, value.get("id"))


# ----------------------------------------------------------------------------------------------------------
# platform: all that differs between POSIX and Windows
# ----------------------------------------------------------------------------------------------------------

WINDOWS = os.name == "nt"
if WINDOWS:
    import msvcrt
else:
    import fcntl

#: The shell becomes Codex, with the mark $1=$2 in its environment. The watcher that it leaves in the group
#: waits for the end of the pipe {0}, whose other end only this server holds: for the server's death, however
#: it dies. Then it has Codex stop, and after a moment ends the group and, on Linux, what has left the group
#: but has the mark. It ignores the signals by which Codex is asked to stop, holds none of Codex's pipes, and
#: is swept away with the group after the run. It alone holds {1} too, the file of this server's locks: so
#: these last until Codex is gone.
WATCHED = """\
(
    trap "" HUP INT TERM
    read -r _ <&{0}
    kill -INT 0
    sleep .2
    kill -KILL $(timeout 1 grep -lsxz "$1=$2" /proc/[0-9]*/environ | cut -d/ -f3) 0
) >/dev/null 2>&1 &
exec {0}<&- {1}<&-
export "$1=$2"
shift 2
exec "$@"
"""


def watch_pipe() -> Optional[int]:
    """The end of a new pipe for watchers to read; the other end stays open here. None without a shell."""
    if WINDOWS or not os.path.exists("/bin/sh"):
        return None
    return os.pipe()[0]


def spawn(command: List[str], cwd: str, mark: Tuple[str, str], watch: Tuple[int, ...] = ()) -> Any:
    """Starts a process with pipes and `mark` (name, value) in its environment, leading a group of its own.

    `watch` is what a watcher needs, two descriptors below 10: the pipe, and the file of locks.

    Raises OSError, ValueError.
    """
    import subprocess  # a quarter of the time that the server takes to start, and not needed for that

    options: JsonObject = {"start_new_session": True, "env": dict(os.environ, **dict([mark]))}
    if WINDOWS:
        options["creationflags"] = 0x08000200  # CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
    elif watch:
        command = ["/bin/sh", "-c", WATCHED.format(*watch), "sh", *mark, *command]
        options.update(env=None, pass_fds=watch)
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, **options)


def signal_group(pid: int, name: str) -> None:
    """Sends SIGINT, SIGTERM or SIGKILL to the group that `pid` leads; on Windows each ends the tree."""
    try:
        if WINDOWS:
            import subprocess

            subprocess.call(["taskkill", "/T", "/F", "/PID", str(pid)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            os.killpg(pid, getattr(signal, name))
    except OSError:
        pass  # nobody is left in the group


def sweep(pid: int, mark: Optional[Tuple[str, str]] = None) -> None:
    """Ends what is left of a group and, on Linux, what has left it but has `mark` in its environment.

    Where this process is the first of a container, the group's orphans are its own to bury.
    """
    signal_group(pid, "SIGKILL")
    if WINDOWS:
        return
    marked = "=".join(mark).encode() if mark else b""
    for entry in os.listdir("/proc") if marked and os.path.isdir("/proc/self") else ():
        try:
            with open(f"/proc/{int(entry)}/environ", "rb") as file:
                if marked in file.read().split(b"\0"):
                    os.kill(int(entry), signal.SIGKILL)
        except (OSError, ValueError):
            pass  # no process, not this user's, or gone
    try:
        while True:
            os.waitpid(-pid, 0)
    except ChildProcessError:
        pass


def selectable(pipe: Any) -> Any:
    """What a selector can wait for to read from `pipe`. On Windows a worker copies it into a socket."""
    if not WINDOWS:
        return pipe
    import socket

    near, far = socket.socketpair()

    def copy() -> None:
        with far:
            try:
                for chunk in iter(lambda: os.read(pipe.fileno(), 1 << 16), b""):
                    far.sendall(chunk)
            except OSError:
                pass

    threading.Thread(target=copy, daemon=True).start()
    return near.makefile("rb", 0)


def set_nonblocking(pipe: Any) -> bool:
    """Has writes to `pipe` take what they can at once; false where that can't be had."""
    if not WINDOWS:
        os.set_blocking(pipe.fileno(), False)
    return not WINDOWS


def poll(fd: int, events: int) -> int:
    """Which of `events`, or of the ends that poll(2) always tells, `fd` has now; 0 on Windows."""
    if WINDOWS:
        return 0
    poller = select.poll()
    poller.register(fd, events)
    return sum(state for _, state in poller.poll(0))


#: Of Linux; Python names it from 3.9 on.
F_OFD_SETLK = 37


def lock_open_file(fd: int, byte: int, take: bool) -> bool:
    """What `lock_byte` does on Linux: fcntl(2), "Open file description locks". False where there are none."""
    import errno  # like struct, only calls need it, not the start
    import struct

    kind = fcntl.F_WRLCK if take else fcntl.F_UNLCK
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def lock_byte(fd: int, byte: int, take: bool) -> bool:
    """Locks or unlocks one byte of a file among processes; false if another one has it. Raises OSError.

    On Linux, a lock lasts until all processes that have inherited `fd` are gone; else until this one is.
    """
    try:
        if WINDOWS:
            os.lseek(fd, byte, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined]
        elif not (sys.platform == "linux" and lock_open_file(fd, byte, take)):
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def started_by_codex(marker: str) -> bool:
    """Whether a Codex that a server like this one runs, with `marker` in its environment, started this one.

    Codex strips the environment of its MCP servers, but leaves them in its POSIX session, whose leader is the
    process that the other server started.
    """
    if WINDOWS or os.environ.get(marker):
        return bool(os.environ.get(marker))
    import subprocess

    leader, mark = os.getsid(0), marker.encode() + b"=[^\0 ]"
    try:
        if os.path.isdir("/proc/self"):
            with open(f"/proc/{leader}/environ", "rb") as file:
                return re.search(b"\0" + mark, b"\0" + file.read()) is not None
        found = subprocess.run(["ps", "-wwE", "-o", "command=", "-p", str(leader)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
        return re.search(b" " + mark, found.stdout) is not None
    except (OSError, subprocess.SubprocessError):
        return False


def log(text: str) -> None:
    """One line for people on standard error; dropped if nobody reads there, so that no call waits for it."""
    try:
        if WINDOWS or poll(2, select.POLLOUT) & select.POLLOUT:
            os.write(2, f"{NAME}: {one_line(text, 500)}\n".encode("utf-8", "replace"))
    except OSError:
        pass


# ----------------------------------------------------------------------------------------------------------
# transport: lines from standard input, lines to standard output
# ----------------------------------------------------------------------------------------------------------


def read_lines(stream: Any) -> Iterator[Optional[bytes]]:
    """The lines of the client, until the end of input; None stands for one of over MAX_MESSAGE bytes."""
    for line in iter(lambda: stream.readline(MAX_MESSAGE + 1), b""):
        if len(line) > MAX_MESSAGE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 20)
            yield None
        elif line.strip():
            yield line


class Writer:
    """The only writer of standard output. `send` may be called by any worker and never waits for the client.

    The lock of `_changed` guards all fields; only the writer's own worker writes.
    """

    def __init__(self, fd: int, on_broken: Callable[[], None]) -> None:
        self._fd, self._on_broken = fd, on_broken
        self._changed = threading.Condition()
        self._lines: Deque[bytes] = deque()
        self._unsent = 0
        self._broken = False
        threading.Thread(target=self._work, name="writer", daemon=True).start()

    def send(self, message: Any) -> None:
        """Queues one message, as one line of ASCII."""
        line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
        with self._changed:
            if not self._broken:
                self._lines.append(line)
                self._unsent += len(line)
                self._changed.notify_all()

    def wait_for_room(self, limit: int, patience: float) -> bool:
        """Waits until at most `limit` bytes are unsent; false if it takes more than `patience` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._unsent <= limit or self._broken, patience)

    def drain(self, patience: float) -> None:
        """Waits until all is sent, for as long as something goes out in each `patience` seconds."""
        before = -1
        while not self.wait_for_room(0, patience) and self._unsent != before:
            before = self._unsent

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = memoryview(self._lines.popleft())
            try:
                while line:
                    count = os.write(self._fd, line[:1 << 16])
                    line = line[count:]
                    with self._changed:
                        self._unsent -= count
                        self._changed.notify_all()
            except OSError:
                with self._changed:
                    self._broken = True
                    self._lines.clear()
                    self._changed.notify_all()
                return self._on_broken()


# ----------------------------------------------------------------------------------------------------------
# turn: events of `codex exec --json` folded into a turn
# ----------------------------------------------------------------------------------------------------------

#: Most bytes of a long turn are the output of commands and tools, in events from which nothing is needed.
SKIPPED = re.compile(rb'\{"type":"item\.(?:updated|completed)",'
                     rb'"item":\{"id":"[^"]*","type":"(?:command_execution|mcp_tool_call)"')
#: Where an error of Codex ends for everybody but its makers.
BACKTRACE = r"\n[ \t]*(?:[Ss]tack backtrace|Backtrace):"

#: What a caller can do about a failure, by what is found in Codex's words, in lower case.
ADVICE = (
    ("no rollout found", "Codex does not know this session here: check session_id, or leave it out to begin "
     "a new one. Sessions live in the Codex home (CODEX_HOME) of the user who began them."),
    ("maximum length", "Send a shorter text; Codex can read files in its working directory itself."),
    ("unknown variant", "Leave reasoning_effort out or take a value that Codex names; or ask the user to "
     "correct Codex's config.toml."),
    ("config.toml", "Ask the user to correct Codex's config.toml."),
    ("not logged in", "Ask the user to run `codex login`."),
    ("429", "Too many requests: wait a minute, then call again."),
    ("401", "Ask the user to run `codex login`, or to check the API key of the model's provider."),
    ("usage limit", "Wait until the limit of the user's plan is reset, or ask for another model."),
    ("high demand", "The model's server is in trouble: call again later."),
    ("status 5", "The model's server is in trouble: call again later."),
    ("network", "Ask the user to check the network; Codex does not reach the model's server."),
    ("model", "If model was given, check that this Codex and this account can use it, or leave it out."),
    ("", "Call again; if it stays, ask the user to run the same with `codex exec` in a terminal."),
)


def codex_words(text: str) -> str:
    """What an error of Codex says, without the JSON around it, colours and backtraces, and not too long."""
    for _ in range(4):
        start, end = text.find("{"), text.rfind("}")
        try:
            value = load_json(text[start:end + 1]) if 0 <= start < end < 1 << 20 else None
        except ValueError:
            break
        inner = text_in(value, "error", "message") or text_in(value, "message") or text_in(value, "detail")
        if not inner:
            break
        text = text[:start] + inner + text[end + 1:]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", re.split(BACKTRACE, text)[0]).strip()
    return text if len(text) <= 2000 else text[:2000] + "\u2026"


def stderr_words(text: str) -> str:
    """What Codex's standard error says of a failure, without its noise."""
    lines = [line.rstrip() for line in re.split(BACKTRACE, text)[0].splitlines() if line.strip()]
    logged = re.compile(r"\d{4}-\d\d-\d\dT\S+\s+(?:ERROR|WARN|INFO|DEBUG|TRACE)\s+(?:\S+:\s+)?")
    noise = re.compile(r"WARNING: |Reading (?:additional input|prompt) from stdin|note: run with `RUST_BACK")
    plain = [line for line in lines if not noise.match(line) and not logged.match(line)]
    first = next((index for index, line in enumerate(plain) if line.lower().startswith("error")), 0)
    chosen = plain[first:] or [logged.sub("", line) for line in lines if logged.match(line)]
    return codex_words("\n".join(chosen[:12]))


def item_progress(item: JsonObject, finished: bool) -> str:
    """The line of progress that an item deserves, "" for none."""
    kind, text = item.get("type"), text_in(item, "text")
    if kind == "command_execution" and not finished:
        command = text_in(item, "command")
        wrapped = re.fullmatch(r"\S*sh -l?c (['\"]?)(.*)\1", command, re.DOTALL)
        return "Runs: " + (wrapped.group(2) if wrapped else command)
    if kind == "file_change":
        paths = [text_in(change, "path") for change in objects_in(item, "changes")[:5]]
        return "Changes " + ", ".join(map(os.path.basename, paths))
    if kind == "web_search":
        return "Searches the web: " + text_in(item, "query")
    if kind == "mcp_tool_call" and not finished:
        return f"Calls {text_in(item, 'server')}.{text_in(item, 'tool')}"
    if kind == "todo_list":
        steps = objects_in(item, "items")
        ahead = [text_in(step, "text") for step in steps if step.get("completed") is not True]
        current = min(len(steps) - len(ahead) + 1, len(steps))
        return f"Plan, {current} of {len(steps)}: {ahead[0] if ahead else 'done'}"
    if kind == "reasoning" and finished:
        return "Thinks: " + text.strip().split("\n")[0].strip("*# ")
    return "Writes: " + text[:400] if kind == "agent_message" and finished else ""


class Turn:
    """One turn, folded from its events; what it came to is read afterwards.

    `state` goes from "running" to "completed" or "failed"; a turn that Codex adds in the same run opens it
    again. `broken` is set when the run must be stopped at once, before it does anything else; `lost` when
    the expected session does not exist.
    """

    def __init__(self, expected: Optional[str], on_session: Optional[Callable[[str], None]] = None) -> None:
        """`expected` is the session to continue, None for a new one; `on_session` hears the id at once."""
        self.expected, self._on_session = expected, on_session
        self.session_id: Optional[str] = None
        self.reply: Optional[str] = None
        self.usage: Optional[JsonObject] = None
        self.warnings: List[str] = []
        self.state = "running"
        self.error = self.broken = self.stray = ""
        self.begun = self.lost = False

    def feed(self, line: Union[bytes, bytearray], cut: bool = False) -> str:
        """Takes one line of Codex's output, `cut` if too long to keep. Returns progress to tell, or ""."""
        if cut:
            if self.state == "running" and b'"agent_message"' in line[:200]:
                self.broken = f"Codex's message is over {MAX_EVENT >> 20} MiB, too long to pass on"
            return ""
        if SKIPPED.match(line):
            return ""
        try:
            event = load_clean(line.decode("utf-8", "replace"))
        except ValueError:
            event = None
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            return self.fold(event)
        self.stray = self.stray or one_line(line[:1000].decode("utf-8", "replace"), 200)
        return ""

    def fold(self, event: JsonObject) -> str:
        """Takes one event. Returns progress to tell, or ""."""
        kind, item = event["type"], object_in(event, "item")
        if kind == "turn.started":
            self.state, self.begun = "running", True
            return "Codex has started its turn"
        if self.state != "running":
            return ""
        if kind == "thread.started":
            self._session_started(text_in(event, "thread_id").lower())
        elif kind.startswith("item."):
            if kind == "item.completed" and item.get("type") == "agent_message":
                self.reply = text_in(item, "text") or self.reply
            elif kind == "item.completed" and item.get("type") == "error":
                self.warn(text_in(item, "message"))
            return item_progress(item, kind == "item.completed")
        elif kind == "turn.completed":
            self.state, self.usage = "completed", object_in(event, "usage") or None
        elif kind == "turn.failed":
            self.state, self.error = "failed", codex_words(text_in(event, "error", "message")) or self.error
        elif kind == "error":
            self.error = codex_words(text_in(event, "message")) or self.error
            self.warn(self.error)
            return "Codex reports: " + self.error
        return ""

    def warn(self, text: str) -> None:
        """Notes a warning for the answer, once."""
        text = codex_words(text)
        if text and text not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)

    def _session_started(self, session_id: str) -> None:
        if not re.fullmatch(UUID, session_id):
            found = one_line(session_id, 80) or "none"
            self.broken = f"Codex announced a session without a usable id ({found})"
        elif self.expected and session_id != self.expected:
            self.lost = True
            self.broken = (f"Codex does not know the session {self.expected} here and was about to answer "
                           "from a new one; it was stopped before that. Check session_id, or leave it out to "
                           "begin a new session")
        elif self.session_id and session_id != self.session_id:
            self.broken = f"Codex announced a second session, {session_id}, in the same run"
        elif not self.session_id:
            self.session_id = session_id
            if self._on_session:
                self._on_session(session_id)

    def result(self, stderr: str, ending: str) -> None:
        """Returns if the turn is a success. `ending` says how the run went.

        Raises:
            SessionBusy: the session is open elsewhere.
            RunFailure: anything else, in Codex's own words where it had some.
        """
        if self.broken:
            raise RunFailure(self.broken + ".")
        if self.state == "completed" and self.reply is None:
            raise RunFailure("Codex finished the turn without a message. Ask again, for a written answer.")
        if self.state == "completed" and not self.session_id:
            raise RunFailure("Codex answered but did not say in which session, so it cannot be continued. "
                             "Ask the user to update Codex (npm install -g @openai/codex).")
        if self.state == "completed":
            return
        words = self.error or stderr_words(stderr) or self.stray
        if self.state == "running" and not self.begun and "already has an active writer" in stderr:
            raise SessionBusy("The session has an active writer")
        # Of a new session whose first message it refuses, Codex keeps nothing.
        kept = self.begun or "no rollout" not in words and (self.expected or "maximum length" not in words)
        self.lost = not kept
        what = "could not finish the turn" if self.begun else "did not start the turn"
        advice = next(text for key, text in ADVICE if key in words.lower())
        raise RunFailure(f"Codex {what} ({ending}): {words or 'it gave no reason'}\n{advice}")


# ----------------------------------------------------------------------------------------------------------
# command: options of a turn to an argument list
# ----------------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What a turn of Codex is given. `cwd` is an absolute path; None leaves a value to Codex's settings."""

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
        arguments += ["-c", f'model_reasoning_effort="{options.effort}"']
    if options.sandbox:
        arguments += ["-s", options.sandbox]
    if options.session_id:
        arguments += ["resume", options.session_id]
    return arguments + ["-"]


def find_codex(name: str) -> str:
    """The executable that `name` (CODEX_BIN) stands for, looked up now. Raises RunFailure."""
    import shutil  # needed by a call, not by the start of the server

    found = shutil.which(name)
    if found:
        return os.path.abspath(found)
    state = "was not found on the PATH of this server"
    if os.path.dirname(name):
        state = ("is a directory" if os.path.isdir(name) else
                 "is not executable" if os.path.exists(name) else "does not exist")
    raise RunFailure(f"The Codex CLI ({name}) {state}. Install it (npm install -g @openai/codex), or set "
                     "CODEX_BIN to the absolute path of the executable.")


# ----------------------------------------------------------------------------------------------------------
# codex process: starts, watches and stops one Codex and its whole process group
# ----------------------------------------------------------------------------------------------------------

#: Set for Codex, so that a server that Codex or one of its commands starts knows where it stands, and so that
#: what a stopped run has left can be told from all else.
MARKER = "CODEX_PERSISTENT_MCP_ACTIVE"


class CodexRun:
    """One Codex process with all that it starts. Only `signal` may be called by other workers."""

    def __init__(self, command: List[str], cwd: str, watch: Tuple[int, ...]) -> None:
        """Starts the process. Raises OSError, ValueError."""
        self._mark = (MARKER, os.urandom(8).hex())
        self._process = spawn(command, cwd, self._mark, watch)
        self._line, self._cut = bytearray(), False
        self._head = self._tail = b""
        self._open, self._out_open = 2, True
        self._stopping = self._swept = False
        self._ladder: List[Tuple[float, str]] = []
        self._over: Optional[float] = None

    def signal(self, name: str) -> None:
        """Sends a signal to the whole group, unless the run is being swept.

        Until then the group's number cannot have passed to anybody else: the watcher is in it.
        """
        if not self._swept:
            signal_group(self._process.pid, name)

    def finish(self, prompt: bytes, turn: Turn, control: Control) -> Tuple[str, str]:
        """Feeds the prompt, folds the output into `turn`; returns when all is over.

        What it returns is what was kept of Codex's standard error, and how Codex ended.

        Raises Stopped if the call was stopped before the turn had ended. Nothing of the run is left then.
        """
        self._unsent, self._turn, self._control = memoryview(prompt), turn, control
        try:
            self._supervise()
        finally:
            self._swept = True
            # What a turn that ended well has left running outside the group may be meant to stay.
            sweep(self._process.pid, None if turn.state == "completed" else self._mark)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
                pipe.close()
        if turn.state == "running" and not turn.broken:
            control.check()
        code, middle = self._process.returncode, b"\n...\n" if len(self._tail) >= MAX_STDERR else b""
        stderr = (self._head + middle + self._tail).decode("utf-8", "replace")
        return stderr, f"exit code {code}" if code >= 0 else f"ended by signal {-code}"

    def _supervise(self) -> None:
        import selectors
        import subprocess

        process, gone = self._process, None  # type: Any, Optional[float]
        with selectors.DefaultSelector() as selector:
            selector.register(selectable(process.stdout), selectors.EVENT_READ, self._take_events)
            selector.register(selectable(process.stderr), selectors.EVENT_READ, self._take_errors)
            if not set_nonblocking(process.stdin):
                threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
            elif not self._feed(process.stdin):
                selector.register(process.stdin, selectors.EVENT_WRITE, self._feed)
            while True:
                now = time.monotonic()
                if gone is None and process.poll() is not None:
                    gone = now
                if gone is not None and (self._open == 0 or now > gone + DRAIN):
                    break
                self._steer(now)
                if self._open == 0:
                    try:
                        process.wait(TICK)
                    except subprocess.TimeoutExpired:
                        pass
                    continue
                ready = selector.select(TICK if gone is None else TICK / 4)
                if gone is not None and not ready:
                    break
                for key, _ in ready:
                    if key.data(key.fileobj):
                        selector.unregister(key.fileobj)
        if self._line:
            self._control.say(self._turn.feed(self._line, self._cut))

    def _feed(self, pipe: Any) -> bool:
        """Writes what the pipe takes of the prompt; true at its end, or if Codex does not want more of it."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent[:1 << 16]):]
        except BlockingIOError:
            return False
        except OSError:
            pass  # Codex has closed its input: what became of the turn is told by its events
        pipe.close()
        return True

    def _take_events(self, source: Any) -> bool:
        """Feeds the turn the lines that came; of one of over MAX_EVENT only the start. True at the end."""
        chunk = source.read(1 << 16)  # what there is; b"" at the end
        self._line += chunk
        if b"\n" in chunk:
            *lines, self._line = self._line.split(b"\n")
            for line in lines:
                progress, self._cut = self._turn.feed(line, self._cut), False
                if progress:
                    self._control.say(progress)
        elif len(self._line) > MAX_EVENT:
            self._cut = True
            del self._line[4096:]
        if not chunk:
            self._open, self._out_open = self._open - 1, False
        return not chunk

    def _take_errors(self, source: Any) -> bool:
        """Keeps the beginning and the end of what Codex says on standard error. True at the end."""
        chunk = source.read(1 << 16)
        room = max(0, MAX_STDERR - len(self._head))
        self._head += chunk[:room]
        self._tail = (self._tail + chunk[room:])[-MAX_STDERR:]
        if not chunk:
            self._open -= 1
        return not chunk

    def _steer(self, now: float) -> None:
        if not self._stopping:
            try:
                self._control.check()
            except Stopped as stop:
                self._stopping = True
                if str(stop) != "shutdown":  # then Codex.close sends the signals, to all runs at once
                    self._climb(now)
        if self._turn.broken:
            self.signal("SIGKILL")
        if self._turn.state == "running" and self._out_open:
            self._over = None
        elif self._over is None:
            self._over = now
        elif now > self._over + LEAVE and not self._ladder:
            self._climb(now)
        while self._ladder and self._ladder[0][0] <= now:
            self.signal(self._ladder.pop(0)[1])

    def _climb(self, now: float) -> None:
        self._ladder = [(now, "SIGINT"), (now + PATIENCE, "SIGTERM"), (now + 2 * PATIENCE, "SIGKILL")]


# ----------------------------------------------------------------------------------------------------------
# live session: a turn in a session that a person has open, on Codex's own app-server
# ----------------------------------------------------------------------------------------------------------

#: How the app-server names the sandboxes.
LIVE_SANDBOXES = {"readOnly": "read-only", "workspaceWrite": "workspace-write"}
#: What the app-server need not send: text that comes again, whole, in `item/completed`.
UNWANTED = ["item/agentMessage/delta", "item/reasoning/textDelta", "item/reasoning/summaryTextDelta",
            "item/commandExecution/outputDelta", "item/fileChange/outputDelta", "turn/diff/updated"]


def snake_case(name: str) -> str:
    """A name of the app-server's (`agentMessage`) as `codex exec` writes it (`agent_message`)."""
    return re.sub("([A-Z])", lambda found: "_" + found.group(1).lower(), name)


class LiveError(Exception):
    """What went wrong between here and the app-server."""


class LiveRefused(LiveError):
    """The app-server's error answer to one request: that request had no effect."""


class WebSocket:
    """A client's end of a WebSocket (RFC 6455) over a Unix socket, for JSON-RPC messages in text frames."""

    def __init__(self, path: str, check: Callable[[], None]) -> None:
        """Connects, and shakes hands, calling `check` meanwhile. Raises OSError, LiveError."""
        import base64
        import hashlib
        import socket
        import stat

        if WINDOWS:
            raise LiveError("it is not used on Windows")
        for told in (os.lstat(path), os.stat(path)):
            if told.st_uid != os.geteuid():
                raise LiveError("its control socket belongs to another user")
        if not stat.S_ISSOCK(told.st_mode):
            raise LiveError("its control socket is no socket")
        self._buffer, self._incoming = bytearray(), self._messages()
        self._timeout = socket.timeout  # before Python 3.10 not yet TimeoutError
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(ANSWER)
            self._socket.connect(os.path.realpath(path))
            key = base64.b64encode(os.urandom(16))
            self._socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                                 b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                 b"Sec-WebSocket-Key: " + key + b"\r\n\r\n")
            end = time.monotonic() + ANSWER
            while b"\r\n\r\n" not in self._buffer and len(self._buffer) < 1 << 16:
                check()
                if not self._read(TICK) and time.monotonic() > end:
                    raise LiveError("it does not answer")
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
            if not head.startswith(b"HTTP/1.1 101") or proof not in head:
                raise LiveError("its control socket does not answer as a WebSocket")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def send(self, message: JsonObject) -> None:
        """Sends one message. Raises OSError."""
        self._send(1, json.dumps(message).encode("ascii"))

    def receive(self, patience: float) -> Optional[JsonObject]:
        """The next message, {} for a frame without one; None if none comes within `patience` seconds.

        Raises OSError, LiveError.
        """
        end = time.monotonic() + patience
        for message in self._incoming:
            if message is not None or not self._read(end - time.monotonic()):
                return message
        raise LiveError("it closed the connection")

    def _messages(self) -> Iterator[Optional[JsonObject]]:
        """The messages, {} for a frame without one, and None whenever more must be read first."""
        parts, fragmented = b"", False
        while True:
            first, length = yield from self._take(2)
            kind, final = first & 0x0F, first >= 0x80
            odd = first & 0x70 or length > 127  # reserved bits, a mask
            if length in (126, 127):
                length = int.from_bytes((yield from self._take(2 if length == 126 else 8)), "big")
            if odd or len(parts) + length > MAX_EVENT or kind not in (0 if fragmented else 1, 8, 9, 10):
                raise LiveError("it sent a frame that makes no sense, or is too large")
            data = yield from self._take(length)
            if kind == 8:
                raise LiveError("it closed the connection")
            if kind == 9:
                self._send(10, data)
            elif kind != 10:
                parts, fragmented = parts + data, not final
            if kind > 1 or fragmented:
                yield {}
                continue
            try:
                message = load_clean(parts.decode("utf-8"))
            except ValueError:
                message = None
            if not isinstance(message, dict):
                raise LiveError("it sent what is no message")
            parts = b""
            yield message

    def _take(self, count: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < count:
            yield None
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _read(self, patience: float) -> bool:
        self._socket.settimeout(max(0.001, patience))
        try:
            chunk = self._socket.recv(1 << 16)
        except self._timeout:
            return False
        if not chunk:
            raise LiveError("it closed the connection")
        self._buffer += chunk
        return True

    def _send(self, kind: int, data: bytes) -> None:
        size, mask = len(data), os.urandom(4)
        length = bytes([0x80 | size]) if size < 126 else (
            b"\xfe" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xff" + size.to_bytes(8, "big"))
        masked = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        self._socket.settimeout(WITHDRAW)
        self._socket.sendall(bytes([0x80 | kind]) + length + mask + masked.to_bytes(size, "big"))


class LiveRun:
    """One turn on the app-server, behind the methods of a CodexRun.

    The message goes through the app-server's queue, since `turn/start` would steer a turn that the person has
    just begun. It is known by an id of ours on it: only what belongs to the turn that took it counts.
    """

    def __init__(self, codex_home: str, options: Options) -> None:
        self._path = os.path.join(codex_home, "app-server-control", "app-server-control.sock")
        self._options, self._session = options, options.session_id or ""
        self._message_id = os.urandom(16).hex()
        self._last_id, self._answer = 0, {}  # type: int, JsonObject
        self._active = self._sent = self._leaving = self._withdrawn = False
        self._queued = self._turn_id = ""
        self._commands: Dict[str, str] = {}
        self._usage: Optional[JsonObject] = None

    def signal(self, name: str) -> None:
        """Does nothing: the call's own worker sees the stop, and interrupts the turn."""

    def finish(self, prompt: bytes, turn: Turn, control: Control) -> Tuple[str, str]:
        """Runs the turn, folds it into `turn`; returns "", since its errors are events, and where it ran.

        Raises:
            SessionBusy: nothing was sent, for the reason given.
            RunFailure: the call may not have the session's rights, or what became of the turn is not known.
            Stopped: the call was stopped, and the turn with it.
        """
        self._turn, self._control = turn, control
        try:
            self._socket = WebSocket(self._path, control.check)
            try:
                self._join()
                self._submit(prompt.decode("utf-8"))
                while turn.state == "running":
                    control.check()
                    self._receive(TICK)
            except (Stopped, RunFailure):
                self._withdraw()
                raise
            finally:
                self._socket.close()
        except (OSError, LiveError, Stopped) as error:
            stopped = isinstance(error, Stopped)
            if stopped and (str(error) != "timeout" or self._turn_id or self._withdrawn):
                raise
            why = "it was silent to the end" if stopped else (
                "it has no control socket here" if isinstance(error, FileNotFoundError) else str(error))
            if not self._sent:
                raise SessionBusy("A turn of the user's ran there to the end" if stopped and self._active else
                                  f"Codex's app-server could not be used: {why}") from None
            known = "Codex had taken the message and may still work on it" if self._turn_id else (
                "It is not known whether Codex took the message")
            raise RunFailure(f"The session is open elsewhere, and Codex's app-server could not be used to "
                             f"the end: {why}. {known}: look at the session before you repeat it.") from None
        return "", "in the session that is open elsewhere"

    def _join(self) -> None:
        """Begins to talk to the app-server, and waits until no other turn runs. Nothing is sent yet."""
        self._ask("initialize", clientInfo={"name": NAME, "title": NAME, "version": VERSION},
                  capabilities={"experimentalApi": True, "optOutNotificationMethods": UNWANTED})
        self._socket.send({"method": "initialized"})
        # Asked first, since the app-server would open a session that nobody has open there.
        loaded = self._ask("thread/loaded/list").get("data")
        if not isinstance(loaded, list) or self._session not in loaded:
            raise LiveError("it does not have this session open")
        while True:  # asked again after each wait, in which the person may have changed the settings
            # Any further member would change the person's own settings.
            session = self._ask("thread/resume", threadId=self._session, excludeTurns=True)
            if text_in(session, "thread", "id") != self._session:
                raise LiveError("it answered for another session")
            self._compare(session)
            self._active = text_in(session, "thread", "status", "type") == "active"
            if not self._active:
                return
            while self._active:
                self._control.say(f"Waits for the turn that runs in the window of session {self._session}")
                self._control.check()
                self._receive(TICK)

    def _compare(self, session: JsonObject) -> None:
        """Notes what the call can't have there. Raises RunFailure if the session has too many rights."""
        options, sandbox = self._options, self._sandbox(text_in(session, "sandbox", "type"))
        self._notes = ["This turn ran in the session that is open elsewhere, most likely in a `codex resume` "
                       "window, with that session's own settings."]
        for name, wanted, found in (("sandbox", options.sandbox, sandbox),
                                    ("cwd", options.cwd, session.get("cwd")),
                                    ("model", options.model, session.get("model")),
                                    ("reasoning_effort", options.effort, session.get("reasoningEffort"))):
            if wanted and wanted != found:
                self._notes.append(f"There, {name} is {found or 'the configured one'} and not {wanted}.")

    def _sandbox(self, kind: str) -> str:
        """The session's sandbox. Raises RunFailure if it gives more rights than the call may have."""
        options, sandbox = self._options, LIVE_SANDBOXES.get(kind, SANDBOXES[-1])
        if options.sandbox and SANDBOXES.index(options.sandbox) < SANDBOXES.index(sandbox):
            raise RunFailure("Nothing was sent to Codex: the session is open elsewhere, most likely in a "
                             f"`codex resume` window, with the sandbox {sandbox}, but this call must run "
                             f"with no more than {options.sandbox}. Ask the user to close it and call again "
                             "in a minute, or leave session_id out to begin a new session.")
        return sandbox

    def _submit(self, prompt: str) -> None:
        """Hands the message over. From here on it may be taken, unless the app-server says otherwise."""
        self._turn.fold({"type": "thread.started", "thread_id": self._session})
        self._sent = True
        try:
            self._ask("thread/queue/add", threadId=self._session, clientUserMessageId=self._message_id,
                      input=[{"type": "text", "text": prompt}])
        except LiveRefused as refused:
            self._sent = False
            if "maximum length" in str(refused):
                raise RunFailure(f"Codex did not take the message: {refused}\nSend a shorter text; Codex can "
                                 "read files in its working directory itself.") from None
            raise
        while not self._turn_id:
            self._control.check()
            try:
                # After an interrupted turn the queue stands still until it is started.
                if not self._active:
                    self._ask("thread/queue/start", threadId=self._session, queuedSubmissionId=self._queued)
            except LiveRefused:
                pass  # it has started by itself, or another turn runs first
            if not self._turn_id:
                self._control.say(f"Waits for its turn in the open window of session {self._session}")
                self._receive(TICK)

    def _withdraw(self) -> None:
        """Takes the message back, or stops the turn with the commands that it runs; for WITHDRAW seconds."""
        end, this = time.monotonic() + WITHDRAW, {"threadId": self._session}
        self._leaving = True
        try:
            while self._sent and self._turn.state == "running" and time.monotonic() < end:
                try:
                    if self._turn_id:
                        self._ask("turn/interrupt", turnId=self._turn_id, **this)
                        break
                    if self._queued and self._ask("thread/queue/delete", queuedSubmissionId=self._queued,
                                                  **this).get("deleted") is True:
                        self._withdrawn = True
                        return
                except LiveRefused:
                    pass  # in its first moments a turn can't be interrupted, and would then run on
                self._receive(TICK / 2)
            for process in self._commands.values():
                self._ask("thread/backgroundTerminals/terminate", processId=process, **this)
        except (OSError, LiveError) as error:
            log(f"a turn in session {self._session} may not have been stopped: {error}")

    def _ask(self, method: str, **params: Any) -> JsonObject:
        """The result of a request. Raises OSError, LiveError, and Stopped unless the turn is withdrawn."""
        self._last_id += 1
        self._socket.send({"id": self._last_id, "method": method, "params": params})
        end = time.monotonic() + (WITHDRAW if self._leaving else ANSWER)
        while self._answer.get("id") != self._last_id:
            if not self._leaving:
                self._control.check()
            if time.monotonic() > end:
                raise LiveError(f"it did not answer {method}")
            self._receive(TICK)
        if "error" in self._answer:
            raise LiveRefused(f"{method}: {one_line(text_in(self._answer, 'error', 'message'), 200)}")
        if not isinstance(self._answer.get("result"), dict):
            raise LiveError(f"its answer to {method} makes no sense")
        return self._answer["result"]

    def _receive(self, patience: float) -> None:
        message = self._socket.receive(patience) or {}
        method, params = text_in(message, "method"), object_in(message, "params")
        if not method and message.get("id") == self._last_id:
            self._answer = message
            self._queued = text_in(message, "result", "queuedSubmission", "id") or self._queued
        elif method and text_in(params, "threadId") == self._session:
            if "id" not in message:
                return self._notice(method, params)
            # A request, never answered from here: to approve is the person's right.
            self._control.say("Codex asks for approval, which only the user can give, in codex resume "
                              f"{self._session}: {text_in(params, 'command') or method}")

    def _notice(self, method: str, params: JsonObject) -> None:
        item = object_in(params, "item")
        if method == "thread/status/changed":
            self._active = text_in(params, "status", "type") == "active"
        elif method == "warning" and self._sent:
            self._turn.warn(text_in(params, "message"))
        elif method == "item/started" and self._sent and item.get("clientId") == self._message_id:
            self._turn_id = text_in(params, "turnId")
            for note in self._notes:
                self._turn.warn(note)
            self._tell("turn.started")
        elif method == "thread/settings/updated" and not self._turn_id and not self._leaving:
            self._sandbox(text_in(params, "threadSettings", "sandboxPolicy", "type"))
        turn_id = text_in(params, "turnId") or text_in(params, "turn", "id")
        if not self._turn_id or turn_id != self._turn_id:
            return
        if method in ("item/started", "item/completed"):
            if method == "item/completed":
                self._commands.pop(text_in(item, "id"), None)
            elif text_in(item, "processId"):
                self._commands[text_in(item, "id")] = text_in(item, "processId")
            summary = item.get("summary")
            text = "\n".join(map(str, summary)) if isinstance(summary, list) else item.get("text")
            kind = snake_case(text_in(item, "type"))
            self._tell(method.replace("/", "."), item=dict(item, type=kind, text=text))
        elif method == "turn/plan/updated":
            self._tell("item.updated", item={"type": "todo_list", "items": [
                {"text": text_in(step, "step"), "completed": text_in(step, "status") == "completed"}
                for step in objects_in(params, "plan")]})
        elif method == "thread/tokenUsage/updated":
            total = object_in(params, "tokenUsage", "total")
            self._usage = {snake_case(name): count for name, count in total.items() if name != "totalTokens"}
        elif method == "error":
            self._tell("error", message=text_in(params, "error", "message"))
        elif method == "turn/completed" and text_in(params, "turn", "status") == "completed":
            self._tell("turn.completed", usage=self._usage)
        elif method == "turn/completed":
            self._tell("turn.failed", error={"message": text_in(params, "turn", "error", "message") or
                                             f"the turn was {text_in(params, 'turn', 'status')} there"})

    def _tell(self, kind: str, **event: Any) -> None:
        self._control.say(self._turn.fold(dict(event, type=kind)))


# ----------------------------------------------------------------------------------------------------------
# codex: a turn, by a process of its own or in a live session
# ----------------------------------------------------------------------------------------------------------


class Codex:
    """The Codex CLI of this machine. `run` may be called by any worker.

    The lock guards `_runs` and `_closed`.
    """

    def __init__(self, settings: Settings, locks_fd: Callable[[], int]) -> None:
        """`locks_fd` gives the descriptor of the locks that shall last as long as a run."""
        self._name, self._home = settings.codex, settings.codex_home
        self._watch, self._locks_fd = watch_pipe(), locks_fd
        self._lock = threading.Lock()
        self._runs: List[Union[CodexRun, LiveRun]] = []
        self._closed = False

    def run(self, options: Options, prompt: str, turn: Turn, control: Control) -> None:
        """Runs one turn to its end and folds it into `turn`; returns if it is a success.

        Raises:
            SessionBusy, RunFailure: the turn failed.
            Stopped: the call was stopped before the turn ended.
        """
        codex = find_codex(self._name)
        if codex.lower().endswith((".cmd", ".bat")) and re.search(r'[&|<>^%!"\r\n]', options.cwd):
            raise RunFailure(f"The directory {options.cwd} has characters that Windows command files take as "
                             "their own; use another one, or set CODEX_BIN to codex.exe.")
        if control.latest == "waiting":
            control.say("Starts Codex")
        try:
            watch = () if self._watch is None else (self._watch, self._locks_fd())
            run = CodexRun([codex] + exec_arguments(options), options.cwd, watch)
        except (OSError, ValueError) as error:
            raise RunFailure(f"Codex ({codex}) could not be started in {options.cwd}: {error}. Check whether "
                             "it can in a terminal.") from None
        try:
            self._finish(run, prompt, turn, control)
        except SessionBusy:
            self._finish(LiveRun(self._home, options), prompt, turn, control)

    def close(self, patience: float) -> None:
        """Asks all runs to stop at once, and ends those that are still there after `patience` seconds."""
        for name, limit in (("SIGINT", patience), ("SIGKILL", TICK)):
            with self._lock:
                self._closed = True
                for run in self._runs:
                    run.signal(name)
            end = time.monotonic() + limit
            while self._runs and time.monotonic() < end:
                time.sleep(0.005)  # their workers sweep up

    def _finish(self, run: Union[CodexRun, LiveRun], prompt: str, turn: Turn, control: Control) -> None:
        with self._lock:
            self._runs.append(run)
            if self._closed:
                control.stop("shutdown")
                run.signal("SIGKILL")
        try:
            stderr, ending = run.finish(prompt.encode("utf-8"), turn, control)
        finally:
            with self._lock:
                self._runs.remove(run)
        turn.result(stderr, ending)


# ----------------------------------------------------------------------------------------------------------
# sessions: who may use a session now
# ----------------------------------------------------------------------------------------------------------


class Lines:
    """Lines of calls, one for each key: first come, first served, `capacity` of them at once.

    The lock guards `_lines`.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._lines: Dict[str, List[Control]] = {}

    def join(self, key: str, call: Control) -> None:
        """Takes the last place in a line."""
        with self._lock:
            self._lines.setdefault(key, []).append(call)

    def wait(self, key: str, call: Control, reason: str) -> None:
        """Waits until `call`, which is in line, is served. Raises Stopped."""
        while True:
            with self._lock:
                if call in self._lines[key][:self._capacity]:
                    return
            call.say(reason)
            call.pause(PROGRESS_SILENCE)

    def leave(self, key: str, call: Control) -> None:
        """Gives the place back, if `call` has one, and wakes those who are served now."""
        with self._lock:
            line = self._lines.get(key, [])
            if call in line:
                line.remove(call)
            for other in line[:self._capacity]:
                other.wake()
            if not line:
                self._lines.pop(key, None)


class MachineLocks:
    """Locks on sessions among the servers of this user on this machine.

    They are locks on single bytes of one file in the Codex home, so they leave nothing that grows, and vanish
    with their holder; on Linux with its watchers, so that a killed server's Codex is gone before another one
    has its session. Each session has two: one for its use, and one for being the next to use it, so that two
    servers with many calls take turns. Within a process, Lines see to it that nobody asks twice.
    """

    def __init__(self, codex_home: str) -> None:
        self._path = os.path.join(codex_home, NAME + ".lock")
        # A number below 10 for the watcher's shell, kept with something else until the file is opened there.
        self._fd = os.open(os.devnull, os.O_RDWR)
        self._lock = threading.Lock()  # guards _opened and _useless
        self._opened = self._useless = False

    def fd(self) -> int:
        """The descriptor of the locks, which a process can inherit."""
        self._attempt(lambda: True)
        return self._fd

    def acquire(self, session_id: str, control: Control) -> None:
        """Waits for the session. Raises Stopped."""
        use = self._byte(session_id)
        try:
            for byte in (use + 1, use):
                while not self._lock_byte(byte, True):
                    control.say(f"Waits for session {session_id}, which another server on this machine uses")
                    control.pause(0.05)
        finally:
            # Not taken, it is not given back either: unlocking concerns only this process.
            self._lock_byte(use + 1, False)

    def try_acquire(self, session_id: str) -> bool:
        """Takes the session if it is free."""
        return self._lock_byte(self._byte(session_id), True)

    def release(self, session_id: str) -> None:
        """Gives the session back."""
        self._lock_byte(self._byte(session_id), False)

    @staticmethod
    def _byte(session_id: str) -> int:
        return int(session_id.replace("-", ""), 16) % (1 << 29) * 2

    def _lock_byte(self, byte: int, take: bool) -> bool:
        return self._attempt(lambda: lock_byte(self._fd, byte, take))

    def _attempt(self, action: Callable[[], bool]) -> bool:
        """What `action` on the open file returns; true where there is no file to lock."""
        with self._lock:
            if self._useless:
                return True
            try:
                if not self._opened:
                    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
                    file = os.open(self._path, flags, 0o600)
                    os.dup2(file, self._fd, inheritable=False)
                    os.close(file)
                    self._opened = True
                return action()
            except FileNotFoundError:
                return True  # no Codex home, so no session yet that anybody could use
            except OSError as error:
                self._useless = True
                log(f"{self._path} can't be used as a lock ({error.strerror}): this server goes on, but does "
                    "not see whether another one on this machine uses the same session")
                return True


def session_directory(codex_home: str, session_id: str) -> Optional[str]:
    """The directory in which a session was started, if Codex's session file tells it."""
    import glob  # needed only for the first call on a session of an earlier server

    name = f"rollout-*-{session_id}.jsonl"
    try:
        path = glob.glob(os.path.join(glob.escape(codex_home), "sessions", "*", "*", "*", name))[0]
        with open(path, "rb") as file:
            return text_in(load_json(file.readline(8 << 20).decode("utf-8")), "payload", "cwd") or None
    except (OSError, IndexError, ValueError):
        return None


# ----------------------------------------------------------------------------------------------------------
# prompts: the attribution line and the text of each tool
# ----------------------------------------------------------------------------------------------------------

#: Codex's session picker shows 96 characters of a first message on 120 columns. An attribution of at most 55
#: leaves 40 to tell sessions apart, so it gives way where client, tool and origin are long.
ATTRIBUTION_LENGTH = 55


def attribution(client: str, tool: str, origin: str) -> str:
    """The line that tells Codex, and a person in the picker, which AI agent sent a message, and how."""
    client, origin = one_line(client, 200) or "of unknown name", one_line(origin, 200) or NAME
    layout = "AI agent %s MCP %s/%s:"
    if len(layout % (client, origin, tool)) > ATTRIBUTION_LENGTH:
        tool = tool[len("codex_"):]
    over = max(0, len(layout % (client, origin, tool)) - ATTRIBUTION_LENGTH)
    origin = one_line(origin, max(8, len(origin) - over))
    over = max(0, len(layout % (client, origin, tool)) - ATTRIBUTION_LENGTH)
    return layout % (one_line(client, max(8, len(client) - over)), origin, tool)


REVIEWER = """\
You are a strict, independent reviewer for the AI agent that sent this. Your reader is that agent, not a \
person: be direct and specific, without praise.
- Look at the repository in the working directory yourself. Do not trust the summary: check its claims \
against the files, the history and, where that is possible without writing, the tests.
- Edit nothing, create nothing, commit nothing. Only review.
- First line: the verdict, %s, with the one reason that decides.
- Then list what blocks (it must change first) apart from what is only advice. Leave out a list that is empty.
- Name what is missing, risky, unclear or untested, each with file and line where you can, and say what \
would settle it.
- Write in the language of the request above."""


# ----------------------------------------------------------------------------------------------------------
# tools: schemas, checked arguments, a turn to a tool result
# ----------------------------------------------------------------------------------------------------------


class Tool(NamedTuple):
    """One tool. `texts` are its own arguments in the order of the prompt (name, description, whether it must
    be given, heading in the prompt), `output` its text in answers; one with a `task` reviews.
    """

    name: str
    title: str
    description: str
    texts: Tuple[Tuple[str, str, bool, str], ...]
    output: Tuple[str, str]
    task: str = ""

    def prompt(self, arguments: JsonObject) -> str:
        """The request itself first, where the picker shows it, then the parts that are not empty."""
        if not self.task:
            return arguments["prompt"]
        parts = [(heading, arguments.get(name, "").strip()) for name, _, _, heading in self.texts]
        parts.append(("Your task", self.task))
        return "\n\n".join(f"# {heading}\n{text}" if heading else text for heading, text in parts if text)


CARRY_ON = (" The answer has session_id: pass it to the next call, of any of the codex tools, to go on in "
            "the same conversation; leave it out to begin a new one. Give resume_command to the user, who "
            "can open the same conversation in a terminal with it. A turn can take minutes.")

TOOLS = (
    Tool("codex_chat", "Ask Codex",
         "Send a message to OpenAI's Codex, a second coding agent that can read the repository and run "
         "commands there, and get its reply: a second opinion, an investigation, a discussion, or work on "
         "files if the sandbox allows it. To have a plan or a finished change reviewed, take "
         "codex_guard_plan or codex_guard_final instead." + CARRY_ON,
         (("prompt", "The message to Codex, with all that it needs to know and cannot read in the working "
           "directory.", True, ""),),
         ("reply", "Codex's reply.")),
    Tool("codex_guard_plan", "Have Codex criticise a plan",
         "Before you start work that is not trivial: Codex checks the plan against the repository as a "
         "strict, independent reviewer and says whether to go on, what blocks, and what is missing, risky or "
         "unclear. It edits nothing." + CARRY_ON,
         (("requirements", "What is to be achieved, as the user asked for it.", True, ""),
          ("plan", "The plan: steps, files, decisions, how it will be tested.", True,
           "The plan to criticise, before any work starts"),
          ("constraints", "What must hold or must not be touched.", False, "Constraints")),
         ("critique", "Codex's criticism; its first line says whether to go on."),
         REVIEWER % '"GO", "GO WITH CHANGES" or "STOP", so that the agent knows whether to start the work'),
    Tool("codex_guard_final", "Have Codex review a change",
         "Before you tell the user that work is done: Codex reviews the change in the repository as a "
         "strict, independent reviewer and says whether it is done, what blocks, and what is missing, risky "
         "or untested. It edits nothing. Pass the session_id of the plan's check, so that it knows the plan."
         + CARRY_ON,
         (("change_summary", "What was changed and why, with the files.", True, ""),
          ("test_results", "Which checks were run and what they printed.", False,
           "Test results, as the agent reports them"),
          ("open_questions", "What you are not sure of.", False, "Open questions")),
         ("review", "Codex's review; its first line says whether the change is done."),
         "Review this change before it is called done. " + REVIEWER % (
             '"DONE", "DONE WITH REMARKS" or "NOT DONE", so that the agent knows whether it may say done')),
)

INSTRUCTIONS = """\
A second opinion from OpenAI's Codex CLI, in real Codex sessions that the user can open in a terminal.
1. Before work that is not trivial, call codex_guard_plan with requirements and plan; mend what blocks.
2. Before you say that it is done, call codex_guard_final with the same session_id; mend what blocks.
3. For anything else, call codex_chat.
Keep the session_id of an answer and pass it to the next call on the same matter. Show the user the \
resume_command: it continues that conversation in a terminal, and you can go on in it afterwards."""


#: Arguments of all tools: name, pattern, description, which begins with what is right.
COMMON_ARGUMENTS = (
    ("session_id", f"^{UUID}$", "The UUID of the session to continue, from an earlier answer. Without it a "
     "new one begins."),
    ("cwd", r"^(/|[A-Za-z]:[\\/]|\\\\)", "The absolute path of an existing directory for Codex to work in. "
     "Without it: the session's own, or for a new session the server's."),
    ("model", "^[A-Za-z0-9][A-Za-z0-9._:/@+~=-]{0,199}$", "The name of a model, for this call alone. Without "
     "it the user's Codex configuration rules."),
    ("reasoning_effort", "^[a-z][a-z0-9_-]{0,31}$", "A reasoning effort that the model knows, such as low, "
     "medium, high or xhigh, for this call alone. Without it the user's Codex configuration rules."),
)


def turn_sandbox(tool: Tool, asked: Optional[str], settings: Settings) -> Optional[str]:
    """The sandbox to ask Codex for. Reviews are read-only, unless the operator said that there is none."""
    if tool.task:
        return settings.sandbox if settings.sandbox == "danger-full-access" else "read-only"
    return asked or settings.sandbox


def input_schema(tool: Tool, settings: Settings) -> JsonObject:
    """The JSON Schema (2020-12) of a tool's arguments. Each description begins with what is right."""
    properties: JsonObject = {}
    for name, text, required, _ in tool.texts:
        properties[name] = {"type": "string", "description": text}
        if required:
            properties[name]["pattern"] = r"\S"
    if not tool.task:
        most = SANDBOXES.index(settings.sandbox or "workspace-write")
        properties["sandbox"] = {
            "type": "string", "enum": list(SANDBOXES[:most + 1]),
            "description": "What Codex may do with files in this turn. Without it: %s." % (
                settings.sandbox or "as the user's Codex configuration says, read-only if it says nothing")}
    for name, pattern, description in COMMON_ARGUMENTS:
        properties[name] = {"type": "string", "pattern": pattern, "description": description}
    properties["timeout_ms"] = {
        "type": "integer", "minimum": MIN_TIMEOUT_MS, "maximum": MAX_TIMEOUT_MS,
        "description": f"Whole milliseconds from {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS} until the call gives "
                       f"up, its wait for the session included. Without it: {settings.timeout_ms}."}
    return {"type": "object", "properties": properties, "additionalProperties": False,
            "required": [name for name, _, required, _ in tool.texts if required]}


def output_schema(tool: Tool) -> JsonObject:
    """The JSON Schema (2020-12) of a successful answer's `structuredContent`."""
    name, text = tool.output
    return {"type": "object", "required": ["session_id", name, "resume_command"], "properties": {
        "session_id": {"type": "string", "description": "The session; pass it to the next call on it."},
        name: {"type": "string", "description": text},
        "resume_command": {"type": "string", "description": "Opens the session in a terminal; for the user."},
        "usage": {"type": "object", "description": "Tokens as Codex reported them: of the session so far, or "
                                                   "with old versions of the turn."},
        "warnings": {"type": "array", "items": {"type": "string"}, "description": "What Codex warned of."}}}


def describe_tools(settings: Settings) -> List[JsonObject]:
    """The tools as `tools/list` tells them."""
    described = []
    for tool in TOOLS:
        writes = turn_sandbox(tool, None, settings) != "read-only"
        described.append({
            "name": tool.name, "title": tool.title, "description": tool.description,
            "inputSchema": input_schema(tool, settings), "outputSchema": output_schema(tool),
            "annotations": {"title": tool.title, "readOnlyHint": not writes, "destructiveHint": writes,
                            "idempotentHint": False, "openWorldHint": True}})
    return described


def check_arguments(schema: JsonObject, arguments: JsonObject) -> None:
    """Checks arguments by a tool's input schema. Raises RunFailure, which says what is wrong and right."""
    problems, properties = [], schema["properties"]
    for name in arguments:
        if name not in properties:
            import difflib  # only a mistaken call needs it

            near = difflib.get_close_matches(name[:60].lower(), list(properties), 1, 0.5)
            known = f'did you mean "{near[0]}"?' if near else "known are " + ", ".join(properties)
            problems.append(f"unknown argument {quoted(name)}; {known}")
    for name, rule in properties.items():
        value = arguments.get(name)
        if name not in arguments:
            if name in schema["required"]:
                problems.append(f'missing argument "{name}": {rule["description"]}')
            continue
        if rule["type"] == "integer":
            whole = isinstance(value, int) or isinstance(value, float) and value.is_integer()
            good = whole and not isinstance(value, bool) and rule["minimum"] <= value <= rule["maximum"]
        else:
            good = isinstance(value, str) and value in rule.get("enum", [value]) and (
                re.search(rule.get("pattern", "").replace("$", r"\Z"), value) is not None)
        if not good:
            kind = ("an integer" if rule["type"] == "integer" else
                    "a non-empty string" if rule.get("pattern") == r"\S" else "a string")
            right = "one of " + ", ".join(rule["enum"]) if "enum" in rule else rule["description"]
            problems.append(f'argument "{name}" is {quoted(value)}, but takes {kind}: {right}')
            if name == "sandbox" and value in SANDBOXES:
                problems.append("more than that is for this server's operator to allow (CODEX_MCP_SANDBOX)")
    if problems:
        raise RunFailure("Nothing was sent to Codex: " + "; ".join(problems[:10]))


def footer(session_id: str) -> str:
    """The end of every answer's text, for clients that show their model nothing but text."""
    return f"session_id: {session_id}\nresume_command: codex resume {session_id}"


def success(tool: Tool, turn: Turn) -> JsonObject:
    """The result of a turn that went well: structured, and as text, each complete."""
    session_id, reply = turn.session_id or "", turn.reply or ""
    structured: JsonObject = {"session_id": session_id, tool.output[0]: reply,
                              "resume_command": f"codex resume {session_id}"}
    if turn.usage is not None:
        structured["usage"] = turn.usage
    if turn.warnings:
        structured["warnings"] = turn.warnings
    ending = footer(session_id) + "".join("\nwarning: " + warning for warning in turn.warnings)
    return {"content": [{"type": "text", "text": reply}, {"type": "text", "text": ending}],
            "structuredContent": structured}


def failure(text: str, turn: Optional[Turn] = None) -> JsonObject:
    """The result of a call that failed: text alone, with the session if one is known."""
    parts = [text]
    if turn is not None and turn.reply:
        parts.append("The last that Codex said in this turn:\n" + turn.reply)
    if turn is not None and not turn.lost and (turn.session_id or turn.expected):
        parts.append(footer(turn.session_id or turn.expected or ""))
    return {"content": [{"type": "text", "text": "\n\n".join(parts)}], "isError": True}


class Call(NamedTuple):
    """One checked call, in line for its session if it names one; `held` are the sessions it has locked."""

    tool: Tool
    arguments: JsonObject
    session_id: Optional[str]
    prompt: str
    timeout_s: float
    control: Control
    held: List[str]


class ToolRunner:
    """Turns tool calls into turns of Codex. `accept` is for the reader alone, `perform` for workers.

    The lock guards `_calls` and `_directories`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._locks = MachineLocks(settings.codex_home)
        self._codex = Codex(settings, self._locks.fd)
        self._sessions, self._processes = Lines(1), Lines(settings.max_parallel)
        self._lock = threading.Lock()
        self._calls = 0
        self._directories: Dict[str, str] = {}
        self._nested: Optional[bool] = None

    def accept(self, tool: Tool, arguments: JsonObject, client: str,
               send: Optional[Callable[[str], None]]) -> Call:
        """Checks a call and takes its place in line, until `perform` or `abandon`. Raises RunFailure."""
        if self._settings.problems:
            raise RunFailure(f"This server is not set up right: {'; '.join(self._settings.problems)}. The "
                             "operator sets this in the environment of the server.")
        check_arguments(input_schema(tool, self._settings), arguments)
        if self._nested is None:
            self._nested = started_by_codex(MARKER)
        if self._nested:
            raise RunFailure(f"You are the Codex that {NAME} itself started: a call from here would start "
                             "another Codex, and so on without end. Answer with what you can do yourself.")
        session_id = arguments.get("session_id", "").lower() or None
        timeout_s = arguments.get("timeout_ms", self._settings.timeout_ms) / 1000
        first = attribution(client, tool.name, self._settings.origin)
        prompt = first + "\n" + well_formed(tool.prompt(arguments))
        call = Call(tool, arguments, session_id, prompt, timeout_s, Control(timeout_s, send), [])
        with self._lock:
            if self._calls >= MAX_CALLS:
                raise RunFailure(f"This server already has {MAX_CALLS} calls waiting or running. Wait for "
                                 "answers before you send more.")
            self._calls += 1
        if session_id:
            self._sessions.join(session_id, call.control)
        return call

    def perform(self, call: Call) -> Tuple[JsonObject, str, Optional[str]]:
        """Runs a call to its end: the tool result, a word for the log, the session if known."""
        turn = Turn(call.session_id, lambda session_id: self._opened(session_id, call))
        try:
            if call.session_id:
                self._sessions.wait(call.session_id, call.control,
                                    f"Waits for an earlier call on session {call.session_id}")
                self._locks.acquire(call.session_id, call.control)
                call.held.append(call.session_id)
            self._run(call, self._options(call), turn)
            return success(call.tool, turn), "ok", turn.session_id
        except RunFailure as error:
            return failure(str(error), turn), "failed", turn.session_id or call.session_id
        except Stopped as stop:
            then = ("Codex was stopped; what it did so far stays in the session. Call again with this "
                    "session_id to go on, with a larger timeout_ms." if turn.begun else
                    "Codex had not begun. Call again later, or with a larger timeout_ms.")
            seen = one_line(call.control.latest, 200)
            return failure(f"No answer within {call.timeout_s:g} s (timeout_ms). The last that was seen: "
                           f"{seen}. {then}", turn), str(stop), turn.session_id or call.session_id
        finally:
            self.abandon(call, turn.session_id)

    def abandon(self, call: Call, session_id: Optional[str] = None) -> None:
        """Gives back all places of a call, among them that on the session which it has opened."""
        for held in call.held:
            self._locks.release(held)
        self._sessions.leave(session_id or call.session_id or "", call.control)
        with self._lock:
            self._calls -= 1

    def close(self, patience: float) -> None:
        """Stops every Codex within about `patience` seconds."""
        self._codex.close(patience)

    def _opened(self, session_id: str, call: Call) -> None:
        """Hears the session of a call. A new one is taken for it, so that the next call on it waits."""
        if call.session_id is None:
            with self._lock:
                if len(self._directories) >= 1000:  # Codex's session files tell those that are forgotten
                    self._directories.clear()
                self._directories[session_id] = call.arguments.get("cwd") or self._settings.cwd
            self._sessions.join(session_id, call.control)
            if self._locks.try_acquire(session_id):
                call.held.append(session_id)
        call.control.say(f"Codex works in session {session_id} (codex resume {session_id})", at_once=True)

    def _run(self, call: Call, options: Options, turn: Turn) -> None:
        """The turn itself, tried again while its session is open elsewhere. Raises what Codex.run raises."""
        pause, why = 0.5, ""
        try:
            while True:
                self._processes.join("", call.control)
                try:
                    self._processes.wait("", call.control, "Waits: as many Codex processes run as may "
                                                           "(CODEX_MCP_MAX_PARALLEL)")
                    return self._codex.run(options, call.prompt, turn, call.control)
                except SessionBusy as busy:
                    why = str(busy)
                finally:
                    self._processes.leave("", call.control)
                call.control.say(f"Waits for session {turn.expected}, which is open elsewhere")
                call.control.pause(pause)
                pause = min(pause * 2, 15.0)
        except Stopped as stop:
            if not why or turn.begun or str(stop) != "timeout":
                raise
        raise RunFailure("The session is open elsewhere, most likely in a `codex resume` window, and was not "
                         f"free within {call.timeout_s:g} s (timeout_ms). Nothing was sent. {why}. Call "
                         "again, with a larger timeout_ms; or ask the user to close it, and call again a "
                         "minute after; or begin a new session by leaving session_id out.")

    def _options(self, call: Call) -> Options:
        arguments, session_id = call.arguments, call.session_id
        where, cwd = "cwd", arguments.get("cwd")
        if cwd is None and session_id:
            where = "the directory in which this session was started"
            with self._lock:
                cwd = self._directories.get(session_id)
            cwd = cwd or session_directory(self._settings.codex_home, session_id)
        if cwd is None:
            where, cwd = "the working directory of this server", self._settings.cwd
        if not os.path.isabs(cwd) or not os.path.isdir(cwd):
            raise RunFailure(f"Nothing was sent to Codex: {where} is {quoted(cwd)}, which is not an existing "
                             "directory. Give another one as cwd.")
        return Options(cwd, session_id, arguments.get("model"), arguments.get("reasoning_effort"),
                       turn_sandbox(call.tool, arguments.get("sandbox"), self._settings))


# ----------------------------------------------------------------------------------------------------------
# server: both protocol eras, requests in flight, cancellation, progress, shutdown
# ----------------------------------------------------------------------------------------------------------

META = "io.modelcontextprotocol/"
SERVER_INFO = {"name": NAME, "title": "Codex, in persistent sessions", "version": VERSION}
CAPABILITIES: JsonObject = {"tools": {}}
#: Milliseconds for which a client may keep the list of tools: it changes only with the server's environment.
LIST_TTL_MS = 300_000

Respond = Callable[[Optional[JsonObject]], None]


class Request(NamedTuple):
    """A tool call in flight. `answer` takes its result, or None if it gets none."""

    id: RequestId
    answer: Respond
    control: Control


class Batch:
    """Collects the responses to a batch (2025-03-26), and sends them as one when the last is there."""

    def __init__(self, count: int, send: Callable[[Any], None]) -> None:
        self._missing, self._send = count, send
        self._lock = threading.Lock()
        self._responses: List[JsonObject] = []

    def respond(self, response: Optional[JsonObject]) -> None:
        """Takes one response; None for a message that has none."""
        with self._lock:
            self._missing -= 1
            if response is not None:
                self._responses.append(response)
            if self._missing == 0 and self._responses:
                self._send(self._responses)


class Server:
    """MCP. `receive` is for the reader alone.

    Messages of the modern era are served by their own `_meta`; the others by what `initialize` settled.
    The lock guards `_in_flight`: who takes a request out, by answering or cancelling, has the last word.
    """

    def __init__(self, settings: Settings, send: Callable[[Any], None]) -> None:
        self._runner = ToolRunner(settings)
        self._tools = describe_tools(settings)
        self._send = send
        self._revision = self._client = ""
        self._lock = threading.Lock()
        self._in_flight: Dict[RequestId, Request] = {}

    def receive(self, line: Optional[bytes]) -> None:
        """Takes one line from the client, None for one that was too long. Never raises."""
        try:
            if line is None:
                raise ProtocolError(INVALID_REQUEST, f"Invalid request: a line of over {MAX_MESSAGE} bytes")
            value = decode_line(line)
            if not isinstance(value, list):
                return self._receive_value(value, self._respond)
            if self._revision != BATCH_REVISION or not value:
                what = "an empty batch" if not value else "only MCP 2025-03-26 has batches"
                raise ProtocolError(INVALID_REQUEST, f"Invalid request: {what}")
            batch = Batch(len(value), self._send)
            for one in value:
                self._receive_value(one, batch.respond)
        except ProtocolError as error:
            self._send(error.response(None))

    def close(self, patience: float) -> None:
        """Stops all calls within about `patience` seconds. They get no answer: the client is leaving."""
        with self._lock:
            requests = list(self._in_flight.values())
            self._in_flight.clear()
        for request in requests:
            request.control.stop("shutdown")
        self._runner.close(patience)

    def _respond(self, response: Optional[JsonObject]) -> None:
        if response is not None:
            self._send(response)

    def _receive_value(self, value: Any, respond: Respond) -> None:
        """Takes one message; `respond` is called once for it, sooner or later."""
        found = value.get("id") if isinstance(value, dict) else None
        request_id = found if is_id(found) else None
        try:
            message = read_message(value)
            if message is None or message.id is None:
                if message is not None and message.method == "notifications/cancelled":
                    self._cancel(message.params.get("requestId"))
                return respond(None)
            if message.id in self._in_flight:
                raise ProtocolError(INVALID_REQUEST, "Invalid request: a request with the id "
                                    f"{quoted(message.id)} is still in flight")
            self._dispatch(message, respond)
        except ProtocolError as error:
            if request_id in self._in_flight:
                request_id = None  # under this one it would be taken for the answer to the first request
            is_notification = isinstance(value, dict) and "id" not in value and (
                error.body["code"] == INVALID_PARAMS)
            respond(None if is_notification else error.response(request_id))
        except Exception as error:  # a fault of this server must cost no more than this one message
            log(f"internal error: {error!r}")
            respond(ProtocolError(INTERNAL_ERROR, f"Internal error: {error!r}").response(request_id))

    def _dispatch(self, message: Message, respond: Respond) -> None:
        meta = message.params.get("_meta", {})
        if not isinstance(meta, dict):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "_meta" must be an object')
        modern = message.method == "server/discover" or message.method != "initialize" and any(
            META + name in meta for name in ("protocolVersion", "clientCapabilities", "clientInfo"))
        client = self._client
        if modern:
            self._check_modern(meta)
            client = text_in(meta, META + "clientInfo", "name")

        def answer(result: Optional[JsonObject]) -> None:
            if result is None:
                return respond(None)
            if modern:
                result = dict(result, resultType="complete", _meta={META + "serverInfo": SERVER_INFO})
            respond({"jsonrpc": "2.0", "id": message.id, "result": result})

        cacheable = {"ttlMs": LIST_TTL_MS, "cacheScope": "private"} if modern else {}
        if message.method == "tools/call":
            self._call_tool(message, meta, client, answer)
        elif message.method == "tools/list":
            if message.params.get("cursor") is not None:
                raise ProtocolError(INVALID_PARAMS, "Invalid params: there is one page, without cursor")
            answer(dict(cacheable, tools=self._tools))
        elif message.method == "server/discover":
            answer(dict(cacheable, supportedVersions=list(MODERN_REVISIONS), capabilities=CAPABILITIES,
                        instructions=INSTRUCTIONS))
        elif message.method == "initialize":
            answer({"protocolVersion": self._initialize(message.params), "capabilities": CAPABILITIES,
                    "serverInfo": SERVER_INFO, "instructions": INSTRUCTIONS})
        elif message.method == "ping" and not modern:
            answer({})
        else:
            raise ProtocolError(METHOD_NOT_FOUND, f"Method not found: {one_line(message.method, 100)}")

    def _check_modern(self, meta: JsonObject) -> None:
        needed = (("protocolVersion", str, "a string"), ("clientCapabilities", dict, "an object"))
        for name, kind, what in needed:
            if not isinstance(meta.get(META + name), kind):
                raise ProtocolError(INVALID_PARAMS, f'Invalid params: "_meta" needs "{META}{name}", {what}')
            if name == "protocolVersion" and meta[META + name] not in MODERN_REVISIONS:
                raise ProtocolError(UNSUPPORTED_REVISION, "Unsupported protocol version", {
                    "supported": list(MODERN_REVISIONS), "requested": meta[META + name]})

    def _initialize(self, params: JsonObject) -> str:
        """Settles the legacy revision: the client's, or the newest if this server does not know that."""
        wanted = params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise ProtocolError(INVALID_PARAMS, 'Invalid params: "protocolVersion" must be a string')
        self._revision = wanted if wanted in LEGACY_REVISIONS else LEGACY_REVISIONS[0]
        self._client = text_in(params, "clientInfo", "name")
        return self._revision

    def _call_tool(self, message: Message, meta: JsonObject, client: str, answer: Respond) -> None:
        """Takes a tool call: a refusal is answered at once, all else by a worker. Raises ProtocolError."""
        name, arguments = message.params.get("name"), message.params.get("arguments", {})
        tool = next((tool for tool in TOOLS if tool.name == name), None)
        if tool is None:
            known = ", ".join(tool.name for tool in TOOLS)
            raise ProtocolError(INVALID_PARAMS, f"Unknown tool: {quoted(name)}; there are {known}")
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
            call = self._runner.accept(tool, arguments, client, tell if is_id(token) else None)
        except RunFailure as refusal:
            return answer(failure(str(refusal)))
        request = Request(request_id, answer, call.control)
        with self._lock:
            self._in_flight[request_id] = request
        try:
            threading.Thread(target=self._work, args=(request, call), daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            self._runner.abandon(call)
            self._take(request)
            answer(failure("This server is out of threads. Wait for answers before you send more."))

    def _work(self, request: Request, call: Call) -> None:
        """The life of a worker: one call."""
        begin, session_id = time.monotonic(), call.session_id
        try:
            result, ending, session_id = self._runner.perform(call)
        except Exception as error:  # a fault of this server must cost no more than this one call
            ending = f"internal error: {error!r}"
            result = failure(f"The server failed ({ending}). Call again; if it stays, tell the user.")
        if self._take(request):
            try:
                request.answer(result)
            except (ValueError, RecursionError) as error:  # what Codex reported can be read, but not written
                request.answer(failure(f"The answer can't be written ({error!r}): codex resume {session_id}"))
        spent = time.monotonic() - begin
        log(f"{call.tool.name}, session {session_id or 'none'}, {spent:.1f} s, {ending}")

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
            request.answer(None)


# ----------------------------------------------------------------------------------------------------------
# command line
# ----------------------------------------------------------------------------------------------------------


def serve(settings: Settings) -> None:
    """Serves MCP until the input ends, nobody reads the output, or a signal says so. Never returns."""
    while os.open(os.devnull, os.O_RDWR) < 3:
        pass  # one of 0, 1, 2 was closed, and a pipe of ours would have got its number
    os.closerange(3, 10)  # nothing inherited is used, and the shell can name no descriptor above 9
    # A byte in this pipe means: leave. Signals write it in C, so no handler runs in the middle of anything.
    wake_read, wake_write = os.pipe()
    if not WINDOWS:
        os.set_blocking(wake_write, False)
        for fd in (0, 1):  # a client can have left its own end's setting on them
            os.set_blocking(fd, True)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: None)

    def leave() -> None:
        os.write(wake_write, b".")

    writer = Writer(1, leave)
    server = Server(settings, writer.send)

    def read() -> None:
        try:
            with open(0, "rb", buffering=1 << 16, closefd=False) as stream:
                for line in read_lines(stream):
                    server.receive(line)
                    while not writer.wait_for_room(MAX_UNSENT, 0.2):
                        if poll(0, getattr(select, "POLLRDHUP", 0)):
                            return  # the client has gone, whatever it has not read
        except OSError:
            pass  # the input can't be read: as good as its end
        finally:
            leave()

    threading.Thread(target=read, name="reader", daemon=True).start()
    log(f"version {VERSION} serves MCP on standard input and output")
    os.read(wake_read, 1)
    server.close(0.3)
    writer.drain(0.1)
    os._exit(0)  # without waiting for workers that hang on a pipe


def ask_codex(codex: str, *arguments: str) -> Tuple[bool, str]:
    """Whether a short run of Codex went well, and the last line of what it said."""
    import subprocess

    try:
        process = spawn([codex, *arguments], os.getcwd(), (MARKER, "check"))
        said = [text.decode("utf-8", "replace").strip() for text in process.communicate(timeout=10)]
    except OSError as error:
        return False, one_line(str(error), 200)
    except subprocess.TimeoutExpired:
        sweep(process.pid)
        return False, "no answer within 10 s"
    words = one_line((said[0] or said[1] or "no words").splitlines()[-1], 200)
    return process.returncode == 0, re.sub(r" - \S*\*+\S*$", "", words)  # 0.77.0 shows a part of the API key


def check_codex(settings: Settings) -> Iterator[Tuple[bool, str, str]]:
    """The lines of `--check` on Codex itself."""
    try:
        codex = find_codex(settings.codex)
    except RunFailure as refusal:
        yield False, "Codex", str(refusal)
        return
    good, words = ask_codex(codex, "--version")
    remedy = "" if good else ". Install it again: npm install -g @openai/codex"
    yield good, "Codex", f"{codex}, {words}{remedy}"
    if not good:
        return
    good, words = ask_codex(codex, "login", "status")
    config = ""
    try:
        with open(os.path.join(settings.codex_home, "config.toml"), encoding="utf-8") as file:
            config = file.read()
    except (OSError, ValueError):
        pass  # Codex can do without
    provider = re.search(r'^model_provider\s*=\s*["\'](?!openai["\'])(.+?)["\']', config, re.MULTILINE)
    if not good and os.environ.get("CODEX_API_KEY"):
        good, words = True, f"{words}; but CODEX_API_KEY is set, which Codex takes if the client passes it on"
    elif not good and provider:
        good, words = True, f"{words}; but config.toml names the model provider {provider.group(1)}"
    yield good, "login", words if good else f"{words}. Run: codex login"


def run_check(settings: Settings) -> int:
    """Prints what this server would use and whether it works; returns 0 if all does, else 1."""
    home, remedy = settings.codex_home, ""
    lines = [(True, "Python", f"{sys.version.split()[0]}, {sys.executable}"), *check_codex(settings)]
    if not os.path.isdir(home) or not os.access(home, os.W_OK | os.X_OK):
        remedy = " is not a directory that can be written. Run codex once, or correct it or CODEX_HOME"
    lines.append((not remedy, "Codex home", home + remedy))
    there = os.path.isdir(settings.cwd)
    remedy = "" if there else " is not there. Set CODEX_MCP_CWD"
    lines.append((there, "working directory", settings.cwd + remedy))
    for variable, field in VARIABLES:
        value, source = getattr(settings, field), "environment" if os.environ.get(variable) else "default"
        wrong = [problem for problem in settings.problems if variable in problem]
        lines.append((not wrong, variable, wrong[0] if wrong else f"{value or 'not set'} ({source})"))
    told = [f"{'ok' if good else 'FAIL':5} {what:28} {text}" for good, what, text in lines]
    print(f"{NAME} {VERSION}", *told, sep="\n")
    return 0 if all(good for good, _, _ in lines) else 1


def print_config(client: str, settings: Settings) -> int:
    """Prints what registers this file in a client; returns the exit code. Notes go to standard error."""
    import shlex
    import tempfile

    file = os.path.abspath(globals().get("__file__", ""))
    folder, name = os.path.split(file)
    if not os.path.isfile(file) or folder == tempfile.gettempdir() and name != "codex_persistent_mcp.py":
        print("There is no lasting file to register: save this as codex_persistent_mcp.py, and run that.",
              file=sys.stderr)
        return 1
    env = {variable: os.environ[variable] for variable, _ in VARIABLES if os.environ.get(variable)}
    try:
        env["CODEX_BIN"] = find_codex(settings.codex)
    except RunFailure as refusal:
        print("Note:", refusal, file=sys.stderr)
    for problem in settings.problems:
        print("Note:", problem, file=sys.stderr)
    if client == "claude":
        pairs = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
        words = ["claude", "mcp", "add", "--scope", "user", NAME, *pairs, "--", sys.executable, file]
        print(" ".join(map(shlex.quote, words)))
    elif client == "json":
        entry = {"command": sys.executable, "args": [file], "env": env}
        print(json.dumps({"mcpServers": {NAME: entry}}, indent=2))
    else:
        def toml(text: str) -> str:
            return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

        config = os.path.join(settings.codex_home, "config.toml")
        print(f"# Append this to {config}; an older entry goes first: codex mcp remove {NAME}",
              f"[mcp_servers.{NAME}]", f"command = {toml(sys.executable)}", f"args = [{toml(file)}]",
              "# Codex's own limit for a call is shorter than this server's",
              f"tool_timeout_sec = {MAX_TIMEOUT_MS // 1000 + 60}",
              "# where nobody can be asked, as in codex exec, Codex refuses tools that are not approved here",
              'default_tools_approval_mode = "approve"', "", f"[mcp_servers.{NAME}.env]",
              *(f"{name} = {toml(value)}" for name, value in env.items()), sep="\n")
    return 0


def main() -> int:
    """Runs the command line; returns the exit code."""
    settings = read_settings(dict(os.environ))
    if len(sys.argv) == 1:
        serve(settings)
    import argparse  # not for the server: it must be there at once

    parser = argparse.ArgumentParser(
        prog="codex_persistent_mcp.py", allow_abbrev=False, description="An MCP server over standard input "
        "and output (without options) that runs each tool call as a turn of a Codex session.")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--check", action="store_true", help="say what would be used, and whether it works")
    chosen.add_argument("--print-config", choices=("claude", "codex", "json"),
                        help="print what registers this file in a client")
    chosen.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    options = parser.parse_args()
    return run_check(settings) if options.check else print_config(options.print_config, settings)


if __name__ == "__main__":
    sys.exit(main())
