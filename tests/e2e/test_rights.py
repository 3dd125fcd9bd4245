"""A guard never writes, and no call does or sees more than the user allowed, or changes that.

Each with the real Codex: whatever its configuration says, the machine's administrator ordered, or a
person has open. What Codex alone does with the same setup stands beside it. `make versions` runs
this with more versions of Codex; a test says what holds on each of them.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any, Dict, FrozenSet, List, NamedTuple

import pytest

from real import Terminal
from rights import (
    ALL,
    ASK,
    BOTH,
    LOOK,
    NOTHING,
    PATCH,
    READ,
    SPAWN,
    WORK,
    Ground,
    Outcome,
    ran,
    refused,
)
from tools import CHAT

READ_ONLY = ("-s", "read-only")
WORKSPACE = ("-s", "workspace-write")
DANGER = 'sandbox_mode = "danger-full-access"\n'
REVIEWER = 'approval_policy = "on-request"\napprovals_reviewer = "auto_review"\n'


# ---- rules that let a command run outside of the sandbox


def put_rule(ground: Ground, where: str, decision: str) -> None:
    rule = f'prefix_rule(pattern=["touch"]{decision})\n'
    if where == "home":
        ground.write(os.path.join(ground.real.home, "rules", "default.rules"), rule)
    elif where == "project":
        ground.configure(tables=ground.trust())
        ground.write(os.path.join(ground.work, ".codex", "rules", "project.rules"), rule)
    else:
        ground.in_etc("rules/machine.rules", rule)


@pytest.mark.parametrize("decision", [', decision="allow"', ""], ids=["allow", "no decision"])
@pytest.mark.parametrize("where", ["home", "project", "machine"])
def test_a_rule_that_allows_a_command_lets_no_guard_write(
    ground: Ground, where: str, decision: str
) -> None:
    put_rule(ground, where, decision)
    alone = ground.alone(*READ_ONLY)
    known = where == "home" or ground.since("0.125.0")
    assert alone.wrote == (BOTH if known else NOTHING), str(alone)
    for outcome in ground.readers(alone.session):
        assert outcome.wrote == NOTHING, str(outcome)
        # No option of Codex leaves out the rules of the machine's administrator.
        assert ran(outcome) or (where == "machine" and refused(outcome, "rule")), str(outcome)


# ---- what the machine's administrator requires


class Requirement(NamedTuple):
    """A requirements.toml, and what it does to `-s read-only` from 0.142.5 on."""

    text: str
    alone: FrozenSet[str] = NOTHING
    read_only: bool = True  # whether there is a way to be read-only under it


def profiles(default: str, *allowed: str) -> str:
    lines = [f'":{name}" = true' for name in allowed or (default,)]
    return "\n".join(
        [f'default_permissions = ":{default}"', "[allowed_permission_profiles]", *lines, ""]
    )


FULL = "danger-full-access"
REQUIREMENTS: Dict[str, Requirement] = {
    "all profiles, full access by default": Requirement(
        profiles(FULL, "read-only", "workspace", FULL), BOTH
    ),
    "workspace only": Requirement(profiles("workspace"), WORK, False),
    "full access only": Requirement(profiles(FULL), BOTH, False),
    "read-only only": Requirement(profiles("read-only")),
}


@pytest.mark.parametrize("name", list(REQUIREMENTS))
def test_a_guard_is_read_only_under_requirements_or_refused(ground: Ground, name: str) -> None:
    requirement = REQUIREMENTS[name]
    ground.in_etc("requirements.toml", requirement.text)
    alone = ground.alone(*READ_ONLY)
    known = ground.since("0.142.5")
    assert alone.wrote == (requirement.alone if known else NOTHING), str(alone)
    for outcome in ground.readers(alone.session):
        assert outcome.wrote == NOTHING, str(outcome)
        if requirement.read_only or not known:
            assert ran(outcome), str(outcome)
        else:
            assert refused(outcome, "requirement"), str(outcome)
    writing = ground.call(CHAT, sandbox="workspace-write")
    assert writing.wrote <= WORK, str(writing)
    assert ran(writing) or refused(writing, "requirement"), str(writing)


def test_a_guard_is_refused_where_sandbox_modes_leave_out_read_only(ground: Ground) -> None:
    ground.in_etc("requirements.toml", 'allowed_sandbox_modes = ["workspace-write"]\n')
    [guard] = ground.guards(None)
    assert guard.wrote == NOTHING and refused(guard, "allowed_sandbox_modes"), str(guard)


def test_a_guard_is_refused_where_only_an_automatic_reviewer_may_decide(ground: Ground) -> None:
    begun = ground.alone(*READ_ONLY)
    lines = (
        'allowed_approval_policies = ["on-request"]',
        'allowed_approvals_reviewers = ["auto_review"]\n',
    )
    ground.in_etc("requirements.toml", "\n".join(lines))
    alone = ground.alone(*READ_ONLY, kind=ASK)
    known = ground.since("0.125.0")
    assert alone.wrote == (BOTH if known else NOTHING), str(alone)
    for outcome in ground.readers(begun.session, ASK):
        assert outcome.wrote == NOTHING, str(outcome)
        assert refused(outcome, "requirement", "allowed set") or (not known and ran(outcome)), str(
            outcome
        )


# ---- what the user's own permission profile denies


def profile(ground: Ground, extends: str) -> str:
    """The tables of a profile `mine`, which writes the workspace and denies three files."""
    old = not ground.since("0.142.5")
    deny, roots = (
        ("none", ":project_roots") if old and not extends else ("deny", ":workspace_roots")
    )
    lines = ["[permissions.mine]", f'extends = "{extends}"'] if extends else []
    lines += ["[permissions.mine.filesystem]", f'"{ground.files["abs"]}" = "{deny}"']
    lines += [f'"{ground.files["picture"]}" = "{deny}"']
    lines += [] if extends else ['":root" = "read"']
    lines += [f'[permissions.mine.filesystem."{roots}"]', f'"secret" = "{deny}"']
    lines += [f'"**/*.env" = "{deny}"']
    lines += [] if extends else ['"." = "write"']
    return "\n".join(lines) + "\n"


DEFAULT = 'default_permissions = "mine"\n'
OWN = ["extends :workspace", "standalone", "the project's", "with full access for the project"]


def put_profile(ground: Ground, which: str) -> None:
    if which == "extends :workspace":
        ground.configure(DEFAULT, profile(ground, ":workspace"))
        return
    tables = profile(ground, "")
    if which == "standalone":
        ground.configure(DEFAULT, tables)
        return
    project = os.path.join(ground.work, ".codex", "config.toml")
    if which == "the project's":
        ground.configure(tables=ground.trust())
        ground.write(project, DEFAULT + tables)
    else:
        ground.configure(DEFAULT, tables + ground.trust())
        ground.write(project, DANGER)


@pytest.mark.parametrize("which", OWN)
def test_what_the_users_profile_denies_no_call_reads(ground: Ground, which: str) -> None:
    put_profile(ground, which)
    own, own_picture, alone, picture = ground.at_once(
        lambda: ground.alone(kind=READ),
        lambda: ground.alone(kind=LOOK),
        lambda: ground.alone(*READ_ONLY, kind=READ),
        lambda: ground.alone(*READ_ONLY, kind=LOOK),
    )
    chat, writing, seen, patched = ground.at_once(
        lambda: ground.call(CHAT, READ, sandbox="read-only"),
        lambda: ground.call(CHAT, READ, sandbox="workspace-write"),
        lambda: ground.call(ground.first, LOOK),
        lambda: ground.call(ground.second, PATCH),
    )
    guards = ground.guards(alone.session, READ)
    if own.failed:  # 0.125.0 does not know these words, and does not start
        assert not ground.since("0.142.5")
        for outcome in (chat, writing, seen, patched, *guards):
            assert refused(outcome, "config.toml", "profile"), str(outcome)
        return
    known = ground.since("0.125.0")
    # Codex keeps to the profile, unless the project says full access; and with `-s` it forgets it.
    assert own.read == (ALL if which == OWN[3] or not known else {"open"}), str(own)
    assert alone.read == ALL and picture.read == {"picture"} and alone.wrote == NOTHING, str(alone)
    words = ("permission", "profile", "denies", "denied")
    readable = {"open"} if known else ALL
    # Up to 0.125.0 Codex looks at a picture that is denied, in the user's own turns, too.
    pictures = NOTHING if ground.since("0.142.5") else {"picture"}
    assert own_picture.read == ({"picture"} if which == OWN[3] else pictures), str(own_picture)
    for outcome in (chat, writing, *guards):
        assert outcome.read == (readable if ran(outcome) else NOTHING), str(outcome)
        assert ran(outcome) or refused(outcome, *words), str(outcome)
    for outcome in (seen, patched):
        assert outcome.read <= pictures, str(outcome)
        assert ran(outcome) or refused(outcome, *words), str(outcome)
    for outcome in (chat, seen, patched, *guards):
        assert outcome.wrote == NOTHING, str(outcome)
    assert writing.wrote <= WORK, str(writing)


# ---- rights that the configuration, or the session, gives


def test_a_guard_does_not_write_in_a_trusted_directory(ground: Ground) -> None:
    ground.configure(tables=ground.trust())
    alone = ground.alone()
    assert alone.wrote == WORK, str(alone)
    for outcome in ground.guards(alone.session):
        assert ran(outcome) and outcome.wrote == NOTHING, str(outcome)


def test_a_guard_does_not_write_where_the_configuration_gives_full_access(ground: Ground) -> None:
    ground.configure(DANGER)
    alone, patched = ground.at_once(ground.alone, lambda: ground.alone(kind=PATCH))
    assert [alone.wrote, patched.wrote] == [BOTH, BOTH], (alone, patched)
    guards = ground.guards(alone.session) + ground.guards(patched.session, PATCH)
    for outcome in guards:
        assert ran(outcome) and outcome.wrote == NOTHING, str(outcome)


def test_no_automatic_reviewer_lets_a_call_out_of_its_sandbox(ground: Ground) -> None:
    ground.configure(REVIEWER)
    alone = ground.alone(*READ_ONLY, kind=ASK)
    assert alone.wrote == (BOTH if ground.since("0.142.5") else NOTHING), str(alone)
    for outcome in ground.readers(alone.session, ASK):
        assert ran(outcome) and outcome.wrote == NOTHING, str(outcome)
    writing = ground.call(CHAT, ASK, sandbox="workspace-write")
    assert ran(writing) and writing.wrote <= WORK, str(writing)


def test_a_guard_does_not_write_in_a_session_begun_with_more_rights(ground: Ground) -> None:
    chat = ground.call(CHAT, sandbox="workspace-write")
    alone = ground.alone("-s", FULL)
    assert [chat.wrote, alone.wrote] == [WORK, BOTH], (chat, alone)
    for outcome in ground.at_once(
        lambda: ground.call(ground.first, session_id=chat.session),
        lambda: ground.call(ground.second, session_id=alone.session),
    ):
        assert ran(outcome) and outcome.wrote == NOTHING, str(outcome)


def test_no_agent_that_a_guard_begins_writes(ground: Ground) -> None:
    ground.configure(
        tables='[agents.writer]\ndescription = "writes"\nconfig_file = "writer.toml"\n'
    )
    role = 'developer_instructions = "Write."\n' + DANGER
    ground.write(os.path.join(ground.real.home, "writer.toml"), role)
    put_rule(ground, "home", "")
    alone = ground.alone(*READ_ONLY, kind=SPAWN)
    assert alone.wrote == (BOTH if ground.since("0.125.0") else NOTHING), str(alone)
    for outcome in ground.guards(alone.session, SPAWN):
        assert outcome.wrote == NOTHING, str(outcome)
        # On 0.125.0 and 0.142.5 `--ignore-rules` does not reach an agent with a file of its own,
        # and nothing keeps a resumed session of 0.142.5 from beginning one.
        free = ground.since("0.154.0") or not ground.since("0.125.0")
        assert ran(outcome) or (not free and refused(outcome, "rule")), str(outcome)


def test_a_guard_does_not_write_with_all_of_this_at_once(ground: Ground) -> None:
    put_rule(ground, "home", "")
    put_rule(ground, "project", ', decision="allow"')
    ground.configure(DANGER + REVIEWER, ground.trust())
    alone = ground.alone()
    assert alone.wrote == BOTH, str(alone)
    for outcome in ground.readers(alone.session) + ground.guards(alone.session, ASK):
        assert ran(outcome) and outcome.wrote == NOTHING, str(outcome)


# ---- the trust that is written into config.toml


@pytest.mark.parametrize("place", ["a directory", "a repository"])
def test_work_in_a_new_directory_makes_it_no_trusted_one(ground: Ground, place: str) -> None:
    folders = []
    for name in ("by-codex", "by-server"):
        top = folder = os.path.join(ground.real.root, name)
        if place == "a repository":
            subprocess.run(["git", "init", "--quiet", top], check=True)
            folder = os.path.join(top, "sub")
        ground.write(os.path.join(folder, ".codex", "config.toml"), 'model = "the-project-s"\n')
        folders.append(folder)
    alone = ground.alone(*WORKSPACE, cwd=folders[0])
    saves = ground.since("0.121.0") and not ground.since("0.156.0")
    assert alone.wrote == WORK and (alone.config != ground.configured) == saves, alone.config
    chat = ground.call(CHAT, cwd=folders[1], sandbox="workspace-write")
    assert ran(chat) and chat.wrote == WORK and set(chat.models) == {"mock-model"}, str(chat)
    # As before, Codex may not write there by itself.
    assert ground.call(CHAT, cwd=folders[1]).wrote == NOTHING


def test_full_access_by_the_operator_makes_no_directory_a_trusted_one(ground: Ground) -> None:
    chat = ground.call(CHAT, env={"CODEX_MCP_SANDBOX": FULL})
    assert ran(chat) and chat.wrote == BOTH, str(chat)


@pytest.mark.parametrize("level", ["trusted", "untrusted"])
def test_the_trust_that_the_user_gave_stays_and_holds(ground: Ground, level: str) -> None:
    ground.configure(tables=ground.trust(level=level))
    ground.write(os.path.join(ground.work, ".codex", "config.toml"), 'model = "the-project-s"\n')
    alone = ground.alone(*WORKSPACE)
    chat = ground.call(CHAT, sandbox="workspace-write")
    taken = level == "trusted" and ground.since("0.125.0")
    assert set(alone.models) == {"the-project-s" if taken else "mock-model"}, str(alone)
    assert ran(chat) and chat.wrote == WORK and chat.models == alone.models, str(chat)


# ---- a session that a person has open


class Window:
    """A session, begun by hand, in a window of `codex resume`."""

    def __init__(self, ground: Ground, *options: str) -> None:
        ground.configure(tables=ground.trust())
        self.ground = ground
        self.session = str(ground.alone(*READ_ONLY, kind=READ).session)
        self._terminal = Terminal(ground.real, ["resume", *options, self.session])
        self._terminal.wait_for("Over.")

    def __enter__(self) -> Window:
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.close()

    def person_writes(self) -> bool:
        """Whether Codex writes for the person, who types; outside of the workspace."""
        path = os.path.join(self.ground.out, "by-person")
        text = f"I say: MODEL:RUN touch {path}"
        self._terminal.say(text)
        self._terminal.wait_for("You wrote: I say")
        self.ground.configured = self.ground.config()  # the window keeps settings of its own there
        return os.path.exists(path)

    def calls(self) -> List[Outcome]:
        # Where the window holds the session, and there is no way into it, the call waits in vain.
        held = 60000 if self.ground.since("0.157.0") else 8000
        more: Dict[str, Any] = {"session_id": self.session, "timeout_ms": held}
        return self.ground.at_once(
            lambda: self.ground.call(self.ground.first, **more),
            lambda: self.ground.call(CHAT, sandbox="read-only", **more),
        )


def test_a_guard_does_not_write_in_a_session_that_is_open_with_more_rights(ground: Ground) -> None:
    with Window(ground, "-s", FULL) as window:
        assert window.person_writes()
        for outcome in window.calls():
            assert outcome.wrote == NOTHING, str(outcome)
            if ground.since("0.157.0"):
                assert refused(outcome, "read-only"), str(outcome)
            elif ground.since("0.147.0"):  # the window holds the session
                assert refused(outcome, "within 8 s", "open elsewhere"), str(outcome)
            else:  # Codex lets both work on it
                assert ran(outcome), str(outcome)


def test_a_guard_does_not_write_by_a_rule_in_a_session_that_is_open(ground: Ground) -> None:
    put_rule(ground, "home", ', decision="allow"')
    with Window(ground, "-s", "read-only") as window:
        assert window.person_writes()
        for outcome in window.calls():
            assert outcome.wrote == NOTHING, str(outcome)
            if ground.since("0.157.0"):
                assert refused(outcome, "rule"), str(outcome)
            elif ground.since("0.147.0"):
                assert refused(outcome, "within 8 s", "open elsewhere"), str(outcome)
            else:
                assert ran(outcome), str(outcome)


# ---- what the operator sets


def test_outside_of_the_operators_directories_no_call_works(ground: Ground) -> None:
    inside, outside = os.path.join(ground.work, "sub"), os.path.join(ground.real.root, "outside")
    os.mkdir(outside)
    os.symlink(outside, os.path.join(ground.work, "link"))
    alone = ground.alone(*WORKSPACE, cwd=outside)
    assert alone.wrote == WORK, str(alone)
    env = {"CODEX_MCP_ROOTS": os.pathsep.join([ground.real.person, ground.work])}
    within, *others = ground.at_once(
        lambda: ground.call(CHAT, cwd=inside, sandbox="workspace-write", env=env),
        lambda: ground.call(CHAT, cwd=outside, sandbox="workspace-write", env=env),
        lambda: ground.call(ground.first, cwd=os.path.join(ground.work, "link"), env=env),
        lambda: ground.call(ground.second, session_id=alone.session, env=env),
        lambda: ground.call(CHAT, cwd=ground.real.root, env=env),
    )
    assert ran(within) and within.wrote == WORK, str(within)
    for outcome in others:
        assert refused(outcome, "codex_mcp_roots") and not outcome.models, str(outcome)


def test_the_operators_options_do_not_widen_a_guard(ground: Ground) -> None:
    wide = ["-c", 'sandbox_mode="danger-full-access"']
    alone = ground.alone(*wide)
    assert alone.wrote == BOTH, str(alone)
    for outcome in ground.guards(alone.session, env={"CODEX_MCP_CODEX_ARGS": shlex.join(wide)}):
        assert outcome.wrote == NOTHING, str(outcome)
        assert ran(outcome) or refused(outcome, "codex_mcp_codex_args"), str(outcome)


def test_the_operators_options_give_no_guard_an_automatic_reviewer(ground: Ground) -> None:
    wide = ["-c", 'approval_policy="on-request"', "-c", 'approvals_reviewer="auto_review"']
    env = {"CODEX_MCP_CODEX_ARGS": shlex.join(wide)}
    alone = ground.alone(*READ_ONLY, *wide, kind=ASK)
    assert alone.wrote == (BOTH if ground.since("0.142.5") else NOTHING), str(alone)
    for outcome in ground.guards(alone.session, ASK, env=env):
        assert outcome.wrote == NOTHING, str(outcome)
        assert ran(outcome) or refused(outcome, "codex_mcp_codex_args"), str(outcome)


def test_a_directory_that_the_operator_adds_is_written_but_by_no_guard(ground: Ground) -> None:
    added = ["--add-dir", ground.out]
    env = {"CODEX_MCP_CODEX_ARGS": shlex.join(added)}
    alone = ground.alone(*WORKSPACE, *added)
    without, chat = ground.at_once(
        lambda: ground.call(CHAT, sandbox="workspace-write"),
        lambda: ground.call(CHAT, sandbox="workspace-write", env=env),
    )
    assert alone.wrote == BOTH, str(alone)
    assert without.wrote == WORK, str(without)
    assert chat.wrote == BOTH, str(chat)
    for outcome in ground.guards(alone.session, env=env):
        assert ran(outcome) and outcome.wrote == NOTHING, str(outcome)


def test_the_operators_options_reach_codex(ground: Ground) -> None:
    options = ["-c", "features.shell_tool=false"]
    env = {"CODEX_MCP_CODEX_ARGS": shlex.join(options)}
    alone = ground.alone(*options)
    without, chat, guard = ground.at_once(
        lambda: ground.call(CHAT),
        lambda: ground.call(CHAT, env=env),
        lambda: ground.call(ground.first, env=env),
    )
    shell = without.tools - alone.tools
    assert shell and not chat.tools & shell and not guard.tools & shell, (shell, str(chat))


@pytest.mark.parametrize(
    "options",
    [
        "--full-auto",
        "--yolo",
        "--dangerously-bypass-approvals-and-sandbox",
        "-s danger-full-access",
        "-sdanger-full-access",
        "--sandbox=danger-full-access",
    ],
)
def test_an_option_that_lifts_the_sandbox_is_refused(ground: Ground, options: str) -> None:
    for outcome in (
        ground.call(ground.first, env={"CODEX_MCP_CODEX_ARGS": options}),
        ground.call(CHAT, env={"CODEX_MCP_CODEX_ARGS": options}),
    ):
        assert refused(outcome, "codex_mcp_codex_args") and not outcome.models, str(outcome)


def test_where_the_operator_gives_full_access_a_guard_may_write(ground: Ground) -> None:
    env = {"CODEX_MCP_SANDBOX": FULL}
    ground.configure(tables=ground.trust())
    alone = ground.alone(*READ_ONLY)
    assert alone.wrote == NOTHING, str(alone)
    for outcome in ground.guards(alone.session, env=env) + ground.guards(None, PATCH, env=env):
        assert ran(outcome) and outcome.wrote == BOTH, str(outcome)
