"""The tools: their names, and what the tests need to know of each. A new tool is one entry here."""

from __future__ import annotations

from typing import Dict, List, NamedTuple, Set

CHAT, PLAN, FINAL = "codex_chat", "codex_guard_plan", "codex_guard_final"
SESSIONS, STOP = "codex_sessions", "codex_stop"

#: The optional arguments of every tool that runs a turn.
COMMON = {"session_id", "cwd", "model", "reasoning_effort", "timeout_ms", "fork"}
COMMON |= {"background"}


class Tool(NamedTuple):
    required: Dict[str, str]  # the required arguments, each with a good value
    optional: Set[str]  # the names of all others
    text: str = ""  # the field of its result with Codex's answer; "" if it runs no turn

    @property
    def arguments(self) -> Set[str]:
        return set(self.required) | self.optional


#: In the order in which the server lists them.
TOOLS: Dict[str, Tool] = {
    CHAT: Tool({"prompt": "Hello"}, COMMON | {"sandbox"}, "reply"),
    PLAN: Tool(
        {"requirements": "The need", "plan": "The plan"}, COMMON | {"constraints"}, "critique"
    ),
    FINAL: Tool(
        {"change_summary": "The change"},
        COMMON | {"test_results", "open_questions", "base"},
        "review",
    ),
    SESSIONS: Tool({}, {"session_id", "cwd", "all", "limit", "wait_ms"}),
    STOP: Tool({"session_id": "0199a213-81c0-7800-8aa1-bbab2a035a53"}, set()),
}
#: The tools that run a turn, and those of them that review and never write.
TURNS: List[str] = [name for name, tool in TOOLS.items() if tool.text]
GUARDS: List[str] = [PLAN, FINAL]
