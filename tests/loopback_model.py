#!/usr/bin/env python3
"""A stand-in for OpenAI's Responses API on 127.0.0.1, for whole turns of the real Codex offline.

What it answers is decided by commands in the last message of the user, one a line, anywhere in the
message:

    MODEL:SAY <text>      the reply (without it: a line that counts and quotes what was said so far)
    MODEL:RUN <command>   first a call of Codex's shell tool, then the reply
    MODEL:ASK <command>   the same, and the model wants it outside of the sandbox, for which
                          Codex asks the person
    MODEL:CALL <tool> <arguments as JSON>   first a call of that tool (of MCP, too), then the reply;
                          several are made one after the other. `SESSION` in the arguments becomes
                          the last session id that the tools have told
    MODEL:WAIT <seconds>  the answer is held back that long
    MODEL:FAIL <status>   an HTTP error of that status
    MODEL:THINK <text>    first a reasoning item with that summary

The reply after a call of spawn_agent is held back until that agent's own command has come back.

When Codex's automatic reviewer (`approvals_reviewer = "auto_review"`) asks whether a command may
leave the sandbox, the answer is yes.

Every request body is kept in `requests`, so a test can see the model, the effort and the input that
Codex sent.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List, Optional

#: Seconds for which a reply waits for an agent that was begun.
AGENT_BOUND = 30
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"

CONFIG = """\
model = "mock-model"
model_provider = "mock"
approval_policy = "never"
check_for_update_on_startup = false
[model_providers.mock]
name = "mock"
base_url = "{url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
[analytics]
enabled = false
[projects."/"]
trust_level = "trusted"
"""


def text_of(item: Dict[str, Any]) -> str:
    """The text of an input item of the Responses API."""
    content = item.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [] if isinstance(part, dict))


def user_messages(body: Dict[str, Any]) -> List[str]:
    """The messages that a user sent, without the context that Codex adds in the user's name."""
    texts = [
        text_of(i)
        for i in body.get("input", [])
        if i.get("type") == "message" and i.get("role") == "user"
    ]
    return [
        t
        for t in texts
        if not t.lstrip().startswith(
            (
                "<environment_context>",
                "<user_instructions>",
                "# AGENTS.md",
                "<permissions",
                "<turn_aborted>",
                "<subagent_notification>",
            )
        )
    ]


def named_tool(body: Dict[str, Any], name: str) -> Dict[str, str]:
    """A request's name of the tool `name`: `mcp__SERVER__NAME` (0.77.0) or NAME in a namespace."""
    for tool in body.get("tools", []):
        if tool.get("type") == "namespace" and name in [
            inner.get("name") for inner in tool.get("tools", [])
        ]:
            return {"namespace": tool["name"], "name": name}
        if str(tool.get("name")).split("__")[-1] == name:
            return {"name": tool["name"]}
    return {"name": name}


def message(text: str) -> Dict[str, Any]:
    """An item of a response: what the model says."""
    return {
        "type": "message",
        "role": "assistant",
        "id": "msg_1",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def outputs(items: List[Dict[str, Any]]) -> List[str]:
    """What calls of tools gave back."""
    return [str(item.get("output")) for item in items if item.get("type") == "function_call_output"]


def begun_agent(call: str, items: List[Dict[str, Any]]) -> str:
    """The message with which that call has begun another agent, "" if it has not."""
    name, _, arguments = call.partition(" ")
    begun = name == "spawn_agent" and any("agent_id" in output for output in outputs(items))
    return json.loads(arguments)["message"] if begun else ""


def asks_for_a_verdict(body: Dict[str, Any]) -> bool:
    """Whether Codex's automatic reviewer asks if a command may leave the sandbox."""
    form = (body.get("text") or {}).get("format") or {}
    return form.get("type") == "json_schema" and '"outcome"' in json.dumps(form)


def plan(body: Dict[str, Any]) -> Dict[str, Any]:
    """What to answer to a request: `fail`, `wait`, `until`, and the `items` of the response."""
    if asks_for_a_verdict(body):
        verdict = {"risk_level": "low", "user_authorization": "high", "outcome": "allow"}
        verdict["rationale"] = "The test wants it."
        return {"fail": 0, "wait": 0, "until": "", "items": [message(json.dumps(verdict))]}
    users = user_messages(body)
    last = users[-1] if users else ""
    found = {key: value.strip() for key, value in re.findall(r"MODEL:(\w+) ?(.*)", last)}
    said = [
        text_of(i)
        for i in body.get("input", [])
        if i.get("type") == "message" and i.get("role") == "assistant"
    ]
    after_user = body.get("input", [])
    for index in range(len(after_user) - 1, -1, -1):
        if after_user[index].get("role") == "user" and last and text_of(after_user[index]) == last:
            after_user = after_user[index:]
            break
    ran = sum(
        i.get("type") in ("function_call_output", "local_shell_call_output") for i in after_user
    )
    calls = re.findall(r"MODEL:CALL (.*)", last)
    items: List[Dict[str, Any]] = []
    if "THINK" in found and not ran:
        items.append(
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": found["THINK"]}],
            }
        )
    if ("RUN" in found or "ASK" in found) and not ran:
        names = [t.get("name") for t in body.get("tools", [])]
        name = "exec_command" if "exec_command" in names else "shell_command"
        key = "cmd" if name == "exec_command" else "command"
        call: Dict[str, Any] = {key: found.get("RUN") or found.get("ASK")}
        if key == "cmd":
            call["yield_time_ms"] = 600000
        if "ASK" in found:
            call.update(sandbox_permissions="require_escalated", justification="May this run?")
        arguments = json.dumps(call)
        items.append(
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": f"call_{len(after_user)}",
                "name": name,
                "arguments": arguments,
            }
        )
    elif ran < len(calls):
        name, _, arguments = calls[ran].strip().partition(" ")
        told = re.findall(UUID, "\n".join(outputs(after_user)))
        arguments = arguments.replace("SESSION", told[-1] if told else "SESSION")
        items.append(
            dict(
                {
                    "type": "function_call",
                    "id": "fc_1",
                    "call_id": f"call_{len(after_user)}",
                    "arguments": arguments or "{}",
                },
                **named_tool(body, name),
            )
        )
    else:
        own_words = last.rstrip().splitlines()[-1] if last else ""
        reply = (
            found.get("SAY")
            or f"This is message {len(users)} of the conversation; before it I said "
            f"{json.dumps([s[:60] for s in said[-3:]])}. You wrote: {own_words[:200]}"
        )
        items.append(message(reply))
    return {
        "fail": int(found.get("FAIL", 0)),
        "wait": float(found.get("WAIT", 0)),
        "until": begun_agent(found.get("CALL", ""), after_user),
        "items": items,
    }


class LoopbackHandler(BaseHTTPRequestHandler):
    """Answers quietly and with a length, for every stand-in of a model."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class LoopbackModel:
    """The server, a context manager; `url` is what `base_url` of a Codex provider takes."""

    def __init__(self, port: int = 0) -> None:
        self.requests: List[Dict[str, Any]] = []
        model = self

        class Handler(LoopbackHandler):
            def do_GET(self) -> None:
                self._send(200, "application/json", b'{"models": [], "data": [], "object": "list"}')

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if not self.path.endswith("/responses"):
                    return self._send(
                        404, "application/json", b'{"error": {"message": "no such path"}}'
                    )
                body = json.loads(raw)
                model.requests.append(body)
                answer = plan(body)
                model.stopped.wait(answer["wait"])
                end = time.monotonic() + AGENT_BOUND
                while answer["until"] and not model.acted(answer["until"]):
                    if model.stopped.wait(0.05) or time.monotonic() > end:
                        break
                try:
                    if answer["fail"]:
                        error = {
                            "error": {"message": "the model is on strike", "type": "server_error"}
                        }
                        return self._send(
                            answer["fail"], "application/json", json.dumps(error).encode()
                        )
                    self._send(200, "text/event-stream", events(answer["items"]))
                except OSError:
                    pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        self.stopped = threading.Event()
        self.server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def acted(self, order: str) -> bool:
        """Whether an agent that was begun with that message has got something done."""
        return any(
            order in user_messages(request) and outputs(request["input"])
            for request in list(self.requests)
        )

    def __enter__(self) -> LoopbackModel:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()


def events(items: List[Dict[str, Any]]) -> bytes:
    """A whole response as server-sent events."""
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }
    stream: List[Dict[str, Any]] = [{"type": "response.created", "response": {"id": "resp_1"}}]
    stream += [{"type": "response.output_item.done", "item": item} for item in items]
    stream.append({"type": "response.completed", "response": {"id": "resp_1", "usage": usage}})
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in stream).encode()


def write_codex_home(home: str, url: str, more: str = "") -> None:
    """Makes `home` a CODEX_HOME whose only model is the loopback one."""
    os.makedirs(home, exist_ok=True)
    with open(os.path.join(home, "config.toml"), "w", encoding="utf-8") as file:
        file.write(CONFIG.format(url=url) + more)


def main(argv: Optional[List[str]] = None) -> None:
    """Serves until interrupted; with a CODEX_HOME it also writes a configuration there."""
    arguments = sys.argv[1:] if argv is None else argv
    with LoopbackModel() as model:
        if arguments:
            write_codex_home(arguments[0], model.url)
        print(model.url, flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
