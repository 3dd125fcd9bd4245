"""The server as the models of agent frameworks see it: sessions continue, arguments are filled in.

Each framework runs its own agent with a scripted model (framework_clients.py, framework_client.mjs)
against the real server and the fake codex. Needs what install_frameworks.py installs.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, Iterator, List

import pytest

from client import BOUND, PROGRAM, Client
from install_frameworks import ENVIRONMENTS, framework_path, framework_python
from real import Process, all_processes, wait

HERE = os.path.dirname(os.path.abspath(__file__))
FAKE = os.path.join(os.path.dirname(HERE), "fake_codex.py")
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
FRAMEWORKS = [name for name in ENVIRONMENTS if name != "grammars"] + ["ai-sdk"]
#: What a framework's model cannot do, by what the framework itself says to it.
REFUSED = {
    ("smolagents", "nothing"): "is required",
    ("smolagents", "null"): "has type 'null' but should be",
}
#: Nothing but what is on this machine, and no questions to a person.
QUIET = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TESTING": "true",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "MCP_USE_ANONYMIZED_TELEMETRY": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "OTEL_SDK_DISABLED": "true",
}


class Framework:
    """A framework's conversations with one server each; `told` has what its model saw in each."""

    def __init__(self, name: str, root: str) -> None:
        self.name = name
        self.home, self.notes, work, user = (
            os.path.join(root, n) for n in ("home", "notes", "work", "user")
        )
        for folder in (self.home, self.notes, work, user):
            os.mkdir(folder)
        self.env = {
            "CODEX_BIN": FAKE,
            "CODEX_HOME": self.home,
            "CODEX_MCP_CWD": work,
            "FAKE_CODEX_DIR": self.notes,
            "FAKE_CODEX_VERSION": "0.169.0",
            "PATH": os.environ["PATH"],
        }
        command = [framework_python(name), os.path.join(HERE, "framework_clients.py")]
        if name == "ai-sdk":
            node = shutil.which("node")
            assert node, "node is missing"
            command = [node, os.path.join(HERE, "framework_client.mjs")]
        assert os.path.exists(os.path.join(framework_path(name), "made")), (
            f"{name} is missing; run `python tests/e2e/install_frameworks.py`"
        )
        order = {
            "framework": name,
            "packages": framework_path(name),
            "fill": ["nothing", "null", "empty"],
            "command": sys.executable,
            "args": [PROGRAM],
            "env": self.env,
        }
        run = subprocess.run(
            command + [json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(QUIET, PATH=os.environ["PATH"], HOME=user),
            cwd=work,
            timeout=5 * BOUND,
        )
        assert run.returncode == 0, run.stderr.decode("utf-8", "replace")[-3000:]
        self.told: Dict[str, Dict[str, Any]] = json.loads(run.stdout)

    def calls(self, session: str) -> List[Dict[str, Any]]:
        """The starts of the fake codex for that session."""
        with open(os.path.join(self.notes, "calls.jsonl"), encoding="utf-8") as file:
            return [call for call in map(json.loads, file) if call["session"] == session]

    def messages(self, session: str) -> List[str]:
        """The messages in that session, as the fake's store has them."""
        (path,) = glob.glob(
            os.path.join(self.home, "sessions", "*", "*", "*", f"rollout-*-{session}.jsonl")
        )
        with open(path, encoding="utf-8") as file:
            return [entry["text"] for entry in map(json.loads, file) if entry["type"] == "message"]

    def tools(self) -> List[str]:
        """The names of the server's tools."""
        with Client(self.env) as client:
            client.initialize()
            return [tool["name"] for tool in client.ask("tools/list")["result"]["tools"]]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def framework(request: Any, tmp_path_factory: Any) -> Iterator[Framework]:
    return Framework(request.param, str(tmp_path_factory.mktemp(request.param)))


def test_a_framework_leaves_no_process_behind(framework: Framework) -> None:
    mark = f"\0CODEX_HOME={framework.home}\0".encode()

    def left() -> List[Process]:
        return [process for process in all_processes() if mark in process.environ]

    wait(lambda: not left(), lambda: f"end of {left()}", 10)


def test_a_frameworks_model_is_shown_all_tools(framework: Framework) -> None:
    for fill, told in framework.told.items():
        assert sorted(told["tools"]) == sorted(framework.tools()), (fill, told)


@pytest.mark.parametrize("fill", ["nothing", "null", "empty"])
def test_a_frameworks_model_opens_a_session_and_goes_on_in_it(
    framework: Framework, fill: str
) -> None:
    told = framework.told[fill]
    assert "problem" not in told, told
    seen = told["seen"]
    if (framework.name, fill) in REFUSED:
        assert REFUSED[framework.name, fill] in seen[0] and "Codex" not in seen[0], seen
        return
    assert len(seen) == 2, seen
    found = re.search(UUID, seen[0])
    assert found and framework.calls(found.group()), seen
    session = found.group()
    first, second = framework.messages(session)
    assert first.endswith("\nOne.") and second.endswith("\nTwo.")
    resumed = framework.calls(session)[1]["argv"]
    assert resumed[resumed.index("resume") + 1] == session
    assert "You sent 1 messages before this one." in seen[1] and session in seen[1]


def test_a_frameworks_model_sees_how_to_go_on_before_the_reply(framework: Framework) -> None:
    """So that it is seen, too, where only the first block is shown, or the end is cut off."""
    seen = [text for told in framework.told.values() for text in told["seen"] if "You sent" in text]
    assert seen, framework.told
    for text in seen:
        before = text[: text.index("You sent")]
        assert re.search(UUID, before), text
        # Where the model is shown structuredContent alone, the command for a person may come later.
        assert re.search(f"codex resume {UUID}", before) or text.startswith('{"session_id"'), text
