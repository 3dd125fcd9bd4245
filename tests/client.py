"""A small MCP client over pipes, for the tests and the demo.

Standard library only; every wait is bounded.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from tools import CHAT

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.path.join(os.path.dirname(HERE), "codex_persistent_mcp.py")
#: Seconds after which a wait fails. Generous: only a fault reaches it.
BOUND = 60.0

META = "io.modelcontextprotocol/"
MODERN = {
    META + "protocolVersion": "2026-07-28",
    META + "clientCapabilities": {},
    META + "clientInfo": {"name": "test-client", "version": "1"},
}


class Client:
    """Starts the server and talks to it.

    `messages` has all it sent, in order; stderr is kept in `errors`.
    """

    def __init__(
        self,
        env: Optional[Dict[str, str]] = None,
        python: str = sys.executable,
        program: str = PROGRAM,
        arguments: Optional[List[str]] = None,
        read: bool = True,
        **options: Any,
    ) -> None:
        environment = dict(os.environ)
        environment.update(env or {})
        self.process = subprocess.Popen(
            [python, program] + (arguments or []),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            **options,
        )
        self.messages: List[Any] = []
        self.raw: List[bytes] = []
        #: When each of the messages came (monotonic).
        self.times: List[float] = []
        self.errors: List[str] = []
        self.ended = False
        self._changed = threading.Condition()
        self._next_id = 0
        self._threads = [threading.Thread(target=self._read_errors, daemon=True)]
        if read:
            self._threads.append(threading.Thread(target=self._read_messages, daemon=True))
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _read_messages(self) -> None:
        for line in self.process.stdout:
            with self._changed:
                self.raw.append(line)
                self.times.append(time.monotonic())
                self.messages.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _read_errors(self) -> None:
        for line in self.process.stderr:
            with self._changed:
                self.errors.append(line.decode("utf-8", "replace").rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, found: Callable[[], Any], what: str, bound: float = BOUND) -> Any:
        """Waits until `found()` is true and returns that; fails after `bound` seconds."""
        end = time.monotonic() + bound
        with self._changed:
            while True:
                value = found()
                if value:
                    return value
                left = end - time.monotonic()
                assert left > 0, (
                    f"no {what} within {bound:g} s; got {self.messages[-3:]!r}; "
                    f"stderr {self.errors[-5:]!r}"
                )
                self._changed.wait(min(left, 0.2))

    def send_raw(self, data: bytes) -> None:
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: Any) -> None:
        self.send_raw(json.dumps(message).encode() + b"\n")

    def notify(self, method: str, params: Optional[Dict[str, Any]] = None) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params or {}})

    def request(self, method: str, params: Optional[Dict[str, Any]] = None, id: Any = None) -> Any:
        """Sends a request and returns its id."""
        if id is None:
            self._next_id += 1
            id = self._next_id
        message = {"jsonrpc": "2.0", "id": id, "method": method}
        if params is not None:
            message["params"] = params
        self.send(message)
        return id

    def responses(self, id: Any) -> List[Dict[str, Any]]:
        return [
            m
            for m in self.messages
            if isinstance(m, dict)
            and "method" not in m
            and m.get("id") == id
            and type(m.get("id")) is type(id)
        ]

    def response(self, id: Any, bound: float = BOUND) -> Dict[str, Any]:
        """The response to the request `id`."""
        return self.wait_for(lambda: self.responses(id), f"response to {id!r}", bound)[0]

    def ask(
        self, method: str, params: Optional[Dict[str, Any]] = None, bound: float = BOUND
    ) -> Dict[str, Any]:
        """Sends a request and waits for its response."""
        return self.response(self.request(method, params), bound)

    def initialize(self, revision: str = "2025-11-25", name: str = "test-client") -> Dict[str, Any]:
        """Does the handshake of the legacy revisions and returns the result."""
        answer = self.ask(
            "initialize",
            {
                "protocolVersion": revision,
                "capabilities": {},
                "clientInfo": {"name": name, "version": "1"},
            },
        )
        self.notify("notifications/initialized")
        return answer["result"]

    def start_call(
        self, tool: str, arguments: Any, token: Any = None, meta: Optional[Dict[str, Any]] = None
    ) -> Any:
        """Sends a tool call and returns its id."""
        params: Dict[str, Any] = {"name": tool, "arguments": arguments}
        if meta or token is not None:
            params["_meta"] = dict(meta or {})
            if token is not None:
                params["_meta"]["progressToken"] = token
        return self.request("tools/call", params)

    def result(self, id: Any, bound: float = BOUND) -> Dict[str, Any]:
        """The result of the request `id`, which must not be an error response."""
        answer = self.response(id, bound)
        assert "result" in answer, answer
        return answer["result"]

    def call(self, tool: str, arguments: Any, bound: float = BOUND, **more: Any) -> Dict[str, Any]:
        """Calls a tool and returns its result."""
        return self.result(self.start_call(tool, arguments, **more), bound)

    def chat(self, prompt: str, **arguments: Any) -> Dict[str, Any]:
        """Calls the chat tool and returns its result."""
        return self.call(CHAT, dict(arguments, prompt=prompt))

    def tools(self) -> Dict[str, Dict[str, Any]]:
        """What tools/list tells, by name and in its order."""
        return {tool["name"]: tool for tool in self.ask("tools/list")["result"]["tools"]}

    def progress(self, token: Any) -> List[Dict[str, Any]]:
        """The parameters of the progress notifications for `token` so far."""
        return [
            m["params"]
            for m in self.messages
            if isinstance(m, dict)
            and m.get("method") == "notifications/progress"
            and m["params"]["progressToken"] == token
        ]

    def close(self, bound: float = 10.0) -> int:
        """Closes the server's input, waits for its end and returns its exit code."""
        if not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except OSError:
                pass
        try:
            code = self.process.wait(bound)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"the server did not leave within {bound:g} s of the end of its input"
            ) from None
        finally:
            for thread in self._threads:
                thread.join(5)
            for pipe in (self.process.stdout, self.process.stderr):
                pipe.close()
        return code

    def signal(self, name: str) -> None:
        self.process.send_signal(getattr(signal, name))


def text_of(result: Dict[str, Any]) -> str:
    """All text of a tool result, as a client shows it that shows only text."""
    return "\n".join(block["text"] for block in result["content"])


def session_of(result: Dict[str, Any]) -> str:
    """The session id of a successful result."""
    assert not result.get("isError"), result
    return result["structuredContent"]["session_id"]


def remaining(look: Callable[[], List[int]], end: float) -> List[int]:
    """The processes that `look` still finds at `end` (monotonic); [] once it finds none for 0.1 s.

    One look is not enough: in the moment of its exec, a process has no environment to know it by.
    """
    quiet: Optional[float] = None
    while True:
        found, now = look(), time.monotonic()
        if found:
            quiet = None
            if now > end:
                return found
        elif quiet is None:
            quiet = now
        elif now > quiet + 0.1:
            return []
        time.sleep(0.005)
