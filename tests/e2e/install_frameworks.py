#!/usr/bin/env python3
"""Installs the agent frameworks and grammar engines of the tests into the ignored folder .e2e.

    .e2e/framework-NAME   a virtual environment, or for the AI SDK a folder of npm
    .e2e/uv-cache         what uv has downloaded; the environments are made of links to it

Each in one pinned version, and what it needs as it was on one day. What is there as this file says
is left alone. Needs uv, which install_clients.py installs, and the network the first time.
"""

from __future__ import annotations

import os
import sys
from typing import List, NamedTuple, Tuple

from install import ROOT, provide, venv_python
from install_clients import runner_path

#: No package newer than this is taken.
DAY = "2026-11-20"


class Environment(NamedTuple):
    """What is installed into an environment, and the module that shows that it works.

    `without` are packages that are required but not needed here; `alone` are installed without what
    they require.
    """

    module: str
    packages: Tuple[str, ...]
    without: Tuple[str, ...] = ()
    alone: Tuple[str, ...] = ()


ENVIRONMENTS = {
    "openai-agents": Environment("agents.mcp", ("openai-agents==0.24.0",)),
    "pydantic-ai": Environment("pydantic_ai.mcp", ("pydantic-ai-slim[mcp,openai,google]==2.68.0",)),
    # As it would be installed it has 913 MB.
    "crewai": Environment(
        "crewai_tools",
        ("crewai-tools[mcp]==1.15.30", "aiohttp", "jinja2"),
        without=(
            "cel-python",
            "crewai-cli",
            "google-re2",
            "huggingface-hub",
            "instructor",
            "kubernetes",
            "lance-namespace",
            "lancedb",
            "onnxruntime",
            "openpyxl",
            "pdfplumber",
            "pyarrow",
            "pymupdf",
            "python-docx",
            "pytube",
            "textual",
            "tiktoken",
            "tokenizers",
            "uvloop",
            "youtube-transcript-api",
        ),
    ),
    "langchain": Environment(
        "langchain_mcp_adapters.client, langchain.agents",
        ("langchain-mcp-adapters==0.3.2", "langchain==1.5.0"),
    ),
    "mcp-use": Environment("mcp_use", ("mcp-use==1.7.1",)),
    # Its newest adapter, mcpadapt 0.1.19, cannot be imported with mcp 2.
    "smolagents": Environment("mcpadapt.smolagents_adapter", ("smolagents[mcp]==1.26.0", "mcp<2")),
    "google-adk": Environment(
        "google.adk.tools.mcp_tool.mcp_toolset", ("google-adk[mcp]==2.13.0",)
    ),
    "grammars": Environment(
        "llguidance, outlines_core, tvm_ffi",
        ("llguidance==1.9.1", "outlines-core==0.2.14", "apache-tvm-ffi", "pydantic"),
        alone=("xgrammar==0.2.8",),  # it requires torch and transformers
    ),
}
#: The AI SDK from npm.
AI_SDK = ("ai@7.0.173", "@ai-sdk/mcp@2.0.99")


def framework_path(name: str) -> str:
    """The folder of that framework."""
    return os.path.join(ROOT, "framework-" + name)


def framework_python(name: str) -> str:
    """The interpreter of that framework."""
    return venv_python("framework-" + name)


def is_made(name: str, what: str) -> bool:
    """Whether the folder has been made, to the end, of what is wanted now."""
    try:
        with open(os.path.join(framework_path(name), "made"), encoding="utf-8") as file:
            return file.read() == what
    except OSError:
        return False


def note_made(name: str, what: str, check: str = "") -> List[str]:
    """The command that notes so, if the Python code `check` passes in the environment."""
    path = os.path.join(framework_path(name), "made")
    python = framework_python(name) if check else sys.executable
    return [python, "-c", f"{check}\nopen({path!r}, 'w', encoding='utf-8').write({what!r})"]


def main() -> None:
    os.makedirs(ROOT, exist_ok=True)
    os.environ.update(UV_CACHE_DIR=os.path.join(ROOT, "uv-cache"), UV_PYTHON_DOWNLOADS="never")
    for name, environment in ENVIRONMENTS.items():
        what = repr((DAY, environment))
        excluded = os.path.join(ROOT, f"without-{name}.txt")
        with open(excluded, "w", encoding="utf-8") as file:
            file.write("\n".join(environment.without))
        uv = [runner_path("uv"), "pip", "install", "--quiet", "--exclude-newer", DAY]
        uv += ["--python", framework_python(name)]
        steps = [
            [runner_path("uv"), "venv", "--quiet", "--clear", "--python", sys.executable]
            + [framework_path(name)],
            uv + ["--excludes", excluded] + list(environment.packages),
        ]
        if environment.alone:
            steps.append(uv + ["--no-deps"] + list(environment.alone))
        steps.append(note_made(name, what, f"import {environment.module}"))
        provide(name, lambda: is_made(name, what), *steps)
    provide(
        "AI SDK",
        lambda: is_made("ai-sdk", repr(AI_SDK)),
        [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            framework_path("ai-sdk"),
            *AI_SDK,
        ],
        note_made("ai-sdk", repr(AI_SDK)),
    )


if __name__ == "__main__":
    main()
