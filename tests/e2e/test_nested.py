"""A Codex that this server started finds the server in its configuration, and gets no further."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from client import BOUND, PROGRAM, session_of, text_of
from real import Real
from tools import CHAT

ARGUMENTS = json.dumps({"prompt": "From within. MODEL:SAY Hello."})
ORDER = f"MODEL:CALL {CHAT} {ARGUMENTS}\nMODEL:SAY Called."


@pytest.fixture
def registered(newest: Real) -> Real:
    """The newest Codex with this server registered, as `codex mcp add` or an editor does it."""
    newest.configure(
        "[mcp_servers.helper]\n"
        f"command = {json.dumps(sys.executable)}\n"
        f"args = [{json.dumps(PROGRAM)}]\n"
        'default_tools_approval_mode = "approve"\n'
        "[mcp_servers.helper.env]\n"
        + "".join(
            f"{name} = {json.dumps(newest.env[name])}\n"
            for name in ("CODEX_BIN", "CODEX_HOME", "CODEX_MCP_CWD")
        )
    )
    return newest


def test_a_codex_of_this_server_can_not_call_it_again(registered: Real) -> None:
    result = registered.start().chat(ORDER)
    assert result["structuredContent"]["reply"] == "Called.", text_of(result)
    output = registered.outputs()[-1]
    assert "itself started" in output and "without end" in output, output
    assert not any(
        "From within." in text_of_request(request) for request in registered.model.requests
    )
    assert len(registered.rollouts()) == 1


def test_a_codex_that_a_person_started_can_call_it(registered: Real) -> None:
    run = subprocess.run(
        [registered.codex, "exec", "--skip-git-repo-check", "--json", "-C", registered.work, "-"],
        input=ORDER.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=BOUND,
        env=registered.env_of_a_person(),
    )
    assert run.returncode == 0, run.stderr
    output = registered.outputs()[-1]
    assert "Hello." in output and "codex resume" in output, output
    assert len(registered.rollouts()) == 2


def test_an_empty_marker_in_the_environment_refuses_nobody(newest: Real) -> None:
    # The SDKs make the server the leader of a POSIX session, which finds the marker in its own
    # environment.
    client = newest.start(env={"CODEX_PERSISTENT_MCP_ACTIVE": ""}, start_new_session=True)
    assert session_of(client.chat("Hello."))


def text_of_request(request: dict) -> str:
    """What a person or an agent wrote in a request to the model, without what tools gave back."""
    return "\n".join(
        json.dumps(item.get("content"))
        for item in request["input"]
        if item.get("role") == "user" and "MODEL:CALL" not in json.dumps(item)
    )
