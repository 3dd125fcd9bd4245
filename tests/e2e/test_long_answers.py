"""A long answer reaches the model of the real Claude Code whole, in spite of its limits on results.

Needs what install_clients.py installs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List

from client import BOUND, PROGRAM, Client
from install_clients import client_path
from loopback_claude import LoopbackClaude

#: A codex whose reply is long, for a command line has no room for a prompt that says it.
CODEX = """\
#!{python}
import json, sys
sys.stdin.read()
item = {{"id": "item_0", "type": "agent_message", "text": open({reply!r}).read()}}
for event in ({{"type": "thread.started", "thread_id": {session!r}}}, {{"type": "turn.started"}},
              {{"type": "item.completed", "item": item}}, \
{{"type": "turn.completed", "usage": {{}}}}):
    print(json.dumps(event))
"""
SESSION = "0199a7c3-5b1e-7d20-8f3a-2c4d6e8f0a1b"
KEY = "sk-dummy-0123456789abcdef0123456789"


def asked(tmp_path: Any, reply: str) -> List[str]:
    """What Claude Code's model is given where Codex gives that reply."""
    paths = {name: str(tmp_path / name) for name in ("codex", "reply", "home", "work", "mcp.json")}
    os.mkdir(paths["home"])
    os.mkdir(paths["work"])
    with open(paths["reply"], "w") as file:
        file.write(reply)
    with open(paths["codex"], "w") as file:
        file.write(CODEX.format(python=sys.executable, reply=paths["reply"], session=SESSION))
    os.chmod(paths["codex"], 0o755)
    env = {"CODEX_BIN": paths["codex"], "CODEX_HOME": paths["home"], "CODEX_MCP_CWD": paths["work"]}
    with open(paths["mcp.json"], "w") as file:
        server = {"command": sys.executable, "args": [PROGRAM], "env": env}
        json.dump({"mcpServers": {"codex": server}}, file)
    with LoopbackClaude() as model:
        user = {
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_BASE_URL": model.url,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "HOME": paths["home"],
            "PATH": os.environ["PATH"],
        }
        options = [
            "--allowedTools",
            "mcp__codex",
            "--strict-mcp-config",
            "--mcp-config",
            paths["mcp.json"],
        ]
        run = subprocess.run(
            [client_path("claude"), "-p", *options],
            input=b'CLAUDE:CALL codex_chat {"prompt": "Tell me all."}',
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=user,
            cwd=paths["work"],
            timeout=2 * BOUND,
        )
        assert run.returncode == 0, run
        return model.results


def numbered(size: int) -> str:
    """A text of about that many bytes, of which no part is like another."""
    return "\n".join(f"line {number} of the answer" for number in range(size // 24))


def test_claude_codes_model_is_given_an_answer_of_150_kilobytes_whole(tmp_path: Any) -> None:
    reply = numbered(150_000)
    (result,) = asked(tmp_path, reply)
    assert result.startswith("{"), (len(result), result[:1000])
    assert json.loads(result)["session_id"] == SESSION and json.loads(result)["reply"] == reply


def test_each_tool_tells_claude_code_how_long_its_answers_are_and_by_what_to_find_it() -> None:
    with Client({"CODEX_BIN": sys.executable}) as client:
        client.initialize()
        tools: List[Dict[str, Any]] = client.ask("tools/list")["result"]["tools"]
    hints = [tool["_meta"]["anthropic/searchHint"] for tool in tools]
    assert all(tool["_meta"]["anthropic/maxResultSizeChars"] == 500_000 for tool in tools)
    assert all(
        isinstance(hint, str) and 10 < len(hint) < 200 and "\n" not in hint for hint in hints
    )
