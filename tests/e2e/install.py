#!/usr/bin/env python3
"""Installs what the end-to-end tests need into the ignored folder .e2e of the repository.

    .e2e/codex-VERSION   the Codex CLI from npm, each version that the tests run
    .e2e/mcp-1, mcp-2    virtual environments with the newest MCP Python SDK 1.x and 2.x
    .e2e/venv            the virtual environment that runs the tests

What is there and starts is left alone, so a second run costs a second. tmux is installed if it is
missing and this runs as root on a Debian-like system. Needs Python 3.10 or newer (the SDKs do), npm
and node.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Callable, List, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(os.path.dirname(os.path.dirname(HERE)), ".e2e")
CODEX_VERSIONS = ("0.77.0", "0.169.0")
#: The environment variable with another Codex to test, "VERSION=EXECUTABLE": see versions.py.
OTHER_CODEX = "E2E_CODEX"
ENVIRONMENTS = {
    "mcp-1": ["mcp>=1,<2"],
    "mcp-2": ["mcp>=2,<3"],
    "venv": ["pytest>=7", "pytest-timeout>=2"],
}
#: Seconds that one download may take; Codex is about 400 MB.
BOUND = 900


def codex_in(folder: str) -> str:
    """Where the Codex CLI is that npm has installed in `folder`."""
    return os.path.join(folder, "node_modules", ".bin", "codex")


def tested_versions() -> Tuple[str, ...]:
    """The versions of Codex that the tests run, the newest last."""
    other = os.environ.get(OTHER_CODEX)
    return (other.partition("=")[0],) if other else CODEX_VERSIONS


def codex_path(version: str) -> str:
    """Where the Codex CLI of that version is."""
    other, _, executable = os.environ.get(OTHER_CODEX, "").partition("=")
    return executable if other == version else codex_in(os.path.join(ROOT, "codex-" + version))


def venv_python(name: str) -> str:
    """The interpreter of that virtual environment."""
    return os.path.join(ROOT, name, "bin", "python")


def works(command: List[str], expected: str = "") -> bool:
    """Whether the command can be run and prints what is expected."""
    try:
        run = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0 and expected in run.stdout.decode("utf-8", "replace")


def must(command: List[str], why: str) -> None:
    """Runs the command, again if it fails, and leaves with a clear text if it fails twice."""
    for attempt in (1, 2):
        print(f"install: {' '.join(command)}", flush=True)
        try:
            code = subprocess.call(command, stdin=subprocess.DEVNULL, timeout=BOUND)
        except FileNotFoundError:
            sys.exit(f"install: {command[0]} is missing; the end-to-end tests need it to {why}")
        except subprocess.TimeoutExpired:
            code = -1
        if code == 0:
            return
        print(
            f"install: that failed ({code if code >= 0 else 'too slow'}), attempt {attempt} of 2",
            flush=True,
        )
    sys.exit(
        f"install: could not {why}: `{' '.join(command)}` failed twice; its output above says why"
    )


def provide(what: str, good: Callable[[], bool], *steps: List[str]) -> None:
    """Takes the steps unless all is well already, and checks that it is well then."""
    if good():
        print(f"install: {what} is there")
        return
    for step in steps:
        must(step, "install " + what)
    if not good():
        sys.exit(f"install: {what} was installed but does not work")


def provide_codex(version: str, folder: str) -> None:
    """Installs that version of the Codex CLI from npm into `folder`."""
    npm = ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder]
    provide(
        "Codex " + version,
        lambda: works([codex_in(folder), "--version"], version),
        npm + ["@openai/codex@" + version],
    )


def provide_environment(name: str) -> None:
    """Makes one of the virtual environments."""
    python = venv_python(name)
    module = "mcp" if name.startswith("mcp") else "pytest, pytest_timeout"
    provide(
        name,
        lambda: works([python, "-c", "import " + module]),
        [sys.executable, "-m", "venv", "--clear", os.path.join(ROOT, name)],
        [python, "-m", "pip", "install", "--quiet"] + ENVIRONMENTS[name],
    )


def provide_tmux() -> None:
    """Installs tmux, if it is missing and that can be done here."""
    if shutil.which("tmux"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        sys.exit("install: tmux is missing; install it, the tests look at `codex resume` in it")
    provide(
        "tmux",
        lambda: shutil.which("tmux") is not None,
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "tmux"],
    )


def main() -> None:
    if sys.version_info < (3, 10):
        sys.exit(
            f"install: the MCP SDKs need Python 3.10 or newer, "
            f"this is {sys.version.split()[0]}; run it as "
            "`python3.X tests/e2e/install.py`"
        )
    os.makedirs(ROOT, exist_ok=True)
    for version in CODEX_VERSIONS:
        provide_codex(version, os.path.join(ROOT, "codex-" + version))
    for name in ENVIRONMENTS:
        provide_environment(name)
    provide_tmux()


if __name__ == "__main__":
    main()
