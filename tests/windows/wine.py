"""Where things are in .windows, and how programs are run there."""

from __future__ import annotations

import os
from typing import Dict, List

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDER = os.path.join(ROOT, ".windows")
PYTHON = os.path.join(FOLDER, "python", "python.exe")
#: Folders with codex.exe and with npm's codex.cmd, whose node.exe is in bin; a program to plant.
BIN, SHIM = os.path.join(FOLDER, "exe"), os.path.join(FOLDER, "shim")
PLANTED = os.path.join(FOLDER, "planted.exe")
#: Exit codes of a server that leaves: Wine 8 seldom crashes while it ends a process's last threads.
LEFT = (0, -11)


def windows_path(path: str) -> str:
    """A path as Wine's programs know it."""
    return "Z:" + path.replace("/", "\\")


def environment() -> Dict[str, str]:
    """What Wine needs. Without a display it opens no windows."""
    env = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    env.update(
        WINEPREFIX=os.path.join(FOLDER, "prefix"),
        WINEDEBUG="-all",
        WINEDLLOVERRIDES="mscoree,mshtml=",
    )
    return env


def alive(token: str) -> List[int]:
    """The processes with `token` in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if token.encode() in file.read() and int(pid) != os.getpid():
                    found.append(int(pid))
        except OSError:
            pass
    return found
