#!/usr/bin/env python3
"""Fuzzing (`make fuzz`): random client lines, random output of Codex, random answers of its index.

    fuzz.py [--cases N] [--seed N]

Half of the cases are lines from a client, random or mutated, sent over pipes to real servers, a new
one every few thousand. A ledger says how many answers are due under which id; every line that comes
back must be one message of JSON-RPC in ASCII. A third are streams of Codex's output, fed to a turn:
some must end well, some must fail, of the rest nothing but a success or a failure in words may
come. The others are answers of Codex's index, as codex_sessions gets them: of the good ones it must
tell all, of the rest nothing but what its output schema allows, or a failure in words. Codex is
`false`, `true`, a path where nothing is, or the fake one: what a mutated call asks for has no
effect.

The seed is printed; the same seed gives the same cases. A violation is cut down to fewer and
shorter lines, for some seconds, printed, and ends the run with 1. FUZZ_PROGRAM names another
program to fuzz.
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
PROGRAM = os.environ.get("FUZZ_PROGRAM") or os.path.join(
    os.path.dirname(HERE), "codex_persistent_mcp.py"
)
FAKE = os.path.join(HERE, "fake_codex.py")
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(PROGRAM))

import codex_persistent_mcp as program  # noqa: E402
from tools import CHAT, TOOLS  # noqa: E402
from tools import SESSIONS as FIND  # noqa: E402

#: Lines sent before the server must have answered them all, and chunks before it gives way to a new
#: one.
CHUNK, CHUNKS = 200, 20
#: Seconds without an answer while some are due, in a run and while shrinking; only a fault reaches
#: them.
BOUND, SHRINK_BOUND = 30.0, 2.0
#: Seconds for cutting down one violation.
SHRINK_TIME = 10.0
#: Seconds that one stream may take; an ordinary one takes less than a thousandth of one.
STREAM_BOUND = 5.0
#: Whole numbers of so many digits are none to the server, so they are no ids.
LONG_NUMBER = 400
#: Brackets in a line up to which any Python's JSON reads it; from there on it depends on Python.
DEEP = 800

META = "io.modelcontextprotocol/"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SESSIONS = [f"0199aaaa-0000-7000-8000-{number:012x}" for number in range(4)]


class Violation(Exception):
    """The program did what it must not do."""


# --------------------------------------------------------------------------------------------------
# making cases
# --------------------------------------------------------------------------------------------------

STRINGS = [
    "",
    " ",
    "a",
    "\x00",
    "\n",
    "\r\n",
    "\u2028",
    "\x1b[31m",
    "\ud800",
    "\udfff\ud800",
    "\U0001f4a5",
    "\u00e9" * 40,
    "-c",
    "--help",
    "-",
    "$(id)",
    "`id`",
    "../../x",
    "/",
    "~",
    "null",
    "x" * 3000,
    '"',
    "\\",
    "{}",
    "read-only",
    "danger-full-access",
    "high",
    "gpt-x",
    "2026-07-28",
    "2025-11-25",
    "1",
    "true",
]
NUMBERS = [
    0,
    1,
    -1,
    999,
    1000,
    7200000,
    7200001,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**40,
    -(10**40),
    0.5,
    -0.0,
    1e3,
    1e308,
    5e-324,
]
#: Pieces of text that stand for a value, in JSON or nearly.
TOKENS = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"-",
    b"01",
    b"1.",
    b"9" * 300,
    b"9" * 399,
    b"9" * 400,
    b"-" + b"9" * 399,
    b"9" * 5000,
    b"tru",
    b"'a'",
    b'"\\ud800"',
    b'"\\u00"',
    b'"\x01"',
    b'"\xff\xfe"',
    b'"\xed\xa0\x80"',
    b"[" * 60 + b"]" * 60,
    b"[]",
    b"{}",
    b"[" * 500 + b"]" * 500,
    b"[" * 985 + b"]" * 985,
    b"[" * 100000,
    b'{"a":' * 990 + b"1" + b"}" * 990,
    b"{,}",
    b"\xef\xbb\xbf",
    b'""',
    b"null",
    b"true",
    b"/**/1",
    b"1 2",
]
BYTES = [
    b"\x00",
    b"\n",
    b"\r",
    b"\t",
    b"\x0b",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b'"',
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\u",
    b" ",
    b"0",
    b"-",
    b"\x7f",
]
WORDS = [
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "name",
    "arguments",
    "_meta",
    "progressToken",
    "prompt",
    "session_id",
    "cwd",
    "model",
    "reasoning_effort",
    "timeout_ms",
    "sandbox",
    "requestId",
    "protocolVersion",
    "clientInfo",
    "capabilities",
    "cursor",
    "background",
    "all",
    "limit",
    "wait_ms",
    META + "protocolVersion",
    META + "clientCapabilities",
    META + "clientInfo",
    "type",
    "thread_id",
    "item",
    "text",
    "usage",
    "message",
    "items",
    "changes",
]
METHODS = [
    "initialize",
    "ping",
    "tools/list",
    "tools/call",
    "server/discover",
    "notifications/initialized",
    "notifications/cancelled",
    "logging/setLevel",
    "resources/list",
    "subscriptions/listen",
    "",
    "\ud800",
    "tools/",
    "rpc.x",
]
#: A value in an object of a line, roughly.
VALUE = rb'(?<=:)\s*("(?:[^"\\]|\\.)*"|[-0-9.eE+]+|true|false|null|\{\}|\[\])'


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
            letters = [r.randrange(128), r.randrange(0x3000), r.randrange(0xD700, 0x11000)]
            return "".join(chr(r.choice(letters) + number) for number in range(r.randrange(12)))
        if kind == 6:
            return [self.value(depth - 1) for _ in range(r.randrange(4))]
        return {
            r.choice(WORDS + STRINGS[:12]): self.value(depth - 1) for _ in range(r.randrange(5))
        }

    def maybe(self, value: Any, chance: float = 0.1) -> Any:
        """`value`, or by chance any other."""
        return self.value() if self.random.random() < chance else value

    def id(self) -> Any:
        r = self.random
        self.number += 1
        if r.random() < 0.05:
            return r.choice([7, "again", self.value(1)])
        return r.choice(
            [
                self.number,
                f"c{self.number}",
                -self.number,
                10**25 + self.number,
                f"c{self.number}{r.choice(STRINGS[:18])}",
            ]
        )

    def arguments(self, tool: Any) -> Dict[str, Any]:
        """The arguments of a call, good ones but for chance."""
        r, known = self.random, TOOLS.get(tool, TOOLS[CHAT])
        good: Dict[str, Any] = {
            name: r.choice(["hello", "a\nb", "\u00e9", "\ud800x", "-", "x" * 2000])
            for name in known.required
        }
        for name, value in (
            ("session_id", r.choice(SESSIONS)),
            ("cwd", self.work),
            ("model", "m-1"),
            ("timeout_ms", 60000),
            ("reasoning_effort", "low"),
            ("sandbox", "read-only"),
            ("constraints", "c"),
            ("background", True),
            ("all", True),
            ("limit", 3),
            ("wait_ms", 100),
        ):
            if r.random() < 0.12 and (known.text or name in known.arguments):
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
            tool = self.maybe(r.choice(list(TOOLS)))
            arguments = self.arguments(tool if isinstance(tool, str) else "")
            params = {"name": tool, "arguments": self.maybe(arguments, 0.05)}
        elif method == "initialize":
            params = {
                "protocolVersion": self.maybe(r.choice(LEGACY)),
                "capabilities": self.maybe({}),
                "clientInfo": self.maybe({"name": self.maybe("fuzz"), "version": "1"}),
            }
        elif method == "notifications/cancelled":
            params = {
                "requestId": r.choice(
                    [self.number, f"c{self.number}", self.number - 1, 7, "again", self.value(1)]
                )
            }
        if r.random() < 0.3:
            meta = {
                META + "protocolVersion": self.maybe("2026-07-28", 0.2),
                META + "clientCapabilities": self.maybe({}),
                META + "clientInfo": self.maybe({"name": "fuzz", "version": "1"}),
                "progressToken": self.maybe(self.number),
            }
            some = r.sample(sorted(meta), r.choice([1, 2, 3, 4, 4, 4]))
            params["_meta"] = self.maybe({key: meta[key] for key in some})
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
        text = json.dumps(
            value,
            ensure_ascii=self.random.random() < 0.6,
            separators=self.random.choice([(",", ":"), (", ", ": "), (" ,\t", "\r:")]),
        )
        return text.encode(
            "utf-8", "surrogatepass"
        )  # raw surrogates are no UTF-8: the server must say so

    def noise(self) -> bytes:
        r = self.random
        pieces = BYTES + TOKENS[:12] + [bytes([r.randrange(256)])]
        return b"".join(r.choice(pieces) for _ in range(r.randrange(20)))

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
                line = line[:at] + bytes([r.randrange(256)]) + line[at + 1 :]
            elif kind == 3:
                line = line[:at] if r.random() < 0.3 else line[:end] + line[at:]
            else:  # a value gives way to a piece of text
                values = list(re.finditer(VALUE, line))
                if values:
                    chosen = r.choice(values)
                    line = line[: chosen.start()] + r.choice(TOKENS) + line[chosen.end() :]
        return line

    # Codex's side

    def item(self) -> Dict[str, Any]:
        r = self.random
        kind = r.choice(
            [
                "agent_message",
                "reasoning",
                "command_execution",
                "file_change",
                "mcp_tool_call",
                "web_search",
                "todo_list",
                "error",
                "from_the_future",
            ]
        )
        item = {
            "id": "item_1",
            "type": kind,
            "text": "t",
            "message": "m",
            "command": "/bin/bash -lc 'ls'",
            "query": "q",
            "server": "s",
            "tool": "t",
            "changes": [{"path": "a/b", "kind": "update"}],
            "items": [{"text": "one", "completed": True}, {"text": "two", "completed": False}],
        }
        for _ in range(r.choice([0, 0, 1, 2])):
            item[r.choice(sorted(item))] = self.value()
        return item

    def event(self) -> Any:
        r = self.random
        kind = r.choice(
            [
                "thread.started",
                "turn.started",
                "item.started",
                "item.updated",
                "item.completed",
                "item.completed",
                "turn.completed",
                "turn.failed",
                "error",
                "from.the.future",
            ]
        )
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
        return "".join(
            r.choice(
                [
                    "Error: thread/resume: no rollout found for thread id x\n",
                    "unknown variant ",
                    "\nStack backtrace:\n   0: <unknown>\n",
                    "thread x already has an active writer\n",
                    '{"error":{"message":"deep"}}',
                    '{"message":{',
                    "}",
                    "WARNING: a\n",
                    "2026-11-24T05:34:47Z ERROR codex_core::session: b\n",
                    "\x1b[31mred\x1b[0m",
                    "\n",
                    " " * 50,
                    "\n" * 200,
                    "{" * 200,
                    "401",
                    "model",
                    "\x1b[" * 50,
                    r.choice(STRINGS),
                ]
            )
            for _ in range(r.randrange(6))
        )

    def noise_event(self) -> bytes:
        """A line that must change nothing about a turn that goes well."""
        r = self.random
        if r.random() < 0.6:
            return r.choice(
                [b"", b"plain text", b"\xff\xfe", b"[]", b"7", b'"type"', b"{}", b'{"type":7}']
            )
        return json.dumps(
            r.choice(
                [
                    {"type": "from.the.future", "item": self.value()},
                    {"type": "item.completed", "item": {"type": "from_the_future", "text": "x"}},
                    {"type": "item.started", "item": {"type": "agent_message", "text": "not yet"}},
                    {"type": "item.completed", "item": self.value(1)},
                ]
            )
        ).encode()

    def stream(self) -> Stream:
        """What Codex writes in one run: a turn that goes well, one that must fail, or anything."""
        r = self.random
        stderr = self.words()
        if r.random() < 0.03:  # long runs of one thing, for what takes the square of the time
            stderr = r.choice(["\n", "{", "}", " ", "\x1b[", "a", "\n "]) * 60000
        ending = r.choice(["exit code 0", "exit code 1", "ended by signal 9"])
        kind = r.random()
        if kind < 0.4:
            session, reply = r.choice(SESSIONS), self.words() or "reply"
            expected, events = r.choice([None, session]), good_turn(session, reply)
            if kind < 0.2:
                self.spoil(events, session, expected)
            elif kind < 0.3:
                reply = self.further(events, reply)
            lines = [json.dumps(event).encode() for event in events]
            for _ in range(r.randrange(4)):
                lines.insert(r.randrange(len(lines) + 1), self.noise_event())
            return Stream(expected, tuple(lines), stderr, ending, kind >= 0.2, reply)
        lines = []
        for _ in range(r.randrange(9)):
            line = self.noise() if r.random() < 0.05 else self.encode(self.event())
            lines.append(self.mutate(line) if r.random() < 0.2 else line)
        if r.random() < 0.01:
            long = r.choice(["\n", "\n ", "{", "}", "\x1b[0", "sh -c '", "a"]) * 60000
            lines.append(
                json.dumps(
                    {
                        "type": r.choice(["error", "turn.failed"]),
                        "message": "{\n" * 60000,
                        "error": {"message": long},
                    }
                ).encode()
            )
        return Stream(r.choice([None, SESSIONS[0]]), tuple(lines), stderr, ending)

    def further(self, events: List[Dict[str, Any]], reply: str) -> str:
        """Adds what Codex can add to a good turn, and returns what the answer is then."""
        r = self.random
        remark = good_turn(SESSIONS[0], "a remark")[2]
        if r.random() < 0.5:  # a remark before or after the answer, which is marked or not
            remark["item"]["phase"] = "commentary"
            if r.random() < 0.5:
                events[2]["item"]["phase"] = "final_answer"
            events.insert(r.choice([2, 3]), remark)
            return reply
        ended = r.random() < 0.5  # a further turn, which comes to its end or does not
        events += [{"type": "turn.started"}, remark]
        if ended:
            events.append(r.choice([{"type": "turn.completed"}, {"type": "turn.failed"}]))
        return reply + "\n\na remark"

    def spoil(self, events: List[Dict[str, Any]], session: str, expected: Optional[str]) -> None:
        """Changes a good turn (session, start, message, end) in one way that must make it fail."""
        r = self.random
        other = SESSIONS[SESSIONS.index(session) - 1]
        way = r.randrange(8)
        if way == 0:
            events[2]["item"]["text"] = r.choice(["", "", 7, None, ["a"]])
        elif way == 1:
            del events[r.choice([2, 3] if expected else [0, 2, 3])]
        elif way == 2:
            events[0]["thread_id"] = r.choice(
                [
                    "",
                    "x",
                    "last",
                    "../" + session,
                    session[:-1],
                    session + "0",
                    session + "\n",
                    " " + session,
                    session.replace("-", ""),
                    7,
                    None,
                ]
            )
        elif way == 3:
            events.insert(r.randrange(1, 4), dict(events[0], thread_id=other))
        elif way == 4 and expected:
            events[0]["thread_id"] = other
        else:
            events[3] = {"type": "turn.failed", "error": {"message": self.words()}}

    # Codex's index

    def thread(self, number: int) -> Dict[str, Any]:
        """A session as the index has it."""
        r, folder = self.random, "sessions"
        if r.random() < 0.3:
            folder = "archived_sessions"
        line = r.choice(["", "AI agent fuzz MCP desk/chat:\n", "AI agent a b MCP x/guard_plan:\n"])
        return {
            "id": f"0199aaaa-0000-7000-8000-{number:012x}",
            "preview": line + r.choice(["hello", "a\nb", "\u00e9" * 300, "-", "x " * 2000]),
            "name": r.choice([None, None, "", "named", "\U0001f4a5" * 200]),
            "cwd": self.work,
            "updatedAt": 1700000000 + 1000 * number + r.randrange(1000),
            "createdAt": 1700000000,
            "path": f"/home/{folder}/2026/11/26/rollout-x.jsonl",
            "status": {"type": "notLoaded"},
            "source": "exec",
        }

    def last_turn(self) -> Dict[str, Any]:
        """A turn as the index has it."""
        r = self.random
        asked = r.choice(["", "AI agent fuzz MCP desk/guard_final:\n"]) + "hello"
        status = r.choice(["completed", "completed", "failed", "interrupted", "inProgress"])
        said = [{"type": "agentMessage", "text": r.choice(["hi", "DONE: good", "x" * 5000])}]
        return {
            "id": "t",
            "status": status,
            "startedAt": 1700000000,
            "completedAt": 1700000001,
            "error": {"message": self.words() or "no luck"} if status == "failed" else None,
            "items": [
                {"type": "userMessage", "content": [{"type": "text", "text": asked}]},
                {"type": "reasoning", "summary": []},
            ]
            + (said if status == "completed" or r.random() < 0.5 else []),
        }

    def spoilt(self, value: Any) -> Any:
        """The same with some of its members changed, or gone."""
        r = self.random
        if isinstance(value, list):
            value = [self.spoilt(one) for one in value if r.random() < 0.95]
        elif isinstance(value, dict):
            value = {key: self.spoilt(one) for key, one in value.items() if r.random() < 0.97}
        return value if r.random() < 0.97 else self.value()

    def answers(self) -> Answers:
        """What the index answers to codex_sessions, for a list or one session."""
        r = self.random
        if r.random() < 0.5:
            threads = [self.thread(number) for number in range(r.randrange(8))]
            r.shuffle(threads)
            found: Tuple[Any, Any] = ({"data": []}, {"data": []})
            for one in threads:
                found["archived_sessions" in one["path"]]["data"].append(one)
            session = None
        else:
            session = r.choice(SESSIONS)
            found = {"thread": dict(self.thread(0), id=session)}, {"data": [self.last_turn()]}
        good = r.random() < 0.4
        if not good:
            # An answer that is no object is refused before it comes here.
            found = tuple(  # type: ignore[assignment]
                new if isinstance(new, dict) else {} for new in map(self.spoilt, found)
            )
        return Answers(session, json.dumps(found), good)


def good_turn(session: str, reply: str) -> List[Dict[str, Any]]:
    return [
        {"type": "thread.started", "thread_id": session},
        {"type": "turn.started"},
        {
            "type": "item.completed",
            "item": {"id": "item_1", "type": "agent_message", "text": reply},
        },
        {"type": "turn.completed", "usage": {"input_tokens": 1}},
    ]


class Stream(NamedTuple):
    """One run of Codex. `good`: whether it must end well, with `reply`, or fail; None if open."""

    expected: Optional[str]
    lines: Tuple[bytes, ...]
    stderr: str
    ending: str
    good: Optional[bool] = None
    reply: str = ""


class Answers(NamedTuple):
    """The answers of Codex's index, as JSON; `good`: whether all in them is as it should be."""

    session: Optional[str]  # the one that was asked for, None for a list
    found: str
    good: bool


# --------------------------------------------------------------------------------------------------
# the ledger: what a client's lines must get
# --------------------------------------------------------------------------------------------------


def parse(text: str) -> Any:
    """The value of a JSON text; NaN and the like are none. Raises ValueError, RecursionError."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def whole(digits: str) -> Any:
        return int(digits) if len(digits) < LONG_NUMBER else 0.5

    return json.loads(text, parse_constant=refuse, parse_int=whole)


def is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


class Ledger:
    """The answers due for the lines of one chunk, and those that came, by id (held as JSON).

    What is surely due has come at the end of a chunk; the rest can still come in the next ones.
    """

    def __init__(self, before: Optional[Ledger] = None) -> None:
        #: By id: answers that are surely due under just this id, that may come at most, that came.
        self.least: Counter[str] = Counter()
        self.most: Counter[str] = before.most - before.came if before else Counter()
        self.came: Counter[str] = Counter()
        self.total_least = 0
        self.total_most = before.total_most - sum(before.came.values()) if before else 0
        self.requests = 0

    def line(self, line: bytes) -> None:
        """Adds what one line, without its end, must get."""
        if not line.strip():
            return
        try:
            value = parse(line.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return self._due("null")
        sure = line.count(b"[") + line.count(b"{") <= DEEP
        if not sure:  # or it is refused as nested too deeply
            self._due("null", sure=False)
        self._message(value, sure)

    def _message(self, value: Any, sure: bool) -> None:
        """Adds what one message must get."""
        if not isinstance(value, dict):
            return self._due("null", sure=sure)
        if "method" not in value and ("result" in value or "error" in value):
            return
        well_made = value.get("jsonrpc") == "2.0" and isinstance(value.get("method"), str)
        params = {} if value.get("params") is None else value["params"]
        if "id" not in value:
            if not well_made:
                self._due("null", sure=sure)
            elif value["method"] == "notifications/cancelled" and isinstance(params, dict):
                self._cancel(params.get("requestId"))
        elif not is_id(value["id"]):
            self._due("null", sure=sure)
        else:
            key = json.dumps(value["id"])
            repeated = (
                self.most[key] > 0
            )  # while the first is in flight, the second is refused under null
            self._due(key, *(["null"] if repeated else []), sure=sure)
            if well_made:
                self.requests += 1

    def _due(self, *keys: str, sure: bool = True) -> None:
        """Adds one answer, under one of `keys`."""
        for key in keys:
            self.most[key] += 1
        self.total_most += 1
        self.total_least += sure
        self.least[keys[0]] += sure and len(keys) == 1

    def _cancel(self, request_id: Any) -> None:
        """Takes back one answer, which may come all the same."""
        key = json.dumps(request_id)
        if is_id(request_id) and self.most[key]:
            self.least[key] = max(0, self.least[key] - 1)
            self.total_least -= 1

    def answer(self, key: str) -> None:
        """Notes an answer. Raises Violation if it is one too many."""
        self.came[key] += 1
        if self.came[key] > self.most[key] or sum(self.came.values()) > self.total_most:
            raise Violation(
                f"answer number {self.came[key]} under id {key[:200]}; "
                f"at most {self.most[key]} are due there, "
                f"{sum(self.came.values())} of {self.total_most} in all came"
            )

    def missing(self) -> str:
        """What has not come of all that is surely due, "" if nothing."""
        missing = [key for key, count in self.least.items() if self.came[key] < count]
        total = sum(self.came.values())
        if not missing and total >= self.total_least:
            return ""
        ids = ", ".join(key[:100] for key in missing[:5]) or "(not known which)"
        return (
            f"{total} answers, at least {self.total_least} are due; "
            f"none or too few under the ids {ids}"
        )


# --------------------------------------------------------------------------------------------------
# the live server
# --------------------------------------------------------------------------------------------------


def check_message(line: bytes) -> List[Dict[str, Any]]:
    """The messages in one line of the server's output. Raises Violation."""
    try:
        value = parse(line.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Violation(
            f"a line of output is not one JSON in ASCII ({error}): {line[:300]!r}"
        ) from None
    if not line.endswith(b"\n"):
        raise Violation(f"the last line of output has no end: {line[-200:]!r}")
    messages = [value]
    for one in messages:
        if not isinstance(one, dict) or one.get("jsonrpc") != "2.0":
            raise Violation(f"not a message of JSON-RPC: {line[:300]!r}")
        if one.get("method") == "notifications/progress":
            params = one.get("params", {})
            sound = is_id(params.get("progressToken")) and isinstance(params.get("message"), str)
            if "id" in one or not sound:
                raise Violation(f"a bad notification of progress: {line[:300]!r}")
        elif "method" in one or ("result" in one) == ("error" in one) or "id" not in one:
            raise Violation(f"neither a response nor progress: {line[:300]!r}")
        elif "error" in one:
            error = one["error"]
            if type(error.get("code")) is not int or not isinstance(error.get("message"), str):
                raise Violation(f"a bad error: {line[:300]!r}")
            if error["code"] == -32603:
                raise Violation(f"an internal error: {line[:400]!r}")
        elif not isinstance(one["result"], dict) or one["id"] is None:
            raise Violation(f"a bad result: {line[:300]!r}")
    return messages


def check_result(result: Dict[str, Any]) -> str:
    """Checks the result of a tool call, and says what became of it. Raises Violation."""
    content, text = result["content"], ""
    if content and all(
        isinstance(one, dict) and isinstance(one.get("text"), str) for one in content
    ):
        text = content[0]["text"]
    failed = result.get("isError", False)
    if not text or ("structuredContent" in result) == failed:
        raise Violation(f"a bad tool result: {result!r:.400}")
    if not failed:
        return "succeeded"
    if "The server failed" in text:
        raise Violation(f"an internal error: {text!r:.400}")
    return "refused" if text.startswith("Nothing was sent") else "failed in Codex"


class Live:
    """A running server, spoken to in chunks of lines."""

    def __init__(self, env: Dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, PROGRAM], env=env, stdin=pipe, stdout=pipe, stderr=pipe
        )
        self.output: queue.Queue[Optional[bytes]] = queue.Queue()
        self.errors = b""
        self.syncs = 0
        self.ledger = Ledger()
        self.calls: Counter[str] = Counter()
        self.tools: Any = None
        self.workers = [
            threading.Thread(target=work, daemon=True) for work in (self._read, self._read_errors)
        ]
        for worker in self.workers:
            worker.start()

    def _read(self) -> None:
        for line in self.process.stdout:  # type: ignore[union-attr]
            self.output.put(line)
        self.output.put(None)

    def _read_errors(self) -> None:
        for line in self.process.stderr:  # type: ignore[union-attr]
            self.errors = (self.errors + line)[-20000:]

    def chunk(self, lines: List[bytes], bound: float = BOUND) -> Ledger:
        """Sends lines, waits for all that is due and checks all that comes. Raises Violation."""
        self.syncs += 1
        sync = f"sync-{self.syncs}"
        last = {"jsonrpc": "2.0", "id": sync, "method": "tools/list"}
        data = b"\n".join(lines + [json.dumps(last).encode()])
        self.ledger = Ledger(self.ledger)
        for line in data.split(b"\n"):
            self.ledger.line(line)
        sender = threading.Thread(target=self._send, args=(data + b"\n",), daemon=True)
        sender.start()
        end = time.monotonic() + bound
        while self.ledger.missing():
            try:
                line = self.output.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise Violation(f"no answer for {bound:g} s: {self.ledger.missing()}") from None
            if line is None:
                raise Violation(
                    f"the server ended with {self.process.wait()!r}: {self._last_words()}"
                )
            if self._take(line, sync):
                end = time.monotonic() + bound
        sender.join(bound)
        return self.ledger

    def _take(self, line: bytes, sync: str = "") -> bool:
        """Checks one line of output; whether it was an answer. Raises Violation."""
        answers = [message for message in check_message(line) if "method" not in message]
        for message in answers:
            self.ledger.answer(json.dumps(message["id"]))
            if "content" in message.get("result", {}):
                self.calls[check_result(message["result"])] += 1
            if message["id"] == sync:
                self._check_tools(message)
        return bool(answers)

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
            raise Violation(f"tools/list is not answered as at first: {message!r}")

    def _last_words(self) -> str:
        return self.errors.decode("utf-8", "replace")[-1500:]

    def close(self, half: bytes = b"") -> None:
        """Sends half a line, ends the input, wants the server to leave well. Raises Violation."""
        self.ledger = Ledger(self.ledger)
        for line in half.split(b"\n"):
            self.ledger.line(line)
        self._send(half)
        try:
            self.process.stdin.close()  # type: ignore[union-attr]
        except OSError:
            pass
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            raise Violation(
                "the server did not leave within 10 s of the end of its input"
            ) from None
        for worker in self.workers:
            worker.join(5)
        for line in iter(lambda: self.output.get(timeout=5), None):
            self._take(line)
        if code != 0 or b"Traceback" in self.errors or b"internal error" in self.errors:
            raise Violation(f"the server left with {code}: {self._last_words()}")

    def kill(self) -> None:
        """Leaves nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def environment(root: str, kind: int) -> Dict[str, str]:
    """The environment of a server. Its Codex fails at once, is silent, missing, or the fake one."""
    codex = [shutil.which("false"), shutil.which("true"), os.path.join(root, "nothing"), FAKE][
        kind % 4
    ]
    env = {
        name: value for name, value in os.environ.items() if not name.startswith(("CODEX", "FAKE_"))
    }
    env.update(
        CODEX_BIN=codex or FAKE,
        CODEX_HOME=os.path.join(root, "home"),
        FAKE_CODEX_DIR=os.path.join(root, "notes"),
        CODEX_MCP_CWD=os.path.join(root, "work"),
        CODEX_MCP_TIMEOUT_MS="60000",
        FAKE_CODEX_VERSION="0.169.0",
    )
    return env


# --------------------------------------------------------------------------------------------------
# the turn
# --------------------------------------------------------------------------------------------------


def check_stream(stream: Stream) -> str:
    """Feeds a stream to a turn, checks what it says, returns how it ended. Raises Violation."""
    begin, ended, text = time.monotonic(), "success", ""
    turn = program.Turn(stream.expected)
    try:
        for line in stream.lines:
            event = program.decode_event(line)
            if event is not None and not isinstance(turn.fold(event), str):
                raise Violation(f"progress that is no text, at {line[:300]!r}")
        turn.fold({"type": program.ENDED, "stderr": stream.stderr, "ending": stream.ending})
        turn.result()
    except program.Busy as error:
        ended, text = "busy", str(error)
    except program.Failure as error:
        ended, text = "failure", str(error)
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}") from None
    took = time.monotonic() - begin
    if took > STREAM_BOUND:
        raise Violation(f"the turn took {took:.1f} s")
    if ended != "success" and not text.strip():
        raise Violation("a failure without a word")
    if not (turn.session is None or isinstance(turn.session, str) and UUID.fullmatch(turn.session)):
        raise Violation(f"session_id is {turn.session!r}")
    if not (turn.reply is None or isinstance(turn.reply, str)):
        raise Violation(f"reply is {turn.reply!r}")
    if not (turn.usage is None or isinstance(turn.usage, dict)):
        raise Violation(f"usage is {turn.usage!r}")
    if not all(isinstance(warning, str) for warning in turn.warnings):
        raise Violation(f"warnings are {turn.warnings!r}")
    try:
        json.dumps([turn.usage, turn.reply, turn.warnings], allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise Violation(f"no JSON can be made of it ({error}): usage {turn.usage!r:.200}") from None
    if ended == "success" and not (turn.session and turn.reply):
        raise Violation(f"a success with session {turn.session!r} and reply {turn.reply!r}")
    if ended == "success" and stream.expected not in (None, turn.session):
        raise Violation(f"a success from another session: {turn.session}")
    if stream.good is False and ended == "success":
        raise Violation("a success of what must fail")
    # Lone surrogates, which UTF-8 can't carry, give way; pairs become the one character that they
    # stand for.
    reply = re.sub("[\ud800-\udfff]", "\ufffd", json.loads(json.dumps(stream.reply)))
    if stream.good and (ended != "success" or turn.reply != reply):
        raise Violation(
            f"a turn that went well was a {ended}, with the reply {turn.reply!r:.500} "
            f"instead of {reply!r:.500} ({text!s:.500})"
        )
    return ended


# --------------------------------------------------------------------------------------------------
# Codex's index
# --------------------------------------------------------------------------------------------------

#: The members of an entry, and of the answer for one session, that are texts.
ENTRY = {"session_id", "resume_command", "title", "agent", "cwd", "updated_at", "state"}
ONE = ENTRY | {"asked", "reply", "verdict", "error"}
#: Runs codex_sessions with these answers.
Runner = Callable[[Answers], Dict[str, Any]]


def index_runner(root: str) -> Runner:
    """Runs codex_sessions of the program with these answers, without a process."""
    settings = program.read_settings(environment(root, 1))
    (tool,) = [tool for tool in program.TOOLS if tool.name == FIND]
    runner = program.ToolRunner(settings)
    runner._nested = False

    def run(case: Answers) -> Dict[str, Any]:
        runner._ask = lambda control, *questions: json.loads(case.found)
        arguments = {"session_id": case.session} if case.session else {"all": True}
        result: Dict[str, Any] = runner.perform(runner.accept(tool, arguments, "fuzz", None))[0]
        return result

    return run


def check_answers(case: Answers, run: Runner) -> str:
    """Checks what codex_sessions makes of answers, and says what that was. Raises Violation."""
    begin = time.monotonic()
    try:
        result = run(case)
        json.dumps(result, allow_nan=False)
    except Exception as error:
        raise Violation(f"{type(error).__name__}: {error}") from None
    if time.monotonic() > begin + STREAM_BOUND:
        raise Violation(f"it took {time.monotonic() - begin:.1f} s")
    what = check_result(result)
    if what != "succeeded":
        if case.good:
            raise Violation(f"good answers, and it {what}: {result!r:.500}")
        return "failed"
    told, text = result["structuredContent"], result["content"][0]["text"]
    entries, texts = ([told], ONE) if case.session else (told["sessions"], ENTRY)
    for entry in entries:
        for name, value in entry.items():
            kind = bool if name == "archived" else list if name == "warnings" else str
            if not isinstance(value, kind) or name not in texts | {"archived", "warnings"}:
                raise Violation(f"{name} is {value!r:.200}")
            if kind is str and value not in text:
                raise Violation(f"{name} is not in the text: {value!r:.200}")
        time_told = entry.get("updated_at", "2026-11-26T15:04:05Z")
        sound = (
            UUID.fullmatch(entry["session_id"])
            and entry["session_id"] in entry["resume_command"]
            and len(entry.get("title", "")) <= 120
            and "\n" not in entry.get("title", "")
            and len(entry.get("asked", "")) <= 2000
            and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time_told)
            and entry["state"] in ("idle", "running", "open_elsewhere")
            and not ("reply" in entry and "error" in entry)
        )
        if not sound:
            raise Violation(f"a bad entry: {entry!r:.500}")
    if case.good:
        check_good(json.loads(case.found), told, case.session)
    return "succeeded"


def check_good(found: Any, told: Dict[str, Any], session: Optional[str]) -> None:
    """Checks that all of good answers is told, and nothing else. Raises Violation."""
    if session is None:
        threads = sorted(
            found[0]["data"] + found[1]["data"], key=lambda one: one["updatedAt"], reverse=True
        )
        entries = told["sessions"]
    else:
        threads, entries = [found[0]["thread"]], [told]
    for one, entry in zip(threads, entries):
        request = one["preview"].partition(":\n")[2] if "AI agent" in one["preview"] else ""
        title = " ".join((one["name"] or request or one["preview"]).split())
        if entry["session_id"] != one["id"] or entry["title"][:119] != title[:119]:
            raise Violation(f"{entry!r:.400} instead of {one!r:.400}")
        if entry.get("archived", False) != ("archived" in one["path"]):
            raise Violation(f"archived: {entry!r:.400}")
    if len(threads) != len(entries):
        raise Violation(f"{len(entries)} entries instead of {len(threads)}")
    if session is not None:
        (turn,) = found[1]["data"]
        reply = turn["items"][-1]["text"] if turn["status"] == "completed" else None
        if told.get("reply") != reply or ("error" in told) == (reply is not None):
            raise Violation(f"of a turn that is {turn['status']}: {told!r:.500}")
        if told["asked"] != "hello":
            raise Violation(f"asked: {told!r:.500}")


# --------------------------------------------------------------------------------------------------
# shrinking, and the run
# --------------------------------------------------------------------------------------------------


def smaller(
    items: Tuple[Any, ...], fails: Callable[[Tuple[Any, ...]], bool], end: float
) -> Tuple[Any, ...]:
    """Leaves out of `items` (lines, or bytes of a line) what `fails` does not need, until `end`."""
    size = len(items) // 2
    while size and time.monotonic() < end:
        at = 0
        while at < len(items) and time.monotonic() < end:
            less = items[:at] + items[at + size :]
            if fails(less):
                items = less
            else:
                at += size
        size //= 2
    return items


def shrink(lines: List[bytes], why: Callable[[List[bytes]], Optional[str]]) -> List[bytes]:
    """Fewer and shorter of `lines` for which `why` still names a violation."""
    end = time.monotonic() + SHRINK_TIME
    few = list(smaller(tuple(lines), lambda some: why(list(some)) is not None, end))
    for index in range(len(few)):

        def fails(some: Tuple[Any, ...]) -> bool:
            return why(few[:index] + [bytes(some)] + few[index + 1 :]) is not None

        few[index] = bytes(smaller(tuple(few[index]), fails, end))
    return few


def show(lines: List[bytes]) -> str:
    return "\n".join(
        f"    {line[:400]!r}{f' ... ({len(line)} bytes)' if len(line) > 400 else ''}"
        for line in lines
    )


def hello(revision: str) -> bytes:
    params = {
        "protocolVersion": revision,
        "capabilities": {},
        "clientInfo": {"name": "fuzz", "version": "1"},
    }
    return json.dumps(
        {"jsonrpc": "2.0", "id": "begin", "method": "initialize", "params": params}
    ).encode()


def fuzz_lines(cases: int, maker: Maker, root: str) -> Counter[str]:
    """Sends `cases` lines to live servers. Raises Violation with the reproduction."""
    counts: Counter[str] = Counter()
    while counts["lines"] < cases:
        env = environment(root, counts["servers"])
        live, lines = Live(env), []
        counts["servers"] += 1
        try:
            for _ in range(CHUNKS):
                count = min(CHUNK, cases - counts["lines"])
                before = lines
                lines = [hello(maker.random.choice(LEGACY))] + [maker.line() for _ in range(count)]
                ledger = live.chunk(lines)
                counts["lines"] += count
                counts["valid requests"] += ledger.requests - 2
                counts["answers"] += sum(ledger.came.values()) - 2
                if counts["lines"] == cases:
                    break
            live.close(maker.line()[:-1])
        except Violation as violation:
            raise Violation(reproduction(before, lines, env, str(violation))) from None
        finally:
            live.kill()
        counts.update(live.calls)
        progress(f"{counts['lines']} of {cases} lines")
    return counts


def reproduction(before: List[bytes], lines: List[bytes], env: Dict[str, str], seen: str) -> str:
    """Cuts a chunk, if need be with the one before it, down to what a new server still fails on."""

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

    print(f"\n  violation, shrinking it: {seen[:500]}", flush=True)
    for some in (lines, before + lines):
        if why(some):
            some = shrink(some, why)
            return (
                f"{seen}\n  cut down: {why(some) or 'not seen in the last try'}\n"
                f"  lines that show it (CODEX_BIN={env['CODEX_BIN']}):\n{show(some)}"
            )
    return (
        f"{seen}\n  not seen again on a new server (CODEX_BIN={env['CODEX_BIN']}); "
        f"the lines were\n{show(lines)}"
    )


def fuzz_streams(cases: int, maker: Maker) -> Counter[str]:
    """Feeds `cases` streams to turns. Raises Violation with the reproduction."""
    counts: Counter[str] = Counter()

    def why(stream: Stream) -> Optional[str]:
        try:
            counts[check_stream(stream)] += 1
            return None
        except Violation as violation:
            return str(violation)

    for number in range(cases):
        stream = maker.stream()
        seen = why(stream)
        if seen:
            print(f"\n  violation, shrinking it: {seen[:500]}", flush=True)
            if why(stream._replace(stderr="")):
                stream = stream._replace(stderr="")
            if why(stream._replace(good=None)):  # else each line may be what makes it good
                stream = stream._replace(good=None)
                few = shrink(
                    list(stream.lines), lambda some: why(stream._replace(lines=tuple(some)))
                )
                stream = stream._replace(lines=tuple(few))
            length = len(stream.stderr)
            more = f" ... ({length})" if length > 1000 else ""
            raise Violation(
                f"{seen}\n  cut down: {why(stream) or 'not seen in the last try'}\n"
                f"  Turn({stream.expected!r}), result({stream.stderr!r:.1000}{more}, "
                f"{stream.ending!r}) with the lines\n{show(list(stream.lines))}"
            )
        counts["streams"] += 1
        counts["events"] += len(stream.lines)
        counts["good"] += stream.good is True
        counts["spoilt"] += stream.good is False
        if number % 5000 == 0:
            progress(f"{number} of {cases} streams")
    return counts


def fuzz_answers(cases: int, maker: Maker, root: str) -> Counter[str]:
    """Has codex_sessions answer from `cases` answers of the index. Raises Violation."""
    counts: Counter[str] = Counter()
    run = index_runner(root)
    for number in range(cases):
        case = maker.answers()
        try:
            counts[check_answers(case, run)] += 1
        except Violation as violation:
            raise Violation(f"{violation}\n  of {case!r:.4000}") from None
        counts["good"] += case.good
        if number % 5000 == 0:
            progress(f"{number} of {cases} answers of the index")
    return counts


def progress(text: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\x1b[K  {text}", end="", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=400000, help="how many, of all kinds together")
    parser.add_argument("--seed", type=int, default=None, help="for the same cases again")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    sys.setrecursionlimit(3000)  # the ledger must be able to read all that a server may
    streams, answers = options.cases // 3, options.cases // 6
    print(
        f"fuzz: {options.cases} cases, Python {sys.version.split()[0]}, --seed {seed}", flush=True
    )
    begin, bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
        for name in ("home", "work", "notes"):
            os.mkdir(os.path.join(root, name))
        try:
            maker = Maker(f"lines {seed}", os.path.join(root, "work"))
            got = fuzz_lines(options.cases - streams - answers, maker, root)
            print(
                f"\r  client lines:  {got['lines']} sent to {got['servers']} servers; "
                f"{got['valid requests']} valid requests, {got['answers']} answers\n"
                f"                 tool calls: {got['refused']} refused for their arguments, "
                f"{got['failed in Codex']} failed, {got['succeeded']} succeeded\n"
                "                 nothing lost, nothing doubled, every line of output sound, "
                "all servers left with 0",
                flush=True,
            )
        except Violation as violation:
            bad += 1
            print(f"\nVIOLATION (client lines): {violation}", flush=True)
        try:
            got = fuzz_streams(streams, Maker(f"streams {seed}", os.path.join(root, "work")))
            print(
                f"\r  event streams: {got['streams']} with {got['events']} lines; "
                f"{got['success']} successes, {got['failure']} failures, {got['busy']} busy, "
                "nothing else\n"
                f"                 the {got['good']} turns that went well succeeded, "
                f"the {got['spoilt']} spoilt ones failed"
            )
        except Violation as violation:
            bad += 1
            print(f"\nVIOLATION (event streams): {violation}")
        try:
            maker = Maker(f"answers {seed}", os.path.join(root, "work"))
            got = fuzz_answers(answers, maker, root)
            print(
                f"\r  index answers: {got['good']} good ones, all told; of the others "
                f"{got['succeeded'] - got['good']} told in part, {got['failed']} failed"
            )
        except Violation as violation:
            bad += 1
            print(f"\nVIOLATION (index answers): {violation}")
    outcome = f"{bad} violations" if bad else f"all {options.cases} cases survived"
    print(f"{outcome} in {time.monotonic() - begin:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
