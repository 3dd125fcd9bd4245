"""Fixtures: a server with the fake codex, its notes and its gates."""

from __future__ import annotations

import json
import os
import shlex
import time
from typing import Any, Callable, Dict, Iterator, List

import pytest

from client import BOUND, HERE, PROGRAM, Client
from fake_store import FOLDERS

FAKE = os.path.join(HERE, "fake_codex.py")


class Bench:
    """A Codex home, a working directory and the notes of the fake codex; starts servers on them."""

    def __init__(self, root: str) -> None:
        self.home, self.work, self.notes = (
            os.path.join(root, name) for name in ("home", "work", "notes")
        )
        for folder in (self.home, self.work, self.notes):
            os.makedirs(folder)
        self.env = {
            "CODEX_BIN": FAKE,
            "CODEX_HOME": self.home,
            "FAKE_CODEX_DIR": self.notes,
            "CODEX_MCP_CWD": self.work,
            "FAKE_CODEX_VERSION": "0.169.0",
        }
        for name in (
            "CODEX_MCP_SANDBOX",
            "CODEX_MCP_TIMEOUT_MS",
            "CODEX_MCP_MAX_PARALLEL",
            "CODEX_PERSISTENT_MCP_ORIGIN",
            "CODEX_PERSISTENT_MCP_ACTIVE",
            "FAKE_CODEX_DO",
            "FAKE_INDEX",
        ):
            self.env[name] = ""
        self.clients: List[Client] = []

    def start(self, handshake: bool = True, env: Dict[str, str] = {}, **options: Any) -> Client:
        """Starts a server, by default with the handshake of 2025-11-25 done."""
        client = Client(dict(self.env, **env), **options)
        self.clients.append(client)
        if handshake:
            client.initialize()
        return client

    def start_after(self, code: str, **options: Any) -> Client:
        """Starts a server whose program finds a Python that `code` has changed."""
        wrapper = os.path.join(self.notes, "wrapper.py")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write(f"{code}\nimport runpy\nrunpy.run_path({PROGRAM!r}, run_name='__main__')\n")
        return self.start(program=wrapper, **options)

    def calls(self) -> List[Dict[str, Any]]:
        """What the fake codex noted, one entry for each of its starts."""
        return self._noted("calls.jsonl")

    def index(self, method: str = "") -> List[Dict[str, Any]]:
        """What the fake app-server noted: its starts (`argv`), or the messages of one method."""
        return [one for one in self._noted("index.jsonl") if one.get("method", "") == method]

    def trouble(self, told: str) -> None:
        """How the fake app-server misbehaves from now on; see fake_index.py."""
        with open(os.path.join(self.notes, "index-do"), "w", encoding="utf-8") as file:
            file.write(told)

    def resume(self, session: str) -> str:
        """The command with which a person opens a session of this Codex home."""
        return f"CODEX_HOME={shlex.quote(self.home)} codex resume {session}"

    def left(self, home: str = "") -> List[str]:
        """What there is in a Codex home that is not Codex's own."""
        return sorted(set(os.listdir(home or self.home)) - set(FOLDERS))

    def _noted(self, name: str) -> List[Dict[str, Any]]:
        path = os.path.join(self.notes, name)
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def wait(self, found: Callable[[], Any], what: str, bound: float = BOUND) -> Any:
        """Waits until `found()` is true, and returns that."""
        end = time.monotonic() + bound
        while True:
            value = found()
            if value:
                return value
            assert time.monotonic() < end, f"no {what} within {bound:g} s"
            time.sleep(0.005)

    def reached(self, gate: str) -> None:
        """Waits until a fake codex stands at `gate`."""
        self.wait(
            lambda: os.path.exists(os.path.join(self.notes, gate + ".reached")),
            "codex at gate " + gate,
        )

    def open(self, gate: str) -> None:
        """Opens `gate`."""
        with open(os.path.join(self.notes, gate + ".open"), "w"):
            pass


@pytest.fixture
def tmp_path(tmp_path_factory: Any) -> Any:
    """pytest's own has the test's name in it, and would be found where a test looks for words."""
    return tmp_path_factory.mktemp("t")


@pytest.fixture
def bench(tmp_path: Any) -> Iterator[Bench]:
    bench = Bench(str(tmp_path))
    yield bench
    for client in bench.clients:
        if client.process.poll() is None:
            client.process.kill()
        client.process.wait()
