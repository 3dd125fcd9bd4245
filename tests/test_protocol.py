"""The wire: both eras of MCP, their handshakes, errors, batches, progress and cancellation.

Every message that the server sends in a test of this file is checked against the shapes of the
revision's schema, and every conversation against the rules that hold for all of them (see
`check_conversation`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, Iterator, List, Tuple

import jsonschema
import pytest

from client import META, MODERN, PROGRAM, Client, session_of, text_of
from conftest import Bench
from tools import CHAT, FINAL, PLAN, TOOLS

LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602
UNSUPPORTED_REVISION = -32022


def shape(required: str, **properties: Any) -> Dict[str, Any]:
    """A schema of an object; `required` names members, separated by spaces."""
    return {"type": "object", "required": required.split(), "properties": properties}


STRING, NUMBER, BOOLEAN, OBJECT = (
    {"type": name} for name in ("string", "number", "boolean", "object")
)
ID = {"type": ["string", "integer"]}
IMPLEMENTATION = shape("name version", name=STRING, version=STRING, title=STRING)
SCHEMA = shape("type", type={"const": "object"})
TOOL = shape(
    "name inputSchema",
    name=STRING,
    title=STRING,
    description=STRING,
    inputSchema=SCHEMA,
    outputSchema=SCHEMA,
    annotations=shape(
        "",
        title=STRING,
        readOnlyHint=BOOLEAN,
        openWorldHint=BOOLEAN,
        destructiveHint=BOOLEAN,
        idempotentHint=BOOLEAN,
    ),
)
CAPABILITIES = shape("tools", tools=OBJECT)
TEXT = dict(shape("type text", type={"const": "text"}, text=STRING), additionalProperties=False)
PROGRESS = dict(
    shape(
        "jsonrpc method params",
        jsonrpc={"const": "2.0"},
        method={"const": "notifications/progress"},
        params=shape(
            "progressToken progress",
            progressToken=ID,
            progress=NUMBER,
            total=NUMBER,
            message=STRING,
        ),
    ),
    additionalProperties=False,
)
# For an error of an unreadable request JSON-RPC wants `"id": null`, the newest MCP schemas no id:
# both pass.
ERROR = dict(
    shape(
        "jsonrpc error",
        jsonrpc={"const": "2.0"},
        id={"type": ["string", "integer", "null"]},
        error=dict(
            shape("code message", code={"type": "integer"}, message=STRING, data={}),
            additionalProperties=False,
        ),
    ),
    additionalProperties=False,
)
RESULT = dict(
    shape("jsonrpc id result", jsonrpc={"const": "2.0"}, id=ID, result=OBJECT),
    additionalProperties=False,
)
RESULTS = {
    "initialize": shape(
        "protocolVersion capabilities serverInfo",
        protocolVersion=STRING,
        capabilities=CAPABILITIES,
        serverInfo=IMPLEMENTATION,
        instructions=STRING,
    ),
    "ping": {"type": "object"},
    "tools/list": shape("tools", tools={"type": "array", "items": TOOL}, nextCursor=STRING),
    "tools/call": shape(
        "content",
        content={"type": "array", "items": TEXT},
        isError=BOOLEAN,
        structuredContent=OBJECT,
    ),
    "server/discover": shape(
        "supportedVersions capabilities ttlMs cacheScope",
        instructions=STRING,
        supportedVersions={"type": "array", "items": STRING},
        capabilities=CAPABILITIES,
    ),
}
MODERN_RESULT = shape(
    "resultType _meta",
    resultType={"const": "complete"},
    _meta=dict(shape(META + "serverInfo", **{META + "serverInfo": IMPLEMENTATION})),
)
CACHEABLE = shape(
    "ttlMs cacheScope",
    ttlMs={"type": "integer", "minimum": 0},
    cacheScope={"enum": ["public", "private"]},
)


def is_modern(request: Dict[str, Any]) -> bool:
    params = request.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return (
        isinstance(meta, dict)
        and META + "protocolVersion" in meta
        and request["method"] != "initialize"
    )


def flat(messages: List[Any]) -> List[Any]:
    """Messages, those in batches among them, one by one."""
    return [
        one for message in messages for one in (message if isinstance(message, list) else [message])
    ]


def check_conversation(sent: List[Any], received: List[Any]) -> None:
    """What holds in every conversation: shapes; one answer for a request at most, and none for
    anything else; progress only for a request that asked, always growing, never after the answer.
    """
    requests = {}
    for message in flat(sent):
        if (
            isinstance(message, dict)
            and "method" in message
            and type(message.get("id")) in (str, int)
        ):
            requests[(type(message["id"]), message["id"])] = message
    owners = {}
    for key, request in requests.items():
        params = request.get("params")
        token = (
            (params.get("_meta") or {}).get("progressToken") if isinstance(params, dict) else None
        )
        if type(token) in (str, int):
            owners[(type(token), token)] = key
    answered: List[Any] = []
    last: Dict[Any, float] = {}
    for message in flat(received):
        if "method" in message:
            jsonschema.validate(message, PROGRESS)
            token = message["params"]["progressToken"]
            key = (type(token), token)
            assert key in owners, f"progress that nobody asked for: {message!r}"
            assert owners[key] not in answered, f"progress after the answer: {message!r}"
            assert message["params"]["progress"] > last.get(key, float("-inf")), (
                f"progress does not grow: {message!r}"
            )
            last[key] = message["params"]["progress"]
            continue
        if "error" in message:
            jsonschema.validate(message, ERROR)
            if message.get("id") is None:
                continue
        key = (type(message["id"]), message["id"])
        assert key in requests, f"an answer to nothing: {message!r}"
        assert key not in answered, f"a second answer: {message!r}"
        answered.append(key)
        if "result" in message:
            jsonschema.validate(message, RESULT)
            method, result = requests[key]["method"], message["result"]
            jsonschema.validate(result, RESULTS[method])
            if method == "tools/call":
                assert ("structuredContent" in result) != bool(result.get("isError"))
            if is_modern(requests[key]):
                jsonschema.validate(result, MODERN_RESULT)
                if method in ("server/discover", "tools/list"):
                    jsonschema.validate(result, CACHEABLE)
            else:
                assert not {"resultType", "ttlMs", "cacheScope", "_meta"} & set(result)


@pytest.fixture
def bench(bench: Bench) -> Iterator[Bench]:
    """The bench, with every conversation on it checked at the end."""
    conversations: List[Tuple[List[Any], Client]] = []
    start = bench.start

    def watched(handshake: bool = True, **options: Any) -> Client:
        client = start(False, **options)
        sent: List[Any] = []
        send = client.send

        def noting(message: Any) -> None:
            sent.append(message)
            send(message)

        client.send = noting  # type: ignore[method-assign]
        conversations.append((sent, client))
        if handshake:
            client.initialize()
        return client

    bench.start = watched  # type: ignore[method-assign]
    yield bench
    for sent, client in conversations:
        check_conversation(sent, list(client.messages))
        assert all(line.isascii() and line.endswith(b"\n") for line in client.raw), (
            "not one line of ASCII"
        )


def modern(client: Client, method: str, id: Any = None, **params: Any) -> Dict[str, Any]:
    """Sends a request of the modern era and returns the response."""
    meta = dict(MODERN, **params.pop("_meta", {}))
    return client.response(client.request(method, dict(params, _meta=meta), id))


def error_of(answer: Dict[str, Any]) -> Dict[str, Any]:
    assert "error" in answer, answer
    return answer["error"]


def settled(client: Client) -> None:
    """Returns when all that was sent before has been read: the reader takes lines in turn."""
    id = f"settled-{len(client.raw)}"
    client.request("tools/list", id=id)
    client.response(id)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return True
    except ProcessLookupError:
        return False


def gated(gate: str, *before: str) -> str:
    """A prompt: the fake codex opens a session, does what is told, and stands at the gate."""
    return "\n".join(
        ["FAKE:session", "FAKE:started"]
        + ["FAKE:" + step for step in before]
        + ["FAKE:gate " + gate, "FAKE:say done", "FAKE:completed"]
    )


# The legacy era -----------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", LEGACY)
def test_a_client_of_each_legacy_revision_is_served_in_it(bench: Bench, revision: str) -> None:
    client = bench.start(handshake=False)
    result = client.initialize(revision)
    assert result["protocolVersion"] == revision
    assert result["capabilities"] == {"tools": {}}
    assert result["serverInfo"]["name"] == "codex-persistent-mcp"
    assert client.ask("ping")["result"] == {}
    assert list(client.tools()) == list(TOOLS)
    first = session_of(client.chat("hello"))
    assert session_of(client.chat("again", session_id=first)) == first


@pytest.mark.parametrize(
    "revision",
    ["2023-01-01", "2099-12-31", "2026-07-28", "", "x" * 10000, "\ud800"],
    ids=lambda revision: ascii(revision)[:20],
)
def test_an_initialize_with_an_unknown_revision_gets_the_newest_legacy_one(
    bench: Bench, revision: str
) -> None:
    client = bench.start(handshake=False)
    assert client.initialize(revision)["protocolVersion"] == "2025-11-25"
    assert client.ask("ping")["result"] == {}


@pytest.mark.parametrize("params", [None, {}, {"protocolVersion": 1}, {"protocolVersion": None}])
def test_an_initialize_without_a_revision_is_refused_and_can_be_repeated(
    bench: Bench, params: Any
) -> None:
    client = bench.start(handshake=False)
    assert error_of(client.ask("initialize", params))["code"] == INVALID_PARAMS
    assert client.initialize()["protocolVersion"] == "2025-11-25"


def test_the_instructions_tell_the_workflow_in_both_eras(bench: Bench) -> None:
    client = bench.start(handshake=False)
    legacy, now = (
        client.initialize()["instructions"],
        modern(client, "server/discover")["result"]["instructions"],
    )
    assert legacy == now
    for word in (PLAN, FINAL, "session_id", "resume_command"):
        assert word in legacy
    assert len(legacy) < 2000


def test_the_tools_are_listed_before_any_handshake(bench: Bench) -> None:
    client = bench.start(handshake=False)
    assert list(client.tools()) == list(TOOLS)


def test_a_call_before_any_handshake_is_served(bench: Bench) -> None:
    assert session_of(bench.start(handshake=False).chat("hello"))


@pytest.mark.parametrize("end", ["\\n", "", "\\r\\n", "\\n\\n\\n"])
def test_a_shell_pipe_prints_the_tools_and_exits_0(end: str) -> None:
    command = f"""printf '{{"jsonrpc":"2.0","id":1,"method":"tools/list"}}{end}' | "$0" "$1" """
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, PROGRAM],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=60,
        env=dict(os.environ, CODEX_PERSISTENT_MCP_ACTIVE=""),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1
    answer = json.loads(lines[0])
    assert answer["id"] == 1 and [tool["name"] for tool in answer["result"]["tools"]] == list(TOOLS)


@pytest.mark.parametrize(
    "method",
    [
        "resources/list",
        "prompts/list",
        "logging/setLevel",
        "completion/complete",
        "roots/list",
        "sampling/createMessage",
        "subscriptions/listen",
        "tasks/list",
        "tools/List",
        "",
        "notifications/cancelled",
        "notifications/initialized",
    ],
)
def test_a_method_that_is_not_served_is_not_found(bench: Bench, method: str) -> None:
    client = bench.start()
    assert error_of(client.ask(method, {}))["code"] == METHOD_NOT_FOUND
    assert error_of(modern(client, method))["code"] == METHOD_NOT_FOUND


@pytest.mark.parametrize(
    "method",
    [
        "notifications/initialized",
        "notifications/roots/list_changed",
        "notifications/progress",
        "notifications/unknown",
        "ping",
        "tools/call",
    ],
)
def test_a_notification_gets_no_answer(bench: Bench, method: str) -> None:
    client = bench.start()
    before = len(client.messages)
    for params in ({}, {"name": CHAT, "arguments": {"prompt": "x"}}, [], 1, "x", None):
        client.send({"jsonrpc": "2.0", "method": method, "params": params})
    settled(client)
    assert len(client.messages) == before + 1
    assert bench.calls() == []


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "no"}},
        {"jsonrpc": "2.0", "id": None, "error": {"code": 1, "message": "no"}},
    ],
)
def test_a_response_from_the_client_gets_no_answer(bench: Bench, message: Any) -> None:
    client = bench.start()
    before = len(client.messages)
    client.send(message)
    settled(client)
    assert len(client.messages) == before + 1


def test_ids_come_back_as_they_were_sent(bench: Bench) -> None:
    client = bench.start()
    for id in (
        0,
        -1,
        2**53 + 1,
        10**30,
        "",
        "0",
        "1",
        "a b",
        "\u00e9\u2028",
        "\U0001f600",
        "x" * 5000,
    ):
        client.request("ping", id=id)
        assert client.response(id)["result"] == {}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"name": CHAT + "t", "arguments": {}},
        {"name": None},
        {"name": 1},
        {"name": [CHAT]},
        {"name": CHAT, "arguments": []},
        {"name": CHAT, "arguments": "prompt"},
        {"name": CHAT.upper()},
    ],
)
def test_a_malformed_call_or_an_unknown_tool_is_an_error_of_the_protocol(
    bench: Bench, params: Any
) -> None:
    client = bench.start()
    assert error_of(client.ask("tools/call", params))["code"] == INVALID_PARAMS
    assert error_of(modern(client, "tools/call", **params))["code"] == INVALID_PARAMS
    assert bench.calls() == []


def test_a_call_without_arguments_is_a_tool_error_that_names_what_is_missing(bench: Bench) -> None:
    result = bench.start().ask("tools/call", {"name": CHAT})["result"]
    assert result["isError"] and "prompt" in text_of(result)


@pytest.mark.parametrize("left_out", [None, ""])
def test_a_cursor_that_is_left_out_with_null_or_nothing_is_none(
    bench: Bench, left_out: Any
) -> None:
    client = bench.start()
    assert client.ask("tools/list", {"cursor": left_out})["result"]["tools"]


@pytest.mark.parametrize("params", ["null", "[]", '{"_meta":null}', '{"arguments":null}'])
def test_parameters_that_are_left_out_with_null_are_none(bench: Bench, params: str) -> None:
    client = bench.start()
    message = {"jsonrpc": "2.0", "params": json.loads(params)}
    client.send(dict(message, id="a", method="ping"))
    assert client.response("a")["result"] == {}
    client.send(dict(message, id="b", method="tools/list"))
    assert len(client.response("b")["result"]["tools"]) == len(TOOLS)
    call = {"name": CHAT, "arguments": None, "_meta": None}
    assert "missing argument" in text_of(client.result(client.request("tools/call", call)))


@pytest.mark.parametrize("cursor", ["x", 0, 1, False, {}, []])
def test_a_cursor_that_the_server_never_gave_is_refused(bench: Bench, cursor: Any) -> None:
    client = bench.start()
    assert error_of(client.ask("tools/list", {"cursor": cursor}))["code"] == INVALID_PARAMS
    assert error_of(modern(client, "tools/list", cursor=cursor))["code"] == INVALID_PARAMS


# The modern era -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["discover-1", "", 0, 7])
def test_server_discover_as_the_very_first_message(bench: Bench, id: Any) -> None:
    result = modern(bench.start(handshake=False), "server/discover", id)["result"]
    assert result["supportedVersions"] == ["2026-07-28"]
    assert result["capabilities"] == {"tools": {}}
    assert result["_meta"][META + "serverInfo"]["name"] == "codex-persistent-mcp"


def test_a_modern_tools_list_as_the_very_first_message(bench: Bench) -> None:
    result = modern(bench.start(handshake=False), "tools/list")["result"]
    assert [tool["name"] for tool in result["tools"]] == list(TOOLS)


def test_a_modern_call_as_the_very_first_message(bench: Bench) -> None:
    client = bench.start(handshake=False)
    session_id = session_of(client.call(CHAT, {"prompt": "hello"}, meta=MODERN))
    again = client.call(CHAT, {"prompt": "again", "session_id": session_id}, meta=MODERN)
    assert session_of(again) == session_id
    refused = client.call(CHAT, {"prompt": 1}, meta=MODERN)
    assert refused["isError"] and refused["resultType"] == "complete"


def test_both_eras_list_the_same_tools_in_the_same_order(bench: Bench) -> None:
    client = bench.start()
    now = modern(client, "tools/list")["result"]["tools"]
    assert client.ask("tools/list")["result"]["tools"] == now
    assert bench.start(handshake=False).ask("tools/list")["result"]["tools"] == now


@pytest.mark.parametrize(
    "method", ["server/discover", "tools/list", "tools/call", "ping", "nonsense"]
)
@pytest.mark.parametrize("revision", ["1900-01-01", "2025-11-25", "2099-01-01", ""])
def test_a_modern_request_in_a_revision_that_is_not_served_learns_which_are(
    bench: Bench, method: str, revision: str
) -> None:
    error = error_of(
        modern(bench.start(handshake=False), method, _meta={META + "protocolVersion": revision})
    )
    assert error["code"] == UNSUPPORTED_REVISION
    assert error["data"]["requested"] == revision
    assert "2026-07-28" in error["data"]["supported"]


@pytest.mark.parametrize("method", ["server/discover", "tools/list", "tools/call"])
@pytest.mark.parametrize(
    "drop, put",
    [
        ("clientCapabilities", {}),
        ("", {"clientCapabilities": None}),
        ("", {"clientCapabilities": []}),
        ("", {"protocolVersion": 20260728}),
        ("", {"protocolVersion": None}),
        ("protocolVersion", {}),
    ],
)
def test_a_modern_request_without_its_required_fields_is_refused(
    bench: Bench, method: str, drop: str, put: Dict[str, Any]
) -> None:
    client = bench.start(handshake=False)
    meta = {key: value for key, value in MODERN.items() if key != META + drop}
    meta.update({META + key: value for key, value in put.items()})
    params = {"_meta": meta, "name": CHAT, "arguments": {"prompt": "x"}}
    assert error_of(client.ask(method, params))["code"] == INVALID_PARAMS
    assert bench.calls() == []


def test_a_modern_request_may_leave_out_the_name_of_its_client(bench: Bench) -> None:
    client = bench.start(handshake=False)
    meta = {key: value for key, value in MODERN.items() if key != META + "clientInfo"}
    assert session_of(client.call(CHAT, {"prompt": "hello"}, meta=meta))
    for odd in (None, 1, [], {}, {"name": 1}):
        assert session_of(
            client.call(CHAT, {"prompt": "hello"}, meta=dict(MODERN, **{META + "clientInfo": odd}))
        )


@pytest.mark.parametrize("method", ["ping", "logging/setLevel"])
def test_methods_that_the_modern_era_gave_up_are_not_found_there(bench: Bench, method: str) -> None:
    client = bench.start()
    assert error_of(modern(client, method, level="info"))["code"] == METHOD_NOT_FOUND
    assert client.ask("ping")["result"] == {}


def test_server_discover_without_the_modern_fields_is_no_sign_of_a_modern_server(
    bench: Bench,
) -> None:
    client = bench.start()
    for params in (None, {}, {"_meta": {}}):
        assert error_of(client.ask("server/discover", params))["code"] in (
            INVALID_PARAMS,
            METHOD_NOT_FOUND,
        )


def test_both_eras_interleaved_in_one_process(bench: Bench) -> None:
    client = bench.start(handshake=False)
    modern(client, "server/discover", "probe")
    running = client.start_call(CHAT, {"prompt": gated("modern")}, meta=MODERN)
    bench.reached("modern")
    assert client.initialize("2025-03-26", name="old-client")["protocolVersion"] == "2025-03-26"
    assert "resultType" not in client.ask("tools/list")["result"]
    assert "resultType" in modern(client, "tools/list")["result"]
    legacy = client.chat("hello")
    bench.open("modern")
    assert client.result(running)["resultType"] == "complete"
    assert "resultType" not in legacy
    assert error_of(modern(client, "ping"))["code"] == METHOD_NOT_FOUND
    assert client.ask("ping")["result"] == {}


def test_a_modern_request_takes_nothing_from_an_earlier_handshake(bench: Bench) -> None:
    client = bench.start(handshake=False)
    client.initialize(name="old-client")
    client.call(CHAT, {"prompt": "legacy"})
    client.call(CHAT, {"prompt": "now"}, meta=MODERN)
    client.call(
        CHAT,
        {"prompt": "nameless"},
        meta={key: value for key, value in MODERN.items() if key != META + "clientInfo"},
    )
    client.call(CHAT, {"prompt": "legacy again"})
    first = [call["prompt"].split("\n")[0] for call in bench.calls()]
    assert ["old-client" in line for line in first] == [True, False, False, True]
    assert ["test-client" in line for line in first] == [False, True, False, False]


# Batches ------------------------------------------------------------------------------------------


def request(id: Any, method: str = "ping", **params: Any) -> Dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params}


@pytest.mark.parametrize("revision", ["", "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
@pytest.mark.parametrize(
    "batch", [[], [request("a")], [{"jsonrpc": "2.0", "method": "notifications/initialized"}]]
)
def test_a_batch_is_refused_in_words_and_the_connection_goes_on(
    bench: Bench, revision: str, batch: List[Any]
) -> None:
    client = bench.start(handshake=False)
    if revision:
        client.initialize(revision)
    before = len(client.messages)
    client.send(batch)
    settled(client)
    answers = client.messages[before:-1]
    assert [(answer.get("id"), answer["error"]["code"]) for answer in answers] == [
        (None, INVALID_REQUEST)
    ]
    assert "batches are not supported" in answers[0]["error"]["message"]
    assert client.ask("ping")["result"] == {}


def test_a_handshake_inside_a_batch_leaves_the_connection_usable(bench: Bench) -> None:
    client = bench.start(handshake=False)
    client.send(
        [
            request(
                "i",
                "initialize",
                protocolVersion="2025-03-26",
                capabilities={},
                clientInfo={"name": "x", "version": "1"},
            )
        ]
    )
    client.wait_for(lambda: client.messages, "answer")
    assert client.initialize()["protocolVersion"] == "2025-11-25"


# Progress -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [0, 7, -1, "", "a-token", "1"])
@pytest.mark.parametrize("meta", [{}, MODERN], ids=["legacy", "modern"])
def test_progress_comes_with_the_token_as_it_was_sent(
    bench: Bench, token: Any, meta: Dict[str, Any]
) -> None:
    client = bench.start()
    id = client.start_call(
        CHAT, {"prompt": gated("middle", "command make check")}, token=token, meta=meta
    )
    bench.reached("middle")
    client.wait_for(lambda: client.progress(token), "progress")
    bench.open("middle")
    session_id = session_of(client.result(id))
    assert [type(one["progressToken"]) for one in client.progress(token)][:1] == [type(token)]
    assert any(session_id in one["message"] for one in client.progress(token)), (
        "the session is not told early"
    )


def test_progress_grows_and_stops_with_the_answer(bench: Bench) -> None:
    client = bench.start()
    steps = [f"command number {number}\nFAKE:sleep 0.6" for number in range(3)]
    id = client.start_call(CHAT, {"prompt": gated("end", *steps)}, token="t")
    bench.reached("end")
    bench.open("end")
    client.result(id)
    count = len(client.progress("t"))
    assert count >= 3
    client.chat("another")
    assert len(client.progress("t")) == count  # that it grows is checked for every conversation


@pytest.mark.parametrize("token", [None, True, 1.5, [], {}])
def test_no_progress_without_a_token_that_asks_for_it(bench: Bench, token: Any) -> None:
    client = bench.start()
    id = client.request(
        "tools/call",
        {
            "name": CHAT,
            "arguments": {"prompt": "hello"},
            "_meta": {} if token is None else {"progressToken": token},
        },
    )
    client.response(id)
    assert [message for message in client.messages if "method" in message] == []


def test_progress_of_two_calls_goes_to_the_right_one(bench: Bench) -> None:
    client = bench.start()
    ids = [
        client.start_call(CHAT, {"prompt": gated(name, "command " + name)}, token=token)
        for name, token in (("one", 1), ("two", "1"))
    ]
    for token in (1, "1"):
        client.wait_for(lambda: len(client.progress(token)) >= 2, "progress")
    for name in ("one", "two"):
        bench.open(name)
    sessions = [session_of(client.result(id)) for id in ids]
    for token, mine, other in ((1, sessions[0], sessions[1]), ("1", sessions[1], sessions[0])):
        said = " ".join(
            one["message"]
            for one in client.progress(token)
            if type(one["progressToken"]) is type(token)
        )
        assert mine in said and other not in said


# Cancellation -------------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [{}, MODERN], ids=["legacy", "modern"])
@pytest.mark.parametrize("reason", [{}, {"reason": "changed my mind"}, {"reason": 1}])
def test_a_cancelled_call_gets_no_further_message_and_its_codex_ends(
    bench: Bench, meta: Dict[str, Any], reason: Dict[str, Any]
) -> None:
    client = bench.start()
    id = client.start_call(CHAT, {"prompt": gated("never")}, token="t", meta=meta)
    bench.reached("never")
    client.notify("notifications/cancelled", dict({"requestId": id}, **reason))
    settled(client)
    count = len(client.messages)
    pid = bench.calls()[0]["pid"]
    bench.wait(lambda: not runs(pid), "end of codex")
    session_of(client.chat("after"))
    assert len(client.messages) == count + 1
    assert client.responses(id) == []


def test_a_call_that_waits_for_its_session_can_be_cancelled_and_spawns_nothing(
    bench: Bench,
) -> None:
    client = bench.start()
    session_id = session_of(client.chat("first"))
    running = client.start_call(CHAT, {"prompt": gated("busy"), "session_id": session_id})
    bench.reached("busy")
    waiting = client.start_call(CHAT, {"prompt": "never sent", "session_id": session_id}, token="w")
    last = client.start_call(CHAT, {"prompt": "last", "session_id": session_id})
    client.notify("notifications/cancelled", {"requestId": waiting})
    settled(client)
    bench.open("busy")
    client.result(running)
    session_of(client.result(last))
    assert client.responses(waiting) == []
    assert not any("never sent" in call["prompt"] for call in bench.calls())


@pytest.mark.parametrize(
    "params",
    [
        {"requestId": 4711},
        {"requestId": "1"},
        {"requestId": None},
        {"requestId": True},
        {"requestId": 1.0},
        {"requestId": [1]},
        {"requestId": {}},
        {},
        [],
        1,
        "x",
        None,
        {"requestid": 1},
    ],
)
def test_a_cancel_of_something_else_is_ignored(bench: Bench, params: Any) -> None:
    client = bench.start(handshake=False)
    running = client.start_call(CHAT, {"prompt": gated("middle")})
    assert running == 1
    bench.reached("middle")
    client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
    settled(client)
    bench.open("middle")
    assert session_of(client.result(running))
    assert len(client.messages) == 2


def test_a_cancel_after_the_answer_is_ignored_even_when_repeated(bench: Bench) -> None:
    client = bench.start()
    id = client.start_call(CHAT, {"prompt": "hello"}, token=1)
    session_id = session_of(client.result(id))
    count = len(client.messages)
    for _ in range(3):
        client.notify("notifications/cancelled", {"requestId": id})
    assert session_of(client.chat("again", session_id=session_id)) == session_id
    assert len(client.messages) == count + 1


def test_the_id_of_a_cancelled_call_can_be_used_again(bench: Bench) -> None:
    client = bench.start()
    call = {"name": CHAT, "arguments": {"prompt": gated("never")}}
    client.request("tools/call", call, id="same")
    bench.reached("never")
    client.notify("notifications/cancelled", {"requestId": "same"})
    client.request("ping", id="same")
    assert client.response("same")["result"] == {}


# Malformed messages -------------------------------------------------------------------------------


def raw_answer(client: Client, line: bytes) -> Dict[str, Any]:
    """What the server says to one line of bytes."""
    before = len(client.messages)
    client.send_raw(line + b"\n")
    client.wait_for(lambda: len(client.messages) > before, "answer")
    return client.messages[before]


@pytest.mark.parametrize(
    "line, code",
    [
        (b"{", PARSE_ERROR),
        (b"nonsense", PARSE_ERROR),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping",}', PARSE_ERROR),
        (b"17", INVALID_REQUEST),
        (b"null", INVALID_REQUEST),
        (b'"ping"', INVALID_REQUEST),
        (b"{}", INVALID_REQUEST),
        (b'{"id":1,"method":"ping"}', INVALID_REQUEST),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', INVALID_REQUEST),
        (b'{"jsonrpc":2.0,"id":1,"method":"ping"}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":1}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":null}', INVALID_REQUEST),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', INVALID_PARAMS),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}', INVALID_PARAMS),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":[]}}', INVALID_PARAMS),
    ],
)
def test_a_malformed_message_gets_the_code_of_its_fault(
    bench: Bench, line: bytes, code: int
) -> None:
    client = bench.start(handshake=False)
    answer = raw_answer(client, line)
    client.messages.clear()  # its id may be that of no request that was sent as one
    assert error_of(answer)["code"] == code
    assert answer.get("id") in (None, 1)
    assert client.ask("ping")["result"] == {}


@pytest.mark.parametrize("line", [b"", b"   ", b"\r", b"\t\t"])
def test_an_empty_line_means_nothing(bench: Bench, line: bytes) -> None:
    client = bench.start(handshake=False)
    client.send_raw(line + b"\n")
    client.send_raw(b"\xef\xbb\xbf")  # a byte order mark, as some shells write it
    assert client.ask("ping")["result"] == {}
    assert len(client.messages) == 1
