#!/usr/bin/env python3
"""Installs the MCP clients that the tests of the registration use, into the ignored folder .e2e.

    .e2e/claude-VERSION, gemini-VERSION, opencode-VERSION   clients from npm
    .e2e/run                                                a virtual environment with pipx and uv

Each in one pinned version, since their commands and what they print are what the tests look at.
What is there and starts is left alone. Needs npm, node 20 or newer, and the network the first time.
"""

from __future__ import annotations

import os
import sys

from install import ROOT, provide, venv_python, works

#: The name of the command, the npm package and the version. Claude Code's has to be named: npm
#: takes an old one where node is older than 22, though the new one is a native program and runs.
CLIENTS = {
    "claude": ("@anthropic-ai/claude-code", "2.1.330"),
    "gemini": ("@google/gemini-cli", "0.61.0"),
    "opencode": ("opencode-ai", "1.18.33"),
}
RUNNERS = {"pipx": "1.18.4", "uv": "0.13.9"}


def client_path(name: str) -> str:
    """Where the command of that client is."""
    return os.path.join(ROOT, f"{name}-{CLIENTS[name][1]}", "node_modules", ".bin", name)


def runner_path(name: str) -> str:
    """Where pipx or uv is."""
    return os.path.join(ROOT, "run", "bin", name)


def main() -> None:
    os.makedirs(ROOT, exist_ok=True)
    for name, (package, version) in CLIENTS.items():
        folder = os.path.join(ROOT, f"{name}-{version}")
        provide(
            f"{package} {version}",
            lambda: works([client_path(name), "--version"], version),
            [
                "npm",
                "install",
                "--no-audit",
                "--no-fund",
                "--prefix",
                folder,
                f"{package}@{version}",
            ],
        )
    provide(
        "pipx and uv",
        lambda: all(works([runner_path(n), "--version"], v) for n, v in RUNNERS.items()),
        [sys.executable, "-m", "venv", "--clear", os.path.join(ROOT, "run")],
        [venv_python("run"), "-m", "pip", "install", "--quiet"]
        + [f"{name}=={version}" for name, version in RUNNERS.items()],
    )


if __name__ == "__main__":
    main()
