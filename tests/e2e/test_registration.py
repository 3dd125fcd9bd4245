"""From the file to the first answer: `--check`, `--print-config`, a gist, and real clients.

The program is a copy in a folder with an unpleasant name, and Codex a link beside it, found through
PATH. Each test has a home of its own. Needs what install.py and install_clients.py install.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from client import BOUND, PROGRAM, Client, session_of
from install_clients import client_path, runner_path
from loopback_claude import LoopbackClaude
from real import Real, Terminal, wait
from tools import CHAT, TOOLS

#: What a shell, TOML or JSON could stumble over.
ODD = "a b'c\"d\\e \u00e9\U0001f600 $HOME;&"
FILE = "codex_persistent_mcp.py"
LIST = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n'
KEY = "sk-dummy-0123456789abcdef0123456789"


class Setup:
    """A user: a home, a copy of the program in an odd folder, a Codex on PATH, an environment."""

    def __init__(self, real: Real, folder: str = ODD) -> None:
        self.real = real
        self.user, self.folder = os.path.join(real.root, "user"), os.path.join(real.root, folder)
        self.program = os.path.join(self.folder, FILE)
        self.codex = os.path.join(self.folder, "codex")
        os.mkdir(self.user)
        os.mkdir(self.folder)
        shutil.copy(PROGRAM, self.program)
        os.symlink(real.codex, self.codex)
        node = os.path.dirname(shutil.which("node") or "")
        # No pyenv or the like: their shims would make Python's path depend on the directory.
        self.env = {
            "PATH": os.pathsep.join([self.folder, node, "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": self.user,
            "LANG": "C.UTF-8",
            "CODEX_HOME": real.home,
            "TERM": "xterm-256color",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
            "UV_PYTHON_DOWNLOADS": "never",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        }
        for name in (
            "PIP_CONFIG_FILE",
            "PIP_INDEX_URL",
            "UV_INDEX_URL",
            "UV_DEFAULT_INDEX",
            "SSL_CERT_FILE",
        ):
            if name in os.environ:  # how this machine reaches PyPI
                self.env[name] = os.environ[name]

    def run(self, command: List[str], env: Dict[str, str] = {}, **options: Any) -> Any:
        """Runs a command in the working directory; output as text."""
        options = dict({"stdin": subprocess.DEVNULL} if "input" not in options else {}, **options)
        return subprocess.run(
            command,
            env=dict(self.env, **env),
            cwd=self.real.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            timeout=2 * BOUND,
            **options,
        )

    def must(self, command: List[str], env: Dict[str, str] = {}, **options: Any) -> str:
        """The standard output of a command that has to succeed."""
        run = self.run(command, env, **options)
        assert run.returncode == 0, (command, run)
        return run.stdout

    def ours(self, *arguments: str, env: Dict[str, str] = {}) -> subprocess.CompletedProcess:
        """Runs the program itself."""
        return self.run([sys.executable, self.program] + list(arguments), env)

    def printed(self, kind: str, env: Dict[str, str] = {}) -> str:
        """What `--print-config` prints to be pasted."""
        run = self.ours("--print-config", kind, env=env)
        assert run.returncode == 0, run
        return run.stdout

    def log_in(self) -> None:
        """Gives Codex an API key, which it doesn't check."""
        self.must([self.codex, "login", "--with-api-key"], input=KEY + "\n")

    def codex_entry(self) -> Dict[str, Any]:
        """The one MCP server that Codex knows."""
        entries = json.loads(self.must([self.codex, "mcp", "list", "--json"]))
        assert len(entries) == 1, entries
        return entries[0]

    def is_right(self, command: str, arguments: List[str], env: Dict[str, str]) -> None:
        """Checks a registration: this file, the Codex found, and a call with what it says alone."""
        assert os.path.isabs(command) and arguments == [self.program]
        assert os.path.isabs(env["CODEX_BIN"]) and os.path.samefile(
            env["CODEX_BIN"], self.real.codex
        )
        before = len(self.real.model.requests)
        bare = {name: self.env[name] for name in ("HOME", "LANG")}
        bare["PATH"] = os.pathsep.join(self.env["PATH"].split(os.pathsep)[1:])
        client = Client(
            python="/usr/bin/env",
            program="-i",
            cwd=self.real.work,
            arguments=[f"{name}={value}" for name, value in dict(bare, **env).items()]
            + [command]
            + arguments,
        )
        self.real.clients.append(client)
        client.initialize()
        session_of(client.chat("Hello."))
        assert len(self.real.model.requests) == before + 1
        client.close()


@pytest.fixture
def setup(newest: Real) -> Setup:
    return Setup(newest)


@pytest.fixture
def each(real: Real) -> Setup:
    """The same with each version of Codex."""
    return Setup(real)


# --- version, help, usage -------------------------------------------------------------------------


def test_the_version_is_the_one_that_clients_are_told(setup: Setup) -> None:
    run = setup.ours("--version")
    told = setup.real.start().ask(
        "initialize",
        {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        },
    )
    version = told["result"]["serverInfo"]["version"]
    assert (
        run.returncode == 0 and version in run.stdout.split() and len(run.stdout.splitlines()) == 1
    ), run


def test_help_names_every_option(setup: Setup) -> None:
    run = setup.ours("--help")
    assert run.returncode == 0, run
    assert [
        o for o in ("--check", "--print-config", "--version", "--help") if o not in run.stdout
    ] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["serve"],
        [""],
        ["--print-config"],
        ["--print-config", "vim"],
        ["--check", "more"],
        ["--check", "--print-config", "json"],
    ],
    ids=" ".join,
)
def test_an_argument_it_does_not_know_gets_the_usage(setup: Setup, arguments: List[str]) -> None:
    run = setup.ours(*arguments)
    assert (run.returncode, run.stdout) == (2, ""), run
    assert "usage" in run.stderr.lower() and "--print-config" in run.stderr


# --- --check --------------------------------------------------------------------------------------


def test_check_says_that_a_good_setup_is_good_and_sends_no_prompt(each: Setup) -> None:
    each.log_in()
    run = each.ours(
        "--check", env={"CODEX_MCP_SANDBOX": "read-only", "CODEX_MCP_TIMEOUT_MS": "123456"}
    )
    assert run.returncode == 0, run
    for shown in (
        sys.version.split()[0],
        each.codex,
        each.real.version,
        each.real.home,
        each.real.work,
        "CODEX_HOME",
        "CODEX_MCP_SANDBOX",
        "read-only",
        "CODEX_MCP_TIMEOUT_MS",
        "123456",
        "CODEX_MCP_MAX_PARALLEL",
        "16",
        "CODEX_PERSISTENT_MCP_ORIGIN",
        "CODEX_MCP_CWD",
    ):
        assert shown in run.stdout, shown
    assert KEY[:8] not in run.stdout + run.stderr, "a part of the key is shown"
    assert each.real.model.requests == [] and each.real.rollouts() == []


def test_check_asks_for_no_login_where_the_provider_needs_none(each: Setup) -> None:
    run = each.ours("--check")
    assert run.returncode == 0, run


def test_check_asks_for_a_login_where_there_is_none(each: Setup) -> None:
    with open(os.path.join(each.real.home, "config.toml"), "w"):
        pass
    run = each.ours("--check")
    assert run.returncode == 1 and "codex login" in run.stdout + run.stderr, run


def test_check_takes_a_key_in_the_environment_for_a_login(each: Setup) -> None:
    with open(os.path.join(each.real.home, "config.toml"), "w"):
        pass
    # `codex exec` takes it, though `codex login status` says that nobody is logged in.
    run = each.ours("--check", env={"CODEX_API_KEY": KEY})
    assert run.returncode == 0 and KEY[:8] not in run.stdout + run.stderr, run


BAD: List[Tuple[str, Dict[str, str], List[str]]] = [
    ("no codex on PATH", {"PATH": "/usr/bin:/bin"}, ["codex", "CODEX_BIN"]),
    ("no codex there", {"CODEX_BIN": "/no/such/codex"}, ["/no/such/codex", "CODEX_BIN"]),
    ("codex is a folder", {"CODEX_BIN": "/usr"}, ["/usr", "CODEX_BIN"]),
    ("codex can not be run", {"CODEX_BIN": "/etc/passwd"}, ["/etc/passwd", "CODEX_BIN"]),
    ("codex is something else", {"CODEX_BIN": "/bin/false"}, ["/bin/false"]),
    ("home is a file", {"CODEX_HOME": "/etc/passwd"}, ["/etc/passwd", "Codex home", "CODEX_HOME"]),
    (
        "home is below a file",
        {"CODEX_HOME": "/etc/passwd/sub"},
        ["/etc/passwd/sub", "Codex home", "CODEX_HOME"],
    ),
    (
        "no directory",
        {"CODEX_MCP_CWD": "/no/place"},
        ["CODEX_MCP_CWD", "/no/place", "existing directory"],
    ),
    ("a relative directory", {"CODEX_MCP_CWD": "place"}, ["CODEX_MCP_CWD", "absolute"]),
    (
        "no number",
        {"CODEX_MCP_TIMEOUT_MS": "soon"},
        ["CODEX_MCP_TIMEOUT_MS", "soon", "1000", "7200000"],
    ),
    ("too many", {"CODEX_MCP_MAX_PARALLEL": "0"}, ["CODEX_MCP_MAX_PARALLEL", "1"]),
    (
        "no sandbox",
        {"CODEX_MCP_SANDBOX": "sand"},
        ["CODEX_MCP_SANDBOX", "read-only", "workspace-write"],
    ),
]


@pytest.mark.parametrize("env, said", [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_check_says_what_is_wrong_and_what_to_do(
    setup: Setup, env: Dict[str, str], said: List[str]
) -> None:
    setup.log_in()
    run = setup.ours("--check", env=env)
    assert run.returncode == 1, run
    failing = [line for line in run.stdout.splitlines() if line.startswith("FAIL")]
    assert any(all(word in line for word in said) for line in failing), run
    assert "Traceback" not in run.stderr and setup.real.model.requests == []


def test_check_comes_back_from_a_codex_that_hangs_and_leaves_nothing_of_it(setup: Setup) -> None:
    hanging = os.path.join(setup.folder, "hanging")
    with open(hanging, "w") as file:
        file.write("#!/bin/sh\nsleep 300\n")  # as a child, which Codex's shim has too
    os.chmod(hanging, 0o755)
    run = setup.ours("--check", env={"CODEX_BIN": hanging})
    assert run.returncode == 1 and hanging in run.stdout, run
    wait(lambda: not setup.real.processes(), lambda: f"end of {setup.real.processes()!r}", 10)


# --- --print-config: Claude Code ------------------------------------------------------------------


def claude(setup: Setup, *arguments: str, **options: Any) -> str:
    return setup.must([client_path("claude")] + list(arguments), **options)


def paste(setup: Setup, shell: str, text: str) -> str:
    """Runs a text in a shell that finds Claude Code and Codex."""
    path = os.path.dirname(client_path("claude")) + os.pathsep + setup.env["PATH"]
    return setup.must([shell, "-c", text], {"PATH": path})


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_command_for_claude_code_registers_a_server_that_connects(
    setup: Setup, shell: str
) -> None:
    paste(setup, shell, setup.printed("claude", {"CODEX_MCP_SANDBOX": "read-only"}))
    with open(os.path.join(setup.user, ".claude.json"), encoding="utf-8") as file:
        ((name, entry),) = json.load(file)["mcpServers"].items()
    setup.is_right(entry["command"], entry["args"], entry["env"])
    assert entry["env"]["CODEX_MCP_SANDBOX"] == "read-only", (
        "a setting that was on at the time is kept"
    )
    line = f"{name}: {entry['command']} {setup.program} - \u2714 Connected"
    assert line in claude(setup, "mcp", "list").splitlines()
    assert "Status: \u2714 Connected" in claude(setup, "mcp", "get", name)


def test_the_block_for_any_client_works_in_claude_codes_project_file(setup: Setup) -> None:
    block = setup.printed("json")
    ((name, entry),) = json.loads(block)["mcpServers"].items()
    setup.is_right(entry["command"], entry["args"], entry["env"])
    relative = os.path.relpath(setup.codex, setup.real.work)
    assert json.loads(setup.printed("json", {"CODEX_BIN": relative})) == json.loads(block)
    with open(os.path.join(setup.real.work, ".mcp.json"), "w", encoding="utf-8") as file:
        file.write(block)
    assert "Pending approval" in claude(setup, "mcp", "list")
    os.makedirs(os.path.join(setup.user, ".claude"), exist_ok=True)
    with open(os.path.join(setup.user, ".claude", "settings.json"), "w") as file:
        json.dump({"enabledMcpjsonServers": [name]}, file)
    assert f"{setup.program} - \u2714 Connected" in claude(setup, "mcp", "list")


def claude_name(setup: Setup) -> str:
    """The name under which Claude Code knows the server."""
    with open(os.path.join(setup.user, ".claude.json"), encoding="utf-8") as file:
        return next(iter(json.load(file)["mcpServers"]))


NAMED = json.dumps({"prompt": "My cat is called Pomponius.\nMODEL:SAY A fine name."})
FIRST = f"CLAUDE:CALL {CHAT} {NAMED}"
AGAIN = f'CLAUDE:CALL {CHAT} {{"prompt": "What is it called?", "session_id": "SESSION"}}'


def test_claude_code_opens_a_session_and_continues_it(setup: Setup) -> None:
    paste(setup, "bash", setup.printed("claude"))
    with LoopbackClaude() as model:
        out = claude(
            setup,
            "-p",
            FIRST + "\n" + AGAIN,
            "--allowedTools",
            "mcp__" + claude_name(setup),
            env={"ANTHROPIC_BASE_URL": model.url, "ANTHROPIC_API_KEY": KEY},
        )
    first, second = [json.loads(result) for result in model.results]
    assert (first["reply"], first["session_id"]) == ("A fine name.", second["session_id"])
    assert 'message 2 of the conversation; before it I said ["A fine name."]' in second["reply"]
    assert second["resume_command"] == setup.real.resume(first["session_id"])
    assert first["session_id"] in out
    assert "Pomponius" in setup.real.heard() and "claude-code" in setup.real.heard().lower()


class ClaudeWindow(Terminal):
    """Claude Code in a tmux window, past its questions for newcomers."""

    def __init__(self, setup: Setup, url: str) -> None:
        path = os.path.join(setup.user, ".claude.json")
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        state.update(
            hasCompletedOnboarding=True,
            theme="dark",
            customApiKeyResponses={"approved": [KEY[-20:]]},
        )
        state["projects"] = {setup.real.work: {"hasTrustDialogAccepted": True}}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(state, file)
        env = dict(setup.env, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY=KEY)
        command = ["env", "-i"] + [f"{name}={value}" for name, value in env.items()]
        command += [client_path("claude"), "--allowedTools", "mcp__" + claude_name(setup)]
        self._socket = os.path.join(setup.real.root, "tmux-claude")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("TMUX")
        }
        # One text for the shell: tmux would split an argument that ends in a semicolon.
        subprocess.run(
            [
                "tmux",
                "-S",
                self._socket,
                "-f",
                "/dev/null",
                "new-session",
                "-d",
                "-x",
                "120",
                "-y",
                "40",
                "-c",
                setup.real.work,
                " ".join(map(shlex.quote, command)),
            ],
            check=True,
            timeout=BOUND,
            env=dict(environment, TERM="xterm-256color"),
        )


def test_claude_code_shows_what_codex_is_doing(setup: Setup) -> None:
    paste(setup, "bash", setup.printed("claude"))
    prompt = "MODEL:RUN while [ ! -e open ]; do sleep 0.1; done"
    order = f"CLAUDE:CALL {CHAT} " + json.dumps({"prompt": prompt})
    with LoopbackClaude() as model, ClaudeWindow(setup, model.url) as window:
        window.wait_for("\u276f")
        window.type("-l", order)
        window.wait_for("sleep 0.1; done")
        window.type("Enter")
        wait(
            lambda: re.search(r"Calling .*\n.*\u23bf .*while \[ ! -e open \]", window.screen()),
            lambda: "command of Codex below the call:\n" + window.screen(),
        )
        with open(os.path.join(setup.real.work, "open"), "w"):
            pass
        window.wait_for("The tools answered")
    assert json.loads(model.results[0])["reply"]


# --- --print-config: Codex ------------------------------------------------------------------------


def append(setup: Setup, text: str) -> None:
    """Puts a text at the end of Codex's config.toml, whose last line has no newline."""
    path = os.path.join(setup.real.home, "config.toml")
    with open(path, encoding="utf-8") as file:
        before = file.read().rstrip("\n")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + text)


def test_the_block_for_codex_is_taken_as_it_is_printed(each: Setup) -> None:
    append(each, each.printed("codex", {"CODEX_MCP_SANDBOX": "workspace-write"}))
    entry = each.codex_entry()
    started = entry["transport"]
    each.is_right(started["command"], started["args"], started["env"])
    # Codex starts its servers without these.
    assert started["env"]["CODEX_HOME"] == each.real.home
    assert started["env"]["CODEX_MCP_SANDBOX"] == "workspace-write"
    assert entry["enabled"] is True and entry["tool_timeout_sec"] >= 7200
    assert entry["name"] in each.must([each.codex, "mcp", "list"])
    shown = each.must([each.codex, "mcp", "get", entry["name"]])
    assert each.real.old or "default_tools_approval_mode: approve" in shown


def test_the_block_for_codex_is_taken_where_there_is_nothing_to_set(each: Setup) -> None:
    run = each.ours("--print-config", "codex", env={"PATH": "/usr/bin:/bin", "CODEX_HOME": ""})
    assert run.returncode == 0 and "CODEX_BIN" in run.stderr, run
    append(each, run.stdout)
    assert each.codex_entry()["transport"]["env"] in (None, {})


def test_the_block_for_codex_survives_codexs_own_changes_and_can_be_taken_out(each: Setup) -> None:
    before = each.must([each.codex, "mcp", "list"])
    append(each, each.printed("codex"))
    entry = each.codex_entry()
    each.must([each.codex, "mcp", "add", "other", "--env", "A=B", "--", "/bin/true"])
    each.must([each.codex, "mcp", "remove", "other"])
    assert each.codex_entry() == entry
    each.must([each.codex, "mcp", "remove", entry["name"]])
    assert each.must([each.codex, "mcp", "list"]) == before
    append(each, each.printed("codex"))
    assert each.codex_entry() == entry


def test_codexs_own_command_registers_it_too(each: Setup) -> None:
    each.must(
        [
            each.codex,
            "mcp",
            "add",
            "codex-persistent",
            "--env",
            "CODEX_BIN=" + each.codex,
            "--env",
            "CODEX_HOME=" + each.real.home,
            "--",
            sys.executable,
            each.program,
        ]
    )
    started = each.codex_entry()["transport"]
    each.is_right(started["command"], started["args"], started["env"])


def test_codex_as_an_agent_calls_it_with_the_printed_block_alone(each: Setup) -> None:
    append(each, each.printed("codex"))
    order = f"MODEL:CALL {CHAT} " + json.dumps({"prompt": "Inner.\nMODEL:SAY From within."})
    each.must([each.codex, "exec", "--skip-git-repo-check", "--json", "-"], input=order)
    outputs = each.real.outputs()
    assert len(outputs) == 1 and "From within." in outputs[0], outputs
    assert len(each.real.rollouts()) == 2, "the call's session is in the same Codex home"


# --- Gemini CLI, opencode -------------------------------------------------------------------------


def test_gemini_cli_takes_the_command_of_the_readme_and_the_block_for_any_client(
    newest: Real,
) -> None:
    setup = Setup(newest, "a b'c\"d \u00e9")  # it reads a $NAME in its settings as a variable
    gemini = client_path("gemini")
    setup.must(
        [
            gemini,
            "mcp",
            "add",
            "-s",
            "user",
            "-e",
            "CODEX_BIN=" + setup.codex,
            "--timeout",
            "7200000",
            "codex-by-command",
            sys.executable,
            setup.program,
        ]
    )
    os.mkdir(os.path.join(setup.real.work, ".gemini"))
    with open(
        os.path.join(setup.real.work, ".gemini", "settings.json"), "w", encoding="utf-8"
    ) as file:
        file.write(setup.printed("json"))
    run = setup.run([gemini, "mcp", "list"])
    shown = run.stdout + run.stderr
    assert run.returncode == 0 and shown.count(f"{setup.program} (stdio) - Connected") == 2, run


def test_opencode_takes_the_command_and_the_block_of_the_readme(setup: Setup) -> None:
    opencode = client_path("opencode")
    setup.must(
        [
            opencode,
            "mcp",
            "add",
            "by-command",
            "--env",
            "CODEX_BIN=" + setup.codex,
            "--",
            sys.executable,
            setup.program,
        ]
    )
    block = {
        "$schema": "https://opencode.ai/config.json",
        "mcp": {
            "by-block": {
                "type": "local",
                "command": [sys.executable, setup.program],
                "environment": {"CODEX_BIN": setup.codex},
                "timeout": 7200000,
                "enabled": True,
            }
        },
    }
    with open(os.path.join(setup.real.work, "opencode.json"), "w", encoding="utf-8") as file:
        json.dump(block, file)
    run = setup.run([opencode, "mcp", "list"])
    shown = re.sub("\x1b\\[[0-9;]*m", "", run.stdout + run.stderr)
    assert sorted(re.findall(r"\u2713 (by-\w+) connected", shown)) == ["by-block", "by-command"], (
        run
    )


# --- from a gist ----------------------------------------------------------------------------------


@pytest.fixture
def gist() -> Iterator[str]:
    """The address of the file on a web server of this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=os.path.dirname(PROGRAM))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/{FILE}"
        server.shutdown()


def from_gist(runner: str, url: str) -> List[str]:
    return [runner_path(runner), "run", url]


@pytest.mark.parametrize("runner", ["pipx", "uv"])
def test_a_gist_is_served_with_nothing_else_on_standard_output(
    setup: Setup, gist: str, runner: str
) -> None:
    run = setup.run(from_gist(runner, gist), input=LIST.decode())
    (answer,) = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0 and sorted(
        tool["name"] for tool in answer["result"]["tools"]
    ) == sorted(TOOLS), run


@pytest.mark.parametrize("runner", ["pipx", "uv"])
def test_a_gist_holds_a_conversation_and_leaves_with_its_client(
    setup: Setup, gist: str, runner: str
) -> None:
    command = from_gist(runner, gist)
    client = setup.real.start(
        env=setup.env,
        python=command[0],
        program=command[1],
        arguments=command[2:],
        cwd=setup.real.work,
    )
    session = session_of(client.chat("One.\nMODEL:SAY A"))
    assert session_of(client.chat("Two.", session_id=session)) == session
    assert client.close() == 0
    wait(lambda: not setup.real.processes(), lambda: f"end of {setup.real.processes()!r}", 10)


@pytest.mark.parametrize("runner", ["pipx", "uv"])
def test_a_gist_takes_arguments_and_gives_exit_codes(setup: Setup, gist: str, runner: str) -> None:
    setup.log_in()
    assert setup.must(from_gist(runner, gist) + ["--version"]) == setup.ours("--version").stdout
    assert setup.real.version in setup.must(from_gist(runner, gist) + ["--check"])
    assert (
        setup.run(from_gist(runner, gist) + ["--check"], {"CODEX_BIN": "/no/such/codex"}).returncode
        == 1
    )
    assert setup.run(from_gist(runner, gist) + ["--nonsense"]).returncode == 2


@pytest.mark.parametrize("runner", ["pipx", "uv"])
@pytest.mark.parametrize("kind", ["claude", "codex", "json"])
def test_a_gist_prints_no_registration_of_itself(
    setup: Setup, gist: str, runner: str, kind: str
) -> None:
    run = setup.run(from_gist(runner, gist) + ["--print-config", kind])
    assert (run.returncode, run.stdout) == (1, "") and "Traceback" not in run.stderr, run
    assert "save" in run.stderr.lower() or "copy" in run.stderr.lower(), run


@pytest.mark.parametrize("runner", ["pipx", "uv"])
def test_a_gist_imports_nothing_from_the_users_directory(
    setup: Setup, gist: str, runner: str
) -> None:
    """pipx runs the text with `python -c`, which looks for modules in the current folder first."""
    for module in (
        "json",
        "threading",
        "subprocess",
        "shlex",
        "signal",
        "uuid",
        "fcntl",
        "shutil",
        "socket",
    ):
        with open(os.path.join(setup.real.work, module + ".py"), "w") as file:
            file.write(
                "open('ran', 'w').close()\nraise SystemExit('this is the repository, not Python')\n"
            )
    setup.must(from_gist(runner, gist) + ["--version"])
    assert not os.path.exists(os.path.join(setup.real.work, "ran"))


def test_the_file_is_small_enough_for_pipx_to_run_it_from_an_address() -> None:
    # It becomes one argument of python -c, and Linux takes no argument of 131,072 bytes or more.
    assert os.path.getsize(PROGRAM) < 131072
