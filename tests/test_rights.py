"""What a turn may do: the arguments that set its sandbox, where it may work, and the refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

import pytest

import codex_persistent_mcp as program
from client import PROGRAM, session_of, text_of
from conftest import Bench
from tools import GUARDS, TOOLS

ALLOW = 'prefix_rule(pattern=["touch"], decision="allow")\n'
FORBID = 'prefix_rule(pattern=["rm"], decision="forbidden", justification="no")\n'
OWN_PROFILE = (
    'default_permissions = "mine"\n[permissions.mine.filesystem]\n"/etc/secret" = "deny"\n'
)


def write(*parts: str, text: str) -> str:
    path = os.path.join(*parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def rights(
    bench: Bench,
    sandbox: Optional[str],
    version: Tuple[int, ...] = (0, 169, 0),
    session: Optional[str] = None,
    **env: str,
) -> str:
    settings = program.read_settings(dict(bench.env, **env))
    assert not settings.problems
    options = program.Options(bench.work, session, sandbox=sandbox)
    return " ".join(program.right_arguments(options, version, settings))


VERSIONS = [(0, 58, 0), (0, 77, 0), (0, 98, 0), (0, 110, 0), (0, 121, 0), (0, 125, 0), (0, 169, 0)]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_review_is_read_only_in_both_systems_and_asks_nobody(
    bench: Bench, version: Tuple[int, ...]
) -> None:
    found = rights(bench, "read-only", version)
    assert '-s read-only -c default_permissions=":read-only"' in found
    assert 'approval_policy="never"' in found and 'approvals_reviewer="user"' in found


def test_a_chat_without_a_sandbox_is_left_to_the_user_s_configuration(bench: Bench) -> None:
    write(bench.home, "rules", "default.rules", text=ALLOW)
    write(bench.home, "config.toml", text=OWN_PROFILE)
    assert rights(bench, None) == ""


@pytest.mark.parametrize("place", ["home", "project", "above"])
@pytest.mark.parametrize(
    "rule", [ALLOW, 'prefix_rule(pattern=["touch"])', FORBID + ALLOW, 'x=1; prefix_rule  (["a"])']
)
def test_an_allow_rule_is_left_out_or_the_call_is_refused(
    bench: Bench, place: str, rule: str
) -> None:
    folder = {"home": bench.home, "project": f"{bench.work}/.codex"}.get(
        place, os.path.join(os.path.dirname(bench.work), ".codex")
    )
    path = write(folder, "rules", "my own.rules", text=rule)
    assert "--ignore-rules" in rights(bench, "read-only", (0, 125, 0))
    assert "--ignore-rules" in rights(bench, "read-only", (0, 169, 0))
    assert "-c features.exec_policy=false" in rights(bench, "read-only", (0, 77, 0))
    for version in ((0, 105, 0), (0, 121, 9)):
        with pytest.raises(program.Failure, match="must not write") as caught:
            rights(bench, "read-only", version)
        assert path in str(caught.value) and "update Codex" in str(caught.value)
    assert "rules" not in rights(bench, "workspace-write")


@pytest.mark.parametrize(
    "text", ["", FORBID, "# " + ALLOW, "prefix_rule(pattern=[\"a\"], decision = 'prompt')"]
)
def test_a_rule_that_lifts_nothing_refuses_nothing(bench: Bench, text: str) -> None:
    write(bench.home, "rules", "default.rules", text=text)
    assert "-s read-only" in rights(bench, "read-only", (0, 110, 0))


def test_a_rule_of_the_administrator_s_cannot_be_left_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    managed = os.path.join(bench.notes, "etc")
    monkeypatch.setattr(program, "MANAGED", managed)
    path = write(managed, "rules", "all.rules", text=ALLOW)
    with pytest.raises(program.Failure, match="must not write") as caught:
        rights(bench, "read-only")
    assert path in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        OWN_PROFILE,
        "default_permissions='mine'",
        '"default_permissions" = "mine"',
        'model = "x"\n  default_permissions  =  "mine"  # why',
    ],
)
@pytest.mark.parametrize("place", ["home", "project", "operator"])
def test_a_permission_profile_of_the_user_s_is_never_forgotten(
    bench: Bench, text: str, place: str
) -> None:
    env: Dict[str, str] = {}
    if place == "operator":
        env = {"CODEX_MCP_CODEX_ARGS": """-c 'default_permissions="mine"'"""}
    else:
        folder = bench.home if place == "home" else os.path.join(bench.work, ".codex")
        write(folder, "config.toml", text=text)
    for sandbox in ("read-only", "workspace-write"):
        with pytest.raises(program.Failure, match="CODEX_MCP_REVIEW_PROFILE"):
            rights(bench, sandbox, **env)
    found = rights(bench, "read-only", CODEX_MCP_REVIEW_PROFILE="reviews", **env)
    assert '-c default_permissions="reviews"' in found and "-s " not in found
    assert 'approval_policy="never"' in found and "--ignore-rules" in found
    with pytest.raises(program.Failure):
        rights(bench, "workspace-write", CODEX_MCP_REVIEW_PROFILE="reviews", **env)


@pytest.mark.parametrize("text", ['default_permissions=":workspace"', '#default_permissions="m"'])
def test_a_profile_of_codex_s_own_denies_nothing(bench: Bench, text: str) -> None:
    write(bench.home, "config.toml", text=text)
    assert "-s read-only" in rights(bench, "read-only")


def test_what_cannot_be_read_refuses_a_review(bench: Bench) -> None:
    os.makedirs(os.path.join(bench.home, "config.toml"))
    with pytest.raises(program.Failure, match="not known"):
        rights(bench, "read-only")


TRUSTING = [(0, 121, 0), (0, 142, 5), (0, 155, 1)]


@pytest.mark.parametrize("version", TRUSTING)
def test_a_new_session_that_may_write_does_not_make_its_directory_trusted(
    bench: Bench, version: Tuple[int, ...]
) -> None:
    found = rights(bench, "workspace-write", version)
    real = json.dumps(os.path.realpath(bench.work))
    assert f'-c projects={{{real}={{trust_level="untrusted"}}}}' in found
    assert "projects" not in rights(bench, "read-only", version)
    assert "projects" not in rights(bench, "workspace-write", version, session="x")


@pytest.mark.parametrize("version", [(0, 77, 0), (0, 118, 0), (0, 156, 1), (0, 169, 0)])
def test_where_codex_saves_no_trust_nothing_is_said_of_it(
    bench: Bench, version: Tuple[int, ...]
) -> None:
    assert "projects" not in rights(bench, "workspace-write", version)


@pytest.mark.parametrize("level", ["trusted", "untrusted"])
@pytest.mark.parametrize("form", ['[projects."%s"]\ntrust_level="%s"', "projects={'%s'={t='%s'}}"])
@pytest.mark.parametrize("root", [False, True], ids=["the directory", "its repository"])
def test_what_the_user_said_of_a_directory_stays_in_force(
    bench: Bench, level: str, form: str, root: bool
) -> None:
    path = os.path.dirname(bench.work) if root else bench.work
    os.makedirs(os.path.join(path, ".git"))
    write(bench.home, "config.toml", text=form % (path, level))
    assert "projects" not in rights(bench, "workspace-write", (0, 142, 5))


def test_what_the_user_said_of_a_directory_above_is_not_about_this_one(bench: Bench) -> None:
    os.makedirs(os.path.join(bench.work, ".git"))
    text = f'[projects."{os.path.dirname(bench.work)}"]\ntrust_level="trusted"\n'
    write(bench.home, "config.toml", text=text)
    assert "untrusted" in rights(bench, "workspace-write", (0, 142, 5))


# -- what Codex announces --------------------------------------------------------------------------

FALLS_BACK = "Configured value for `%s` is disallowed by requirements; falling back %s"
WIDER = [
    [FALLS_BACK % ("permission_profile", "from `:read-only` to required value `:workspace`.")],
    [FALLS_BACK % ("permission_profile", "from `:read-only` to required value `team`.")],
    [FALLS_BACK % ("sandbox_mode", "to required value WorkspaceWrite { writable_roots: [] }.")],
    ["The sandbox you chose is not allowed. Codex fell back. It falls back to what is required"],
    [
        FALLS_BACK % ("approval_policy", "to required value OnRequest. Details: x"),
        FALLS_BACK % ("approvals_reviewer", "to required value AutoReview. Details: x"),
    ],
]


def announcing(*texts: str) -> str:
    items = [
        json.dumps(
            {"type": "item.completed", "item": {"id": "i", "type": "error", "message": text}}
        )
        for text in texts
    ]
    lines = ["session", *("raw " + item for item in items), "gate spend", "started", "mark spent"]
    return "\n".join("FAKE:" + line for line in [*lines, "say I wrote it.", "completed"])


@pytest.mark.parametrize("texts", WIDER, ids=range(len(WIDER)))
@pytest.mark.parametrize("tool", GUARDS)
def test_a_review_that_would_get_more_rights_is_stopped_before_it_begins(
    bench: Bench, tool: str, texts: List[str]
) -> None:
    first = next(iter(TOOLS[tool].required))
    arguments = dict(TOOLS[tool].required, **{first: announcing(*texts)})
    result = bench.start().call(tool, arguments)
    text = text_of(result)
    assert result.get("isError") and "managed requirements" in text and texts[-1] in text
    assert "I wrote it" not in text and "codex resume" not in text
    assert not os.path.exists(os.path.join(bench.notes, "marks"))


HARMLESS = [
    FALLS_BACK % ("approval_policy", "to required value OnRequest. Details: x"),
    FALLS_BACK % ("permission_profile", "from `:workspace` to required value `:read-only`."),
    "Model metadata for `x` not found. Defaulting to fallback metadata.",
    "The sandbox falls back to the slower way.",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_gives_no_more_rights_is_a_warning(bench: Bench, text: str) -> None:
    bench.open("spend")
    result = bench.start().chat(announcing(text), sandbox="workspace-write")
    assert session_of(result) and text in "".join(result["structuredContent"]["warnings"])


def test_a_chat_without_a_sandbox_takes_what_is_required(bench: Bench) -> None:
    bench.open("spend")
    assert session_of(bench.start().chat(announcing(*WIDER[0])))


# -- where agents may work -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["/", "~", "home", "above the home"])
@pytest.mark.parametrize("how", ["asked", "operator"])
def test_what_is_no_workspace_is_not_written_in(bench: Bench, where: str, how: str) -> None:
    cwd = {"~": bench.notes, "home": bench.home, "/": "/"}.get(where, os.path.dirname(bench.home))
    env = {"HOME": bench.notes, "CODEX_MCP_SANDBOX": "workspace-write" if how == "operator" else ""}
    client = bench.start(env=env)
    sandbox = {"sandbox": "workspace-write"} if how == "asked" else {}
    text = text_of(client.chat("hello", cwd=cwd, **sandbox))
    assert "no workspace" in text and "as cwd" in text and bench.calls() == []
    session_of(client.chat("hello", cwd=cwd, sandbox="read-only"))
    session_of(client.chat("hello", cwd=bench.work, **sandbox))


def test_agents_work_only_where_the_operator_lets_them(bench: Bench) -> None:
    inside, outside = os.path.join(bench.work, "in"), os.path.join(bench.work, "out")
    other = os.path.join(bench.work, "other")
    for folder in (os.path.join(inside, "deep"), outside, other, inside + "side"):
        os.makedirs(folder)
    os.symlink(outside, os.path.join(inside, "link"))
    free = bench.start()
    mine = session_of(free.chat("hello", cwd=inside))
    theirs = session_of(free.chat("hello", cwd=outside))
    runs = len(bench.calls())
    roots = os.pathsep.join([inside, other])
    client = bench.start(env={"CODEX_MCP_ROOTS": roots})
    for cwd in (outside, inside + "side", os.path.join(inside, "link"), bench.work, "/"):
        assert "CODEX_MCP_ROOTS" in text_of(client.chat("hello", cwd=cwd)), cwd
    assert "CODEX_MCP_ROOTS" in text_of(client.chat("hello"))  # nor in the server's own directory
    for arguments in ({}, {"cwd": inside}):
        text = text_of(client.chat("hello", session_id=theirs, **arguments))
        assert "CODEX_MCP_ROOTS" in text
    assert len(bench.calls()) == runs
    for cwd in (inside, os.path.join(inside, "deep"), other):
        session_of(client.chat("hello", cwd=cwd))
    assert session_of(client.chat("hello", session_id=mine)) == mine


def test_with_roots_a_session_of_unknown_directory_is_refused(bench: Bench) -> None:
    client = bench.start(env={"CODEX_MCP_ROOTS": bench.work})
    unknown = "11111111-1111-4111-8111-111111111111"
    assert "not known" in text_of(client.chat("hello", session_id=unknown))
    assert bench.calls() == []


# -- the operator's own options --------------------------------------------------------------------

GOOD_ARGS = [
    ("-c model_verbosity=high", ["-c", "model_verbosity=high"]),
    ("-cx=1 --config=y=2", ["-cx=1", "--config=y=2"]),
    ("-p team --add-dir '/a b'", ["-p", "team", "--add-dir", "/a b"]),
    ("--enable x --disable=y --oss", ["--enable", "x", "--disable=y", "--oss"]),
    ("-c mcp_servers.docs.enabled=false", ["-c", "mcp_servers.docs.enabled=false"]),
]


@pytest.mark.parametrize("text, words", GOOD_ARGS)
def test_the_operator_s_options_come_before_the_server_s_own(
    bench: Bench, text: str, words: List[str]
) -> None:
    client = bench.start(env={"CODEX_MCP_CODEX_ARGS": text})
    client.call(GUARDS[0], TOOLS[GUARDS[0]].required)
    argv = bench.calls()[0]["argv"]
    assert argv[: len(words) + 1] == ["exec", *words]
    assert argv.index("-s") > len(words)


BAD_ARGS = (
    ["--json", "resume", "resume x", "a prompt", "-", "-C /", "-C/", "--cd=/", "-s read-only"]
    + ["--sandbox=danger-full-access", "-sdanger-full-access", "--full-auto", "--yolo"]
    + ["--dangerously-bypass-approvals-and-sandbox", "-a never", "--ephemeral", "-o f"]
    + ["--output-schema f", "--output-last-message=f", "-i f", "--approve-for-me", "--", "-c"]
    + ["--skip-git-repo-check", "-m x", "-p a b", "--worktree", "'unclosed", "--full-auto=x"]
    + ["--ignore-user-config", "--trust", "--experimental-json", "--oss=--yolo", "fork x"]
)


@pytest.mark.parametrize("text", BAD_ARGS)
def test_an_option_that_breaks_the_protocol_or_widens_rights_is_refused(
    bench: Bench, text: str
) -> None:
    env = {"CODEX_MCP_CODEX_ARGS": text}
    refusal = text_of(bench.start(env=env).chat("hello"))
    assert "misconfigured" in refusal and "CODEX_MCP_CODEX_ARGS" in refusal
    assert bench.calls() == []
    check = checked(bench, **env)
    assert check.returncode == 1 and "FAIL  CODEX_MCP_CODEX_ARGS" in check.stdout


# -- --check ---------------------------------------------------------------------------------------


def checked(bench: Bench, **env: str) -> Any:
    return subprocess.run(
        [sys.executable, PROGRAM, "--check"],
        env=dict(dict(os.environ, **bench.env), **env),
        stdout=subprocess.PIPE,
        universal_newlines=True,
        timeout=60,
    )


def lines_of(check: Any) -> Dict[str, str]:
    return {line[6:34].strip(): line[:6] + line[35:] for line in check.stdout.splitlines()[1:]}


def test_check_tells_what_turns_may_do_here(bench: Bench) -> None:
    path = write(bench.home, "rules", "default.rules", text=ALLOW)
    write(bench.home, "config.toml", text=f'[projects."{bench.work}"]\ntrust_level="trusted"\n')
    check = checked(bench, CODEX_MCP_SANDBOX="workspace-write")
    found = lines_of(check)
    assert check.returncode == 0, check.stdout
    assert "-s read-only" in found["rights of guards"]
    assert "-s workspace-write" in found["rights of codex_chat"]
    assert path in found["rules that lift a sandbox"]
    assert "trusted" in found["trust of the directory"]
    assert "can run here" in found["sandboxed commands"]
    assert not any("sandbox" in call["argv"] for call in bench.calls())


def test_check_says_what_to_do_where_rights_cannot_be_kept(bench: Bench) -> None:
    write(bench.home, "config.toml", text=OWN_PROFILE)
    check = checked(bench, FAKE_CODEX_SANDBOX="none")
    found = lines_of(check)
    assert check.returncode == 1
    assert found["rights of guards"].startswith("FAIL")
    assert "CODEX_MCP_REVIEW_PROFILE" in found["rights of guards"]
    assert found["rights of codex_chat"].startswith("ok")
    assert found["sandboxed commands"].startswith("FAIL")
    assert "namespace" in found["sandboxed commands"]
    assert "user namespaces" in found["sandboxed commands"]
