#!/usr/bin/env python3
"""How long codex_sessions takes in a Codex home that is full; prints it, and checks the answers.

    measure_list.py [--sessions N] [--directories N] [--calls N]

The sessions are copies of one that the real Codex made, with ids, times, directories and messages
of their own. The real Codex puts them into its index before anything is measured. Run it with
`.e2e/venv/bin/python` after `install.py`; it exits with 1 if an answer is wrong or over `AIM`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import statistics
import sys
import time
import uuid
from typing import Any, Dict, List, NamedTuple, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

from app_server import AppServer  # noqa: E402
from client import Client, session_of  # noqa: E402
from install import tested_versions  # noqa: E402
from real import Real, wait  # noqa: E402
from tools import SESSIONS  # noqa: E402

#: Seconds that a list may take.
AIM = 1.0
#: The message of the session that is copied; each copy has another one.
ASKED = "MODEL:SAY An answer."
#: Seconds for Codex to put all sessions into its index.
INDEXED = 600.0
#: The oldest session is so many seconds old; the newest was used a minute ago.
AGE = 300 * 24 * 3600


class Session(NamedTuple):
    id: str
    cwd: str
    title: str
    used: int  # seconds since 1970


def iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime(
        "%Y-%m-%dT%H:%M:%S"
    )


def fill(real: Real, pattern: str, count: int, directories: int) -> List[Session]:
    """Writes `count` copies of the session in the file `pattern`; returns them, newest first."""
    with open(pattern, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    old = lines[0]["payload"]["id"]
    chance, now = random.Random(1), int(time.time())
    folders = [real.work] + [
        os.path.join(real.root, f"project-{number}") for number in range(1, directories)
    ]
    made = []
    for number in range(count):
        used = now - 60 - number * AGE // count
        cwd = folders[number % directories]
        title = f"Question {number} of the measurement"
        millis = used * 1000
        id = str(
            uuid.UUID(
                int=millis << 80
                | 7 << 76
                | chance.getrandbits(12) << 64
                | 2 << 62
                | chance.getrandbits(62)
            )
        )
        text = "\n".join(json.dumps(dict(line, timestamp=iso(used) + ".000Z")) for line in lines)
        text = text.replace(old, id).replace(ASKED, title)
        text = text.replace(json.dumps(real.work)[1:-1], json.dumps(cwd)[1:-1])
        text = text.replace(lines[0]["payload"]["timestamp"], iso(used) + ".000Z")
        day = datetime.datetime.fromtimestamp(used)
        folder = os.path.join(real.home, "sessions", day.strftime("%Y/%m/%d"))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, f"rollout-{day.strftime('%Y-%m-%dT%H-%M-%S')}-{id}.jsonl")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.utime(path, (used, used))
        made.append(Session(id, cwd, title, used))
    return made


def index(real: Real, count: int) -> float:
    """Has Codex put all sessions into its index; returns the seconds that took."""
    begin = time.monotonic()
    with AppServer(real) as codex:

        def all_there() -> bool:
            """Whether the index alone, without a look at the files, has them all."""
            found, cursor = 0, None
            while True:
                page = codex.ask(
                    "thread/list",
                    limit=100,
                    cursor=cursor,
                    useStateDbOnly=True,
                    modelProviders=[],
                    sourceKinds=["cli", "vscode", "exec", "appServer"],
                )
                found, cursor = found + len(page["data"]), page["nextCursor"]
                if cursor is None:
                    return found >= count

        wait(all_there, "index of all sessions", INDEXED)
    return time.monotonic() - begin


def listed(client: Client, arguments: Dict[str, Any]) -> Tuple[List[Tuple[Any, ...]], float]:
    """The sessions that codex_sessions lists, and the seconds it took."""
    begin = time.monotonic()
    result = client.call(SESSIONS, arguments)
    took = time.monotonic() - begin
    assert not result.get("isError"), result
    answer = result["structuredContent"]
    assert not answer.get("warnings"), answer["warnings"]
    return [
        (one["session_id"], one["cwd"], one["title"], one["updated_at"])
        for one in answer["sessions"]
    ], took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=10000)
    parser.add_argument("--directories", type=int, default=50)
    parser.add_argument("--calls", type=int, default=9, help="of each kind")
    options = parser.parse_args()
    version, slow = tested_versions()[-1], 0
    maker, real = Real(version), Real(version)
    try:
        # One home to make the pattern in, so that the other has an index that knows nothing yet.
        maker.work = real.work
        maker.env["CODEX_MCP_CWD"] = real.work
        session_of(maker.start().chat(ASKED))
        made = fill(real, maker.rollouts()[0], options.sessions, options.directories)
        took = index(real, options.sessions)
        print(
            f"Codex {version}, {len(made)} sessions in {options.directories} directories; "
            f"indexed by Codex in {took:.0f} s"
        )
        here = [one for one in made if one.cwd == real.work]
        client = real.start()
        for words, arguments, right in (
            ("10 of one directory", {}, here[:10]),
            ("50 of one directory", {"limit": 50}, here[:50]),
            ("10 of all", {"all": True}, made[:10]),
            ("50 of all", {"all": True, "limit": 50}, made[:50]),
            ("10 of a directory without any", {"cwd": real.person}, []),
        ):
            times = []
            for _ in range(options.calls):
                got, took = listed(client, arguments)
                times.append(took)
                wanted = [(one.id, one.cwd, one.title, iso(one.used) + "Z") for one in right]
                assert got == wanted, (words, got, wanted)
            bad = statistics.median(times) > AIM
            slow += bad
            print(
                f"  {words:<32} first {times[0]:.2f} s, median {statistics.median(times):.2f} s, "
                f"slowest {max(times):.2f} s{'   OVER ' + str(AIM) if bad else ''}"
            )
        client.close()
        left = real.processes()
        assert not left, left
    finally:
        maker.close()
        real.close()
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
