"""A client that misbehaves: the server answers what can be answered, and lives."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import termios
import threading
import time
from typing import Any, Dict, List, Tuple

import pytest

from client import META, MODERN, Client, session_of, text_of
from conftest import Bench
from tools import CHAT, TOOLS

PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32602, -32603
MIB = 1 << 20
#: Python refuses to read longer decimal integers where it has that limit.
LONG_INTEGER = "9" * 5000
#: A call of the chat tool as text, up to its arguments.
CALL = f'"method":"tools/call","params":{{"name":"{CHAT}","arguments":'


def gated(gate: str) -> str:
    return f"FAKE:session\nFAKE:started\nFAKE:gate {gate}\nFAKE:say done\nFAKE:completed"


def alive(client: Client) -> None:
    """The server still lists its tools and runs a call."""
    assert list(client.tools()) == list(TOOLS)
    assert session_of(client.chat("still there?"))


def answers(client: Client, line: bytes, count: int = 1) -> List[Any]:
    """What the server says to a line, exactly `count` messages: a second request ends the wait."""
    before = len(client.messages)
    client.send_raw(line + b"\n")
    end = client.request("tools/list", id=f"end-{before}")
    client.response(end, bound=120)
    found = client.messages[before:-1]
    assert len(found) == count, found
    return found


def code(answer: Dict[str, Any]) -> int:
    assert "error" in answer, answer
    return answer["error"]["code"]


def line_of(**more: Any) -> bytes:
    return json.dumps(dict({"jsonrpc": "2.0"}, **more)).encode()


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not yet collected does not."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rsplit(b")", 1)[1].split()[0] != b"Z"
    except ProcessLookupError:
        return False
    except OSError:
        return os.path.isdir("/proc/self") is False


# Lines --------------------------------------------------------------------------------------------


def test_a_line_of_100_mb_is_served(bench: Bench) -> None:
    client = bench.start()
    client.send_raw(
        line_of(id="big", method="ping", params={"padding": "x" * 100 * 1000 * 1000}) + b"\n"
    )
    assert client.response("big")["result"] == {}
    client.send_raw(
        line_of(
            id="call",
            method="tools/call",
            params={"name": CHAT, "arguments": {"prompt": ["x" * 100 * 1000 * 1000]}},
        )
        + b"\n"
    )
    assert "prompt" in text_of(client.result("call"))
    alive(client)


def test_a_line_over_the_limit_is_refused_and_the_next_one_is_served(bench: Bench) -> None:
    client = bench.start()
    before = len(client.messages)
    client.send_raw(b'{"jsonrpc":"2.0","id":"big","method":"ping","params":{"padding":"')
    for _ in range(150):
        client.send_raw(b"x" * MIB)
    client.send_raw(b'"}}\n')
    alive(client)
    refusal = client.messages[before]
    assert code(refusal) == INVALID_REQUEST and refusal.get("id") is None
    assert client.responses("big") == []


def test_a_line_over_the_limit_without_an_end_is_not_kept_in_memory(bench: Bench) -> None:
    client = bench.start()
    for _ in range(400):
        client.send_raw(b"[" * MIB)
    path = f"/proc/{client.process.pid}/status"
    if os.path.exists(path):
        with open(path) as file:
            status = dict(line.split(":", 1) for line in file)
        assert int(status["VmHWM"].split()[0]) < 500 * 1024, (
            "kB of memory at the most: " + status["VmHWM"]
        )
    client.send_raw(b"\n")
    alive(client)


@pytest.mark.parametrize("depth", [10, 100, 300, 900, 950, 980, 990, 1000, 1500, 5000, 100000])
@pytest.mark.parametrize(
    "place", ["prompt", "name", "id", "params", "_meta", "token", "cancel", "argument"]
)
def test_json_that_is_nested_too_deeply_costs_only_its_own_message(
    bench: Bench, place: str, depth: int
) -> None:
    deep = "[" * depth + "]" * depth
    call = '{"jsonrpc":"2.0","id":1,' + CALL
    texts = {
        "prompt": call + '{"prompt":@}}}',
        "argument": call + '{"prompt":"x","zz":@}}}',
        "name": '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":@}}',
        "id": '{"jsonrpc":"2.0","id":@,"method":"ping"}',
        "params": '{"jsonrpc":"2.0","id":1,"method":"ping","params":@}',
        "_meta": '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":@}}',
        "token": '{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"progressToken":@}}}',
        "cancel": '{"jsonrpc":"2.0","id":1,"method":"notifications/cancelled",'
        '"params":{"requestId":@}}',
    }
    client = bench.start(handshake=False)
    (answer,) = answers(client, texts[place].replace("@", deep).encode())
    if "error" in answer:
        assert code(answer) != INTERNAL_ERROR, answer
        assert code(answer) == PARSE_ERROR or place not in ("prompt", "argument"), answer
    elif place != "token":
        assert answer["result"]["isError"] and (place if place == "prompt" else "zz") in text_of(
            answer["result"]
        )


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100000,
        b'{"a":' * 100000,
        b"[[{}," * 50000,
        b'"' + b"\\u0000" * 100000,
        b"[" * 5000 + b"]" * 5000,
        b"\\" * 100000,
    ],
    ids=range(6),
)
def test_a_line_that_never_closes_what_it_opens_is_a_parse_error(bench: Bench, line: bytes) -> None:
    (answer,) = answers(bench.start(), line)
    assert code(answer) == PARSE_ERROR and answer.get("id") is None


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        b"\x80",
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xe9"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"\xc0\xaf"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"\xed\xa0\x80"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}\x00',
        b"\x00" * 1000,
        b"\x1b[A",
        '{"jsonrpc":"2.0","id":1,"method":"ping"}'.encode("utf-16-le"),
        b'{"jsonrpc":"2.0","id":1,"method":"pi\tng"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}',
        b"{'jsonrpc':'2.0'}",
        b"GET / HTTP/1.1",
        b"Content-Length: 40",
    ],
    ids=range(14),
)
def test_bytes_that_are_no_json_are_a_parse_error(bench: Bench, line: bytes) -> None:
    client = bench.start(handshake=False)
    (answer,) = answers(client, line)
    assert code(answer) == PARSE_ERROR and answer.get("id") is None


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    "place",
    [
        '"id":@,"method":"ping"',
        '"id":1,"method":"ping","params":{"x":@}',
        '"id":1,' + CALL + '{"prompt":"x","timeout_ms":@}}',
    ],
)
def test_numbers_that_json_does_not_have_are_a_parse_error(
    bench: Bench, number: str, place: str
) -> None:
    client = bench.start(handshake=False)
    (answer,) = answers(client, ('{"jsonrpc":"2.0",' + place.replace("@", number) + "}").encode())
    assert code(answer) == PARSE_ERROR
    assert bench.calls() == []


@pytest.mark.parametrize(
    "number",
    [
        "1e400",
        "-1e400",
        "1e-400",
        "9" * 400,
        "9" * 4299,
        LONG_INTEGER,
        "-" + LONG_INTEGER,
        "0." + LONG_INTEGER,
        "1e999999999999",
    ],
    ids=lambda text: text[:6] + str(len(text)),
)
def test_huge_numbers_anywhere_cost_only_their_own_message(bench: Bench, number: str) -> None:
    client = bench.start(handshake=False)
    for place in (
        '"id":@,"method":"ping"',
        '"id":"n","method":"ping","params":{"x":@}',
        '"id":"n","method":@',
        '"id":"n","method":"initialize","params":{"protocolVersion":@}',
        '"id":"n","method":"tools/call","params":{"name":@}',
        '"id":"n",' + CALL + '{"prompt":@}}',
        '"id":"n",' + CALL + '{"prompt":"x","timeout_ms":@}}',
        '"id":"n","method":"tools/list","params":{"_meta":{"progressToken":@}}',
        '"id":"n","method":"tools/list",'
        '"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":@}}',
    ):
        (answer,) = answers(
            client, ('{"jsonrpc":"2.0",' + place.replace("@", number) + "}").encode()
        )
        assert "error" not in answer or code(answer) != INTERNAL_ERROR, (place, answer)
        if '"timeout_ms"' in place and "error" not in answer:
            assert "timeout_ms" in text_of(answer["result"])
    client.send_raw(
        (
            '{"jsonrpc":"2.0","method":"notifications/cancelled",'
            f'"params":{{"requestId":{number}}}}}\n'
        ).encode()
    )
    assert bench.calls() == []
    alive(client)


# Lone surrogates ----------------------------------------------------------------------------------

LONE = ["\ud800", "a\udfffb", "\udc00\ud800", "ok \U0001f600 \ud83d"]


def strict(client: Client) -> None:
    """What the server wrote is readable to a client that refuses lone surrogates (serde_json)."""
    for message in client.messages:
        text = json.dumps(
            {key: value for key, value in message.items() if key != "id"}, ensure_ascii=False
        )
        assert not any("\ud800" <= character <= "\udfff" for character in text), ascii(text)


@pytest.mark.parametrize("text", LONE, ids=ascii)
def test_lone_surrogates_in_a_prompt_become_replacement_characters(bench: Bench, text: str) -> None:
    client = bench.start()
    assert session_of(client.chat(text))
    sent = bench.calls()[0]["prompt"].split("\n", 1)[1]
    sent.encode("utf-8")
    assert sent == "".join(
        "\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text
    )
    strict(client)


@pytest.mark.parametrize("text", LONE, ids=ascii)
def test_lone_surrogates_from_codex_reach_no_client(bench: Bench, text: str) -> None:
    client = bench.start()
    quoted = json.dumps(text)
    item = 'FAKE:raw {"type":"item.completed","item":{"id":"i",'
    steps = [
        "FAKE:session",
        "FAKE:started",
        f'{item}"type":"error","message":{quoted}}}}}',
        f'{item}"type":"agent_message","text":{quoted}}}}}',
        f'FAKE:raw {{"type":"turn.completed","usage":{{{quoted}:{quoted}}}}}',
    ]
    call = client.start_call(CHAT, {"prompt": "\n".join(steps)}, token="t")
    assert "reply" in client.result(call)["structuredContent"]
    steps[-1] = f'FAKE:raw {{"type":"turn.failed","error":{{"message":{quoted}}}}}'
    assert client.chat("\n".join(steps))["isError"]
    strict(client)


def test_lone_surrogates_in_every_place_are_answered(bench: Bench) -> None:
    client = bench.start(handshake=False)
    client.initialize(name="\ud800")
    for arguments in (
        {"prompt": "x", "\ud800": 1},
        {"prompt": "x", "model": "\ud800"},
        {"prompt": "x", "cwd": "/\ud800"},
        {"prompt": "x", "session_id": "\udcff"},
    ):
        assert client.call(CHAT, arguments)["isError"]
    assert "error" in client.ask("\ud800")
    assert "error" in client.ask("tools/call", {"name": "\ud800"})
    id = client.start_call(CHAT, {"prompt": "x"}, token="\ud800")
    assert session_of(client.result(id))
    client.notify("notifications/cancelled", {"requestId": "\ud800"})
    alive(client)
    client.request("ping", id="\ud800")
    client.wait_for(lambda: client.responses("\ud800") + client.responses("\ufffd"), "answer")


# Ids and params -----------------------------------------------------------------------------------


@pytest.mark.parametrize("id", [None, True, False, 1.5, -0.5, [], [1], {}, {"id": 1}], ids=str)
@pytest.mark.parametrize("method", ["ping", "tools/list", "tools/call", "initialize"])
def test_an_id_of_a_wrong_type_is_refused_under_no_id(bench: Bench, method: str, id: Any) -> None:
    client = bench.start(handshake=False)
    (answer,) = answers(
        client, line_of(id=id, method=method, params={"name": CHAT, "arguments": {"prompt": "x"}})
    )
    assert code(answer) == INVALID_REQUEST and answer.get("id") is None
    assert bench.calls() == []


def test_an_id_that_is_still_in_flight_is_refused_and_the_first_call_goes_on(bench: Bench) -> None:
    client = bench.start()
    call = {"name": CHAT, "arguments": {"prompt": gated("first")}}
    client.request("tools/call", call, id="twice")
    bench.reached("first")
    for method, params in (("tools/call", call), ("ping", {}), ("nonsense", {})):
        (answer,) = answers(client, line_of(id="twice", method=method, params=params))
        assert code(answer) == INVALID_REQUEST and answer.get("id") is None
    (answer,) = answers(client, line_of(id="twice", method="tools/call", params=7))
    assert "error" in answer and answer.get("id") is None
    bench.open("first")
    assert session_of(client.result("twice"))
    assert len(client.responses("twice")) == 1 and len(bench.calls()) == 1
    client.request("ping", id="twice")  # free again
    client.wait_for(lambda: len(client.responses("twice")) == 2, "second answer")


def test_1_and_the_text_1_are_two_ids(bench: Bench) -> None:
    client = bench.start(handshake=False)
    for id, gate in ((1, "number"), ("1", "text")):
        client.request("tools/call", {"name": CHAT, "arguments": {"prompt": gated(gate)}}, id=id)
        bench.reached(gate)
    client.notify("notifications/cancelled", {"requestId": "1"})
    bench.open("number")
    assert session_of(client.result(1))
    assert client.responses("1") == []


VALUES: Tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    "x",
    [],
    [1],
    [[]],
    {},
    {"x": 1},
    {"name": CHAT},
)
METHODS = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "notifications/cancelled",
    "notifications/initialized",
    "nonsense",
    "",
]


def test_params_of_every_wrong_type_are_answered_once_and_never_as_an_internal_error(
    bench: Bench,
) -> None:
    client = bench.start(handshake=False, env={"CODEX_BIN": "/does/not/exist"})
    for method in METHODS:
        cases: List[Any] = list(VALUES)
        for value in VALUES:
            cases += [
                {key: value}
                for key in ("_meta", "name", "arguments", "cursor", "protocolVersion", "requestId")
            ]
            cases += [
                {"name": CHAT, "arguments": value},
                {"name": value, "arguments": {"prompt": "x"}},
                {"name": CHAT, "arguments": {"prompt": value}, "_meta": MODERN},
                {"name": CHAT, "arguments": {"prompt": "x"}, "_meta": {"progressToken": value}},
                {"protocolVersion": "2025-11-25", "clientInfo": value, "capabilities": value},
                {"protocolVersion": "2025-11-25", "clientInfo": {"name": value}},
            ]
            cases += [
                {"_meta": dict(MODERN, **{META + key: value})}
                for key in ("protocolVersion", "clientInfo", "clientCapabilities", "logLevel")
            ]
        first = len(client.messages)
        for number, params in enumerate(cases):
            # Not by `request`, which leaves params out that are None.
            id = f"{method}-{number}"
            client.send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
            client.send({"jsonrpc": "2.0", "method": method, "params": params})
        wanted = [f"{method}-{number}" for number in range(len(cases))]
        client.wait_for(lambda: len(client.messages) >= first + len(wanted), "answers")
        client.ask("tools/list")
        found = client.messages[first:-1]
        # A call whose arguments are right is answered by its worker, so not in order.
        assert sorted(str(message.get("id")) for message in found) == sorted(wanted)
        bad = [
            message for message in found if message.get("error", {}).get("code") == INTERNAL_ERROR
        ]
        assert not bad, bad
    assert bench.calls() == []


# Floods -------------------------------------------------------------------------------------------


def test_10000_requests_at_once_are_all_answered_to_a_client_that_reads_late(bench: Bench) -> None:
    """A client that writes all before it reads anything: more comes back than the pipes hold."""
    client = bench.start(handshake=False, read=False)
    count = 10000
    lines = b"".join(
        line_of(id=number, method="ping" if number % 2 else "tools/list") + b"\n"
        for number in range(count)
    )
    writer = threading.Thread(target=client.send_raw, args=(lines,), daemon=True)
    writer.start()
    writer.join(1)
    ids = set()
    for _ in range(count):
        answer = json.loads(client.process.stdout.readline())
        assert "result" in answer
        ids.add(answer["id"])
    writer.join(60)
    assert ids == set(range(count)) and not writer.is_alive()


def test_of_10000_calls_at_once_those_beyond_a_sensible_number_are_refused_in_words(
    bench: Bench,
) -> None:
    client = bench.start(env={"CODEX_MCP_MAX_PARALLEL": "1"})
    first = client.start_call(CHAT, {"prompt": gated("first")})
    bench.reached("first")
    count, before = 10000, len(client.messages)
    call = {"name": CHAT, "arguments": {"prompt": "x"}}
    client.send_raw(
        b"".join(
            line_of(id=f"c{number}", method="tools/call", params=call) + b"\n"
            for number in range(count)
        )
    )
    client.ask("tools/list")
    refusals = [message for message in client.messages[before:-1]]
    waiting = count - len(refusals)
    assert 16 <= waiting <= 1000
    texts = {text_of(message["result"]) for message in refusals if message["result"]["isError"]}
    assert len(texts) == 1 and "waiting" in texts.pop()
    ids = {message["id"] for message in refusals}
    for number in range(count):
        if f"c{number}" not in ids:
            client.notify("notifications/cancelled", {"requestId": f"c{number}"})
    bench.open("first")
    assert session_of(client.result(first))
    alive(client)
    assert len(client.messages) == before + len(refusals) + 1 + 1 + 2
    assert len(bench.calls()) == 2


def test_10000_cancels_change_nothing_for_the_call_that_runs(bench: Bench) -> None:
    client = bench.start()
    id = client.start_call(CHAT, {"prompt": gated("middle")})
    bench.reached("middle")
    cancels = [
        line_of(method="notifications/cancelled", params={"requestId": value})
        for number in range(2500)
        for value in (number + 1000, f"c{number}", None, [number])
    ]
    client.send_raw(b"\n".join(cancels) + b"\n")
    bench.open("middle")
    assert session_of(client.result(id))
    alive(client)


# Ends ---------------------------------------------------------------------------------------------


def running(bench: Bench, **options: Any) -> Tuple[Client, int]:
    """A server that nobody reads, with a call in its turn, and the pid of its codex."""
    client = bench.start(handshake=False, read=False, **options)
    client.start_call(CHAT, {"prompt": gated("never")}, token="t")
    bench.reached("never")
    pid = bench.calls()[0]["pid"]
    assert runs(pid)
    return client, pid


def unread(client: Client) -> int:
    """How many bytes of output wait in the pipe."""
    count = fcntl.ioctl(client.process.stdout, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(count, sys.byteorder)


def left(bench: Bench, client: Client, pid: int, bound: float = 5.0) -> None:
    """The server leaves in time, and so does its codex."""
    begin = time.monotonic()
    assert client.process.wait(30) == 0
    assert time.monotonic() - begin < bound, (
        f"the server took {time.monotonic() - begin:.1f} s to leave"
    )
    bench.wait(lambda: not runs(pid), "end of codex", 5)


def test_the_server_leaves_when_its_output_is_closed(bench: Bench) -> None:
    client, pid = running(bench)
    client.process.stdout.close()
    client.request("ping")
    left(bench, client, pid)


def test_the_server_leaves_at_the_end_of_its_input_though_nobody_reads_its_output(
    bench: Bench,
) -> None:
    client, pid = running(bench)
    for _ in range(100):  # about 800 kB of answers, more than the pipe holds
        client.request("tools/list")
    client.process.stdin.close()
    left(bench, client, pid)


def test_the_server_leaves_at_the_end_of_its_input_with_the_most_that_can_be_unread(
    bench: Bench,
) -> None:
    client, pid = running(bench)
    request = line_of(id="more", method="tools/list") + b"\n"
    fd = client.process.stdin.fileno()
    os.set_blocking(fd, False)
    rest, quiet = b"", 0.0
    while quiet < 1.5:  # until the server reads no more
        try:
            rest = rest or request * 1000
            rest = rest[os.write(fd, rest) :]
            quiet = 0.0
        except BlockingIOError:
            time.sleep(0.05)
            quiet += 0.05
    client.process.stdin.close()
    left(bench, client, pid)


@pytest.mark.parametrize(
    "part",
    [
        b"{",
        b'{"jsonrpc":"2.0","id":9,"method":"pi',
        b'{"jsonrpc":"2.0","id":9,' + CALL.encode() + b'{"prompt":"half',
        b"x" * 100000,
    ],
)
def test_the_server_leaves_when_its_input_ends_in_the_middle_of_a_line(
    bench: Bench, part: bytes
) -> None:
    client, pid = running(bench)
    client.send_raw(part)
    client.process.stdin.close()
    left(bench, client, pid)
    lines = client.process.stdout.read().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert len(bench.calls()) == 1


def test_a_last_line_without_its_newline_is_served(bench: Bench) -> None:
    client = bench.start()
    client.send_raw(line_of(id="last", method="tools/list"))
    assert client.close() == 0
    assert len(client.responses("last")) == 1


def test_a_client_that_is_slow_to_read_gets_everything(bench: Bench) -> None:
    client = bench.start(handshake=False, read=False)
    for number in range(300):
        client.request("tools/list", id=number)
    id = client.start_call(CHAT, {"prompt": "hello"})
    bench.wait(bench.calls, "codex")

    def stands() -> bool:
        before = unread(client)
        time.sleep(0.1)
        return 0 < before == unread(client)

    bench.wait(stands, "server that writes no more, as the pipe is full")
    found = [json.loads(client.process.stdout.readline()) for _ in range(301)]
    assert {message["id"] for message in found} == set(range(300)) | {id}


@pytest.mark.parametrize("depth", range(975, 1000))
def test_a_value_that_can_just_be_read_is_refused_in_words(bench: Bench, depth: int) -> None:
    client = bench.start()
    deep = "[" * depth + "]" * depth
    client.send_raw(
        (f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":{deep}}}}}\n').encode()
    )
    (answer,) = client.wait_for(
        lambda: [m for m in client.messages if m.get("id") in (7, None) and "error" in m], "answer"
    )
    assert answer["error"]["code"] in (INVALID_PARAMS, PARSE_ERROR)
