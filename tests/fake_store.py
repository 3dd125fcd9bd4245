"""Codex's store of sessions, as the stand-ins for Codex share it.

Beside the sessions' files (`sessions/`, `archived_sessions/`) there is what the real Codex keeps in
its databases: the turns of each session and the queue of messages for whoever holds it, here in
`fake_state/`. The lock of a session's only writer is `thread-writer-locks/ID.lock`: it is held as
long as somebody has it under flock, whether the file is there or not.

For tests: `make_session`, `archive`, `hide` and `Holder`, another process that has a session open.
"""

from __future__ import annotations

import glob
import json
import os
import re
import threading
import time
import uuid
from typing import Any, Callable, Dict, IO, List, Optional

#: Seconds after which a wait in here ends by itself, so that nothing stays.
BOUND = 60.0
INDEXED = "fake_state"
#: The folders in a Codex home that are Codex's, not the server's.
FOLDERS = ("sessions", "archived_sessions", "thread-writer-locks", INDEXED)


# -- the files -------------------------------------------------------------------------------------


def rollouts(home: str, id: str) -> List[str]:
    """The session's file, also if it is archived or hidden: [] or one path. "" is all of them."""
    name = f"rollout-*{'-' + glob.escape(id) if id else ''}.jsonl*"
    home = glob.escape(home)
    return glob.glob(os.path.join(home, "sessions", "*", "*", "*", name)) + glob.glob(
        os.path.join(home, "archived_sessions", name)
    )


def rollout_path(home: str, id: str, at: float) -> str:
    """Where the file of a new session goes."""
    when = time.localtime(at)
    return os.path.join(
        home,
        "sessions",
        time.strftime("%Y", when),
        time.strftime("%m", when),
        time.strftime("%d", when),
        f"rollout-{time.strftime('%Y-%m-%dT%H-%M-%S', when)}-{id}.jsonl",
    )


def archive(home: str, id: str, back: bool = False) -> None:
    """Moves the session's file into the archive, as `codex archive` does; `back` is the reverse."""
    path = rollouts(home, id)[0]
    target = os.path.join(home, "archived_sessions", os.path.basename(path))
    if back:
        year, month, day = re.findall("[0-9]+", os.path.basename(path))[:3]
        target = os.path.join(home, "sessions", year, month, day, os.path.basename(path))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    os.rename(path, target)


def hide(home: str, id: str) -> None:
    """Makes the session's file one that only Codex can read, as its compression does."""
    path = rollouts(home, id)[0]
    os.rename(path, path + ".zst")


# -- turns -----------------------------------------------------------------------------------------


def state_path(home: str, name: str) -> str:
    return os.path.join(home, INDEXED, name)


def add(home: str, id: str, kind: str, **more: Any) -> None:
    """Notes something of a session, with the time. A signal handler may do it.

    `meta` (cwd, source, version, provider, forked_from), `name` (name), `turn` (turn, client_id,
    text), `message` (client_id, text: for a turn that began without), `say` (text, phase), `end`
    (status, error).
    """
    line = json.dumps(dict({"kind": kind, "at": time.time()}, **more)).encode() + b"\n"
    os.makedirs(os.path.join(home, INDEXED), exist_ok=True)
    fd = os.open(state_path(home, id + ".jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line)
    os.close(fd)


def begin_turn(home: str, id: str, text: str, client_id: Optional[str] = None) -> None:
    add(home, id, "turn", turn=str(uuid.uuid4()), text=text, client_id=client_id)


class Indexed:
    """What is known of one session."""

    def __init__(self, home: str, id: str, path: Optional[str] = None) -> None:
        self.home, self.id = home, id
        #: "" if the file is gone.
        self.path = next(iter(rollouts(home, id)), "") if path is None else path
        self.meta: Dict[str, Any] = {}
        self.name: Optional[str] = None
        self.turns: List[Dict[str, Any]] = []
        with open(state_path(home, id + ".jsonl"), encoding="utf-8") as file:
            for line in file:
                self._take(json.loads(line))

    def _take(self, line: Dict[str, Any]) -> None:
        kind = line["kind"]
        if kind == "meta":
            self.meta = self.meta or line
        elif kind == "name":
            self.name = line["name"]
        elif kind == "turn":
            self.turns.append(dict(line, says=[], status="interrupted", error=None, ended=None))
        elif self.turns and kind == "message":
            self.turns[-1].update(text=line["text"], client_id=line["client_id"])
        elif self.turns and kind == "say":
            self.turns[-1]["says"].append(line)
        elif self.turns and kind == "end" and self.turns[-1]["ended"] is None:
            self.turns[-1].update(status=line["status"], error=line["error"], ended=line["at"])

    @property
    def updated(self) -> float:
        return float(self.turns[-1]["ended"] or self.turns[-1]["at"])


def known(home: str, id: str, path: Optional[str] = None) -> Optional[Indexed]:
    """The session, None if nobody knows it or nothing was said in it."""
    try:
        found = Indexed(home, id, path)
    except OSError:
        return None
    return found if found.meta and found.turns else None


def everything(home: str) -> List[Indexed]:
    """All sessions."""
    paths = {re.split(r"-(?=[0-9a-f-]{36}\.)", path)[-1][:36]: path for path in rollouts(home, "")}
    names = os.listdir(os.path.join(home, INDEXED)) if os.path.isdir(state_path(home, "")) else []
    ids = [name[: -len(".jsonl")] for name in names if name.endswith(".jsonl")]
    found = [known(home, id, paths.get(id, "")) for id in ids]
    return [one for one in found if one]


def make_session(
    home: str,
    cwd: str,
    text: str = "hello",
    reply: Optional[str] = "hi",
    at: Optional[float] = None,
    source: str = "exec",
    provider: str = "fake",
    name: Optional[str] = None,
    version: str = "0.169.0",
    status: str = "completed",
    error: Optional[str] = None,
) -> str:
    """Puts a session with one turn into the store and returns its id."""
    id, at = str(uuid.uuid4()), time.time() if at is None else at
    path = rollout_path(home, id, at)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        meta = {"type": "session_meta", "payload": {"id": id, "cwd": cwd}}
        file.write(json.dumps(meta) + "\n" + json.dumps({"type": "message", "text": text}) + "\n")
    add(home, id, "meta", cwd=cwd, source=source, provider=provider, version=version, at=at)
    add(home, id, "turn", turn=str(uuid.uuid4()), text=text, client_id=None, at=at)
    if reply is not None:
        add(home, id, "say", text=reply, phase=None, at=at)
    add(home, id, "end", status=status, error=error, at=at)
    if name:
        add(home, id, "name", name=name)
    return id


# -- the writer's lock -----------------------------------------------------------------------------


def lock_path(home: str, id: str) -> str:
    return os.path.join(home, "thread-writer-locks", id + ".lock")


def hold(home: str, id: str, wait: bool = False) -> Optional[IO[str]]:
    """Takes the session's writer lock, to be freed with `release`; None if somebody has it."""
    path, end = lock_path(home, id), time.monotonic() + BOUND
    os.makedirs(os.path.dirname(path), exist_ok=True)
    while True:
        file = open(path, "a")
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        except FileNotFoundError:
            pass  # it was removed in between, by the one who had it
        except OSError:
            if not wait or time.monotonic() > end:
                file.close()
                return None
            time.sleep(0.005)
        file.close()


def release(home: str, id: str, file: Optional[IO[str]]) -> None:
    """Frees it as Codex does when it ends in order: the file is gone, too."""
    if file:
        try:
            os.unlink(lock_path(home, id))
        except OSError:
            pass
        file.close()


# -- the queue of messages for whoever holds a session ---------------------------------------------

Submission = Dict[str, Any]


def change_queue(
    home: str, id: str, change: Callable[[List[Submission]], List[Submission]]
) -> List[Submission]:
    """Replaces the session's queue by what `change` makes of it, and returns it as it was."""
    import fcntl

    os.makedirs(os.path.join(home, INDEXED), exist_ok=True)
    with open(state_path(home, id + ".queue"), "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before: List[Submission] = json.loads(file.read() or "[]")
        after = change(list(before))
        if after != before:
            file.seek(0)
            file.truncate()
            file.write(json.dumps(after))
            file.flush()
        return before


def queue(home: str, id: str) -> List[Submission]:
    """The messages that wait for the session's holder."""
    return change_queue(home, id, lambda entries: entries)


class Holder:
    """Another process that has a session open and serves its queue, but no control socket.

    A context manager. It takes a message after `delay` seconds (the real one after about 8) and
    runs it as a turn, by lines of its text: `FAKE:say TEXT`, `failed TEXT`, `sleep SECONDS`,
    `gate NAME`, `interrupted`, `hang`. `mode` is how it misbehaves:

        nobody      takes no message                forgets    takes it, and no turn ever appears
        endless     the turn never ends             other      another message's turn appears
        anonymous   the turn has no clientId        mute       the turn ends without an answer
        bare        the turn shows for half a second without its message (the real one: briefly)
        other-reply another turn with an answer ends after it; its own never does

    `taken` has what it took, in order.
    """

    def __init__(self, home: str, session_id: str, mode: str = "", delay: float = 0.1) -> None:
        self.home, self.session_id, self.mode, self.delay = home, session_id, mode, delay
        self.taken: List[Submission] = []
        self.own: List[str] = []
        self.opened: List[str] = []
        self._left = threading.Event()
        self._lock: Optional[IO[str]] = None
        self._worker = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Holder:
        self._lock = hold(self.home, self.session_id, wait=True)
        assert self._lock, "the session is held"
        self._worker.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._left.set()
        self._worker.join(BOUND)
        release(self.home, self.session_id, self._lock)
        self._lock = None

    def person(self, text: str) -> None:
        """The person types a message there; it runs before what waits in the queue."""
        self.own.append(text)

    def open(self, gate: str) -> None:
        """Lets the turn that stands at `FAKE:gate <gate>` go on."""
        self.opened.append(gate)

    def _serve(self) -> None:
        while not self._left.wait(0.02):
            if self.own:
                self._run(self.own.pop(0), None)
            elif self.mode != "nobody" and queue(self.home, self.session_id):
                if not self._left.wait(self.delay):
                    self._take()

    def _take(self) -> None:
        before = change_queue(self.home, self.session_id, lambda entries: entries[1:])
        if not before:  # it was withdrawn in between
            return
        one = before[0]
        self.taken.append(one)
        text, client_id = one["input"][0]["text"], one["clientUserMessageId"]
        if self.mode == "forgets":
            return
        if self.mode == "other":
            return self._run("somebody else's\nFAKE:say NOT FOR YOU", "another-id")
        self._run(text, None if self.mode == "anonymous" else client_id)
        if self.mode == "other-reply":
            self._run("somebody else's\nFAKE:say NOT FOR YOU", "another-id")

    def _run(self, text: str, client_id: Optional[str]) -> None:
        if self.mode == "bare":
            add(self.home, self.session_id, "turn", turn=str(uuid.uuid4()), text="", client_id=None)
            self._left.wait(0.5)
            add(self.home, self.session_id, "message", text=text, client_id=client_id)
        else:
            begin_turn(self.home, self.session_id, text, client_id)
        steps = re.findall(r"^FAKE:([a-z-]+) ?(.*)$", text, re.MULTILINE)
        ours = client_id not in (None, "another-id") or self.mode == "anonymous"
        if ours and self.mode == "other-reply":
            return
        if ours and self.mode == "endless":
            steps = [("hang", "")]
        if ours and self.mode == "mute":
            steps = [("sleep", "0")]
        status, error, end = "completed", None, time.monotonic() + BOUND
        for name, more in steps or [("say", f"Held turn; it ends: {text[-200:]}")]:
            if name == "say":
                add(self.home, self.session_id, "say", text=more, phase=None)
            elif name == "failed":
                status, error = "failed", more
            elif name == "interrupted":
                status = "interrupted"
            elif name == "sleep":
                self._left.wait(float(more))
            elif name in ("gate", "hang"):
                while more not in self.opened and time.monotonic() < end:
                    if self._left.wait(0.005):
                        return
            elif name not in ("session", "started", "completed"):  # those of `codex exec` alone
                raise AssertionError("unknown step " + name)
        add(self.home, self.session_id, "end", status=status, error=error)
