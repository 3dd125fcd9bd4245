"""`codex app-server` over its pipes, as the fake codex runs it: Codex's index of its own sessions.

It answers as the version in FAKE_CODEX_VERSION does. Each start and each message is noted in
$FAKE_CODEX_DIR/index.jsonl (pid, and argv or method and params). How it misbehaves is told by
FAKE_INDEX, and by the file $FAKE_CODEX_DIR/index-do, which is read again at each point: one
`POINT WHAT [ARGUMENT]` a line (or between semicolons). `POINT` is `start`, `initialize`,
`initialized`, a method, `*` for each method after initialize, or `end`. In place of the answer:

    silent            half       half an answer, then nothing     gate NAME  waits, then answers
    die [CODE]        flood      notifications without end        late SECONDS
    close-stdout      long-line  a line without end               huge MEGABYTES  of padding in it
    garbage           lines that are no messages, then the answer
    list, null, text, number, empty       such a result
    missing           objects without their members   types    members of wrong types   junk   both
    wrong-id          another request's id            string-id    its id as text
    other-thread      the answer is about another session
    verbose [MEGABYTES]   padding only where all items of turns are asked for
    error, error-odd, error-null, both    errors, odd ones; a result and an error
    unknown           the version does not know the method
    twice             the answer twice                asks       first a request, of the same id
    forgets           (thread/queue/add) the message is taken and forgotten
    refuse            (thread/queue/delete) {"deleted": false}; the message stays
    keeps             (thread/queue/delete) {"deleted": true}; the message stays

At `start`: silent, die, flood, long-line, garbage, `child` and `child-detached` (a child that holds
its pipes for two minutes). At `end`: `ignore` (end of input and SIGTERM do not end it).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from typing import Any, Dict, List, NoReturn, Optional, Tuple

import fake_store as store

HOME = os.environ.get("CODEX_HOME") or os.path.expanduser("~/.codex")
NOTES = os.environ.get("FAKE_CODEX_DIR") or HOME
VERSION_TEXT = os.environ.get("FAKE_CODEX_VERSION") or "0.169.0"
VERSION = tuple(int(part) for part in re.findall("[0-9]+", VERSION_TEXT)[:3])
PROVIDER = os.environ.get("FAKE_CODEX_PROVIDER") or "fake"
OTHER = "01a20d52-0000-7000-8000-000000000000"

#: Seconds after which it leaves in any case.
BOUND = 120.0

#: The methods and the version from which on they exist.
METHODS = {
    "initialize": (0, 0),
    "thread/list": (0, 0),
    "thread/archive": (0, 0),
    "thread/resume": (0, 0),
    "thread/loaded/list": (0, 80),
    "thread/read": (0, 98),
    "thread/name/set": (0, 98),
    "thread/unarchive": (0, 98),
    "thread/turns/list": (0, 125),
    "thread/queue/add": (0, 148),
    "thread/queue/list": (0, 148),
    "thread/queue/delete": (0, 148),
}
SOURCES = ("cli", "vscode", "exec", "appServer")
SOURCES += ("subAgent", "subAgentReview", "subAgentCompact", "subAgentThreadSpawn")
SOURCES += ("subAgentOther", "unknown")

Json = Dict[str, Any]


class Refusal(Exception):
    """An error response."""

    def __init__(self, message: str, code: int = -32600, data: Optional[Json] = None) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message}
        if data:
            self.error["data"] = data


def write(data: bytes) -> None:
    """Writes to standard output; the process is over when nobody reads it any more."""
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        os._exit(0)


def send(message: Json) -> None:
    write(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")


def tell(method: str, **params: Any) -> None:
    message: Json = {"method": method, "params": params}
    if VERSION >= (0, 150):
        message["emittedAtMs"] = int(time.time() * 1000)
    send(message)


def note(**what: Any) -> None:
    line = json.dumps(dict({"pid": os.getpid(), "at": time.time()}, **what)).encode() + b"\n"
    fd = os.open(os.path.join(NOTES, "index.jsonl"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, line)
    os.close(fd)


def swallow() -> NoReturn:
    """Reads, and says nothing any more."""
    sys.stdin.buffer.read()
    if trouble("end")[0] == "ignore":
        linger()
    os._exit(0)


def linger() -> NoReturn:
    """Does nothing any more, neither at the end of the input."""
    time.sleep(BOUND)
    os._exit(0)


# -- misbehaviour ----------------------------------------------------------------------------------


def trouble(*points: str) -> Tuple[str, str]:
    """What goes wrong at one of these points, and its argument."""
    told = os.environ.get("FAKE_INDEX", "")
    try:
        with open(os.path.join(NOTES, "index-do"), encoding="utf-8") as file:
            told += "\n" + file.read()
    except OSError:
        pass
    for line in re.split("[\n;]", told):
        point, _, what = line.strip().partition(" ")
        if point in points:
            name, _, argument = what.strip().partition(" ")
            return name, argument
    return "", ""


def flood() -> NoReturn:
    line = b'{"method":"some/thing/new","params":{"threadId":"' + OTHER.encode() + b'"}}\n'
    end = time.monotonic() + BOUND
    while time.monotonic() < end:
        write(line * 500)
    os._exit(0)


def long_line() -> NoReturn:
    end = time.monotonic() + BOUND
    write(b'{"method":"')
    while time.monotonic() < end:
        write(b"x" * (1 << 16))
    os._exit(0)


GARBAGE = (
    b'hello\n\n\xff\xfe\n[1,2]\n"text"\nnull\n7\n{}\n{"id":true}\n{"method":7}\n{"id":[]}\n'
    b'{"method":"turn/completed","params":[]}\n{"id":null,"result":{}}\n{"result":{"data":[]}}\n'
)


def die(code: str) -> NoReturn:
    sys.stderr.write("thread 'main' panicked at codex-rs/app-server/src/main.rs:1:1:\nfake panic\n")
    sys.stderr.flush()
    os._exit(int(code or 101))


def grandchild(detached: bool) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=detached
    )
    with open(os.path.join(NOTES, "grandchildren"), "a") as file:
        file.write(f"{child.pid}\n")


def wrong_types(value: Any) -> Any:
    """The same members, each of another type."""
    if isinstance(value, dict):
        return {key: wrong_member(member) for key, member in value.items()}
    if isinstance(value, list):
        return [wrong_types(member) for member in value]
    return wrong_member(value)


def wrong_member(value: Any) -> Any:
    if isinstance(value, (dict, list)) and value:
        return wrong_types(value)
    if isinstance(value, str):
        return 7
    if isinstance(value, bool) or value is None:
        return [True]
    return "x" if isinstance(value, (int, float)) else True


def missing(value: Any) -> Any:
    """The outline of `value`: its objects inside of lists have no members."""
    if isinstance(value, dict):
        return {k: missing(v) if isinstance(v, list) else {} for k, v in value.items() if v}
    return [{} for _ in value] if isinstance(value, list) else value


def junk(value: Json) -> Json:
    """What a list must not have in it, beside what is right."""
    odd: List[Any] = [None, 7, "text", [], {}, {"id": 5}, [1], True, {"id": None, "items": 3}]
    return {k: odd + wrong_types(v) + v if isinstance(v, list) else v for k, v in value.items()}


def spoiled(what: str, argument: str, answer: Json, method: str) -> Optional[Json]:
    """The answer to send instead of `answer`, if there is one to send."""
    id, result = answer["id"], answer.get("result")
    if what == "silent":
        return None
    if what == "half":
        write(json.dumps(answer).encode()[: len(json.dumps(answer)) // 2])
        return None
    if what == "die":
        die(argument)
    elif what == "flood":
        flood()
    elif what == "long-line":
        long_line()
    elif what == "close-stdout":
        os.close(1)
        linger()
    elif what == "garbage":
        write(GARBAGE)
    elif what == "late":
        time.sleep(float(argument))
    elif what == "gate":
        gate(argument)
    elif what == "huge":
        answer["padding"] = "x" * (int(argument or 64) << 20)
    elif what == "verbose" and any(
        turn.get("itemsView") == "full" for turn in (result or {}).get("data", [])
    ):
        answer["padding"] = "x" * (int(argument or 64) << 20)
    elif what in ("list", "null", "text", "number", "empty"):
        odd = {"list": [7], "null": None, "text": "text", "number": 7, "empty": {}}
        return {"id": id, "result": odd[what]}
    elif what in ("missing", "types", "junk") and isinstance(result, dict):
        return {
            "id": id,
            "result": {"missing": missing, "types": wrong_types, "junk": junk}[what](result),
        }
    elif what == "wrong-id":
        answer["id"] = id + 1000
    elif what == "string-id":
        answer["id"] = str(id)
    elif what == "other-thread":
        text = json.dumps(answer)
        for one in set(re.findall(r'"(?:id|sessionId|threadId)": "([0-9a-f-]{36})"', text)):
            text = text.replace(one, OTHER)
        return dict(json.loads(text))
    elif what == "error":
        return {"error": {"code": -32603, "message": argument or "internal error"}, "id": id}
    elif what == "error-odd":
        return {"error": ["no object"], "id": id}
    elif what == "error-null":
        return {"error": None, "id": id}
    elif what == "both":
        answer["error"] = {"code": -32603, "message": "internal error"}
    elif what == "unknown":
        return {"error": Refusal(unknown(method)).error, "id": id}
    elif what == "twice":
        send(answer)
    elif what == "asks":
        send({"method": "item/commandExecution/requestApproval", "id": id, "params": {}})
    return answer


def gate(name: str) -> None:
    """Marks that the gate is reached, and waits until the test opens it."""
    open(os.path.join(NOTES, name + ".reached"), "w").close()
    end = time.monotonic() + BOUND
    while not os.path.exists(os.path.join(NOTES, name + ".open")) and time.monotonic() < end:
        time.sleep(0.005)


# -- what it knows ---------------------------------------------------------------------------------


def unknown(method: str) -> str:
    names = ", ".join(
        f"`{name}`" for name, since in METHODS.items() if VERSION >= since and name != method
    )
    return f"Invalid request: unknown variant `{method}`, expected one of {names}"


def seconds(at: Optional[float]) -> Optional[int]:
    return None if at is None else int(at)


def thread_of(one: store.Indexed) -> Json:
    """A session as thread/list and thread/read show it."""
    meta, path = one.meta, one.path
    thread: Json = {"id": one.id}
    new = VERSION >= (0, 150)
    if new:
        thread.update(environments=None, extra=None, sessionId=one.id)
    thread["forkedFromId"] = meta.get("forked_from")
    if new:
        thread.update(attachedToThreadId=None, parentThreadId=None)
    thread.update(preview=one.turns[0]["text"], ephemeral=False)
    if new:
        thread.update(section=None, sectionEnteredAt=None, projectId=None)
        thread["historyMode"] = "paginated"
    thread["modelProvider"] = meta["provider"]
    if new:
        thread.update(model="fake-model", reasoningEffort=None)
    thread.update(createdAt=seconds(meta["at"]), updatedAt=seconds(one.updated))
    if new:
        thread["recencyAt"] = seconds(one.turns[-1]["at"])
    thread.update(
        status={"type": "notLoaded"},
        path=re.sub(r"\.zst$", "", path) or None,
        cwd=meta["cwd"],
        cliVersion=meta["version"],
    )
    if new:
        thread["originator"] = "codex_exec"
    thread["source"] = meta["source"]
    if new:
        thread.update(canAcceptDirectInput=None, threadSource="user")
    thread.update(agentNickname=None, agentRole=None, gitInfo=None, name=one.name)
    if new:
        thread["daybreakEnabled"] = None
    thread["turns"] = []
    return thread


def user_item(turn: Json, new: bool) -> Json:
    item: Json = {"type": "userMessage", "id": turn["turn"].replace("-7", "-6")}
    if new:
        item["clientId"] = turn["client_id"]
    item["content"] = [{"type": "text", "text": turn["text"], "text_elements": []}]
    if new:
        item.update(startedAtMs=int(turn["at"] * 1000), completedAtMs=int(turn["at"] * 1000))
    return item


def agent_item(turn: Json, number: int, new: bool) -> Json:
    said = turn["says"][number]
    item: Json = {"type": "agentMessage"}
    if new:
        item["moderation"] = None
    item.update(id=f"msg_{number}", text=said["text"], phase=said["phase"], memoryCitation=None)
    if new:
        at = int(said["at"] * 1000)
        item.update(delivery=None, questions=None, startedAtMs=at, completedAtMs=at)
    return item


def turn_of(turn: Json, view: str) -> Json:
    """A turn as thread/turns/list shows it."""
    new = VERSION >= (0, 148)
    items: List[Json] = []
    numbers = list(range(len(turn["says"])))
    if new and view != "full":
        final = [n for n in numbers if turn["says"][n]["phase"] == "final_answer"]
        plain = [n for n in numbers if turn["says"][n]["phase"] is None]
        numbers = final[:1] or plain[-1:]
    if view != "notLoaded" or not new:
        items = [user_item(turn, new)] if turn["text"] else []
        items += [agent_item(turn, n, new) for n in numbers]
    wire: Json = {"id": turn["turn"]}
    if VERSION >= (0, 160):
        wire["rootTurnId"] = turn["turn"]
    wire["items"] = items
    if new:
        wire["itemsView"] = view
    status, error = turn["status"], None
    if status == "failed" and not new:
        status = "completed"  # it forgets failures
    elif status == "failed":
        error = {
            "message": turn["error"],
            "codexErrorInfo": "internalServerError",
            "additionalDetails": None,
            "misalignment": None,
        }
    ended = turn["ended"]
    wire.update(
        status=status,
        error=error,
        startedAt=seconds(turn["at"]),
        completedAt=seconds(ended),
        durationMs=None if ended is None else int((ended - turn["at"]) * 1000),
    )
    return wire


# -- the methods -----------------------------------------------------------------------------------


def need(params: Json, name: str) -> Any:
    if params.get(name) is None:
        raise Refusal(f"Invalid request: missing field `{name}`")
    return params[name]


def thread_id(params: Json) -> str:
    text = need(params, "threadId")
    try:
        return str(uuid.UUID(text))
    except (ValueError, AttributeError, TypeError):
        raise Refusal(
            "invalid thread id: invalid character: expected an optional prefix of `urn:uuid:` "
            f"followed by [0-9a-fA-F-], found `{str(text)[:1]}` at 1"
        ) from None


def session(params: Json, text: str = "thread not loaded: ", code: int = -32600) -> store.Indexed:
    id = thread_id(params)
    found = store.known(HOME, id)
    if not found:
        raise Refusal(text + id, code)
    return found


def limit_of(params: Json) -> int:
    limit = params.get("limit")
    if limit is None:
        return 25
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise Refusal("Invalid request: invalid type: expected u32")
    if limit < 0:
        raise Refusal(f"Invalid request: invalid value: integer `{limit}`, expected u32")
    return min(max(limit, 1), 100)


def thread_list(params: Json) -> Json:
    limit, kinds = limit_of(params), params.get("sourceKinds")
    key, cwd = params.get("sortKey") or "created_at", params.get("cwd")
    for kind in kinds or []:
        if kind not in SOURCES:
            names = ", ".join(f"`{name}`" for name in SOURCES)
            raise Refusal(f"Invalid request: unknown variant `{kind}`, expected one of {names}")
    if key not in ("created_at", "updated_at", "recency_at", "section_position"):
        raise Refusal(f"Invalid request: unknown variant `{key}`, expected one of `created_at`")
    if cwd is not None and not isinstance(cwd, (str, list)):
        raise Refusal(
            "Invalid request: data did not match any variant of untagged enum ThreadListCwdFilter"
        )
    found = store.everything(HOME) if VERSION >= (0, 98) else []
    providers = params.get("modelProviders")
    wanted = [PROVIDER] if providers is None else providers
    if wanted:
        found = [one for one in found if one.meta["provider"] in wanted]
    found = [one for one in found if one.meta["source"] in (kinds or SOURCES[:2])]
    if params.get("useStateDbOnly"):  # what an old Codex has made is not there
        found = [one for one in found if not one.meta["version"].startswith("0.77")]
    if cwd is not None and VERSION >= (0, 105):
        folders = {os.path.realpath(path) for path in ([cwd] if isinstance(cwd, str) else cwd)}
        found = [one for one in found if os.path.realpath(one.meta["cwd"]) in folders]
    archived = params.get("archived") is True
    found = [one for one in found if ("archived_sessions" in one.path) is archived]
    ordered = [
        (one.meta["at"] if key == "created_at" else one.updated, one.id, one) for one in found
    ]
    ordered.sort(key=lambda entry: entry[:2], reverse=params.get("sortDirection") != "asc")
    cursor = params.get("cursor")
    if cursor is not None:
        names = [cursor_of(at, id) for at, id, _ in ordered]
        if cursor not in names:
            raise Refusal(f"invalid cursor: {cursor}")
        ordered = ordered[names.index(cursor) + 1 :]
    page = ordered[:limit]
    answer: Json = {"data": [thread_of(one) for _, _, one in page]}
    if VERSION >= (0, 160):
        answer["readStates"] = {
            one.id: {"firstUnread": None, "revision": "initial:" + one.id} for _, _, one in page
        }
    answer["nextCursor"] = cursor_of(*page[-1][:2]) if len(ordered) > limit else None
    if VERSION >= (0, 98):
        answer["backwardsCursor"] = cursor_of(*page[0][:2]) if page else None
    return answer


def cursor_of(at: float, id: str) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{when}.{int(at * 1000) % 1000:03d}Z|{id}"


def thread_read(params: Json) -> Json:
    one = session(params)
    answer: Json = {"thread": thread_of(one)}
    if params.get("includeTurns"):
        answer["thread"]["turns"] = [turn_of(turn, "full") for turn in one.turns]
    if VERSION >= (0, 160):
        answer["readState"] = {"firstUnread": None, "revision": "initial:" + one.id}
    return answer


def turns_list(params: Json) -> Json:
    one, limit = session(params), limit_of(params)
    turns = one.turns if params.get("sortDirection") == "asc" else one.turns[::-1]
    cursor = params.get("cursor")
    if cursor is not None:
        names = [turn["turn"] for turn in turns]
        try:
            turns = turns[names.index(json.loads(cursor)["turnId"]) + 1 :]
        except (ValueError, KeyError, TypeError):
            raise Refusal(f"invalid cursor: {cursor}") from None
    page = turns[:limit]

    def mark(turn: Json, anchor: bool) -> str:
        return json.dumps({"turnId": turn["turn"], "includeAnchor": anchor}, separators=(",", ":"))

    return {
        "data": [turn_of(turn, params.get("itemsView") or "summary") for turn in page],
        "nextCursor": mark(page[-1], False) if len(turns) > limit else None,
        "backwardsCursor": mark(page[0], True) if page else None,
    }


def archived(params: Json, back: bool) -> Json:
    id = thread_id(params)
    found = store.rollouts(HOME, id)
    if not found or ("archived_sessions" in found[0]) is not back:
        raise Refusal(f"no {'archived ' * back}rollout found for thread id {id}")
    store.archive(HOME, id, back)
    return {}


def name_set(params: Json) -> Json:
    one = session(params, "no rollout found for thread id ")
    store.add(HOME, one.id, "name", name=need(params, "name"))
    return {}


NO_THREAD = "failed to read thread: invalid thread-store request: no rollout found for thread id "


def queue_add(params: Json, lose: bool) -> Json:
    client_id, given = need(params, "clientUserMessageId"), need(params, "input")
    one = session(params, NO_THREAD, -32603)
    text = "".join(part.get("text", "") for part in given)
    if not text:
        raise Refusal("only user input can be added to the user-message queue")
    if len(text) > 1 << 20:
        data = {"input_error_code": "input_too_large", "max_chars": 1048576}
        raise Refusal(
            "Input exceeds the maximum length of 1048576 characters.",
            -32602,
            dict(data, actual_chars=len(text)),
        )
    entry = {
        "id": str(uuid.uuid4()),
        "input": [{"type": "text", "text": part["text"], "text_elements": []} for part in given],
        "clientUserMessageId": client_id,
    }
    if VERSION >= (0, 160):
        entry["responsesapiClientMetadata"] = None
    if not lose:
        store.change_queue(HOME, one.id, lambda entries: entries + [entry])
    return {"queuedSubmission": entry}


def queue_delete(params: Json, what: str) -> Json:
    id, submission = thread_id(params), need(params, "queuedSubmissionId")
    if what in ("refuse", "keeps"):
        return {"deleted": what == "keeps"}
    before = store.change_queue(
        HOME, id, lambda entries: [one for one in entries if one["id"] != submission]
    )
    return {"deleted": any(one["id"] == submission for one in before)}


def resume(params: Json) -> Json:
    """The first step to be the session's writer. The program has no reason to try that here."""
    one = session(params, "no rollout found for thread id ")
    lock = store.hold(HOME, one.id)
    if not lock:
        raise Refusal(f"thread {one.id} already has an active writer")
    held.append(lock)
    return {"thread": dict(thread_of(one), status={"type": "idle"}), "cwd": one.meta["cwd"]}


held: List[Any] = []


def result_of(method: str, params: Json, experimental: bool, what: str) -> Json:
    """The result of a request."""
    if method.startswith("thread/queue/") and not experimental:
        raise Refusal(f"{method} requires experimentalApi capability")
    if method == "thread/list":
        return thread_list(params)
    if method == "thread/read":
        return thread_read(params)
    if method == "thread/turns/list":
        return turns_list(params)
    if method in ("thread/archive", "thread/unarchive"):
        return archived(params, method == "thread/unarchive")
    if method == "thread/name/set":
        return name_set(params)
    if method == "thread/queue/add":
        return queue_add(params, what == "forgets")
    if method == "thread/queue/list":
        one = session(params, NO_THREAD, -32603)
        return {"data": store.queue(HOME, one.id), "nextCursor": None}
    if method == "thread/queue/delete":
        return queue_delete(params, what)
    if method == "thread/resume":
        return resume(params)
    return {"data": [], "nextCursor": None}  # thread/loaded/list


# -- the conversation ------------------------------------------------------------------------------


def initialized(params: Json, name: str) -> Json:
    answer: Json = {"userAgent": f"{name}/{VERSION_TEXT} (Debian 12.0.0; x86_64) xterm ({name}; 1)"}
    if VERSION >= (0, 98):
        answer.update(codexHome=HOME, platformFamily="unix", platformOs="linux")
    return answer


class Conversation:
    """What one client said so far."""

    def __init__(self) -> None:
        self.ready = self.experimental = False

    def receive(self, message: Json) -> None:
        method, id, params = message.get("method"), message.get("id"), message.get("params") or {}
        note(method=method, params=params)
        if id is None or not isinstance(method, str):
            if method == "initialized" and trouble("initialized")[0]:
                self._mishap(*trouble("initialized"))
            return
        points = (method,) if method == "initialize" else (method, "*")
        what, argument = trouble(*points)
        try:
            if what in ("error", "unknown"):  # an error answer means that nothing was done
                raise Refusal(argument or "internal error", -32603)
            answer = {"id": id, "result": self._result(method, params, what)}
        except Refusal as refusal:
            answer = {"error": refusal.error, "id": id}
        if what:
            spoilt = spoiled(what, argument, answer, method)
            if spoilt is None:
                return
            answer = spoilt
        send(answer)
        if method == "initialize" and self.ready:
            tell("configWarning", summary="Codex could not find bubblewrap on PATH.", details=None)
            if VERSION >= (0, 150):
                tell("remoteControl/status/changed", status="disabled", environmentId=None)
        if method == "thread/name/set" and "result" in answer:
            tell("thread/name/updated", threadId=params["threadId"], threadName=params["name"])

    def _mishap(self, what: str, argument: str) -> None:
        """Something goes wrong where nothing is to be answered."""
        if what == "silent":
            swallow()
        spoiled(what, argument, {"id": 0, "result": {}}, "")

    def _result(self, method: str, params: Json, what: str) -> Json:
        if method not in METHODS or VERSION < METHODS[method]:
            raise Refusal(unknown(method))
        if method == "initialize":
            if self.ready:
                raise Refusal("Already initialized")
            client = need(params, "clientInfo")
            capabilities = params.get("capabilities") or {}
            self.experimental = capabilities.get("experimentalApi") is True
            self.ready = True
            return initialized(params, client["name"])
        if not self.ready:
            raise Refusal("Not initialized")
        return result_of(method, params, self.experimental, what)


def main(arguments: List[str]) -> None:
    """Serves until its input ends."""
    note(argv=arguments, cwd=os.getcwd(), marker=os.environ.get("CODEX_PERSISTENT_MCP_ACTIVE"))
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    if trouble("end")[0] == "ignore":
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_IGN)
    sys.stderr.write(
        "WARNING: proceeding, even though we could not create PATH aliases: Refusing to create\n"
        "\x1b[2m2026-11-25T17:39:55.574213Z\x1b[0m \x1b[31mERROR\x1b[0m codex_app_server: "
        "Codex could not find bubblewrap on PATH.\n"
    )
    sys.stderr.flush()
    what, argument = trouble("start")
    if what.startswith("child"):
        grandchild(what == "child-detached")
    elif what == "silent":
        swallow()
    elif what:
        spoiled(what, argument, {"id": 0, "result": {}}, "")
    conversation = Conversation()
    for line in sys.stdin.buffer:
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError(line)
        except ValueError:
            sys.stderr.write("ERROR codex_app_server: Failed to deserialize JSONRPCMessage\n")
            sys.stderr.flush()
            continue
        conversation.receive(message)
    if trouble("end")[0] == "ignore":
        linger()
