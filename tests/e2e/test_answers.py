"""What an answer of the real Codex says: verdicts, failed commands, advice, notices, bases."""

from __future__ import annotations

import pytest

from client import session_of, text_of
from real import Real
from tools import CHAT, FINAL, PLAN, TOOLS


def test_a_review_has_a_verdict_that_a_program_can_read(real: Real) -> None:
    arguments = dict(TOOLS[PLAN].required, plan="Paint it.\nMODEL:SAY **Go with changes**: no red.")
    result = real.start().call(PLAN, arguments)
    assert result["structuredContent"]["verdict"] == "go_with_changes"
    assert "verdict: go_with_changes" in text_of(result).split("\n")[0]


def test_a_reviewer_is_told_from_where_the_change_counts(real: Real) -> None:
    real.start().call(FINAL, dict(TOOLS[FINAL].required, base="HEAD~3"))
    heard = real.heard()
    assert "git diff HEAD~3" in heard and "git log HEAD~3..HEAD" in heard


def test_a_command_that_fails_is_told_with_its_exit_code(real: Real) -> None:
    client = real.start()
    order = "Try.\nMODEL:RUN exit 7\nMODEL:SAY It failed.\nMODEL:WAIT 1"
    result = client.result(client.start_call(CHAT, {"prompt": order}, token="p"))
    assert session_of(result)
    told = [one["message"] for one in client.progress("p")]
    assert any("Failed (exit code 7): exit 7" in text for text in told), told


@pytest.mark.parametrize(
    "status, advice",
    [("401", "codex login"), ("429", "in a minute"), ("500", "call again later")],
)
def test_a_failing_model_s_server_comes_with_what_to_do(
    real: Real, status: str, advice: str
) -> None:
    result = real.start().chat(f"Hello.\nMODEL:FAIL {status}")
    assert result.get("isError") and advice in text_of(result), text_of(result)


def test_a_notice_on_the_configuration_is_told_once(real: Real) -> None:
    client = real.start()
    answers = [client.chat(f"{text}\nMODEL:SAY {text}.") for text in ("One", "Two")]
    metadata = ["Model metadata" in text_of(result) for result in answers]
    assert metadata == [not real.old, False]
