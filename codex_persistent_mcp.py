#!/usr/bin/env python3
# /// script
# requires-python = ">=3.8"
# dependencies = []
# ///
"""An MCP server over stdio that runs each tool call as a turn of a real, persisted Codex session.

An AI agent (the MCP client) asks, and OpenAI's Codex CLI answers, in a session that Codex stores. A
person can continue it in a terminal (`codex resume <session_id>`), and the agent after that.
(Codex's events call a session a thread. A thread of this process is a worker.)

The way of one call, through rooms that use only rooms above them: *transport* reads a line,
*messages* makes JSON-RPC of it, *server* keeps the requests in flight, *tools* checks the
arguments, *prompts* writes the text, *sessions* gives the call its place. *codex process* runs
`codex exec` with just the *rights* that the call may have, or *app-server* a turn in a session that
is open elsewhere. *turn* folds what Codex reports, and *tools* makes a result of it.

A run is an iterator of events, and knows neither turn nor call. One loop, ToolRunner._drive, folds
them, reports progress and decides when to stop. Leaving the iterator ends the run:

    a run (Ladder)      SIGINT, so that Codex records the interruption; then SIGTERM and SIGKILL, a
                        second apart. On Linux, what has left the group gets SIGTERM first.
    this server's end   the same in a quarter of a second: clients wait no more than half of one
    a killed server     a watcher, a shell in the run's group, does it, in a quarter, too
    a turn elsewhere    is not ours to kill: the app-server has two seconds to interrupt it

It starts: for each call `codex exec`, through /bin/sh, which leaves the watcher; for Codex's index
of sessions, `codex app-server`; once, `codex --version`, and on macOS `ps`; for --check, `codex
login status` and `codex sandbox`.
It reads: its environment; the first line of a session's file, and its lock; Codex's config.toml and
*.rules (in the Codex home, the directory's .codex and /etc/codex); on Linux, the environments of
processes, to see who started it and what a stopped turn has left.
It writes: standard output (MCP), standard error (a log without prompts and replies), an empty lock
file in the Codex home. It connects to Codex's control socket there. It keeps no state.
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
import time
from os.path import abspath, dirname, exists, expanduser, isabs, isdir, isfile, join, realpath
from threading import Condition, Event, Lock, Thread
from time import monotonic as clock
from typing import Any, Callable, Dict, Generator, Iterator, NamedTuple, Optional, Tuple

# ---- constants, settings ----

NAME = "codex-persistent-mcp"
VERSION = "1.1.0"

#: Revisions of MCP with an `initialize` handshake, newest first.
LEGACY_REVISIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
#: Revisions in which every request carries its own `_meta`.
MODERN_REVISIONS = ("2026-07-28",)
#: Error codes of JSON-RPC 2.0, and one of MCP 2026-07-28.
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
INTERNAL_ERROR, UNSUPPORTED_REVISION = -32603, -32022

#: Codex's sandboxes, from the fewest rights to the most.
SANDBOXES = ("read-only", "workspace-write", "danger-full-access")
PROFILES = {"read-only": ":read-only", "workspace-write": ":workspace"}
MIN_TIMEOUT_MS, MAX_TIMEOUT_MS = 1_000, 7_200_000

# Bytes:
MAX_MESSAGE = 128 << 20  # of a line from the client; a longer one is refused
MAX_EVENT = 32 << 20  # of an event; of a longer one only the beginning is read
MAX_STDERR = 32 << 10  # kept of the beginning of Codex's stderr, and of its end
MAX_UNSENT = 64 << 20  # of unread answers, beyond which the client is not read

MAX_CALLS, MAX_WARNINGS = 256, 20  # calls at once; warnings of one answer
MAX_RECALLED = 100  # sessions of which something is kept

# Seconds:
TICK = 0.05  # a run yields at least this often
LEAVE = 3.0  # for Codex to leave after its turn, or its output, has ended
FURTHER = 20.0  # for a further turn that Codex begins by itself
DRAIN = 0.5  # for output after Codex has gone: a child can hold the pipe
STRAYS = 0.2  # from SIGTERM to SIGKILL for processes that left Codex's group
GAP, SILENCE = 0.5, 10.0  # least and most between two messages
ANSWER, WITHDRAW = 10.0, 2.0  # for an answer of the app-server; for stopping a turn there
ASK_AGAIN = 2.0  # between two looks at a turn that runs elsewhere
GRACE = 3.0  # for who has a session open only for a moment
TAKE = 45.0  # for who has a session open to take a message
LOOK = 1.0  # between two looks at a message there

UUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
Json = Dict[str, Any]


class Settings(NamedTuple):
	"""What the operator has set, and a text for each bad value."""

	codex: str
	cwd: str
	sandbox: str | None
	timeout_ms: int
	max_parallel: int
	origin: str
	home: str
	roots: tuple[str, ...]
	codex_args: tuple[str, ...]
	review_profile: str | None
	problems: tuple[str, ...]


def whole_number(low: int, high: int) -> Callable[[str], int]:
	def read(text: str) -> int:
		if re.fullmatch("[0-9]{1,9}", text) and low <= int(text) <= high:
			return int(text)
		raise ValueError(f"a whole number from {low} to {high}")

	return read


def name_like(pattern: str, what: str) -> Callable[[str], str | None]:
	def read(text: str) -> str | None:
		if text and not re.fullmatch(pattern, text):
			raise ValueError(what)
		return text or None

	return read


def working_directory(text: str) -> str:
	try:
		path = expanduser(text) or os.getcwd()
	except OSError:
		path = ""
	if isabs(path) and isdir(path):
		return path
	raise ValueError("the absolute path of an existing directory")


def directories(text: str) -> tuple[str, ...]:
	paths = [expanduser(path) for path in text.split(os.pathsep) if path]
	if not all(map(isabs, paths)):
		raise ValueError(f"absolute directories, separated by {os.pathsep}")
	return tuple(map(realpath, paths))


#: Options that neither break the protocol nor widen a review's rights.
VALUED = "-c|-p|--config|--profile|--enable|--disable|--add-dir|--local-provider|--color"
FLAGS = "--oss|--strict-config"


def codex_options(text: str) -> tuple[str, ...]:
	import shlex

	try:
		words = shlex.split(text)
	except ValueError as error:
		raise ValueError(f"options quoted as in a shell, but has {str(error).lower()}") from None
	option = rf"(-[cp]|({VALUED})=)[^\0]+|({VALUED})\0[^\0]*|{FLAGS}"
	if not re.fullmatch(rf"(({option})\0)*", "".join(word + "\0" for word in words)):
		raise ValueError(f"only {VALUED}|{FLAGS}; sandbox and directory have their own variables")
	return tuple(words)


#: Variables in the order of Settings: name, default, a reader whose ValueError says what it takes.
VARIABLES: tuple[tuple[str, str, Callable[[str], Any]], ...] = (
	("CODEX_BIN", "codex", expanduser),
	("CODEX_MCP_CWD", "", working_directory),
	("CODEX_MCP_SANDBOX", "", name_like("|".join(SANDBOXES), "one of " + ", ".join(SANDBOXES))),
	("CODEX_MCP_TIMEOUT_MS", "600000", whole_number(MIN_TIMEOUT_MS, MAX_TIMEOUT_MS)),
	("CODEX_MCP_MAX_PARALLEL", "16", whole_number(1, 1000)),
	("CODEX_PERSISTENT_MCP_ORIGIN", NAME, str),
	("CODEX_HOME", "~/.codex", lambda text: abspath(expanduser(text))),
	("CODEX_MCP_ROOTS", "", directories),
	("CODEX_MCP_CODEX_ARGS", "", codex_options),
	("CODEX_MCP_REVIEW_PROFILE", "", name_like("[A-Za-z0-9_-]+", "a permission profile's name")),
)


def read_settings(env: dict[str, str]) -> Settings:
	values: list[Any] = []
	problems: list[str] = []
	for name, default, read in VARIABLES:
		text = env.get(name) or default
		try:
			values.append(read(text))
		except ValueError as error:
			values.append(default and read(default))
			problems.append(f"{name} is {text!r}; it takes {error}")
	return Settings._make([*values, tuple(problems)])


# ---- errors, and what a call watches while it waits ----


class RpcError(Exception):
	"""A message that is answered with a JSON-RPC error."""

	def __init__(self, code: int, message: str, **more: Json) -> None:
		super().__init__(message)
		self._body = dict(more, code=code, message=message)

	def response(self, request_id: Any) -> Json:
		return {"jsonrpc": "2.0", "id": request_id, "error": self._body}


def invalid_params(text: str) -> RpcError:
	return RpcError(INVALID_PARAMS, "Invalid params: " + text)


def invalid_request(text: str) -> RpcError:
	return RpcError(INVALID_REQUEST, "Invalid request: " + text)


class Failure(Exception):
	"""A call that failed. The text says why, and what the caller can do."""


class Lost(Failure):
	"""There is no such session to be continued."""


class TryAgain(Failure):
	"""Nothing had begun, and the same is likely to work soon."""


class Busy(Failure):
	"""The session is open elsewhere and, as the text says, out of reach. Nothing was sent."""


class NobodyTook(Busy):
	"""Whoever has it open did not take the message, which was withdrawn."""


Reason = enum.Enum("Reason", "TIMEOUT CANCELLED STOPPED SHUTDOWN")


class Stopped(Exception):
	"""A call must end now, for `reason`."""

	def __init__(self, reason: Reason) -> None:
		self.reason = reason


def one_line(text: str, limit: int) -> str:
	"""`text` on one line of at most `limit` characters, without control characters."""
	text = text[: limit * 4].encode("utf-8", "replace").decode("utf-8")
	control = r"[\s\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+"
	text = re.sub(control, " ", text).strip()
	return text if len(text) <= limit else text[: limit - 1].rstrip() + "\u2026"


class Progress:
	"""What a call is doing, thinned out for a person. Only for the call's worker."""

	def __init__(self, send: Callable[[str], None] | None) -> None:
		self.latest = "waiting"
		self._send = send
		self._begin = clock()
		self._sent_at = self._begin - GAP
		self._since: float | None = None

	def say(self, text: str, at_once: bool = False) -> None:
		"""Reports `text`, if any: `at_once`, or soon unless something newer comes first."""
		if text and text != self.latest:
			self.latest, self._since = text, self._since or clock()
		if at_once:
			self._tell(text, 5000)
		self.tick()

	def tick(self) -> None:
		now = clock()
		silence = now - self._sent_at
		if self._since and now >= self._since + GAP and silence >= GAP:
			self._tell(self.latest)
		elif silence >= SILENCE:
			self._tell(f"{one_line(self.latest, 140)} ({now - self._begin:.0f} s)")

	def settle(self) -> None:
		"""Waits until an answer may follow: some clients fail if both come together."""
		if self._send is not None:
			time.sleep(max(0.0, self._sent_at + GAP - clock()))

	def _tell(self, text: str, limit: int = 160) -> None:
		self._sent_at, self._since = clock(), None
		if self._send is not None:
			self._send(one_line(text, limit))


class Control:
	"""When a call must end. Any worker may stop and wake it."""

	def __init__(self, timeout_s: float, progress: Progress) -> None:
		self.progress, self.timeout = progress, f"{timeout_s:g} s (timeout_ms)"
		self._end = clock() + timeout_s
		self._reason: Reason | None = None
		self._wake = Event()

	def stop(self, reason: Reason) -> None:
		"""Makes the call end. The first reason counts."""
		self._reason = self._reason or reason
		self.wake()

	def wake(self) -> None:
		self._wake.set()

	def check(self) -> None:
		"""Raises `Stopped` if the call must end; sends progress that is due."""
		if self._reason is None and clock() >= self._end:
			self._reason = Reason.TIMEOUT
		if self._reason:
			raise Stopped(self._reason)
		self.progress.tick()

	def pause(self, duration: float) -> None:
		"""Waits `duration` seconds, or until woken. Raises `Stopped`."""
		end, woken = clock() + duration, False
		while not woken and clock() < end:
			woken = self._wake.wait(min(end - clock(), self._end - clock(), GAP / 2))
			self._wake.clear()
			self.check()


# ---- messages: JSON and JSON-RPC 2.0, bytes to checked messages and back ----


class Message(NamedTuple):
	method: str
	params: Json
	id: Any


def is_id(value: Any) -> bool:
	return isinstance(value, (str, int)) and not isinstance(value, bool)


def value_in(value: Any, *path: str) -> Any:
	"""The value at `path` in nested objects, or None."""
	for key in path:
		value = value.get(key) if isinstance(value, dict) else None
	return value


def text_in(value: Any, *path: str) -> str:
	found = value_in(value, *path)
	return found if isinstance(found, str) else ""


def object_in(value: Any, *path: str) -> Json:
	found = value_in(value, *path)
	return found if isinstance(found, dict) else {}


def objects_in(value: Any, *path: str) -> list[Json]:
	found = value_in(value, *path)
	return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def json_number(text: str) -> float:
	"""A number of JSON, or the nearest float: on an int of millions of digits Python would work for
	hours. Raises ValueError for NaN and the like.
	"""
	if len(text) < 400 and not re.search("[.eE]", text):
		return int(text)
	return max(-sys.float_info.max, min(float(text), sys.float_info.max))


DECODER = json.JSONDecoder(
	parse_int=json_number, parse_float=json_number, parse_constant=json_number
)


def load_json(text: str) -> Any:
	try:
		return DECODER.decode(text)
	except RecursionError:
		raise ValueError("nested too deeply") from None


def well_formed(text: str) -> str:
	"""`text` with U+FFFD for lone surrogates, which UTF-8 cannot carry."""
	return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def load_clean(text: str) -> Any:
	"""The JSON value in `text`, with well-formed strings. Raises ValueError."""
	value = load_json(text)
	if "\\ud" in text or "\\uD" in text:
		value = load_json(well_formed(json.dumps(value, ensure_ascii=False)))
	return value


def quoted(value: Any) -> str:
	try:
		return one_line(json.dumps(value, ensure_ascii=False), 100)
	except RecursionError:
		return "nested too deeply"


def decode_line(line: bytes) -> Any:
	try:
		return load_json(line.decode("utf-8-sig"))
	except ValueError as error:
		raise RpcError(PARSE_ERROR, f"Parse error: {one_line(str(error), 200)}") from None


def object_param(params: Json, name: str) -> Json:
	"""The object `name` in `params`, or {}. Raises RpcError."""
	found = params.get(name)
	if found is not None and not isinstance(found, dict):
		raise invalid_params(f'"{name}" must be an object')
	return found or {}


def read_message(value: Any) -> Message | None:
	"""Checks one message; None if nobody here waits for it. Raises RpcError."""
	if not isinstance(value, dict):
		raise invalid_request("a message is an object; batches are not supported")
	if "method" not in value and ("result" in value or "error" in value):
		return None
	if value.get("jsonrpc") != "2.0":
		raise invalid_request('"jsonrpc" must be "2.0"')
	if not isinstance(value.get("method"), str):
		raise invalid_request('"method" must be a string')
	if "id" in value and not is_id(value["id"]):
		raise invalid_request('"id" must be a string or an integer')
	if "id" not in value and not object_in(value, "params"):
		return None
	if value.get("params") == []:
		value["params"] = {}
	return Message(value["method"], object_param(value, "params"), value.get("id"))


# ---- platform: all that differs between POSIX and Windows ----

WINDOWS = os.name == "nt"
if sys.platform != "win32":  # said so that mypy follows
	import fcntl

#: A name and a value in the environment, by which a process and its children are known.
Mark = Tuple[str, str]

#: The shell becomes the command, marked $1=$2. In its group it leaves a watcher, which waits for
#: the pipe {0} to end, as it does when this server dies. Then it stops the group, and on Linux what
#: has left it with the mark. It also holds {1}, the lock file, until the command is gone.
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


#: What a watcher needs, both below 10, since sh(1) names no others: the pipe and the lock file.
Watch = Tuple[int, int]


def windows(function: str, *arguments: Any) -> int:
	"""What a function of Windows returns. Raises OSError, also if it finds what it creates."""
	ctypes: Any = __import__("ctypes")
	call = getattr(ctypes.WinDLL("kernel32", use_last_error=True), function)
	ctypes.set_last_error(0)
	# A handle is as wide as a pointer.
	found = call(*(ctypes.c_void_p(one) if isinstance(one, int) else one for one in arguments))
	error = ctypes.WinError(ctypes.get_last_error())
	if found and not isinstance(error, FileExistsError):
		return found
	if found:
		windows("CloseHandle", found)
	raise error


#: Windows' groups: job objects by the id of their first process. Each has the first free name, so
#: that a server in there finds out where it is.
JOBS: dict[int, int] = {}
JOB_NAMES = [f"{NAME}-run-{number}" for number in range(1000)]


def limit_job(job: int, flags: int) -> None:
	"""Sets the limits of a job; with 0x2000 it ends with this server."""
	import struct

	limits = struct.pack("2qI2PIP2I6Q4P", 0, 0, flags, *bytes(16))
	windows("SetInformationJobObject", job, 9, limits, len(limits))


def begin_job(process: Any) -> None:
	ctypes: Any = __import__("ctypes")
	handle, job = int(process._handle), 0
	for name in JOB_NAMES:
		try:
			job = windows("CreateJobObjectW", None, name)
			break
		except (FileExistsError, PermissionError):
			pass
	JOBS[process.pid] = job
	limit_job(job, 0x2000)
	windows("AssignProcessToJobObject", job, handle)
	if ctypes.WinDLL("ntdll").NtResumeProcess(ctypes.c_void_p(handle)):
		raise OSError("the process cannot be resumed")


def spawn(command: list[str], cwd: str, mark: Mark, watch: Watch | None = None) -> Any:
	"""Starts a marked process with pipes and a group of its own. Raises OSError, ValueError."""
	import subprocess

	options: Json = {"start_new_session": True, "env": dict(os.environ, **dict([mark]))}
	if WINDOWS:
		# CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP, CREATE_SUSPENDED
		options["creationflags"] = 0x08000204
	elif watch:
		command = ["/bin/sh", "-c", WATCHED.format(*watch), "sh", *mark, *command]
		options.update(env=None, pass_fds=watch)
	if command[0].lower().endswith((".cmd", ".bat")):
		for word in command:  # Python quotes for programs, and cmd.exe reads it otherwise
			if re.search(r"[&|<>^%!\r\n]", word):
				raise ValueError(f"as a .cmd it cannot be given {word!r}")
	pipe = subprocess.PIPE
	process = subprocess.Popen(
		command, cwd=cwd, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, **options
	)
	if WINDOWS:
		try:
			begin_job(process)
		except BaseException:
			with process:
				process.kill()
			sweep(process.pid)
			raise
	return process


def signal_group(pid: int, name: str) -> None:
	try:
		if WINDOWS:
			windows("TerminateJobObject", JOBS[pid], 1)
		else:
			os.killpg(pid, getattr(signal, name))
	except OSError:
		pass


def signal_strays(group: int, mark: Mark, name: str) -> bool:
	"""On Linux, signals (with "" finds) marked processes outside of a group; true if any."""
	marked, found = "=".join(mark).encode(), False
	for pid in os.listdir("/proc") if isdir("/proc/self") else ():
		try:
			with open(f"/proc/{int(pid)}/environ", "rb") as file:
				if marked in file.read().split(b"\0") and os.getpgid(int(pid)) != group:
					os.kill(int(pid), getattr(signal, name, 0))
					found = True
		except (OSError, ValueError):
			pass
	return found


def sweep(group: int, strays: bool = True) -> None:
	"""Ends and reaps what is left of a group; on Windows, only with `strays`."""
	if not WINDOWS:
		signal_group(group, "SIGKILL")
		try:
			while True:
				os.waitpid(-group, 0)
		except ChildProcessError:
			pass
	elif group in JOBS:
		if strays:
			signal_group(group, "SIGKILL")
		else:
			limit_job(JOBS[group], 0)
		windows("CloseHandle", JOBS.pop(group))


def selectable(pipe: Any) -> Any:
	"""`pipe`, or on Windows, where closing it waits for its reader, a socket with the same."""
	if not WINDOWS:
		return pipe
	import socket

	near, far = socket.socketpair()

	def copy() -> None:
		with far, pipe:
			try:
				for chunk in iter(lambda: os.read(pipe.fileno(), 1 << 16), b""):
					far.sendall(chunk)
			except OSError:
				pass

	Thread(target=copy, daemon=True).start()
	with near:
		return near.makefile("rb", 0)


def poll(fd: int, events: int) -> int:
	if WINDOWS:
		return 0
	poller = select.poll()
	poller.register(fd, events)
	return sum(state for _, state in poller.poll(0))


#: Windows' locks, named objects instead of bytes: their handles by byte.
LOCKS: dict[int, int] = {}


def lock_byte(fd: int, byte: int, take: bool) -> bool:
	"""Locks or unlocks one byte of a file; false if another process has it. Raises OSError.

	It lasts until all are gone that inherited `fd` on Linux, or that it was lent to on Windows.
	"""
	import struct

	try:
		if sys.platform == "win32":
			if not take:
				return byte not in LOCKS or bool(windows("CloseHandle", LOCKS.pop(byte)))
			LOCKS[byte] = windows("CreateEventW", None, 0, 0, f"Global\\{NAME}-lock-{byte}")
			return True
		if sys.platform == "linux":
			kind = fcntl.F_WRLCK if take else fcntl.F_UNLCK
			try:  # F_OFD_SETLK, which Python names from 3.9 on
				fcntl.fcntl(fd, 37, struct.pack("hhqqi0q", kind, os.SEEK_SET, byte, 1, 0))
				return True
			except OSError as error:
				if error.errno != 22:  # EINVAL, of a kernel without them
					raise
		fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN, 1, byte)
		return True
	except (BlockingIOError, FileExistsError, PermissionError):
		return False


def is_held(home: str, session: str) -> bool | None:
	"""Whether a Codex holds the lock of a session's writer; None where that is not known."""
	if WINDOWS:
		return None
	try:
		with open(join(home, "thread-writer-locks", session + ".lock"), "rb") as file:
			fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
		return False
	except BlockingIOError:
		return True
	except OSError as error:
		return False if isinstance(error, FileNotFoundError) else None


def lend_lock(byte: int, process: Any) -> None:
	"""On Windows, makes a lock last until that process is gone, too."""
	try:
		if process and byte in LOCKS:
			windows("DuplicateHandle", -1, LOCKS[byte], int(process._handle), None, 0, 0, 2)
	except OSError:
		pass


def in_job(name: str) -> bool:
	ctypes: Any = __import__("ctypes")
	found = ctypes.c_int()
	try:
		job = windows("OpenJobObjectW", 4, 0, name)
		windows("IsProcessInJob", -1, job, ctypes.byref(found))
		windows("CloseHandle", job)
	except OSError:
		pass
	return bool(found)


def inside(marker: str) -> bool:
	"""Whether a process with `marker` in its environment is above this one: here, or as the leader
	of this POSIX session or job.
	"""
	if os.environ.get(marker):
		return True
	if WINDOWS:
		return any(map(in_job, JOB_NAMES))
	import subprocess

	leader, mark = str(os.getsid(0)), marker.encode() + b"=[^\0 ]"
	try:
		if isdir("/proc/self"):
			with open(f"/proc/{leader}/environ", "rb") as file:
				return bool(re.search(b"(^|\0)" + mark, file.read()))
		command = ["ps", "-wwE", "-o", "command=", "-p", leader]
		ps = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5)
		return bool(re.search(b" " + mark, ps.stdout))
	except (OSError, subprocess.SubprocessError):
		return False


LOGGING = Lock()  # on Windows, held while a line goes out


def log(text: str) -> None:
	"""A line on standard error; dropped if nobody reads, so that no call waits."""
	line = f"{NAME}: {one_line(text, 500)}\n".encode("utf-8", "replace")

	def write() -> None:
		try:
			os.write(2, line)
		finally:
			LOGGING.release()

	try:
		if WINDOWS:  # where no pipe tells whether a write would wait
			if LOGGING.acquire(timeout=TICK):
				Thread(target=write, daemon=True).start()
		elif poll(2, select.POLLOUT) & select.POLLOUT:
			os.write(2, line)
	except (OSError, RuntimeError):
		pass


# ---- transport: lines from standard input, lines to standard output ----


def read_lines(stream: Any) -> Iterator[bytes | None]:
	"""The client's lines; None is one of over MAX_MESSAGE bytes."""
	for line in iter(lambda: stream.readline(MAX_MESSAGE + 1), b""):
		if len(line) > MAX_MESSAGE and not line.endswith(b"\n"):
			while line and not line.endswith(b"\n"):
				line = stream.readline(1 << 20)
			yield None
		elif line.strip():
			yield line


class Writer:
	"""The only writer of standard output. Any worker may call `send`, which never waits."""

	def __init__(self, fd: int, on_broken: Callable[[], None]) -> None:
		self._fd, self._on_broken = fd, on_broken
		self._changed, self._unsent = Condition(), 0  # guards all
		self._lines: list[bytes] = []
		Thread(target=self._work, name="writer", daemon=True).start()

	def send(self, message: Any) -> None:
		line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
		with self._changed:
			self._lines.append(line)
			self._count(len(line))

	def wait_for_room(self, limit: int, patience: float) -> bool:
		"""Waits until at most `limit` bytes are unsent; false after `patience` seconds."""
		with self._changed:
			return self._changed.wait_for(lambda: self._unsent <= limit, patience)

	def drain(self, patience: float) -> None:
		"""Waits as long as something goes out every `patience` seconds."""
		before = -1
		while not self.wait_for_room(0, patience) and self._unsent != before:
			before = self._unsent

	def _count(self, change: int) -> None:
		with self._changed:
			self._unsent += change
			self._changed.notify_all()

	def _work(self) -> None:
		try:
			while True:
				with self._changed:
					self._changed.wait_for(lambda: self._lines)
					line = memoryview(self._lines.pop(0))
				while line:
					count = os.write(self._fd, line[: 1 << 16])
					line = line[count:]
					self._count(-count)
		except OSError:
			self._count(-self._unsent)
			self._on_broken()


# ---- turn: events folded into a turn ----

#: A run's own events: a line that is none (`text`), one too long (`head`), progress, and the end.
NOISE, TOO_LONG, SAY, ENDED = "run.noise", "run.too_long", "run.say", "run.ended"

Events = Iterator[Optional[Json]]


def say(text: str) -> Json:
	return {"type": SAY, "text": text}


def warning(text: str) -> Json:
	return {"type": "item.completed", "item": {"type": "error", "message": text}}


#: Most of a turn is output of commands and tools, needed only if they failed.
SKIPPED = re.compile(rb'{"type":"item\.[uc]\w+","item":{"id":"[^"]*","type":"(?:command|mcp)_')
GOOD_ENDS = (b':0,"status":"completed"}}', b'null,"status":"completed"}}', b'_progress"}}')
TERMINAL = r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07\x1b]*(?:\x07|\x1b\\))"
BACKTRACE = r"\n[ \t]*(?:[Ss]tack b|B)acktrace:"

SHORTER = "Send a shorter text; Codex can read files itself."
NEW_SESSION = "begin a new session (leave session_id out) with a summary."
CHECK_ID = "Check session_id, or leave it out."
USER = "Ask the user to "
UPDATE = "update Codex (npm install -g @openai/codex)"
ENV = " into this server's env in the MCP client's configuration."
STATUS = r"(?:unexpected|last) status:? "
#: What a caller can do, by Codex's words; the first match wins.
ADVICE = {
	"no rollout found": CHECK_ID + " A session is known in its CODEX_HOME only.",
	r"in .model_reasoning_eff|value: '\w+'.+supported values": (
		"Use a reasoning_effort named above, or leave it out."
	),
	r"model provider\b.+ not found": USER + "fix model_provider in Codex's config.toml.",
	"profile .+(?:not found|no longer s)|for '--profile": USER + "fix Codex's profile.",
	"error loading (?:config|rules)": USER + "fix Codex's configuration there.",
	"in the allowed set|requirements do not allow": (
		"A policy forbids it: do not repeat it, tell the user."
	),
	r"no (?:preset )?version (?:is set|installed) for|^volta error|^nodenv: |^n/a: vers"
	"|installed node version": (
		USER + "set CODEX_BIN to the path of Codex itself: its version manager finds none here."
	),
	"inside a (?:trusted dir|git repo)": "Use another cwd.",
	"codex unarchive": USER + "do that.",
	r"newer version\s+of codex|^error: (?:unexpected arg|unrecognized|invalid value)": (
		USER + UPDATE + ", or leave out what it does not know."
	),
	"^missing environment var": USER + "put that variable" + ENV,
	r"encrypted content|no tool output found|its required\s+fo|duplicate item|load rollout"
	"|failed to read (?:thread|sess)|rollout at|ran out of room|context size|maximum context"
	"|context window of this": "This session cannot be continued: " + NEW_SESSION,
	"maximum length": SHORTER,
	"hit your (?:usage|spend)|upgrade to plus:|quota exc|out of credits": (
		"The user's plan is used up. Wait as long as it says."
	),
	"flagged for|content policy|safety reasons|content_filter|policy violation": (
		"The model's server refuses this text. Reword it, and " + NEW_SESSION
	),
	STATUS + r"429\b|too many requests|rate limit (?:exc|reach)": "Call again in a minute.",
	STATUS + r"5\d\d\b|high demand,|overloaded|at capacity|while processing your|capacity is"
	"|closed before resp": "The model's server is in trouble: call again later.",
	r"error sending|lookup addr|peer cert|connection ref|timed out \(|access a socket"
	"|by cloudflare|network is unreachable": (
		USER + "check the network. HTTPS_PROXY, and CODEX_CA_CERTIFICATE for its certificate, "
		"go" + ENV
	),
	"sign(?:ing)? in again|failed to refresh tok|not logged in|" + STATUS + r"40[13]\b": (
		USER + "run `codex login`, or check the provider's API key; a key in a variable goes" + ENV
	),
	r"\bmodel (?:\S+ )?(?:does not exist|is not supp|not found)": (
		"Leave model out, or use one that this Codex and account know."
	),
}
TRANSIENT = re.compile(r"(?i)database is locked|another codex process|token was already used")
#: Notices of every turn; and what Codex overcame.
NOTICE = re.compile(
	r"(?i)warning: |model metadata for|codex is ignoring|.\[features|.--danger"
	"|under-dev|project-local c|falling back from|run .codex exec|configured value"
	"|heads up|codex(?:'s linux sandb| could not find bub)"
)
RETRY = re.compile(r"(?i)(?:reconnecting\.+|.*; retrying) \d")
ALLOW_SANDBOXES = (
	"The user can allow sandboxes (on Linux: user namespaces, or an AppArmor profile for bwrap)"
)
BLOCKED = "Commands did not run: Codex's sandbox could not start here. " + ALLOW_SANDBOXES
NO_SANDBOX = re.compile(
	r"(?i)bwrap: |sandbox-exec: sandbox_a|windows sandbox|"
	"(?:error|permission|thread).+(?:landlock|linux.sandbox)"
)


def codex_words(text: str) -> str:
	for _ in range(4):
		start, end = text.find("{"), text.rfind("}") + 1
		try:
			value = load_json(text[start:end])
		except ValueError:
			break
		inner = text_in(value, "error", "message") or text_in(value, "message")
		inner = inner or text_in(value, "detail")
		if not inner:
			break
		text = text[:start] + inner + text[end:]
	text = re.sub(TERMINAL, "", re.split(BACKTRACE, text)[0]).strip()
	return text if len(text) <= 2000 else text[:2000] + "\u2026"


def stderr_words(text: str) -> str:
	lines = [line for line in re.split(BACKTRACE, text)[0].splitlines() if line.strip()]
	logged = r"\d{4}-\d\d-\d\dT\S+\s+(?:ERROR|WARN|INFO|DEBUG|TRACE)\s+(?:\S+:\s+)?"
	noise = "(?i)warning: |reading (?:additional input|prompt) from stdin|note: run with `r|"
	plain = [line for line in lines if not re.match(noise + logged, line)]
	first = next((i for i, line in enumerate(plain) if line.lower().startswith("error")), 0)
	chosen = plain[first:] or [re.sub(logged, "", line) for line in lines if re.match(logged, line)]
	return codex_words("\n".join(chosen[:12]))


def decode_event(line: bytearray) -> Json | None:
	if SKIPPED.match(line) and line.endswith(GOOD_ENDS):
		return None
	text = line.decode("utf-8", "replace")
	if "\x1b" in text:
		text = re.sub(TERMINAL, "", text)
	for start in (0, max(0, text.find('{"type":'))):
		try:
			event = load_clean(text[start:])
		except ValueError:
			continue
		if text_in(event, "type") and not event["type"].startswith("run."):
			return event
	return {"type": NOISE, "text": one_line(text[:1000], 200)} if text.strip() else None


def failed(item: Json) -> bool:
	return bool(item.get("exit_code")) or item.get("status") in ("failed", "declined")


def item_progress(item: Json, finished: bool) -> str:
	kind = item.get("type", "")
	if kind == "command_execution":
		command = text_in(item, "command")
		shell = re.match(r"(?s)\S*sh -l?c (['\"]?)(.*)\1\Z", command)
		command = shell[2] if shell else command
		if failed(item):
			code = f" (exit code {item['exit_code']})" if item.get("exit_code") else ""
			return f"Failed{code}: {command}"
		return "" if finished else "Running " + command
	if kind == "file_change":
		paths = [text_in(change, "path") for change in objects_in(item, "changes")[:5]]
		return "Changing " + ", ".join(map(os.path.basename, paths))
	if kind == "web_search":
		return "Searching the web for " + text_in(item, "query")
	if kind == "todo_list":
		steps = objects_in(item, "items")
		ahead = [text_in(step, "text") for step in steps if step.get("completed") is not True]
		current = min(len(steps) - len(ahead) + 1, len(steps))
		return f"Plan, {current} of {len(steps)}: {ahead[0] if ahead else 'done'}"
	if kind == "reasoning" and finished:
		return "Thinking: " + text_in(item, "text").strip().split("\n")[0].strip("*# ")
	if kind == "agent_message" and finished:
		return "Writing: " + text_in(item, "text")[:400]
	if finished or kind in ("reasoning", "agent_message", "error"):
		return ""
	if kind == "mcp_tool_call":
		return f"Calling {text_in(item, 'server')}.{text_in(item, 'tool')}"
	if kind == "collab_tool_call":
		return f"Asking a helper: {item['prompt']}" if item.get("prompt") else "Waiting for helpers"
	return f"Working: {kind}".replace("_", " ")


def verdict_of(text: str, verdicts: tuple[str, ...]) -> str:
	"""The plain verdict in the first line, such as go_with_changes, or ""."""
	line = re.search(r"\w.*", text)
	words = "|".join(verdicts).replace(" ", r"[\W_]+")
	plain = rf"(?i)[\W_]*(?:verdict[\W_]*)?({words})(?![^\W_])(?![\W_]*(?:or\b|/|\|))"
	found = line and re.match(plain, line.group())
	return re.sub(r"[\W_]+", "_", found.group(1)).lower() if found else ""


#: How far a turn is; a further turn makes it RUNNING again.
State = enum.Enum("State", "WAITING RUNNING COMPLETED FAILED")


class Turn:
	def __init__(
		self, expected: str | None = None, limit: str | None = None, verdicts: tuple[str, ...] = ()
	) -> None:
		"""`expected` is the session to continue; `limit` the sandbox."""
		self.expected, self.limit, self.verdicts = expected, limit, verdicts
		self.state = State.WAITING
		self.session: str | None = None
		self.answers: list[str] = []
		self._said: list[tuple[str, str]] = []
		self.commands = self.blocked = 0
		self.usage: Json | None = None
		self.warnings: list[str] = []
		self.error = self.stray = ""
		self.stderr, self.ending = "", "it was stopped"

	def fold(self, event: Json) -> str:
		"""Takes an event; returns progress. Raises Failure if the run must be stopped."""
		kind, item = event["type"], object_in(event, "item")
		if kind == "turn.started":
			if self.state is State.COMPLETED:
				self.answers, self._said = self.answers + self._answer(), []
			self.state = State.RUNNING
			return "Codex has started its turn"
		if kind == ENDED:
			self.stderr, self.ending = event["stderr"], event["ending"]
		elif self.state in (State.COMPLETED, State.FAILED):
			pass
		elif kind.startswith("item."):
			done = kind == "item.completed"
			if done:
				self._completed(item)
			self.commands += kind == "item.started" and item.get("type") == "command_execution"
			return item_progress(item, done)
		elif kind == SAY:
			return event["text"]
		elif kind == NOISE:
			self.stray = self.stray or event["text"]
		elif kind == TOO_LONG and '"agent_message"' in event["head"][:200]:
			raise Failure(f"Codex's message is over {MAX_EVENT >> 20} MiB, too long to pass on.")
		elif kind == "thread.started":
			self._session_started(text_in(event, "thread_id").lower())
		elif kind == "turn.completed":
			self.state, self.usage = State.COMPLETED, object_in(event, "usage") or None
		elif kind == "turn.failed":
			self.state = State.FAILED
			self.error = codex_words(text_in(event, "error", "message")) or self.error
		elif kind == "error":
			self.error = codex_words(text_in(event, "message")) or self.error
			if not RETRY.match(self.error):
				self.warn(self.error)
			return "Codex reports: " + self.error
		return ""

	@property
	def reply(self) -> str | None:
		return "\n\n".join(self.answers + self._answer()) or None

	def _answer(self) -> list[str]:
		"""The message marked as the answer, or the last; before it, one with the verdict."""
		ranks = {"final_answer": 2, "commentary": 0}
		last = [text for text, _ in sorted(self._said, key=lambda one: ranks.get(one[1], 1))][-1:]
		judged = [text for text, _ in self._said if verdict_of(text, self.verdicts)][-1:]
		return last if not judged or verdict_of(last[0], self.verdicts) else judged + last

	def _completed(self, item: Json) -> None:
		kind = item.get("type")
		if kind == "agent_message" and text_in(item, "text"):
			self._said.append((item["text"], text_in(item, "phase")))
		elif kind == "error":
			self.warn(text_in(item, "message"))
			if self.limit in PROFILES and self.state is State.WAITING:
				self._check_rights()
		elif kind == "command_execution" and failed(item):
			output = text_in(item, "aggregated_output").lstrip()[:1000]
			if NO_SANDBOX.match(output):
				if not self.blocked:
					self.warn(f"{BLOCKED}: {one_line(output, 300)}")
				self.blocked += 1
		elif kind == "mcp_tool_call" and failed(item):
			server, why = text_in(item, "server"), text_in(item, "error", "message") or "no reason"
			if re.search("(?i)approv|cancelled", why):
				table = f"[mcp_servers.{server}] of config.toml"
				why += f". The user can allow it: default_tools_approval_mode in {table}."
			self.warn(f"Codex's tool {server}.{text_in(item, 'tool')} did not work: {why}")

	def _check_rights(self) -> None:
		"""Raises Failure if Codex announces more rights than were asked for."""
		approvals = 0  # policy and reviewer, dangerous only together
		for text in self.warnings:
			told = re.search(r"(?is)(.*)\bfall\w*\s+back\b.*?requir(.*)", text.split("Details")[0])
			field, target = told.groups() if told else ("", "")
			approvals += "approval" in field
			wider = re.search("(?i)write|workspace|danger|full|^((?!read).)*$", target)
			if approvals > 1 or wider and re.search("(?i)permission|sandbox", field):
				# Of a new session Codex has kept nothing yet.
				raise (Failure if self.expected else Lost)(
					"Codex was stopped before it did anything: managed requirements do not allow "
					f"{self.limit}. {text} {USER}have it allowed."
				)

	def warn(self, text: str) -> None:
		text = codex_words(text)
		if NOTICE.match(text) and re.search(r"(?i)\btrust|--dangerously", text):
			return  # no agent is to be advised to have more trust
		if text and text not in self.warnings and len(self.warnings) < MAX_WARNINGS:
			self.warnings.append(text)

	def _session_started(self, name: str) -> None:
		if not re.fullmatch(UUID, name):
			raise Failure(f"Codex announced no usable session id: {one_line(name, 80)}")
		if self.expected and name != self.expected:
			why = f"Codex does not know the session {self.expected}, and was stopped before it "
			raise Lost(why + "answered from a new one. " + CHECK_ID)
		if self.session and name != self.session:
			raise Failure(f"Codex announced a second session, {name}, in the same run.")
		self.session = name

	def result(self) -> None:
		"""Raises a Failure unless the turn is a success."""
		words = self.error or stderr_words(self.stderr) or self.stray or "it gave no reason"
		if self.state is State.COMPLETED or self.answers:
			self.session = self.session or self.expected
			if self.state is not State.COMPLETED:
				further = "A further turn, for a goal or a hook, did not end"
				self.warn(f"{further} ({self.ending}).")
			if self.reply is None:
				why = f"Codex ended its turn without a message: {words}"
				raise Failure(why + "\nAsk again, for a written answer.")
			if not self.session:
				raise Failure(f"Codex did not name its session. {USER}{UPDATE}.")
			return
		begun = self.state is not State.WAITING
		if not begun and "already has an active writer" in self.stderr:
			raise Busy("The session has an active writer")
		what = "could not finish" if begun else "did not start"
		advice = next(
			(text for pattern, text in ADVICE.items() if re.search("(?im)" + pattern, words)),
			"If it happens again, ask the user to run `codex exec hello`.",
		)
		text = f"Codex {what} the turn ({self.ending}): {words}\n{advice}"
		if not begun and TRANSIENT.search(words):
			raise TryAgain(text)
		# Of a new session whose first message it refuses, Codex keeps nothing.
		if begun or "no rollout" not in words and (self.expected or "maximum length" not in words):
			raise Failure(text)
		raise Lost(text)


# ---- command: options of a turn to an argument list ----


class Options(NamedTuple):
	cwd: str
	session: str | None = None
	model: str | None = None
	effort: str | None = None
	sandbox: str | None = None
	fork: bool = False


def exec_arguments(options: Options, operator: tuple[str, ...], rights: list[str]) -> list[str]:
	"""The arguments after `codex`; the prompt comes on standard input (`-`)."""
	effort = options.effort and f'model_reasoning_effort="{options.effort}"'
	# The operator's come first: of two values for one key, Codex uses the last.
	arguments = ["exec", *operator, "--skip-git-repo-check", "--json", "-C", options.cwd]
	session = ("fork" if options.fork else "resume", options.session)
	for words in (("-m", options.model), ("-c", effort), rights, session):
		arguments += [word for word in words if word] if words[-1:] != (None,) else []
	return arguments + ["-"]


def resume_command(home: str, session: str) -> str:
	"""What opens a session in a shell; on Windows, in PowerShell."""
	command = "codex resume " + session
	if home == abspath(expanduser("~/.codex")):
		return command
	if WINDOWS:
		return "$env:CODEX_HOME='{}'; {}".format(home.replace("'", "''"), command)
	import shlex

	return f"CODEX_HOME={shlex.quote(home)} {command}"


def find_codex(name: str) -> str:
	"""The executable CODEX_BIN stands for, never one of the working directory. Raises Failure."""
	endings = os.environ.get("PATHEXT", ".EXE;.CMD").split(";") if WINDOWS else [""]
	if name.lower().endswith(tuple(ending.lower() for ending in endings)):
		endings = [""]
	folders = [""] if dirname(name) else filter(isabs, os.get_exec_path())
	for folder in folders:
		for ending in endings:
			if isfile(path := abspath(join(folder, name + ending))) and os.access(path, os.X_OK):
				return path
	state = "is not on this server's PATH"
	if dirname(name):
		state = "is not an executable file" if exists(name) else "does not exist"
	install = "Install it (npm install -g @openai/codex), or set CODEX_BIN to its absolute path."
	raise Failure(f"The Codex CLI ({name}) {state}. {install}")


# ---- codex process: one Codex and its whole process group, as a stream of events ----

#: Set for Codex: a server inside it knows that it is, and strays are found.
MARKER = "CODEX_PERSISTENT_MCP_ACTIVE"


class Ladder(NamedTuple):
	"""Signals to a run's group after so many seconds; to `strays` outside of it, SIGTERM first."""

	steps: tuple[tuple[float, str], ...]
	strays: bool = True


#: Only on SIGINT, Codex records the interruption. Its commands have left the group; if they end
#: first, their sandboxes clean up.
STOP = Ladder(((0.05, "SIGINT"), (1.0, "SIGTERM"), (2.0, "SIGKILL")))
LEAVING = Ladder(((0.05, "SIGINT"), (0.25, "SIGKILL")))
REFUSED = Ladder(((0.0, "SIGKILL"),))
#: The turn has ended well: what it left outside the group may be meant to stay.
FINISHED = Ladder(STOP.steps, strays=False)


class Run:
	"""What runs one turn. Its caller iterates over `events`, and sets `ladder` meanwhile."""

	#: How what still runs is stopped when `events` is left.
	ladder = STOP
	process: Any = None

	def events(self) -> Events:
		"""Starts the run. Yields its events, and None at least every tenth of a second.

		Nothing is left when it ends or is closed. Raises Failure.
		"""
		raise NotImplementedError

	def timed_out(self) -> Failure | None:
		return None


def start_directory(codex: str, other: str) -> str:
	if WINDOWS:  # where cmd.exe looks for node in its directory first
		return dirname(codex)
	try:
		return os.getcwd()  # elsewhere, a version manager may find another Codex
	except OSError:
		return other


def wait_for(selector: Any, patience: float) -> list[Any]:
	if selector.get_map():
		return [key.fileobj for key, _ in selector.select(patience)]
	time.sleep(min(patience, TICK / 10))  # on Windows, a selector cannot wait for nothing
	return []


class CodexRun(Run):
	decode = staticmethod(decode_event)

	def __init__(self, command: list[str], cwd: str, prompt: bytes, watch: Watch | None) -> None:
		self._command, self._cwd, self._watch = command, cwd, watch
		self._mark = (MARKER, os.urandom(8).hex())
		self._unsent = memoryview(prompt)
		self._open = not prompt  # whether more is to be written later
		self._line, self._cut = bytearray(), False  # of which more is read; if it is too long
		self._stderr = bytearray()
		self._pipes: list[Any] = []  # to close, if not the process's

	def events(self) -> Events:
		import selectors

		try:
			cwd = start_directory(self._command[0], self._cwd)
			process = self.process = spawn(self._command, cwd, self._mark, self._watch)
		except (OSError, ValueError) as error:
			what = f"Codex ({self._command[0]}) could not be started in {self._cwd}: {error}."
			raise Failure(what + " Check it in a terminal.") from None
		with selectors.DefaultSelector() as selector:
			try:
				yield from self._read(process, selector)
			finally:
				self._end(process, selector)
		code = process.returncode
		yield {
			"type": ENDED,
			"stderr": self._stderr.decode("utf-8", "replace"),
			"ending": f"exit code {code}" if code >= 0 else f"ended by signal {-code}",
		}

	def _read(self, process: Any, selector: Any) -> Events:
		from selectors import EVENT_READ, EVENT_WRITE

		reading = output, _ = [selectable(pipe) for pipe in (process.stdout, process.stderr)]
		for source in reading:
			selector.register(source, EVENT_READ)
		if WINDOWS:
			self._pipes = [*reading]
		else:
			os.set_blocking(process.stdin.fileno(), False)
		gone, end = False, float("inf")
		while True:
			if self._unsent and WINDOWS:  # where no write takes just what it can at once
				feed = Thread(target=self._feed, args=(process.stdin, self._unsent))
				feed.daemon, self._unsent = True, memoryview(b"")
				feed.start()
			elif self._unsent and process.stdin not in selector.get_map():
				selector.register(process.stdin, EVENT_WRITE)
			yield None
			now = clock()
			if not gone and process.poll() is not None:
				gone, end = True, min(end, now + DRAIN)
			if now > end or gone and not reading:
				break
			ready = wait_for(selector, TICK / 2 if gone else TICK)
			if gone and not ready:
				break
			for pipe in ready:
				if pipe is process.stdin:
					self._unsent = self._feed(pipe, self._unsent)
					if not self._unsent:
						selector.unregister(pipe)
					continue
				if not (chunk := pipe.read(1 << 16)):
					selector.unregister(pipe)
					reading.remove(pipe)
				if pipe is not output:
					self._stderr += chunk
					if len(self._stderr) > 2 * MAX_STDERR:
						self._stderr[MAX_STDERR:-MAX_STDERR] = b"\n...\n"
				elif chunk:
					yield from self._split(chunk)
				else:
					end = min(end, now + LEAVE)
		if self._line:
			yield from self._split(b"\n")

	def _feed(self, pipe: Any, data: memoryview) -> memoryview:
		try:
			while data:
				data = data[os.write(pipe.fileno(), data[: 1 << 16]) :]
		except BlockingIOError:
			return data
		except OSError:
			pass
		if not self._open:
			pipe.close()
		return memoryview(b"")

	def _split(self, chunk: bytes) -> Events:
		self._line += chunk
		if b"\n" in chunk:
			*lines, self._line = self._line.split(b"\n")
			for line in lines:
				event = self.decode(line)
				if self._cut:
					event = {"type": TOO_LONG, "head": line[:1000].decode("utf-8", "replace")}
				if event is not None:
					yield event
				self._cut = False
		elif len(self._line) > MAX_EVENT:
			self._cut = True
			del self._line[4096:]

	def _end(self, process: Any, selector: Any) -> None:
		"""Climbs the ladder until Codex is gone, reading on, and sweeps."""
		begin, group, (steps, strays) = clock(), process.pid, self.ladder
		if strays:
			signal_strays(group, self._mark, "SIGTERM")
		while process.poll() is None:
			while steps and clock() >= begin + steps[0][0]:
				signal_group(group, steps[0][1])
				steps = steps[1:]
			for pipe in wait_for(selector, TICK / 5):
				if pipe is process.stdin or not pipe.read(1 << 16):
					selector.unregister(pipe)
		if strays:
			while signal_strays(group, self._mark, "") and clock() < begin + STRAYS:
				time.sleep(TICK / 5)
			signal_strays(group, self._mark, "SIGKILL")
		sweep(group, strays)  # the watcher, which keeps the number, too
		if strays:
			signal_strays(group, self._mark, "SIGKILL")
		process.wait()
		for pipe in self._pipes or (process.stdin, process.stdout, process.stderr):
			pipe.close()


def ask_codex(codex: str, *arguments: str) -> tuple[bool, str]:
	"""Whether a short run of Codex went well, and its last line."""
	run, end, said = CodexRun([codex, *arguments], os.sep, b"\n", None), clock() + 10, ""
	run.ladder, good = FINISHED, False
	events: Any = run.events()
	try:
		for event in events:
			if event is None and clock() > end:
				run.ladder = REFUSED
				return False, "no answer within 10 s"
			if event and event["type"] == NOISE:
				said = event["text"]
			elif event and event["type"] == ENDED:
				good = event["ending"] == "exit code 0"
				said = said or event["stderr"]
	except Failure as failure:
		return False, one_line(str(failure), 200)
	finally:
		events.close()
	words = one_line((said.strip() or "no output").splitlines()[-1], 200)
	return good, re.sub(r" - \S*\*+\S*$", "", words)


# ---- rights: what a turn may do, as arguments of Codex ----

MANAGED = join(os.sep, "etc", "codex")
Version = Tuple[int, ...]


def above(directory: str) -> list[str]:
	found = [realpath(directory)]
	while dirname(found[-1]) != found[-1]:
		found.append(dirname(found[-1]))
	return found


def config_folders(home: str, cwd: str) -> list[str]:
	folders = [MANAGED, home, *(join(folder, ".codex") for folder in above(cwd))]
	return list(dict.fromkeys(map(realpath, folders)))


def read_all(folders: list[str], pattern: str) -> Iterator[tuple[str, str]]:
	"""The paths and texts of matching files in `folders`. Raises Failure."""
	import glob

	for folder in folders:
		for path in sorted(glob.glob(join(glob.escape(folder), pattern))):
			try:
				with open(path, encoding="utf-8", errors="replace") as file:
					yield path, re.sub(r"(?m)^\s*#.*", "", file.read())
			except OSError as error:
				why = f"{USER}make {path} readable: {error.strerror}."
				raise Failure("What Codex may do is not known. " + why) from None


def allow_rules(home: str, cwd: str) -> Iterator[str]:
	"""The files with a rule that lifts the sandbox from a command."""
	rule, refusal = r"\bprefix_rule\s*\(", r"""decision\s*=\s*["'](?:forbidden|prompt)["']"""
	for path, text in read_all(config_folders(home, cwd), join("rules", "*.rules")):
		if len(re.findall(rule, text)) > len(re.findall(refusal, text)):
			yield path


def without_rules(version: Version, home: str, cwd: str, config: str) -> list[str]:
	"""Arguments by which no allow rule lets a command write. Raises Failure."""
	if version < (0, 99):  # before 0.65 there are no rules, and the key does no harm
		return ["-c", "features.exec_policy=false"]
	# Before 0.154, sub-agents do not inherit it.
	agents = (0, 125) <= version < (0, 154)
	ignored = version >= (0, 125) and not (agents and "config_file" in config)
	for path in allow_rules(home, cwd):
		if not ignored or path.startswith(MANAGED):
			raise Failure(
				f"Nothing was sent to Codex: this call must not write, but a rule in {path} "
				f"lets commands out of the sandbox. {USER}remove it, or {UPDATE}."
			)
	return (["--ignore-rules"] if version >= (0, 125) else []) + (
		["-c", "features.multi_agent=false"] if agents else []
	)


def given_trust(cwd: str, config: str) -> str:
	"""What `config` says about a directory or its repository's root, or ""."""
	folders = above(cwd)
	roots = [folder for folder in folders if exists(join(folder, ".git"))][:1]
	names = {json.dumps(path, ensure_ascii=False)[1:-1] for path in (cwd, folders[0], *roots)}
	found = re.search(rf"""["'](?:{"|".join(map(re.escape, names))})["']\s*(?:\]|=)[^[]*""", config)
	return one_line(found.group(), 200) if found else ""


def right_arguments(options: Options, version: Version, settings: Settings) -> list[str]:
	"""Arguments by which a turn has `options.sandbox` and no more. Raises Failure."""
	sandbox, cwd, home = options.sandbox, options.cwd, settings.home
	if sandbox is None:
		return []
	managed, *folders = config_folders(home, cwd)
	files = [
		*read_all([managed], "*config.toml"),
		*read_all(folders, "*config.toml" if settings.codex_args else "config.toml"),
	]
	config = "\n".join([*(text for _, text in files), *settings.codex_args])
	arguments = ["-s", sandbox]
	if sandbox in PROFILES:
		profile: str | None = PROFILES[sandbox]
		own_profile = r"""default_permissions["'\s]*=\s*["'](?!:)"""
		if version >= (0, 125) and re.search(own_profile, config):
			# `-s` would make Codex forget the user's permission profile.
			profile, arguments = settings.review_profile, []
			if not profile or sandbox != "read-only":
				raise Failure(
					"Nothing was sent to Codex: this call's sandbox would lift what the user's "
					"permission profile denies. Leave sandbox out; for calls that only read, "
					f"{USER.lower()}set CODEX_MCP_REVIEW_PROFILE to a profile that writes nothing."
				)
		# Managed requirements can disable either of these two systems.
		arguments += ["-c", f'default_permissions="{profile}"', "-c", 'approval_policy="never"']
		# A model that reviews approvals would let a command out of both.
		arguments += ["-c", 'approvals_reviewer="user"']
	if sandbox == "read-only":
		arguments += without_rules(version, home, cwd, config)
	writes = sandbox != "read-only" or exists(join(managed, "requirements.toml"))
	new = options.fork or not options.session
	saves = (0, 121) <= version < (0, 156) and new
	if writes and saves and not given_trust(cwd, config):
		# A new session that may write would make its directory trusted for good.
		folder = json.dumps(above(cwd)[0], ensure_ascii=False)
		arguments += ["-c", f'projects={{{folder}={{trust_level="untrusted"}}}}']
	return arguments


# ---- app-server: Codex's own index of sessions, and a turn in one that is open elsewhere ----

#: RFC 6455's example of a nonce and its proof, and a mask without effect: they protect proxies.
NONCE, PROOF, MASK = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", bytes(4)
#: The first bytes of whole frames. A fragment lacks FINAL, later ones the kind.
FINAL, TEXT, CLOSE, PING, PONG = 0x80, 0x81, 0x88, 0x89, 0x8A

Asking = Generator[Optional[Json], None, Json]


def snake_case(name: str) -> str:
	return re.sub("([A-Z])", lambda found: "_" + found.group(1).lower(), name)


class AppError(OSError):
	"""What else can go wrong with the app-server."""


class Refused(AppError):
	"""Its error answer to a request, which had no effect."""


def unfinished(turn: Json) -> bool:
	"""Whether a turn of the index still runs, or broke off."""
	return turn.get("status") == "interrupted" and not turn.get("completedAt")


def decode_message(line: Any) -> Json | None:
	try:
		message = load_clean(line.decode("utf-8", "replace"))
	except ValueError:
		return None
	return message if isinstance(message, dict) else None


class WebSocket:
	"""A client's WebSocket over a Unix socket. All methods raise OSError."""

	def __init__(self, path: str) -> None:
		import socket
		import stat

		if WINDOWS:
			raise AppError("it is not used on Windows")
		link, end = os.lstat(path), os.stat(path)
		if {link.st_uid, end.st_uid} != {os.geteuid()} or not stat.S_ISSOCK(end.st_mode):
			raise AppError("its control socket is no socket of this user's")
		self._incoming = self._messages()
		self._early: bytes | None = b""  # frames that must not come before its answer
		self._socket = socket.socket(socket.AF_UNIX)
		self._socket.settimeout(WITHDRAW)
		try:
			self._socket.connect(realpath(path))
			self._socket.sendall(
				b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade"
				b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + NONCE + b"\r\n\r\n"
			)
		except OSError:
			self.close()
			raise

	def close(self) -> None:
		self._socket.close()

	def send(self, data: bytes, kind: int = TEXT) -> None:
		size = len(data)
		short, more = (size, 0) if size < 126 else (126, 2) if size < 1 << 16 else (127, 8)
		head = bytes([kind, 0x80 | short]) + size.to_bytes(8, "big")[8 - more :]
		frame = head + MASK + data
		if self._early is None:
			self._socket.settimeout(WITHDRAW)
			self._socket.sendall(frame)
		else:
			self._early += frame

	def receive(self) -> Json:
		"""The message that comes within TICK, or {}."""
		for message in self._incoming:
			return message
		raise AppError("it closed the connection")

	def _messages(self) -> Iterator[Json]:
		head = b""
		while not head.endswith(b"\r\n\r\n") and len(head) < 1 << 16:
			head += yield from self._take(1)
		if not head.startswith(b"HTTP/1.1 101") or PROOF not in head:
			raise AppError("its control socket does not speak WebSocket")
		self._socket.sendall(self._early or b"")
		self._early = None
		parts, begin = b"", TEXT
		while True:
			kind, size = yield from self._take(2)
			# No use have other kinds, reserved bits and a mask (128 in the size).
			odd = kind not in (begin, begin - FINAL, CLOSE, PING, PONG) or size > 127
			if size in (126, 127):
				size = int.from_bytes((yield from self._take(2 if size == 126 else 8)), "big")
			if odd or len(parts) + size > MAX_EVENT:
				raise AppError("it sent a malformed or oversized frame")
			data = yield from self._take(size)
			if kind == CLOSE:
				return
			if kind == PING:
				self.send(data, PONG)
			elif kind != PONG:
				parts, begin = parts + data, FINAL
			if kind in (TEXT, FINAL):
				yield decode_message(parts) or {}
				parts, begin = b"", TEXT

	def _take(self, count: int) -> Generator[Json, None, bytes]:
		"""The next `count` bytes. Yields {} after each part, and each TICK without any."""
		import socket

		data = bytearray()
		while len(data) < count:
			self._socket.settimeout(TICK)
			try:
				if not (part := self._socket.recv(min(count - len(data), 1 << 16))):
					raise AppError("it closed the connection")
				data += part
			except socket.timeout:
				pass
			yield {}
		return bytes(data)


class Pipes(CodexRun):
	"""The pipes of an app-server of our own: one message a line."""

	decode = staticmethod(decode_message)
	ladder = Ladder(((0.0, "SIGTERM"), (1.0, "SIGKILL")))

	def __init__(self, codex: str, watch: Watch | None) -> None:
		# Else it fetches plugins, and old versions write to config.toml.
		quiet = ("-c", "features.plugins=false", "-c", 'personality="none"')
		super().__init__([codex, *quiet, "app-server"], os.sep, b"", watch)
		self._incoming: Any = self.events()

	def close(self) -> None:
		self._incoming.close()

	def send(self, message: bytes) -> None:
		self._unsent = memoryview(bytes(self._unsent) + message + b"\n")

	def receive(self) -> Json:
		ended = {"type": ENDED, "stderr": "", "ending": "before"}
		message: Json = next(self._incoming, ended) or {}
		if message.get("type") == ENDED:
			words = stderr_words(message["stderr"]) or "it gave no reason"
			raise AppError(f"it ended ({message['ending']}): {one_line(words, 300)}")
		return message


class AppServer:
	"""A client of the app-server. What talks raises OSError."""

	transport: Any = None
	patience = ANSWER
	_last_id = 0

	def received(self, message: Json) -> Events:
		return iter(())

	def receive(self) -> Asking:
		"""Yields None, and a message's events; returns it, or {} if none comes within TICK."""
		yield None
		message: Json = self.transport.receive()
		yield from self.received(message)
		return message

	def ask(self, method: str, **params: Any) -> Asking:
		"""Yields the events until the answer comes, and returns its result. Raises Refused."""
		self._last_id += 1
		request = {"id": self._last_id, "method": method, "params": params}
		self.transport.send(json.dumps(request).encode("ascii"))
		end = clock() + self.patience
		answer: Json = {}
		while repr(answer.get("id")) != str(self._last_id) or "method" in answer:
			if clock() > end:
				raise AppError(f"it did not answer {method}")
			answer = yield from self.receive()
			if answer.get("type") == TOO_LONG and params.pop("itemsView", None):
				return (yield from self.ask(method, **params))  # without the output of commands
		if "error" in answer:
			raise Refused(f"{method}: {one_line(text_in(answer, 'error', 'message'), 200)}")
		if not isinstance(answer.get("result"), dict):
			raise AppError(f"its answer to {method} is malformed")
		return answer["result"]

	def greet(self) -> Events:
		client = {"name": NAME, "title": NAME, "version": VERSION}
		yield from self.ask("initialize", clientInfo=client, capabilities={"experimentalApi": True})
		self.transport.send(b'{"method": "initialized"}')


class Sent(enum.Enum):
	"""What became of a message for another process, as a failure says it."""

	NOTHING = "Nothing was sent"
	OFFERED = "The message may still be answered there"
	TAKEN = "Codex may still be working on the message"
	WITHDRAWN = "The message was taken back, or its turn interrupted"
	OVER = ""


THERE = (
	"The session is open elsewhere (a `codex resume` window, an editor, the desktop app or another "
	"agent)"
)
FORK = "Pass fork: true to go on in a copy (Codex 0.148 or newer), or leave session_id out"


class LiveRun(AppServer, Run):
	"""One turn on the app-server that has the session open.

	The message goes through the queue there: `turn/start` would steer a turn that has just begun.
	Only the turn that took it, by its id, counts.
	"""

	def __init__(self, home: str, options: Options, prompt: str) -> None:
		self._home = home
		self.socket = join(home, "app-server-control", "app-server-control.sock")
		self._options, self._session = options, options.session or ""
		self._prompt, self._message_id = prompt, os.urandom(16).hex()
		self._sent = Sent.NOTHING
		self._active = False  # whether any turn runs in the session
		self._queued = self._turn_id = ""  # the ids of our message in the queue, and of its turn
		self._processes: dict[str, str] = {}
		self._usage: Json | None = None

	def events(self) -> Events:
		try:
			self.transport = self.transport or WebSocket(self.socket)
			try:
				yield from self._join()
				yield from self._submit()
				while self._sent is not Sent.OVER:
					yield from self.follow()
			finally:
				for _ in self._withdraw():
					pass
				self.transport.close()
		except FileNotFoundError:
			raise self._failure("it has no control socket here") from None
		except OSError as error:
			raise self._failure(str(error)) from None
		yield {"type": ENDED, "stderr": "", "ending": "where the session is open"}

	def follow(self) -> Events:
		if self._sent is Sent.OFFERED:
			yield say(f"Waiting for its turn in the open window of session {self._session}")
			try:
				# After an interrupted turn the queue stands still.
				if not self._active:
					yield from self._ask("thread/queue/start", queuedSubmissionId=self._queued)
			except Refused:
				pass
		yield from self.receive()

	def timed_out(self) -> Failure | None:
		if self._sent is Sent.NOTHING and self._active:
			return Busy("The user's own turn there did not end")
		over = self._sent in (Sent.WITHDRAWN, Sent.OVER)
		return None if over else self._failure("it did not end in time")

	def _failure(self, why: str) -> Failure:
		if self._sent is Sent.NOTHING:
			return Busy("Codex's app-server could not be used: " + why)
		return Failure(
			f"{THERE}, and no answer came (Codex's app-server: {why}). {self._sent.value}: look at "
			"the session before you repeat the message."
		)

	def _ask(self, method: str, **params: Any) -> Asking:
		return self.ask(method, threadId=self._session, **params)

	def _join(self) -> Events:
		yield from self.greet()
		# Asked first: the app-server would open a session that nobody has open.
		loaded = (yield from self.ask("thread/loaded/list")).get("data")
		if not isinstance(loaded, list) or self._session not in loaded:
			raise AppError("it does not have this session open")
		while True:  # asked again after each wait, as settings may have changed
			# Any further parameter would change them.
			session = yield from self._ask("thread/resume", excludeTurns=True)
			if text_in(session, "thread", "id") != self._session:
				raise AppError("it answered for another session")
			sandbox = self._check_rights(text_in(session, "sandbox", "type"), session)
			self._active = text_in(session, "thread", "status", "type") == "active"
			if not self._active:
				break
			yield say("Waiting for the turn running in the open window of session " + self._session)
			# What it told may be older than this answer, and nothing else may come.
			again = clock() + ASK_AGAIN
			while self._active and clock() < again:
				yield from self.receive()
		yield from self._begun()
		options = self._options
		for name, wanted, found in (
			("sandbox", options.sandbox, sandbox),
			("cwd", options.cwd, session.get("cwd")),
			("model", options.model, session.get("model")),
			("reasoning_effort", options.effort, session.get("reasoningEffort")),
		):
			if wanted and wanted != found:
				yield warning(f"There, {name} is {found or 'the configured one'}, not {wanted}.")

	def _check_rights(self, kind: str, session: Json) -> str:
		"""The session's sandbox. Raises Failure if a turn there could do more than it may."""
		most, found = SANDBOXES[-1], ""
		sandbox, limit = snake_case(kind).replace("_", "-"), self._options.sandbox or most
		sandbox = sandbox if sandbox in SANDBOXES else most
		if SANDBOXES.index(limit) < SANDBOXES.index(sandbox):
			found = "the sandbox " + sandbox
		elif limit in PROFILES and session.get("approvalsReviewer", "user") != "user":
			found = f"approvals by {session['approvalsReviewer']}"
		elif limit == "read-only":
			rules = allow_rules(self._home, text_in(session, "cwd") or self._options.cwd)
			found = next((f"a rule in {path} that lifts the sandbox" for path in rules), "")
		if found:
			raise self.refuse(found)
		return sandbox

	def refuse(self, found: str) -> Failure:
		return Failure(
			f"Nothing was sent. {THERE}, with {found}, and this call must have no more than "
			f"{self._options.sandbox}. {FORK}, or ask the user to close it there and call again in "
			"a minute."
		)

	def _begun(self) -> Events:
		yield {"type": "thread.started", "thread_id": self._session}
		yield warning(
			"This turn ran in the session that is open elsewhere, as in a `codex resume` window, "
			"with that session's own settings."
		)

	def _submit(self) -> Events:
		self._sent = Sent.OFFERED
		try:
			more = {"clientUserMessageId": self._message_id}
			text = [{"type": "text", "text": self._prompt}]
			yield from self._ask("thread/queue/add", input=text, **more)
		except Refused as refused:
			self._sent = Sent.NOTHING
			if "maximum length" in str(refused):
				raise Failure(f"{refused}\n{SHORTER}") from None
			raise

	def _withdraw(self) -> Events:
		"""Takes the message back, or stops its turn with the commands it runs."""
		end = clock() + WITHDRAW
		self.patience = WITHDRAW
		try:
			while self._sent in (Sent.OFFERED, Sent.TAKEN) and clock() < end:
				try:
					if self._sent is Sent.TAKEN:
						yield from self._ask("turn/interrupt", turnId=self._turn_id)
						self._sent = Sent.WITHDRAWN
					elif self._queued:
						message = {"queuedSubmissionId": self._queued}
						answer = yield from self._ask("thread/queue/delete", **message)
						if answer.get("deleted") is True:
							self._sent = Sent.WITHDRAWN
				except Refused:
					pass  # in its first moments a turn cannot be interrupted, and would then run on
				if self._sent is not Sent.WITHDRAWN:
					yield from self.receive()
			if self._turn_id and self._sent is not Sent.OVER:
				for process in filter(None, self._processes.values()):
					yield from self._ask("thread/backgroundTerminals/terminate", processId=process)
		except (OSError, Failure) as error:
			log(f"a turn in session {self._session} may not have been stopped: {error}")

	def received(self, message: Json) -> Events:
		method, params = text_in(message, "method"), object_in(message, "params")
		self._queued = text_in(message, "result", "queuedSubmission", "id") or self._queued
		if not method or text_in(params, "threadId") != self._session:
			return
		if "id" in message:  # a request: to approve is the person's right
			where, what = resume_command(self._home, self._session), text_in(params, "command")
			yield say(f"Codex asks for the user's approval in {where}: {what or method}")
		elif method == "thread/status/changed":
			self._active = text_in(params, "status", "type") == "active"
		elif method == "warning" and self._sent is not Sent.NOTHING:
			yield warning(text_in(params, "message"))
		elif method == "thread/settings/updated" and self._sent in (Sent.NOTHING, Sent.OFFERED):
			new = object_in(params, "threadSettings")
			self._check_rights(text_in(new, "sandboxPolicy", "type"), new)
		turn_id = text_in(params, "turnId") or text_in(params, "turn", "id")
		ours = text_in(params, "item", "clientId") == self._message_id
		if ours and method == "item/started" and self._sent is Sent.OFFERED:
			self._sent, self._turn_id = Sent.TAKEN, turn_id
			yield {"type": "turn.started"}
		if self._sent is Sent.TAKEN and turn_id == self._turn_id:
			yield from self._of_our_turn(method, params)

	def _of_our_turn(self, method: str, params: Json) -> Events:
		if method in ("item/started", "item/completed"):
			item = object_in(params, "item")
			if item.get("type") == "userMessage":
				return
			runs = text_in(item, "processId") if method == "item/started" else ""
			self._processes[text_in(item, "id")] = runs
			summary, kind = item.get("summary"), snake_case(text_in(item, "type"))
			text = "\n".join(map(str, summary)) if isinstance(summary, list) else item.get("text")
			yield {"type": method.replace("/", "."), "item": dict(item, type=kind, text=text)}
		elif method == "thread/tokenUsage/updated":
			total = object_in(params, "tokenUsage", "total")
			total.pop("totalTokens", None)
			self._usage = {snake_case(name): count for name, count in total.items()}
		elif method == "error":
			yield {"type": "error", "message": text_in(params, "error", "message")}
		elif method == "turn/completed":
			self._sent, status = Sent.OVER, text_in(params, "turn", "status")
			words = text_in(params, "turn", "error", "message") or f"the turn was {status} there"
			if status == "completed":
				yield {"type": "turn.completed", "usage": self._usage}
			else:
				yield {"type": "turn.failed", "error": {"message": words}}


class QueueRun(LiveRun):
	"""One turn in a session that any other process has open, through its queue of messages.

	The holder takes it within ten seconds, or after its turn. What becomes of it is read from
	Codex's index; it cannot be interrupted.
	"""

	def __init__(
		self, home: str, options: Options, prompt: str, pipes: Pipes, certain: bool
	) -> None:
		"""`certain` if the holder has had time to show that it stays."""
		super().__init__(home, options, prompt)
		self.transport, self._certain = pipes, certain
		self._due = 0.0  # when to withdraw the message
		self._told = self._gone = 0  # items of our turn; looks at which nobody had the session open

	def _join(self) -> Events:
		yield from self.greet()
		yield from self._look()
		if self._active and not self._certain:
			# A `codex exec` would take the message and drop it.
			raise Busy("A turn is running there")
		self._due = clock() + TAKE

	def follow(self) -> Events:
		end = clock() + LOOK
		while clock() < end:
			yield from self.receive()
		yield from self._look()
		self._gone = self._gone + 1 if is_held(self._home, self._session) is False else 0
		if self._sent is Sent.TAKEN:
			if self._gone > 2:
				raise AppError("whoever had the session open is gone")
		elif self._sent is Sent.OFFERED:
			yield say("Queued in the session that is open")
			if self._active:
				self._due = clock() + TAKE
			if self._gone or clock() > self._due:
				yield from self._withdraw()
				yield from self._look()
				if self._sent is Sent.WITHDRAWN:
					raise (Busy if self._gone else NobodyTook)("Nobody took the message")
				if self._sent is Sent.OFFERED:
					raise AppError("nobody answered the message, nor could it be withdrawn")

	def _withdraw(self) -> Events:
		if self._sent is Sent.OFFERED:
			yield from super()._withdraw()

	def _look(self) -> Events:
		more = {"itemsView": "full"} if self._sent is Sent.TAKEN else {}
		answer = yield from self._ask("thread/turns/list", limit=3, **more)
		turns = objects_in(answer, "data")
		last = turns[0] if turns else {}
		self._active = unfinished(last)
		for turn in turns:
			turn_id, items = text_in(turn, "id"), objects_in(turn, "items")
			for item in items:
				if self._sent is Sent.OFFERED and item.get("clientId") == self._message_id:
					self._sent, self._turn_id = Sent.TAKEN, turn_id
					yield from self._begun()
					yield {"type": "turn.started"}
					yield say("Codex is working on it where the session is open")
					return (yield from self._look())
			if self._sent is Sent.TAKEN and turn_id == self._turn_id:
				for item in items[self._told * (turn.get("itemsView") == "full") :]:
					yield from self._of_our_turn("item/completed", {"item": item})
				self._told = len(items)
				if turn.get("completedAt"):
					yield from self._of_our_turn("turn/completed", {"turn": turn})
				elif turn is not last:
					raise AppError("its turn has broken off")


# ---- codex: which of them runs a turn ----


class Codex:
	"""The Codex CLI of this machine. Any worker may call it."""

	def __init__(self, settings: Settings, locks_fd: Callable[[], int]) -> None:
		self._settings, self._locks_fd = settings, locks_fd
		self._pipe = os.pipe()[0] if not WINDOWS and exists("/bin/sh") else None
		self._versions: dict[Any, Version] = {}

	def version(self, codex: str) -> Version:
		"""An executable's version, such as (0, 169, 0); a huge one if it names none."""
		state = os.stat(codex)
		key = (codex, state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
		if key not in self._versions:
			found = re.search(r"(\d+)\.(\d+)\.(\d+)", ask_codex(codex, "--version")[1])
			known = tuple(map(int, found.groups())) if found else ()
			self._versions[key] = known if any(known) else (1 << 30,)
		return self._versions[key]

	def ask(self, control: Control, *questions: tuple[str, Json]) -> list[Json]:
		"""Answers from Codex's index. Raises OSError, Failure and Stopped."""
		codex, server = find_codex(self._settings.codex), AppServer()
		if self.version(codex) < (0, 125):
			raise Failure("That needs Codex 0.125 or newer.")
		server.transport = Pipes(codex, (self._pipe, self._pipe) if self._pipe else None)

		def talk() -> Generator[Any, None, list[Json]]:
			yield from server.greet()
			answers = []
			for method, params in questions:
				answers.append((yield from server.ask(method, **params)))
			return answers

		talking = talk()
		try:
			while True:
				next(talking)
				control.check()
		except StopIteration as end:
			return end.value
		finally:
			server.transport.close()

	def runs(self, options: Options, prompt: str, waited: float) -> Iterator[Run]:
		"""The ways to run a turn, each for when the one before raises Busy.

		`waited` is for how many seconds the session has been open; below 0, nobody takes messages.
		"""
		settings, cwd, home = self._settings, options.cwd, self._settings.home
		codex = find_codex(settings.codex)
		watch = (self._pipe, self._locks_fd()) if self._pipe else None
		version = self.version(codex) if options.sandbox or options.fork else ()
		if options.fork and version < (0, 148):
			raise Failure(f"fork needs Codex 0.148 or newer. {USER}{UPDATE}.")
		rights = right_arguments(options, version, settings)
		command = [codex, *exec_arguments(options, settings.codex_args, rights)]
		yield CodexRun(command, cwd, prompt.encode("utf-8"), watch)
		if options.session:
			live = LiveRun(home, options, prompt)
			yield live
			version, daemon = self.version(codex), os.path.lexists(live.socket)
			soon = 0 <= waited < GRACE
			if options.sandbox in PROFILES and not (soon and daemon):
				raise live.refuse("rights that cannot be seen from here")
			if soon:
				return  # to a `codex exec`, or a window that is just being opened
			if waited < 0 or version < (0, 149):
				freed = "at once" if version < (0, 157) else "within a minute"
				raise Failure(
					f"Nothing was sent. {THERE}. {FORK}, or call again when it is closed; it is "
					f"free {freed}."
				)
			yield QueueRun(home, options, prompt, Pipes(codex, watch), waited > TAKE)


# ---- sessions: who may use a session now ----


class Lines:
	"""A line of calls for each key: first come, first served, `capacity` at once."""

	def __init__(self, capacity: int) -> None:
		self._capacity = capacity
		self._lock = Lock()  # guards _lines
		self._lines: dict[str, list[Control]] = {}

	def join(self, key: str, call: Control) -> None:
		with self._lock:
			self._lines.setdefault(key, []).append(call)

	def wait(self, key: str, call: Control, reason: str) -> None:
		"""Waits until `call`, which is in line, is served. Raises Stopped."""
		while True:
			with self._lock:
				if call in self._lines[key][: self._capacity]:
					return
			call.progress.say(reason)
			call.pause(SILENCE)

	def first(self, key: str) -> Control | None:
		with self._lock:
			return self._lines.get(key, [None])[0]

	def leave(self, key: str, call: Control) -> None:
		with self._lock:
			line = self._lines[key]
			line.remove(call)
			for other in line[: self._capacity]:
				other.wake()
			if not line:
				del self._lines[key]


class Locks:
	"""Locks on sessions among this user's servers: on bytes of one file in the Codex home. They
	vanish with their holder, on Linux and Windows with its Codex. A session has two: its use, and
	being next, so that two busy servers take turns.
	"""

	def __init__(self, home: str) -> None:
		self._path = join(home, NAME + ".lock")
		self._fd = os.open(os.devnull, os.O_RDWR)  # below 10, as a Watch needs
		self._lock = Lock()  # guards _usable
		self._usable: bool | None = None

	def fd(self) -> int:
		self.lock("0", take=False)
		return self._fd

	@staticmethod
	def byte(session: str) -> int:
		return int(session.replace("-", ""), 16) % (1 << 29) * 2

	def lock(self, session: str, which: int = 0, take: bool = True) -> bool:
		"""Takes or gives a lock; false if another server has it."""
		byte = self.byte(session) + which
		with self._lock:
			try:
				if self._usable is None:
					flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
					file = os.open(self._path, flags, 0o600)
					os.dup2(file, self._fd, inheritable=False)
					os.close(file)
					self._usable = True
				return not self._usable or lock_byte(self._fd, byte, take)
			except FileNotFoundError:
				return True
			except OSError as error:
				self._usable = False
				log(f"other servers here are not waited for: {self._path}: {error.strerror}")
				return True


class Place:
	"""A call's place in a session: joined by the reader, waited for and left by the worker."""

	def __init__(self, lines: Lines, locks: Locks, session: str | None, control: Control) -> None:
		self._lines, self._locks, self._control = lines, locks, control
		self._session = session
		if session:
			lines.join(session, control)

	def wait(self) -> None:
		session, control, locks = self._session, self._control, self._locks
		if session:
			why = "Waiting for an earlier call on session " + session
			self._lines.wait(session, control, why)
			why = f"Waiting for session {session}, which another server on this machine is using"
			try:
				for which in (1, 0):
					while not locks.lock(session, which):
						control.progress.say(why)
						control.pause(TICK)
			finally:
				locks.lock(session, 1, take=False)

	def take(self, session: str, process: Any) -> None:
		if session != self._session:
			self.leave()
			self._session = session
			self._lines.join(session, self._control)
			self._locks.lock(session)
		lend_lock(self._locks.byte(session), process)

	def leave(self) -> None:
		if self._session:
			if self._lines.first(self._session) is self._control:  # else it never had the lock
				self._locks.lock(self._session, take=False)
			self._lines.leave(self._session, self._control)
			self._session = None


def session_directory(home: str, session: str) -> str:
	"""The directory in which a session was started; "" if its file does not tell."""
	import glob

	name = join("sessions", "*", "*", "*", f"rollout-*-{session}.jsonl")
	try:
		with open(glob.glob(join(glob.escape(home), name))[0], "rb") as file:
			return text_in(decode_message(file.readline(8 << 20)), "payload", "cwd")
	except (OSError, IndexError):
		return ""


# ---- prompts: the attribution line and the text of each tool ----

#: Codex's session picker shows 96 characters of a first message. This leaves 40 of the request.
ATTRIBUTION_LENGTH = 55


def attribution(client: str, tool: str, origin: str) -> str:
	"""The line that tells Codex, and the person, who sent a message and how."""
	client, origin = one_line(client, 200) or "of unknown name", one_line(origin, 200) or NAME
	room = ATTRIBUTION_LENGTH - len("AI agent  MCP /:")
	if len(client + origin + tool) > room:
		tool = tool[len("codex_") :]
	origin = one_line(origin, max(8, room - len(client + tool)))
	client = one_line(client, max(8, room - len(origin + tool)))
	return f"AI agent {client} MCP {origin}/{tool}:"


REVIEWER = """\
You are a strict, independent reviewer for the AI agent that sent this. Your reader is that agent, \
not a person: be direct and specific, without praise.
- Look at the repository in the working directory yourself. Do not trust the summary: check its \
claims against the files, the history and, where that is possible without writing, the tests.
- Edit nothing, create nothing, commit nothing. Only review.
- First line: the verdict, %s, and the one reason that decides. It tells the agent %s.
- Then list what blocks, separately from what is only advice. Leave out an empty list.
- Name what is missing, risky, unclear or untested, with file and line where you can, and what \
would settle it.
- Write in the language of the request above."""


# ---- tools: schemas, checked arguments, a turn to a tool result ----


class Tool(NamedTuple):
	"""One tool. `texts` are its own arguments: name, description, part of the prompt; the first
	`needed` are required. `output` is the field of Codex's reply, "" without a turn.
	"""

	name: str
	title: str
	description: str
	texts: tuple[tuple[str, str, str], ...]
	output: str = ""
	needed: int = 1
	aim: str = ""
	verdicts: tuple[str, ...] = ()

	def prompt(self, arguments: Json) -> str:
		if not self.verdicts:
			return arguments["prompt"]
		parts = [
			part.format(arguments[name].strip())
			for name, _, part in self.texts
			if arguments.get(name, "").strip()
		]
		verdicts = '"%s", "%s" or "%s"' % self.verdicts
		return "\n\n".join([*parts, "# Your task\n" + REVIEWER % (verdicts, self.aim)])


WAIT_FOR_IT = "For the answer, call codex_sessions with this session_id and wait_ms."
CARRY_ON = (
	" To continue, pass the answer's session_id to the next call of any codex tool. Give the user "
	"resume_command, which opens it in a terminal. A turn can take minutes."
)
REVIEWS = (
	" as a strict, independent reviewer. It gives a verdict, what blocks, and what is missing or "
	"risky. It edits nothing." + CARRY_ON
)

TOOLS = (
	Tool(
		"codex_chat",
		"Ask Codex",
		"Ask OpenAI's Codex, a second coding agent that can read the repository and run commands, "
		"for an opinion, an investigation, or work on files." + CARRY_ON,
		(("prompt", "The message, with everything Codex cannot find in the directory.", ""),),
		"reply",
	),
	Tool(
		"codex_guard_plan",
		"Have Codex criticise a plan",
		"Before you start work that is not trivial: Codex checks the plan against the repository"
		+ REVIEWS,
		(
			("requirements", "The goal, as the user stated it.", "{}"),
			("plan", "Steps, files, decisions, how it will be tested.", "# Plan\n{}"),
			("constraints", "What must hold or must not be touched.", "# Constraints\n{}"),
		),
		"critique",
		2,
		"whether to start",
		("GO WITH CHANGES", "GO", "STOP"),
	),
	Tool(
		"codex_guard_final",
		"Have Codex review a change",
		"Before you tell the user that work is done: Codex reviews the change in the repository"
		+ REVIEWS
		+ " Pass the session_id of the plan's review.",
		(
			("change_summary", "What was changed and why, with the files.", "{}"),
			("test_results", "Which checks were run and what they printed.", "# Test results\n{}"),
			("open_questions", "What you are not sure of.", "# Open questions\n{}"),
			(
				"base",
				"The git revision from which to judge the change, such as main or HEAD~3.",
				"# Base\nJudge everything that has changed since {0}, committed or not: "
				"`git log {0}..HEAD`, `git diff {0}`, and `git status` for new files.",
			),
		),
		"review",
		1,
		"whether the change is done",
		("DONE WITH REMARKS", "DONE", "NOT DONE"),
	),
	Tool(
		"codex_sessions",
		"Find Codex sessions and answers",
		"Find a lost session_id: lists the newest Codex sessions. With session_id: the last answer "
		"there, also one that nobody heard. It runs no turn.",
		(
			("session_id", "The session of which to show the last message and answer.", ""),
			("cwd", "The directory whose sessions to list. Without it: the server's.", ""),
		),
		needed=0,
	),
	Tool(
		"codex_stop",
		"Stop Codex in a session",
		"Stop what calls of this server do in a session, such as one with background: true.",
		(("session_id", "The session whose calls to stop.", ""),),
	),
)
SESSIONS, HALT = TOOLS[3:]

INSTRUCTIONS = """\
A second opinion from OpenAI's Codex CLI, in sessions that the user can open in a terminal.
Before work that is not trivial, call codex_guard_plan; before you say that it is done, \
codex_guard_final with the same session_id. Fix what blocks. For anything else, call codex_chat. \
Pass session_id to the next call on the same matter. Show the user the resume_command; you can \
continue the session afterwards.
Lost a session_id, or an answer? Call codex_sessions.
Long work, or a client with a short limit for calls? Pass background: true; it ends when you do."""

#: Arguments of all turns: name, pattern (not published, as "" leaves them out), description.
COMMON_ARGUMENTS = (
	("session_id", UUID, "The UUID of the session to continue. Without it a new one begins."),
	(
		"cwd",
		r"(?s)(/|[A-Za-z]:[\\/]|\\\\).*",
		"The absolute path of an existing directory to work in. Without it: the session's, or for "
		"a new one the server's.",
	),
	(
		"model",
		"[A-Za-z0-9][A-Za-z0-9._:/@+~=-]{0,199}",
		"The model for this call. Without it the user's configuration applies.",
	),
	(
		"reasoning_effort",
		"[a-z][a-z0-9_-]{0,31}",
		"The effort for this call, such as low. Without it the user's configuration applies.",
	),
)
PATTERNS = {
	"base": r"[A-Za-z0-9@_][A-Za-z0-9@_./^~{}+-]{0,199}",
	**{name: pattern for name, pattern, _ in COMMON_ARGUMENTS},
}


def turn_sandbox(tool: Tool, asked: str | None, settings: Settings) -> str | None:
	"""The sandbox to ask Codex for. Reviews are read-only, unless the operator wants none."""
	if tool.verdicts and settings.sandbox != "danger-full-access":
		return "read-only"
	return asked or settings.sandbox


def field(kind: str, description: str, **more: Any) -> Json:
	return {"type": kind, "description": description, **more}


def number(description: str, low: int, high: int, default: int) -> Json:
	text = f"{description}, from {low} to {high}. Without it: {default}."
	return field("integer", text, minimum=low, maximum=high)


def input_schema(tool: Tool, settings: Settings) -> Json:
	"""The JSON Schema of a tool's arguments, in keywords that all converters take."""
	fields = {name: field("string", text) for name, text, _ in tool.texts}
	if tool is SESSIONS:
		wait = "Milliseconds to wait while a call of this server runs in session_id"
		fields["all"] = field("boolean", "Whether to list those of all directories.")
		fields["limit"] = number("How many to list", 1, 50, 10)
		fields["wait_ms"] = number(wait, 0, MAX_TIMEOUT_MS, 0)
	if tool.output and not tool.verdicts:
		most = SANDBOXES.index(settings.sandbox or "workspace-write")
		default = settings.sandbox or "as the user's configuration says, or read-only"
		text = f"What Codex may do in this turn. Without it: {default}."
		fields["sandbox"] = field("string", text, enum=list(SANDBOXES[: most + 1]))
	if tool.output:
		fields.update((name, field("string", text)) for name, _, text in COMMON_ARGUMENTS)
		fork = (
			"Whether to go on in a copy of the session, with an id of its own. It works while "
			"somebody else has the session open."
		)
		begun = "Whether to answer as soon as Codex has begun. " + WAIT_FOR_IT
		limit = "Milliseconds until the call gives up"
		fields["fork"], fields["background"] = field("boolean", fork), field("boolean", begun)
		fields["timeout_ms"] = number(limit, MIN_TIMEOUT_MS, MAX_TIMEOUT_MS, settings.timeout_ms)
	required = [name for name, _, _ in tool.texts[: tool.needed]]
	return {"type": "object", "properties": fields, "required": required}


def output_schema(tool: Tool) -> Json:
	text = {"type": "string"}
	fields: Json = {
		"session_id": field("string", "Pass it to the next call to continue."),
		"resume_command": field("string", "For the user: opens the session in a terminal."),
	}
	required, verdicts = list(fields), [one.lower().replace(" ", "_") for one in tool.verdicts]
	if tool is HALT:
		fields["stopped"] = field("integer", "How many calls were stopped.")
	elif tool is SESSIONS:
		fields.update(dict.fromkeys(("state", "title", "agent", "cwd", "updated_at"), text))
		fields["archived"] = {"type": "boolean"}
		sessions = {"type": "object", "properties": dict(fields)}
		fields.update(dict.fromkeys(("asked", "reply", "verdict", "error"), text))
		fields["sessions"], required = {"type": "array", "items": sessions}, []
	else:
		fields.update(dict.fromkeys(("state", "next"), text))
		fields[tool.output] = field("string", f"Codex's {tool.output}.")
		fields["forked_from"] = field("string", "The session of which this is a copy.")
		fields["usage"] = field("object", "Tokens, cumulative over the session.")
	if verdicts:
		fields["verdict"] = field("string", "If the reply has a plain one.", enum=verdicts)
	fields["warnings"] = {"type": "array", "items": text}
	return {"type": "object", "properties": fields, "required": required}


def describe_tools(settings: Settings) -> list[Json]:
	described = []
	for tool in TOOLS:
		turn, title = bool(tool.output), tool.title
		writes = turn and turn_sandbox(tool, None, settings) != "read-only" or tool is HALT
		described.append(
			{
				"name": tool.name,
				"title": title,
				"description": tool.description,
				"inputSchema": input_schema(tool, settings),
				"outputSchema": output_schema(tool),
				"annotations": {
					"title": title,
					"readOnlyHint": not writes,
					"destructiveHint": writes,
					"idempotentHint": not turn,
					"openWorldHint": turn,
				},
				# for Claude Code
				"_meta": {
					"anthropic/maxResultSizeChars": 500_000,
					"anthropic/searchHint": "second opinion from Codex: " + title,
				},
			}
		)
	return described


BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def checked(schema: Json, arguments: Json) -> Json:
	"""The arguments without those that are null or empty. Raises Failure."""
	found: Json = {}
	problems, rules, needed = [], schema["properties"], schema["required"]
	for name, value in {**dict.fromkeys(needed), **arguments}.items():
		if name not in rules:
			problems.append(
				f"unknown argument {quoted(name)}; known are " + ", ".join(map(quoted, rules))
			)
			continue
		rule, choices = rules[name], rules[name].get("enum")
		kind, right = rule["type"], rule["description"]
		if name in ("sandbox", "session_id") and isinstance(value, str):
			value = value.strip().lower()
		if name not in needed:
			value = value.strip() if isinstance(value, str) else value
			if value in (None, ""):
				continue
			if kind == "integer" and re.fullmatch(r"[0-9]{1,9}(\.0*)?", str(value)):
				value = int(float(value))
			if kind == "boolean":
				value = BOOLEANS.get(str(value).lower(), value)
		if kind == "integer":
			good: Any = type(value) is int and rule["minimum"] <= value <= rule["maximum"]
		elif kind == "boolean":
			good = type(value) is bool
		else:
			kind, pattern = "non-empty string", PATTERNS.get(name, r"(?s).*\S.*")
			good = isinstance(value, str) and re.fullmatch("|".join(choices or [pattern]), value)
		found[name] = value
		if choices:
			right = "one of " + ", ".join(choices)
			if value in SANDBOXES:
				right += " (the operator can allow more: CODEX_MCP_SANDBOX)"
		if value is None:
			problems.append(f'missing argument "{name}": {right}')
		elif not good:
			kind = {"integer": "an integer", "boolean": "true or false"}.get(kind, "a " + kind)
			problems.append(f'argument "{name}" is {quoted(value)}, but takes {kind}: {right}')
	if problems:
		raise Failure("Nothing was sent to Codex: " + "; ".join(problems[:10]))
	return found


def tool_result(*parts: str | None, **more: Any) -> Json:
	"""A result with one text block: some clients show only the first."""
	return {"content": [{"type": "text", "text": "\n\n".join(filter(None, parts))}], **more}


def failure(text: str, session: str | None = None, home: str = "") -> Json:
	command = session and resume_command(home, session)
	told = command and f"session_id: {session}\nresume_command: {command}"
	return tool_result(text, told, isError=True)


class Call:
	error = "The server failed."

	def __init__(
		self, tool: Tool, arguments: Json, prompt: str, control: Control, place: Place
	) -> None:
		self.tool, self.arguments, self.prompt = tool, arguments, prompt
		self.control, self.place = control, place
		self.session: str | None = arguments.get("session_id")
		self.forked_from = self.session if arguments.get("fork") else None
		self.turn = Turn(self.session)
		self.notes: list[str] = []
		self.on_begun = lambda: None

	def own_session(self) -> str | None:
		"""The session of its turn, if that is known."""
		return self.turn.session or (None if self.forked_from else self.session)


def keep(kept: Dict[str, Any], session: str, value: Any) -> None:
	"""Keeps the newest of a session, for MAX_RECALLED sessions."""
	kept.pop(session, None)
	kept[session] = value
	for old in list(kept)[:-MAX_RECALLED]:
		kept.pop(old, None)


def given(values: Json) -> Json:
	return {name: value for name, value in values.items() if value not in (None, "")}


def line_of(values: Json) -> str:
	return " | ".join(f"{name}: {value}" for name, value in given(values).items())


def success(head: Json, *parts: str, **more: Any) -> Json:
	"""A result. The session comes first: some clients cut the end off."""
	warned = "\n".join("warning: " + text for text in more.get("warnings") or ())
	return tool_result(line_of(head), *parts, warned, structuredContent=given({**head, **more}))


def verdict_in(reply: str, verdicts: tuple[str, ...]) -> str:
	return next(filter(None, (verdict_of(part, verdicts) for part in reply.split("\n\n"))), "")


def last_words(reply: str | None) -> str:
	return f"\n\nCodex's last words in this turn:\n{reply}" if reply else ""


def signed(message: str) -> tuple[str, str, tuple[str, ...]]:
	"""Who sent a message by its attribution, the rest, and the verdicts that it asks for."""
	line = re.match(r"AI agent (.*) MCP .*/(\w+):\n", message)
	if not line:
		return "", message, ()
	verdicts = (one.verdicts for one in TOOLS if one.name.endswith(line[2]))
	return line[1], message[line.end() :], next(verdicts, ())


def utc(seconds: Any) -> str:
	"""A time as ISO 8601 has it, or ""."""
	good = type(seconds) in (int, float) and 0 < seconds < 1e10
	return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if good else ""


def indexed(thread: Json) -> Json:
	"""A session of Codex's index, for an entry."""
	return dict(
		message=text_in(thread, "preview"),
		name=text_in(thread, "name"),
		cwd=text_in(thread, "cwd"),
		updated_at=utc(thread.get("updatedAt")),
		archived=f"{os.sep}archived_sessions{os.sep}" in text_in(thread, "path") or None,
	)


def last_of(turn: Json, elsewhere: bool) -> tuple[str, str, str]:
	"""The last message of a turn in Codex's index, the answer, and why there is none."""
	folded, message = Turn(), ""
	folded.fold({"type": "turn.started"})
	for item in objects_in(turn, "items"):
		if item.get("type") == "userMessage":
			message = "\n".join(text_in(part, "text") for part in objects_in(item, "content"))
		elif item.get("type") == "agentMessage":
			folded.fold({"type": "item.completed", "item": dict(item, type="agent_message")})
	folded.verdicts = signed(message)[2]
	reply, status = folded.reply or "", text_in(turn, "status")
	if not turn or elsewhere and unfinished(turn):
		return message, "", ""
	if reply and status == "completed":
		return message, reply, ""
	error = codex_words(text_in(turn, "error", "message")) or f"No answer: the turn is {status}."
	return message, "", error + last_words(reply)


class ToolRunner:
	"""Runs tool calls: `accept` for the reader, `perform` for workers."""

	def __init__(self, settings: Settings) -> None:
		self._settings, self._home = settings, settings.home
		self._locks = Locks(settings.home)
		self._codex = Codex(settings, self._locks.fd)
		self._sessions, self._processes = Lines(1), Lines(settings.max_parallel)
		self._asking = Lines(2)
		self._changed = Condition()  # guards the next three
		self._calls: list[Call] = []
		#: By session: when the last turn ended, its message, the answer, and why there is none.
		self._last: dict[str, tuple[float, tuple[str, str, str]]] = {}
		self._closed = False
		self._told: set[str] = set()
		self._opened: dict[str, Json] = {}
		self._nested: bool | None = None

	def accept(
		self, tool: Tool, arguments: Json, client: str, send: Callable[[str], None] | None
	) -> Call:
		"""Takes a call and its place, until `perform` or `abandon`. Raises Failure."""
		settings = self._settings
		if settings.problems:
			problems = "; ".join(settings.problems)
			raise Failure("This server's environment is misconfigured. Tell the user: " + problems)
		arguments = checked(input_schema(tool, settings), arguments)
		if self._nested is None:
			self._nested = inside(MARKER)
		if self._nested:
			raise Failure(
				f"You are the Codex that {NAME} itself started. Work on your own: a call would "
				"start another one, without end."
			)
		session, fork = arguments.get("session_id"), arguments.get("fork")
		if fork and not session:
			raise Failure("Nothing was sent to Codex: fork needs the session_id of the original.")
		timeout_ms, prompt = 60_000 + arguments.get("wait_ms", 0), ""
		if tool.output:
			timeout_ms = arguments.get("timeout_ms", settings.timeout_ms)
			line = attribution(client, tool.name, settings.origin)
			prompt = f"{line}\n{well_formed(tool.prompt(arguments))}"
		control = Control(timeout_ms / 1000, Progress(send))
		with self._changed:
			if len(self._calls) >= MAX_CALLS:
				raise Failure(f"This server already has {MAX_CALLS} calls waiting.")
			# A copy is a session of its own.
			joined = None if fork or not tool.output else session
			place = Place(self._sessions, self._locks, joined, control)
			call = Call(tool, arguments, prompt, control, place)
			self._calls.append(call)
		return call

	def perform(self, call: Call) -> tuple[Json, str, str | None]:
		"""Runs a call: its result, a word for the log, the session if known."""
		lost = not call.tool.output
		try:
			if call.tool is HALT:
				return self._stop(call), "ok", call.session
			if call.tool is SESSIONS:
				return (self._look if call.session else self._list)(call), "ok", call.session
			call.place.wait()
			self._run(call, self._options(call))
			if call.tool.verdicts and 0 < call.turn.commands <= call.turn.blocked:
				raise Failure(f"No command of this review ran, so it is a guess. {BLOCKED}.")
			news = call.notes + [text for text in call.turn.warnings if text not in self._told]
			self._told.update(filter(NOTICE.match, news))
			call.error, reply = "", call.turn.reply or ""
			session, verdict = call.turn.session or "", verdict_in(reply, call.tool.verdicts)
			head = self._head(session, forked_from=call.forked_from, verdict=verdict)
			more = {call.tool.output: reply, "usage": call.turn.usage, "warnings": news or None}
			return success(head, reply, **more), "ok", session
		except Failure as error:
			call.error, ending = str(error), "failed"
			lost = lost or isinstance(error, Lost)
		except Stopped as stop:
			ending, late = stop.reason.name.lower(), stop.reason is Reason.TIMEOUT
			why = f"No answer within {call.control.timeout}" if late else "The call was stopped"
			why += " by codex_stop" if stop.reason is Reason.STOPPED else ""
			seen, then = one_line(call.control.progress.latest, 200), "Codex had not begun."
			if call.turn.state is not State.WAITING:
				then = "Codex was stopped; what it did stays in the session."
			again = " Call again with a larger timeout_ms." if late else ""
			call.error = f"{why}. The last that was seen: {seen}. {then}{again}"
		finally:
			call.error = call.error and call.error + last_words(call.turn.reply)
			self.abandon(call)
		known = call.turn.session or call.session
		return failure(call.error, None if lost else known, self._home), ending, known

	def begun(self, call: Call) -> Json:
		head = self._head(call.turn.session or "", forked_from=call.forked_from)
		return success({**head, "state": "running", "next": WAIT_FOR_IT})

	def _head(self, session: str, **more: Any) -> Json:
		return {
			"session_id": session,
			"resume_command": resume_command(self._home, session),
			**more,
		}

	def abandon(self, call: Call) -> None:
		call.place.leave()
		session, now = call.own_session() or "", time.time()
		with self._changed:
			self._calls.remove(call)
			if call.turn.state is not State.WAITING:
				reply = "" if call.error else call.turn.reply or ""
				keep(self._last, session, (now, (call.prompt[:2200], reply, call.error)))
			self._opened.get(session, {})["updated_at"] = utc(now)
			for other in self._calls:
				if not other.tool.output:
					other.control.wake()
			self._changed.notify_all()

	def close(self, patience: float) -> None:
		"""Stops all calls, and waits `patience` seconds for them to end."""
		with self._changed:
			self._closed = True
			for call in self._calls:
				call.control.stop(Reason.SHUTDOWN)
			self._changed.wait_for(lambda: not self._calls, patience)

	def _in(self, session: str) -> list[Call]:
		with self._changed:
			return [
				call for call in self._calls if call.tool.output and call.own_session() == session
			]

	def _stop(self, call: Call) -> Json:
		session = call.session or ""
		calls = self._in(session)
		for one in calls:
			one.control.stop(Reason.STOPPED)
		while not set(calls).isdisjoint(self._in(session)):
			call.control.pause(1.0)
		return success(self._head(session, stopped=len(calls)))

	def _ask(self, control: Control, *questions: tuple[str, Json]) -> list[Json]:
		self._asking.join("", control)
		try:
			self._asking.wait("", control, "Waiting for other questions to Codex")
			return self._codex.ask(control, *questions)
		except OSError as error:
			advice = CHECK_ID if isinstance(error, Refused) else "Call again later."
			raise Failure(f"Codex's app-server could not be asked: {error}. {advice}") from None
		finally:
			self._asking.leave("", control)

	def _read(self, control: Control, session: str) -> tuple[Json, Json]:
		"""A session and its last turn. Raises Failure and Stopped."""
		read, turns = self._ask(
			control,
			("thread/read", {"threadId": session, "includeTurns": False}),
			("thread/turns/list", {"threadId": session, "limit": 1, "itemsView": "full"}),
		)
		thread, turn = object_in(read, "thread"), [*objects_in(turns, "data"), {}][0]
		if thread.get("id") != session:
			raise Failure("Codex's app-server answered for another session.")
		return thread, turn

	def _entry(self, session: str, message: str = "", name: str = "", **more: Any) -> Json:
		agent, request, _ = signed(message)
		state = "open_elsewhere" if is_held(self._home, session) else "idle"
		state = "running" if self._in(session) else state
		title = one_line(name or request, 120)
		return given(self._head(session, state=state, title=title, agent=agent, **more))

	def _list(self, call: Call) -> Json:
		wanted, warnings, limit = call.arguments, [], call.arguments.get("limit", 10)
		cwd = "" if wanted.get("all") else wanted.get("cwd", self._settings.cwd)
		question = {
			"limit": limit,
			"sortKey": "updated_at",
			"sourceKinds": ["cli", "vscode", "exec", "appServer"],
			"modelProviders": [],
			"useStateDbOnly": True,  # else it reads their files
			"cwd": cwd or None,
		}
		both = [("thread/list", dict(question, archived=archived)) for archived in (False, True)]
		found = {
			session: opened
			for session, opened in reversed(list(self._opened.items()))
			if not cwd or realpath(cwd) == realpath(opened["cwd"])
		}
		try:
			for answer in self._ask(call.control, *both):
				for thread in objects_in(answer, "data"):
					if re.fullmatch(UUID, text_in(thread, "id")):
						found[thread["id"]] = indexed(thread)
		except Failure as error:
			warnings.append(f"Only sessions that this server has opened are listed. {error}")
		newest = sorted(found, key=lambda one: text_in(found[one], "updated_at"), reverse=True)
		entries = [self._entry(one, **found[one]) for one in newest[:limit]]
		lines = [f"{one.get('title', '')}\n  {line_of(one)}" for one in entries]
		return success(
			{},
			f"Sessions of {cwd or 'all directories'}: {len(entries) or 'none'}",
			"\n".join(lines),
			warnings=warnings or None,
			sessions=entries,
		)

	def _look(self, call: Call) -> Json:
		session, control = call.session or "", call.control
		end = clock() + call.arguments.get("wait_ms", 0) / 1000
		while (active := self._in(session)) and clock() < end:
			doing = active[0].control.progress.latest
			control.progress.say(f"Waiting for session {session}: {doing}")
			control.pause(min(GAP, end - clock()))
		warnings: list[str] = []
		turn: Json = {}
		known = self._opened.get(session, {})
		if not active or not known:
			try:
				thread, turn = self._read(control, session)
				known = indexed(thread)
			except Failure as failed:
				if session not in self._last and not active:
					raise
				warnings.append(f"What others did there is not known. {failed}")
		entry = self._entry(session, **known)
		message, reply, error = last_of(turn, entry["state"] == "open_elsewhere")
		active = self._in(session)
		started, completed = (
			one if type(one) is int else 0 for one in map(turn.get, ("startedAt", "completedAt"))
		)
		entry["state"] = "running" if active else entry["state"].replace("running", "idle")
		ended, mine = self._last.get(session, (0.0, ("", "", "")))
		if active:
			message, reply, error = active[0].prompt, "", ""
		elif ended > completed and started < int(ended) + (message[:2200] in ("", mine[0])):
			message, reply, error = mine
		_, asked, verdicts = signed(message)
		last = {"asked": asked[:2000], "reply": reply, "error": error}
		return success(
			{**entry, "verdict": verdict_in(reply, verdicts)},
			*map("{}: {}".format, given(last), given(last).values()),
			warnings=warnings or None,
			**last,
		)

	def _run(self, call: Call, options: Options) -> None:
		pause, tries, control = 0.5, 0, call.control
		since: float | None = None  # the session was seen to be open elsewhere
		taken = True  # unless nobody there took a message
		say = control.progress.say
		try:
			while True:
				self._processes.join("", control)
				try:
					self._processes.wait(
						"", control, "Waiting for another Codex to end (CODEX_MCP_MAX_PARALLEL)"
					)
					waited = (clock() - since if since else 0.0) if taken else -1.0
					for run in self._codex.runs(options, call.prompt, waited):
						try:
							return self._drive(run, call, options)
						except Busy as busy:
							since, taken = since or clock(), not isinstance(busy, NobodyTook)
							log(f"session {call.session} is open elsewhere: {busy}")
				except TryAgain:
					tries += 1
					if tries > 3:
						raise
					say("Waiting for another Codex that is starting")
					control.pause(tries * (0.5 + os.urandom(1)[0] / 256))
				finally:
					self._processes.leave("", control)
				if since:
					say(f"Waiting for session {call.session}, which is open elsewhere")
					control.pause(pause)
					pause = min(pause * 2, 15.0)
		except Stopped as stop:
			waiting = since and call.turn.state is State.WAITING
			if not waiting or stop.reason is not Reason.TIMEOUT:
				raise
		raise Failure(
			f"Nothing was sent. {THERE}, and was not free within {control.timeout}. {FORK}, or "
			"call again when it is closed."
		)

	def _drive(self, run: Run, call: Call, options: Options) -> None:
		expected = None if options.fork else options.session
		call.turn = turn = Turn(expected, options.sandbox, call.tool.verdicts)
		over: float | None = None
		progress, events = call.control.progress, run.events()  # type: Progress, Any
		progress.say("Starting Codex")
		try:
			if self._closed:
				raise Stopped(Reason.SHUTDOWN)
			for event in events:
				if event is not None:
					text, known = turn.fold(event), turn.session
					if event["type"] == "thread.started" and known:
						call.place.take(known, run.process)
						command = resume_command(self._home, known)
						progress.say(f"Codex is working ({command})", at_once=True)
					if event["type"] == "turn.started" and known:
						if not expected:
							opened = {"message": call.prompt[:999], "cwd": options.cwd}
							keep(self._opened, known, dict(opened, updated_at=utc(time.time())))
						call.on_begun()
					if text:
						progress.say(text)
					run.ladder = FINISHED if turn.state is State.COMPLETED else STOP
					continue
				now, busy = clock(), turn.state in (State.WAITING, State.RUNNING)
				if busy:
					call.control.check()
				over = None if busy and not turn.answers else over or now
				if over and now > over + (FURTHER if busy else LEAVE):
					break
		except Failure:
			run.ladder = REFUSED
			raise
		except Stopped as stop:
			late = stop.reason is Reason.TIMEOUT
			if not turn.answers or not late:
				run.ladder = LEAVING if stop.reason is Reason.SHUTDOWN else STOP
				events.close()
				raise (late and run.timed_out()) or stop from None
		finally:
			events.close()
		turn.result()

	def _directory(self, call: Call, session: str) -> str:
		"""Where a session was started; "" if nobody knows, or need know."""
		own = text_in(self._opened, session, "cwd") or session_directory(self._home, session)
		if own or call.arguments.get("cwd") and not self._settings.roots:
			return own
		try:
			own = text_in(self._read(call.control, session)[0], "cwd")
		except Failure as failed:
			log(f"the directory of session {session}: {failed}")
		if not own:
			cwd = call.arguments.get("cwd") or self._settings.cwd
			call.notes.append(f"The directory of this session is not known; it ran in {cwd}.")
		return own

	def _options(self, call: Call) -> Options:
		given, session, settings = call.arguments, call.session, self._settings
		sandbox = turn_sandbox(call.tool, given.get("sandbox"), settings)
		own = session and self._directory(call, session)
		started, problem, roots = "the directory of this session", "", settings.roots
		where, cwd = "the working directory of this server", settings.cwd
		for name, path in ((started, own), ("cwd", given.get("cwd"))):
			if path:
				where, cwd = name, path
		# What is written there decides what shells and later turns do.
		homes = above(settings.home) + above(expanduser("~"))
		if not isabs(cwd) or not isdir(cwd):
			problem = "not an existing directory. Give another one as cwd"
		elif sandbox == "workspace-write" and realpath(cwd) in homes:
			problem = "no workspace to write in. Give a project as cwd, or sandbox read-only"
		for name, path in ((where, cwd), (started, own if session else cwd)):
			if roots and not problem and not (path and set(roots) & set(above(path))):
				where, cwd = name, path or "not known"
				problem = (
					f"outside {' or '.join(roots)} (CODEX_MCP_ROOTS). Use a cwd in there, "
					"and a session that was started there, or none"
				)
		if problem:
			raise Failure(
				f"Nothing was sent to Codex: {where} is {quoted(cwd)}, which is {problem}."
			)
		model, effort = given.get("model"), given.get("reasoning_effort")
		return Options(cwd, session, model, effort, sandbox, given.get("fork", False))


# ---- server: both protocol eras, requests in flight, cancellation, progress, shutdown ----

META = "io.modelcontextprotocol/"
REVISION, ABILITIES, CLIENT, INFO = (
	META + name for name in ("protocolVersion", "clientCapabilities", "clientInfo", "serverInfo")
)
SERVER = {"name": NAME, "title": "Codex, in persistent sessions", "version": VERSION}
ABOUT: Json = {"capabilities": {"tools": {}}, "instructions": INSTRUCTIONS}
CACHED = {"ttlMs": 300_000, "cacheScope": "private"}

Answer = Callable[[Json], None]


class Server:
	"""MCP, by each message's `_meta` or, in the legacy era, by `initialize`.

	The lock guards `_in_flight`, by id: who takes a call out has the last word on it.
	"""

	def __init__(self, settings: Settings, send: Callable[[Any], None]) -> None:
		self._runner, self._home = ToolRunner(settings), settings.home
		self._tools, self._send = describe_tools(settings), send
		self._client, self._lock = "", Lock()
		self._in_flight: dict[Any, Call] = {}

	def receive(self, line: bytes | None) -> None:
		"""Takes a line from the client, None for one too long. Never raises."""
		request_id, taken = None, False
		try:
			if line is None:
				raise invalid_request(f"a line of over {MAX_MESSAGE} bytes")
			value = decode_line(line)
			if is_id(value_in(value, "id")):
				request_id = value["id"]
			with self._lock:
				taken = request_id in self._in_flight
			message = read_message(value)
			if message and message.id is None:
				cancelled = message.params.get("requestId")
				if message.method == "notifications/cancelled" and is_id(cancelled):
					if (call := self._in_flight.get(cancelled)) and self._take(cancelled, call):
						call.control.stop(Reason.CANCELLED)
			elif message and taken:
				raise invalid_request("a request with this id is still in flight")
			elif message:
				self._dispatch(message)
		except Exception as error:
			if not isinstance(error, RpcError):
				log(f"internal error: {error!r}")
				error = RpcError(INTERNAL_ERROR, f"Internal error: {error!r}")
			# With the id of one in flight, it would answer that.
			self._send(error.response(None if taken else request_id))

	def close(self, patience: float) -> None:
		with self._lock:
			self._in_flight.clear()
		self._runner.close(patience)

	def _dispatch(self, message: Message) -> None:
		method, params = message.method, message.params
		meta = object_param(params, "_meta")
		modern = method == "server/discover" or (
			method != "initialize" and not {REVISION, ABILITIES, CLIENT}.isdisjoint(meta)
		)
		if modern:
			self._check_modern(meta)

		def answer(result: Json) -> None:
			if modern:
				result = {**result, "resultType": "complete", "_meta": {INFO: SERVER}}
			self._send({"jsonrpc": "2.0", "id": message.id, "result": result})

		if method == "tools/call":
			client = text_in(meta, CLIENT, "name") if modern else self._client
			self._call_tool(message, meta.get("progressToken"), client, answer)
		elif method == "tools/list":
			if params.get("cursor") not in (None, ""):
				raise invalid_params('there is only one page: leave out "cursor"')
			answer({"tools": self._tools, **(CACHED if modern else {})})
		elif method == "server/discover":
			answer({"supportedVersions": MODERN_REVISIONS, **ABOUT, **CACHED})
		elif method == "initialize":
			revision = params.get("protocolVersion")
			if not isinstance(revision, str):
				raise invalid_params('"protocolVersion" must be a string')
			revision = revision if revision in LEGACY_REVISIONS else LEGACY_REVISIONS[0]
			self._client = text_in(params, "clientInfo", "name")
			answer({"protocolVersion": revision, "serverInfo": SERVER, **ABOUT})
		elif method == "ping" and not modern:
			answer({})
		else:
			raise RpcError(METHOD_NOT_FOUND, f"Method not found: {one_line(method, 100)}")

	def _check_modern(self, meta: Json) -> None:
		asked, abilities = meta.get(REVISION), meta.get(ABILITIES)
		if isinstance(asked, str) and asked not in MODERN_REVISIONS:
			data = {"supported": MODERN_REVISIONS, "requested": asked}
			raise RpcError(UNSUPPORTED_REVISION, "Unsupported protocol version", data=data)
		if not isinstance(asked, str) or not isinstance(abilities, dict):
			raise invalid_params(f'"_meta" needs a string {REVISION} and an object {ABILITIES}')

	def _call_tool(self, message: Message, token: Any, client: str, answer: Answer) -> None:
		name, told = message.params.get("name"), 0
		tool = next((one for one in TOOLS if one.name == name), None)
		if tool is None:
			known = ", ".join(one.name for one in TOOLS)
			raise RpcError(INVALID_PARAMS, f"Unknown tool: {quoted(name)}; there are {known}")
		arguments = object_param(message.params, "arguments")

		def tell(text: str) -> None:
			nonlocal told
			told += 1
			sent = {"progressToken": token, "progress": told, "message": text}
			what = {"jsonrpc": "2.0", "method": "notifications/progress", "params": sent}
			with self._lock:
				if self._in_flight.get(message.id) is call:
					self._send(what)

		try:
			call = self._runner.accept(tool, arguments, client, tell if is_id(token) else None)
		except Failure as refusal:
			return answer(failure(str(refusal)))
		with self._lock:
			self._in_flight[message.id] = call
		work = Thread(target=self._work, args=(message.id, call, answer), daemon=True)
		try:
			work.start()
		except RuntimeError:
			self._runner.abandon(call)
			self._take(message.id, call)
			answer(failure("This server is out of threads: call again later."))

	def _work(self, request_id: Any, call: Call, answer: Answer) -> None:
		begin, session = clock(), call.session

		def respond(result: Json) -> None:
			call.control.progress.settle()
			if self._take(request_id, call):
				try:
					answer(result)
				except (ValueError, RecursionError) as error:
					answer(failure(f"The answer cannot be sent ({error!r}).", session, self._home))

		if call.arguments.get("background"):
			call.on_begun = lambda: respond(self._runner.begun(call))
		try:
			result, ending, session = self._runner.perform(call)
		except Exception as error:
			ending = f"internal error: {error!r}"
			result = failure(f"The server failed ({ending}). If it keeps failing, tell the user.")
		respond(result)
		spent = clock() - begin
		log(f"{call.tool.name}, session {session or 'none'}, {spent:.1f} s, {ending}")

	def _take(self, request_id: Any, call: Call) -> bool:
		with self._lock:
			if mine := self._in_flight.get(request_id) is call:
				del self._in_flight[request_id]
			return mine


# ---- command line ----


def serve(settings: Settings) -> None:
	"""Serves MCP until the input ends, nobody reads, or a signal comes."""
	while os.open(os.devnull, os.O_RDWR) < 3:
		pass
	os.closerange(3, 10)  # a Watch needs numbers below 10
	# A byte in this pipe means: leave. Signals write it in C, so no handler interrupts.
	wake_read, wake_write = os.pipe()
	if not WINDOWS:
		os.set_blocking(wake_write, False)
		for fd in (0, 1):  # as the client may not have left them
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
							return
		except OSError:
			pass
		finally:
			leave()

	Thread(target=read, name="reader", daemon=True).start()
	log(f"version {VERSION}, serving MCP on standard input and output")
	os.read(wake_read, 1)
	server.close(0.4)
	writer.drain(0.1)
	os._exit(0)  # without waiting for workers that hang on a pipe


def check_codex(settings: Settings) -> Iterator[tuple[bool, str, str, str]]:
	"""Lines of `--check`: whether it is good, what, a text, and what to add if not."""
	codex, home, cwd = find_codex(settings.codex), settings.home, settings.cwd
	good, words = ask_codex(codex, "--version")
	yield good, "Codex", f"{codex}, {words}", ". Install it again: npm install -g @openai/codex"
	if not good:
		return
	good, words = ask_codex(codex, "login", "status")
	config = "\n".join(text for _, text in read_all([home], "config.toml"))
	provider = re.search(r"""(?m)^model_provider\s*=\s*["'](?!openai["']).+?["']""", config)
	if not good and os.environ.get("CODEX_API_KEY"):
		good, words = True, words + "; but CODEX_API_KEY is set: the client must pass it on"
	elif not good and provider:
		good, words = True, f"{words}; but config.toml has {provider.group()}"
	yield good, "login", words, ". Run: codex login"
	if not isdir(cwd):
		return
	version = Codex(settings, lambda: 0).version(codex)
	for who, tool in (("guards", TOOLS[1]), ("codex_chat", TOOLS[0])):
		good, options = True, Options(cwd, sandbox=turn_sandbox(tool, None, settings))
		try:
			words = " ".join(right_arguments(options, version, settings))
		except Failure as refusal:
			good, words = False, str(refusal)
		yield good, "rights of " + who, words or "as Codex's configuration says", ""
	windows = "hold their sessions until they are closed"
	if version < (0, 147):
		windows = "do not see the agent's turns until they are opened again"
	elif version >= (0, 149):
		windows = "take the agent's messages"
	managed = join(MANAGED, "requirements.toml")
	for what, text in (
		("windows of `codex resume`", windows),
		("rules that lift a sandbox", ", ".join(allow_rules(home, cwd))),
		("managed requirements", managed if exists(managed) else ""),
		("trust of the directory", given_trust(cwd, config)),
	):
		yield True, what, text or "none", ""
	command = [{"darwin": "macos", "win32": "windows"}.get(sys.platform, sys.platform)]
	if version >= (0, 142):
		command = ["-P", ":read-only", "-C", cwd, "--include-managed-config"]
	nothing = [os.environ.get("COMSPEC", "cmd"), "/c", "exit"] if WINDOWS else ["true"]
	good, words = ask_codex(codex, "sandbox", *command, "--", *nothing)
	words = "can run here" if good else f"cannot run here: {words}"
	remedy = "; in a container that is one itself, set CODEX_MCP_SANDBOX=danger-full-access"
	yield good, "sandboxed commands", words, f". {ALLOW_SANDBOXES}{remedy}"


def run_check(settings: Settings) -> int:
	home, cwd = settings.home, settings.cwd
	lines = [(True, "Python", f"{sys.version.split()[0]}, {sys.executable}", "")]
	try:
		lines += check_codex(settings)
	except Failure as refusal:
		lines.append((False, "Codex", str(refusal), ""))
	writable = isdir(home) and os.access(home, os.W_OK | os.X_OK)
	remedy = " is not a writable directory. Run codex once, or set CODEX_HOME"
	lines.append((writable, "Codex home", home, remedy))
	remedy = " is not there. Set CODEX_MCP_CWD"
	lines.append((isdir(cwd), "working directory", cwd, remedy))
	for name, default, _ in VARIABLES:
		wrong = "".join(text for text in settings.problems if text.startswith(name + " "))
		given = os.environ.get(name)
		value = f"{given} (environment)" if given else f"{default or 'not set'} (default)"
		lines.append((not wrong, name, wrong or value, ""))
	print(f"{NAME} {VERSION}")
	for good, what, text, remedy in lines:
		print(f"{'ok' if good else 'FAIL':5} {what:28} {text}{'' if good else remedy}")
	return 0 if all(line[0] for line in lines) else 1


def windows_quote(word: str) -> str:
	"""A word as both cmd.exe and PowerShell take it."""
	if re.search('["$`%\u201c-\u201e]', word):
		print(f"Note: cmd.exe or PowerShell changes {word}: add it by hand", file=sys.stderr)
	# PowerShell would keep a plain -- to itself.
	plain = re.fullmatch(r"[\w\\/:.=+-]*\w", word)
	return word if plain else '"' + re.sub(r"(\\*)$", r"\1\1", word) + '"'


def claude_config(command: list[str], env: dict[str, str], _: str) -> str:
	import shlex

	pairs = [part for name, value in env.items() for part in ("-e", f"{name}={value}")]
	words = ["claude", "mcp", "add", "--scope", "user", NAME, *pairs, "--", *command]
	return " ".join(map(windows_quote if WINDOWS else shlex.quote, words))


def codex_config(command: list[str], env: dict[str, str], home: str) -> str:
	python, file, *values = [
		json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
		for text in (*command, *env.values())
	]
	pairs = "\n".join(map("{} = {}".format, env, values))
	return f"""\
# Append this to {join(home, "config.toml")}.
# Remove an older entry first: codex mcp remove {NAME}
[mcp_servers.{NAME}]
command = {python}
args = [{file}]
tool_timeout_sec = {MAX_TIMEOUT_MS // 1000 + 60}
# without this, Codex refuses the tools where nobody can be asked
default_tools_approval_mode = "approve"

[mcp_servers.{NAME}.env]
{pairs}"""


def json_config(command: list[str], env: dict[str, str], _: str) -> str:
	server = {"command": command[0], "args": command[1:], "env": env}
	return json.dumps({"mcpServers": {NAME: server}}, indent=2)


CLIENTS = {"claude": claude_config, "codex": codex_config, "json": json_config}


def print_config(client: str, settings: Settings) -> int:
	import tempfile

	file = abspath(globals().get("__file__", ""))
	folder, name = os.path.split(file)
	passing = folder == tempfile.gettempdir() and name != "codex_persistent_mcp.py"
	if not isfile(file) or passing:
		print("Save this as a file codex_persistent_mcp.py, and run that.", file=sys.stderr)
		return 1
	env = {name: os.environ[name] for name, _, _ in VARIABLES if os.environ.get(name)}
	try:
		env["CODEX_BIN"] = find_codex(settings.codex)
	except Failure as refusal:
		print("Note:", refusal, file=sys.stderr)
	for problem in settings.problems:
		print("Note:", problem, file=sys.stderr)
	print(CLIENTS[client]([sys.executable, file], env, settings.home))
	return 0


def main() -> int:
	settings = read_settings(dict(os.environ))
	for stream in (sys.stdout, sys.stderr) if WINDOWS else ():
		stream.reconfigure(encoding="utf-8")  # type: ignore  # not the old code page
	if os.environ.get("CODEX_HOME"):
		os.environ["CODEX_HOME"] = settings.home
	if len(sys.argv) == 1:
		serve(settings)
	import argparse

	parser = argparse.ArgumentParser(
		prog="codex_persistent_mcp.py",
		allow_abbrev=False,
		description="Without options, an MCP server over standard input and output.",
	)
	chosen = parser.add_mutually_exclusive_group(required=True)
	chosen.add_argument("--check", action="store_true", help="show what is used and if it works")
	chosen.add_argument("--print-config", choices=tuple(CLIENTS), help="print what a client needs")
	chosen.add_argument("--version", action="version", version=f"{NAME} {VERSION}")
	options = parser.parse_args()
	if options.check:
		return run_check(settings)
	return print_config(options.print_config, settings)


if __name__ == "__main__":
	sys.exit(main())
