#!/usr/bin/env python3
"""Soak (`make soak`): servers, clients and a Codex that misbehaves at random, for minutes.

    soak.py [--seconds N] [--seed N]

Two servers live from start to end; two more are ended again and again by the end of input, SIGINT,
SIGTERM, SIGKILL, or all of these as the Codex CLI does it, in the middle of calls. All of them
share sessions; the fake codex is 0.77.0 for some and 0.169.0 for others. Most calls are a scenario
of the fake codex, with chance cancels and short timeouts. Some of them run in the background: what
became of them is asked for later, there and from another server. Between them the sessions are
listed and looked at, and calls are stopped. Ends by itself, at the latest 30 s after its time.

Flat means: threads, open files and files in the Codex home are no more at the end than after the
warm-up, when no call runs; memory is at most 8 MB more. SOAK_PROGRAM names another program to soak.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from typing import Any, Dict, List, Optional, Set, Tuple

sys.dont_write_bytecode = True
from client import HERE, Client, remaining  # noqa: E402
from fake_store import FOLDERS  # noqa: E402
from tools import CHAT, SESSIONS, STOP  # noqa: E402

FAKE = os.path.join(HERE, "fake_codex.py")
PROGRAM = os.environ.get("SOAK_PROGRAM") or os.path.join(
    os.path.dirname(HERE), "codex_persistent_mcp.py"
)
LINUX = os.path.isdir("/proc/self")
#: Seconds after its own timeout within which a call must be answered.
LATE = 12.0
#: Seconds after the end of a server within which nothing may be left of its runs.
GONE = 2.0
#: Megabytes that a server may have grown by.
GROWTH = 8.0
#: Has glibc give back what is freed, so that memory means memory in use.
TIDY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}
VERSIONS = ("0.77.0", "0.169.0")
#: What is called, how often.
KINDS = {"turn": 16.0, "background": 3.0, "list": 1.0, "look": 3.0, "stop": 0.7}
TOOL = {"turn": CHAT, "background": CHAT, "list": SESSIONS, "look": SESSIONS, "stop": STOP}
#: Milliseconds for which a look waits for what runs in the background; it ends before.
WAIT_MS = 20000
#: Faults of one kind that are told in full.
EXAMPLES = 20

OPEN = "FAKE:session\nFAKE:started\n"
BEAT = "FAKE:mark {n}\nFAKE:sleep 0.03\n" * 3
LONG = OPEN + "FAKE:mark {n}\nFAKE:sleep 0.05\n" * 400
DONE = "FAKE:say reply {n}\nFAKE:completed\n"
#: Scenario: its steps, how often, and whether it can succeed (yes, no).
SCENARIOS: Dict[str, Tuple[str, int, bool]] = {
    "good": (OPEN + BEAT + DONE, 12, True),
    "floods stderr": ("FAKE:stderr-flood 3\n" + OPEN + BEAT + DONE, 1, True),
    "floods events": (OPEN + "FAKE:events 20000\n" + BEAT + DONE, 1, True),
    "long line": (OPEN + "FAKE:long-line 2\n" + BEAT + DONE, 1, True),
    "junk lines": (
        "FAKE:raw junk\nFAKE:hex ff00fe0a\n" + OPEN + "FAKE:raw [7]\n" + BEAT + DONE,
        2,
        True,
    ),
    "grandchild": (OPEN + "FAKE:grandchild\n" + BEAT + DONE, 2, True),
    "does not leave": (OPEN + BEAT + DONE + "FAKE:hang\n", 1, True),
    "stubborn, does not leave": ("FAKE:stubborn\n" + OPEN + BEAT + DONE + "FAKE:hang\n", 1, True),
    "hangs": (LONG, 3, False),
    "hangs in silence": ("FAKE:hang\n", 1, False),
    "stubborn": ("FAKE:stubborn\n" + LONG, 2, False),
    "grandchild, hangs": (OPEN + "FAKE:grandchild\n" + LONG, 2, False),
    "exits": ("FAKE:exit 3\n", 1, False),
    "exits in the turn": (OPEN + "FAKE:mark {n}\nFAKE:exit 0\n", 1, False),
    "half a line": (OPEN + 'FAKE:partial {{"type":"item.comp\nFAKE:exit 1\n', 1, False),
    "fails": (OPEN + BEAT + "FAKE:failed no luck\n", 2, False),
    "closes stdout": (OPEN + "FAKE:close-stdout\nFAKE:hang\n", 1, False),
    "another session": ("FAKE:session 0199aaaa-0000-7000-8000-000000000001\nFAKE:hang\n", 1, False),
}


def processes() -> List[Tuple[int, int, str, bytes]]:
    """Pid, parent, state and environment of every process (without /proc: what ps shows of it)."""
    found = []
    if LINUX:
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat") as file:
                        state, parent = file.read().rpartition(")")[2].split()[:2]
                    with open(f"/proc/{name}/environ", "rb") as raw:
                        found.append((int(name), int(parent), state, raw.read()))
                except OSError:
                    pass
        return found
    listing = subprocess.run(
        ["ps", "-A", "-wwE", "-o", "pid=,ppid=,stat=,command="], stdout=subprocess.PIPE
    )
    for line in listing.stdout.splitlines():
        pid, parent, state, rest = (line.split(None, 3) + [b""])[:4]
        found.append((int(pid), int(parent), state.decode(), rest))
    return found


def alive(tag: str, but: Optional[int] = None) -> List[int]:
    """The living processes whose SOAK_SERVER begins with `tag`, but for the server `but`."""
    mark = b"SOAK_SERVER=" + tag.encode()
    return [
        pid
        for pid, _, state, env in processes()
        if mark in env and state[0] not in "ZX" and pid not in (but, os.getpid())
    ]


def vitals(pid: int) -> Dict[str, float]:
    """Threads, open files, memory (MB) and zombies of a process; without /proc the last alone."""
    zombies = sum(parent == pid and state[0] == "Z" for _, parent, state, _ in processes())
    if not LINUX:
        return {"zombies": zombies}
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    return {
        "threads": int(status["Threads"]),
        "open files": len(os.listdir(f"/proc/{pid}/fd")),
        "memory": int(status["VmRSS"].split()[0]) / 1024,
        "zombies": zombies,
    }


class Call:
    """A call in flight, and what is known of it."""

    def __init__(
        self,
        number: str,
        scenario: str,
        session: Optional[str],
        timeout: float,
        kind: str = "turn",
        of: Optional[Call] = None,
    ) -> None:
        self.number, self.scenario, self.session, self.timeout = number, scenario, session, timeout
        #: One of KINDS; the call in the background after which a look asks.
        self.kind, self.of = kind, of
        #: Of a call in the background: how often its answer was asked for, what it was at first,
        #: and from which server.
        self.looks, self.told, self.server = 0, "", ""
        self.begin = time.monotonic()
        self.cancel_at: Optional[float] = None
        #: The ping after the cancel: what comes after its answer is too late.
        self.fence: Optional[str] = None
        self.answers = 0


class SoakClient(Client):
    """A client that keeps nothing but its calls. The lock of Client guards them."""

    def __init__(self, soak: Soak, tag: str, version: str) -> None:
        self.soak, self.tag = soak, tag
        self.calls: Dict[str, Call] = {}
        self.passed: Set[str] = set()
        #: Calls in the background whose answer is to be asked for.
        self.begun: List[Call] = []
        self.version = version
        self.count = 0
        super().__init__(
            dict(soak.env, SOAK_SERVER=tag, FAKE_CODEX_VERSION=version), program=PROGRAM
        )
        params = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "soak", "version": "1"},
        }
        self.request("initialize", params, id="hello")

    def _read_messages(self) -> None:
        for line in self.process.stdout:
            message = json.loads(line)
            with self._changed:
                self.soak.answer(self, message)

    def _read_errors(self) -> None:
        for line in self.process.stderr:
            if b"Traceback" in line or b"internal error" in line:
                self.soak.fault("faults on stderr", line.decode("utf-8", "replace").strip())

    def add(self, call: Call) -> None:
        with self._changed:
            self.calls[call.number] = call

    def forget(self, call: Call) -> None:
        with self._changed:
            self.calls.pop(call.number)

    def known(self) -> List[Call]:
        with self._changed:
            return list(self.calls.values())

    def pending(self) -> List[Call]:
        waiting = [call for call in self.known() if not call.answers and call.cancel_at != 0]
        return waiting + self.begun


class Soak:
    """The whole run: its account and its servers."""

    def __init__(self, root: str, seconds: float, seed: int) -> None:
        self.root, self.random = root, random.Random(seed)
        #: Two runs on one machine must not take each other's for orphans.
        self.name = f"run{os.getpid()}."
        self.end = time.monotonic() + seconds
        self.home, self.notes = os.path.join(root, "home"), os.path.join(root, "notes")
        for name in ("home", "notes", "work", "tmp"):
            os.mkdir(os.path.join(root, name))
        self.env = dict(
            TIDY,
            CODEX_BIN=FAKE,
            CODEX_HOME=self.home,
            FAKE_CODEX_DIR=self.notes,
            FAKE_CODEX_DO="",
            TMPDIR=os.path.join(root, "tmp"),
            CODEX_MCP_CWD=os.path.join(root, "work"),
            CODEX_MCP_SANDBOX="",
            CODEX_MCP_TIMEOUT_MS="",
            CODEX_MCP_MAX_PARALLEL="8",
        )
        self.lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.examples: List[str] = []
        self.sessions: List[str] = []
        self.session_of: Dict[str, str] = {}
        self.stops: Set[Tuple[str, Optional[str]]] = set()  # server and session of codex_stop
        self.cut_off: Set[str] = set()  # calls that were in flight when SIGKILL ended their server
        self.overlaps: Set[str] = (
            set()
        )  # those of them whose Codex met the next turn on its session
        self.made = 0
        self.slowest_exit = 0.0
        self.clients: List[SoakClient] = []
        self.quiet = False  # while the steady servers are measured

    def fault(self, kind: str, what: str) -> None:
        with self.lock:
            self.faults[kind] += 1
            if self.faults[kind] <= EXAMPLES:
                self.examples.append(f"{kind}: {what[:1000]}")

    # one call

    def start(self, client: SoakClient) -> None:
        """Sends one call, of a kind and a scenario by chance."""
        r = self.random
        with self.lock:
            kind = r.choices(list(KINDS), list(KINDS.values()))[0]
            name = r.choices(list(SCENARIOS), [weight for _, weight, _ in SCENARIOS.values()])[0]
            session = r.choice(self.sessions[-12:]) if self.sessions and r.random() < 0.75 else None
            timeout = (
                r.choice([1.0, 1.5, 3.0]) if not SCENARIOS[name][2] or r.random() < 0.1 else 8.0
            )
            cancel = r.random() < 0.15 and kind != "background"
            wait = r.random() * 1.5
        if kind == "background":
            session = None  # nobody else knows it, so what is told of it can be judged
        elif kind in ("look", "stop") and session is None:
            return
        elif kind != "turn":
            timeout = 12.0
        call = self.call(client, name, session, timeout, kind)
        if cancel:
            call.cancel_at = call.begin + wait
        if kind == "turn" and session:
            self.session_of[call.number] = session
        arguments: Dict[str, Any] = {"session_id": session} if session else {}
        if TOOL[kind] == CHAT:
            arguments["prompt"] = SCENARIOS[name][0].format(n=call.number)
            arguments["timeout_ms"] = int(timeout * 1000)
            if kind == "background":
                arguments["background"] = True
        elif kind == "list":
            arguments = {"all": True, "limit": 20}
        elif kind == "stop":
            self.stops.add((client.tag, session))
        self.send(client, call, arguments)

    def call(self, client: SoakClient, *what: Any) -> Call:
        """A new call of that server."""
        with self.lock:
            self.made += 1
            client.count += 1
            return Call(f"{client.tag}-{client.count}", *what)

    def send(self, client: SoakClient, call: Call, arguments: Dict[str, Any]) -> None:
        client.add(call)
        client.request(
            "tools/call",
            {
                "name": TOOL[call.kind],
                "arguments": arguments,
                "_meta": {"progressToken": call.number},
            },
            id=call.number,
        )

    def follow(self, client: SoakClient, begun: Call) -> None:
        """Asks for the answer of a call in the background."""
        first = not begun.looks
        begun.looks += 1
        if first and self.random.random() < 0.2:  # changes nothing any more
            client.notify("notifications/cancelled", {"requestId": begun.number})
        if first and self.random.random() < 0.15:
            self.stops.add((client.tag, begun.session))
            stop = self.call(client, begun.scenario, begun.session, 12.0, "stop")
            self.send(client, stop, {"session_id": begun.session})
        look = self.call(client, begun.scenario, begun.session, WAIT_MS / 1000, "look", begun)
        arguments: Dict[str, Any] = {"session_id": begun.session}
        if first:
            arguments["wait_ms"] = WAIT_MS
        self.send(client, look, arguments)

    def answer(self, client: SoakClient, message: Dict[str, Any]) -> None:
        """Takes one message of a server, in the order in which they came."""
        key = message.get("id")
        if message.get("method") == "notifications/progress":
            call = client.calls.get(message["params"]["progressToken"])
            if call is None or call.answers or call.fence in client.passed:
                self.fault("messages after an answer or a cancel", json.dumps(message))
            return
        if not isinstance(key, str) or key == "hello":
            if key != "hello":
                self.fault("wrong answers", json.dumps(message))
            return
        if key.startswith("fence "):
            client.passed.add(key)
            return
        call = client.calls.get(key)
        if call is None:
            return self.fault("answers doubled", f"{key}: nobody waits for it")
        call.answers += 1
        if call.answers > 1:
            return self.fault("answers doubled", f"{key} ({call.scenario})")
        if call.fence in client.passed:
            return self.fault("messages after an answer or a cancel", f"{key} ({call.scenario})")
        self.outcomes[self.judge(client, call, message)] += 1

    def judge(self, client: SoakClient, call: Call, message: Dict[str, Any]) -> str:
        """What became of a call; notes an answer that cannot be."""
        result = message.get("result")
        if result is None:
            self.fault("wrong answers", f"{call.scenario}: {json.dumps(message)}")
            return "error"
        text = "\n".join(block["text"] for block in result["content"])
        got = None if result.get("isError") else result["structuredContent"]
        if TOOL[call.kind] != CHAT:
            return self.judge_question(client, call, got, text)
        if got is not None:
            return self.judge_success(client, call, got, text)
        kinds = (
            ("No answer within", "timed out"),
            ("open elsewhere", "session open elsewhere"),
            ("call was stopped", "stopped by codex_stop"),
        )
        kind = next((word for mark, word in kinds if mark in text), "failed")
        impossible = kind == "failed" and SCENARIOS[call.scenario][2]
        if kind == "stopped by codex_stop" and (client.tag, call.session) not in self.stops:
            impossible = True
        if impossible:
            self.fault("wrong answers", f"{call.number} ({call.scenario}): {text}")
        return kind

    def judge_success(self, client: SoakClient, call: Call, got: Dict[str, Any], text: str) -> str:
        """Of a turn, or of one that goes on in the background."""
        with self.lock:
            self.session_of[call.number] = got["session_id"]
        if call.kind == "background":
            good = got["state"] == "running" and "reply" not in got and call.session is None
            call.session = got["session_id"]
            client.begun.append(call)
        else:
            good = (
                SCENARIOS[call.scenario][2]
                and got["reply"] == "reply " + call.number
                and (call.session in (None, got["session_id"]))
            )
            with self.lock:
                if call.session is None:
                    self.sessions.append(got["session_id"])
        if not good:
            self.fault("wrong answers", f"{call.number} ({call.scenario}): {text}")
        return "begun in the background" if call.kind == "background" else "succeeded"

    def judge_question(
        self, client: SoakClient, call: Call, got: Optional[Dict[str, Any]], text: str
    ) -> str:
        """Of a list, a look or a stop."""
        if got is None:
            old = client.version == VERSIONS[0] and "needs Codex 0.125" in text
            if call.kind != "look" or call.of or not old:
                self.fault("wrong answers", f"{call.number} ({call.kind}): {text}")
            return "look refused: Codex too old"
        entries = got["sessions"] if call.kind == "list" else [got]
        times = [entry.get("updated_at", "") for entry in entries]
        ids = [entry["session_id"] for entry in entries]
        good = times == sorted(times, reverse=True) and len(set(ids)) == len(ids) <= 20
        good = good and all(id in entry["resume_command"] for id, entry in zip(ids, entries))
        if call.kind == "look":
            good = good and ids == [call.session] and self.told_well(client, call, got)
        elif call.kind == "stop":
            good = good and ids == [call.session] and got["stopped"] >= 0
        if not good:
            self.fault("misreported", f"{call.number} ({call.kind}): {text}")
        if call.kind == "stop":
            return "codex_stop that stopped " + ("some" if got["stopped"] else "none")
        return {"list": "lists", "look": "looks"}[call.kind]

    def told_well(self, client: SoakClient, call: Call, got: Dict[str, Any]) -> bool:
        """Whether what is told of a session can be."""
        running, of = got["state"] == "running", call.of
        reply, error = got.get("reply", ""), got.get("error", "")
        number = re.sub("^reply ", "", reply)
        if (running or error) and reply or running and error:
            return False
        if reply and (
            reply not in got.get("asked", "") or self.session_of.get(number) != call.session
        ):
            return False
        if of is None:
            return True
        if running or not (reply or error) or reply and number != of.number:
            return False
        excused = of.timeout < 8 or (of.number.rpartition("-")[0], call.session) in self.stops
        if reply and not SCENARIOS[of.scenario][2]:
            return False
        if error and SCENARIOS[of.scenario][2] and not excused:
            return False
        if of.looks == 1:
            of.told, of.server = reply or error, client.tag
            self.clients[1].begun.append(of)  # the steady one whose Codex has an index
            return True
        with self.lock:
            self.sessions.append(str(call.session))
        if of.server == client.tag:
            return of.told == (reply or error)
        # Another server tells an error in the index's words. There, a turn that was stopped may
        # have come to its end.
        same = of.told == reply if reply else not of.told.startswith("reply ")
        return same or excused and not of.told.startswith("reply ")

    # servers

    def drive(self, client: SoakClient, until: float, most: int) -> None:
        """Makes calls, at most `most` at once, cancels some, looks for lost ones, until `until`."""
        while time.monotonic() < until:
            now = time.monotonic()
            if not self.quiet and len(client.pending()) < most:
                self.start(client)
            self.look_after(client, now)
            time.sleep(0.05)

    def look_after(self, client: SoakClient, now: float) -> None:
        while client.begun:
            self.follow(client, client.begun.pop())
        for call in client.known():
            if now > call.begin + 60 and (call.answers or call.fence in client.passed):
                client.forget(call)
            elif call.answers or call.cancel_at == 0:
                continue
            elif call.cancel_at and now >= call.cancel_at:
                call.cancel_at, call.fence = 0, "fence " + call.number
                self.outcomes["cancelled"] += 1
                client.notify("notifications/cancelled", {"requestId": call.number})
                client.request("ping", id=call.fence)
            elif now > call.begin + call.timeout + LATE:
                call.cancel_at = 0
                self.fault("answers lost", f"{call.number} ({call.scenario}, {call.timeout:g} s)")

    def steady(self, client: SoakClient) -> None:
        try:
            self.drive(client, self.end, 3)
            self.settle(client, 15)
        except (OSError, ValueError) as error:
            self.fault("servers died", f"{client.tag}: {error!r}")

    def settle(self, client: SoakClient, patience: float) -> None:
        """Waits until no call of a server is in flight."""
        end = time.monotonic() + patience
        while client.pending() and time.monotonic() < end:
            self.look_after(client, time.monotonic())
            time.sleep(0.05)

    def restless(self, slot: int) -> None:
        """One server after the other, each ended in the middle of its calls."""
        number = 0
        while time.monotonic() < self.end - 3:
            number += 1
            client = self.client(f"r{slot}.{number}.", self.random.choice(VERSIONS))
            try:
                self.drive(
                    client, min(self.end - 2, time.monotonic() + 1 + self.random.random() * 6), 3
                )
            except (OSError, ValueError) as error:
                self.fault("servers died", f"{client.tag}: {error!r}")
            self.finish(
                client,
                self.random.choice(
                    [
                        "EOF",
                        "SIGINT",
                        "SIGTERM",
                        "SIGKILL",
                        "SIGKILL",
                        "EOF SIGTERM SIGKILL",
                        "SIGINT SIGTERM",
                    ]
                ),
            )

    def client(self, tag: str, version: str) -> SoakClient:
        client = SoakClient(self, self.name + tag, version)
        with self.lock:
            self.clients.append(client)
        return client

    def finish(self, client: SoakClient, ending: str) -> None:
        """Ends a server, and looks whether anything is left of it."""
        begin = time.monotonic()
        self.endings[ending] += 1
        pending = client.pending()
        for what in ending.split():
            if what == "EOF":
                client.process.stdin.close()
            else:
                client.process.send_signal(getattr(signal, what))
            if what != ending.split()[-1]:
                time.sleep(0.04 if "EOF" in ending else 0.1)
        try:
            client.process.wait(5)
        except subprocess.TimeoutExpired:
            self.fault("servers that did not leave", f"{client.tag} after {ending}")
            client.process.kill()
        client.process.wait()
        if "KILL" in ending:
            self.cut_off.update(number for number, call in client.calls.items() if not call.answers)
        else:
            self.slowest_exit = max(self.slowest_exit, time.monotonic() - begin)
        for pid in remaining(lambda: alive(client.tag), time.monotonic() + GONE):
            self.fault("orphans", f"pid {pid} of server {client.tag}, ended by {ending}")
            kill(pid)
        client.close()
        self.outcomes["in flight when the server was ended"] += sum(
            not call.answers for call in pending
        )

    # the account

    def measure(self, steady: List[SoakClient]) -> List[Dict[str, float]]:
        """The vitals of the steady servers while nothing runs."""
        self.quiet = True
        for client in steady:
            self.settle(client, 15)
        best = [vitals(client.process.pid) for client in steady]
        for _ in range(30):  # a cancelled run, or a worker that has answered, may still be leaving
            time.sleep(0.1)
            best = [
                {key: min(old[key], new[key]) for key in old}
                for old, new in zip(best, [vitals(client.process.pid) for client in steady])
            ]
        self.quiet = False
        return best

    def stray_files(self) -> List[str]:
        return sorted(
            os.path.join(folder, name)[len(self.root) + 1 :]
            for where in (self.home, self.env["TMPDIR"])
            for folder, _, names in os.walk(where)
            for name in names
            if not folder.startswith(tuple(os.path.join(self.home, one) for one in FOLDERS))
        )

    def check_order(self) -> int:
        """Reads the turns' marks in the order of their making. Returns the number of turns."""
        try:
            with open(os.path.join(self.notes, "marks")) as file:
                marks = file.read().split()
        except OSError:
            marks = []
        now: Dict[str, str] = {}
        over: Set[str] = set()
        newest: Dict[Tuple[str, str], int] = {}
        for number in marks:
            session = self.session_of.get(number)
            if session is None:
                continue  # a new session that nobody was told of
            if now.get(session) == number:
                continue
            if number in over:
                cut_off = self.cut_off & {number, now[session]}
                self.overlaps.update(cut_off)
                # Elsewhere the lock dies with its server, whose Codex may live on until the watcher
                # has ended it.
                if LINUX or not cut_off:
                    self.fault(
                        "turns interleaved", f"{number} after {now[session]}, session {session}"
                    )
            over.add(now.get(session, ""))
            now[session] = number
            tag, _, count = number.rpartition("-")
            if int(count) < newest.get((session, tag), 0) and number not in over:
                self.fault(
                    "turns out of order",
                    f"{number} after call {newest[session, tag]}, session {session}",
                )
            newest[session, tag] = max(newest.get((session, tag), 0), int(count))
        return len(set(marks))

    def run(self, seconds: float) -> None:
        steady = [self.client(f"s{number}.", version) for number, version in enumerate(VERSIONS, 1)]
        workers = [
            threading.Thread(target=self.steady, args=(client,), daemon=True) for client in steady
        ]
        workers += [
            threading.Thread(target=self.restless, args=(slot,), daemon=True) for slot in (1, 2)
        ]
        for worker in workers:
            worker.start()
        time.sleep(min(30.0, seconds / 3))
        before, files_before = self.measure(steady), self.stray_files()
        said = time.monotonic()
        while time.monotonic() < self.end:
            time.sleep(0.5)
            if time.monotonic() > said + 30:
                said = time.monotonic()
                print(
                    f"  {self.end - said:3.0f} s left, {self.made} calls, "
                    f"{sum(self.faults.values())} faults",
                    flush=True,
                )
        self.quiet = True
        for worker in workers:
            worker.join(20)
        after, files_after = self.measure(steady), self.stray_files()
        for client in steady:
            left = alive(client.tag, client.process.pid)
            for pid in left:
                self.fault("orphans", f"pid {pid} of server {client.tag}, which is idle")
            self.finish(client, "EOF")
        for pid in alive(self.name):
            self.fault("orphans", f"pid {pid} at the end")
        turns = self.check_order()
        self.report(turns, before, after, files_before, files_after)

    def report(
        self,
        turns: int,
        before: List[Dict[str, float]],
        after: List[Dict[str, float]],
        files_before: List[str],
        files_after: List[str],
    ) -> None:
        def tell(name: str, text: Any) -> None:
            print(f"{name:<40} {text}")

        tell("calls made", f"{self.made}; {turns} turns seen, on {len(self.sessions)} sessions")
        for name, count in self.outcomes.most_common():
            tell("  " + name, count)
        tell("servers ended", sum(self.endings.values()))
        for name, count in self.endings.most_common():
            tell("  by " + name, count)
        tell(
            "slowest end of a server, s", f"{self.slowest_exit:.2f} (not counted: those by SIGKILL)"
        )
        tell(
            "turns cut off by SIGKILL to the server",
            f"{len(self.cut_off)}; {len(self.overlaps)} met the next turn on their session",
        )
        for name in (
            "answers lost",
            "answers doubled",
            "messages after an answer or a cancel",
            "wrong answers",
            "misreported",
            "orphans",
            "turns interleaved",
            "turns out of order",
            "servers that did not leave",
            "servers died",
            "faults on stderr",
        ):
            tell(name, self.faults[name])
        for number, (old, new) in enumerate(zip(before, after), 1):
            for name in old:
                limit = 0 if name == "zombies" else old[name] + (GROWTH if name == "memory" else 0)
                what = f"{name} of server {number}{', MB' if name == 'memory' else ''}"
                self.flat(what, round(old[name], 1), round(new[name], 1), limit)
        self.flat("files besides sessions", len(files_before), len(files_after), len(files_before))
        print(f"  {', '.join(files_after[:5])}")

    def flat(self, name: str, old: float, new: float, limit: float) -> None:
        """Tells a number before and after, and notes a fault if it is over `limit`."""
        bad = new > limit
        print(f"{name:<40} {old:g} -> {new:g}{'   NOT FLAT' if bad else ''}")
        if bad:
            self.fault("not flat", f"{name}: {old:g}, then {new:g}")


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="for the same choices, not the same timing"
    )
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(
        f"soak: {options.seconds:g} s, Python {sys.version.split()[0]}, --seed {seed}", flush=True
    )
    root = tempfile.mkdtemp(prefix="soak-")
    soak = Soak(root, options.seconds, seed)

    def clean() -> None:
        for client in soak.clients:
            kill(client.process.pid) if client.process.poll() is None else None
        for pid, _, state, env in processes():
            if ("FAKE_CODEX_DIR=" + soak.notes).encode() in env and pid != os.getpid():
                kill(pid)
        shutil.rmtree(root, ignore_errors=True)

    def overdue() -> None:
        print("FAILED: not over 30 s after its time", flush=True)
        clean()
        os._exit(1)

    watchdog = threading.Timer(options.seconds + 30, overdue)
    watchdog.daemon = True
    watchdog.start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        soak.run(options.seconds)
    finally:
        watchdog.cancel()
        clean()
    for example in soak.examples:
        print("  " + example)
    faults = sum(soak.faults.values())
    print(f"FAILED: {faults} faults" if faults else "nothing lost, nothing left behind")
    return 1 if soak.faults else 0


if __name__ == "__main__":
    sys.exit(main())
