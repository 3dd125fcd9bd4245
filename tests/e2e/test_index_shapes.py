"""Codex's index as the fake codex shows it has the shapes of the real one's, 0.169.0 and 0.77.0."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from typing import Any, Callable, Dict, List

import pytest

import fake_store as store
from client import BOUND, HERE
from real import Real, wait

FAKE = os.path.join(HERE, "fake_codex.py")
UNKNOWN = "019f0000-0000-7000-8000-000000000000"
LIST = {"sourceKinds": ["cli", "vscode", "exec", "appServer"], "modelProviders": []}
OPTIONS = ["-c", "features.plugins=false", "-c", 'personality="none"', "app-server"]
#: What depends on the machine, the model or the text, and so may differ in type or is not told.
LOOSE = {"nextCursor", "backwardsCursor", "readStates", "readState", "gitInfo"}


class Side:
    """One of the two, the real Codex or the fake: its home, its runs, its app-server."""

    def __init__(self, command: List[str], env: Dict[str, str], work: str) -> None:
        self.command, self.env, self.work = command, env, work
        self._apps: List[App] = []

    @property
    def home(self) -> str:
        return self.env["CODEX_HOME"]

    def begin(self, prompt: str, *words: str) -> subprocess.Popen:
        """Starts `codex exec`."""
        line = ["exec", "--skip-git-repo-check", "--json", "-C", self.work, *words, "-"]
        run = subprocess.Popen(
            self.command + line,
            env=self.env,
            cwd=self.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert run.stdin
        run.stdin.write(prompt.encode())
        run.stdin.close()
        run.stdin = None
        return run

    def exec(self, prompt: str, *words: str) -> Dict[str, Any]:
        """Runs `codex exec`: session id, types of the events, exit code, the line of the error."""
        run = self.begin(prompt, *words)
        out, err = run.communicate(timeout=BOUND)
        events = [json.loads(line) for line in out.splitlines()]
        errors = [line for line in err.decode().splitlines() if line.lower().startswith("error: ")]
        return {
            "id": events[0].get("thread_id") if events else None,
            "types": [event["type"] for event in events if event["type"] != "item.completed"],
            "code": run.returncode,
            "error": errors[0] if errors else "",
        }

    def app(self, experimental: bool = True) -> App:
        app = App(self, experimental)
        self._apps.append(app)
        return app

    def close(self) -> None:
        for app in self._apps:
            app.close()


class App:
    """A client of `codex app-server` over its pipes."""

    def __init__(self, side: Side, experimental: bool) -> None:
        self.process = subprocess.Popen(
            side.command + OPTIONS,
            env=side.env,
            cwd=side.work,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._asked = 0
        client = {"name": "shapes", "title": "shapes", "version": "1"}
        capabilities = {"experimentalApi": experimental}
        self.early = self.ask("thread/list", limit=1)
        self.initialized = self.ask("initialize", clientInfo=client, capabilities=capabilities)
        self.send({"method": "initialized"})

    def send(self, message: Dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> Dict[str, Any]:
        """The answer to a request, without its id."""
        self._asked += 1
        self.send({"id": self._asked, "method": method, "params": params})
        assert self.process.stdout
        for line in self.process.stdout:
            message = json.loads(line)
            if "method" not in message:
                assert message.pop("id") == self._asked
                return dict(message)
        raise AssertionError("the app-server left")

    def turns(self, id: str) -> List[Dict[str, Any]]:
        return list(self.ask("thread/turns/list", threadId=id, limit=5)["result"]["data"])

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()


def shape(value: Any) -> Any:
    """The members of a value and their types, in a comparable form."""
    if isinstance(value, dict):
        return {key: "-" if key in LOOSE else shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(member) for member in value]
    return type(value).__name__


def masked(value: Any, *ids: str) -> str:
    """An answer as text without what differs from one session to the next."""
    text = json.dumps(value, sort_keys=True)
    for id in ids:
        text = text.replace(id, "ID")
    return text


@pytest.fixture
def sides(newest: Real, tmp_path: Any) -> Any:
    yield from both(newest, tmp_path)


@pytest.fixture
def all_sides(real: Real, tmp_path: Any) -> Any:
    yield from both(real, tmp_path)


def both(real: Real, tmp_path: Any) -> Any:
    home, work = str(tmp_path / "home"), str(tmp_path / "work")
    os.mkdir(home)
    os.mkdir(work)
    env = dict(os.environ, CODEX_HOME=home, FAKE_CODEX_DIR=home, FAKE_CODEX_VERSION=real.version)
    env.update(FAKE_INDEX="", FAKE_CODEX_DO="")
    found = [
        Side([real.codex], real.env_of_a_person(), real.work),
        Side([sys.executable, FAKE], env, work),
    ]
    yield found
    for side in found:
        side.close()


def same(sides: List[Side], look: Callable[[Side], Any]) -> Any:
    """What `look` finds, which must be the same on both sides; returns it."""
    real, fake = look(sides[0]), look(sides[1])
    assert fake == real
    return real


GOOD = "FAKE:session\nFAKE:started\nFAKE:say hello\nFAKE:completed\nMODEL:SAY hello"
FAILS = "FAKE:session\nFAKE:started\nFAKE:failed on strike\nMODEL:FAIL 500"
LASTS = "FAKE:session\nFAKE:started\nFAKE:hang\nMODEL:WAIT 60"


def test_sessions_and_turns_have_the_same_members_of_the_same_types(sides: List[Side]) -> None:
    def look(side: Side) -> Any:
        good, failed = side.exec(GOOD), side.exec(FAILS)
        side.exec(GOOD, "resume", str(good["id"]))
        app = side.app()
        listed = app.ask("thread/list", limit=10, sortKey="updated_at", cwd=side.work, **LIST)
        data = listed["result"]["data"]
        assert [thread["id"] for thread in data] == [good["id"], failed["id"]]
        assert [thread["preview"] for thread in data] == [GOOD, FAILS]
        assert {thread["status"]["type"] for thread in data} == {"notLoaded"}
        read = app.ask("thread/read", threadId=good["id"], includeTurns=False)
        turns = app.ask("thread/turns/list", threadId=good["id"], limit=5)
        last, first = turns["result"]["data"]
        assert first["startedAt"] <= last["startedAt"]
        texts = [[item["type"], item.get("text")] for item in last["items"]]
        assert texts == [["userMessage", None], ["agentMessage", "hello"]]
        assert last["items"][0]["content"][0]["text"] == GOOD
        states = [(turn["status"], turn["error"] is None) for turn in app.turns(failed["id"])]
        broken = app.ask("thread/turns/list", threadId=failed["id"], limit=5)
        page = app.ask("thread/list", limit=1, **LIST)["result"]
        more = app.ask("thread/list", limit=1, cursor=page["nextCursor"], **LIST)["result"]
        # The real one tells threadSource only for one session, not in the list.
        for thread in data:
            thread["threadSource"] = read["result"]["thread"]["threadSource"]
        return [
            states,
            [shape(one) for one in (app.initialized, listed, read, turns, broken)],
            [len(page["data"]), len(more["data"]), more["nextCursor"]],
            [one["types"] + [one["code"]] for one in (good,)],
        ]

    assert same(sides, look)[0] == [("failed", False)]


def test_a_turn_that_runs_elsewhere_and_one_that_was_stopped(sides: List[Side]) -> None:
    def look(side: Side) -> Any:
        run = side.begin(LASTS)
        assert run.stdout
        id = json.loads(run.stdout.readline())["thread_id"]
        app = side.app()
        wait(lambda: "result" in app.ask("thread/read", threadId=id) and app.turns(id), "the turn")
        running = app.turns(id)
        read = app.ask("thread/read", threadId=id)
        held = store.hold(side.home, id) is None
        os.killpg(run.pid, signal.SIGINT)
        run.communicate(timeout=BOUND)
        stopped = wait(lambda: app.turns(id)[0]["completedAt"] and app.turns(id), "the end")
        lock = store.hold(side.home, id)
        store.release(side.home, id, lock)
        return [
            [running[0]["status"], running[0]["completedAt"], running[0]["durationMs"]],
            [stopped[0]["status"], stopped[0]["error"]],
            [shape(running), shape(stopped), read["result"]["thread"]["status"]],
            [held, lock is not None],
        ]

    found = same(sides, look)
    assert found[0] == ["interrupted", None, None] and found[1] == ["interrupted", None]
    assert found[3] == [True, True]


def test_the_queue_is_served_by_whoever_holds_the_session(sides: List[Side]) -> None:
    message = {"input": [{"type": "text", "text": GOOD}], "clientUserMessageId": "ours"}

    def look(side: Side) -> Any:
        id = str(side.exec(GOOD)["id"])
        app = side.app()
        queue = {"threadId": id}
        alone = app.ask("thread/queue/add", **queue, **message)
        listed = app.ask("thread/queue/list", **queue)
        submission = {"queuedSubmissionId": alone["result"]["queuedSubmission"]["id"]}
        deleted = [app.ask("thread/queue/delete", **queue, **submission) for _ in range(2)]
        holder = store.Holder(side.home, id) if side is sides[1] else None
        if holder:
            holder.__enter__()
        else:
            assert "result" in side.app().ask("thread/resume", threadId=id)
        refused = side.exec(GOOD, "resume", id)
        app.ask("thread/queue/add", **queue, **message)

        def begun() -> Any:  # the real one shows the turn for a moment without its message
            turns = app.turns(id)
            return turns if len(turns) > 1 and turns[0]["items"] else None

        taken = wait(begun, "turn of the holder")
        left = app.ask("thread/queue/list", **queue)
        wait(lambda: app.turns(id)[0]["completedAt"], "end of the holder's turn")
        turns = app.turns(id)
        if holder:
            holder.__exit__()
        assert taken[0]["items"][0]["clientId"] == "ours"
        return [
            [shape(one) for one in (alone, listed, left, turns)],
            deleted,
            [(turn["status"], turn["items"][0]["clientId"]) for turn in turns],
            [turns[0]["items"][1]["text"], refused["code"], refused["error"].replace(id, "ID")],
        ]

    assert same(sides, look)[2] == [("completed", "ours"), ("completed", None)]


def test_a_fork_has_its_own_id_and_the_turns_of_its_original(sides: List[Side]) -> None:
    def look(side: Side) -> Any:
        original = str(side.exec(GOOD)["id"])
        fork = side.exec("Go on.\n" + GOOD, "fork", original)
        unknown = side.exec(GOOD, "fork", UNKNOWN)
        app = side.app()
        thread = app.ask("thread/read", threadId=fork["id"])["result"]["thread"]
        assert fork["id"] != original and thread["forkedFromId"] == original
        return [
            [fork["types"], fork["code"], thread["preview"]],
            [len(app.turns(original)), len(app.turns(fork["id"])), shape(app.turns(fork["id"]))],
            [unknown["types"], unknown["code"], unknown["error"]],
        ]

    assert same(sides, look)[1][:2] == [1, 2]


def test_an_archived_session_is_found_and_a_named_one_has_its_name(sides: List[Side]) -> None:
    def look(side: Side) -> Any:
        kept, gone = str(side.exec(GOOD)["id"]), str(side.exec(GOOD)["id"])
        subprocess.run(
            side.command + ["archive", gone],
            env=side.env,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        app = side.app()
        named = app.ask("thread/name/set", threadId=kept, name="the cat")
        lists = [app.ask("thread/list", archived=one, **LIST)["result"] for one in (False, True)]
        path = app.ask("thread/read", threadId=gone)["result"]["thread"]["path"]
        refused = [side.exec(GOOD, word, gone) for word in ("resume", "fork")]
        assert [[one["id"] for one in answer["data"]] for answer in lists] == [[kept], [gone]]
        assert lists[0]["data"][0]["name"] == "the cat"
        return [
            named,
            os.path.relpath(path, side.home).split(os.sep)[0],
            [(one["code"], one["error"].replace(gone, "ID")) for one in refused],
            len(app.turns(gone)),
        ]

    assert same(sides, look)[1] == "archived_sessions"


def test_refusals_are_the_same(sides: List[Side]) -> None:
    def look(side: Side) -> Any:
        id = str(side.exec(GOOD)["id"])
        app, plain = side.app(), side.app(experimental=False)
        text = {"input": [{"type": "text", "text": "x"}]}
        queued = dict(text, clientUserMessageId="c")
        answers = [
            app.early,
            app.ask("thread/read", threadId=UNKNOWN),
            app.ask("thread/turns/list", threadId=UNKNOWN, limit=1),
            app.ask("thread/read", threadId="nonsense"),
            app.ask("thread/read"),
            app.ask("thread/list", limit=-1),
            app.ask("thread/list", cwd=7),
            app.ask("thread/list", sourceKinds=["x"]),
            app.ask("thread/list", cursor="x"),
            app.ask("thread/name/set", threadId=UNKNOWN, name="x"),
            app.ask("thread/queue/add", threadId=id, **text),
            app.ask("thread/queue/add", threadId=UNKNOWN, **queued),
            app.ask("thread/queue/add", threadId=id, clientUserMessageId="c", input=[]),
            app.ask("thread/queue/list", threadId=UNKNOWN),
            app.ask("thread/queue/delete", threadId=id, queuedSubmissionId=str(uuid.UUID(int=1))),
            plain.ask("thread/queue/list", threadId=id),
        ]
        return [masked(answer, id) for answer in answers]

    same(sides, look)


def test_what_a_version_lacks_is_an_unknown_variant(all_sides: List[Side]) -> None:
    def look(side: Side) -> Any:
        side.exec(GOOD)
        app = side.app()
        errors = [
            app.ask(method, threadId=UNKNOWN, limit=1).get("error", {})
            for method in ("x/y", "thread/read", "thread/turns/list", "thread/queue/list")
        ]
        return [
            [(one.get("code"), one.get("message", "").split(",")[0]) for one in errors],
            sorted(app.initialized["result"]),
            "result" in app.ask("thread/list", limit=1, useStateDbOnly=True, cwd="/", **LIST),
        ]

    same(all_sides, look)


def test_the_end_of_its_input_and_sigterm_end_it_at_once(sides: List[Side]) -> None:
    for side in sides:
        ended = []
        for end in ("input", "signal"):
            app = App(side, True)
            begun = time.monotonic()
            assert app.process.stdin and app.process.stdout
            if end == "input":
                app.process.stdin.close()
            else:
                app.process.terminate()
            ended.append(app.process.wait(10))
            assert time.monotonic() - begun < 10
            app.process.stdout.close()
        assert ended[0] == 0
