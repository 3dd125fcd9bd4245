"""A client of the real `codex app-server` over its pipes: what an editor or a desktop app asks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from typing import Any, Dict, List

from real import Real, wait


class AppServer:
    """A `codex app-server` of a Codex home, which can have sessions open, until it is closed."""

    def __init__(self, real: Real) -> None:
        options = ["-c", "features.plugins=false", "-c", 'personality="none"']
        self.process = subprocess.Popen(
            [real.codex, *options, "app-server"],
            env=real.env_of_a_person(),
            cwd=real.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.messages: List[Dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._asked = 0
        client = {"name": "panel", "title": "panel", "version": "1"}
        self.ask("initialize", clientInfo=client, capabilities={"experimentalApi": True})
        self.send({"method": "initialized"})

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.messages.append(json.loads(line))

    def send(self, message: Dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> Dict[str, Any]:
        """The result of a request."""
        self._asked += 1
        self.send({"id": self._asked, "method": method, "params": params})

        def answers() -> List[Dict[str, Any]]:
            those = [one for one in self.messages if "method" not in one]
            return [one for one in those if one.get("id") == self._asked]

        answer = wait(answers, "answer to " + method)[0]
        assert "result" in answer, answer
        return dict(answer["result"])

    def queue(self, session: str) -> List[Any]:
        return list(self.ask("thread/queue/list", threadId=session)["data"])

    def kill(self) -> None:
        """Kills it, with the child of npm's shim that it really is."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        if not self.process.stdin.closed:
            self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.kill()
            self._reader.join(10)
            self.process.stdout.close()

    def __enter__(self) -> AppServer:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
