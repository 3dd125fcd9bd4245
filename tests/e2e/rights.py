"""What the tests of rights stand on: attempts to write and to read, and what came of them.

An attempt is one turn of the real Codex in which the loopback model has it touch a file in the
workspace and one elsewhere, or read files. What came of it is seen on the disk, and in what the
model's server got back. Every attempt through the server has its counterpart here with Codex alone,
so that a test knows that its setup would have let Codex write or read.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Set, Tuple

from client import BOUND, PROGRAM, Client, text_of
from loopback_model import user_messages
from loopback_model import text_of as text_of_item
from real import Real
from tools import CHAT, FINAL, GUARDS, PLAN

#: Like the loopback model's own, without a word on approvals and trust.
CONFIG = """\
model = "mock-model"
model_provider = "mock"
check_for_update_on_startup = false
{top}
[model_providers.mock]
name = "mock"
base_url = "{url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[analytics]
enabled = false
{tables}
"""
#: A PNG of one pixel.
IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NOTHING: FrozenSet[str] = frozenset()
WORK, BOTH = frozenset({"work"}), frozenset({"work", "out"})
#: The files that an attempt reads; a test's profile denies all but the last, and the picture.
ALL = frozenset({"abs", "secret", "env", "open"})
#: What the model tries: to write; the same, outside of the sandbox, for which Codex asks; to write
#: and to read; to look at a picture; to write by a patch; to have another agent write.
WRITE, ASK, READ, LOOK, PATCH, SPAWN = "write", "ask", "read", "look", "patch", "spawn"


class Outcome(NamedTuple):
    """What came of an attempt."""

    wrote: FrozenSet[str]  # where a file was found afterwards: "work", "out"
    read: FrozenSet[str]  # whose text the model's server got, "picture" for a picture
    outputs: List[str]  # what the model's server got back of what it had called
    models: List[str]  # the model of each of its requests
    tools: FrozenSet[str]  # the names of the tools that the model was offered
    config: str  # what config.toml had in it afterwards
    failed: bool
    session: Optional[str]
    text: str  # all that the caller was told

    def __repr__(self) -> str:
        """Short enough for the report of a failed test."""
        kind = "failed" if self.failed else "ended well"
        got = [each[-300:] for each in self.outputs]
        return (
            f"<{kind}, wrote {sorted(self.wrote)}, read {sorted(self.read)}, got {got}, "
            f"told {self.text[:300]!r} ... {self.text[-900:]!r}>"
        )


class Ground:
    """A Codex with its home, a workspace, and a directory outside of every sandbox's writable ones.

    `/etc/codex` is seen empty, or as a test fills it, by the server and by Codex alone: both run in
    a mount namespace of their own, in which /etc is a folder of links to the real one's entries.
    """

    def __init__(self, version: str, turn: bool) -> None:
        # Not in /tmp: workspace-write lets Codex write there; and a stopped turn of some Codex can
        # have left an empty .git in it, which makes all of it one repository for others.
        self.real = Real(version, "/var/tmp")
        self.version = version
        self.work, self.out = self.real.work, os.path.join(self.real.root, "out")
        #: The guard that begins a session, and the one that resumes it.
        self.first, self.second = GUARDS if turn else GUARDS[::-1]
        self.files = {
            "abs": os.path.join(self.out, "abs"),
            "secret": os.path.join(self.work, "secret"),
            "env": os.path.join(self.work, "sub", "x.env"),
            "open": os.path.join(self.work, "open"),
            "picture": os.path.join(self.out, "picture.png"),
        }
        for name, path in self.files.items():
            self.write(path, f"TEXT-OF-{name}\n")
        with open(self.files["picture"], "wb") as file:
            file.write(IMAGE)
        self._attempts = 0
        self._lock = threading.Lock()  # guards _attempts, and the one client's input
        self._etc: Optional[str] = None
        self._clients: Dict[Tuple[Tuple[str, str], ...], Client] = {}
        # As after the first `codex` in a terminal: without it, the app-server of 0.125.0 and of
        # 0.142.5 writes a `personality` into config.toml.
        self.write(os.path.join(self.real.home, ".personality_migration"), "v1\n")
        self.configure()

    def close(self) -> None:
        self.real.close()

    # ---- the setup

    def since(self, version: str) -> bool:
        """Whether this Codex is that version or a newer one."""
        numbers = [tuple(map(int, each.split("."))) for each in (self.version, version)]
        return numbers[0] >= numbers[1]

    def write(self, path: str, text: str) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def configure(self, top: str = "", tables: str = "") -> None:
        """Writes Codex's config.toml, with `top` before the tables and `tables` at its end."""
        self.configured = CONFIG.format(url=self.real.model.url, top=top, tables=tables)
        self._configure()

    def _configure(self) -> None:
        self.write(os.path.join(self.real.home, "config.toml"), self.configured)

    def config(self) -> str:
        """What config.toml has now."""
        with open(os.path.join(self.real.home, "config.toml"), encoding="utf-8") as file:
            return file.read()

    def trust(self, folder: str = "", level: str = "trusted") -> str:
        """The entry of config.toml for a directory, the workspace if none is named."""
        return f'[projects."{folder or self.work}"]\ntrust_level = "{level}"\n'

    def in_etc(self, name: str, text: str) -> None:
        """Puts a file into /etc/codex, as all later attempts see it."""
        if self._etc is None:
            assert os.geteuid() == 0, (
                "only root can give Codex an /etc/codex of its own: run as root"
            )
            self._etc = os.path.join(self.real.root, "etc")
            real_etc = os.path.join(self.real.root, "real-etc")
            for folder in (self._etc, real_etc):
                os.mkdir(folder)
            for entry in os.listdir("/etc"):
                if entry != "codex":
                    os.symlink(os.path.join(real_etc, entry), os.path.join(self._etc, entry))
        self.write(os.path.join(self._etc, "codex", name), text)

    def _namespace(self) -> List[str]:
        """What has to stand before a command, so that it sees the /etc/codex of this test."""
        if self._etc is None:
            return []
        script = 'mount --bind /etc "$0/real-etc" && mount --bind "$0/etc" /etc && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", script, self.real.root]

    def server(self, env: Dict[str, str]) -> Client:
        """The server with these settings; the same one at each call."""
        key = tuple(sorted(env.items()))
        with self._lock:
            if key not in self._clients:
                options: Dict[str, Any] = {"env": env}
                prefix = self._namespace()
                if prefix:
                    options.update(python=prefix[0], program=prefix[1])
                    options["arguments"] = prefix[2:] + [sys.executable, PROGRAM]
                self._clients[key] = self.real.start(**options)
            return self._clients[key]

    # ---- the attempts

    def _order(self, kind: str, cwd: str) -> Tuple[str, Dict[str, str], str]:
        """A new attempt: its mark, where it would leave files, and the order for the model."""
        with self._lock:
            self._attempts += 1
            mark = f"attempt-{self._attempts}"
        places = {"work": os.path.join(cwd, mark), "out": os.path.join(self.out, mark)}
        shell = "exec_command" if self.since("0.125.0") else "shell_command"
        key = "cmd" if self.since("0.125.0") else "command"
        touch = "touch " + " ".join(places.values())
        read = "; ".join("cat " + self.files[name] for name in sorted(ALL))
        patch = "".join(f"*** Add File: {path}\n+text\n" for path in places.values())
        patch = f"apply_patch <<'EOF'\n*** Begin Patch\n{patch}*** End Patch\nEOF"
        agent = {"message": f"This is {mark}. MODEL:RUN {touch}", "agent_type": "writer"}
        command = {
            WRITE: f"RUN {touch}",
            ASK: f"ASK {touch}",
            READ: f"RUN {touch}; {read}",
            LOOK: f"CALL view_image {json.dumps({'path': self.files['picture']})}",
            PATCH: f"CALL {shell} {json.dumps({key: patch})}",
            SPAWN: f"CALL spawn_agent {json.dumps(agent)}",
        }[kind]
        return mark, places, f"This is {mark}.\nMODEL:{command}\nMODEL:SAY Over."

    def _outcome(
        self, mark: str, places: Dict[str, str], failed: bool, session: Optional[str], text: str
    ) -> Outcome:
        """Looks at the disk, and at what the model's server got."""
        outputs: List[str] = []
        models: List[str] = []
        tools: Set[str] = set()
        for request in list(self.real.model.requests):
            orders = [said for said in user_messages(request) if "MODEL:" in said]
            if not request.get("tools") or not orders or f"{mark}." not in orders[-1]:
                continue
            models.append(request["model"])
            tools |= {str(tool.get("name")) for tool in request["tools"]}
            items = request["input"]
            begin = [i for i, item in enumerate(items) if text_of_item(item) == orders[-1]][-1]
            outputs = [
                json.dumps(item) for item in items[begin + 1 :] if item.get("role") != "assistant"
            ]
            outputs = [each for each in outputs if "output" in each or "data:image" in each]
        heard = "\n".join(outputs)
        read = {name for name in ALL if f"TEXT-OF-{name}" in heard}
        if "data:image" in heard:
            read.add("picture")
        wrote = frozenset(name for name, path in places.items() if os.path.exists(path))
        found = (wrote, frozenset(read), outputs, models, frozenset(tools), self.config())
        return Outcome(*found, failed, session, text)

    def alone(
        self, *options: str, kind: str = WRITE, cwd: str = "", resume: Optional[str] = None
    ) -> Outcome:
        """Codex without the server, with these options; what it does to config.toml is undone.

        So no call may be made at the same time.
        """
        cwd = cwd or self.work
        mark, places, order = self._order(kind, cwd)
        command = self._namespace() + [self.real.codex, "exec", "--json", "--skip-git-repo-check"]
        command += ["-C", cwd, *options] + (["resume", resume] if resume else []) + ["-"]
        run = subprocess.run(
            command,
            input=order.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=BOUND,
            cwd=cwd,
            env=self.real.env_of_a_person(),
        )
        events = [json.loads(line) for line in run.stdout.splitlines() if line.startswith(b"{")]
        sessions = [each["thread_id"] for each in events if each["type"] == "thread.started"]
        text = (run.stdout + run.stderr).decode("utf-8", "replace")
        session = sessions[0] if sessions else None
        outcome = self._outcome(mark, places, run.returncode != 0, session, text)
        self._configure()
        return outcome

    def call(
        self,
        tool: str,
        kind: str = WRITE,
        cwd: str = "",
        env: Dict[str, str] = {},
        **arguments: Any,
    ) -> Outcome:
        """A call of the server, which must leave config.toml as it is."""
        mark, places, order = self._order(kind, cwd or self.work)
        given = {CHAT: {"prompt": order}, FINAL: {"change_summary": order}}
        given[PLAN] = {"requirements": order, "plan": "None."}
        arguments = {name: value for name, value in arguments.items() if value}
        if cwd:
            arguments["cwd"] = cwd
        client = self.server(env)
        with self._lock:
            id = client.start_call(tool, dict(given[tool], **arguments))
        result = client.result(id, 2 * BOUND)
        assert self.config() == self.configured, self.config()
        session = (result.get("structuredContent") or {}).get("session_id")
        failed = bool(result.get("isError"))
        return self._outcome(mark, places, failed, session, text_of(result))

    def at_once(self, *attempts: Callable[[], Outcome]) -> List[Outcome]:
        """Makes attempts side by side, which on two cores takes half of the time."""
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(attempt) for attempt in attempts]
            return [future.result() for future in futures]

    def guards(self, session: Optional[str], kind: str = WRITE, **more: Any) -> List[Outcome]:
        """Both guards, one in a new session, the other in `session`, if there is one."""
        attempts = [lambda: self.call(self.first, kind, **more)]
        if session:
            attempts.append(lambda: self.call(self.second, kind, session_id=session, **more))
        return self.at_once(*attempts)

    def readers(self, session: Optional[str], kind: str = WRITE, **more: Any) -> List[Outcome]:
        """All calls that must not write: both guards, and a chat that asks for no more."""
        attempts = [lambda: self.call(CHAT, kind, sandbox="read-only", **more)]
        attempts.append(lambda: self.call(self.first, kind, **more))
        if session:
            attempts.append(lambda: self.call(self.second, kind, session_id=session, **more))
        return self.at_once(*attempts)


def ran(outcome: Outcome) -> bool:
    """Whether the turn ended well and did what the model wanted, as far as it was let."""
    return not outcome.failed and bool(outcome.outputs)


def refused(outcome: Outcome, *words: str) -> bool:
    """Whether the call failed before anything was done, in words with one of these in them."""
    text = outcome.text.lower()
    return outcome.failed and not outcome.outputs and any(word in text for word in words)
