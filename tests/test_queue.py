"""Calls on a session that any other process has open: its queue of messages, and forks."""

from __future__ import annotations

import os
import re
import time
from typing import Any, Callable, Dict, Iterator, List, Optional

import pytest

from client import Client, remaining, session_of, text_of
from conftest import Bench
from fake_store import Holder, known, make_session, queue, rollouts
from test_endings import processes
from tools import CHAT, FINAL, GUARDS, PLAN, TOOLS, TURNS

pytestmark = pytest.mark.skipif(
    not os.path.isdir("/proc/self"), reason="looks for processes and locks in /proc (Linux)"
)

#: Milliseconds for a call that is to end by its timeout with its message queued or taken: the first
#: 3 s go by before it is queued. And for one that is first to wait 10 s for an answer of Codex's.
TIMEOUT, LONG = 12000, 30000
#: Seconds for a call that is to fail in the first ones, and in which what was started is gone.
AT_ONCE, GONE = 12.0, 5.0
HOLDERS = ("`codex resume` window", "editor", "desktop app", "another agent")
OPEN = "open elsewhere"
MAY_ANSWER, MAY_WORK = "may still be answered there", "may still be working"


class Open:
    """A session that another process has open, as a server's client uses it."""

    def __init__(self, bench: Bench, client: Client, mode: str = "", delay: float = 0.1) -> None:
        self.bench, self.client = bench, client
        self.id = make_session(bench.home, bench.work)
        self.holder = Holder(bench.home, self.id, mode, delay).__enter__()

    def call(self, prompt: str = "hello", token: Any = None, **arguments: Any) -> Any:
        """Starts a call on it; gives the request's id."""
        return self.client.start_call(
            CHAT, dict(arguments, prompt=prompt, session_id=self.id), token
        )

    def chat(self, prompt: str = "hello", **arguments: Any) -> Dict[str, Any]:
        return self.client.result(self.call(prompt, **arguments), 100)

    def queue(self) -> List[str]:
        """The messages that wait there."""
        return [one["input"][0]["text"] for one in queue(self.bench.home, self.id)]

    def turns(self) -> List[Dict[str, Any]]:
        """The turns after the first, which made it."""
        found = known(self.bench.home, self.id)
        assert found
        return found.turns[1:]

    def is_queued(self) -> None:
        # Behind a turn that runs there it is queued after 45 s and seven tries, which take time.
        self.bench.wait(self.queue, "queued message", 150)

    def is_taken(self, count: int = 1) -> None:
        self.bench.wait(lambda: len(self.turns()) >= count, "turn of the message")

    def fails(self, result: Dict[str, Any], *words: str) -> str:
        """The text of a failure, which names the session and contains `words`."""
        text = text_of(result)
        assert result.get("isError") is True and "structuredContent" not in result, result
        for word in words:
            assert word in text, (word, text)
        assert self.bench.resume(self.id) in text
        assert "socket" not in text.lower() and len(text) < 3000, text
        return text

    def answers(self, result: Dict[str, Any], reply: str) -> None:
        """The result is this reply, from there; the message ran once, and waits no more."""
        assert session_of(result) == self.id
        structured = result["structuredContent"]
        assert structured["reply"] == reply
        assert [OPEN in text for text in structured["warnings"]].count(True) == 1
        assert "socket" not in text_of(result).lower()
        assert not self.queue() and len(self.holder.taken) == 1


@pytest.fixture
def opened(bench: Any) -> Iterator[Callable[..., Open]]:
    """Makes sessions that are open elsewhere, by default all for one client."""
    made: List[Open] = []

    def make(
        mode: str = "",
        client: Optional[Client] = None,
        delay: float = 0.1,
        where: Optional[Bench] = None,
    ) -> Open:
        client = client or (made[0].client if made else bench.start())
        made.append(Open(where or bench, client, mode, delay))
        return made[-1]

    yield make
    for one in made:
        one.holder.__exit__()


def nothing_left(bench: Any, *servers: Client) -> None:
    """Waits until only these servers are left of what the test has started."""
    pids = [server.process.pid for server in servers]

    def others() -> List[int]:
        return [pid for pid in processes(bench) if pid not in pids]

    assert remaining(others, time.monotonic() + GONE) == []


# -- 1. nobody takes the message -------------------------------------------------------------------


def test_a_message_that_nobody_takes_is_withdrawn_after_45_seconds_or_said_to_be_there(
    bench: Any, opened: Any
) -> None:
    nobody, forgets, other, anonymous = map(opened, ("nobody", "forgets", "other", "anonymous"))
    busy = opened()
    refusing = bench.start(env={"FAKE_INDEX": "thread/queue/delete refuse"})
    refused = opened("nobody", refusing)
    silent = bench.start(env={"FAKE_INDEX": "thread/queue/delete silent"})
    unheard = opened("forgets", silent)
    busy.holder.person("a long turn\nFAKE:gate person\nFAKE:say at last")
    bench.wait(busy.turns, "the person's turn")
    those = [nobody, forgets, other, anonymous, refused, unheard]
    begin, token = time.monotonic(), "nobody"
    ids = [one.call(token=token if one is nobody else None) for one in those]
    waiting = busy.call()

    # A turn runs there all the time: whoever runs it stays, so the message is queued behind it.
    busy.is_queued()
    assert time.monotonic() - begin >= 45
    busy.holder.open("person")
    result = busy.client.result(waiting)
    busy.answers(result, "Held turn; it ends: " + busy.turns()[1]["text"])

    results = [one.client.result(id, 100) for one, id in zip(those, ids)]
    text = nobody.fails(results[0], "Nothing was sent", "fork", *HOLDERS)
    assert time.monotonic() - begin >= 45
    assert "Queued" in str(nobody.client.progress(token)) and not nobody.queue()
    assert "10 minutes" not in text and not nobody.turns()
    for one, result in zip(those[1:], results[1:]):
        text = one.fails(result, MAY_ANSWER)
        assert "NOT FOR YOU" not in text and "it ends" not in text
    assert all(len(one.holder.taken) <= 1 for one in those)
    nothing_left(bench, nobody.client, refusing, silent)


# -- 2. whoever has it open answers ----------------------------------------------------------------


def test_a_call_is_answered_by_whoever_has_the_session_open(bench: Any, opened: Any) -> None:
    there = opened()
    result = there.chat("Remember the blue door.")
    there.answers(result, "Held turn; it ends: " + there.turns()[0]["text"])
    structured = result["structuredContent"]
    assert structured["resume_command"] == bench.resume(there.id)
    assert "warning: This turn ran in the session that is open elsewhere" in text_of(result)
    assert "forked_from" not in structured and "forked_from" not in text_of(result)
    assert [turn["status"] for turn in there.turns()] == ["completed"]
    methods = {one["method"] for one in bench._noted("index.jsonl") if "method" in one}
    assert "turn/start" not in methods and "thread/resume" not in methods
    assert len(bench.index("thread/queue/add")) == 1
    nothing_left(bench, there.client)


def test_progress_says_that_it_is_queued_and_then_worked_on(bench: Any, opened: Any) -> None:
    there = opened(delay=2.5)
    id = there.call("FAKE:say Half of it.\nFAKE:gate rest\nFAKE:say The rest.", token="p")

    def told() -> str:
        return "\n".join(one["message"] for one in there.client.progress("p"))

    there.client.wait_for(lambda: "Queued in the session" in told(), "progress of the queue")
    assert "working" not in told()
    there.client.wait_for(lambda: "Codex is working" in told(), "progress of the turn")
    there.client.wait_for(lambda: "Half of it." in told(), "progress of the message", 20)
    there.holder.open("rest")
    result = there.client.result(id)
    assert result["structuredContent"]["reply"].endswith("The rest.")
    assert bench.resume(there.id) in told() and "socket" not in told().lower()
    numbers = [one["progress"] for one in there.client.progress("p")]
    assert numbers == sorted(set(numbers))


def test_a_turn_with_more_output_than_is_read_is_answered(bench: Any, opened: Any) -> None:
    there = opened()
    prompt = "FAKE:say One.\nFAKE:say Two.\nFAKE:gate rest\nFAKE:say The answer."
    id = there.call(prompt, token="p")
    there.client.wait_for(
        lambda: any("Two." in one["message"] for one in there.client.progress("p")), "progress"
    )
    bench.trouble("thread/turns/list verbose 40")
    there.holder.open("rest")
    there.answers(there.client.result(id), "The answer.")


def test_a_turn_of_the_persons_is_waited_for_and_not_disturbed(bench: Any, opened: Any) -> None:
    there = opened()
    there.holder.person("The person is first.\nFAKE:gate person\nFAKE:say Yours.")
    there.is_taken()
    id = there.call("The agent is second.\nFAKE:say Mine.", token="p")
    there.client.wait_for(lambda: OPEN in "\n".join(there.client.errors), "attempt", 30)
    time.sleep(4)  # past the first 3 s
    assert not there.queue()
    there.holder.open("person")
    there.answers(there.client.result(id), "Mine.")
    assert [turn["text"].split("\n")[0][:10] for turn in there.turns()] == [
        "The person",
        "AI agent t",
    ]
    assert [turn["says"][0]["text"] for turn in there.turns()] == ["Yours.", "Mine."]


def test_calls_on_one_session_are_answered_in_their_order_each_with_attribution_and_id(
    bench: Any, opened: Any
) -> None:
    there = opened()
    ids = [there.call(f"number {n}\nFAKE:sleep 0.3\nFAKE:say {n}") for n in range(2)]
    replies = [there.client.result(id)["structuredContent"]["reply"] for id in ids]
    assert replies == ["0", "1"] and not there.queue()
    first, second = there.holder.taken
    assert re.findall("number (.)", str([turn["text"] for turn in there.turns()])) == ["0", "1"]
    # As the message that `codex exec` was given first, and refused.
    assert first["input"][0]["text"] == bench.calls()[0]["prompt"]
    for one, text in ((first, "number 0"), (second, "number 1")):
        attribution, prompt = one["input"][0]["text"].split("\n")[:2]
        assert attribution.startswith("AI agent test-client MCP ") and prompt == text
    messages = {one["clientUserMessageId"] for one in (first, second)}
    assert len(messages) == 2 and all(re.fullmatch("[0-9a-f-]{32,}", id) for id in messages)


def test_a_turn_that_failed_or_was_interrupted_there_says_so(bench: Any, opened: Any) -> None:
    failed, interrupted, mute = opened(), opened(), opened("mute")
    bare, gone = opened("bare"), opened()
    ids = [
        failed.call(
            'FAKE:say before\nFAKE:failed {"error": {"message": "the model is on strike"}}'
        ),
        interrupted.call("FAKE:say half\nFAKE:interrupted"),
        mute.call(),
        bare.call("FAKE:say The answer."),
        gone.call("FAKE:session\nFAKE:say A.\nFAKE:say B."),
    ]
    client = failed.client
    text = failed.fails(client.result(ids[0]), "the model is on strike", "before")
    assert '{"' not in text
    interrupted.fails(client.result(ids[1]), "interrupted", "half")
    mute.fails(client.result(ids[2]), "without a message")
    bare.answers(client.result(ids[3]), "The answer.")
    assert client.result(ids[4])["structuredContent"]["reply"].endswith("B.")


def test_what_the_call_asked_for_and_did_not_get_is_a_warning(bench: Any, opened: Any) -> None:
    there = opened()
    other = os.path.join(bench.work, "other")
    os.mkdir(other)
    result = there.chat(model="gpt-unheard-of", reasoning_effort="low", cwd=other)
    warnings = "\n".join(result["structuredContent"]["warnings"])
    assert "that session's own settings" in warnings


def test_a_message_that_is_too_long_is_refused_once_and_in_words(opened: Any) -> None:
    there = opened()
    text = there.fails(there.chat("x" * ((1 << 20) + 1)), "maximum length", "shorter")
    assert len(text) < 2000 and not there.queue() and not there.turns()


# -- 3. who may have it open, and when nobody can be reached ---------------------------------------


def test_a_version_whose_windows_take_no_message_fails_in_the_first_seconds(
    bench: Any, opened: Any
) -> None:
    those = [
        opened("nobody", bench.start(env={"FAKE_CODEX_VERSION": version}))
        for version in ("0.147.0", "0.148.0")
    ]
    begin = time.monotonic()
    ids = [one.call() for one in those]
    for one, id in zip(those, ids):
        text = one.fails(one.client.result(id), "Nothing was sent", "at once", *HOLDERS)
        assert 2.5 < time.monotonic() - begin < AT_ONCE
        assert not bench.index() and not one.queue()
        assert "minute" not in text


def test_codex_without_locks_goes_on_beside_an_open_window(bench: Any, opened: Any) -> None:
    there = opened("nobody", bench.start(env={"FAKE_CODEX_VERSION": "0.142.5"}))
    result = there.chat()
    assert "You sent 1 messages" in result["structuredContent"]["reply"]
    assert OPEN not in text_of(result) and not bench.index() and len(bench.calls()) == 1


@pytest.mark.parametrize("arguments", [*GUARDS, "read-only", "workspace-write"])
def test_a_call_with_rights_of_its_own_is_refused_at_once_and_goes_on_in_a_fork(
    bench: Any, opened: Any, arguments: str
) -> None:
    there = opened()
    tool = arguments if arguments in TOOLS else CHAT
    given = dict(TOOLS[tool].required, session_id=there.id)
    if tool == CHAT:
        given["sandbox"] = arguments
    begin = time.monotonic()
    text = there.fails(there.client.call(tool, given), "fork", "Nothing was sent", *HOLDERS)
    assert time.monotonic() - begin < AT_ONCE
    assert ("workspace-write" if arguments == "workspace-write" else "read-only") in text
    assert not there.queue() and not there.turns() and not bench.index()
    result = there.client.call(tool, dict(given, fork=True))
    assert session_of(result) != there.id
    assert result["structuredContent"]["forked_from"] == there.id
    wanted = "workspace-write" if arguments == "workspace-write" else "read-only"
    argv = bench.calls()[-1]["argv"]
    assert argv[argv.index("-s") + 1] == wanted and not there.turns()


def test_the_servers_own_sandbox_counts_as_asked_for(bench: Any, opened: Any) -> None:
    there = opened("", bench.start(env={"CODEX_MCP_SANDBOX": "read-only"}))
    there.fails(there.chat(), "fork", "read-only")
    assert not there.queue() and not there.turns()


def test_a_session_that_is_held_for_a_moment_only_gets_no_queued_message(
    bench: Any, opened: Any
) -> None:
    there = opened("nobody")
    id = there.call(token="p")
    there.client.wait_for(lambda: OPEN in str(there.client.progress("p")), "progress")
    there.holder.__exit__()
    result = there.client.result(id)
    assert "You sent 1 messages" in result["structuredContent"]["reply"]
    assert OPEN not in text_of(result)
    assert not bench.index() and not there.queue()


# -- 4. stopped, before it was taken and after -----------------------------------------------------


def test_a_timeout_says_what_became_of_the_message(bench: Any, opened: Any) -> None:
    waiting, running = opened("nobody"), opened("endless")
    refusing = bench.start(env={"FAKE_INDEX": "thread/queue/delete refuse"})
    stuck = opened("nobody", refusing)
    ids = [one.call(timeout_ms=TIMEOUT) for one in (waiting, running, stuck)]
    results = [one.client.result(id) for one, id in zip((waiting, running, stuck), ids)]
    text = waiting.fails(results[0], "Nothing was sent", "fork", f"{TIMEOUT // 1000} s")
    assert not waiting.queue() and MAY_ANSWER not in text and MAY_WORK not in text
    running.fails(results[1], MAY_WORK, "look at the session")
    stuck.fails(results[2], MAY_ANSWER, "look at the session")
    assert len(stuck.queue()) == 1 and len(running.holder.taken) == 1
    nothing_left(bench, waiting.client, refusing)


def test_a_cancelled_call_takes_its_message_back_and_the_next_one_is_answered(
    bench: Any, opened: Any
) -> None:
    there, running = opened("nobody"), opened()
    ids = [there.call("never"), running.call("first\nFAKE:gate one\nFAKE:say one")]
    there.is_queued()
    running.is_taken()
    for id in ids:
        there.client.notify("notifications/cancelled", {"requestId": id})
    there.bench.wait(lambda: not there.queue(), "withdrawal")
    nothing_left(bench, there.client)
    assert [there.client.responses(id) for id in ids] == [[], []]
    assert not there.turns() and len(running.turns()) == 1  # it cannot be interrupted from here
    running.holder.open("one")
    there.holder.mode = ""
    ids = [there.call("next\nFAKE:say next"), running.call("second\nFAKE:say two")]
    there.answers(there.client.result(ids[0]), "next")
    assert running.client.result(ids[1])["structuredContent"]["reply"] == "two"
    assert [len(one.holder.taken) for one in (there, running)] == [1, 2]


def test_when_the_server_leaves_nothing_is_left_of_it(bench: Any, opened: Any) -> None:
    endings = ("eof", "SIGTERM", "SIGINT", "SIGKILL")
    those = []
    for _ in endings:
        server = bench.start()
        those.append([opened("nobody", server), opened("endless", server)])
        for one in those[-1]:
            one.call("never")
    for waiting, running in those:
        waiting.is_queued()
        running.is_taken()
    for ending, (waiting, _) in zip(endings, those):
        if ending == "eof":
            waiting.client.process.stdin.close()
        else:
            waiting.client.signal(ending)
    for ending, (waiting, _) in zip(endings, those):
        waiting.client.process.wait(GONE)
        # Only a server that was killed cannot take its message back.
        assert len(waiting.queue()) == (ending == "SIGKILL") and not waiting.turns(), ending
        assert "Traceback" not in "\n".join(waiting.client.errors)
    nothing_left(bench)


# -- 5. whoever has it open goes away --------------------------------------------------------------


def test_when_the_window_is_closed_a_queued_message_is_answered_without_it(
    bench: Any, opened: Any
) -> None:
    there, killed = opened("nobody"), opened("nobody")
    ids = [there.call("wait for me"), killed.call("wait for me")]
    for one in (there, killed):
        one.is_queued()
    there.holder.__exit__()  # its file goes with the lock
    killed.holder._left.set()  # the file stays
    killed.holder._lock.close()
    for one, id in zip((there, killed), ids):
        result = one.client.result(id, 40)
        assert "You sent 1 messages" in result["structuredContent"]["reply"]
        assert OPEN not in text_of(result)
        assert not one.queue() and not one.holder.taken and len(one.turns()) == 1
    killed.holder._lock = None


def test_when_the_window_is_closed_during_the_turn_the_call_says_so(
    bench: Any, opened: Any
) -> None:
    there = opened("endless")
    id = there.call()
    there.is_taken()
    there.holder.__exit__()
    there.fails(there.client.result(id, 30), "gone", MAY_WORK)
    nothing_left(bench, there.client)
    result = there.chat("FAKE:say On our own.\nFAKE:session\nFAKE:completed")
    assert OPEN not in text_of(result)


# -- 6. an index that misbehaves -------------------------------------------------------------------

ANSWERED, FAILED = True, False
#: What goes wrong, and whether the call is answered all the same. At `start` and `initialize`, and
#: before the message is queued, a failure means that nothing was sent.
TROUBLES = {
    "start and greeting": {
        "start silent": FAILED,
        "start die": FAILED,
        "start garbage": ANSWERED,
        "start child": ANSWERED,
        "end ignore": ANSWERED,
        "initialize die 3": FAILED,
        "initialize late 1": ANSWERED,
    },
    "before": {
        "thread/turns/list silent": FAILED,
        "thread/turns/list die": FAILED,
        "thread/turns/list garbage": ANSWERED,
        "thread/turns/list error": FAILED,
        "thread/turns/list unknown": FAILED,
        "thread/turns/list wrong-id": FAILED,
        "thread/turns/list junk": ANSWERED,
    },
    "queueing": {
        "thread/queue/add silent": FAILED,
        "thread/queue/add die": FAILED,
        "thread/queue/add error": FAILED,
        "thread/queue/add wrong-id": FAILED,
        "thread/queue/add empty": ANSWERED,
        "thread/queue/add twice": ANSWERED,
        "thread/queue/add asks": ANSWERED,
    },
    "floods": {
        "thread/turns/list flood": FAILED,
        "thread/queue/add long-line": FAILED,
        "thread/turns/list close-stdout": FAILED,
    },
}


@pytest.mark.parametrize("which", TROUBLES)
def test_an_index_that_misbehaves_costs_the_call_at_most(
    bench: Any, opened: Any, which: str
) -> None:
    troubles = TROUBLES[which]
    those = [opened("", bench.start(env={"FAKE_INDEX": trouble}), 0.5) for trouble in troubles]
    ids = [one.call("FAKE:say The answer.", timeout_ms=LONG) for one in those]
    for one, id, (trouble, answered) in zip(those, ids, troubles.items()):
        result = one.client.result(id, 60)
        if answered:
            one.answers(result, "The answer.")
            continue
        assert result.get("isError"), (trouble, result)
        queueing = trouble.startswith("thread/queue/add") and "error" not in trouble
        text = one.fails(result, MAY_ANSWER if queueing else "Nothing was sent")
        assert "The answer." not in text and len(one.holder.taken) == queueing, trouble
    nothing_left(bench, *(one.client for one in those))


def test_an_index_that_breaks_while_the_message_is_there_leaves_no_doubt_unsaid(
    bench: Any, opened: Any
) -> None:
    mishaps, those = ("silent", "die", "wrong-id", "types", "empty", "other-thread"), []
    for what in mishaps:
        own = Bench(os.path.join(bench.work, what))
        server = own.start()
        bench.clients.append(server)
        pair = [opened(mode, server, where=own) for mode in ("nobody", "endless")]
        those.append((own, server, pair, [one.call(timeout_ms=LONG) for one in pair]))
    for _, _, (waiting, running), _ in those:
        waiting.is_queued()
        running.is_taken()
    time.sleep(2)  # the server has seen the turn
    for what, (own, *_) in zip(mishaps, those):
        own.trouble(f"* {what}" if what == "die" else f"thread/turns/list {what}")
    for what, (own, server, (waiting, running), ids) in zip(mishaps, those):
        text = waiting.fails(server.result(ids[0]))
        if what == "die":
            assert MAY_ANSWER in text and len(waiting.queue()) == 1
        else:
            assert not waiting.queue() and ("Nothing was sent" in text or "taken back" in text)
        running.fails(server.result(ids[1]), MAY_WORK)
        assert len(running.holder.taken) == 1 and not waiting.turns()
        nothing_left(own, server)


def test_another_turn_with_an_answer_is_not_taken_for_ours(bench: Any, opened: Any) -> None:
    there = opened("other-reply")
    text = there.fails(there.chat(timeout_ms=TIMEOUT), MAY_WORK)
    assert "NOT FOR YOU" not in text and len(there.turns()) == 2


# -- 7. forks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", TURNS)
def test_a_fork_of_an_open_session_is_a_session_of_its_own(
    bench: Any, opened: Any, tool: str
) -> None:
    there = opened()
    begin = time.monotonic()
    arguments = dict(TOOLS[tool].required, session_id=there.id, fork=True)
    result = there.client.call(tool, arguments, token="p")
    assert time.monotonic() - begin < AT_ONCE
    structured = result["structuredContent"]
    assert structured["forked_from"] == there.id != structured["session_id"]
    assert structured["resume_command"] == bench.resume(structured["session_id"])
    first = text_of(result).split("\n")[0]
    assert f"session_id: {structured['session_id']}" in first
    assert f"forked_from: {there.id}" in first
    assert "You sent 1 messages before this one" in structured[TOOLS[tool].text]
    assert bench.resume(structured["session_id"]) in str(there.client.progress("p"))
    assert OPEN not in text_of(result)
    argv = bench.calls()[-1]["argv"]
    assert argv[-3:] == ["fork", there.id, "-"] and len(bench.calls()) == 1
    assert not there.turns() and not there.queue()

    again = there.client.chat("go on", session_id=structured["session_id"])
    assert session_of(again) == structured["session_id"]
    assert "You sent 2 messages before this one" in again["structuredContent"]["reply"]
    assert "forked_from" not in again["structuredContent"]
    assert "forked_from" not in text_of(again)
    assert len(rollouts(bench.home, "")) == 2


def test_a_fork_works_where_its_original_did_and_does_not_wait_for_it(bench: Any) -> None:
    client = bench.start()
    where = os.path.join(bench.work, "where")
    os.mkdir(where)
    original = session_of(client.chat("first", cwd=where))
    prompt = "FAKE:session\nFAKE:gate one\nFAKE:say one\nFAKE:completed"
    running = client.start_call(CHAT, {"prompt": prompt, "session_id": original})
    bench.reached("one")
    forks = [
        client.start_call(CHAT, {"prompt": f"copy {n}", "session_id": original, "fork": True})
        for n in range(2)
    ]
    results = [client.result(id) for id in forks]
    assert len({original, *map(session_of, results)}) == 3
    for call in bench.calls()[-2:]:
        assert call["argv"][call["argv"].index("-C") + 1] == where
    bench.open("one")
    assert session_of(client.result(running)) == original
    fork = session_of(results[0])
    again = client.chat("go on", session_id=fork)
    argv = bench.calls()[-1]["argv"]
    assert session_of(again) == fork and argv[argv.index("-C") + 1] == where


def test_a_fork_of_a_fork_names_the_session_it_was_copied_from(bench: Any) -> None:
    client = bench.start()
    first = session_of(client.chat("first"))
    second = client.chat("second", session_id=first, fork=True)
    third = client.chat("third", session_id=session_of(second), fork=True)
    assert third["structuredContent"]["forked_from"] == session_of(second)
    assert "You sent 2 messages" in third["structuredContent"]["reply"]


@pytest.mark.parametrize("value", [False, None, "", "false"])
def test_a_fork_that_is_not_wanted_is_none(bench: Any, value: Any) -> None:
    client = bench.start()
    first = session_of(client.chat("first"))
    result = client.call(CHAT, {"prompt": "second", "session_id": first, "fork": value})
    if value == "false" and result.get("isError"):
        assert "fork" in text_of(result)
        return
    assert session_of(result) == first and "forked_from" not in result["structuredContent"]


def test_a_fork_without_a_session_is_refused(bench: Any) -> None:
    client = bench.start()
    for tool in TURNS:
        result = client.call(tool, dict(TOOLS[tool].required, fork=True))
        assert result["isError"] and "session_id" in text_of(result)
        assert "Nothing was sent" in text_of(result)
    assert not bench.calls()


def test_a_fork_of_an_unknown_session_is_refused_and_offers_none(bench: Any) -> None:
    client = bench.start()
    unknown = "01a20d52-0000-7000-8000-000000000000"
    result = client.chat("hello", session_id=unknown, fork=True)
    text = text_of(result)
    assert result["isError"] and "no rollout found" in text and "session_id" in text
    assert "codex resume " + unknown not in text and "backtrace" not in text.lower()
    assert rollouts(bench.home, "") == []


@pytest.mark.parametrize("version", ["0.77.0", "0.142.5", "0.147.0"])
def test_a_version_that_cannot_fork_is_told_so_in_words(bench: Any, version: str) -> None:
    client = bench.start(env={"FAKE_CODEX_VERSION": version})
    session = session_of(client.chat("first"))
    for tool in (CHAT, PLAN, FINAL):
        given = dict(TOOLS[tool].required, session_id=session, fork=True)
        result = client.call(tool, given)
        text = text_of(result)
        assert result["isError"] and "0.148" in text and "fork" in text
        assert "npm install -g @openai/codex" in text and "unexpected argument" not in text
    assert len(bench.calls()) == 1


def test_a_fork_that_is_stopped_or_fails_names_the_copy(bench: Any) -> None:
    client = bench.start()
    original = session_of(client.chat("first"))
    for more, words in (("FAKE:hang", "within 3 s"), ("FAKE:failed on strike", "on strike")):
        prompt = "FAKE:session\nFAKE:started\n" + more
        result = client.chat(prompt, session_id=original, fork=True, timeout_ms=3000)
        text, copy = text_of(result), bench.calls()[-1]["session"]
        assert result["isError"] and words in text
        assert copy != original and f"session_id: {copy}" in text
        assert f"codex resume {original}" not in text
        assert session_of(client.chat("go on", session_id=copy)) == copy
