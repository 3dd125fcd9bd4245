#!/usr/bin/env python3
"""Fuzzing (`make fuzz`): random and mutated protocol lines against live servers, random event streams against Turn.

    fuzz.py [--cases N] [--seed N]

Two thirds of the cases are lines from a client, sent over pipes to real servers, a new one every few thousand. An
oracle of a few lines says how many answers each line must get, and under which id; every line that comes back
must be one message of JSON-RPC in ASCII. The others are streams of Codex's output, fed to the turn. Codex is
`false`, `true`, a path where nothing is, or the fake one, so whatever a mutated call asks for has no effect.

The seed is printed; the same seed gives the same cases. A violation is cut down to a small reproduction, which is
printed, and ends the run with 1.
"""
from __future__ import annotations

import argparse
import json
import os
import queue
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.environ.get("FUZZ_PROGRAM") or os.path.join(os.path.dirname(HERE), "codex_persistent_mcp.py")
FAKE = os.path.join(HERE, "fake_codex.py")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(PROGRAM))

import codex_persistent_mcp as program  # noqa: E402

#: Lines sent before the server must have answered them all, and chunks before it gives way to a new one.
CHUNK, CHUNKS = 200, 20
#: Seconds within which everything due must have come; only a fault reaches it. Shorter while shrinking.
BOUND, SHRINK_BOUND, SHRINK_TIME = 30.0, 3.0, 60.0
#: Seconds that one stream may take; an ordinary one takes less than a thousandth of one.
STREAM_BOUND = 5.0

META = "io.modelcontextprotocol/"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
TOOLS = ("codex_chat", "codex_guard_plan", "codex_guard_final")
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SESSIONS = ["0199aaaa-0000-7000-8000-%012x" % number for number in range(4)]


class Violation(Exception):
    """The program did what it must not do."""


# ---------------------------------------------------------------------------------------------------------
# making cases
# ---------------------------------------------------------------------------------------------------------

STRINGS = ["", " ", "a", "\x00", "\n", "\r\n", "\u2028", "\x1b[31m", "\ud800", "\udfff\ud800", "\U0001f4a5", "\u00e9" * 40,
           "-c", "--help", "-", "$(id)", "`id`", "../../x", "/", "~", "null", "x" * 3000, '"', "\\", "{}", "read-only",
           "danger-full-access", "high", "gpt-x", "2026-07-28", "2025-11-25", "1", "true"]
NUMBERS = [0, 1, -1, 999, 1000, 7200000, 7200001, 2 ** 31, 2 ** 53 + 1, 2 ** 63, 2 ** 64, 10 ** 40, -10 ** 40, 0.5, -0.0, 1e3,
           1e308, 5e-324]
#: Pieces of text that stand for a value, in JSON or nearly.
TOKENS = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"-", b"01", b"1.", b"9" * 300, b"9" * 5000, b"tru", b"'a'",
          b"\"\\ud800\"", b"\"\\u00\"", b"\"\x01\"", b"\"\xff\xfe\"", b"\"\xed\xa0\x80\"", b"[" * 60 + b"]" * 60, b"[]", b"{}",
          b"[" * 500 + b"]" * 500, b"[" * 985 + b"]" * 985, b"[" * 100000, b'{"a":' * 990 + b"1" + b"}" * 990, b"{,}",
          b"\xef\xbb\xbf", b'""', b"null", b"true", b"/**/1", b"1 2"]
BYTES = [b"\x00", b"\n", b"\r", b"\t", b"\x0b", b"\xff", b"\xc3", b"\xe2\x80\xa8", b"\xef\xbb\xbf", b'"', b"\\", b"{", b"}", b"[",
         b"]", b",", b":", b"\\u", b" ", b"0", b"-", b"\x7f"]
WORDS = ["jsonrpc", "id", "method", "params", "result", "error", "name", "arguments", "_meta", "progressToken", "prompt",
         "session_id", "cwd", "model", "reasoning_effort", "timeout_ms", "sandbox", "requestId", "protocolVersion",
         "clientInfo", "capabilities", "cursor", META + "protocolVersion", META + "clientCapabilities",
         META + "clientInfo", "type", "thread_id", "item", "text", "usage", "message", "items", "changes"]
METHODS = ["initialize", "ping", "tools/list", "tools/call", "server/discover", "notifications/initialized",
           "notifications/cancelled", "logging/setLevel", "resources/list", "subscriptions/listen", "", "\ud800", "tools/", "rpc.x"]


class Maker:
    """Makes cases from one source of chance."""

    def __init__(self, seed: Any, work: str) -> None:
        self.random, self.work, self.number = random.Random(seed), work, 0

    def value(self, depth: int = 3) -> Any:
        r = self.random
        kind = r.randrange(9 if depth else 6)
        if kind < 2:
            return r.choice(STRINGS)
        if kind == 2:
            return r.choice(NUMBERS)
        if kind == 3:
            return r.choice([None, True, False])
        if kind == 4:
            return r.choice(WORDS + METHODS + SESSIONS)
        if kind == 5:
            return "".join(chr(r.choice([r.randrange(128), r.randrange(0x3000), r.randrange(0xd700, 0x11000)]))
                           for _ in range(r.randrange(12)))
        if kind == 6:
            return [self.value(depth - 1) for _ in range(r.randrange(4))]
        return {r.choice(WORDS + STRINGS[:12]): self.value(depth - 1) for _ in range(r.randrange(5))}

    def maybe(self, value: Any, chance: float = 0.1) -> Any:
        """`value`, or by chance any other."""
        return self.value() if self.random.random() < chance else value

    def id(self) -> Any:
        r = self.random
        self.number += 1
        return r.choice([self.number, "c%d" % self.number, -self.number, 10 ** 25 + self.number,
                         "c%d%s" % (self.number, r.choice(STRINGS[:18])), self.number, "c%d" % self.number,
                         r.choice([self.number, 7, "again", self.value(1)])])

    def arguments(self, tool: Any) -> Dict[str, Any]:
        """The arguments of a call, good ones but for chance."""
        r = self.random
        good: Dict[str, Any] = {"codex_guard_plan": {"requirements": "r", "plan": "p"},
                                "codex_guard_final": {"change_summary": "s"}}.get(tool, {"prompt": "p"})
        good = {name: r.choice(["hello", "a\nb", "\u00e9", "\ud800x", "-", "x" * 2000]) for name in good}
        for name, value in (("session_id", r.choice(SESSIONS)), ("cwd", self.work), ("model", "m-1"), ("timeout_ms", 60000),
                            ("reasoning_effort", "low"), ("sandbox", "read-only"), ("constraints", "c")):
            if r.random() < 0.12:
                good[name] = value
        if r.random() < 0.85:  # most are refused, so that few processes are started
            for _ in range(r.randrange(1, 3)):
                name = r.choice(list(good) + WORDS + ["promt", "sessionId", "Prompt"])
                good[name] = self.value() if r.random() < 0.8 else good.pop(name, None)
        return good

    def params(self, method: str) -> Any:
        r = self.random
        params: Dict[str, Any] = {}
        if method == "tools/call":
            tool = self.maybe(r.choice(TOOLS))
            params = {"name": tool, "arguments": self.maybe(self.arguments(tool if isinstance(tool, str) else ""), 0.05)}
        elif method == "initialize":
            params = {"protocolVersion": self.maybe(r.choice(LEGACY)), "capabilities": self.maybe({}),
                      "clientInfo": self.maybe({"name": self.maybe("fuzz"), "version": "1"})}
        elif method == "notifications/cancelled":
            params = {"requestId": r.choice([self.number, "c%d" % self.number, self.number - 1, 7, "again", self.value(1)])}
        if r.random() < 0.3:
            meta = {META + "protocolVersion": self.maybe("2026-07-28", 0.2), META + "clientCapabilities": self.maybe({}),
                    META + "clientInfo": self.maybe({"name": "fuzz", "version": "1"}), "progressToken": self.maybe(self.number)}
            params["_meta"] = self.maybe({key: meta[key] for key in r.sample(sorted(meta), r.choice([1, 2, 3, 4, 4, 4]))})
        if r.random() < 0.1:
            params[r.choice(WORDS)] = self.value()
        return self.maybe(params, 0.05)

    def message(self) -> Any:
        """One message: mostly a request, mostly well made."""
        r = self.random
        kind = r.random()
        if kind < 0.05:
            return self.value(4)
        if kind < 0.1:
            return {"jsonrpc": "2.0", "id": self.id(), r.choice(["result", "error"]): self.value()}
        method = r.choice(METHODS[:7] + ["tools/call"] * 3 + METHODS)
        message = {"jsonrpc": "2.0", "method": method, "params": self.params(method)}
        if not method.startswith("notifications/") or r.random() < 0.2:
            message["id"] = self.id()
        if r.random() < 0.1:
            message[r.choice(["jsonrpc", "id", "method", "params", "result", "x"])] = self.value()
        if r.random() < 0.05:
            message.pop(r.choice(sorted(message)))
        return message

    def line(self) -> bytes:
        """One line from a client, without its end."""
        r = self.random
        kind = r.random()
        if kind < 0.03:
            return self.noise()
        if kind < 0.08:
            return self.encode([self.message() for _ in range(r.randrange(5))])
        line = self.encode(self.message())
        return line if kind < 0.65 else self.mutate(line)

    def encode(self, value: Any) -> bytes:
        text = json.dumps(value, ensure_ascii=self.random.random() < 0.6,
                          separators=self.random.choice([(",", ":"), (", ", ": "), (" ,\t", "\r:")]))
        return text.encode("utf-8", "surrogatepass")  # raw surrogates are no UTF-8: the server must see that

    def noise(self) -> bytes:
        r = self.random
        return b"".join(r.choice(BYTES + TOKENS[:12] + [bytes([r.randrange(256)])]) for _ in range(r.randrange(20)))

    def mutate(self, line: bytes) -> bytes:
        """A few small changes."""
        r = self.random
        for _ in range(r.choice([1, 1, 1, 2, 3])):
            at = r.randrange(len(line) + 1)
            end = min(len(line), at + r.choice([1, 1, 2, 8]))
            kind = r.randrange(6)
            if kind == 0:
                line = line[:at] + r.choice(BYTES) + line[at:]
            elif kind == 1:
                line = line[:at] + line[end:]
            elif kind == 2:
                line = line[:at] + bytes([r.randrange(256)]) + line[at + 1:]
            elif kind == 3:
                line = line[:at] if r.random() < 0.3 else line[:end] + line[at:]
            else:  # a value gives way to a piece of text
                values = list(re.finditer(rb'(?<=:)\s*("(?:[^"\\]|\\.)*"|[-0-9.eE+]+|true|false|null|\{\}|\[\])', line))
                if values:
                    chosen = r.choice(values)
                    line = line[:chosen.start()] + r.choice(TOKENS) + line[chosen.end():]
        return line

    # Codex's side

    def item(self) -> Dict[str, Any]:
        r = self.random
        kind = r.choice(["agent_message", "reasoning", "command_execution", "file_change", "mcp_tool_call", "web_search",
                         "todo_list", "error", "from_the_future"])
        item = {"id": "item_1", "type": kind, "text": "t", "message": "m", "command": "/bin/bash -lc 'ls'", "query": "q",
                "server": "s", "tool": "t", "changes": [{"path": "a/b", "kind": "update"}],
                "items": [{"text": "one", "completed": True}, {"text": "two", "completed": False}]}
        for _ in range(r.choice([0, 0, 1, 2])):
            item[r.choice(sorted(item))] = self.value()
        return item

    def event(self) -> Any:
        r = self.random
        kind = r.choice(["thread.started", "turn.started", "item.started", "item.updated", "item.completed",
                         "item.completed", "turn.completed", "turn.failed", "error", "from.the.future"])
        event: Dict[str, Any] = {"type": kind}
        if kind == "thread.started":
            event["thread_id"] = self.maybe(r.choice(SESSIONS + [SESSIONS[0].upper()]))
        elif kind.startswith("item."):
            event["item"] = self.maybe(self.item(), 0.05)
        elif kind == "turn.completed":
            event["usage"] = self.maybe({"input_tokens": self.maybe(1), "output_tokens": 2})
        elif kind == "turn.failed":
            event["error"] = self.maybe({"message": self.maybe(self.words())})
        elif kind == "error":
            event["message"] = self.maybe(self.words())
        if r.random() < 0.05:
            event[r.choice(WORDS)] = self.value()
        return event if r.random() < 0.97 else self.value()

    def words(self) -> str:
        """What Codex may say of an error."""
        r = self.random
        return "".join(r.choice([
            "Error: thread/resume: no rollout found for thread id x\n", "\nStack backtrace:\n   0: <unknown>\n", "unknown variant ",
            "thread x already has an active writer\n", '{"error":{"message":"deep"}}', '{"message":{', "}", "WARNING: a\n",
            "2026-11-24T05:34:47Z ERROR codex_core::session: b\n", "\x1b[31mred\x1b[0m", "\n", " " * 50, "\n" * 200, "{" * 200,
            "401", "model", "\x1b[" * 50, r.choice(STRINGS)]) for _ in range(r.randrange(6)))

    def noise_event(self) -> bytes:
        """A line that must change nothing about a turn that goes well."""
        r = self.random
        return r.choice([b"", b"plain text", b"\xff\xfe", b"[]", b"7", b'"type"', b"{}", b'{"type":7}',
                         json.dumps({"type": "from.the.future", "item": self.value()}).encode(),
                         json.dumps({"type": "item.completed", "item": {"type": "from_the_future", "text": "x"}}).encode(),
                         json.dumps({"type": "item.started", "item": {"type": "agent_message", "text": "not yet"}}).encode(),
                         json.dumps({"type": "item.completed", "item": self.value(1)}).encode()])

    def stream(self) -> Stream:
        """What Codex writes in one run; one in four is a turn that goes well, with noise in between."""
        r = self.random
        stderr = self.words() if r.random() < 0.97 else r.choice(["\n", "{", "}", " ", "\x1b[", "a", "\n "]) * 60000
        ending = r.choice(["exit code 0", "exit code 1", "ended by signal 9"])
        if r.random() < 0.25:
            session, reply = r.choice(SESSIONS), self.words() or "reply"
            lines = [json.dumps(event).encode() for event in (
                {"type": "thread.started", "thread_id": session}, {"type": "turn.started"},
                {"type": "item.completed", "item": {"id": "item_1", "type": "agent_message", "text": reply}},
                {"type": "turn.completed", "usage": {"input_tokens": 1}})]
            for _ in range(r.randrange(4)):
                lines.insert(r.randrange(len(lines) + 1), self.noise_event())
            return Stream(r.choice([None, session]), tuple(lines), stderr, ending, reply)
        lines = []
        for _ in range(r.randrange(9)):
            line = self.noise() if r.random() < 0.05 else self.encode(self.event())
            lines.append(self.mutate(line) if r.random() < 0.2 else line)
        if r.random() < 0.01:  # long runs of one thing, for what takes the square of the time
            lines.append(json.dumps({"type": r.choice(["error", "turn.failed"]), "message": "{\n" * 60000, "error": {
                "message": r.choice(["\n", "\n ", "{", "}", "\x1b[0", "sh -c '", "a"]) * 60000}}).encode())
        return Stream(r.choice([None, SESSIONS[0]]), tuple(lines), stderr, ending, None)


class Stream(NamedTuple):
    """One run of Codex: `reply` is set where the turn must be a success with just that."""

    expected: Optional[str]
    lines: Tuple[bytes, ...]
    stderr: str
    ending: str
    reply: Optional[str]


# ---------------------------------------------------------------------------------------------------------
# the oracle: what a client's lines must get
# ---------------------------------------------------------------------------------------------------------


def strict(text: str) -> Any:
    """The value of a JSON text; NaN and the like are none. Raises ValueError, RecursionError."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


def is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def valid_json(text: bytes) -> bool:
    try:
        json.loads(text)
        return True
    except ValueError:
        return False


class Due:
    """What the lines of one chunk must be answered with, and what came."""

    def __init__(self, before: Optional[Due] = None) -> None:
        self.exact: Counter[str] = Counter()      # answers due under just this id
        self.open: Counter[str] = Counter()       # the same, but a cancel follows, which may be in time
        self.own_or_null: Counter[str] = Counter()  # an error due under this id or under null
        self.null = 0                             # errors due under null
        self.loose = 0                            # answers that may come or not,
        self.maybe: Counter[str] = Counter()      # under null or these ids
        self.late: set = set()                    # ids whose answers may still come from the chunks before
        self.batches: Optional[bool] = False      # whether batches are served now; None: cannot be known
        self.arrays = False                       # whether an array may come
        self.came: Counter[str] = Counter()
        self.requests = 0
        self.calls: Counter[str] = Counter()      # how tool calls were answered
        if before is not None:
            self.late = before.late | set(before.maybe) | set(before.open) | {
                key for key, count in before.exact.items() if before.came[key] < count + before.own_or_null[key]}
            self.arrays, self.loose = before.arrays, max(0, before.most - before.total)

    def line(self, line: bytes) -> None:
        """Adds what one line, without its end, must get."""
        if not line.strip():
            self._may(line, bool(line.strip(b" \t\r")))
            return
        deep = line.count(b"[") + line.count(b"{") > 150
        try:
            bom = line.startswith(b"\xef\xbb\xbf")
            value = strict(line.decode("utf-8-sig" if bom else "utf-8"))
        except RecursionError:
            self._may(line, 1)
            return
        except ValueError:
            self.null += 1
            return
        if bom or deep:  # may be refused as a whole
            many = len(value) if isinstance(value, list) else 1
            self._may(line, max(1, many))
            self.arrays = self.arrays or self.batches is not False
            self._settle(value if isinstance(value, dict) else {"method": "initialize"})
            self._cancels(value if isinstance(value, list) else [value])
        elif not isinstance(value, list):
            self.message(value)
        elif self.batches is None:
            self._may(line, max(1, len(value)))
            self.arrays = True
            self._cancels(value)
        elif not value or not self.batches:
            self.null += 1
        else:
            self.arrays = True
            for one in value:
                self.message(one)
            if any(isinstance(one, dict) and one.get("method") == "initialize" for one in value):
                self.batches = None

    def _may(self, line: bytes, count: int) -> None:
        """Adds `count` answers that may come or not."""
        self.loose += count
        if b"cancelled" in line:
            for key in list(self.exact):
                self._may_be_cancelled(key)
        self.maybe.update(json.dumps(json.loads(found)) for found in re.findall(
            rb'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?[1-9][0-9]*(?![0-9.eE])|0)', line) if valid_json(found))

    def message(self, value: Any) -> None:
        """Adds what one message must get."""
        if not isinstance(value, dict):
            self.null += 1
            return
        if "method" not in value and ("result" in value or "error" in value):
            self.loose += value.get("jsonrpc") != "2.0"
            return
        valid = value.get("jsonrpc") == "2.0" and isinstance(value.get("method"), str)
        if not valid or "id" in value and not is_id(value["id"]):
            if is_id(value.get("id")):
                self.own_or_null[json.dumps(value["id"])] += 1
            else:
                self.null += 1
        elif "id" in value:
            self.requests += 1
            key = json.dumps(value["id"])
            if key in self.late:
                self._may(json.dumps(value).encode(), 1)
            else:
                self.exact[key] += 1
            self._settle(value)
        else:
            self._cancels([value])

    def _cancels(self, values: List[Any]) -> None:
        for value in values:
            if isinstance(value, dict) and value.get("method") == "notifications/cancelled":
                params = value.get("params")
                self._may_be_cancelled(json.dumps(params.get("requestId") if isinstance(params, dict) else None))

    def _may_be_cancelled(self, key: str) -> None:
        if key in self.exact:
            self.open[key] += self.exact.pop(key)

    def _settle(self, value: Dict[str, Any]) -> None:
        """Follows what `initialize` settles."""
        if value.get("method") != "initialize":
            return
        params = value.get("params")
        revision = params.get("protocolVersion") if isinstance(params, dict) else None
        plain = isinstance(params, dict) and set(params) == {"protocolVersion", "capabilities", "clientInfo"} and (
            isinstance(revision, str) and params["capabilities"] == {} and isinstance(params["clientInfo"], dict)
            and isinstance(params["clientInfo"].get("name"), str))
        self.batches = revision == "2025-03-26" if plain else None

    @property
    def least(self) -> int:
        return sum(self.exact.values()) + sum(self.own_or_null.values()) + self.null

    @property
    def most(self) -> int:
        return self.least + sum(self.open.values()) + self.loose

    @property
    def total(self) -> int:
        return sum(count for key, count in self.came.items() if key not in self.late)

    def complete(self) -> bool:
        """Whether all has come that surely comes. Not counted: what may have come for other requests."""
        open_only = [key for key in self.open if key not in self.exact]
        certain = self.total - sum(self.came[key] for key in open_only)
        return certain >= self.least - sum(self.own_or_null[key] for key in open_only) and all(
            self.came[key] for key in self.exact)

    def answer(self, key: str) -> None:
        """Notes an answer. Raises Violation if nobody can have asked for it."""
        self.came[key] += 1
        asked = self.exact[key] + self.open[key] + self.own_or_null[key] + self.maybe[key]
        if key != "null" and key not in self.late and self.came[key] > asked:
            raise Violation("answer number %d under id %s; there were %d requests with it" % (self.came[key], key[:200], asked))

    def check(self) -> None:
        """All is there and nothing is too much. Raises Violation."""
        for key in self.exact:  # one is enough: a request whose id is still in flight is refused under null
            if not self.came[key]:
                raise Violation("no answer under id %s" % key[:200])
        if not self.least <= self.total <= self.most:
            raise Violation("%d answers, due were %s" % (self.total, self.least if self.least == self.most else
                                                         "%d to %d" % (self.least, self.most)))


# ---------------------------------------------------------------------------------------------------------
# the live server
# ---------------------------------------------------------------------------------------------------------


def check_message(line: bytes) -> List[Dict[str, Any]]:
    """The messages in one line of the server's output. Raises Violation."""
    try:
        value = strict(line.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Violation("a line of output is not ASCII JSON (%s): %r" % (error, line[:300])) from None
    if not line.endswith(b"\n"):
        raise Violation("the last line of output has no end: %r" % line[-200:])
    messages = value if isinstance(value, list) else [value]
    for one in messages:
        if not isinstance(one, dict) or one.get("jsonrpc") != "2.0":
            raise Violation("not a message of JSON-RPC: %r" % line[:300])
        if one.get("method") == "notifications/progress":
            params = one.get("params", {})
            if "id" in one or not is_id(params.get("progressToken")) or not isinstance(params.get("message"), str):
                raise Violation("a bad notification of progress: %r" % line[:300])
        elif "method" in one or ("result" in one) == ("error" in one) or "id" not in one:
            raise Violation("neither a response nor progress: %r" % line[:300])
        elif "error" in one:
            error = one["error"]
            if type(error.get("code")) is not int or not isinstance(error.get("message"), str):
                raise Violation("a bad error: %r" % line[:300])
            if error["code"] == -32603:
                raise Violation("an internal error: %r" % line[:400])
        elif not isinstance(one["result"], dict) or one["id"] is None:
            raise Violation("a bad result: %r" % line[:300])
    if isinstance(value, list) and (not value or any("method" in one for one in value)):
        raise Violation("a bad batch: %r" % line[:300])
    return messages


def check_result(result: Dict[str, Any]) -> str:
    """Checks the result of a tool call, and says what became of it. Raises Violation."""
    content, text = result["content"], ""
    if content and all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in content):
        text = content[0]["text"]
    failed = result.get("isError", False)
    if not text and failed or ("structuredContent" in result) == failed:
        raise Violation("a bad tool result: %.400r" % result)
    if not failed:
        return "succeeded"
    return "refused" if "rgument" in text or "Nothing was sent" in text else "failed in Codex"


class Live:
    """A running server, spoken to in chunks of lines."""

    def __init__(self, env: Dict[str, str]) -> None:
        self.process = subprocess.Popen([sys.executable, PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=env)
        self.output: queue.Queue[Optional[bytes]] = queue.Queue()
        self.errors = b""
        self.syncs = 0
        self.due: Optional[Due] = None
        self.tools: Any = None
        self.workers = [threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)]
        for worker in self.workers:
            worker.start()

    def _read(self) -> None:
        for line in self.process.stdout:  # type: ignore[union-attr]
            self.output.put(line)
        self.output.put(None)

    def _read_errors(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.errors = (self.errors + line)[-20000:]

    def chunk(self, lines: List[bytes], bound: float = BOUND) -> Due:
        """Sends lines and checks all that must come. Raises Violation."""
        due = self.due = Due(self.due)
        for line in b"\n".join(lines).split(b"\n"):
            due.line(line)
        self.syncs += 1
        sync = "sync-%d" % self.syncs
        due.exact[json.dumps(sync)] += 1
        last = json.dumps({"jsonrpc": "2.0", "id": sync, "method": "tools/list"}).encode()
        data = b"\n".join(lines + [last]) + b"\n"
        sender = threading.Thread(target=self._send, args=(data,), daemon=True)
        sender.start()
        end = time.monotonic() + bound
        synced = False
        while not synced or not due.complete():
            try:
                line = self.output.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                if synced:
                    break
                raise Violation("no answer to tools/list within %g s" % bound) from None
            if line is None:
                raise Violation("the server ended with %r: %s" % (self.process.wait(), self.errors.decode()[-1000:]))
            messages = check_message(line)
            if line.startswith(b"[") and not due.arrays:
                raise Violation("a batch as an answer where there are none: %r" % line[:300])
            for message in messages:
                if "method" in message:
                    continue
                due.answer(json.dumps(message["id"]))
                if "content" in message.get("result", {}):
                    due.calls[check_result(message["result"])] += 1
                if message["id"] == sync:
                    synced = True
                    self._check_tools(message)
        sender.join(bound)
        due.check()
        return due

    def _send(self, data: bytes) -> None:
        try:
            self.process.stdin.write(data)  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except OSError:
            pass  # the end of the output tells

    def _check_tools(self, message: Dict[str, Any]) -> None:
        tools = message.get("result", {}).get("tools")
        if self.tools is None and [tool["name"] for tool in tools or []] == list(TOOLS):
            self.tools = tools
        if not tools or tools != self.tools:
            raise Violation("tools/list is not answered as at first: %r" % message)

    def close(self, half: bytes = b"") -> None:
        """Sends half a line, ends the input, and checks that the server leaves well. Raises Violation."""
        self._send(half)
        try:
            self.process.stdin.close()  # type: ignore[union-attr]
        except OSError:
            pass
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            raise Violation("the server did not leave within 10 s of the end of its input") from None
        for worker in self.workers:
            worker.join(5)
        while True:
            line = self.output.get(timeout=5)
            if line is None:
                break
            check_message(line)
        errors = self.errors.decode("utf-8", "replace")
        if code != 0 or "Traceback" in errors or "internal error" in errors:
            raise Violation("the server left with %d: %s" % (code, errors[-2000:]))

    def kill(self) -> None:
        """Leaves nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def environment(root: str, kind: int) -> Dict[str, str]:
    """The environment of a server: with a Codex that fails at once, is silent, is missing, or is the fake one."""
    codex = [shutil.which("false"), shutil.which("true"), os.path.join(root, "nothing"), FAKE][kind % 4]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("CODEX", "FAKE_"))}
    env.update(CODEX_BIN=codex or FAKE, CODEX_HOME=os.path.join(root, "home"), FAKE_CODEX_DIR=os.path.join(root, "notes"),
               CODEX_MCP_CWD=os.path.join(root, "work"), CODEX_MCP_TIMEOUT_MS="60000", FAKE_CODEX_VERSION="0.169.0")
    return env


# ---------------------------------------------------------------------------------------------------------
# the turn
# ---------------------------------------------------------------------------------------------------------


def check_stream(stream: Stream) -> str:
    """Feeds a stream to a turn and checks what it says; returns how the turn ended. Raises Violation."""
    begin = time.monotonic()
    turn = program.Turn(stream.expected)
    try:
        for line in stream.lines:
            turn.feed(line)
        turn.result(stream.stderr, stream.ending)
        ended = "success"
    except program.SessionBusy as error:
        ended, text = "busy", str(error)
    except program.RunFailure as error:
        ended, text = "failure", str(error)
    except Exception as error:
        raise Violation("%s: %s" % (type(error).__name__, error)) from None
    if ended != "success" and not text.strip():
        raise Violation("a failure without a word")
    took = time.monotonic() - begin
    if took > STREAM_BOUND:
        raise Violation("the turn took %.1f s" % took)
    if not (turn.session_id is None or isinstance(turn.session_id, str) and UUID.fullmatch(turn.session_id)):
        raise Violation("session_id is %r" % (turn.session_id,))
    if not (turn.reply is None or isinstance(turn.reply, str)):
        raise Violation("reply is %r" % (turn.reply,))
    if not (turn.usage is None or isinstance(turn.usage, dict)):
        raise Violation("usage is %r" % (turn.usage,))
    if not all(isinstance(warning, str) for warning in turn.warnings):
        raise Violation("warnings are %r" % (turn.warnings,))
    try:
        json.dumps([turn.usage, turn.reply, turn.warnings], allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Violation("the answer can't be written as JSON (%s): usage %.200r" % (error, turn.usage)) from None
    if ended == "success":
        if turn.session_id is None or turn.reply is None:
            raise Violation("a success without a session or a reply")
        if stream.expected and turn.session_id != stream.expected:
            raise Violation("a success from another session: %s" % turn.session_id)
        if not any(b"turn.completed" in line or b"\\u" in line for line in stream.lines):
            raise Violation("a success without turn.completed")
    if stream.reply is not None and (ended != "success" or turn.reply != stream.reply):
        raise Violation("a turn that went well was a %s, with the reply %r instead of %r (%s)" % (
            ended, turn.reply, stream.reply, text if ended != "success" else ""))
    return ended


# ---------------------------------------------------------------------------------------------------------
# shrinking, and the run
# ---------------------------------------------------------------------------------------------------------


def smaller(items: Tuple[Any, ...], fails: Callable[[Tuple[Any, ...]], bool], end: float) -> Tuple[Any, ...]:
    """Leaves out of `items` (lines, or bytes of a line) what `fails` does not need, until `end`."""
    size = max(1, len(items) // 2)
    while size and time.monotonic() < end:
        at, found = 0, False
        while at < len(items) and time.monotonic() < end:
            less = items[:at] + items[at + size:]
            if fails(less):
                items, found = less, True
            else:
                at += size
        size = size if found and size == 1 and len(items) < 50 else size // 2
    return items


def shrink(lines: List[bytes], why: Callable[[List[bytes]], Optional[str]]) -> Tuple[List[bytes], Optional[str]]:
    """The fewest and shortest of `lines` for which `why` still names a violation."""
    end = time.monotonic() + SHRINK_TIME
    few = list(smaller(tuple(lines), lambda some: why(list(some)) is not None, end))
    for index in range(len(few)):
        def fails(some: Tuple[Any, ...]) -> bool:
            return why(few[:index] + [bytes(some)] + few[index + 1:]) is not None
        few[index] = bytes(smaller(tuple(few[index]), fails, end))
    return few, why(few)


def show(lines: List[bytes]) -> str:
    return "\n".join("    %r%s" % (line[:400], " ... (%d bytes)" % len(line) if len(line) > 400 else "") for line in lines)


def fuzz_lines(cases: int, maker: Maker, root: str) -> Counter[str]:
    """Sends `cases` lines to live servers. Raises Violation with the reproduction."""
    counts: Counter[str] = Counter()
    left = cases
    while left:
        env = environment(root, counts["servers"])
        live = Live(env)
        counts["servers"] += 1
        try:
            for _ in range(CHUNKS):
                lines = [json.dumps({"jsonrpc": "2.0", "id": "begin", "method": "initialize", "params": {
                    "protocolVersion": maker.random.choice(LEGACY), "capabilities": {},
                    "clientInfo": {"name": "fuzz", "version": "1"}}}).encode()]
                lines += [maker.line() for _ in range(min(CHUNK, left))]
                left -= len(lines) - 1
                try:
                    due = live.chunk(lines)
                except Violation as violation:
                    raise Violation(reproduction(lines, env, str(violation))) from None
                counts["lines"] += len(lines) - 1
                counts["valid requests"] += due.requests
                counts["answers"] += sum(due.came.values()) - 2
                counts.update(due.calls)
                if not left:
                    break
            live.close(maker.line()[:-1])
        finally:
            live.kill()
        progress("%d of %d lines" % (counts["lines"], cases))
    return counts


def reproduction(lines: List[bytes], env: Dict[str, str], seen: str) -> str:
    """Cuts a chunk down to what a new server still fails on."""
    def why(some: List[bytes]) -> Optional[str]:
        live = Live(env)
        try:
            live.chunk(some, SHRINK_BOUND)
            live.close()
            return None
        except Violation as violation:
            return str(violation)
        finally:
            live.kill()

    print("\n  violation, shrinking it: %s" % seen[:500], flush=True)
    if why(lines) is None:
        return "%s\n  not seen again with the same lines on a new server (CODEX_BIN=%s); the lines were\n%s" % (
            seen, env["CODEX_BIN"], show(lines))
    few, still = shrink(lines, why)
    return "%s\n  lines that show it (CODEX_BIN=%s):\n%s" % (still or seen, env["CODEX_BIN"], show(few))


def fuzz_streams(cases: int, maker: Maker) -> Counter[str]:
    """Feeds `cases` streams to turns. Raises Violation with the reproduction."""
    counts: Counter[str] = Counter()
    for number in range(cases):
        stream = maker.stream()
        try:
            counts[check_stream(stream)] += 1
        except Violation as violation:
            def why(some: List[bytes], given: Optional[Stream] = None) -> Optional[str]:
                try:
                    check_stream((given or stream)._replace(lines=tuple(some), reply=None))
                    return None
                except Violation as again:
                    return str(again)

            print("\n  violation, shrinking it: %s" % str(violation)[:500], flush=True)
            lines, still = list(stream.lines), None
            if why(lines, stream._replace(stderr="")):
                stream = stream._replace(stderr="")
            if why(lines):
                lines, still = shrink(lines, why)
            raise Violation("%s\n  Turn(%r), result(%.1000r%s, %r) with the lines\n%s" % (
                still or violation, stream.expected, stream.stderr,
                " ... (%d)" % len(stream.stderr) if len(stream.stderr) > 1000 else "", stream.ending, show(lines))) from None
        counts["streams"] += 1
        counts["events"] += len(stream.lines)
        if number % 5000 == 0:
            progress("%d of %d streams" % (number, cases))
    return counts


def progress(text: str) -> None:
    if sys.stdout.isatty():
        print("\r\x1b[K  %s" % text, end="", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=120000, help="how many, lines and streams together")
    parser.add_argument("--seed", type=int, default=None, help="for the same cases again")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    streams = options.cases // 3
    print("fuzz: %d cases, Python %s, --seed %d" % (options.cases, sys.version.split()[0], seed), flush=True)
    begin, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        for name in ("home", "work", "notes"):
            os.mkdir(os.path.join(root, name))
        try:
            got = fuzz_lines(options.cases - streams, Maker("lines %d" % seed, os.path.join(root, "work")), root)
            progress("")
            print("\r  client lines:  %(lines)d sent to %(servers)d servers, %(valid requests)d of them valid requests; "
                  "%(answers)d answers" % got)
            print("                 tool calls: %(refused)d refused for their arguments, %(failed in Codex)d failed, "
                  "%(succeeded)d succeeded" % got)
            print("                 each valid request answered once, every line of output sound, all servers left with 0", flush=True)
        except Violation as violation:
            bad += 1
            print("\nVIOLATION (client lines): %s" % violation)
        try:
            got = fuzz_streams(streams, Maker("streams %d" % seed, os.path.join(root, "work")))
            progress("")
            print("\r  event streams: %d with %d lines; %d successes, %d failures, %d busy; nothing else was raised" % (
                got["streams"], got["events"], got["success"], got["failure"], got["busy"]))
        except Violation as violation:
            bad += 1
            print("\nVIOLATION (event streams): %s" % violation)
    print("%s in %.0f s" % ("all %d cases survived" % options.cases if not bad else "%d violations" % bad,
                            time.monotonic() - begin))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
