"""The operator's settings: each variable, its default, and what a bad value does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from typing import Any, Dict, List

import pytest

from client import BOUND, PROGRAM, Client, session_of, text_of
from codex_persistent_mcp import read_settings
from conftest import FAKE, Bench
from tools import CHAT, TOOLS, TURNS

NAMES = [
    "CODEX_BIN",
    "CODEX_MCP_CWD",
    "CODEX_PERSISTENT_MCP_ORIGIN",
    "CODEX_MCP_TIMEOUT_MS",
    "CODEX_MCP_SANDBOX",
    "CODEX_MCP_MAX_PARALLEL",
]


def gated(gate: str) -> str:
    return f"FAKE:session\nFAKE:started\nFAKE:gate {gate}\nFAKE:say done\nFAKE:completed"


def refused(client: Client, arguments: Dict[str, Any] = {"prompt": "x"}, tool: str = CHAT) -> str:
    result = client.call(tool, arguments)
    assert result.get("isError") is True and "structuredContent" not in result, result
    return text_of(result)


def place_codex(folder: str, name: str = "codex") -> str:
    """Puts the fake codex under `name` into `folder` and returns its path."""
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" "$@"\n')
    os.chmod(path, 0o755)
    return path


BAD = [
    ("CODEX_MCP_TIMEOUT_MS", value)
    for value in (
        "0",
        "999",
        "7200001",
        "-1000",
        "+1000",
        "60000.5",
        "6e4",
        "1_000",
        "sixty",
        " 60000",
        "60000\n",
        "\u0661\u0662\u0663\u0664",
        "9" * 40,
    )
]
BAD += [
    ("CODEX_MCP_MAX_PARALLEL", value)
    for value in ("0", "-1", "1.5", "many", " ", "9" * 40, "\u0661")
]
BAD += [
    ("CODEX_MCP_SANDBOX", value)
    for value in ("none", "READ-ONLY", "read-only ", "full", "workspace_write", "-")
]
BAD += [
    ("CODEX_MCP_CWD", value)
    for value in ("/does/not/exist", "relative", ".", "-", "/dev/null", "/tmp\n")
]


@pytest.mark.parametrize("name, value", BAD, ids=lambda value: ascii(value)[:30])
def test_a_bad_value_lets_the_server_start_and_every_call_says_which_variable(
    bench: Bench, name: str, value: str
) -> None:
    client = bench.start(env={name: value})
    assert list(client.tools()) == list(TOOLS)
    for tool in TOOLS:
        assert name in refused(client, TOOLS[tool].required, tool)
    assert bench.calls() == []


def test_all_bad_values_are_named_at_once(bench: Bench) -> None:
    text = refused(bench.start(env={name: "bad" for name in NAMES[3:]}))
    assert all(name in text for name in NAMES[3:])


@pytest.mark.parametrize(
    "text, wrong",
    [
        ("-c 'features.web=false", "no closing quotation"),
        ('--profile "mine', "no closing quotation"),
        ("--profile mine\\", "no escaped character"),
    ],
)
def test_options_with_an_open_quote_are_refused_in_words_that_say_so(text: str, wrong: str) -> None:
    (problem,) = read_settings({"CODEX_MCP_CODEX_ARGS": text}).problems
    assert problem == (
        f"CODEX_MCP_CODEX_ARGS is {text!r}; it takes options quoted as in a shell, but has {wrong}"
    )


def test_an_empty_value_counts_as_not_set(bench: Bench, tmp_path: Any) -> None:
    place_codex(str(tmp_path))
    client = bench.start(
        env=dict({name: "" for name in NAMES}, PATH=f"{tmp_path}:{os.environ['PATH']}"),
        cwd=bench.work,
    )
    session_of(client.chat("x"))
    (call,) = bench.calls()
    assert os.path.realpath(call["argv"][call["argv"].index("-C") + 1]) == os.path.realpath(
        bench.work
    )
    assert "-s" not in call["argv"]
    assert "codex-persistent-mcp" in call["prompt"].split("\n")[0]


def test_the_defaults_are_as_documented() -> None:
    for env in ({}, {name: "" for name in NAMES}):
        settings = read_settings(env)
        assert (settings.codex, settings.cwd, settings.origin) == (
            "codex",
            os.getcwd(),
            "codex-persistent-mcp",
        )
        assert (settings.timeout_ms, settings.sandbox, settings.max_parallel) == (600000, None, 16)
        assert not settings.problems


# CODEX_BIN ----------------------------------------------------------------------------------------


def test_codex_is_looked_up_on_path_at_each_call(bench: Bench, tmp_path: Any) -> None:
    folder = str(tmp_path / "bin")
    os.mkdir(folder)
    client = bench.start(env={"CODEX_BIN": "codex-of-this-test", "PATH": folder + ":/usr/bin:/bin"})
    text = refused(client)
    assert "codex-of-this-test" in text and "CODEX_BIN" in text and "PATH" in text
    path = place_codex(folder, "codex-of-this-test")
    session_of(client.chat("x"))  # installed meanwhile, no restart needed
    os.remove(path)
    assert "CODEX_BIN" in refused(client)


@pytest.mark.parametrize("folder", ["", ".", "bin"])
def test_a_codex_in_the_working_directory_is_not_run(
    bench: Bench, tmp_path: Any, folder: str
) -> None:
    os.mkdir(str(tmp_path / "bin"))
    place_codex(str(tmp_path / folder), "codex-of-this-test")
    env = {"CODEX_BIN": "codex-of-this-test", "PATH": f"{folder}:/usr/bin:/bin"}
    assert "PATH" in refused(bench.start(env=env, cwd=str(tmp_path)))
    assert bench.calls() == []


def test_check_does_not_wait_for_a_child_that_holds_the_output_of_codex(bench: Bench) -> None:
    env = dict(os.environ, **bench.env, FAKE_CODEX_HOLDER="1")
    done = subprocess.run(
        [sys.executable, PROGRAM, "--check"], env=env, stdout=subprocess.PIPE, timeout=BOUND
    )
    assert b"codex-cli 0.169.0" in done.stdout and b"no answer" not in done.stdout
    with open(os.path.join(bench.notes, "grandchildren")) as file:
        for pid in map(int, file):
            os.kill(pid, signal.SIGKILL)


def test_no_codex_at_all_says_how_to_get_one(bench: Bench, tmp_path: Any) -> None:
    text = refused(bench.start(env={"CODEX_BIN": "", "PATH": str(tmp_path)}))
    assert "CODEX_BIN" in text and "npm install -g @openai/codex" in text


@pytest.mark.parametrize("kind", ["missing", "directory", "not executable"])
def test_a_codex_bin_that_cannot_be_run_is_named(bench: Bench, tmp_path: Any, kind: str) -> None:
    path = str(tmp_path / "codex")
    if kind == "directory":
        os.mkdir(path)
    elif kind == "not executable":
        shutil.copy(FAKE, path)
        os.chmod(path, 0o644)
    client = bench.start(env={"CODEX_BIN": path})
    for tool in TURNS:
        text = refused(client, TOOLS[tool].required, tool)
        assert "CODEX_BIN" in text and path in text


def test_a_codex_bin_with_spaces_and_quotes_is_run(bench: Bench, tmp_path: Any) -> None:
    path = place_codex(str(tmp_path), 'my $(codex) "it\'s" [1]')
    session_of(bench.start(env={"CODEX_BIN": path}).chat("x"))


# CODEX_MCP_CWD ------------------------------------------------------------------------------------


def directories(bench: Bench) -> List[str]:
    return [os.path.realpath(call["argv"][call["argv"].index("-C") + 1]) for call in bench.calls()]


def test_a_new_session_starts_where_the_operator_says_or_where_the_server_was_started(
    bench: Bench, tmp_path: Any
) -> None:
    started, other = tmp_path / "started", tmp_path / "other"
    started.mkdir(), other.mkdir()
    session_of(bench.start(env={"CODEX_MCP_CWD": ""}, cwd=str(started)).chat("x"))
    client = bench.start(env={"CODEX_MCP_CWD": str(other)}, cwd=str(started))
    session_of(client.chat("x"))
    session_of(client.chat("x", cwd=bench.work))
    assert directories(bench) == [
        os.path.realpath(str(path)) for path in (started, other, bench.work)
    ]


def test_a_directory_of_the_operator_that_vanishes_is_a_clear_error(
    bench: Bench, tmp_path: Any
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    client = bench.start(env={"CODEX_MCP_CWD": str(folder)})
    session_of(client.chat("x"))
    folder.rmdir()
    assert str(folder) in refused(client)
    assert len(bench.calls()) == 1
    session_of(client.chat("x", cwd=bench.work))


def test_a_server_whose_own_directory_is_gone_still_starts(bench: Bench, tmp_path: Any) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    # The shell stands in the directory, removes it, and becomes the server.
    shell = tmp_path / "start"
    shell.write_text(f'#!/bin/sh\nrmdir "$PWD"\nexec "{sys.executable}" "$@"\n')
    shell.chmod(0o755)
    client = bench.start(env={"CODEX_MCP_CWD": ""}, cwd=str(folder), python=str(shell))
    assert list(client.tools()) == list(TOOLS)
    assert "CODEX_MCP_CWD" in refused(client)


# The others ---------------------------------------------------------------------------------------


def test_the_origin_stands_in_the_attribution(bench: Bench) -> None:
    session_of(bench.start(env={"CODEX_PERSISTENT_MCP_ORIGIN": "build-box"}).chat("x"))
    assert "build-box" in bench.calls()[0]["prompt"].split("\n")[0]


def test_the_default_timeout_ends_a_call_and_a_calls_own_goes_before_it(bench: Bench) -> None:
    client = bench.start(env={"CODEX_MCP_TIMEOUT_MS": "3000"})
    tools = client.tools()
    for name in TURNS:
        assert "3000" in tools[name]["inputSchema"]["properties"]["timeout_ms"]["description"]
    patient = client.start_call(CHAT, {"prompt": gated("patient"), "timeout_ms": 60000})
    bench.reached("patient")
    text = refused(client, {"prompt": gated("never")})
    assert "timeout_ms" in text and "codex resume" in text
    bench.open("patient")
    session_of(client.result(patient))


def test_no_more_codex_run_at_once_than_the_operator_allows(bench: Bench) -> None:
    client = bench.start(env={"CODEX_MCP_MAX_PARALLEL": "2"})
    running = [client.start_call(CHAT, {"prompt": gated(name)}) for name in ("one", "two")]
    bench.reached("one")
    bench.reached("two")
    third = client.start_call(CHAT, {"prompt": gated("three")}, token="third")
    client.wait_for(
        lambda: any("CODEX_MCP_MAX_PARALLEL" in one["message"] for one in client.progress("third")),
        "progress that tells what the third call waits for",
    )
    assert len(bench.calls()) == 2
    bench.open("one")
    session_of(client.result(running[0]))
    bench.reached("three")
    for name in ("two", "three"):
        bench.open(name)
    for id in (running[1], third):
        session_of(client.result(id))


def test_sixteen_codex_run_at_once_by_default(bench: Bench) -> None:
    client = bench.start()
    names = [f"gate{number}" for number in range(16)]
    ids = [client.start_call(CHAT, {"prompt": gated(name)}) for name in names]
    for name in names:
        bench.reached(name)
    last = client.start_call(CHAT, {"prompt": "the last"}, token="last")
    client.wait_for(
        lambda: client.progress("last"), "progress that tells what the last call waits for"
    )
    assert len(bench.calls()) == 16
    for name in names:
        bench.open(name)
    for id in ids + [last]:
        session_of(client.result(id))
