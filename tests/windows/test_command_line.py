"""The command line under Wine."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any, Tuple

import pytest

from client import BOUND, PROGRAM
from wine import PYTHON, windows_path


def run(bench: Any, *arguments: str, **env: str) -> Tuple[int, str, str]:
    """What the program answers. Wine's processes share Unix pipes: their end may not come."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*bench.command, *arguments],
        env=dict(os.environ, **{**bench.env, **env}),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    process.stdin.close()
    code = process.wait(2 * BOUND)
    for stream in (process.stdout, process.stderr):
        os.set_blocking(stream.fileno(), False)
    out, errors = (
        (stream.read() or b"").decode("utf-8") for stream in (process.stdout, process.stderr)
    )
    return code, out, errors


def test_check_says_what_is_used_in_utf_8(bench: Any, codex: str) -> None:
    folder = os.path.join(bench.work, "Jürgen 日本")
    os.mkdir(folder)
    code, out, _ = run(bench, "--check", CODEX_MCP_CWD=windows_path(folder))
    lines = out.splitlines()
    assert code == 0, out
    assert any(codex in line and "codex-cli 0.169.0" in line for line in lines)
    assert any("Logged in" in line for line in lines)
    assert any("sandboxed commands" in line and "can run here" in line for line in lines)
    assert windows_path(folder) in out


def test_check_does_not_wait_for_a_child_that_holds_the_output_of_codex(bench: Any) -> None:
    code, out, _ = run(bench, "--check", FAKE_CODEX_HOLDER="1")
    assert code == 0 and "no answer" not in out, out


def test_the_json_entry_is_what_starts_this_file(bench: Any, codex: str) -> None:
    code, out, _ = run(bench, "--print-config", "json", CODEX_MCP_CWD=windows_path(bench.work))
    entry = json.loads(out)["mcpServers"]["codex-persistent-mcp"]
    assert code == 0 and entry["command"] == windows_path(PYTHON)
    assert entry["args"] == [windows_path(PROGRAM)] and entry["env"]["CODEX_BIN"] == codex


def test_the_codex_entry_is_toml(bench: Any, codex: str) -> None:
    code, out, _ = run(bench, "--print-config", "codex")
    assert code == 0 and f"command = {json.dumps(windows_path(PYTHON))}" in out
    assert f"CODEX_BIN = {json.dumps(codex)}" in out


@pytest.mark.parametrize("name", ["plain", "with space", "a & b (c)", "O'Brien; x,y", "end \\"])
def test_cmd_takes_the_command_for_claude(bench: Any, name: str) -> None:
    """As cmd.exe reads it; what PowerShell would read otherwise is quoted, too."""
    value = windows_path(bench.work) + "\\" + name
    code, out, errors = run(bench, "--print-config", "claude", CODEX_PERSISTENT_MCP_ORIGIN=value)
    assert code == 0 and errors.count("Note") == 0, errors
    command = out.strip()
    assert command.startswith("claude mcp add --scope user ")
    # A program that prints its arguments in claude's place.
    show = os.path.join(bench.work, "show.py")
    with open(show, "w") as file:
        file.write("import sys, json; print(json.dumps(sys.argv[1:]))")
    script = os.path.join(bench.work, "run.cmd")
    line = command.replace("claude", f"{windows_path(PYTHON)} {windows_path(show)}", 1)
    with open(script, "w", encoding="utf-8", newline="\r\n") as file:
        file.write(f"@echo off\nchcp 65001 >NUL\n{line}\n")
    shown = subprocess.run(
        ["wine", "cmd", "/c", windows_path(script)],
        env=dict(os.environ, **bench.env),
        input=b"",
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=BOUND,
    ).stdout.decode()
    words = json.loads(shown)
    assert words[words.index("--") + 1 :] == [windows_path(PYTHON), windows_path(PROGRAM)]
    assert f"CODEX_PERSISTENT_MCP_ORIGIN={value}" in words


@pytest.mark.parametrize("value", ["a$b", "100%", 'say "hi"', "a`b"])
def test_what_the_shells_read_differently_is_noted(bench: Any, value: str) -> None:
    code, out, errors = run(bench, "--print-config", "claude", CODEX_PERSISTENT_MCP_ORIGIN=value)
    assert code == 0 and value in errors and "Note" in errors
