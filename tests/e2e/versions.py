#!/usr/bin/env python3
"""Runs tests with versions of the Codex CLI, one after the other, and prints a table.

The tests are those of rights and of sessions that are open elsewhere.

    versions.py                                   VERSIONS, each from npm
    versions.py VERSION ...                       those
    versions.py --installed FOLDER [VERSION ...]  from where npm has installed them already: FOLDER
                                                  is the path, with {} for the version

A version from npm goes into .e2e/versions, about 400 MB, and is removed after its tests. Exits with
1 if a test failed with any of them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from typing import Dict, List

from install import OTHER_CODEX, ROOT, codex_in, provide_codex, provide_environment, provide_tmux
from install import venv_python

HERE = os.path.dirname(os.path.abspath(__file__))
#: The first is the one that the original of the program was written for.
VERSIONS = ("0.77.0", "0.125.0", "0.142.5", "0.149.1", "0.154.0", "0.169.0")
RIGHTS, QUEUE = "test_rights.py", "test_queue.py"
#: 0.149.1 is the first whose windows take messages of others.
FILES = {"0.149.1": [QUEUE]}
PASSED, FAILED, MISSING = "ok", "FAILED", "-"


def run(version: str, folder: str) -> Dict[str, str]:
    """Runs the tests with the Codex in `folder`; what came of each, by its name."""
    report = os.path.join(ROOT, f"versions-{version}.xml")
    command = [venv_python("venv"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}"]
    command += [os.path.join(HERE, name) for name in FILES.get(version, [RIGHTS, QUEUE])]
    env = dict(os.environ, **{OTHER_CODEX: f"{version}={codex_in(folder)}"})
    code = subprocess.call(command, env=env, cwd=os.path.dirname(os.path.dirname(HERE)))
    results = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("name", "").replace(f"[{version}-", "[").replace(f"[{version}]", "")
        skipped = case.find("skipped") is not None
        results[name] = MISSING if skipped else FAILED if len(case) else PASSED
    os.remove(report)
    if code and FAILED not in results.values():
        results["pytest"] = FAILED
    return results


def table(results: Dict[str, Dict[str, str]], seconds: Dict[str, float]) -> str:
    """Tests by versions, as Markdown."""
    names: List[str] = []
    for each in results.values():
        names += [name for name in each if name not in names]
    rows = [["test", *results], ["---"] * (len(results) + 1)]
    for name in names:
        rows.append([name, *(each.get(name, MISSING) for each in results.values())])
    rows.append(["seconds", *(f"{seconds[version]:.0f}" for version in results)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION")
    parser.add_argument("--installed", metavar="FOLDER")
    options = parser.parse_args()
    os.makedirs(ROOT, exist_ok=True)
    provide_environment("venv")
    provide_tmux()
    results: Dict[str, Dict[str, str]] = {}
    seconds: Dict[str, float] = {}
    for version in options.versions or VERSIONS:
        folder = os.path.join(ROOT, "versions", version)
        try:
            if options.installed:
                folder = options.installed.format(version)
            else:
                provide_codex(version, folder)
            print(f"\n== Codex {version}", flush=True)
            begin = time.monotonic()
            results[version] = run(version, folder)
            seconds[version] = time.monotonic() - begin
        finally:
            if not options.installed:
                shutil.rmtree(folder, ignore_errors=True)
    print("\n" + table(results, seconds))
    return int(any(FAILED in each.values() for each in results.values()))


if __name__ == "__main__":
    sys.exit(main())
