"""A client of the real `codex app-server` over its pipes: what an editor or a desktop app asks."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Dict

from real import Real


class AppServer:
    """A `codex app-server` of a Codex home, until it is closed."""

    def __init__(self, real: Real) -> None:
        self._process = subprocess.Popen(
            [real.codex, "app-server"],
            env=real.env_of_a_person(),
            cwd=real.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._asked = 0
        who = {"name": "e2e", "title": "e2e", "version": "1"}
        self.ask("initialize", clientInfo=who, capabilities={"experimentalApi": True})
        self._send({"method": "initialized"})

    def _send(self, message: Dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, method: str, **params: Any) -> Dict[str, Any]:
        """The result of a request."""
        self._asked += 1
        self._send({"id": self._asked, "method": method, "params": params})
        assert self._process.stdout
        for line in self._process.stdout:
            message = json.loads(line)
            if message.get("id") == self._asked and "method" not in message:
                assert "result" in message, message
                return dict(message["result"])
        raise AssertionError("the app-server left")

    def __enter__(self) -> AppServer:
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()
