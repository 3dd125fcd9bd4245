"""What the end-to-end tests stand on: a real Codex with a loopback model, and a terminal."""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from client import BOUND, Client
from install import codex_path
from loopback_model import LoopbackModel, text_of, write_codex_home

#: The settings of the server; a developer's own must not reach a test.
SETTINGS = (
    "CODEX_MCP_SANDBOX",
    "CODEX_MCP_TIMEOUT_MS",
    "CODEX_MCP_MAX_PARALLEL",
    "CODEX_MCP_ROOTS",
    "CODEX_MCP_CODEX_ARGS",
    "CODEX_PERSISTENT_MCP_ORIGIN",
    "CODEX_PERSISTENT_MCP_ACTIVE",
)


def wait(found: Callable[[], Any], what: Any, bound: float = BOUND) -> Any:
    """Waits until `found()` is true and returns that; fails after `bound` seconds."""
    end = time.monotonic() + bound
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < end, f"no {what() if callable(what) else what} within {bound:g} s"
        time.sleep(0.02)


class Process(NamedTuple):
    """A process as /proc shows it; with its start time, since numbers are used again."""

    pid: int
    parent: int
    started: str
    state: str
    command: str
    environ: bytes


def read_process(pid: int) -> Optional[Process]:
    """The process `pid`, None if there is none."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        with open(f"/proc/{pid}/cmdline", "rb") as cmdline:
            command = cmdline.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return Process(
                pid, int(fields[1]), fields[19], fields[0], command, b"\0" + environ.read()
            )
    except (OSError, IndexError):
        return None


def all_processes() -> List[Process]:
    """All processes of this machine that still run."""
    found = [read_process(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    return [process for process in found if process is not None and process.state not in "ZX"]


def still_there(members: List[Process]) -> List[Process]:
    """Those of `members` that still run."""
    now = [(process, read_process(process.pid)) for process in members]
    return [old for old, new in now if new and new.started == old.started and new.state not in "ZX"]


class Real:
    """One version of Codex with its own home, working directory and model; starts servers on it.

    The folder has a short name: Codex puts a Unix socket in its home; its path may have 107 bytes.
    It is made in `parent`, by default where temporary files are.
    """

    def __init__(self, version: str, parent: Optional[str] = None) -> None:
        self.version, self.old = version, version == "0.77.0"
        self.codex = codex_path(version)
        assert os.access(self.codex, os.X_OK), (
            f"{self.codex} is missing; run `python tests/e2e/install.py`"
        )
        self.root = os.path.realpath(tempfile.mkdtemp(prefix="e2e-", dir=parent))
        self.home, self.work = os.path.join(self.root, "home"), os.path.join(self.root, "work")
        # An empty HOME: Codex starts login shells, and a developer's profile is not to be tested.
        self.person = os.path.join(self.root, "person")
        os.mkdir(self.work)
        os.mkdir(self.person)
        self.model = LoopbackModel().__enter__()
        self.configure()
        self.env = dict(
            {name: "" for name in SETTINGS},
            CODEX_BIN=self.codex,
            CODEX_HOME=self.home,
            CODEX_MCP_CWD=self.work,
            HOME=self.person,
        )
        self.clients: List[Client] = []

    def configure(self, more: str = "") -> None:
        """Writes Codex's config.toml, with `more` at its end."""
        trust = f'[projects."{self.work}"]\ntrust_level = "trusted"\n'
        write_codex_home(self.home, self.model.url, trust + more)

    def start(self, name: str = "test-client", env: Dict[str, str] = {}, **options: Any) -> Client:
        """Starts a server with the handshake done."""
        client = Client(dict(self.env, **env), **options)
        self.clients.append(client)
        client.initialize(name=name)
        return client

    def env_of_a_person(self) -> Dict[str, str]:
        """The environment of a Codex that is started by hand."""
        kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
        return dict(kept, CODEX_HOME=self.home, HOME=self.person)

    def resume(self, session: str) -> str:
        """The command with which a person opens a session of this Codex home."""
        return f"CODEX_HOME={shlex.quote(self.home)} codex resume {session}"

    def last_request(self) -> Dict[str, Any]:
        """The newest request of a turn; 0.169.0 also asks the model for titles, without tools."""
        return [request for request in self.model.requests if request.get("tools")][-1]

    def heard(self) -> str:
        """All text that the model was given with the newest request."""
        return "\n".join(text_of(item) for item in self.last_request()["input"])

    def outputs(self) -> List[str]:
        """What the tools that the model called gave back, as the newest request has it."""
        return [
            str(item.get("output"))
            for item in self.last_request()["input"]
            if item.get("type") == "function_call_output"
        ]

    def rollouts(self) -> List[str]:
        """The session files."""
        return glob.glob(
            os.path.join(glob.escape(self.home), "sessions", "*", "*", "*", "rollout-*")
        )

    def processes(self) -> List[Process]:
        """All processes that have this Codex home in their environment, and their descendants."""
        mark = b"\0CODEX_HOME=" + self.home.encode() + b"\0"
        everything = all_processes()
        mine = {process.pid: process for process in everything if mark in process.environ}
        grown = True
        while grown:
            more = {p.pid: p for p in everything if p.parent in mine and p.pid not in mine}
            mine.update(more)
            grown = bool(more)
        return list(mine.values())

    def close(self) -> None:
        """Ends what is left, Codex's own daemons too, and removes the folder."""
        for client in self.clients:
            if client.process.poll() is None:
                client.process.kill()
            client.process.wait()
        self.model.__exit__()
        for _ in range(50):
            left = self.processes()
            if not left:
                break
            for process in left:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except OSError:
                    pass
            time.sleep(0.1)
        shutil.rmtree(self.root, ignore_errors=True)


class Terminal:
    """A program in a tmux window of its own tmux server."""

    def __init__(
        self, real: Real, arguments: List[str], width: int = 120, height: int = 40
    ) -> None:
        self._socket = os.path.join(real.root, f"tmux-{time.monotonic_ns()}")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TMUX")
        }
        subprocess.run(
            [
                "tmux",
                "-S",
                self._socket,
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                str(width),
                "-y",
                str(height),
                "-c",
                real.work,
                "env",
                "CODEX_HOME=" + real.home,
                "HOME=" + real.person,
                real.codex,
            ]
            + arguments,
            check=True,
            timeout=BOUND,
            env=dict(environment, TERM="xterm-256color"),
        )

    def _tmux(self, *arguments: str) -> str:
        run = subprocess.run(
            ["tmux", "-S", self._socket] + list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=BOUND,
        )
        return run.stdout.decode("utf-8", "replace")

    def screen(self) -> str:
        """What the window shows, with what has scrolled away."""
        return self._tmux("capture-pane", "-p", "-S", "-200")

    def type(self, *keys: str) -> None:
        """Types keys by tmux's names."""
        self._tmux("send-keys", *keys)

    def say(self, text: str) -> None:
        """Types a message; the Enter by itself, since Codex takes what comes at once as pasted."""
        self.type("-l", text)
        self.wait_for(text)
        time.sleep(0.5)
        self.type("Enter")

    def wait_for(self, text: str, bound: float = BOUND) -> str:
        """Waits until the window shows `text`, however it is wrapped, and returns the picture."""

        def shown() -> Optional[str]:
            picture = self.screen()
            return picture if re.sub(r"\s+", "", text) in re.sub(r"\s+", "", picture) else None

        return wait(
            shown, lambda: f"{text!r} in the terminal, which shows:\n{self.screen()}\n", bound
        )

    def close(self) -> None:
        """Closes the window, as a person does: the program in it sees its terminal go."""
        self._tmux("kill-server")

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
