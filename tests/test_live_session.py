"""Calls on a session that is open in a window: turns on Codex's daemon, or failures in words."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple

import pytest

from client import Client, session_of, text_of
from conftest import Bench
from fake_daemon import FakeDaemon
from tools import CHAT, FINAL, PLAN

#: Milliseconds for a call that is to end by its timeout, though not before a loaded machine has
#: come to what is tested, and for many of them at once; seconds in which it must have ended there.
SHORT, LONG, SOON = 3000, 6000, 20
ELSEWHERE = "open elsewhere"
UNKNOWN = r"not known|unknown whether|may have|may still|cannot tell|can't tell"


class Stage:
    """A session that an earlier call opened, and the daemon that holds it."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.client: Client = bench.start()
        self.session = session_of(self.client.chat("first"))
        self.runs = len(bench.calls())
        self.daemons: List[FakeDaemon] = []

    def daemon(self, *scenario: str, **options: Any) -> FakeDaemon:
        """Opens the session in a window, so to say."""
        daemon = FakeDaemon(self.bench.home, self.session, *scenario, **options)
        self.daemons.append(daemon)
        return daemon.__enter__()

    def chat(self, prompt: str = "hello", **arguments: Any) -> Dict[str, Any]:
        return self.client.call(CHAT, dict(arguments, prompt=prompt, session_id=self.session))

    def start_chat(self, prompt: str = "hello", token: Any = "p", **arguments: Any) -> Any:
        return self.client.start_call(
            CHAT, dict(arguments, prompt=prompt, session_id=self.session), token
        )

    def told(self, token: Any = "p") -> str:
        return "\n".join(one["message"] for one in self.client.progress(token))

    def executed(self) -> List[str]:
        """The messages that got into the session through `codex exec` after the first."""
        with open(str(self.daemons[0].session_file), encoding="utf-8") as file:
            return [line for line in file if '"message"' in line][1:]

    def fails(self, result: Dict[str, Any], *words: str) -> str:
        """The text of a failure, which must name the session and match `words`."""
        text = text_of(result)
        assert result.get("isError") is True and "structuredContent" not in result, result
        for word in words:
            assert re.search(word, text, re.IGNORECASE), (word, text)
        assert self.bench.resume(self.session) in text
        assert len(text) < 3000
        return text


@pytest.fixture
def stage(bench: Any) -> Iterator[Stage]:
    stage = Stage(bench)
    yield stage
    for daemon in stage.daemons:
        daemon.__exit__()


def steps(*lines: str) -> str:
    return "please\n" + "\n".join("FAKE:" + line for line in lines)


# -- 1. the call runs as a turn on the daemon ------------------------------------------------------


def test_a_call_on_an_open_session_is_answered_in_that_session(stage: Stage) -> None:
    daemon = stage.daemon()
    result = stage.chat("Remember the blue door.")
    assert session_of(result) == stage.session
    structured = result["structuredContent"]
    assert structured["reply"] == "Turn 1; it ends: " + daemon.turns[0].text[-200:]
    assert structured["resume_command"] == stage.bench.resume(stage.session)
    assert [
        re.search("open elsewhere|is open", text) is not None for text in structured["warnings"]
    ].count(True) == 1
    assert "warning: " in text_of(result)
    assert len(daemon.turns) == 1 and daemon.steered == [] and daemon.answers == []


def test_the_message_carries_the_attribution_like_any_other(stage: Stage) -> None:
    daemon = stage.daemon()
    stage.chat("Remember the blue door.")
    first = stage.bench.calls()[0]["prompt"].split("\n")[0]
    assert daemon.turns[0].text == first + "\nRemember the blue door."


def test_the_usage_is_named_as_codex_exec_names_it(stage: Stage) -> None:
    stage.daemon()
    usage = stage.chat()["structuredContent"]["usage"]
    assert {
        name: usage[name] for name in ("input_tokens", "cached_input_tokens", "output_tokens")
    } == {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 5}
    assert not [name for name in usage if name != name.lower()]


def test_progress_tells_what_codex_does(stage: Stage) -> None:
    daemon = stage.daemon()
    id = stage.start_chat(
        steps("reasoning **Weighing it**", "gate one", "command make all", "gate two", "say done")
    )
    stage.client.wait_for(lambda: "Weighing it" in stage.told(), "progress of the reasoning")
    daemon.open("one")
    stage.client.wait_for(lambda: "make all" in stage.told(), "progress of the command")
    daemon.open("two")
    assert stage.client.result(id)["structuredContent"]["reply"] == "done"
    assert "bash -lc" not in stage.told()
    numbers = [one["progress"] for one in stage.client.progress("p")]
    assert numbers == sorted(set(numbers))


def test_calls_on_an_open_session_run_one_after_the_other_in_order(stage: Stage) -> None:
    daemon = stage.daemon()
    ids = [
        stage.start_chat(f"number {n}\nFAKE:sleep 0.1\nFAKE:say {n}", token=None) for n in range(4)
    ]
    assert [stage.client.result(id)["structuredContent"]["reply"] for id in ids] == [
        "0",
        "1",
        "2",
        "3",
    ]
    assert len(daemon.turns) == 4 and daemon.steered == []


def test_a_session_that_is_not_open_needs_no_daemon(stage: Stage) -> None:
    daemon = stage.daemon(lock=False)
    assert "open elsewhere" not in text_of(stage.chat())
    assert daemon.connections == 0 and len(stage.bench.calls()) == stage.runs + 1
    session_of(stage.client.chat("a new one"))
    assert daemon.connections == 0


def test_when_the_window_is_closed_calls_go_on_by_themselves(stage: Stage) -> None:
    daemon = stage.daemon()
    stage.chat("while it is open")
    daemon.release()
    result = stage.chat("afterwards")
    assert "You sent 2 messages before this one" in result["structuredContent"]["reply"]
    assert "open elsewhere" not in text_of(result)
    assert len(daemon.turns) == 1


def test_a_failed_turn_says_why_in_codex_words(stage: Stage) -> None:
    stage.daemon()
    text = stage.fails(
        stage.chat(steps("say before", 'failed {"error": {"message": "the model is on strike"}}')),
        "the model is on strike",
        "before",
    )
    assert '{"' not in text


def test_a_turn_without_a_message_is_a_failure(stage: Stage) -> None:
    stage.daemon()
    stage.fails(stage.chat(steps("command true")), "without a message")


def test_a_turn_that_the_person_interrupts_is_a_failure_that_says_so(stage: Stage) -> None:
    stage.daemon()
    stage.fails(stage.chat(steps("say half", "esc")), "interrupted", "half")


def test_after_the_person_interrupted_a_turn_the_next_call_answers(stage: Stage) -> None:
    daemon = stage.daemon()
    person = daemon.person("FAKE:esc")
    daemon.wait(lambda: person.status == "interrupted", "interruption")
    assert session_of(stage.chat()) == stage.session


@pytest.mark.parametrize("slow", ["", "slow-start"])
def test_a_timeout_interrupts_the_turn(stage: Stage, slow: str) -> None:
    daemon = stage.daemon("", slow)
    begin = time.monotonic()
    stage.fails(
        stage.chat(steps("say so far", "hang"), timeout_ms=SHORT),
        f"within {SHORT // 1000} s",
        "stopped|interrupted",
    )
    assert time.monotonic() - begin < SOON
    daemon.wait(lambda: daemon.turns[0].status == "interrupted", "interrupted turn")
    assert session_of(stage.chat("go on")) == stage.session


@pytest.mark.parametrize("mode", ["", "slow-start"])
def test_a_cancel_interrupts_the_turn_and_nothing_more_is_told(stage: Stage, mode: str) -> None:
    daemon = stage.daemon("", mode)
    id = stage.start_chat(steps("hang"))
    daemon.wait(lambda: daemon.turns, "turn")
    stage.client.notify("notifications/cancelled", {"requestId": id})
    daemon.wait(lambda: daemon.turns[0].status == "interrupted", "interrupted turn")
    told = len(stage.client.progress("p"))
    assert session_of(stage.chat("go on")) == stage.session
    assert stage.client.responses(id) == [] and len(stage.client.progress("p")) == told


@pytest.mark.parametrize("end", ["close", "SIGTERM", "SIGINT"])
def test_when_the_server_leaves_the_turn_is_interrupted(stage: Stage, end: str) -> None:
    daemon = stage.daemon()
    stage.start_chat(steps("hang"))
    daemon.wait(lambda: daemon.turns and daemon.turns[0].begun, "turn")
    if end != "close":
        stage.client.signal(end)
    stage.client.close()
    daemon.wait(lambda: daemon.turns[0].status == "interrupted", "interrupted turn")


def test_a_command_that_runs_at_the_timeout_is_ended_too(stage: Stage) -> None:
    daemon = stage.daemon()
    stage.fails(stage.chat(steps("command-hang sleep 77"), timeout_ms=SHORT))
    daemon.wait(lambda: daemon.terminated == ["4711"], "end of the command")


# -- 2. the person's settings stay theirs ----------------------------------------------------------


def test_no_request_changes_a_setting_of_the_session(stage: Stage) -> None:
    daemon, elsewhere = stage.daemon(), os.path.join(stage.bench.work, "elsewhere")
    os.mkdir(elsewhere)
    result = stage.chat(
        model="gpt-9", reasoning_effort="high", sandbox="workspace-write", cwd=elsewhere
    )
    session_of(result)
    for method, params in daemon.requests:
        assert not set(params) & {
            "model",
            "effort",
            "cwd",
            "sandbox",
            "sandboxPolicy",
            "approvalPolicy",
            "permissions",
            "collaborationMode",
            "summary",
            "config",
            "environments",
        }, (method, params)
        assert "settings" not in method


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("model", "gpt-9", "gpt-9"),
        ("reasoning_effort", "high", "effort"),
        ("sandbox", "workspace-write", "sandbox"),
        ("cwd", "/", "cwd|directory"),
    ],
)
def test_what_the_call_asked_for_and_could_not_have_is_a_warning(
    stage: Stage, name: str, value: str, words: str
) -> None:
    stage.daemon()
    warnings = stage.chat(**{name: value})["structuredContent"]["warnings"]
    assert [text for text in warnings if re.search(words, text)], warnings


def test_what_the_session_has_anyway_is_no_warning(stage: Stage) -> None:
    stage.daemon(sandbox="workspaceWrite")
    stage.chat()  # notices are told once
    plain = stage.chat()["structuredContent"]["warnings"]
    asked = stage.chat(
        model="fake-model",
        reasoning_effort="medium",
        sandbox="workspace-write",
        cwd=stage.bench.work,
    )
    assert len(asked["structuredContent"]["warnings"]) == len(plain)


WIDER = [
    "workspaceWrite",
    "dangerFullAccess",
    "externalSandbox",
    "somethingNew",
    None,
    {"type": ["readOnly"]},
    {},
]


@pytest.mark.parametrize("sandbox", WIDER, ids=str)
@pytest.mark.parametrize(
    "tool, arguments",
    [
        (PLAN, {"requirements": "r", "plan": "p"}),
        (FINAL, {"change_summary": "c"}),
        (CHAT, {"prompt": "p", "sandbox": "read-only"}),
    ],
)
def test_no_turn_runs_with_more_rights_than_it_was_to_have(
    stage: Stage, tool: str, arguments: Dict[str, Any], sandbox: Any
) -> None:
    daemon = stage.daemon(sandbox=sandbox)
    result = stage.client.call(tool, dict(arguments, session_id=stage.session, timeout_ms=5000))
    stage.fails(result, "read-only|stricter|rights", "open")
    assert daemon.turns == [] and daemon.messages() == [] and stage.executed() == []


def test_the_operators_limit_holds_too(bench: Any, stage: Stage) -> None:
    daemon = stage.daemon(sandbox="dangerFullAccess")
    stage.client = bench.start(env={"CODEX_MCP_SANDBOX": "workspace-write"})
    stage.fails(stage.chat(timeout_ms=5000), "workspace-write|stricter|rights")
    assert daemon.messages() == []


def test_a_chat_that_asked_for_no_sandbox_takes_the_sessions(stage: Stage) -> None:
    daemon = stage.daemon(sandbox="dangerFullAccess")
    session_of(stage.chat())
    assert len(daemon.turns) == 1


# -- 3. approvals ----------------------------------------------------------------------------------


def test_a_request_for_approval_is_left_to_the_person_and_told(stage: Stage) -> None:
    daemon = stage.daemon(approval="on-request")
    id = stage.start_chat(steps("ask rm -rf build", "say done"))
    stage.client.wait_for(
        lambda: "for the user's approval" in stage.told(), "progress of the request"
    )
    assert daemon.turns[0].status == "inProgress"
    daemon.turns[0].approved.set()
    assert stage.client.result(id)["structuredContent"]["reply"] == "done"
    assert daemon.answers == []


def test_a_request_for_approval_that_nobody_answers_ends_at_the_timeout(stage: Stage) -> None:
    daemon = stage.daemon(approval="on-request")
    begin = time.monotonic()
    stage.fails(stage.chat(steps("ask rm -rf build", "say done"), timeout_ms=SHORT), "approv")
    assert time.monotonic() - begin < SOON
    daemon.wait(lambda: daemon.turns[0].status == "interrupted", "interrupted turn")
    assert daemon.answers == []


# -- 4. a turn that is not ours --------------------------------------------------------------------


def test_a_turn_of_the_persons_is_waited_for(stage: Stage) -> None:
    daemon = stage.daemon()
    person = daemon.person(steps("gate person", "say PERSONS REPLY"))
    id = stage.start_chat(steps("say mine"))
    stage.client.wait_for(lambda: re.search("[Ww]ait.*turn", stage.told()), "progress of the wait")
    daemon.open("person")
    result = stage.client.result(id)
    assert result["structuredContent"]["reply"] == "mine"
    assert (
        person.status == "completed"
        and daemon.steered == []
        and daemon.asked("turn/interrupt") == []
    )
    assert [turn.client_id == "person" for turn in daemon.turns] == [True, False]


def test_a_turn_that_was_over_when_the_daemon_told_of_it_is_not_waited_for(stage: Stage) -> None:
    stage.daemon("", "stale-status")
    assert stage.chat(steps("say mine"))["structuredContent"]["reply"] == "mine"


def test_a_turn_of_the_persons_outlives_a_call_that_waits_for_it(stage: Stage) -> None:
    daemon = stage.daemon()
    person = daemon.person(steps("gate person", "say PERSONS REPLY"))
    stage.fails(stage.chat(steps("say mine"), timeout_ms=SHORT), "nothing was sent|had not begun")
    id = stage.start_chat(steps("say mine"))
    stage.client.wait_for(lambda: "turn" in stage.told(), "progress of the wait")
    stage.client.notify("notifications/cancelled", {"requestId": id})
    daemon.wait(lambda: not daemon.connected, "end of the connections")
    assert person.status == "inProgress" and daemon.asked("turn/interrupt") == []
    daemon.open("person")
    daemon.wait(lambda: person.status == "completed", "end of the person's turn")
    stage.chat("the next")
    assert len(daemon.turns) == 2 and daemon.steered == []


def test_a_message_that_meets_the_persons_does_not_go_into_their_turn(stage: Stage) -> None:
    daemon = stage.daemon("", "person-first")
    assert stage.chat(steps("say mine"))["structuredContent"]["reply"] == "mine"
    assert daemon.steered == []
    assert [turn.status for turn in daemon.turns] == ["completed", "completed"]


def test_a_message_that_waits_behind_the_persons_turn_is_taken_back_at_the_timeout(
    stage: Stage,
) -> None:
    daemon = stage.daemon("", "person-first")
    daemon.paused = True
    id = stage.start_chat(steps("hang"), timeout_ms=SHORT)
    stage.fails(stage.client.result(id))
    time_of_end = time.monotonic() + 1.0
    daemon.wait(lambda: time.monotonic() > time_of_end, "a second")
    assert [turn.status for turn in daemon.agents_turns()] in ([], ["interrupted"])
    assert daemon.queued == []


@pytest.mark.parametrize(
    "mode", ["noise", "fragmented", "ping", "late-answer", "noise fragmented ping slow-start"]
)
def test_only_the_events_of_the_own_turn_count_in_whatever_form_they_come(
    stage: Stage, mode: str
) -> None:
    daemon = stage.daemon("", mode)
    result = stage.chat(steps("usage", "command ls", "say mine"))
    assert result["structuredContent"]["reply"] == "mine"
    assert result["structuredContent"]["usage"]["input_tokens"] == 10
    assert "NOT FOR YOU" not in text_of(result)
    assert len(daemon.turns) == 1
    if "ping" in mode or "fragmented" in mode:
        assert daemon.pongs > 0


# -- 5. everything that can go wrong with a socket -------------------------------------------------


def other_user(daemon: FakeDaemon) -> None:
    assert os.geteuid() == 0, "this test runs as root"
    os.chown(daemon.socket_path, 12345, 12345)


def replace(make: Any) -> Any:
    """Puts something else in the place of the daemon's link."""

    def change(daemon: FakeDaemon) -> None:
        os.unlink(daemon.link)
        make(daemon.link)

    return change


def stale(daemon: FakeDaemon) -> None:
    path = os.path.join(daemon.folder, "stale")
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    sock.close()
    os.unlink(daemon.link)
    os.symlink(path, daemon.link)


PLACES = {
    "nothing there": (replace(lambda path: None), "daemon|socket"),
    "a link to nowhere": (
        replace(lambda path: os.symlink("/nonexistent/socket", path)),
        "daemon|socket",
    ),
    "a link to itself": (replace(lambda path: os.symlink(path, path)), "symbolic links"),
    "a file": (replace(lambda path: open(path, "w").close()), "not a socket|no socket"),
    "a directory": (replace(os.mkdir), "not a socket|no socket"),
    "a pipe": (replace(os.mkfifo), "not a socket|no socket"),
    "a stale socket": (stale, "refused|daemon|listen"),
    "another user's socket": (other_user, "user|own"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_socket_that_can_not_be_used_ends_in_the_plain_failure(stage: Stage, place: str) -> None:
    change, words = PLACES[place]
    if place == "another user's socket" and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    daemon = stage.daemon()
    change(daemon)
    begin = time.monotonic()
    text = stage.fails(stage.chat(timeout_ms=SHORT), ELSEWHERE)
    assert time.monotonic() - begin < SOON
    told = re.sub("CODEX_HOME=\\S+", "", text)
    assert "socket" not in told  # that is for whoever reads the log
    assert re.search(words, "\n".join(stage.client.errors))
    assert daemon.connections == 0 and stage.executed() == []


def test_a_daemon_that_does_not_hold_the_session_is_not_asked_for_it(stage: Stage) -> None:
    daemon = stage.daemon(loaded=False)
    stage.fails(stage.chat(timeout_ms=SHORT), ELSEWHERE)
    assert (
        daemon.messages() == [] and daemon.asked("thread/resume") == [] and stage.executed() == []
    )


class Case(NamedTuple):
    """What became of a call on a session whose daemon misbehaves."""

    stage: Stage
    daemon: FakeDaemon
    result: Dict[str, Any]


@pytest.fixture
def calls(tmp_path: Any) -> Iterator[Callable[..., Dict[str, Case]]]:
    """Calls on a session for each scenario, all at once; within SOON every call must have ended."""
    stages: List[Stage] = []

    def call(scenarios: List[str], prompt: str = "hello") -> Dict[str, Case]:
        for scenario in scenarios:
            stages.append(Stage(Bench(str(tmp_path / scenario.replace(" ", "-")))))
            stages[-1].daemon(scenario)
        begin = time.monotonic()
        ids = [stage.start_chat(prompt, timeout_ms=LONG) for stage in stages]
        results = [stage.client.result(id) for stage, id in zip(stages, ids)]
        assert time.monotonic() - begin < SOON
        return {
            scenario: Case(stage, stage.daemons[0], result)
            for scenario, stage, result in zip(scenarios, stages, results)
        }

    yield call
    for stage in stages:
        stage.daemons[0].__exit__()
        stage.client.process.kill()
        stage.client.process.wait()


TROUBLE = ["silent", "drop", "bye", "huge", "junk", "binary", "masked", "no-json", "no-message"]


@pytest.mark.parametrize(
    "scenarios",
    [
        ["upgrade " + what for what in ("silent", "drop", "bye", "junk", "no-json")],
        ["initialize " + what for what in TROUBLE + ["unknown-method", "odd-result"]],
        ["held " + what for what in ("silent", "drop", "unknown-method", "odd-result")],
        ["resume " + what for what in TROUBLE + ["unknown-method", "odd-result"]],
    ],
    ids=lambda value: value[0].split()[0],
)
def test_a_daemon_that_fails_before_it_has_the_message_ends_in_the_plain_failure(
    calls: Any, scenarios: List[str]
) -> None:
    for scenario, case in calls(scenarios).items():
        case.stage.fails(case.result, ELSEWHERE)
        assert re.search("app-server", "\n".join(case.stage.client.errors))
        assert (
            case.daemon.messages() == [] and case.daemon.turns == [] and case.stage.executed() == []
        ), scenario


@pytest.mark.parametrize("point", ["take", "taken"])
def test_where_it_is_not_known_whether_the_message_was_taken_the_answer_says_so(
    calls: Any, point: str
) -> None:
    cases = calls([point + " " + what for what in TROUBLE + ["odd-result"]], steps("hang"))
    for scenario, case in cases.items():
        # With `taken` the turn has begun and was told, so that the call can know it, and can stop
        # it at the timeout.
        case.stage.fails(case.result, UNKNOWN + ("" if point == "take" else "|stopped|interrupted"))
        assert "othing was sent" not in text_of(case.result), scenario
        assert (
            len(case.daemon.messages()) == 1
            and len(case.stage.bench.calls()) == case.stage.runs + 1
        ), scenario


def test_a_daemon_that_refuses_the_message_ends_in_words(stage: Stage) -> None:
    daemon = stage.daemon("take unknown-method")
    stage.fails(stage.chat(timeout_ms=SHORT), "unknown variant|refused|" + ELSEWHERE)
    assert daemon.turns == [] and stage.executed() == []


@pytest.mark.parametrize("point", ["turn", "reply"])
def test_a_daemon_that_fails_in_the_middle_of_the_turn_causes_no_second_copy(
    calls: Any, point: str
) -> None:
    # The session's lock is free then, so a second copy would be possible.
    for scenario, case in calls(
        [point + " " + what for what in TROUBLE], steps("say half")
    ).items():
        text = case.stage.fails(case.result)
        counts = len(case.daemon.messages()), len(case.stage.executed())
        assert counts == (1, 1), (scenario, text)
        assert "othing was sent" not in text, scenario


def test_the_server_still_serves_after_all_that(stage: Stage) -> None:
    for scenario in ("initialize huge", "take drop", "turn junk"):
        with FakeDaemon(stage.bench.home, stage.session, scenario):
            assert stage.chat(timeout_ms=SHORT)["isError"] is True
    stage.daemon()
    assert session_of(stage.chat()) == stage.session


def test_a_guard_does_not_run_after_the_person_has_raised_the_sandbox(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.person("FAKE:gate one\nFAKE:say x")
    id = stage.client.start_call(
        PLAN, {"requirements": "r", "plan": "p", "session_id": stage.session}, "p"
    )
    stage.client.wait_for(
        lambda: "Waiting for the turn" in stage.told(), "wait for the person's turn"
    )
    daemon.sandbox = "dangerFullAccess"
    daemon.open("one")
    stage.fails(stage.client.result(id), "danger-full-access")
    assert len(daemon.turns) == 1  # the person's


@pytest.mark.parametrize("data", [7, True, None, [{"id": 1}], "text", {}])
def test_wrong_types_in_the_list_of_open_sessions_end_in_the_plain_failure(
    stage: Stage, data: Any
) -> None:
    daemon = stage.daemon()
    daemon.results["thread/loaded/list"] = {"data": data}
    stage.fails(stage.chat(timeout_ms=SHORT), ELSEWHERE)


def test_no_warning_of_an_open_window_when_codex_ran_the_turn_itself(stage: Stage) -> None:
    daemon = stage.daemon()
    daemon.person("FAKE:gate one\nFAKE:say x")
    id = stage.start_chat()
    stage.client.wait_for(
        lambda: "Waiting for the turn" in stage.told(), "wait for the person's turn"
    )
    daemon.disconnect()
    daemon.release()
    result = stage.client.result(id)
    assert session_of(result) == stage.session and "open elsewhere" not in text_of(result)
