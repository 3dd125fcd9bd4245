"""What Codex says, and what a caller is told to do: real sentences (codex_words.json), traps."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Dict, List, Optional

import pytest

import codex_persistent_mcp as program
from client import HERE, session_of, text_of
from conftest import Bench
from tools import FINAL, GUARDS, PLAN, TOOLS

with open(os.path.join(HERE, "codex_words.json"), encoding="utf-8") as file:
    WORDS: Dict[str, List[List[Any]]] = json.load(file)

#: What the advice for each kind must say, and must not.
ADVICE: Dict[str, str] = {
    "busy_start": "",
    "codex_too_old": "update Codex",
    "config_unreadable": "configuration",
    "context_full": "new session .*summary",
    "history_refused": "new session .*summary",
    "key_missing": "that variable into this server's env",
    "model_needs_newer": "update Codex",
    "no_network": "network.*PROXY",
    "not_signed_in": "codex login.*key",
    "not_trusted": "cwd",
    "plan_limit": "plan",
    "policy_never": "policy.*not repeat",
    "prompt_too_long": "shorter",
    "refused_content": "Reword",
    "server_trouble": "later",
    "session_unknown": "session_id",
    "signin_expired": "codex login",
    "too_many": "a minute",
    "unknown_effort": "reasoning_effort",
    "unknown_model": "model",
    "unknown_profile": "profile",
    "unknown_provider": "model_provider",
    "version_shim": "CODEX_BIN",
}
SENTENCES = [row for row in WORDS["sentences"] if row[0] in ADVICE]
ID = "0199a213-81c0-7800-8aa1-bbab2a035a53"


def turn_of(*events: Any, expected: Optional[str] = None, **options: Any) -> program.Turn:
    turn = program.Turn(expected, **options)
    for event in events:
        turn.fold(event)
    return turn


def item(kind: str, state: str = "completed", **more: Any) -> Dict[str, Any]:
    return {"type": f"item.{state}", "item": dict(more, id="item_1", type=kind)}


STARTED, BEGUN = {"type": "thread.started", "thread_id": ID}, {"type": "turn.started"}
COMPLETED = {"type": "turn.completed", "usage": {}}
ENDED = {"type": program.ENDED, "stderr": "", "ending": "exit code 0"}


def message(text: str, **more: str) -> Dict[str, Any]:
    return item("agent_message", text=text, **more)


def advice_for(words: str) -> str:
    """The last lines of the failure, after Codex's own words."""
    failed = {"type": "turn.failed", "error": {"message": words}}
    with pytest.raises(program.Failure) as caught:
        turn_of(STARTED, BEGUN, failed, ENDED).result()
    return str(caught.value).splitlines()[-1]


@pytest.mark.parametrize("kind, words", SENTENCES, ids=lambda text: ascii(text)[:40])
def test_a_failure_says_what_gets_the_caller_out_of_it(kind: str, words: str) -> None:
    assert re.search(ADVICE[kind], advice_for(words)), advice_for(words)
    if kind in ("context_full", "history_refused"):
        assert not re.search("shorter|again", advice_for(words))


NONE = "If it happens again"


@pytest.mark.parametrize("kind, words", WORDS["traps"], ids=lambda text: ascii(text)[:40])
def test_nothing_is_read_out_of_identifiers_paths_and_numbers(kind: Any, words: str) -> None:
    if kind is None:
        assert advice_for(words).startswith(NONE)
    elif kind in ADVICE:
        assert re.search(ADVICE[kind], advice_for(words))


NOTICES = [words for kind, words in WORDS["sentences"] if kind.startswith("notice")]


@pytest.mark.parametrize("words", NOTICES, ids=lambda text: ascii(text)[:40])
def test_a_notice_is_known_as_one(words: str) -> None:
    assert program.NOTICE.match(words) or words.startswith("WARNING")


RETRIES = [words for kind, words in WORDS["sentences"] if kind == "retry"]


@pytest.mark.parametrize("words", RETRIES, ids=lambda text: ascii(text)[:40])
def test_a_retry_that_codex_overcame_is_progress_and_no_warning(words: str) -> None:
    turn = program.Turn()
    turn.fold(STARTED)
    turn.fold(BEGUN)
    assert words[:20] in turn.fold({"type": "error", "message": words})
    for event in (message("a"), COMPLETED, ENDED):
        turn.fold(event)
    turn.result()
    assert turn.warnings == []


NO_SANDBOX = [words for kind, words in WORDS["sentences"] if kind == "sandbox_failed"]
NO_SANDBOX = [words for words in NO_SANDBOX if "incompatible" not in words]


def command(output: str, code: int) -> List[Dict[str, Any]]:
    more: Dict[str, Any] = {"command": "/bin/sh -c 'make test'"}
    done = dict(more, aggregated_output=output, exit_code=code)
    return [
        item("command_execution", "started", **more),
        item("command_execution", status="failed" if code else "completed", **done),
    ]


@pytest.mark.parametrize("words", NO_SANDBOX, ids=lambda text: ascii(text)[:40])
def test_commands_that_no_sandbox_let_run_are_one_warning(words: str) -> None:
    events = [*command(words, 1), *command(words + " again", 101), *command("fine", 0)]
    lines = [json.dumps(event, separators=(",", ":")).encode() for event in events]
    decoded = [event for event in map(program.decode_event, lines) if event]
    turn = turn_of(STARTED, BEGUN, *decoded, message("a guess"), COMPLETED, ENDED)
    turn.result()
    assert len(turn.warnings) == 1 and "sandbox could not start" in turn.warnings[0]
    assert (turn.commands, turn.blocked) == (3, 2)


def test_a_command_that_fails_by_itself_is_no_warning() -> None:
    turn = turn_of(STARTED, BEGUN, *command("bwrap is not installed", 2), message("a"), COMPLETED)
    assert turn.warnings == []


def steps(*lines: str) -> str:
    return "please\n" + "\n".join("FAKE:" + line for line in lines)


def raw(event: Dict[str, Any]) -> str:
    return "raw " + json.dumps(event, separators=(",", ":"))


def with_steps(tool: str, *lines: str) -> Dict[str, Any]:
    first = next(iter(TOOLS[tool].required))
    return dict(TOOLS[tool].required, **{first: steps(*lines)})


@pytest.mark.parametrize("tool", GUARDS)
def test_a_review_none_of_whose_commands_ran_is_no_review(bench: Bench, tool: str) -> None:
    client = bench.start()
    blocked = [raw(event) for event in command("bwrap: setting up uid map: Permission denied", 1)]
    ran = [raw(event) for event in command("fine", 0)]
    end = ["say GO: I guess.", "completed"]
    begin = ["session", "started"]
    result = client.call(tool, with_steps(tool, *begin, *blocked, *end))
    assert result.get("isError") and "sandbox could not start" in text_of(result)
    result = client.call(tool, with_steps(tool, *begin, *blocked, *ran, *end))
    assert "sandbox could not start" in result["structuredContent"]["warnings"][0]


@pytest.mark.parametrize("why, key", [("user cancelled MCP tool call", True), ("timed out", False)])
def test_a_tool_of_codex_s_own_that_did_not_work_is_a_warning(why: str, key: bool) -> None:
    failed = item("mcp_tool_call", server="docs", tool="find", error={"message": why})
    failed["item"]["status"] = "failed"
    line = json.dumps(failed, separators=(",", ":")).encode()
    decoded = program.decode_event(line)
    assert decoded is not None
    (text,) = turn_of(STARTED, BEGUN, decoded, message("a"), COMPLETED).warnings
    assert "docs.find" in text and why in text
    assert ("default_tools_approval_mode" in text and "mcp_servers.docs" in text) == key


# -- the answer ------------------------------------------------------------------------------------


ANSWERS: List[Any] = [
    ([message("a", phase="final_answer"), message("b", phase="commentary")], "a"),
    ([message("a", phase="commentary"), message("b")], "b"),
    ([message("a"), message("b", phase="commentary")], "a"),
    ([message("a", phase="commentary"), message("b", phase="commentary")], "b"),
    ([message("a"), COMPLETED, BEGUN, message("b"), COMPLETED, BEGUN, message("c")], "a\n\nb\n\nc"),
]


@pytest.mark.parametrize("events, reply", ANSWERS, ids=range(len(ANSWERS)))
def test_the_answer_is_what_codex_marks_as_such_of_each_turn(events: List[Any], reply: str) -> None:
    turn = turn_of(STARTED, BEGUN, *events, COMPLETED, ENDED)
    turn.result()
    assert turn.reply == reply


@pytest.mark.parametrize(
    "said, reply",
    [
        (["GO: all good.", "Nothing to add."], "GO: all good.\n\nNothing to add."),
        (["I look.", "**STOP**: no.", "Bye."], "**STOP**: no.\n\nBye."),
        (["GO: a", "STOP: b"], "STOP: b"),
        (["I look.", "I found nothing."], "I found nothing."),
    ],
)
def test_the_message_with_the_verdict_is_never_lost(
    bench: Bench, said: List[str], reply: str
) -> None:
    lines = ["session", "started", *("say " + text for text in said), "completed"]
    result = bench.start().call(PLAN, with_steps(PLAN, *lines))
    assert result["structuredContent"]["critique"] == reply


@pytest.mark.parametrize("end", [["exit 0"], ["failed no"], ["hang"]], ids=lambda end: end[0])
def test_a_complete_answer_is_given_though_a_further_turn_never_ends(
    bench: Bench, end: List[str]
) -> None:
    lines = ["session", "started", "say The answer.", "completed", "started", *end]
    result = bench.start().chat(steps(*lines), timeout_ms=4000)
    assert session_of(result) and result["structuredContent"]["reply"] == "The answer."
    assert "further turn" in "".join(result["structuredContent"]["warnings"])


VERDICTS: List[Any] = [
    (PLAN, "GO: fine", "go"),
    (PLAN, "**GO WITH CHANGES** - because", "go_with_changes"),
    (PLAN, "## Verdict: Go with changes", "go_with_changes"),
    (PLAN, '"STOP", since', "stop"),
    (PLAN, "\n\n> _stop_.", "stop"),
    (PLAN, "verdict - `GO`", "go"),
    (PLAN, "GOOD plan", ""),
    (PLAN, "GO or STOP?", ""),
    (PLAN, "GO/STOP", ""),
    (PLAN, "NO GO", ""),
    (PLAN, "I would say GO", ""),
    (PLAN, "Stopping here", ""),
    (FINAL, "DONE.", "done"),
    (FINAL, "NOT DONE: x", "not_done"),
    (FINAL, "# *Done with remarks*: x", "done_with_remarks"),
    (FINAL, "DONE\nNOT DONE", "done"),
    (FINAL, "Undone", ""),
    (FINAL, "GO", ""),
]


@pytest.mark.parametrize("tool, text, verdict", VERDICTS, ids=lambda text: ascii(text)[:30])
def test_a_verdict_is_read_in_whatever_dress_or_left_out(
    bench: Bench, tool: str, text: str, verdict: str
) -> None:
    event = raw(message(text))
    result = bench.start().call(tool, with_steps(tool, "session", "started", event, "completed"))
    structured = result["structuredContent"]
    assert structured.get("verdict", "") == verdict
    assert (f"verdict: {verdict}" in text_of(result).split("\n")[0]) == bool(verdict)
    assert structured[TOOLS[tool].text] == text


def test_a_chat_has_no_verdict(bench: Bench) -> None:
    assert (
        "verdict"
        not in bench.start().chat(steps("session", "started", "say GO: x", "completed"))[
            "structuredContent"
        ]
    )


def test_a_change_is_judged_from_its_base(bench: Bench) -> None:
    client = bench.start()
    client.call(FINAL, dict(TOOLS[FINAL].required, base=" origin/main "))
    prompt = bench.calls()[0]["prompt"]
    assert "git diff origin/main" in prompt and "git log origin/main..HEAD" in prompt
    client.call(FINAL, TOOLS[FINAL].required)
    assert "Base" not in bench.calls()[1]["prompt"]


# -- garbage, noise, tries -------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["\x1b[2K\x1b[1G", "\ufeff", "Loading... ", "\x1b]0;codex\x07"])
def test_an_event_behind_something_else_on_its_line_is_an_event(bench: Bench, before: str) -> None:
    event = json.dumps(message("The answer."))
    lines = ["session", "started", "hex " + (before + event + "\n").encode().hex(), "completed"]
    result = bench.start().chat(steps(*lines))
    assert result["structuredContent"]["reply"] == "The answer."


def test_a_resume_that_does_not_announce_its_session_still_knows_it(bench: Bench) -> None:
    client = bench.start()
    session = session_of(client.chat("first"))
    result = client.chat(steps("started", "say Still here.", "completed"), session_id=session)
    assert session_of(result) == session


def test_a_turn_without_a_message_gives_the_reason_of_standard_error(bench: Bench) -> None:
    lines = ["session", "started", "stderr Error: the disk is full", "completed"]
    assert "the disk is full" in text_of(bench.start().chat(steps(*lines)))


def test_a_notice_is_told_once_by_a_server(bench: Bench) -> None:
    client = bench.start()
    notice = raw(item("error", message="Codex is ignoring 1 unrecognized configuration setting."))
    lines = ["session", notice, "started", "warning Mind this.", "say ok", "completed"]
    first, second = (client.chat(steps(*lines))["structuredContent"]["warnings"] for _ in "ab")
    assert len(first) == 2 and second == ["Mind this."]


def test_nothing_advises_an_agent_to_have_more_trust(bench: Bench) -> None:
    advice = "Run `codex exec --trust` to allow project configuration. It is trusted then."
    notice = raw(item("error", message=advice))
    result = bench.start().chat(steps("session", notice, "started", "say ok", "completed"))
    assert "trust" not in text_of(result)


FAILING = """\
#!/bin/sh
if [ "$(cat {count} 2>/dev/null | wc -c)" -lt {times} ]; then
    printf x >> {count}
    echo 'Error: failed to initialize state runtime: (code: 5) database is locked' >&2
    exit 1
fi
exec {fake} "$@"
"""


@pytest.mark.parametrize("times, good", [(2, True), (99, False)])
def test_a_start_that_fails_for_a_moment_is_tried_again(
    bench: Bench, times: int, good: bool
) -> None:
    path, count = os.path.join(bench.work, "codex"), os.path.join(bench.notes, "count")
    with open(path, "w", encoding="utf-8") as script:
        script.write(FAILING.format(count=count, times=times, fake=bench.env["CODEX_BIN"]))
    os.chmod(path, 0o755)
    result = bench.start(env={"CODEX_BIN": path}).chat("hello")
    assert bool(result.get("isError")) is not good
    assert os.path.getsize(count) == (2 if good else 4)


def test_a_turn_that_has_begun_is_never_tried_again(bench: Bench) -> None:
    lines = ["session", "started", "stderr Error: database is locked", "exit 1"]
    assert bench.start().chat(steps(*lines)).get("isError")
    assert len(bench.calls()) == 1


# -- where Codex starts, and progress --------------------------------------------------------------


def test_codex_starts_where_the_server_did_and_works_where_it_is_told(bench: Bench) -> None:
    here, there = os.path.join(bench.work, "here"), os.path.join(bench.work, "there")
    os.mkdir(here)
    os.mkdir(there)
    client = bench.start(cwd=here)
    session_of(client.chat("one", cwd=there))
    os.rmdir(here)
    session_of(client.chat("two", cwd=there))
    first, second = bench.calls()
    assert os.path.realpath(first["cwd"]) == os.path.realpath(here)
    assert os.path.realpath(second["cwd"]) == os.path.realpath(there)
    assert [call["argv"][call["argv"].index("-C") + 1] for call in (first, second)] == [there] * 2


PROGRESS: List[Any] = [
    (
        item("collab_tool_call", "started", tool="spawn_agent", prompt="look at a.py"),
        "look at a.py",
    ),
    (item("collab_tool_call", "started", tool="wait"), "helpers"),
    (command("", 2)[1], "Failed (exit code 2): make test"),
    (command("", 0)[1], ""),
    (item("image_generation", "started"), "image generation"),
]


@pytest.mark.parametrize("event, text", PROGRESS, ids=range(len(PROGRESS)))
def test_progress_in_words_for_whatever_comes(event: Dict[str, Any], text: str) -> None:
    found = turn_of(STARTED, BEGUN).fold(event)
    assert text in found and bool(found) == bool(text)
