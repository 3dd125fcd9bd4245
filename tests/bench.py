#!/usr/bin/env python3
"""Measures what the server costs, against the floor that the machine sets: the table in the README.

Each row alternates between the server and its floor, so that a busy machine slows both, and tells
medians. The Codex of most rows is a shell script that answers at once: a slow one would hide what
the server adds.

    bench.py [--quick] [--program FILE] [ROW ...]
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from client import PROGRAM
from demo import VERSION, environment, real_codex
from tools import CHAT

HERE = os.path.dirname(os.path.abspath(__file__))
SESSION = "0199a213-81c0-7800-8aa1-bbab2a035a53"
PROMPT = "Is the plan sound? Answer in one line."
COMMAND = "/bin/bash -lc 'sed -n 1,80p src/main.py'"
#: Lines of a file, with what JSON must escape.
TEXT = (
    'if name == "main":\n\treturn path + "/größe"  # and so on, up to \\ and the end of the line\n'
)
ROWS = ("start", "call", "real", "parallel", "queue", "long", "memory", "reply", "progress")


def quick(does: str) -> str:
    """A Codex in shell, there in a millisecond: reads its prompt, does `does`, says "done"."""
    return f"""#!/bin/sh
id={SESSION}
for one; do [ "$last" = resume ] && id=$one; last=$one; done
while read -r line; do :; done
echo '{{"type":"thread.started","thread_id":"'$id'"}}'
echo '{{"type":"turn.started"}}'
{does}
echo '{{"type":"item.completed","item":{{"id":"item_0","type":"agent_message","text":"done"}}}}'
echo '{{"type":"turn.completed","usage":{{"input_tokens":10,\
"cached_input_tokens":0,"output_tokens":5}}}}'
"""


#: The floor of a long turn: the same bytes through `json.loads`, and nothing else.
LOADS = """\
import json, sys, time
begin = time.perf_counter()
for line in open(sys.argv[1], "rb"):
    json.loads(line)
print(time.perf_counter() - begin)
"""

#: The floor of a long reply: a process that starts that Codex, reads the reply and writes it on.
RELAY = """\
import json, subprocess, sys
for _ in sys.stdin:
    codex = subprocess.Popen([sys.argv[1]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    for line in codex.stdout:
        event = json.loads(line)
        if event["type"] == "item.completed":
            sys.stdout.write(json.dumps(event["item"]["text"]) + "\\n")
    codex.wait()
    sys.stdout.flush()
"""


class Server:
    """The server and one client, as bare as can be: what it measures is the server."""

    def __init__(self, codex: str, stderr: Optional[int] = subprocess.DEVNULL, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, BENCH.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(os.environ, **dict(environment(codex, BENCH.home, BENCH.work), **env)),
        )
        self.count = 0
        self.wait(
            self.send(
                "initialize",
                {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {},
                    "clientInfo": {"name": "bench", "version": "1"},
                },
            )
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def send(self, method: str, params: Dict[str, Any]) -> int:
        self.count += 1
        message = {"jsonrpc": "2.0", "id": self.count, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()
        return self.count

    def wait(self, *ids: int) -> List[bytes]:
        """Reads until all these requests are answered; returns the answers, not yet decoded."""
        missing, answers = {b'"id":%d,' % id for id in ids}, []
        while missing:
            line = self.process.stdout.readline()
            assert line, "the server has left"
            found = next((id for id in missing if id in line[:60]), None)
            if found is not None:
                missing.discard(found)
                answers.append(line)
        return answers

    def start_call(self, session_id: Optional[str] = None, token: Optional[int] = None) -> int:
        arguments = (
            {"prompt": PROMPT}
            if session_id is None
            else {"prompt": PROMPT, "session_id": session_id}
        )
        params: Dict[str, Any] = {"name": CHAT, "arguments": arguments}
        if token is not None:
            params["_meta"] = {"progressToken": token}
        return self.send("tools/call", params)

    def call(self, session_id: Optional[str] = None, token: Optional[int] = None) -> float:
        """One call of the chat tool that must succeed: the seconds it took."""
        begin = time.perf_counter()
        (answer,) = self.wait(self.start_call(session_id, token))
        took = time.perf_counter() - begin
        assert b'"isError"' not in answer[:2000] and b'"structuredContent"' in answer, answer[:2000]
        return took

    def memory(self, key: str) -> float:
        return memory(self.process.pid, key)


class Bench(NamedTuple):
    """Where all this happens, and how often."""

    program: str
    root: str
    home: str
    work: str
    quick: bool

    def codex(self, name: str, does: str = "") -> str:
        """Writes a quick Codex that also does `does`, and returns its path."""
        path = os.path.join(self.root, name)
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as file:
                file.write(quick(does))
            os.chmod(path, 0o755)
        return path

    def times(self, few: int, many: int) -> range:
        return range(few if self.quick else many)

    @property
    def events(self) -> int:
        return 20_000 if self.quick else 100_000

    def long_turn(self) -> Tuple[str, str]:
        """The file with the events of a long turn, made once, and the Codex that has them."""
        path = os.path.join(self.root, "events.jsonl")
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.writelines(events(self.events))
        return path, self.codex("long", "cat " + path)


BENCH: Bench


def events(count: int) -> Iterator[bytes]:
    """Events like those of a real turn, 2 kB on average: mostly finished commands with output."""
    chance = random.Random(1)  # the same events on each machine

    def item(kind: str, number: int, type: str, **more: Any) -> bytes:
        event = {
            "type": "item." + kind,
            "item": dict({"id": f"item_{number}", "type": type}, **more),
        }
        return json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode("utf-8") + b"\n"

    for number in range(count):
        kind = number % 20
        if kind < 12:
            yield item(
                "completed",
                number,
                "command_execution",
                command=COMMAND,
                aggregated_output=TEXT * chance.randint(4, 50),
                exit_code=0,
                status="completed",
            )
        elif kind < 16:
            yield item(
                "started",
                number,
                "command_execution",
                command=COMMAND,
                aggregated_output="",
                exit_code=None,
                status="in_progress",
            )
        elif kind < 18:
            yield item(
                "completed",
                number,
                "reasoning",
                text="**Reading**\n" + TEXT * chance.randint(2, 20),
            )
        elif kind < 19:
            yield item("completed", number, "agent_message", text=TEXT * chance.randint(2, 20))
        else:
            yield item(
                "updated",
                number,
                "todo_list",
                items=[
                    {"text": f"Step {step} of the plan", "completed": step < 3} for step in range(8)
                ],
            )


def memory(pid: int, key: str) -> float:
    """A value of /proc/PID/status in MB."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key + ":")) / 1024


def timed(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def arguments(session_id: Optional[str] = None) -> List[str]:
    """What the server gives Codex for a call."""
    return (
        ["exec", "--skip-git-repo-check", "--json", "-C", BENCH.work]
        + (["resume", session_id] if session_id else [])
        + ["-"]
    )


def spawn(command: Sequence[str], **env: str) -> None:
    """Runs a Codex directly: the prompt in, all it prints out, its end."""
    process = subprocess.Popen(
        command,
        cwd=BENCH.work,
        env=dict(os.environ, **env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    process.stdin.write(PROMPT.encode())
    process.stdin.close()
    while process.stdout.read1(1 << 16):
        pass
    process.stdout.close()
    assert process.wait() == 0, command


def read_through_pipe(path: str) -> None:
    """What no reader of Codex's output can save: its bytes through a pipe."""
    cat = subprocess.Popen(["cat", path], stdout=subprocess.PIPE, bufsize=0)
    while cat.stdout.read(1 << 16):
        pass
    cat.stdout.close()
    cat.wait()


# --------------------------------------------------------------------------------------------------
# the table
# --------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], unit: str = "s") -> str:
    """The median, and between what the middle half of the values lies."""
    scale, unit = (1000, "ms") if unit == "s" and statistics.median(values) < 1 else (1, unit)
    values = sorted(value * scale for value in values)
    if len(values) == 1:
        return f"{values[0]:g} {unit}"
    low, high = values[len(values) // 4], values[-1 - len(values) // 4]
    digits = 1 if statistics.median(values) >= 10 or unit == "MB" else 2
    median, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), low, high))
    return f"{median} ({low}-{high}) {unit}"


def row(what: str, ours: str, floor: str, result: str, aim: str, met: bool) -> None:
    print(
        f"| {' | '.join((what, result, aim, 'yes' if met else '**no**', ours, floor))} |",
        flush=True,
    )


def ratio(
    what: str, ours: Sequence[float], floor: Sequence[float], against: str, aim: float, *more: Any
) -> None:
    """A row whose aim is a ratio of medians. `more` (name, values, ...) goes beside the floor."""
    value = statistics.median(ours) / statistics.median(floor)
    beside = "".join(f"; {name}: {spread(values)}" for name, values in zip(more[::2], more[1::2]))
    row(
        what,
        spread(ours),
        f"{against}: {spread(floor)}{beside}",
        f"{value:.2f}",
        f"at most {aim:g}",
        round(value, 2) <= aim,
    )


def alternate(times: range, *works: Callable[[], float]) -> List[List[float]]:
    """Does all works that often, in turn and back, after an uncounted round; the values of each."""
    values: List[List[float]] = [[] for _ in works]
    for number in [0, *times]:
        both_ways = list(zip(works, values))
        for work, kept in both_ways if number % 2 else both_ways[::-1]:
            kept.append(work())
    return [kept[1:] for kept in values]


# --------------------------------------------------------------------------------------------------
# the rows
# --------------------------------------------------------------------------------------------------


def imports() -> str:
    """The import statement that loads what the program loads at its start."""
    with open(BENCH.program, encoding="utf-8") as file:
        nodes = ast.parse(file.read()).body
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    return "import " + ", ".join(sorted(set(names)))


def compiles() -> str:
    """The same, and what Python does with a script at each start: it compiles it."""
    return (
        imports() + f"\ncompile(open({BENCH.program!r}, encoding='utf-8').read(), 'script', 'exec')"
    )


def measure_start() -> None:
    def ours() -> float:
        begin = time.perf_counter()
        with Server(BENCH.codex("quick")):
            return time.perf_counter() - begin

    def python(code: str) -> Callable[[], float]:
        return lambda: timed(
            lambda: subprocess.call([sys.executable, "-c", code], stdin=subprocess.DEVNULL)
        )

    started, bare, imported, compiled = alternate(
        BENCH.times(15, 60), ours, python("pass"), python(imports()), python(compiles())
    )
    ratio(
        "start until `initialize` is answered",
        started,
        bare,
        "`python -c pass`",
        1.6,
        "with the same imports",
        imported,
        "and compiling the file",
        compiled,
    )


def measure_call() -> None:
    codex = BENCH.codex("quick")
    with Server(codex) as server:
        for what, session_id in (("new session", None), ("resumed", SESSION)):
            command = [codex] + arguments(session_id)
            ours, floor = alternate(
                BENCH.times(40, 200),
                lambda: server.call(session_id),
                lambda: timed(lambda: spawn(command)),
            )
            more = (statistics.median(ours) - statistics.median(floor)) * 1000
            row(
                "one call, a Codex that answers at once, " + what,
                spread(ours),
                "that Codex alone: " + spread(floor),
                f"{more:.2f} ms more",
                "at most 2 ms more",
                more <= 2,
            )


def measure_real() -> None:
    what = "one call, the real Codex " + VERSION
    codex, missing = real_codex()
    if missing:
        return row(what, "not measured", missing, "-", "at most 1.02", False)
    model = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "loopback_model.py"), BENCH.home],
        stdout=subprocess.PIPE,
    )
    try:
        assert model.stdout.readline().startswith(b"http")
        with Server(codex) as server:
            ours, floor = alternate(
                BENCH.times(5, 40),
                server.call,
                lambda: timed(
                    lambda: spawn(
                        [codex] + arguments(), **environment(codex, BENCH.home, BENCH.work)
                    )
                ),
            )
        ratio(what, ours, floor, "`codex exec --json`", 1.02)
    finally:
        model.terminate()
        model.wait()
        model.stdout.close()


def measure_parallel() -> None:
    codex = BENCH.codex("half", "sleep 0.5")

    def together(count: int) -> None:
        ids = [server.start_call() for _ in range(count)]
        server.wait(*ids)

    def directly(count: int) -> None:
        workers = [
            threading.Thread(target=spawn, args=([codex] + arguments(),)) for _ in range(count)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    with Server(codex) as server:
        for count in (16, 64):
            rounds = math.ceil(count / 16)
            ours, floor = alternate(
                BENCH.times(3, 7),
                lambda: timed(lambda: together(count)),
                lambda: timed(lambda: [directly(16) for _ in range(rounds)]),
            )
            ratio(
                f"{count} sessions at once, each a Codex of 0.5 s, 16 at a time",
                ours,
                [rounds * 0.5],
                "the ideal",
                1.15,
                "without a server",
                floor,
            )


def measure_queue() -> None:
    codex = BENCH.codex("short", "sleep 0.15")
    command = [codex] + arguments(SESSION)
    with Server(codex) as server:
        ours, floor = alternate(
            BENCH.times(2, 5),
            lambda: timed(lambda: server.wait(*[server.start_call(SESSION) for _ in range(20)])),
            lambda: timed(lambda: [spawn(command) for _ in range(20)]),
        )
    ratio(
        "20 calls queued on one session, each a Codex of 0.15 s",
        ours,
        floor,
        "one after the other",
        1.05,
    )


def megabytes() -> str:
    return f"{BENCH.events} events, {os.path.getsize(BENCH.long_turn()[0]) / 1e6:.0f} MB"


def measure_long() -> None:
    path, codex = BENCH.long_turn()
    with Server(codex) as server:
        ours, floor, pipe = alternate(
            BENCH.times(3, 7),
            server.call,
            lambda: float(subprocess.check_output([sys.executable, "-c", LOADS, path])),
            lambda: timed(lambda: read_through_pipe(path)),
        )
    ratio(
        "a turn of " + megabytes(),
        ours,
        floor,
        "`json.loads` of each line",
        1.0,
        "the pipe alone",
        pipe,
    )


def measure_memory() -> None:
    if not os.path.exists("/proc/self/status"):
        return row("memory", "not measured", "there is no /proc here", "-", "at most 1.15", False)

    def idle() -> float:
        with Server(BENCH.codex("quick")) as server:
            server.wait(server.send("tools/list", {}))
            return server.memory("VmRSS")

    def python(code: str) -> float:
        process = subprocess.Popen(
            [sys.executable, "-c", code + "\nprint(flush=True)\ninput()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        process.stdout.readline()
        value = memory(process.pid, "VmRSS")
        process.communicate(b"\n")
        return value

    ours, bare, compiled = alternate(
        BENCH.times(3, 11), idle, lambda: python(imports()), lambda: python(compiles())
    )
    value = statistics.median(ours) / statistics.median(bare)
    row(
        "memory, idle",
        spread(ours, "MB"),
        f"Python with the same imports: {spread(bare, 'MB')}; "
        f"and the file compiled: {spread(compiled, 'MB')}",
        f"{value:.2f}",
        "at most 1.15",
        round(value, 2) <= 1.15,
    )

    with Server(BENCH.codex("quick")) as server:
        for _ in range(100):
            server.call()
        before, calls = server.memory("VmRSS"), 200 if BENCH.quick else 1000
        for number in range(calls):
            server.call(SESSION if number % 2 else None)
        after = server.memory("VmRSS")
    row(
        f"memory, after {calls} calls more",
        f"{after:.1f} MB",
        f"after the first 100: {before:.1f} MB",
        f"{after - before:+.2f} MB",
        "flat",
        after - before < 0.5,
    )

    path, codex = BENCH.long_turn()
    with Server(codex) as server:
        before = server.memory("VmRSS")
        try:
            with open(f"/proc/{server.process.pid}/clear_refs", "w") as file:
                file.write("5")  # the peak begins anew: that of the start is not the turn's
        except OSError:
            pass  # then it is counted in
        server.call()
        peak = server.memory("VmHWM")
    row(
        "memory, peak in a turn of " + megabytes(),
        f"{peak:.1f} MB",
        f"idle: {before:.1f} MB",
        f"{peak - before:.1f} MB more",
        "at most 16 MB more",
        peak - before <= 16,
    )


def measure_reply() -> None:
    path = os.path.join(BENCH.root, "reply.jsonl")
    text = TEXT * (10_000_000 // len(TEXT))
    with open(path, "w", encoding="utf-8") as file:
        event = {
            "type": "item.completed",
            "item": {"id": "item_1", "type": "agent_message", "text": text},
        }
        json.dump(event, file, separators=(",", ":"), ensure_ascii=False)
        file.write("\n")
    # The last message is the reply, so it must be this one.
    codex = BENCH.codex(
        "talkative", f'cat {path}\necho \'{{"type":"turn.completed","usage":{{}}}}\'\nexit'
    )
    relay = subprocess.Popen(
        [sys.executable, "-c", RELAY, codex], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def floor() -> float:
        begin = time.perf_counter()
        relay.stdin.write(b"go\n")
        relay.stdin.flush()
        line = relay.stdout.readline()
        took = time.perf_counter() - begin
        assert json.loads(line) == text
        return took

    try:
        with Server(codex) as server:
            ours, theirs = alternate(BENCH.times(5, 25), server.call, floor)
            (answer,) = server.wait(server.start_call())
            assert json.loads(answer)["result"]["structuredContent"]["reply"] == text
    finally:
        relay.communicate()
    ratio("a reply of 10 MB", ours, theirs, "reading it and writing it, once", 3)


def measure_progress() -> None:
    codex = BENCH.long_turn()[1]
    with Server(codex, stderr=subprocess.PIPE) as loud, Server(codex) as quiet:
        reader = threading.Thread(target=loud.process.stderr.read, daemon=True)
        reader.start()
        on, off = alternate(BENCH.times(3, 7), lambda: loud.call(token=1), quiet.call)
    reader.join(5)
    loud.process.stderr.close()
    ratio("progress and log, in a turn of " + megabytes(), on, off, "without", 1.1)


def main() -> int:
    global BENCH
    parser = argparse.ArgumentParser(description="Measures what the server costs.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and long turns of 40 MB"
    )
    parser.add_argument("--program", default=PROGRAM, help="another copy of the server")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="some of: " + " ".join(ROWS))
    options = parser.parse_args()
    if set(options.rows) - set(ROWS):
        parser.error("the rows are " + " ".join(ROWS))
    root = tempfile.mkdtemp(prefix="codex-persistent-mcp-bench-")
    try:
        BENCH = Bench(
            os.path.abspath(options.program),
            root,
            os.path.join(root, "home"),
            os.path.join(root, "work"),
            options.quick,
        )
        os.mkdir(BENCH.home)
        os.mkdir(BENCH.work)
        load = (
            f"load {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else "load unknown"
        )
        print(
            f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
            f"{os.cpu_count()} processors, {load}; medians, in brackets the middle half\n"
        )
        print("| what | result | aim | met | ours | against |\n|---|---|---|---|---|---|")
        for name in ROWS:
            if not options.rows or name in options.rows:
                globals()["measure_" + name]()
        if hasattr(os, "getloadavg"):
            print(f"\nload {os.getloadavg()[0]:.1f} after")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
