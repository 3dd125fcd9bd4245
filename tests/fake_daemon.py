"""A stand-in for the background daemon of Codex 0.169.0, in this process.

It holds a session as a `codex resume` window makes it do: the session's writer lock, so that the
fake codex is refused, a queue of messages, and turns. What a turn does is told by lines of its
message, `FAKE:<step> [argument]`, as for the fake codex. How it misbehaves is told by `scenario`, a
point of the conversation and what happens there:

    upgrade     the HTTP upgrade              take      instead of taking a message
    initialize  the answer to initialize      taken     a message was taken; the answer to that
    held        the first question after it   turn      the turn has begun, its message was told
    resume      the answer to thread/resume   reply     the reply was told, not the turn's end

    silent, drop, bye, huge, junk, binary, masked, no-json, no-message, unknown-method, odd-result

Each but the last two leaves the connection silent afterwards. Modes, which a client must be able to
stand: fragmented, ping, noise (events of other sessions and turns), slow-start (a turn takes a
while to begin), late-answer (a message's turn is over before the message is answered), person-first
(the person's turn begins just before a message is taken), stale-status (the first answer to
thread/resume says that a turn runs which is over).
"""

from __future__ import annotations

import base64
import glob
import hashlib
import json
import os
import re
import shutil
import socket
import struct
import tempfile
import threading
import time
import uuid
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

import fake_store as store

#: Seconds after which a wait in here ends by itself, so that nothing stays.
BOUND = 60.0
OTHER = "01a20d52-0000-7000-8000-000000000000"

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(kind: int, data: bytes, final: bool = True, mask: bool = False) -> bytes:
    """One WebSocket frame."""
    size, bit = len(data), 0x80 if mask else 0
    head = bytes([(0x80 if final else 0) | kind])
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    return head + (b"\0\0\0\0" if mask else b"") + data


class Turn:
    """One turn, the agent's or the person's."""

    def __init__(self, client_id: Optional[str], text: str) -> None:
        self.id, self.client_id, self.text = str(uuid.uuid4()), client_id, text
        self.steered: List[str] = []
        self.status = "inProgress"
        self.begun = False
        self.stop = threading.Event()
        self.approved = threading.Event()
        self.reply: Optional[str] = None

    def wire(self, **more: Any) -> Dict[str, Any]:
        return dict(
            {
                "id": self.id,
                "rootTurnId": self.id,
                "items": [],
                "itemsView": "notLoaded",
                "status": self.status,
                "error": None,
            },
            **more,
        )


class Connection:
    """One client."""

    def __init__(self, daemon: FakeDaemon, sock: socket.socket) -> None:
        self.daemon, self.sock = daemon, sock
        self.subscribed = self.experimental = self.mute = False
        self.opted_out: Set[str] = set()
        self._lock = threading.Lock()
        self._buffer = b""

    def _read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            chunk = self.sock.recv(1 << 16)
            if not chunk:
                raise OSError("the client left")
            self._buffer += chunk
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def raw(self, data: bytes) -> None:
        if not self.mute:
            try:
                with self._lock:
                    self.sock.sendall(data)
            except OSError:
                pass

    def send(self, message: Dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        if "ping" in self.daemon.modes:
            self.raw(frame(PING, b"still there?"))
        if "fragmented" in self.daemon.modes:
            third = len(data) // 3
            self.raw(
                frame(TEXT, data[:third], False)
                + frame(0, data[third : 2 * third], False)
                + frame(PING, b"in between")
                + frame(0, data[2 * third :])
            )
        else:
            self.raw(frame(TEXT, data))

    def misbehave(self, what: str, id: Any) -> None:
        """Does `what` instead of sending the answer to the request `id`."""
        if what == "unknown-method":
            return self.send(
                {
                    "error": {
                        "code": -32600,
                        "message": "Invalid request: unknown variant `x/y`, expected one "
                        "of " + ", ".join(f"`method/{n}`" for n in range(2000)),
                    },
                    "id": id,
                }
            )
        if what == "odd-result":
            return self.send({"id": id, "result": [{"turn": 7, "thread": "none"}, None]})
        self.raw(
            {
                "drop": b"",
                "silent": b"",
                "bye": frame(CLOSE, b"\x03\xe8"),
                "huge": b"\x81\x7f" + struct.pack(">Q", 1 << 40) + b"x" * 1000,
                "junk": b"\xf3\x9a" + bytes(range(256)) * 4,
                "binary": frame(BINARY, b"\0\1\2"),
                "masked": frame(TEXT, json.dumps({"id": id, "result": {}}).encode(), mask=True),
                "no-json": frame(TEXT, b"hello \xff"),
                "no-message": b"".join(
                    frame(TEXT, text)
                    for text in (
                        b"[1, 2]",
                        b'"text"',
                        b"null",
                        b'{"id": true}',
                        b'{"method": 7}',
                        b'{"method": "turn/completed", "params": []}',
                    )
                ),
            }[what]
        )
        self.mute = True
        if what in ("drop", "bye"):
            self.close()

    def close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def serve(self) -> None:
        try:
            # Like the real daemon, it reads once for the request, and hangs up if more has come
            # along with it. The pause makes sure that a client that is too early is caught.
            time.sleep(0.05)
            head = self.sock.recv(4096)
            if not head.endswith(b"\r\n\r\n"):
                return
            if self.daemon.due("upgrade"):
                if self.daemon.what == "silent":
                    return self._swallow()
                self.raw(b"" if self.daemon.what == "drop" else b"HTTP/1.1 403 Forbidden\r\n\r\n")
                return self.misbehave(self.daemon.what, None)
            key = re.search(rb"(?i)sec-websocket-key: *(\S+)", head)
            assert head.startswith(b"GET / HTTP/1.1\r\n") and key is not None, head
            accept = base64.b64encode(
                hashlib.sha1(key.group(1) + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
            )
            self.raw(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                b"sec-websocket-accept: " + accept + b"\r\n\r\n"
            )
            while True:
                first, second = self._read(2)
                size = second & 127
                if size > 125:
                    size = struct.unpack(
                        ">H" if size == 126 else ">Q", self._read(2 if size == 126 else 8)
                    )[0]
                assert second & 128, "a client masks its frames"
                mask = self._read(4)
                data = self._read(size)
                data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
                if first & 15 == CLOSE:
                    return
                if first & 15 == PONG:
                    self.daemon.pongs += 1
                elif first & 15 in (0, TEXT):
                    self.daemon.receive(self, json.loads(data))
        except OSError:
            pass
        finally:
            self.daemon.leave(self)
            self.sock.close()

    def _swallow(self) -> None:
        while True:
            self._read(1)


class FakeDaemon:
    """The daemon. A context manager; starting it takes the writer lock of the session.

    `requests` has all that clients asked, `answers` what they answered (nothing ever, if they are
    right), `turns` all turns in order, `steered` the messages that went into a turn that ran
    already. `results` has the results that a test wants instead of the right ones, by method.
    """

    def __init__(
        self,
        home: str,
        session_id: str,
        scenario: str = "",
        modes: str = "",
        sandbox: Any = "readOnly",
        loaded: bool = True,
        approval: str = "never",
        lock: bool = True,
    ) -> None:
        self.home, self.session_id = home, session_id
        self.point, _, self.what = scenario.partition(" ")
        self.modes = set(modes.split())
        self.sandbox, self.loaded, self.approval = sandbox, loaded, approval
        self.requests: List[Tuple[str, Dict[str, Any]]] = []
        self.answers: List[Any] = []
        self.turns: List[Turn] = []
        self.steered: List[str] = []
        self.terminated: List[str] = []
        self.results: Dict[str, Any] = {}
        self.connections = self.pongs = 0
        self.paused = False
        self._queue: List[Tuple[str, Turn]] = []
        self._clients: List[Connection] = []
        self._changed = threading.RLock()
        self._tokens = 0
        self._approvals = 0
        self._opened: Set[str] = set()
        self._lock_file: Any = None
        self._wants_lock = lock
        # A socket's path must be short, so Codex too puts only a link to it in its home.
        self.folder = tempfile.mkdtemp(prefix="fd-")
        self.socket_path = os.path.join(self.folder, "s")
        self.link = os.path.join(home, "app-server-control", "app-server-control.sock")
        found = glob.glob(
            os.path.join(home, "sessions", "*", "*", "*", f"rollout-*-{session_id}.jsonl")
        )
        self.session_file = found[0] if found else None

    def __enter__(self) -> FakeDaemon:
        if self._wants_lock:
            self.hold()
        os.makedirs(os.path.dirname(self.link), mode=0o700, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket_path)
        self._listener.listen(8)
        if not os.path.lexists(self.link):
            os.symlink(self.socket_path, self.link)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the worker that accepts
        self._listener.close()
        self.disconnect()
        for turn in self.turns:
            turn.stop.set()
        self.release()
        if os.path.islink(self.link):
            os.unlink(self.link)
        shutil.rmtree(self.folder, ignore_errors=True)

    def hold(self) -> None:
        """Takes the session's writer lock."""
        assert self.session_file, "no such session"
        self._lock_file = store.hold(self.home, self.session_id, wait=True)
        assert self._lock_file, "the session is held"

    def release(self) -> None:
        """Frees the session's writer lock, as the daemon does soon after the last window closed."""
        store.release(self.home, self.session_id, self._lock_file)
        self._lock_file = None

    # -- what tests ask and do ---------------------------------------------------------------------

    def wait(self, found: Callable[[], Any], what: str) -> Any:
        """Waits until `found()` is true, and returns that."""
        end = time.monotonic() + BOUND
        while True:
            value = found()
            if value:
                return value
            assert time.monotonic() < end, (
                f"no {what}; requests: {[method for method, _ in self.requests]}"
            )
            time.sleep(0.005)

    def asked(self, *methods: str) -> List[Dict[str, Any]]:
        """The parameters of all requests of these methods."""
        return [params for method, params in self.requests if method in methods]

    def messages(self) -> List[Dict[str, Any]]:
        """The requests that give the session a message to work on."""
        return self.asked("turn/start", "turn/steer", "thread/queue/add")

    def agents_turns(self) -> List[Turn]:
        """The turns that are not the person's."""
        return [turn for turn in self.turns if turn.client_id != "person"]

    def person(self, text: str) -> Turn:
        """The person sends a message; returns its turn, which has begun."""
        turn = Turn("person", text)
        with self._changed:
            self._begin(turn)()
        self.wait(lambda: turn.begun, "turn of the person")
        return turn

    def open(self, gate: str) -> None:
        """Lets the turn that stands at `FAKE:gate <gate>` go on."""
        self._opened.add(gate)

    # -- the protocol ------------------------------------------------------------------------------

    def due(self, point: str) -> bool:
        return self.point == point

    def _accept(self) -> None:
        while True:
            try:
                sock = self._listener.accept()[0]
            except OSError:
                return
            client = Connection(self, sock)
            self.connections += 1
            self._clients.append(client)
            threading.Thread(target=client.serve, daemon=True).start()

    def disconnect(self) -> None:
        """Closes all connections."""
        for client in list(self._clients):
            client.close()

    @property
    def connected(self) -> int:
        """How many connections there are now."""
        return len(self._clients)

    @property
    def queued(self) -> List[Turn]:
        """The turns that wait behind the one that runs."""
        return [turn for _, turn in self._queue]

    def leave(self, client: Connection) -> None:
        if client in self._clients:
            self._clients.remove(client)

    def _tell(self, method: str, everybody: bool = False, **params: Any) -> None:
        """Sends a notification to those who follow the session."""
        for client in list(self._clients):
            if (client.subscribed or everybody) and method not in client.opted_out:
                client.send({"method": method, "params": params, "emittedAtMs": 1795519851062})

    def receive(self, client: Connection, message: Dict[str, Any]) -> None:
        """Takes one message of a client."""
        if "method" not in message:
            self.answers.append(message)
            return
        method, params, id = message["method"], message.get("params") or {}, message.get("id")
        self.requests.append((method, params))
        if id is None:
            return
        point = {
            "initialize": "initialize",
            "thread/loaded/list": "held",
            "thread/read": "held",
            "thread/resume": "resume",
            "turn/start": "take",
            "thread/queue/add": "take",
        }.get(method)
        if point and self.due(point):
            return client.misbehave(self.what, id)
        if client.mute:
            return
        with self._changed:
            answer, then = self._answer(client, method, params)
            if method in self.results:
                answer = {"result": self.results[method]}
        if "late-answer" in self.modes and point == "take":
            turn = self.turns[-1]
            if then:
                then()
            self.wait(lambda: turn.status != "inProgress", "end of the turn")
            then = None
        if point == "take" and self.due("taken"):
            if then:
                then()
            turn = self.turns[-1]
            self.wait(lambda: turn.begun, "turn")
            return client.misbehave(self.what, id)
        client.send(dict(answer, id=id))
        if then:
            then()

    def _answer(
        self, client: Connection, method: str, params: Dict[str, Any]
    ) -> Tuple[Dict[str, Any], Any]:
        """The answer to a request, and what happens right after it."""
        mine = params.get("threadId") == self.session_id and self.loaded

        def refuse(text: str, code: int = -32600) -> Tuple[Dict[str, Any], Any]:
            return {"error": {"code": code, "message": text}}, None

        if method == "initialize":
            capabilities = params.get("capabilities") or {}
            client.experimental = capabilities.get("experimentalApi") is True
            client.opted_out = set(capabilities.get("optOutNotificationMethods") or [])
            self._tell(
                "configWarning",
                everybody=True,
                summary="Codex could not find bubblewrap.",
                details=None,
            )
            return {
                "result": {
                    "userAgent": "codex-tui/0.169.0",
                    "codexHome": self.home,
                    "platformFamily": "unix",
                    "platformOs": "linux",
                }
            }, None
        if method == "thread/loaded/list":
            return {
                "result": {"data": [OTHER] + [self.session_id] * self.loaded, "nextCursor": None}
            }, None
        if method == "thread/read":
            return (
                ({"result": {"thread": self._thread()}}, None)
                if mine
                else refuse("thread not loaded: X")
            )
        if method == "thread/resume":
            thread = self._thread()
            if "stale-status" in self.modes:
                self.modes.discard("stale-status")
                thread["status"] = {"type": "active", "activeFlags": []}
            if (
                not mine
            ):  # the real one loads it from the disk, unless the lock of another forbids it
                return refuse(f"thread {self.session_id} already has an active writer")
            client.subscribed = True
            sandbox = (
                {"type": self.sandbox, "networkAccess": False}
                if isinstance(self.sandbox, str)
                else self.sandbox
            )
            return {
                "result": {
                    "thread": thread,
                    "model": "fake-model",
                    "modelProvider": "fake",
                    "cwd": self._cwd(),
                    "approvalPolicy": self.approval,
                    "approvalsReviewer": "user",
                    "reasoningEffort": "medium",
                    "sandbox": sandbox,
                }
            }, None
        if (
            method.startswith(("thread/queue/", "thread/backgroundTerminals/"))
            and not client.experimental
        ):
            return refuse(f"{method} requires experimentalApi capability")
        if not mine:
            return refuse(f"thread not found: {params.get('threadId')}")
        if method in ("turn/start", "thread/queue/add"):
            text = "".join(part["text"] for part in params["input"])
            if len(text) > 1 << 20:
                return refuse("Input exceeds the maximum length of 1048576 characters.", -32602)
            if "person-first" in self.modes:
                self.modes.discard("person-first")
                self._begin(Turn("person", "FAKE:sleep 0.5"))()
            return self._take(method, params.get("clientUserMessageId"), text)
        if method == "thread/queue/start":
            found = [entry for entry in self._queue if entry[0] == params["queuedSubmissionId"]]
            if self._running():
                return refuse("thread already has an active or pending turn")
            if not found:
                return refuse(f"queued submission not found: {params['queuedSubmissionId']}")
            self._queue.remove(found[0])
            return {"result": {"turn": found[0][1].wire()}}, self._begin(found[0][1])
        if method == "thread/queue/list":
            return {
                "result": {
                    "data": [
                        {"id": q, "clientUserMessageId": turn.client_id, "input": []}
                        for q, turn in self._queue
                    ],
                    "nextCursor": None,
                }
            }, None
        if method == "thread/queue/delete":
            before = len(self._queue)
            self._queue = [
                entry for entry in self._queue if entry[0] != params["queuedSubmissionId"]
            ]
            return {"result": {"deleted": len(self._queue) < before}}, None
        if method == "turn/interrupt":
            running = self._running()
            if not running or not running.begun:
                return refuse("no active turn to interrupt")
            if running.id != params["turnId"]:
                return refuse(f"expected active turn id {params['turnId']} but found {running.id}")
            return {"result": {}}, running.stop.set
        if method == "thread/backgroundTerminals/terminate":
            self.terminated.append(params["processId"])
            return {"result": {"terminated": True}}, None
        if method == "thread/unsubscribe":
            client.subscribed = False
            return {"result": {"status": "unsubscribed"}}, None
        return refuse(f"Invalid request: unknown variant `{method}`, expected one of `initialize`")

    def _thread(self) -> Dict[str, Any]:
        status = {"type": "active", "activeFlags": []} if self._running() else {"type": "idle"}
        return {
            "id": self.session_id,
            "status": status,
            "cwd": self._cwd(),
            "model": "fake-model",
            "turns": [],
        }

    def _cwd(self) -> str:
        with open(str(self.session_file), encoding="utf-8") as file:
            return json.loads(file.readline())["payload"]["cwd"]

    def _running(self) -> Optional[Turn]:
        return next((turn for turn in self.turns if turn.status == "inProgress"), None)

    def _take(self, method: str, client_id: Optional[str], text: str) -> Tuple[Dict[str, Any], Any]:
        """A message: a turn, or a place in the queue; `turn/start` goes into a running turn."""
        running = self._running()
        if method == "turn/start" and running:
            self.steered.append(text)
            running.steered.append(text)
            return {"result": {"turn": running.wire()}}, None
        if method == "turn/start":
            turn = Turn(client_id, text)
            return {"result": {"turn": turn.wire()}}, self._begin(turn)
        submission = str(uuid.uuid4())
        answer = {
            "result": {
                "queuedSubmission": {
                    "id": submission,
                    "clientUserMessageId": client_id,
                    "input": [],
                }
            }
        }
        self._tell("thread/queue/changed", threadId=self.session_id)
        if running or self.paused:
            self._queue.append((submission, Turn(client_id, text)))
            return answer, None
        return answer, self._begin(Turn(client_id, text))

    # -- turns -------------------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> Callable[[], None]:
        """Makes `turn` the running one; what it returns lets it run."""
        self.turns.append(turn)
        once = [threading.Thread(target=self._run, args=(turn,), daemon=True)]
        return lambda: once.pop().start() if once else None

    def _item(
        self, turn: Turn, kind: str, state: str = "completed", id: str = "", **more: Any
    ) -> None:
        self._tell(
            "item/" + state,
            threadId=self.session_id,
            turnId=turn.id,
            item=dict({"type": kind, "id": id or str(uuid.uuid4())}, **more),
        )

    def _status(self, kind: str, *flags: str) -> None:
        status = {"type": kind, "activeFlags": list(flags)} if kind == "active" else {"type": kind}
        self._tell("thread/status/changed", everybody=True, threadId=self.session_id, status=status)

    def _run(self, turn: Turn) -> None:
        if "slow-start" in self.modes:
            time.sleep(0.5)
        turn.begun = True
        self._tell(
            "warning",
            threadId=self.session_id,
            message="Model metadata for `fake-model` not found.",
        )
        self._status("active")
        self._tell("turn/started", threadId=self.session_id, turn=turn.wire())
        for state in ("started", "completed"):
            self._item(
                turn,
                "userMessage",
                state,
                clientId=turn.client_id,
                content=[{"type": "text", "text": turn.text}],
            )
        if self.session_file:
            with open(self.session_file, "a", encoding="utf-8") as file:
                file.write(json.dumps({"type": "message", "text": turn.text}) + "\n")
        store.begin_turn(self.home, self.session_id, turn.text, turn.client_id)
        if turn.client_id != "person" and self.due("turn"):
            return self._trouble(turn)
        if "noise" in self.modes:
            self._noise(turn)
        steps = re.findall(r"^FAKE:([a-z-]+) ?(.*)$", turn.text, re.MULTILINE)
        error = None
        for name, text in steps or [
            ("reasoning", "**Looking at the question**"),
            ("usage", ""),
            ("say", f"Turn {len(self.turns)}; it ends: {turn.text[-200:]}"),
        ]:
            if turn.stop.is_set():
                break
            error = self._step(turn, name, text) or error
        self._end(turn, error)

    def _step(self, turn: Turn, name: str, text: str) -> Optional[str]:
        """One step of a turn. Returns the error with which the turn fails, if it does."""
        if name == "say":
            turn.reply = text
            store.add(self.home, self.session_id, "say", text=text, phase=None)
            self._item(turn, "agentMessage", "started", id="msg_1", text=text)
            self._item(turn, "agentMessage", id="msg_1", text=text)
        elif name == "reasoning":
            self._item(turn, "reasoning", summary=[text], content=[])
        elif name == "usage":
            self._tokens += 10
            counts = {
                "totalTokens": self._tokens + 5,
                "inputTokens": self._tokens,
                "cachedInputTokens": 0,
                "cacheWriteInputTokens": 0,
                "outputTokens": 5,
                "reasoningOutputTokens": 0,
            }
            self._tell(
                "thread/tokenUsage/updated",
                threadId=self.session_id,
                turnId=turn.id,
                tokenUsage={
                    "total": counts,
                    "last": dict(counts, inputTokens=10, totalTokens=15),
                    "modelContextWindow": 258400,
                },
            )
        elif name in ("command", "command-hang"):
            more = {"command": f"/bin/bash -lc '{text}'", "cwd": "/", "processId": "4711"}
            self._item(
                turn,
                "commandExecution",
                "started",
                id="call_1",
                status="inProgress",
                aggregatedOutput=None,
                exitCode=None,
                **more,
            )
            if name == "command-hang":
                turn.stop.wait(BOUND)
            else:
                self._item(
                    turn,
                    "commandExecution",
                    id="call_1",
                    status="completed",
                    aggregatedOutput="out\n",
                    exitCode=0,
                    **more,
                )
        elif name == "ask":
            self._status("active", "waitingOnApproval")
            self._item(
                turn,
                "commandExecution",
                "started",
                id="call_1",
                status="inProgress",
                aggregatedOutput=None,
                exitCode=None,
                command=f"/bin/bash -lc '{text}'",
                cwd="/",
                processId=None,
            )
            number, self._approvals = self._approvals, self._approvals + 1
            for client in list(self._clients):
                if client.subscribed:
                    client.send(
                        {
                            "method": "item/commandExecution/requestApproval",
                            "id": number,
                            "params": {
                                "kind": "command",
                                "threadId": self.session_id,
                                "turnId": turn.id,
                                "itemId": "call_1",
                                "reason": "May this run?",
                                "command": f"/bin/bash -lc '{text}'",
                                "cwd": "/",
                                "availableDecisions": ["accept", "cancel"],
                            },
                        }
                    )
            end = time.monotonic() + BOUND
            while not turn.approved.is_set() and not turn.stop.is_set() and time.monotonic() < end:
                time.sleep(0.005)
            self._tell("serverRequest/resolved", threadId=self.session_id, requestId=number)
        elif name == "gate":
            end = time.monotonic() + BOUND
            while text not in self._opened and not turn.stop.is_set() and time.monotonic() < end:
                time.sleep(0.005)
        elif name == "sleep":
            turn.stop.wait(float(text))
        elif name == "hang":
            turn.stop.wait(BOUND)
        elif name == "esc":
            turn.stop.set()
        elif name == "failed":
            self._status("systemError")
            self._tell(
                "error",
                error={"message": text, "codexErrorInfo": "other"},
                willRetry=False,
                threadId=self.session_id,
                turnId=turn.id,
            )
            return text
        else:
            raise AssertionError("unknown step " + name)
        return None

    def _end(self, turn: Turn, error: Optional[str]) -> None:
        interrupted = turn.stop.is_set()
        if turn.client_id != "person" and self.due("reply"):
            return self._trouble(turn)
        if not error:
            self._status("idle")
        with self._changed:
            turn.status = "interrupted" if interrupted else "failed" if error else "completed"
            self.paused = interrupted
            store.add(self.home, self.session_id, "end", status=turn.status, error=error)
            told = not interrupted and not error and turn.reply is not None
            items = [{"type": "agentMessage", "id": "msg_1", "text": turn.reply}] if told else []
            self._tell(
                "turn/completed",
                threadId=self.session_id,
                turn=turn.wire(items=items, error={"message": error} if error else None),
            )
            if self._queue and not interrupted:
                self._begin(self._queue.pop(0)[1])()

    def _trouble(self, turn: Turn) -> None:
        """The connections fail during the turn, which goes on to its end; the lock becomes free."""
        for client in list(self._clients):
            client.misbehave(self.what, None)
        turn.status = "completed"
        store.add(self.home, self.session_id, "end", status="completed", error=None)
        self.release()

    def _noise(self, turn: Turn) -> None:
        """Events that are none of this turn's business, and some that nobody knows."""
        for thread, one in (
            (OTHER, turn.id),
            (self.session_id, "another-turn"),
            (OTHER, "another-turn"),
        ):
            self._tell(
                "turn/started",
                threadId=thread,
                turn={"id": one, "status": "inProgress", "items": []},
            )
            self._tell(
                "item/completed",
                threadId=thread,
                turnId=one,
                item={"type": "agentMessage", "id": "x", "text": "NOT FOR YOU"},
            )
            self._tell(
                "error",
                error={"message": "NOT FOR YOU"},
                willRetry=False,
                threadId=thread,
                turnId=one,
            )
            self._tell(
                "thread/tokenUsage/updated",
                threadId=thread,
                turnId=one,
                tokenUsage={"total": {"inputTokens": 666}},
            )
            self._tell(
                "turn/completed",
                threadId=thread,
                turn={
                    "id": one,
                    "status": "failed",
                    "items": [],
                    "error": {"message": "NOT FOR YOU"},
                },
            )
        self._tell("warning", threadId=OTHER, message="NOT FOR YOU")
        self._tell("some/thing/new", threadId=self.session_id, turnId=turn.id, item=7)
        self._item(turn, "someNewThing", text="NOT FOR YOU")
