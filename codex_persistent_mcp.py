#!/usr/bin/env python3
# /// script
# requires-python = ">=3.8"
# dependencies = []
# ///
"""An MCP server over stdio that runs each tool call as a turn of a real, persisted Codex session.

An AI agent (the MCP client) asks, and OpenAI's Codex CLI answers in a session of its own store. A
person can continue the same conversation in a terminal with `codex resume <session_id>`, and the
agent can go on after that. (Codex's events call a session a thread; this file says session. A
thread of this process is a worker.)

The way of one call through the rooms of this file, each of which uses only rooms above it:

    bytes in      transport      the only reader of standard input
    message       messages       JSON-RPC: a line to a checked message
    dispatch      server         both protocol eras, requests in flight, cancellation
    tool          tools          arguments checked against the tool's own schema
    prompt        prompts        the attribution line, the text of each tool
    place         sessions       one turn at a time in a session, on this machine
    run           codex process  `codex exec --json`, in a process group of its own; or, in a
                  app-server     session that is open in a `codex resume` window, a turn there
    events, turn  turn           what Codex reports, folded into a reply or a failure
    result        tools, server  structured and as text
    bytes out     transport      the only writer of standard output

A run is an iterator of events, and knows neither turn nor call. One loop, ToolRunner._drive, takes
an event, folds it into the turn, tells progress and looks whether to stop. Leaving the iterator
ends whatever the run started.

How things are stopped:

    a run (Ladder)         SIGINT, so that Codex records the interruption; after a second SIGTERM,
                           after another SIGKILL. On Linux, processes that have left the group get
                           SIGTERM first, and SIGKILL at least 0.2 s later.
    the server's own end   the same, but SIGKILL after a quarter of a second: clients wait no more
                           than half a second. What is still left then is the watcher's.
    a killed server        the watcher, a shell in the run's group, does the same. It has nobody to
                           wait for, and takes 0.2 s.
    a turn elsewhere       the app-server is asked to interrupt it, and has two seconds for that:
                           the process is not ours to kill.

What it starts: for each call one `codex exec` (several, while the session is open elsewhere),
through /bin/sh, which leaves the watcher; on macOS `ps`, once; for --check, `codex --version` and
`codex login status`.
What it reads: its environment; the first line of a session's file, for the session's directory; on
Linux the environments of this user's processes, to see who started it and to find what a stopped
turn has left; for --check, Codex's config.toml.
What it writes: standard output (MCP), standard error (a log without prompts and replies), and one
empty lock file in the Codex home, codex-persistent-mcp.lock. What it connects to: Codex's control
socket, there too. It keeps no state of its own: the conversations live in Codex's session store.
"""
from __future__ import annotations

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # import nothing from the file's directory, nor from the working directory

import enum
import json
import os
import re
import select
import signal
import threading
import time
from collections import deque
from typing import (Any, Callable, Deque, Dict, Generator, Iterator, List, NamedTuple, Optional,
                    Tuple, Union)

# --------------------------------------------------------------------------------------------------
# constants, settings
# --------------------------------------------------------------------------------------------------

NAME = "codex-persistent-mcp"
#: Version of this file, as told to clients and by `--version`.
VERSION = "1.1.0"

#: Revisions of MCP that begin with an `initialize` handshake, newest first.
LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
#: Revisions of MCP in which every request carries its own `_meta`.
MODERN_REVISIONS = ("2026-07-28",)
#: Error codes of JSON-RPC 2.0, and the one of MCP 2026-07-28 that this server needs.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, UNSUPPORTED_REVISION = -32603, -32022

#: Codex's sandboxes, from the fewest rights to the most.
SANDBOXES = ("read-only", "workspace-write", "danger-full-access")
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS, DEFAULT_TIMEOUT_MS = 1_000, 7_200_000, 600_000

#: Bytes of one line from the client; a longer one is skipped and refused.
MAX_MESSAGE = 128 << 20
#: Bytes of one event from Codex; of a longer one only the beginning is looked at.
MAX_EVENT = 32 << 20
#: Bytes of Codex's standard error that are kept from its beginning, and as many from its end.
MAX_STDERR = 32 << 10
#: Bytes of answers that wait for a client that does not read; beyond that, nothing more is read.
MAX_UNSENT = 64 << 20
#: Calls waiting and running at once, beyond which calls are refused; and warnings of one answer.
MAX_CALLS, MAX_WARNINGS = 256, 20

#: Seconds. A run yields at least this often, so that its call can look at its deadline.
TICK = 0.05
#: Seconds that Codex has to leave by itself after its turn, or its output, has ended.
LEAVE = 3.0
#: Seconds for which output may still come after Codex itself has gone: a child can hold the pipe.
DRAIN = 0.5
#: Seconds between SIGTERM and SIGKILL for processes that have left Codex's group.
STRAYS = 0.2
#: Seconds from one progress message to the next, or to the answer; and the longest silence.
PROGRESS_GAP, PROGRESS_SILENCE = 0.5, 10.0
#: Seconds for one answer of Codex's app-server, and for stopping a turn there.
ANSWER, WITHDRAW = 10.0, 2.0

#: A session id as Codex makes it and `codex resume` takes it.
UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"

JsonObject = Dict[str, Any]


class Settings(NamedTuple):
    """What the operator set in the environment. `problems` has a text for each bad value."""

    codex: str
    cwd: str
    origin: str
    timeout_ms: int
    sandbox: Optional[str]
    max_parallel: int
    codex_home: str
    problems: Tuple[str, ...]


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers from `low` to `high`."""
    def read(text: str) -> int:
        if re.fullmatch("[0-9]{1,9}", text) and low <= int(text) <= high:
            return int(text)
        raise ValueError(f"a whole number from {low} to {high}")
    return read


def sandbox_name(text: str) -> Optional[str]:
    """Reads the name of a sandbox; "" is None."""
    if text and text not in SANDBOXES:
        raise ValueError("one of " + ", ".join(SANDBOXES))
    return text or None


def working_directory(text: str) -> str:
    """Reads the directory of new sessions; "" is where the server was started."""
    path = os.path.expanduser(text)
    try:
        path = path or os.getcwd()
    except OSError:
        pass  # it is gone
    if os.path.isabs(path) and os.path.isdir(path):
        return path
    raise ValueError("the absolute path of an existing directory")


class Variable(NamedTuple):
    """An environment variable: the field of Settings that it sets, its default, and its reader.

    The reader gets the default if the variable is empty. It raises ValueError: what it takes.
    """

    name: str
    field: str
    default: str
    read: Callable[[str], Any]


VARIABLES = (
    Variable("CODEX_BIN", "codex", "codex", os.path.expanduser),
    Variable("CODEX_MCP_CWD", "cwd", "", working_directory),
    Variable("CODEX_MCP_SANDBOX", "sandbox", "", sandbox_name),
    Variable("CODEX_MCP_TIMEOUT_MS", "timeout_ms", str(DEFAULT_TIMEOUT_MS),
             whole_number(MIN_TIMEOUT_MS, MAX_TIMEOUT_MS)),
    Variable("CODEX_MCP_MAX_PARALLEL", "max_parallel", "16", whole_number(1, 1000)),
    Variable("CODEX_PERSISTENT_MCP_ORIGIN", "origin", NAME, str),
    Variable("CODEX_HOME", "codex_home", os.path.join("~", ".codex"),
             lambda text: os.path.abspath(os.path.expanduser(text))),
)


def read_settings(env: Dict[str, str]) -> Settings:
    """Reads the settings from `env`; an empty value counts as not set. Never raises."""
    values: JsonObject = {}
    problems: List[str] = []
    for variable in VARIABLES:
        text = env.get(variable.name) or variable.default
        try:
            values[variable.field] = variable.read(text)
        except ValueError as error:
            values[variable.field] = variable.read(variable.default) if variable.default else ""
            problems.append(f"{variable.name} is {text!r}; it takes {error}")
    return Settings(problems=tuple(problems), **values)


# --------------------------------------------------------------------------------------------------
# errors, and what a call watches while it waits
# --------------------------------------------------------------------------------------------------


class ProtocolError(Exception):
    """A message that is answered with a JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Optional[JsonObject] = None) -> None:
        super().__init__(message)
        self.body: JsonObject = {"code": code, "message": message}
        if data is not None:
            self.body["data"] = data

    def response(self, request_id: Any) -> JsonObject:
        """The JSON-RPC error response; the id is null if the request's cannot be told."""
        return {"jsonrpc": "2.0", "id": request_id, "error": self.body}


def invalid_params(text: str) -> ProtocolError:
    """The error for a request whose parameters are not those of its method."""
    return ProtocolError(INVALID_PARAMS, "Invalid params: " + text)


def invalid_request(text: str) -> ProtocolError:
    """The error for a message that is not a request of JSON-RPC."""
    return ProtocolError(INVALID_REQUEST, "Invalid request: " + text)


class RunFailure(Exception):
    """A call that failed. The text says why, and what the caller can do."""


class SessionLost(RunFailure):
    """The session does not exist, so the answer must not offer to continue it."""


class SessionBusy(RunFailure):
    """The session is open elsewhere, and nothing was sent. The text says why it is out of reach."""


class Reason(enum.Enum):
    """Why a call must end before its turn has ended."""

    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    SHUTDOWN = "shutdown"


class Stopped(Exception):
    """A call must end now, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Deadline:
    """When a call must end: at its time, or as soon as it is stopped. Any worker may call this."""

    def __init__(self, timeout_s: float) -> None:
        self._end = time.monotonic() + timeout_s
        self._reason: Optional[Reason] = None
        self._wake = threading.Event()

    def stop(self, reason: Reason) -> None:
        """Makes the next `check` raise `Stopped`. The first reason stays."""
        self._reason = self._reason or reason
        self._wake.set()

    def wake(self) -> None:
        """Ends a `wait` early."""
        self._wake.set()

    def check(self) -> None:
        """Raises `Stopped` if the call must end."""
        if self._reason is None and time.monotonic() >= self._end:
            self._reason = Reason.TIMEOUT
        if self._reason:
            raise Stopped(self._reason)

    def wait(self, duration: float) -> bool:
        """Waits `duration` seconds; true if woken before. Raises `Stopped`."""
        woken = self._wake.wait(max(0.0, min(duration, self._end - time.monotonic())))
        self._wake.clear()
        self.check()
        return woken


def one_line(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters, without control characters."""
    text = text[:limit * 4].encode("utf-8", "replace").decode("utf-8")
    control = r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+"
    text = re.sub(control, " ", text).strip()
    return text if len(text) <= limit else text[:limit - 1].rstrip() + "\u2026"


class Progress:
    """What a call is doing, thinned out for a person. Only the call's own worker may call this."""

    def __init__(self, send: Optional[Callable[[str], None]] = None) -> None:
        #: The latest text, sent or not.
        self.latest = "waiting"
        self._send = send
        self._begin = time.monotonic()
        self._sent_at = self._begin - PROGRESS_GAP
        #: Since when there is a text that was not sent.
        self._since: Optional[float] = None

    def say(self, text: str, at_once: bool = False) -> None:
        """Tells `text`, if any: soon, unless something newer comes first, or `at_once`."""
        if text and text != self.latest:
            self.latest, self._since = text, self._since or time.monotonic()
        if at_once:
            self._tell(text)
        self.tick()

    def tick(self) -> None:
        """Tells what is due: what is half a second old, or after a long silence a sign of life."""
        now = time.monotonic()
        silence = now - self._sent_at
        if self._since and now >= self._since + PROGRESS_GAP and silence >= PROGRESS_GAP:
            self._tell(self.latest)
        elif silence >= PROGRESS_SILENCE:
            self._tell(f"{one_line(self.latest, 140)} ({now - self._begin:.0f} s so far)")

    def settle(self) -> None:
        """Waits until an answer may follow: some clients fail on one that comes with progress."""
        if self._send is not None:
            time.sleep(max(0.0, self._sent_at + PROGRESS_GAP - time.monotonic()))

    def _tell(self, text: str) -> None:
        self._sent_at, self._since = time.monotonic(), None
        if self._send is not None:
            self._send(one_line(text, 160))


class Control(NamedTuple):
    """What one call watches while it works or waits."""

    deadline: Deadline
    progress: Progress

    def check(self) -> None:
        """Raises `Stopped` if the call must end; tells the progress that is due."""
        self.deadline.check()
        self.progress.tick()

    def pause(self, duration: float) -> None:
        """Waits `duration` seconds, or until the deadline is woken. Raises `Stopped`."""
        end, woken = time.monotonic() + duration, False
        while not woken and time.monotonic() < end:
            woken = self.deadline.wait(min(end - time.monotonic(), PROGRESS_GAP / 2))
            self.progress.tick()


# --------------------------------------------------------------------------------------------------
# messages: JSON and JSON-RPC 2.0, bytes to checked messages and back
# --------------------------------------------------------------------------------------------------

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

    So does a whole number of hundreds of digits: on millions, Python would work for hours.
    """
    if len(text) < 400 and not re.search("[.eE]", text):
        return int(text)
    return max(-sys.float_info.max, min(float(text), sys.float_info.max))


def json_constant(text: str) -> None:
    """Refuses NaN and the like, which Python would take."""
    raise ValueError(f"{text} is not JSON")


DECODER = json.JSONDecoder(
    parse_int=json_number, parse_float=json_number, parse_constant=json_constant)


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
    except RecursionError:  # what could just be read cannot always be written
        return "nested too deeply"


def decode_line(line: bytes) -> Any:
    """The JSON value of one line of the client's. Raises ProtocolError."""
    try:
        return load_json(line.decode("utf-8-sig"))
    except ValueError as error:
        raise ProtocolError(PARSE_ERROR, f"Parse error: {one_line(str(error), 200)}") from None


def read_message(value: Any) -> Optional[Message]:
    """Checks one JSON-RPC message; None for a response, which nobody here expects.

    Raises ProtocolError.
    """
    if isinstance(value, list):
        raise invalid_request("batches are not supported; send each message by itself, on one line")
    if not isinstance(value, dict):
        raise invalid_request("a message is an object")
    if "method" not in value and ("result" in value or "error" in value):
        return None
    if value.get("jsonrpc") != "2.0":
        raise invalid_request('"jsonrpc" must be "2.0"')
    if not isinstance(value.get("method"), str):
        raise invalid_request('"method" must be a string')
    if "id" in value and not is_id(value["id"]):
        raise invalid_request('"id" must be a string or an integer')
    params = value.get("params")
    params = {} if params in (None, []) else params  # as some clients leave it out
    if not isinstance(params, dict):
        raise invalid_params('"params" must be an object')
    return Message(value["method"], params, value.get("id"))


# --------------------------------------------------------------------------------------------------
# platform: all that differs between POSIX and Windows
# --------------------------------------------------------------------------------------------------

WINDOWS = os.name == "nt"
if WINDOWS:
    import msvcrt
else:
    import fcntl

#: A name and a value in the environment of a process and of all that it starts, to know them by.
Mark = Tuple[str, str]

#: The shell becomes the command, marked $1=$2. In its group it leaves a watcher, which waits for
#: the end of the pipe {0}. Only this server holds the other end, so it ends however this server
#: dies. Then the watcher stops the group, and on Linux also what has left the group but has the
#: mark. It ignores the signals that ask the group to stop, holds none of the command's pipes, and
#: is swept away with the group after the run. It alone also holds {1}, the file of this server's
#: locks, so these last until the command is gone.
WATCHED = """\
(
    trap "" HUP INT TERM
    read -r _ <&{0}
    marked() {{ timeout 5 grep -lsxz "$1=$2" /proc/[0-9]*/environ | cut -d/ -f3; }}
    group() {{ set -- $(sed "s/.*) //" "/proc/$1/stat"); echo "$3"; }}
    for pid in $(marked "$@"); do [ "$(group "$pid")" = $$ ] || kill -TERM "$pid"; done
    sleep .05
    kill -INT 0
    sleep .2
    kill -KILL $(marked "$@") 0
) >/dev/null 2>&1 &
exec {0}<&- {1}<&-
export "$1=$2"
shift 2
exec "$@"
"""


class Watch(NamedTuple):
    """What a watcher needs. Both are below 10, since sh(1) names no others: `serve` frees those."""

    pipe: int
    locks: int


def watch_pipe() -> Optional[int]:
    """The end of a new pipe that watchers read; the other stays open here. None without a shell."""
    if WINDOWS or not os.path.exists("/bin/sh"):
        return None
    return os.pipe()[0]


def spawn(command: List[str], cwd: str, mark: Mark, watch: Optional[Watch] = None) -> Any:
    """Starts a marked process with pipes, which leads a group of its own, and its watcher.

    Raises OSError, ValueError.
    """
    import subprocess  # a quarter of the time that the server takes to start, and not needed then

    options: JsonObject = {"start_new_session": True, "env": dict(os.environ, **dict([mark]))}
    if WINDOWS:
        options["creationflags"] = 0x08000200  # CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
    elif watch:
        assert max(watch) < 10, watch
        command = ["/bin/sh", "-c", WATCHED.format(*watch), "sh", *mark, *command]
        options.update(env=None, pass_fds=watch)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=cwd, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, **options)


def signal_group(pid: int, name: str) -> None:
    """Sends a signal to the group that `pid` leads; on Windows each ends the tree."""
    try:
        if WINDOWS:
            import subprocess

            subprocess.call(["taskkill", "/T", "/F", "/PID", str(pid)], stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        else:
            os.killpg(pid, getattr(signal, name))
    except OSError:
        pass  # nobody is left in the group


def signal_strays(group: int, mark: Mark, name: str) -> bool:
    """Signals the marked processes outside of a group, on Linux; false if there are none.

    With "" for a name it only looks.
    """
    marked, found = "=".join(mark).encode(), False
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        try:
            with open(f"/proc/{int(entry)}/environ", "rb") as file:
                if marked in file.read().split(b"\0") and os.getpgid(int(entry)) != group:
                    os.kill(int(entry), getattr(signal, name) if name else 0)
                    found = True
        except (OSError, ValueError):
            pass  # no process, not this user's, or gone
    return found


def sweep(group: int) -> None:
    """Ends what is left of a group, and reaps what a container's first process inherits."""
    signal_group(group, "SIGKILL")
    try:
        while not WINDOWS:
            os.waitpid(-group, 0)
    except ChildProcessError:
        pass


def selectable(pipe: Any) -> Any:
    """What a selector can wait for instead of `pipe`. On Windows a worker copies it to a socket."""
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
    """Has writes to `pipe` take what they can at once; false where that cannot be had."""
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
    """`lock_byte` on Linux: fcntl(2), "Open file description locks". False without them."""
    import errno  # like struct, needed by calls and not by the start
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
    """Locks or unlocks one byte of a file among processes; false if another has it. Raises OSError.

    On Linux, a lock lasts until all processes that inherited `fd` are gone; else until this one is.
    """
    try:
        if WINDOWS:
            os.lseek(fd, byte, os.SEEK_SET)
            mode = msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK  # type: ignore[attr-defined]
            msvcrt.locking(fd, mode, 1)  # type: ignore[attr-defined]
        elif not (sys.platform == "linux" and lock_open_file(fd, byte, take)):
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN, 1, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def inside(marker: str) -> bool:
    """Whether a process that was started with a value for `marker` is above this one.

    That process may have stripped this one's environment. But it leaves this one in its POSIX
    session, whose leader is the process that was started with the marker.
    """
    if WINDOWS or os.environ.get(marker):
        return bool(os.environ.get(marker))
    import subprocess

    leader, mark = os.getsid(0), marker.encode() + b"=[^\0 ]"
    try:
        if os.path.isdir("/proc/self"):
            with open(f"/proc/{leader}/environ", "rb") as file:
                return re.search(b"\0" + mark, b"\0" + file.read()) is not None
        found = subprocess.run(
            ["ps", "-wwE", "-o", "command=", "-p", str(leader)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
        return re.search(b" " + mark, found.stdout) is not None
    except (OSError, subprocess.SubprocessError):
        return False


def log(text: str) -> None:
    """One line for people on standard error; dropped if nobody reads it, so that no call waits."""
    try:
        if WINDOWS or poll(2, select.POLLOUT) & select.POLLOUT:
            os.write(2, f"{NAME}: {one_line(text, 500)}\n".encode("utf-8", "replace"))
    except OSError:
        pass


# --------------------------------------------------------------------------------------------------
# transport: lines from standard input, lines to standard output
# --------------------------------------------------------------------------------------------------


def read_lines(stream: Any) -> Iterator[Optional[bytes]]:
    """The lines of the client, until the end of input; None is one of over MAX_MESSAGE bytes."""
    for line in iter(lambda: stream.readline(MAX_MESSAGE + 1), b""):
        if len(line) > MAX_MESSAGE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 20)
            yield None
        elif line.strip():
            yield line


class Writer:
    """The only writer of standard output. Any worker may call `send`, which never waits.

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
        """Waits until at most `limit` bytes are unsent; false after `patience` seconds."""
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


# --------------------------------------------------------------------------------------------------
# turn: events folded into a turn
# --------------------------------------------------------------------------------------------------

#: Events of a run's own, beside those of `codex exec --json`: a line that is no event (`text`), an
#: event that is too long (`head`, its beginning), something to tell (`text`), and the end of the
#: run (`stderr`, `ending`).
NOISE, TOO_LONG, SAY, ENDED = "run.noise", "run.too_long", "run.say", "run.ended"

Events = Iterator[Optional[JsonObject]]


def say(text: str) -> JsonObject:
    """An event that is nothing but progress to tell."""
    return {"type": SAY, "text": text}


def warning(text: str) -> JsonObject:
    """An event for a warning of the answer, as `codex exec` has it."""
    return {"type": "item.completed", "item": {"type": "error", "message": text}}


#: Most bytes of a long turn are the output of commands and tools, of which nothing is needed.
SKIPPED = re.compile(rb'\{"type":"item\.(?:updated|completed)",'
                     rb'"item":\{"id":"[^"]*","type":"(?:command_execution|mcp_tool_call)"')
#: Where an error of Codex ends for everybody but its makers.
BACKTRACE = r"\n[ \t]*(?:[Ss]tack backtrace|Backtrace):"

SHORTER = "Send a shorter text; Codex can read files in its working directory itself."
#: What a caller can do about a failure, by what is found in Codex's words, in lower case.
ADVICE = (
    ("no rollout found", "Codex does not know this session here: check session_id, or leave it out "
     "to begin a new one. Sessions live in the Codex home (CODEX_HOME) of the user who began "
     "them."),
    ("maximum length", SHORTER),
    ("unknown variant", "Leave reasoning_effort out or use a value that Codex names; or ask the "
     "user to correct Codex's config.toml."),
    ("config.toml", "Ask the user to correct Codex's config.toml."),
    ("not logged in", "Ask the user to run `codex login`."),
    ("429", "Too many requests: wait a minute, then call again."),
    ("401", "Ask the user to run `codex login`, or to check the API key of the model's provider."),
    ("usage limit", "Wait until the limit of the user's plan is reset, or ask for another model."),
    ("high demand", "The model's server is in trouble: call again later."),
    ("status 5", "The model's server is in trouble: call again later."),
    ("network", "Ask the user to check the network: Codex does not reach the model's server."),
    ("model", "If model was given, check that this Codex and this account can use it, or leave it "
     "out."),
    ("", "Call again; if it keeps failing, ask the user to run `codex exec` in a terminal."),
)


def codex_words(text: str) -> str:
    """What an error of Codex says, without the JSON around it, colours and backtraces."""
    for _ in range(4):
        start, end = text.find("{"), text.rfind("}")
        try:
            value = load_json(text[start:end + 1]) if 0 <= start < end < 1 << 20 else None
        except ValueError:
            break
        inner = (text_in(value, "error", "message") or text_in(value, "message")
                 or text_in(value, "detail"))
        if not inner:
            break
        text = text[:start] + inner + text[end + 1:]
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", re.split(BACKTRACE, text)[0]).strip()
    return text if len(text) <= 2000 else text[:2000] + "\u2026"


def stderr_words(text: str) -> str:
    """What Codex's standard error says of a failure, without its noise."""
    lines = [line.rstrip() for line in re.split(BACKTRACE, text)[0].splitlines() if line.strip()]
    logged = re.compile(r"\d{4}-\d\d-\d\dT\S+\s+(?:ERROR|WARN|INFO|DEBUG|TRACE)\s+(?:\S+:\s+)?")
    noise = re.compile(
        r"WARNING: |Reading (?:additional input|prompt) from stdin|note: run with `RUST_BACK")
    plain = [line for line in lines if not noise.match(line) and not logged.match(line)]
    first = next((i for i, line in enumerate(plain) if line.lower().startswith("error")), 0)
    chosen = plain[first:] or [logged.sub("", line) for line in lines if logged.match(line)]
    return codex_words("\n".join(chosen[:12]))


def decode_event(line: Union[bytes, bytearray]) -> Optional[JsonObject]:
    """The event in one line of Codex's output; None if nothing in it is needed."""
    if SKIPPED.match(line):
        return None
    text = line.decode("utf-8", "replace")
    try:
        event = load_clean(text)
    except ValueError:
        event = None
    if text_in(event, "type") and not text_in(event, "type").startswith("run."):
        return event
    return {"type": NOISE, "text": one_line(text[:1000], 200)} if text.strip() else None


def item_progress(item: JsonObject, finished: bool) -> str:
    """The line of progress that an item deserves, "" for none."""
    kind, text = item.get("type"), text_in(item, "text")
    if kind == "command_execution" and not finished:
        command = text_in(item, "command")
        wrapped = re.fullmatch(r"\S*sh -l?c (['\"]?)(.*)\1", command, re.DOTALL)
        return "Running " + (wrapped.group(2) if wrapped else command)
    if kind == "file_change":
        paths = [text_in(change, "path") for change in objects_in(item, "changes")[:5]]
        return "Changing " + ", ".join(map(os.path.basename, paths))
    if kind == "web_search":
        return "Searching the web for " + text_in(item, "query")
    if kind == "mcp_tool_call" and not finished:
        return f"Calling {text_in(item, 'server')}.{text_in(item, 'tool')}"
    if kind == "todo_list":
        steps = objects_in(item, "items")
        ahead = [text_in(step, "text") for step in steps if step.get("completed") is not True]
        current = min(len(steps) - len(ahead) + 1, len(steps))
        return f"Plan, {current} of {len(steps)}: {ahead[0] if ahead else 'done'}"
    if kind == "reasoning" and finished:
        return "Thinking: " + text.strip().split("\n")[0].strip("*# ")
    return "Writing: " + text[:400] if kind == "agent_message" and finished else ""


class State(enum.Enum):
    """How far a turn is. A turn that Codex adds in the same run makes it RUNNING again."""

    WAITING = 0
    RUNNING = 1
    COMPLETED = 2
    FAILED = 3


class Turn:
    """One turn, folded from its events; what became of it is read afterwards."""

    def __init__(self, expected: Optional[str] = None) -> None:
        """`expected` is the session to continue, None for a new one."""
        self.expected = expected
        self.state = State.WAITING
        self.session_id: Optional[str] = None
        self.reply: Optional[str] = None
        self.usage: Optional[JsonObject] = None
        self.warnings: List[str] = []
        #: The last error that Codex told, and the first line that was no event.
        self.error = self.stray = ""
        #: Codex's standard error, and how the run ended; filled at its end.
        self.stderr, self.ending = "", "it was stopped"

    def fold(self, event: JsonObject) -> str:
        """Takes one event. Returns progress to tell, or "".

        Raises RunFailure, SessionLost: the run must be stopped before it does anything else.
        """
        kind, item = event["type"], object_in(event, "item")
        if kind == "turn.started":
            self.state = State.RUNNING
            return "Codex has started its turn"
        if kind == ENDED:
            self.stderr, self.ending = event["stderr"], event["ending"]
        elif self.state in (State.COMPLETED, State.FAILED):
            pass
        elif kind == SAY:
            return event["text"]
        elif kind == NOISE:
            self.stray = self.stray or event["text"]
        elif kind == TOO_LONG:
            if '"agent_message"' in event["head"][:200]:
                raise RunFailure(
                    f"Codex's message is over {MAX_EVENT >> 20} MiB, too long to pass on.")
        elif kind == "thread.started":
            self._session_started(text_in(event, "thread_id").lower())
        elif kind.startswith("item."):
            if kind == "item.completed" and item.get("type") == "agent_message":
                self.reply = text_in(item, "text") or self.reply
            elif kind == "item.completed" and item.get("type") == "error":
                self.warn(text_in(item, "message"))
            return item_progress(item, kind == "item.completed")
        elif kind == "turn.completed":
            self.state, self.usage = State.COMPLETED, object_in(event, "usage") or None
        elif kind == "turn.failed":
            self.state = State.FAILED
            self.error = codex_words(text_in(event, "error", "message")) or self.error
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
            raise RunFailure(f"Codex announced a session without a usable id ({found}).")
        if self.expected and session_id != self.expected:
            raise SessionLost(
                f"Codex does not know the session {self.expected} here and was about to answer "
                "from a new one; it was stopped before that. Check session_id, or leave it out to "
                "begin a new session.")
        if self.session_id and session_id != self.session_id:
            raise RunFailure(f"Codex announced a second session, {session_id}, in the same run.")
        self.session_id = session_id

    def result(self) -> None:
        """Returns if the turn is a success.

        Raises:
            SessionBusy: the session is open elsewhere.
            SessionLost: Codex keeps nothing of the session, or does not know it.
            RunFailure: anything else, in Codex's own words where it had some.
        """
        if self.state is State.COMPLETED:
            if self.reply is None:
                raise RunFailure("Codex finished the turn without a message. Ask again, for a "
                                 "written answer.")
            if not self.session_id:
                raise RunFailure("Codex answered but did not say in which session, so it cannot be "
                                 "continued. Ask the user to update Codex (npm install -g "
                                 "@openai/codex).")
            return
        words = self.error or stderr_words(self.stderr) or self.stray
        begun = self.state is not State.WAITING
        if not begun and "already has an active writer" in self.stderr:
            raise SessionBusy("The session has an active writer")
        what = "could not finish the turn" if begun else "did not start the turn"
        advice = next(text for key, text in ADVICE if key in words.lower())
        text = f"Codex {what} ({self.ending}): {words or 'it gave no reason'}\n{advice}"
        # Of a new session whose first message it refuses, Codex keeps nothing.
        if begun or "no rollout" not in words and (self.expected or "maximum length" not in words):
            raise RunFailure(text)
        raise SessionLost(text)


# --------------------------------------------------------------------------------------------------
# command: options of a turn to an argument list
# --------------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What a turn is given. `cwd` is an absolute path; None leaves a value to Codex's settings."""

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
    raise RunFailure(f"The Codex CLI ({name}) {state}. Install it (npm install -g @openai/codex), "
                     "or set CODEX_BIN to the absolute path of the executable.")


# --------------------------------------------------------------------------------------------------
# codex process: one Codex and its whole process group, as a stream of events
# --------------------------------------------------------------------------------------------------

#: Set for Codex, so that a server that Codex or one of its commands starts knows where it stands,
#: and so that what a stopped run has left can be told from all else.
MARKER = "CODEX_PERSISTENT_MCP_ACTIVE"


class Ladder(NamedTuple):
    """How a run is stopped: signals to its group, each after so many seconds; `strays`: and what
    has left the group gets SIGTERM before the first of them.
    """

    steps: Tuple[Tuple[float, str], ...]
    strays: bool = True


#: On SIGINT Codex records the interruption in the session, on SIGTERM it does not. The commands
#: that it runs have left the group; if they end first, their sandboxes clean up behind themselves.
STOP = Ladder(((0.05, "SIGINT"), (1.0, "SIGTERM"), (2.0, "SIGKILL")))
#: The client is leaving, and has no more than half a second.
LEAVING = Ladder(((0.05, "SIGINT"), (0.25, "SIGKILL")))
#: The run must not do anything more.
REFUSED = Ladder(((0.0, "SIGKILL"),))
#: The turn has ended well, and what it left outside the group may be meant to stay.
FINISHED = Ladder(STOP.steps, strays=False)


class Run:
    """What runs one turn. Its caller iterates over `events`, once, and sets `ladder` meanwhile."""

    def __init__(self) -> None:
        #: How whatever still runs is stopped when `events` is left.
        self.ladder = STOP

    def events(self) -> Events:
        """Starts the run. Yields its events, and None at least every tenth of a second.

        When the iterator ends or is closed, nothing of the run is left.

        Raises:
            SessionBusy: the session is out of reach for a run of this kind, and nothing was sent.
            RunFailure: anything else.
        """
        raise NotImplementedError

    def timed_out(self) -> Optional[RunFailure]:
        """What a timeout in the middle of `events` means, if more than that it took too long."""
        return None


class CodexRun(Run):
    """One Codex process with all that it starts."""

    def __init__(self, command: List[str], cwd: str, prompt: bytes, watch: Optional[Watch]) -> None:
        super().__init__()
        self._command, self._cwd, self._watch = command, cwd, watch
        self._mark = (MARKER, os.urandom(8).hex())
        self._unsent = memoryview(prompt)
        #: The line that is being read, and whether it is too long to keep.
        self._line, self._cut = bytearray(), False
        #: The beginning and the end of standard error.
        self._head = self._tail = b""

    def events(self) -> Events:
        import selectors

        try:
            process = spawn(self._command, self._cwd, self._mark, self._watch)
        except (OSError, ValueError) as error:
            raise RunFailure(f"Codex ({self._command[0]}) could not be started in {self._cwd}: "
                             f"{error}. Check whether it can in a terminal.") from None
        with selectors.DefaultSelector() as selector:
            try:
                yield from self._read(process, selector)
            finally:
                self._end(process, selector)
        code, middle = process.returncode, b"\n...\n" if len(self._tail) >= MAX_STDERR else b""
        yield {"type": ENDED,
               "stderr": (self._head + middle + self._tail).decode("utf-8", "replace"),
               "ending": f"exit code {code}" if code >= 0 else f"ended by signal {-code}"}

    def _read(self, process: Any, selector: Any) -> Events:
        """Feeds the prompt and yields what comes, until all is over or Codex has had its time."""
        import subprocess
        from selectors import EVENT_READ, EVENT_WRITE

        reading = output, _ = [selectable(pipe) for pipe in (process.stdout, process.stderr)]
        for source in reading:
            selector.register(source, EVENT_READ)
        if not set_nonblocking(process.stdin):
            threading.Thread(target=self._feed, args=(process.stdin,), daemon=True).start()
        elif not self._feed(process.stdin):
            selector.register(process.stdin, EVENT_WRITE)
        #: When the process ended, and when its output did.
        gone = silent = None  # type: Optional[float]
        while True:
            yield None
            now = time.monotonic()
            if gone is None and process.poll() is not None:
                gone = now
            if gone is not None and (not reading or now > gone + DRAIN):
                break
            if silent is not None and now > silent + LEAVE:
                break
            if not reading:
                try:
                    process.wait(TICK)
                except subprocess.TimeoutExpired:
                    pass
                continue
            ready = selector.select(TICK if gone is None else TICK / 2)
            if gone is not None and not ready:
                break
            for pipe in [key.fileobj for key, _ in ready]:
                if pipe is process.stdin:
                    if self._feed(pipe):
                        selector.unregister(pipe)
                    continue
                chunk = pipe.read(1 << 16)  # what there is; b"" at the end
                if not chunk:
                    selector.unregister(pipe)
                    reading.remove(pipe)
                if pipe is not output:
                    self._keep(chunk)
                elif chunk:
                    yield from self._split(chunk)
                else:
                    silent = now
        if self._line:
            yield from self._split(b"\n")

    def _feed(self, pipe: Any) -> bool:
        """Writes what the pipe takes of the prompt; true at its end, or if Codex wants no more."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(pipe.fileno(), self._unsent[:1 << 16]):]
        except BlockingIOError:
            return False
        except OSError:
            pass  # Codex has closed its input: its events tell what became of the turn
        pipe.close()
        return True

    def _split(self, chunk: bytes) -> Events:
        """The events of the lines that `chunk` completes; of one over MAX_EVENT only its start."""
        self._line += chunk
        if b"\n" in chunk:
            *lines, self._line = self._line.split(b"\n")
            for line in lines:
                if self._cut:
                    yield {"type": TOO_LONG, "head": line[:1000].decode("utf-8", "replace")}
                else:
                    event = decode_event(line)
                    if event is not None:
                        yield event
                self._cut = False
        elif len(self._line) > MAX_EVENT:
            self._cut = True
            del self._line[4096:]

    def _keep(self, chunk: bytes) -> None:
        """Keeps the beginning and the end of standard error."""
        room = max(0, MAX_STDERR - len(self._head))
        self._head += chunk[:room]
        self._tail = (self._tail + chunk[room:])[-MAX_STDERR:]

    def _end(self, process: Any, selector: Any) -> None:
        """Climbs the ladder until Codex is gone, and sweeps. Reads on, so that Codex need not wait.

        Until the sweep the group's number cannot pass to another group: the watcher is in it.
        """
        begin, group, (steps, strays) = time.monotonic(), process.pid, self.ladder
        strays = strays and signal_strays(group, self._mark, "SIGTERM") or strays
        while process.poll() is None:
            while steps and time.monotonic() >= begin + steps[0][0]:
                signal_group(group, steps[0][1])
                steps = steps[1:]
            for key, _ in selector.select(TICK / 5) if selector.get_map() else ():
                if key.fileobj is process.stdin or not key.fileobj.read(1 << 16):
                    selector.unregister(key.fileobj)
            if not selector.get_map():
                time.sleep(TICK / 5)
        if strays:
            while signal_strays(group, self._mark, "") and time.monotonic() < begin + STRAYS:
                time.sleep(TICK / 5)
            signal_strays(group, self._mark, "SIGKILL")
        sweep(group)  # the watcher, too, so not before: this server may be gone by now
        if strays:
            signal_strays(group, self._mark, "SIGKILL")
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            pipe.close()


# --------------------------------------------------------------------------------------------------
# app-server: a turn in a session that a person has open, on Codex's own app-server
# --------------------------------------------------------------------------------------------------

#: How the app-server names the sandboxes.
LIVE_SANDBOXES = {"readOnly": "read-only", "workspaceWrite": "workspace-write"}
#: What the app-server need not send: text that comes again, whole, in `item/completed`.
UNWANTED = ["item/agentMessage/delta", "item/reasoning/textDelta",
            "item/reasoning/summaryTextDelta", "item/commandExecution/outputDelta",
            "item/fileChange/outputDelta", "turn/diff/updated"]

#: What asks the app-server: yields what comes meanwhile, and returns the result.
Asking = Generator[Optional[JsonObject], None, JsonObject]


def snake_case(name: str) -> str:
    """A name of the app-server's (`agentMessage`) as `codex exec` writes it (`agent_message`)."""
    return re.sub("([A-Z])", lambda found: "_" + found.group(1).lower(), name)


class AppServerError(Exception):
    """What went wrong between here and the app-server."""


class Refused(AppServerError):
    """The app-server's error answer to one request: that request had no effect."""


class WebSocket:
    """A client's end of a WebSocket (RFC 6455) over a Unix socket, for messages in text frames."""

    def __init__(self, path: str) -> None:
        """Connects, and asks for the upgrade. Raises OSError, AppServerError."""
        import base64
        import socket
        import stat

        if WINDOWS:
            raise AppServerError("it is not used on Windows")
        for told in (os.lstat(path), os.stat(path)):
            if told.st_uid != os.geteuid():
                raise AppServerError("its control socket belongs to another user")
        if not stat.S_ISSOCK(told.st_mode):
            raise AppServerError("its control socket is no socket")
        self._buffer, self._incoming = bytearray(), self._messages()
        self._timeout = socket.timeout  # before Python 3.10 not yet TimeoutError
        self._key = base64.b64encode(os.urandom(16))
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WITHDRAW)
        try:
            self._socket.connect(os.path.realpath(path))
            self._socket.sendall(
                b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade"
                b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + self._key + b"\r\n\r\n")
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    def send(self, message: JsonObject) -> None:
        """Sends one message. Raises OSError."""
        self._send(1, json.dumps(message).encode("ascii"))

    def receive(self, patience: float) -> Optional[JsonObject]:
        """The next message, {} for what carries none; None if none comes in `patience` seconds.

        Raises OSError, AppServerError.
        """
        end = time.monotonic() + patience
        for message in self._incoming:
            if message is not None or not self._read(end - time.monotonic()):
                return message
        raise AppServerError("it closed the connection")

    def _messages(self) -> Events:
        """The messages, {} for what carries none, None to have more read first."""
        yield from self._upgrade()
        yield {}
        parts, fragmented = b"", False
        while True:
            first, length = yield from self._take(2)
            kind, final = first & 0x0F, first >= 0x80
            odd = first & 0x70 or length > 127  # reserved bits, a mask
            if length in (126, 127):
                length = int.from_bytes((yield from self._take(2 if length == 126 else 8)), "big")
            expected = kind in (0 if fragmented else 1, 8, 9, 10)
            if odd or len(parts) + length > MAX_EVENT or not expected:
                raise AppServerError("it sent a frame that makes no sense, or is too large")
            data = yield from self._take(length)
            if kind == 8:
                raise AppServerError("it closed the connection")
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
                raise AppServerError("it sent what is no message")
            parts = b""
            yield message

    def _upgrade(self) -> Generator[None, None, None]:
        import base64
        import hashlib

        while b"\r\n\r\n" not in self._buffer and len(self._buffer) < 1 << 16:
            yield None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        proof = hashlib.sha1(self._key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        if not head.startswith(b"HTTP/1.1 101") or base64.b64encode(proof) not in head:
            raise AppServerError("its control socket does not answer as a WebSocket")

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
            raise AppServerError("it closed the connection")
        self._buffer += chunk
        return True

    def _send(self, kind: int, data: bytes) -> None:
        size = len(data)
        length = bytes([0x80 | size]) if size < 126 else (
            b"\xfe" + size.to_bytes(2, "big") if size < 1 << 16 else
            b"\xff" + size.to_bytes(8, "big"))
        self._socket.settimeout(WITHDRAW)
        # Masked with zeros: a mask protects proxies, and on a Unix socket there are none.
        self._socket.sendall(bytes([0x80 | kind]) + length + bytes(4) + data)


class AppServer:
    """A client of Codex's app-server. Heirs connect it, and interpret messages in `received`."""

    def __init__(self) -> None:
        #: The connection, while there is one; and seconds for one answer.
        self.transport: Any = None
        self.patience = ANSWER
        self._last_id = 0

    def received(self, message: JsonObject) -> Events:
        """The events that a message stands for."""
        return iter(())

    def receive(self) -> Events:
        """The events of what comes within TICK, one None first. Raises OSError, AppServerError."""
        yield None
        yield from self.received(self.transport.receive(TICK) or {})

    def ask(self, method: str, **params: Any) -> Asking:
        """Yields the events that come until the answer, and returns its result.

        Raises OSError, AppServerError, Refused.
        """
        self._last_id += 1
        self.transport.send({"id": self._last_id, "method": method, "params": params})
        end, answer = time.monotonic() + self.patience, {}  # type: float, JsonObject
        while answer.get("id") != self._last_id or "method" in answer:
            if time.monotonic() > end:
                raise AppServerError(f"it did not answer {method}")
            yield None
            answer = self.transport.receive(TICK) or {}
            yield from self.received(answer)
        if "error" in answer:
            raise Refused(f"{method}: {one_line(text_in(answer, 'error', 'message'), 200)}")
        if not isinstance(answer.get("result"), dict):
            raise AppServerError(f"its answer to {method} makes no sense")
        return answer["result"]

    def greet(self) -> Events:
        """Begins to talk."""
        yield from self.ask(
            "initialize", clientInfo={"name": NAME, "title": NAME, "version": VERSION},
            capabilities={"experimentalApi": True, "optOutNotificationMethods": UNWANTED})
        self.transport.send({"method": "initialized"})


def finish(asking: Asking) -> JsonObject:
    """Lets an `ask` run to its end, where nobody needs the events. Raises what it raises."""
    while True:
        try:
            next(asking)
        except StopIteration as end:
            return end.value


class Sent(enum.Enum):
    """What is known of a message that another process is to take. What a failure says follows."""

    NOTHING = "Nothing was sent"
    OFFERED = "It is not known whether Codex took the message"
    TAKEN = "Codex had taken the message and may still be working on it"
    WITHDRAWN = "The message was taken back, or its turn interrupted"
    OVER = "Its turn has ended"


class LiveRun(AppServer, Run):
    """One turn on the app-server that has the session open.

    The message goes through the app-server's queue, since `turn/start` would steer a turn that the
    person has just begun. It is known by an id of ours: only the turn that took it counts.
    """

    def __init__(self, codex_home: str, options: Options, prompt: str) -> None:
        AppServer.__init__(self)
        Run.__init__(self)
        self._path = os.path.join(codex_home, "app-server-control", "app-server-control.sock")
        self._options, self._session = options, options.session_id or ""
        self._prompt, self._message_id = prompt, os.urandom(16).hex()
        self._sent = Sent.NOTHING
        #: Whether a turn runs in the session, whosever it is.
        self._active = False
        #: The ids of our message in the queue, of the turn that took it, and of its processes.
        self._queued = self._turn_id = ""
        self._commands: Dict[str, str] = {}
        #: Warnings for the answer, if the turn comes to run there.
        self._notes: List[str] = []
        self._usage: Optional[JsonObject] = None

    def events(self) -> Events:
        try:
            self.transport = WebSocket(self._path)
            try:
                yield from self._join()
                yield {"type": "thread.started", "thread_id": self._session}
                yield from self._submit()
                while self._sent is not Sent.OVER:
                    yield from self.receive()
            finally:
                self._withdraw()
                self.transport.close()
        except FileNotFoundError:
            raise self._failure("it has no control socket here") from None
        except (OSError, AppServerError) as error:
            raise self._failure(str(error)) from None
        yield {"type": ENDED, "stderr": "", "ending": "in the session that is open elsewhere"}

    def timed_out(self) -> Optional[RunFailure]:
        if self._sent is Sent.NOTHING and self._active:
            return SessionBusy("A turn of the user's ran there to the end")
        silent = self._sent in (Sent.NOTHING, Sent.OFFERED)
        return self._failure("it was silent to the end") if silent else None

    def _failure(self, why: str) -> RunFailure:
        if self._sent is Sent.NOTHING:
            return SessionBusy("Codex's app-server could not be used: " + why)
        return RunFailure(
            "The session is open elsewhere, and Codex's app-server could not be used to the end: "
            f"{why}. {self._sent.value}: look at the session before you repeat the message.")

    def _join(self) -> Events:
        """Begins to talk to the app-server, and waits until no other turn runs."""
        yield from self.greet()
        # Asked first, since the app-server would open a session that nobody has open there.
        loaded = (yield from self.ask("thread/loaded/list")).get("data")
        if not isinstance(loaded, list) or self._session not in loaded:
            raise AppServerError("it does not have this session open")
        while True:  # asked again after each wait, in which the person may have changed settings
            # Any further member would change the person's own settings.
            session = yield from self.ask(
                "thread/resume", threadId=self._session, excludeTurns=True)
            if text_in(session, "thread", "id") != self._session:
                raise AppServerError("it answered for another session")
            self._compare(session)
            self._active = text_in(session, "thread", "status", "type") == "active"
            if not self._active:
                return
            yield say("Waiting for the turn that runs in the open window of session "
                      + self._session)
            while self._active:
                yield from self.receive()

    def _compare(self, session: JsonObject) -> None:
        """Notes what the call cannot have there. Raises RunFailure if it would get more rights."""
        options, sandbox = self._options, self._sandbox(text_in(session, "sandbox", "type"))
        self._notes = ["This turn ran in the session that is open elsewhere, most likely in a "
                       "`codex resume` window, with that session's own settings."]
        for name, wanted, found in (
                ("sandbox", options.sandbox, sandbox),
                ("cwd", options.cwd, session.get("cwd")),
                ("model", options.model, session.get("model")),
                ("reasoning_effort", options.effort, session.get("reasoningEffort"))):
            if wanted and wanted != found:
                self._notes.append(
                    f"There, {name} is {found or 'the configured one'} and not {wanted}.")

    def _sandbox(self, kind: str) -> str:
        """The session's sandbox. Raises RunFailure if it allows more than the call may have."""
        sandbox = LIVE_SANDBOXES.get(kind, SANDBOXES[-1])
        allowed = self._options.sandbox or SANDBOXES[-1]
        if SANDBOXES.index(allowed) < SANDBOXES.index(sandbox):
            raise RunFailure(
                "Nothing was sent to Codex: the session is open elsewhere, most likely in a `codex "
                f"resume` window, with the sandbox {sandbox}, but this call must run with no more "
                f"than {allowed}. Ask the user to close it and call again in a minute, or leave "
                "session_id out to begin a new session.")
        return sandbox

    def _submit(self) -> Events:
        """Hands the message over, and waits until its turn begins."""
        self._sent = Sent.OFFERED
        try:
            yield from self.ask(
                "thread/queue/add", threadId=self._session, clientUserMessageId=self._message_id,
                input=[{"type": "text", "text": self._prompt}])
        except Refused as refused:
            self._sent = Sent.NOTHING
            if "maximum length" in str(refused):
                raise RunFailure(
                    f"Codex did not take the message: {refused}\n{SHORTER}") from None
            raise
        while self._sent is Sent.OFFERED:
            try:
                # After an interrupted turn the queue stands still until it is started.
                if not self._active:
                    yield from self.ask("thread/queue/start", threadId=self._session,
                                        queuedSubmissionId=self._queued)
            except Refused:
                pass  # it has started by itself, or another turn runs first
            if self._sent is Sent.OFFERED:
                yield say("Waiting for its turn in the open window of session " + self._session)
                yield from self.receive()

    def _withdraw(self) -> None:
        """Takes the message back, or stops its turn with the commands that it runs, in WITHDRAW."""
        end, session = time.monotonic() + WITHDRAW, {"threadId": self._session}
        self.patience = WITHDRAW
        try:
            while self._sent in (Sent.OFFERED, Sent.TAKEN) and time.monotonic() < end:
                try:
                    if self._sent is Sent.TAKEN:
                        finish(self.ask("turn/interrupt", turnId=self._turn_id, **session))
                        self._sent = Sent.WITHDRAWN
                    elif self._queued and finish(self.ask(
                            "thread/queue/delete", queuedSubmissionId=self._queued,
                            **session)).get("deleted") is True:
                        self._sent = Sent.WITHDRAWN
                except Refused:
                    pass  # in its first moments a turn cannot be interrupted, and would then run on
                if self._sent is not Sent.WITHDRAWN:
                    list(self.receive())
            if self._turn_id and self._sent is not Sent.OVER:
                for process in self._commands.values():
                    finish(self.ask("thread/backgroundTerminals/terminate", processId=process,
                                    **session))
        except (OSError, AppServerError, RunFailure) as error:
            log(f"a turn in session {self._session} may not have been stopped: {error}")

    def received(self, message: JsonObject) -> Events:
        method, params = text_in(message, "method"), object_in(message, "params")
        self._queued = text_in(message, "result", "queuedSubmission", "id") or self._queued
        if not method or text_in(params, "threadId") != self._session:
            return
        if "id" in message:  # a request, never answered from here: to approve is the person's right
            yield say("Codex asks for approval, which only the user can give, in codex resume "
                      f"{self._session}: {text_in(params, 'command') or method}")
        elif method == "thread/status/changed":
            self._active = text_in(params, "status", "type") == "active"
        elif method == "warning" and self._sent is not Sent.NOTHING:
            yield warning(text_in(params, "message"))
        elif method == "thread/settings/updated" and self._sent in (Sent.NOTHING, Sent.OFFERED):
            self._sandbox(text_in(params, "threadSettings", "sandboxPolicy", "type"))
        if (method == "item/started" and self._sent is Sent.OFFERED
                and text_in(params, "item", "clientId") == self._message_id):
            self._sent, self._turn_id = Sent.TAKEN, text_in(params, "turnId")
            yield from map(warning, self._notes)
            yield {"type": "turn.started"}
        turn_id = text_in(params, "turnId") or text_in(params, "turn", "id")
        if self._sent is Sent.TAKEN and turn_id == self._turn_id:
            yield from self._of_our_turn(method, params)

    def _of_our_turn(self, method: str, params: JsonObject) -> Events:
        item, turn = object_in(params, "item"), object_in(params, "turn")
        if method in ("item/started", "item/completed"):
            if method == "item/completed":
                self._commands.pop(text_in(item, "id"), None)
            elif text_in(item, "processId"):
                self._commands[text_in(item, "id")] = text_in(item, "processId")
            summary, kind = item.get("summary"), snake_case(text_in(item, "type"))
            text = "\n".join(map(str, summary)) if isinstance(summary, list) else item.get("text")
            yield {"type": method.replace("/", "."), "item": dict(item, type=kind, text=text)}
        elif method == "turn/plan/updated":
            steps = [{"text": text_in(step, "step"), "completed": step.get("status") == "completed"}
                     for step in objects_in(params, "plan")]
            yield {"type": "item.updated", "item": {"type": "todo_list", "items": steps}}
        elif method == "thread/tokenUsage/updated":
            total = object_in(params, "tokenUsage", "total")
            total.pop("totalTokens", None)
            self._usage = {snake_case(name): count for name, count in total.items()}
        elif method == "error":
            yield {"type": "error", "message": text_in(params, "error", "message")}
        elif method == "turn/completed":
            self._sent, status = Sent.OVER, text_in(turn, "status")
            if status == "completed":
                yield {"type": "turn.completed", "usage": self._usage}
            else:
                words = text_in(turn, "error", "message") or f"the turn was {status} there"
                yield {"type": "turn.failed", "error": {"message": words}}


# --------------------------------------------------------------------------------------------------
# codex: which of the two runs a turn
# --------------------------------------------------------------------------------------------------


class Codex:
    """The Codex CLI of this machine. Any worker may call `runs`."""

    def __init__(self, settings: Settings, locks_fd: Callable[[], int]) -> None:
        """`locks_fd` gives the descriptor of the locks that are to last as long as a run."""
        self._name, self._home = settings.codex, settings.codex_home
        self._pipe, self._locks_fd = watch_pipe(), locks_fd

    def runs(self, options: Options, prompt: str) -> List[Run]:
        """The ways to run a turn, each for when the one before raises SessionBusy.

        Raises RunFailure.
        """
        codex = find_codex(self._name)
        special = r'[&|<>^%!"\r\n]'
        if codex.lower().endswith((".cmd", ".bat")) and re.search(special, options.cwd):
            raise RunFailure(
                f"The directory {options.cwd} has characters that Windows command files take as "
                "their own; use another one, or set CODEX_BIN to codex.exe.")
        watch = None if self._pipe is None else Watch(self._pipe, self._locks_fd())
        runs: List[Run] = [CodexRun([codex] + exec_arguments(options), options.cwd,
                                    prompt.encode("utf-8"), watch)]
        if options.session_id:
            runs.append(LiveRun(self._home, options, prompt))
        return runs


# --------------------------------------------------------------------------------------------------
# sessions: who may use a session now
# --------------------------------------------------------------------------------------------------


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
            call.progress.say(reason)
            call.pause(PROGRESS_SILENCE)

    def leave(self, key: str, call: Control) -> None:
        """Gives the place back, if `call` has one, and wakes those who are served now."""
        with self._lock:
            line = self._lines.get(key, [])
            if call in line:
                line.remove(call)
            for other in line[:self._capacity]:
                other.deadline.wake()
            if not line:
                self._lines.pop(key, None)


class MachineLocks:
    """Locks on sessions among this user's servers on this machine.

    They are locks on single bytes of one file in the Codex home, so they leave nothing that grows.
    They vanish with their holder; on Linux with its watchers, so that another server gets the
    session of a killed one when its Codex is gone. Each session has two, one for its use and one
    for being the next to use it, so that two servers with many calls take turns. Within a process,
    Lines see to it that nobody asks twice.
    """

    def __init__(self, codex_home: str) -> None:
        self._path = os.path.join(codex_home, NAME + ".lock")
        # A number below 10, as a Watch needs; kept by something else until the file is opened.
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
                    control.progress.say(
                        f"Waiting for session {session_id}, which another server on this machine "
                        "is using")
                    control.pause(0.05)
        finally:
            # If it was not taken, this does no harm: unlocking concerns only this process.
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
                log(f"{self._path} cannot be used as a lock ({error.strerror}): this server goes "
                    "on, but does not see whether another one here uses the same session")
                return True


class Place:
    """One call's place in a session: joined by the reader, waited for and given back by the worker.

    The place of a call that begins a session is in none until Codex has announced it.
    """

    def __init__(self, lines: Lines, locks: MachineLocks, session_id: Optional[str],
                 control: Control) -> None:
        self._lines, self._locks, self._control = lines, locks, control
        self._session_id = session_id
        self._locked = False
        if session_id:
            lines.join(session_id, control)

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: Any) -> None:
        self.leave()

    def wait(self) -> None:
        """Waits until the call may use its session, if it names one. Raises Stopped."""
        if self._session_id:
            self._lines.wait(self._session_id, self._control,
                             f"Waiting for an earlier call on session {self._session_id}")
            self._locks.acquire(self._session_id, self._control)
            self._locked = True

    def take(self, session_id: str) -> None:
        """Takes a session that has just begun, so that the next call on it waits."""
        if session_id != self._session_id:
            self.leave()
            self._session_id = session_id
            self._lines.join(session_id, self._control)
            self._locked = self._locks.try_acquire(session_id)

    def leave(self) -> None:
        """Gives the place back."""
        if self._session_id:
            if self._locked:
                self._locks.release(self._session_id)
            self._lines.leave(self._session_id, self._control)
            self._session_id, self._locked = None, False


def session_directory(codex_home: str, session_id: str) -> Optional[str]:
    """The directory in which a session was started, if Codex's session file tells it."""
    import glob  # needed only for the first call on a session of an earlier server

    name = f"rollout-*-{session_id}.jsonl"
    try:
        path = glob.glob(
            os.path.join(glob.escape(codex_home), "sessions", "*", "*", "*", name))[0]
        with open(path, "rb") as file:
            first = load_json(file.readline(8 << 20).decode("utf-8"))
            return text_in(first, "payload", "cwd") or None
    except (OSError, IndexError, ValueError):
        return None


# --------------------------------------------------------------------------------------------------
# prompts: the attribution line and the text of each tool
# --------------------------------------------------------------------------------------------------

#: Codex's session picker shows 96 characters of a first message on 120 columns. An attribution of
#: at most 55 leaves 40 to tell sessions apart, so it gives way where its parts are long.
ATTRIBUTION_LENGTH = 55


def attribution(client: str, tool: str, origin: str) -> str:
    """The line that tells Codex, and a person in the picker, which agent sent a message and how."""
    client, origin = one_line(client, 200) or "of unknown name", one_line(origin, 200) or NAME
    layout = "AI agent %s MCP %s/%s:"
    if len(layout % (client, origin, tool)) > ATTRIBUTION_LENGTH:
        tool = tool[len("codex_"):]
    over = max(0, len(layout % (client, origin, tool)) - ATTRIBUTION_LENGTH)
    origin = one_line(origin, max(8, len(origin) - over))
    over = max(0, len(layout % (client, origin, tool)) - ATTRIBUTION_LENGTH)
    return layout % (one_line(client, max(8, len(client) - over)), origin, tool)


REVIEWER = """\
You are a strict, independent reviewer for the AI agent that sent this. Your reader is that agent, \
not a person: be direct and specific, without praise.
- Look at the repository in the working directory yourself. Do not trust the summary: check its \
claims against the files, the history and, where that is possible without writing, the tests.
- Edit nothing, create nothing, commit nothing. Only review.
- First line: the verdict, %s, with the one reason that decides.
- Then list what blocks (it must change first), separately from what is only advice. Leave out a \
list that is empty.
- Name what is missing, risky, unclear or untested, each with file and line where you can, and say \
what would settle it.
- Write in the language of the request above."""


# --------------------------------------------------------------------------------------------------
# tools: schemas, checked arguments, a turn to a tool result
# --------------------------------------------------------------------------------------------------


class Tool(NamedTuple):
    """One tool. `texts` are its own arguments in the order of the prompt (name, description,
    whether it is required, heading in the prompt), `output` its text in answers. One with a `task`
    reviews.
    """

    name: str
    title: str
    description: str
    texts: Tuple[Tuple[str, str, bool, str], ...]
    output: Tuple[str, str]
    task: str = ""

    def prompt(self, arguments: JsonObject) -> str:
        """The request first, where the picker shows it, then the parts that are not empty."""
        if not self.task:
            return arguments["prompt"]
        parts = [(heading, arguments.get(name, "").strip()) for name, _, _, heading in self.texts]
        parts.append(("Your task", self.task))
        return "\n\n".join(
            f"# {heading}\n{text}" if heading else text for heading, text in parts if text)


CARRY_ON = (
    " The answer has session_id: pass it to the next call of any codex tool to continue the same "
    "conversation, or leave it out to begin a new one. Give resume_command to the user, who can "
    "open the same conversation in a terminal with it. A turn can take minutes.")

TOOLS = (
    Tool("codex_chat", "Ask Codex",
         "Send a message to OpenAI's Codex, a second coding agent that can read the repository and "
         "run commands there, and get its reply: a second opinion, an investigation, a discussion, "
         "or work on files if the sandbox allows it. To have a plan or a finished change reviewed, "
         "use codex_guard_plan or codex_guard_final instead." + CARRY_ON,
         (("prompt", "The message to Codex, with everything that it needs to know and cannot read "
           "in the working directory.", True, ""),),
         ("reply", "Codex's reply.")),
    Tool("codex_guard_plan", "Have Codex criticise a plan",
         "Before you start work that is not trivial: Codex checks the plan against the repository "
         "as a strict, independent reviewer and says whether to go on, what blocks, and what is "
         "missing, risky or unclear. It edits nothing." + CARRY_ON,
         (("requirements", "What is to be achieved, as the user asked for it.", True, ""),
          ("plan", "The plan: steps, files, decisions, how it will be tested.", True,
           "The plan to criticise, before any work starts"),
          ("constraints", "What must hold or must not be touched.", False, "Constraints")),
         ("critique", "Codex's criticism; its first line says whether to go on."),
         REVIEWER % '"GO", "GO WITH CHANGES" or "STOP", so that the agent knows whether to start'),
    Tool("codex_guard_final", "Have Codex review a change",
         "Before you tell the user that work is done: Codex reviews the change in the repository "
         "as a strict, independent reviewer and says whether it is done, what blocks, and what is "
         "missing, risky or untested. It edits nothing. Pass the session_id of the plan's review, "
         "so that it knows the plan." + CARRY_ON,
         (("change_summary", "What was changed and why, with the files.", True, ""),
          ("test_results", "Which checks were run and what they printed.", False,
           "Test results, as the agent reports them"),
          ("open_questions", "What you are not sure of.", False, "Open questions")),
         ("review", "Codex's review; its first line says whether the change is done."),
         "Review this change before it is called done. " + REVIEWER % (
             '"DONE", "DONE WITH REMARKS" or "NOT DONE", so that the agent knows whether it may '
             "say that the work is done")),
)

INSTRUCTIONS = """\
A second opinion from OpenAI's Codex CLI, in real sessions that the user can open in a terminal.
1. Before work that is not trivial, call codex_guard_plan with requirements and plan; fix what \
blocks.
2. Before you say that it is done, call codex_guard_final with the same session_id; fix what blocks.
3. For anything else, call codex_chat.
Keep the session_id of an answer and pass it to the next call on the same matter. Show the user \
the resume_command: it continues that conversation in a terminal, and you can go on in it \
afterwards."""


#: Arguments of all tools: name, pattern, description, which begins with what is right. The patterns
#: are not published: models that must fill in every argument could not leave one out with "".
COMMON_ARGUMENTS = (
    ("session_id", UUID, "The UUID of the session to continue, from an earlier answer. "
     "Without it a new one begins."),
    ("cwd", r"(?s)(/|[A-Za-z]:[\\/]|\\\\).*", "The absolute path of an existing directory for Codex "
     "to work in. Without it: the session's own, or for a new session the server's."),
    ("model", "[A-Za-z0-9][A-Za-z0-9._:/@+~=-]{0,199}", "The name of a model, for this call "
     "alone. Without it the user's Codex configuration applies."),
    ("reasoning_effort", "[a-z][a-z0-9_-]{0,31}", "A reasoning effort that the model knows, such "
     "as low, medium, high or xhigh, for this call alone. Without it the user's Codex "
     "configuration applies."),
)


PATTERNS = {name: pattern for name, pattern, _ in COMMON_ARGUMENTS}


def turn_sandbox(tool: Tool, asked: Optional[str], settings: Settings) -> Optional[str]:
    """The sandbox to ask Codex for. Reviews are read-only, unless the operator set none at all."""
    if tool.task:
        return settings.sandbox if settings.sandbox == "danger-full-access" else "read-only"
    return asked or settings.sandbox


def input_schema(tool: Tool, settings: Settings) -> JsonObject:
    """The JSON Schema (2020-12) of a tool's arguments. Descriptions begin with what is right.

    It has only what all converters take: google-genai fails on `additionalProperties`.
    """
    properties: JsonObject = {}
    for name, text, required, _ in tool.texts:
        properties[name] = {"type": "string", "description": text}
    if not tool.task:
        allowed = SANDBOXES[:SANDBOXES.index(settings.sandbox or "workspace-write") + 1]
        default = settings.sandbox or (
            "as the user's Codex configuration says, read-only if it says nothing")
        properties["sandbox"] = {
            "type": "string", "enum": list(allowed),
            "description": f"What Codex may do with files in this turn. Without it: {default}."}
    for name, _, description in COMMON_ARGUMENTS:
        properties[name] = {"type": "string", "description": description}
    properties["timeout_ms"] = {
        "type": "integer", "minimum": MIN_TIMEOUT_MS, "maximum": MAX_TIMEOUT_MS,
        "description": f"Whole milliseconds from {MIN_TIMEOUT_MS} to {MAX_TIMEOUT_MS} until the "
                       "call gives up, the wait for the session included. Without it: "
                       f"{settings.timeout_ms}."}
    return {"type": "object", "properties": properties,
            "required": [name for name, _, required, _ in tool.texts if required]}


def output_schema(tool: Tool) -> JsonObject:
    """The JSON Schema (2020-12) of a successful answer's `structuredContent`."""
    name, text = tool.output
    return {"type": "object", "required": ["session_id", "resume_command", name], "properties": {
        "session_id": {"type": "string",
                       "description": "The session; pass it to the next call on it."},
        "resume_command": {"type": "string",
                           "description": "Opens the session in a terminal; for the user."},
        name: {"type": "string", "description": text},
        "warnings": {"type": "array", "items": {"type": "string"},
                     "description": "What Codex warned of, or could not do."},
        "usage": {"type": "object",
                  "description": "Tokens as Codex reported them, cumulative over the session; with "
                                 "old versions those of the turn."}}}


def describe_tools(settings: Settings) -> List[JsonObject]:
    """The tools as `tools/list` tells them."""
    described = []
    for tool in TOOLS:
        writes = turn_sandbox(tool, None, settings) != "read-only"
        described.append({
            "name": tool.name, "title": tool.title, "description": tool.description,
            "inputSchema": input_schema(tool, settings), "outputSchema": output_schema(tool),
            "annotations": {"title": tool.title, "readOnlyHint": not writes,
                            "destructiveHint": writes, "idempotentHint": False,
                            "openWorldHint": True},
            # Claude Code hands on answers up to this size, and finds the tool by these words.
            "_meta": {"anthropic/maxResultSizeChars": 500_000,
                      "anthropic/searchHint": "second opinion from Codex: " + tool.title}})
    return described


def given(schema: JsonObject, arguments: JsonObject) -> JsonObject:
    """The arguments that are given, each as its rule has it.

    Models and clients that cannot leave an optional one out send null or an empty text for it.
    """
    found: JsonObject = {}
    for name, value in arguments.items():
        rule = schema["properties"].get(name, {})
        if isinstance(value, str) and name not in schema["required"]:
            text = value.strip()
            if rule.get("type") == "integer" and re.fullmatch(r"[0-9]{1,9}(\.0*)?", text):
                value = float(text)
            elif name in PATTERNS or "enum" in rule:
                value = text.lower() if "enum" in rule else text
            elif not text:
                value = None
        if isinstance(value, float) and rule.get("type") == "integer" and value.is_integer():
            value = int(value)
        if value not in (None, "") or name in schema["required"] or not rule:
            found[name] = value
    return found


def check_arguments(schema: JsonObject, arguments: JsonObject) -> None:
    """Checks arguments by a tool's input schema. Raises RunFailure: what is wrong and right."""
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
            good = type(value) is int and rule["minimum"] <= value <= rule["maximum"]
        else:
            good = isinstance(value, str) and value.strip() and value in rule.get("enum", [value])
        if good and name in PATTERNS:
            good = re.fullmatch(PATTERNS[name], str(value))
        if not good:
            kind = "an integer" if rule["type"] == "integer" else "a non-empty string"
            right = "one of " + ", ".join(rule["enum"]) if "enum" in rule else rule["description"]
            problems.append(f'argument "{name}" is {quoted(value)}, but takes {kind}: {right}')
            if name == "sandbox" and value in SANDBOXES:
                problems.append(
                    "only this server's operator can allow more than that (CODEX_MCP_SANDBOX)")
    if problems:
        raise RunFailure("Nothing was sent to Codex: " + "; ".join(problems[:10]))


def success(tool: Tool, turn: Turn) -> JsonObject:
    """The result of a turn that went well: structured, and as one text, each complete.

    The text begins with what must not be lost: some clients show only the first block, glue blocks
    together, or cut the end off.
    """
    session_id, reply = turn.session_id or "", turn.reply or ""
    command = f"codex resume {session_id}"
    structured: JsonObject = {
        "session_id": session_id, "resume_command": command, tool.output[0]: reply}
    if turn.warnings:
        structured["warnings"] = turn.warnings
    if turn.usage is not None:
        structured["usage"] = turn.usage
    parts = [f"session_id: {session_id} | resume_command: {command}", reply]
    parts += ["\n".join("warning: " + text for text in turn.warnings)] if turn.warnings else []
    return {"content": [{"type": "text", "text": "\n\n".join(parts)}],
            "structuredContent": structured}


def failure(text: str, reply: Optional[str] = None, session_id: Optional[str] = None) -> JsonObject:
    """The result of a call that failed: text alone, with the session if it can be continued."""
    parts = [text]
    if reply:
        parts.append("The last that Codex said in this turn:\n" + reply)
    if session_id:
        parts.append(f"session_id: {session_id}\nresume_command: codex resume {session_id}")
    return {"content": [{"type": "text", "text": "\n\n".join(parts)}], "isError": True}


class Call:
    """One checked call, with its place in its session."""

    def __init__(self, tool: Tool, arguments: JsonObject, prompt: str, timeout_s: float,
                 control: Control, place: Place) -> None:
        self.tool, self.arguments, self.prompt = tool, arguments, prompt
        self.timeout_s, self.control, self.place = timeout_s, control, place
        self.session_id = arguments.get("session_id", "").lower() or None
        #: The turn of the latest attempt.
        self.turn = Turn(self.session_id)

    def failure(self, error: RunFailure) -> JsonObject:
        """The result, if the call ends with `error`."""
        session_id = None if isinstance(error, SessionLost) else (
            self.turn.session_id or self.session_id)
        return failure(str(error), self.turn.reply, session_id)


class ToolRunner:
    """Turns tool calls into turns of Codex. `accept` is for the reader, `perform` for workers.

    The lock of `_changed` guards `_calls`, `_closed` and `_directories`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._locks = MachineLocks(settings.codex_home)
        self._codex = Codex(settings, self._locks.fd)
        self._sessions, self._processes = Lines(1), Lines(settings.max_parallel)
        self._changed = threading.Condition()
        self._calls = 0
        self._closed = False
        self._directories: Dict[str, str] = {}
        self._nested: Optional[bool] = None

    def accept(self, tool: Tool, arguments: JsonObject, client: str,
               send: Optional[Callable[[str], None]]) -> Call:
        """Checks a call and takes its place, until `perform` or `abandon`. Raises RunFailure."""
        if self._settings.problems:
            raise RunFailure(
                f"This server is misconfigured: {'; '.join(self._settings.problems)}. The operator "
                "sets this in the environment of the server.")
        schema = input_schema(tool, self._settings)
        arguments = given(schema, arguments)
        check_arguments(schema, arguments)
        if self._nested is None:
            self._nested = inside(MARKER)
        if self._nested:
            raise RunFailure(
                f"You are the Codex that {NAME} itself started: a call from here would start "
                "another Codex, and so on without end. Answer with what you can do yourself.")
        timeout_s = arguments.get("timeout_ms", self._settings.timeout_ms) / 1000
        first = attribution(client, tool.name, self._settings.origin)
        prompt = first + "\n" + well_formed(tool.prompt(arguments))
        control = Control(Deadline(timeout_s), Progress(send))
        with self._changed:
            if self._calls >= MAX_CALLS:
                raise RunFailure(f"This server already has {MAX_CALLS} calls waiting or running. "
                                 "Wait for answers before you send more.")
            self._calls += 1
        session_id = arguments.get("session_id", "").lower() or None
        place = Place(self._sessions, self._locks, session_id, control)
        return Call(tool, arguments, prompt, timeout_s, control, place)

    def perform(self, call: Call) -> Tuple[JsonObject, str, Optional[str]]:
        """Runs a call to its end: the tool result, a word for the log, the session if known."""
        try:
            call.place.wait()
            self._run(call, self._options(call))
            result, ending = success(call.tool, call.turn), "ok"
        except RunFailure as error:
            result, ending = call.failure(error), "failed"
        except Stopped as stop:
            then = ("Codex had not begun. Call again later, or with a larger timeout_ms."
                    if call.turn.state is State.WAITING else
                    "Codex was stopped; what it did so far stays in the session. Call again with "
                    "this session_id to go on, with a larger timeout_ms.")
            seen = one_line(call.control.progress.latest, 200)
            result = call.failure(RunFailure(
                f"No answer within {call.timeout_s:g} s (timeout_ms). The last that was seen: "
                f"{seen}. {then}"))
            ending = stop.reason.value
        finally:
            self.abandon(call)
        return result, ending, call.turn.session_id or call.session_id

    def abandon(self, call: Call) -> None:
        """Gives back all places of a call."""
        call.place.leave()
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    def close(self, patience: float) -> None:
        """Lets no further run start, and waits up to `patience` seconds for the calls to end."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._calls == 0, patience)

    def _run(self, call: Call, options: Options) -> None:
        """The turn itself, tried again while its session is open elsewhere.

        Raises RunFailure, Stopped.
        """
        pause, why, control = 0.5, "", call.control
        try:
            while True:
                self._processes.join("", control)
                try:
                    self._processes.wait("", control, "Waiting: as many Codex processes are "
                                                      "running as CODEX_MCP_MAX_PARALLEL allows")
                    for run in self._codex.runs(options, call.prompt):
                        try:
                            return self._drive(run, call)
                        except SessionBusy as busy:
                            why = str(busy)
                finally:
                    self._processes.leave("", control)
                control.progress.say(
                    f"Waiting for session {call.session_id}, which is open elsewhere")
                control.pause(pause)
                pause = min(pause * 2, 15.0)
        except Stopped as stop:
            begun = call.turn.state is not State.WAITING
            if not why or begun or stop.reason is not Reason.TIMEOUT:
                raise
        raise RunFailure(
            "The session is open elsewhere, most likely in a `codex resume` window, and was not "
            f"free within {call.timeout_s:g} s (timeout_ms). Nothing was sent. {why}. Call again, "
            "with a larger timeout_ms; or ask the user to close it, and call again a minute later; "
            "or begin a new session by leaving session_id out.")

    def _drive(self, run: Run, call: Call) -> None:
        """One attempt: folds a run into a turn of its own; returns if that is a success.

        Raises SessionBusy, RunFailure, Stopped.
        """
        call.turn = turn = Turn(call.session_id)
        progress, over = call.control.progress, None  # type: Progress, Optional[float]
        progress.say("Starting Codex")
        events: Any = run.events()
        try:
            if self._closed:
                raise Stopped(Reason.SHUTDOWN)
            for event in events:
                if event is not None:
                    text, known = turn.fold(event), turn.session_id
                    if event["type"] == "thread.started" and known:
                        self._opened(known, call)
                    if text:
                        progress.say(text)
                    done = turn.state is State.COMPLETED
                    run.ladder = FINISHED if done else STOP
                elif turn.state in (State.WAITING, State.RUNNING):
                    over = None
                    call.control.check()
                elif over is None:
                    over = time.monotonic()
                elif time.monotonic() > over + LEAVE:
                    break
        except RunFailure:
            run.ladder = REFUSED
            raise
        except Stopped as stop:
            run.ladder = LEAVING if stop.reason is Reason.SHUTDOWN else STOP
            events.close()
            late = run.timed_out() if stop.reason is Reason.TIMEOUT else None
            raise late or stop from None
        finally:
            events.close()
        turn.result()

    def _opened(self, session_id: str, call: Call) -> None:
        """Takes note of the session that Codex has announced."""
        if call.session_id is None:
            with self._changed:
                if len(self._directories) >= 1000:  # Codex's session files tell those forgotten
                    self._directories.clear()
                self._directories[session_id] = call.arguments.get("cwd") or self._settings.cwd
            call.place.take(session_id)
        call.control.progress.say(
            f"Codex is working in session {session_id} (codex resume {session_id})", at_once=True)

    def _options(self, call: Call) -> Options:
        arguments, session_id = call.arguments, call.session_id
        where, cwd = "cwd", arguments.get("cwd")
        if cwd is None and session_id:
            where = "the directory in which this session was started"
            with self._changed:
                cwd = self._directories.get(session_id)
            cwd = cwd or session_directory(self._settings.codex_home, session_id)
        if cwd is None:
            where, cwd = "the working directory of this server", self._settings.cwd
        if not os.path.isabs(cwd) or not os.path.isdir(cwd):
            raise RunFailure(f"Nothing was sent to Codex: {where} is {quoted(cwd)}, which is not "
                             "an existing directory. Give another one as cwd.")
        return Options(cwd, session_id, arguments.get("model"), arguments.get("reasoning_effort"),
                       turn_sandbox(call.tool, arguments.get("sandbox"), self._settings))


# --------------------------------------------------------------------------------------------------
# server: both protocol eras, requests in flight, cancellation, progress, shutdown
# --------------------------------------------------------------------------------------------------

META = "io.modelcontextprotocol/"
SERVER_INFO = {"name": NAME, "title": "Codex, in persistent sessions", "version": VERSION}
CAPABILITIES: JsonObject = {"tools": {}}
#: Milliseconds for which a client may keep the list of tools, which changes only with the server's
#: environment.
LIST_TTL_MS = 300_000

Answer = Callable[[JsonObject], None]


class Request(NamedTuple):
    """A tool call in flight. `answer` takes its result."""

    id: RequestId
    answer: Answer
    deadline: Deadline


class Server:
    """MCP. `receive` is for the reader alone.

    Messages of the modern era are served by their own `_meta`, the others by what `initialize`
    said.
    The lock guards `_in_flight`: who takes a request out, by answering or cancelling, has the last
    word.
    """

    def __init__(self, settings: Settings, send: Callable[[Any], None]) -> None:
        self._runner = ToolRunner(settings)
        self._tools = describe_tools(settings)
        self._send = send
        self._client = ""  # its name, of the legacy era
        self._lock = threading.Lock()
        self._in_flight: Dict[RequestId, Request] = {}

    def receive(self, line: Optional[bytes]) -> None:
        """Takes one line from the client, None for one that was too long. Never raises."""
        request_id, notification = None, False
        try:
            if line is None:
                raise invalid_request(f"a line of over {MAX_MESSAGE} bytes")
            value = decode_line(line)
            if is_id(value_in(value, "id")):
                request_id = value["id"]
            notification = isinstance(value, dict) and "id" not in value
            message = read_message(value)
            if message is None:
                return
            if message.id is None:
                if message.method == "notifications/cancelled":
                    self._cancel(message.params.get("requestId"))
                return
            if message.id in self._in_flight:
                request_id = None  # it would be taken for the answer to the first request
                raise invalid_request(
                    f"a request with the id {quoted(message.id)} is still in flight")
            self._dispatch(message)
        except ProtocolError as error:
            if request_id in self._in_flight:
                request_id = None
            if not (notification and error.body["code"] == INVALID_PARAMS):
                self._send(error.response(request_id))
        except Exception as error:  # a fault of this server must cost no more than one message
            log(f"internal error: {error!r}")
            self._send(
                ProtocolError(INTERNAL_ERROR, f"Internal error: {error!r}").response(request_id))

    def close(self, patience: float) -> None:
        """Stops all calls within `patience` seconds. They get no answer: the client is leaving."""
        with self._lock:
            requests = list(self._in_flight.values())
            self._in_flight.clear()
        for request in requests:
            request.deadline.stop(Reason.SHUTDOWN)
        self._runner.close(patience)

    def _dispatch(self, message: Message) -> None:
        meta = {} if message.params.get("_meta") is None else message.params["_meta"]
        if not isinstance(meta, dict):
            raise invalid_params('"_meta" must be an object')
        modern = message.method == "server/discover" or message.method != "initialize" and any(
            META + name in meta for name in ("protocolVersion", "clientCapabilities", "clientInfo"))
        client = self._client
        if modern:
            self._check_modern(meta)
            client = text_in(meta, META + "clientInfo", "name")

        def answer(result: JsonObject) -> None:
            if modern:
                result = dict(
                    result, resultType="complete", _meta={META + "serverInfo": SERVER_INFO})
            self._send({"jsonrpc": "2.0", "id": message.id, "result": result})

        cacheable = {"ttlMs": LIST_TTL_MS, "cacheScope": "private"} if modern else {}
        if message.method == "tools/call":
            self._call_tool(message, meta, client, answer)
        elif message.method == "tools/list":
            if message.params.get("cursor") not in (None, ""):
                raise invalid_params("there is one page, without cursor")
            answer(dict(cacheable, tools=self._tools))
        elif message.method == "server/discover":
            answer(dict(cacheable, supportedVersions=list(MODERN_REVISIONS),
                        capabilities=CAPABILITIES, instructions=INSTRUCTIONS))
        elif message.method == "initialize":
            answer({"protocolVersion": self._initialize(message.params),
                    "capabilities": CAPABILITIES, "serverInfo": SERVER_INFO,
                    "instructions": INSTRUCTIONS})
        elif message.method == "ping" and not modern:
            answer({})
        else:
            raise ProtocolError(
                METHOD_NOT_FOUND, f"Method not found: {one_line(message.method, 100)}")

    def _check_modern(self, meta: JsonObject) -> None:
        needed = (("protocolVersion", str, "a string"), ("clientCapabilities", dict, "an object"))
        for name, kind, what in needed:
            if not isinstance(meta.get(META + name), kind):
                raise invalid_params(f'"_meta" needs "{META}{name}", {what}')
            if name == "protocolVersion" and meta[META + name] not in MODERN_REVISIONS:
                raise ProtocolError(UNSUPPORTED_REVISION, "Unsupported protocol version", {
                    "supported": list(MODERN_REVISIONS), "requested": meta[META + name]})

    def _initialize(self, params: JsonObject) -> str:
        """Settles the legacy revision: the client's, or the newest if this server lacks that."""
        wanted = params.get("protocolVersion")
        if not isinstance(wanted, str):
            raise invalid_params('"protocolVersion" must be a string')
        self._client = text_in(params, "clientInfo", "name")
        return wanted if wanted in LEGACY_REVISIONS else LEGACY_REVISIONS[0]

    def _call_tool(self, message: Message, meta: JsonObject, client: str, answer: Answer) -> None:
        """Takes a tool call: answers a refusal at once, leaves all else to a worker.

        Raises ProtocolError.
        """
        name, arguments = message.params.get("name"), message.params.get("arguments")
        tool = next((tool for tool in TOOLS if tool.name == name), None)
        if tool is None:
            known = ", ".join(tool.name for tool in TOOLS)
            raise ProtocolError(INVALID_PARAMS, f"Unknown tool: {quoted(name)}; there are {known}")
        arguments = {} if arguments is None else arguments
        if not isinstance(arguments, dict):
            raise invalid_params('"arguments" must be an object')
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
        request = Request(request_id, answer, call.control.deadline)
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
            result = failure(
                f"The server failed ({ending}). Call again; if it keeps failing, tell the user.")
        call.control.progress.settle()
        if self._take(request):
            try:
                request.answer(result)
            except (ValueError, RecursionError) as error:  # it can be read, but not written
                request.answer(failure(
                    f"The answer cannot be written ({error!r}): codex resume {session_id}"))
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
            request.deadline.stop(Reason.CANCELLED)


# --------------------------------------------------------------------------------------------------
# command line
# --------------------------------------------------------------------------------------------------


def serve(settings: Settings) -> None:
    """Serves MCP until the input ends, nobody reads the output, or a signal comes."""
    while os.open(os.devnull, os.O_RDWR) < 3:
        pass  # one of 0, 1, 2 was closed, and a pipe of ours would have got its number
    os.closerange(3, 10)  # nothing inherited is used, and a Watch needs numbers below 10
    # A byte in this pipe means: leave. Signals write it in C, so no handler interrupts anything.
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
            pass  # the input cannot be read: as good as its end
        finally:
            leave()

    threading.Thread(target=read, name="reader", daemon=True).start()
    log(f"version {VERSION} serves MCP on standard input and output")
    os.read(wake_read, 1)
    server.close(0.4)
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
    # 0.77.0 shows a part of the API key.
    return process.returncode == 0, re.sub(r" - \S*\*+\S*$", "", words)


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
    provider = re.search(
        r'^model_provider\s*=\s*["\'](?!openai["\'])(.+?)["\']', config, re.MULTILINE)
    if not good and os.environ.get("CODEX_API_KEY"):
        good = True
        words += "; but CODEX_API_KEY is set, which Codex uses if the client passes it on"
    elif not good and provider:
        good = True
        words += f"; but config.toml names the model provider {provider.group(1)}"
    yield good, "login", words if good else f"{words}. Run: codex login"


def run_check(settings: Settings) -> int:
    """Prints what this server would use and whether it works; returns 0 if all does, else 1."""
    home, remedy = settings.codex_home, ""
    lines = [(True, "Python", f"{sys.version.split()[0]}, {sys.executable}"),
             *check_codex(settings)]
    if not os.path.isdir(home) or not os.access(home, os.W_OK | os.X_OK):
        remedy = " is not a writable directory. Run codex once, or fix it or CODEX_HOME"
    lines.append((not remedy, "Codex home", home + remedy))
    there = os.path.isdir(settings.cwd)
    remedy = "" if there else " is not there. Set CODEX_MCP_CWD"
    lines.append((there, "working directory", settings.cwd + remedy))
    for variable in VARIABLES:
        value = getattr(settings, variable.field) or "not set"
        source = "environment" if os.environ.get(variable.name) else "default"
        wrong = [text for text in settings.problems if text.startswith(variable.name + " ")]
        lines.append((not wrong, variable.name, wrong[0] if wrong else f"{value} ({source})"))
    told = [f"{'ok' if good else 'FAIL':5} {what:28} {text}" for good, what, text in lines]
    print(f"{NAME} {VERSION}", *told, sep="\n")
    return 0 if all(good for good, _, _ in lines) else 1


class Entry(NamedTuple):
    """What a client needs to know to start this server."""

    python: str
    file: str
    env: Dict[str, str]
    codex_home: str


def claude_config(entry: Entry) -> str:
    """The command that registers this file in Claude Code."""
    import shlex

    pairs = [part for name, value in entry.env.items() for part in ("-e", f"{name}={value}")]
    words = ["claude", "mcp", "add", "--scope", "user", NAME, *pairs, "--"]
    return " ".join(map(shlex.quote, [*words, entry.python, entry.file]))


def codex_config(entry: Entry) -> str:
    """The block for Codex's config.toml. `codex mcp add` cannot set all of it."""
    def toml(text: str) -> str:
        return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

    config = os.path.join(entry.codex_home, "config.toml")
    return "\n".join((
        f"# Append this to {config}; remove an older entry first: codex mcp remove {NAME}",
        f"[mcp_servers.{NAME}]", f"command = {toml(entry.python)}", f"args = [{toml(entry.file)}]",
        "# Codex's own limit for a call is shorter than this server's",
        f"tool_timeout_sec = {MAX_TIMEOUT_MS // 1000 + 60}",
        "# where nobody can be asked, as in codex exec, Codex refuses tools not approved here",
        'default_tools_approval_mode = "approve"', "", f"[mcp_servers.{NAME}.env]",
        *(f"{name} = {toml(value)}" for name, value in entry.env.items())))


def json_config(entry: Entry) -> str:
    """The entry for clients that are configured with JSON."""
    server = {"command": entry.python, "args": [entry.file], "env": entry.env}
    return json.dumps({"mcpServers": {NAME: server}}, indent=2)


#: The clients of `--print-config`.
CLIENTS = {"claude": claude_config, "codex": codex_config, "json": json_config}


def print_config(client: str, settings: Settings) -> int:
    """Prints what registers this file in a client; returns the exit code. Notes go to stderr."""
    import tempfile

    file = os.path.abspath(globals().get("__file__", ""))
    folder, name = os.path.split(file)
    passing = folder == tempfile.gettempdir() and name != "codex_persistent_mcp.py"
    if not os.path.isfile(file) or passing:
        print("There is no lasting file to register: save this as codex_persistent_mcp.py, and run "
              "that.", file=sys.stderr)
        return 1
    names = [variable.name for variable in VARIABLES]
    env = {name: os.environ[name] for name in names if os.environ.get(name)}
    try:
        env["CODEX_BIN"] = find_codex(settings.codex)
    except RunFailure as refusal:
        print("Note:", refusal, file=sys.stderr)
    for problem in settings.problems:
        print("Note:", problem, file=sys.stderr)
    print(CLIENTS[client](Entry(sys.executable, file, env, settings.codex_home)))
    return 0


def main() -> int:
    """Runs the command line; returns the exit code."""
    settings = read_settings(dict(os.environ))
    if os.environ.get("CODEX_HOME"):  # Codex gets what is used here, not "~" or a relative path
        os.environ["CODEX_HOME"] = settings.codex_home
    if len(sys.argv) == 1:
        serve(settings)
    import argparse  # not for the server: it must be there at once

    parser = argparse.ArgumentParser(
        prog="codex_persistent_mcp.py", allow_abbrev=False,
        description="An MCP server over standard input and output (without options) that runs each "
                    "tool call as a turn of a Codex session.")
    chosen = parser.add_mutually_exclusive_group(required=True)
    chosen.add_argument("--check", action="store_true",
                        help="say what would be used, and whether it works")
    chosen.add_argument("--print-config", choices=tuple(CLIENTS),
                        help="print what registers this file in a client")
    chosen.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
    options = parser.parse_args()
    if options.check:
        return run_check(settings)
    return print_config(options.print_config, settings)


if __name__ == "__main__":
    sys.exit(main())
