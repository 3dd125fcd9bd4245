#!/usr/bin/env python3
"""Measures what the server costs, against the floor that the machine sets: the table in the README.

Each row alternates between the server and its floor, so that a busy machine slows both, and tells
medians. The Codex of most rows is a shell script that answers at once: a slow one would hide what
the server adds. A floor is something that the server could reach: what it must do anyway, done by
nothing else.

    bench.py [--quick] [--program FILE] [--against FILE] [ROW ...]

With --against, another copy of the server is measured side by side with the first.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
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
PROC = os.path.exists("/proc/self/status")
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

    def __init__(
        self, program: str, codex: str, stderr: Optional[int] = subprocess.DEVNULL
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(os.environ, **environment(codex, BENCH.home, BENCH.work)),
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


@contextlib.contextmanager
def servers(codex: str) -> Iterator[List[Server]]:
    """A server for each of the programs."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Server(program, codex)) for program in BENCH.programs]


def each(work: Callable[[Any], float], those: Sequence[Any]) -> List[Callable[[], float]]:
    """The same work with each of those, such as servers or programs."""
    return [functools.partial(work, one) for one in those]


class Bench(NamedTuple):
    """Where all this happens, and how often."""

    programs: List[str]
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


def processor_time(pid: int) -> float:
    """The seconds that a process has worked, without its children."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


def row(what: str, ours: Sequence[str], floor: str, results: Sequence[str], *aim: str) -> None:
    """A row of the table; of `ours` and `results`, one for each program. `aim` is what, and met."""
    columns = (what, *results, *(aim or ("-", "-")), *ours, floor)
    print(f"| {' | '.join(columns)} |", flush=True)


def missing(what: str, why: str) -> None:
    row(what, ["-" for _ in BENCH.programs], why, ["not measured" for _ in BENCH.programs])


def aimed(values: Sequence[float], aim: Optional[float], unit: str = "") -> Sequence[str]:
    """The columns of an aim that the first program is to meet, none without one."""
    met = "yes" if values[0] <= (aim or 0) else "**no**"
    return () if aim is None else (f"at most {aim:g}{unit}", met)


def ratio(
    what: str,
    ours: Sequence[Sequence[float]],
    floor: Sequence[float],
    against: str,
    aim: Optional[float] = None,
    beside: str = "",
    unit: str = "s",
) -> None:
    """A row whose result is a ratio of medians. `ours` has the values of each program."""
    values = [round(statistics.median(one) / statistics.median(floor), 2) for one in ours]
    row(
        what,
        [spread(one, unit) for one in ours],
        f"{against}: {spread(floor, unit)}{beside}",
        [f"{value:.2f}" for value in values],
        *aimed(values, aim),
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


#: Runs the program up to its last line, and prints the modules that this has loaded.
MODULES = """\
import sys
before = set(sys.modules)
exec(compile(open(sys.argv[1], encoding="utf-8").read(), sys.argv[1], "exec"), {"__name__": "it"})
print(*sorted(set(sys.modules) - before))
"""


def floors() -> List[Tuple[str, str]]:
    """What any server in one file with these imports does, by name: import them, compile itself."""
    program = BENCH.programs[0]
    loaded = subprocess.check_output([sys.executable, "-c", MODULES, program]).decode().split()
    imports = "import " + ", ".join(loaded)
    # In Python's own order: the imports reuse the memory that compiling has freed.
    compiles = f"code = compile(open({program!r}, encoding='utf-8').read(), 'script', 'exec')"
    return [
        ("Python that imports the same", imports),
        ("Python that compiles the file and imports the same", f"{compiles}\n{imports}"),
    ]


def start_python(code: str) -> Tuple[float, float]:
    """Starts Python with `code`: the seconds until it has run, and the MB it takes then."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code + "\nprint(flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    took = time.perf_counter() - begin
    value = memory(process.pid, "VmRSS") if PROC else 0
    process.communicate(b"\n")
    return took, value


def measure_start() -> None:
    codex = BENCH.codex("quick")

    def ours(program: str) -> float:
        begin = time.perf_counter()
        with Server(program, codex):
            return time.perf_counter() - begin

    *started, imported, compiled = alternate(
        BENCH.times(15, 60),
        *each(ours, BENCH.programs),
        *[lambda code=code: start_python(code)[0] for _, code in floors()],
    )
    what = "start until `initialize` is answered"
    for (against, _), floor, aim in zip(floors(), (imported, compiled), (None, 1.15)):
        ratio(what, started, floor, against, aim)


def measure_call() -> None:
    codex = BENCH.codex("quick")
    with servers(codex) as those:
        for what, session_id in (("new session", None), ("resumed", SESSION)):
            command = [codex] + arguments(session_id)
            *ours, floor = alternate(
                BENCH.times(40, 200),
                *each(lambda server: server.call(session_id), those),
                lambda: timed(lambda: spawn(command)),
            )
            more = [1000 * (statistics.median(one) - statistics.median(floor)) for one in ours]
            row(
                "one call, a Codex that answers at once, " + what,
                [spread(one) for one in ours],
                "that Codex alone: " + spread(floor),
                [f"{value:.2f} ms more" for value in more],
                *aimed(more, 2, " ms more"),
            )


def measure_real() -> None:
    what = "one call, the real Codex " + VERSION
    codex, why = real_codex()
    if why:
        return missing(what, why)
    model = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "loopback_model.py"), BENCH.home],
        stdout=subprocess.PIPE,
    )
    try:
        assert model.stdout.readline().startswith(b"http")
        env = environment(codex, BENCH.home, BENCH.work)
        with servers(codex) as those:
            *ours, floor = alternate(
                BENCH.times(5, 40),
                *each(Server.call, those),
                lambda: timed(lambda: spawn([codex] + arguments(), **env)),
            )
        ratio(what, ours, floor, "`codex exec --json`", 1.02)
    finally:
        model.terminate()
        model.wait()
        model.stdout.close()


def measure_parallel() -> None:
    codex = BENCH.codex("half", "sleep 0.5")

    def together(server: Server) -> float:
        return timed(lambda: server.wait(*[server.start_call() for _ in range(count)]))

    def directly() -> None:
        workers = [threading.Thread(target=spawn, args=([codex] + arguments(),)) for _ in range(16)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    with servers(codex) as those:
        for count in (16, 64):
            rounds = math.ceil(count / 16)
            *ours, bare = alternate(
                BENCH.times(3, 7),
                *each(together, those),
                lambda: timed(lambda: [directly() for _ in range(rounds)]),
            )
            ratio(
                f"{count} sessions at once, each a Codex of 0.5 s, 16 at a time",
                ours,
                [rounds * 0.5],
                "the ideal",
                1.15,
                "; without a server: " + spread(bare),
            )


def measure_queue() -> None:
    codex = BENCH.codex("short", "sleep 0.15")
    command = [codex] + arguments(SESSION)

    def queued(server: Server) -> float:
        return timed(lambda: server.wait(*[server.start_call(SESSION) for _ in range(20)]))

    with servers(codex) as those:
        *ours, floor = alternate(
            BENCH.times(2, 5),
            *each(queued, those),
            lambda: timed(lambda: [spawn(command) for _ in range(20)]),
        )
    what = "20 calls queued on one session, each a Codex of 0.15 s"
    ratio(what, ours, floor, "one after the other", 1.05)


def megabytes() -> str:
    return f"{BENCH.events} events, {os.path.getsize(BENCH.long_turn()[0]) / 1e6:.0f} MB"


def measure_long() -> None:
    path, codex = BENCH.long_turn()
    with servers(codex) as those:
        *ours, floor, pipe = alternate(
            BENCH.times(3, 7),
            *each(Server.call, those),
            lambda: float(subprocess.check_output([sys.executable, "-c", LOADS, path])),
            lambda: timed(lambda: read_through_pipe(path)),
        )
    beside = "; the pipe alone: " + spread(pipe)
    ratio("a turn of " + megabytes(), ours, floor, "`json.loads` of each line", 1.0, beside)


def measure_memory() -> None:
    if not PROC:
        return missing("memory", "there is no /proc here")

    def idle(program: str) -> float:
        with Server(program, BENCH.codex("quick")) as server:
            server.wait(server.send("tools/list", {}))
            return server.memory("VmRSS")

    *ours, imported, compiled = alternate(
        BENCH.times(3, 11),
        *each(idle, BENCH.programs),
        *[lambda code=code: start_python(code)[1] for _, code in floors()],
    )
    for (against, _), floor, aim in zip(floors(), (imported, compiled), (None, 1.15)):
        ratio("memory, idle", ours, floor, against, aim, unit="MB")

    calls = 200 if BENCH.quick else 1000
    with servers(BENCH.codex("quick")) as those:
        pairs = [after_calls(server, calls) for server in those]
    more_memory(f"memory, after {calls} calls more", "after the first 100", pairs, 0.5)

    with servers(BENCH.long_turn()[1]) as those:
        pairs = [in_a_long_turn(server) for server in those]
    more_memory("memory, peak in a turn of " + megabytes(), "idle", pairs, 16)


def after_calls(server: Server, calls: int) -> Tuple[float, float]:
    """The memory after 100 calls, and after so many more."""
    for _ in range(100):
        server.call()
    before = server.memory("VmRSS")
    for number in range(calls):
        server.call(SESSION if number % 2 else None)
    return before, server.memory("VmRSS")


def in_a_long_turn(server: Server) -> Tuple[float, float]:
    """The memory before a long turn, and its peak there."""
    before = server.memory("VmRSS")
    try:
        with open(f"/proc/{server.process.pid}/clear_refs", "w") as file:
            file.write("5")  # the peak begins anew: that of the start is not the turn's
    except OSError:
        pass  # then it is counted in
    server.call()
    return before, server.memory("VmHWM")


def more_memory(what: str, against: str, pairs: List[Tuple[float, float]], aim: float) -> None:
    """A row whose results are differences."""
    more = [after - before for before, after in pairs]
    row(
        what,
        [f"{after:.1f} MB" for _, after in pairs],
        against + ": " + "; ".join(f"{before:.1f} MB" for before, _ in pairs),
        [f"{value:.2f} MB more" for value in more],
        *aimed(more, aim, " MB more"),
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
        with servers(codex) as those:
            *ours, theirs = alternate(BENCH.times(5, 25), *each(Server.call, those), floor)
            for server in those:
                (answer,) = server.wait(server.start_call())
                assert json.loads(answer)["result"]["structuredContent"]["reply"] == text
    finally:
        relay.communicate()
    ratio("a reply of 10 MB", ours, theirs, "reading it and writing it, once", 3)


def measure_progress() -> None:
    if not PROC:
        return missing("progress and log", "there is no /proc here")
    codex = BENCH.long_turn()[1]

    def spent(server: Server, token: Optional[int]) -> float:
        """Processor time: an answer waits until half a second after the last progress."""
        before = processor_time(server.process.pid)
        server.call(token=token)
        return processor_time(server.process.pid) - before

    values = []
    for program in BENCH.programs:
        with Server(program, codex, subprocess.PIPE) as loud, Server(program, codex) as quiet:
            reader = threading.Thread(target=loud.process.stderr.read, daemon=True)
            reader.start()
            values.append(
                alternate(BENCH.times(3, 7), lambda: spent(loud, 1), lambda: spent(quiet, None))
            )
        reader.join(5)
        loud.process.stderr.close()
    results = [statistics.median(on) / statistics.median(off) for on, off in values]
    row(
        f"progress and log, in a turn of {megabytes()}, processor time",
        [spread(on) for on, _ in values],
        "without: " + "; ".join(spread(off) for _, off in values),
        [f"{value:.2f}" for value in results],
        *aimed(results, 1.1),
    )


def main() -> int:
    global BENCH
    parser = argparse.ArgumentParser(description="Measures what the server costs.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and long turns of 40 MB"
    )
    parser.add_argument("--program", default=PROGRAM, help="another copy of the server")
    parser.add_argument("--against", help="a copy of the server to compare it with, side by side")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="some of: " + " ".join(ROWS))
    options = parser.parse_args()
    if set(options.rows) - set(ROWS):
        parser.error("the rows are " + " ".join(ROWS))
    root = tempfile.mkdtemp(prefix="codex-persistent-mcp-bench-")
    try:
        BENCH = Bench(
            [os.path.abspath(one) for one in (options.program, options.against) if one],
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
        other = ["other's"] if options.against else []
        head = ["what", "result", *other, "aim", "met", "ours", *other, "against"]
        print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
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
