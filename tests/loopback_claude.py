#!/usr/bin/env python3
"""A stand-in for Anthropic's Messages API on 127.0.0.1, for tool calls of Claude Code offline.

What it answers is decided by lines of the user's message, done in order, one a request:

    CLAUDE:CALL <tool> <arguments as JSON>   a call of the tool whose name ends so; `SESSION`
                                             inside a string becomes the session id that the last
                                             tool result told
    CLAUDE:SEARCH <words>                    what Claude Code's own search for tools is asked, for a
                                             tool that is not loaded; without it the tool's name

and after the last call a text that quotes what the tools answered. A tool that Claude Code keeps
back at first is asked for with its own search tool. Every request body is kept in `requests`;
`results` has what came back. Standard library only.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import uuid
from http.server import ThreadingHTTPServer
from typing import Any, Dict, List

from loopback_model import LoopbackHandler

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def blocks(message: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The content of a message, always as blocks."""
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(block: Dict[str, Any]) -> str:
    """The text of a text block or of a tool result."""
    if block.get("type") == "tool_result":
        content = block.get("content") or ""
        return content if isinstance(content, str) else "\n".join(text_of(part) for part in content)
    return str(block.get("text", ""))


def tool_results(body: Dict[str, Any]) -> List[str]:
    """The answers of the tools called since the user's last commands, without the tool search."""
    found: List[str] = []
    searches = set()
    for message in body.get("messages", []):
        for block in blocks(message):
            kind = block.get("type")
            if kind == "tool_use" and block.get("name") == "ToolSearch":
                searches.add(block.get("id"))
            elif kind == "tool_result" and block.get("tool_use_id") not in searches:
                found.append(text_of(block))
            elif (
                kind == "text" and message.get("role") == "user" and "CLAUDE:CALL" in text_of(block)
            ):
                found = []
    return found


def answer(body: Dict[str, Any]) -> Dict[str, Any]:
    """The content block of the answer to a request."""
    texts = [
        text_of(b)
        for m in body.get("messages", [])
        if m.get("role") == "user"
        for b in blocks(m)
        if b.get("type") == "text"
    ]
    last = next((text for text in reversed(texts) if "CLAUDE:CALL" in text), "")
    steps = re.findall(r"^CLAUDE:CALL (\S+) (.*)$", last, re.MULTILINE)
    done = tool_results(body)
    names = [str(tool.get("name")) for tool in body.get("tools") or []]
    if not names or len(done) >= len(steps):
        return {"type": "text", "text": "The tools answered: " + " / ".join(done or ["nothing"])}
    wanted, arguments = steps[len(done)]
    sessions = re.findall(UUID, "\n".join(done))
    if sessions:
        arguments = arguments.replace("SESSION", sessions[-1])
    name = next((name for name in names if name.endswith(wanted)), None)
    use = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex}"}
    if name is None and "ToolSearch" in names:
        words = re.findall(r"^CLAUDE:SEARCH (.*)$", last, re.MULTILINE)
        asked = [
            block["input"].get("query")
            for m in body["messages"]
            for block in blocks(m)
            if block.get("name") == "ToolSearch"
        ]
        for query in (*words, wanted):
            if query not in asked:
                return dict(use, name="ToolSearch", input={"query": query, "max_results": 5})
    return dict(use, name=name or wanted, input=json.loads(arguments))


def events(block: Dict[str, Any], model: str) -> bytes:
    """A whole message of one content block, as server-sent events."""
    start: Dict[str, Any] = {"type": "text", "text": ""}
    delta: Dict[str, Any] = {"type": "text_delta", "text": block.get("text")}
    if block["type"] == "tool_use":
        start = dict(block, input={})
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    reason = "tool_use" if block["type"] == "tool_use" else "end_turn"
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }
    stream = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in stream).encode()


class LoopbackClaude:
    """The server. Use it as a context manager; `url` is what ANTHROPIC_BASE_URL takes."""

    def __init__(self, port: int = 0) -> None:
        self.requests: List[Dict[str, Any]] = []
        stand_in = self

        class Handler(LoopbackHandler):
            def _not_here(self) -> None:
                error = {
                    "type": "error",
                    "error": {"type": "not_found_error", "message": "no such path"},
                }
                self._send(404, "application/json", json.dumps(error).encode())

            def do_HEAD(self) -> None:
                self._send(200, "text/plain", b"")

            do_GET = _not_here

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                path = self.path.split("?")[0]
                if path == "/v1/messages/count_tokens":
                    counted = json.dumps({"input_tokens": len(raw) // 4})  # about
                    return self._send(200, "application/json", counted.encode())
                if path != "/v1/messages":
                    return self._not_here()
                body = json.loads(raw)
                stand_in.requests.append(body)
                block, model = answer(body), str(body.get("model"))
                if body.get("stream"):
                    return self._send(200, "text/event-stream", events(block, model))
                whole = {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "model": model,
                    "content": [block],
                    "stop_reason": "tool_use" if block["type"] == "tool_use" else "end_turn",
                    "stop_sequence": None,
                    "usage": {"input_tokens": 10, "output_tokens": 5},
                }
                self._send(200, "application/json", json.dumps(whole).encode())

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def results(self) -> List[str]:
        """What the model was given as results of its calls, in the newest request that has any."""
        found = [tool_results(body) for body in list(self.requests)]
        return next((results for results in reversed(found) if results), [])

    def __enter__(self) -> LoopbackClaude:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.server.shutdown()
        self.server.server_close()


def main() -> None:
    """Serves until interrupted; prints the address."""
    with LoopbackClaude() as claude:
        print(claude.url, flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            sys.exit(0)


if __name__ == "__main__":
    main()
