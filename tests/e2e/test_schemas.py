"""The tools' schemas as engines compile them and frameworks convert them (schema_readers.py).

A model's server turns the schemas of all tools into one grammar, and answers no request at all
where it cannot. Needs what install_frameworks.py installs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any, Dict, List, Optional

import pytest

from client import BOUND, Client
from install_frameworks import framework_python
from schema_readers import CONVERTERS, ENGINES

HERE = os.path.dirname(os.path.abspath(__file__))
Json = Dict[str, Any]
TEXT = 'Why does "make test" fail?\nSee C:\\x and /tmp/é.'
#: Arguments that a model must be able to write, for those whose schema alone does not tell.
VALUES = {
    "session_id": "0199a7c3-5b1e-7d20-8f3a-2c4d6e8f0a1b",
    "cwd": "/home/user/my project",
    "model": "gpt-5.1-codex-max",
    "reasoning_effort": "xhigh",
}
#: Where a converter says that a schema is strict: all arguments required, no others.
STRICT = [name for name in CONVERTERS if name.endswith("strict")]


@pytest.fixture(scope="module")
def tools() -> List[Json]:
    with Client({"CODEX_BIN": sys.executable}) as client:
        client.initialize()
        return client.ask("tools/list")["result"]["tools"]


def value_of(name: str, rule: Json) -> Any:
    """A good value for an argument."""
    if "enum" in rule:
        return rule["enum"][-1]
    kinds = {"string": VALUES.get(name, TEXT), "integer": rule.get("maximum", 7), "boolean": True}
    return kinds[rule["type"]]


def samples(schema: Json) -> List[Json]:
    """What a model must be able to write: required arguments, all, and all with a Windows path."""
    everything = {name: value_of(name, rule) for name, rule in schema["properties"].items()}
    least = {name: everything[name] for name in schema.get("required", [])}
    windows = {"cwd": "C:\\Users\\a b"} if "cwd" in everything else {}
    return [least, everything, {**everything, **windows}]


def filled_in(schema: Json) -> Json:
    """All arguments, with "" for optional texts that are free."""
    free = {
        name: ""
        for name, rule in schema["properties"].items()
        if rule["type"] == "string"
        and "enum" not in rule
        and name not in schema.get("required", [])
    }
    return {
        name: free.get(name, value_of(name, rule)) for name, rule in schema["properties"].items()
    }


def ask(
    reader: str, tools: List[Json], texts: Optional[Dict[str, List[str]]] = None
) -> Dict[str, Json]:
    """What a reader makes of each tool; for an engine, which of the tool's `texts` it accepts."""
    name = "grammars" if reader in ENGINES else re.split(r"[, ]", reader)[0]
    name = {"google-genai": "google-adk"}.get(name, name)
    python = framework_python(name)
    assert os.path.exists(python), (
        f"{python} is missing; run `python tests/e2e/install_frameworks.py`"
    )
    run = subprocess.run(
        [python, os.path.join(HERE, "schema_readers.py")],
        input=json.dumps({"reader": reader, "tools": tools, "samples": texts or {}}).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=2 * BOUND,
    )
    assert run.returncode == 0, run.stderr.decode("utf-8", "replace")[-3000:]
    return json.loads(run.stdout)


def written(arguments: Any) -> str:
    """Arguments as a model writes them."""
    return json.dumps(arguments, ensure_ascii=False)


# --- engines that hold a model to a grammar -------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_compiles_the_schemas_and_lets_a_model_write_good_arguments(
    tools: List[Json], engine: str
) -> None:
    texts = {tool["name"]: list(map(written, samples(tool["inputSchema"]))) for tool in tools}
    # A schema that requires nothing allows any object; the server refuses what it does not know.
    needs = {tool["name"]: tool["inputSchema"]["required"] for tool in tools}
    bad = {name: ["[]", '{"promt": 1}'] if needs[name] else ["[]"] for name in texts}
    answers = ask(engine, tools, {name: good + bad[name] for name, good in texts.items()})
    assert answers == {name: {"accepted": good} for name, good in texts.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_must_fill_in_every_argument_need_not_invent_a_session(
    tools: List[Json], engine: str
) -> None:
    """In OpenAI's strict mode and some frameworks, only an empty text leaves an argument out."""
    texts = {tool["name"]: [written(filled_in(tool["inputSchema"]))] for tool in tools}
    answers = ask(engine, tools, texts)
    assert answers == {name: {"accepted": good} for name, good in texts.items()}


# --- converters of frameworks ---------------------------------------------------------------------


@pytest.mark.parametrize("converter", CONVERTERS)
def test_a_converter_takes_the_schemas_and_loses_nothing_that_a_model_needs(
    tools: List[Json], converter: str
) -> None:
    answers = ask(converter, tools)
    for tool in tools:
        answer, schema = answers[tool["name"]], tool["inputSchema"]
        assert "problem" not in answer, (tool["name"], answer)
        converted = answer["schema"]
        assert converted["type"] == "object" and list(converted["properties"]) == list(
            schema["properties"]
        )
        for name, rule in schema["properties"].items():
            shown = converted["properties"][name]
            # A converter that does not know a keyword puts it into the description.
            for key in ("type", "description", "enum"):
                assert shown.get(key) == rule.get(key), (tool["name"], name, key)
        if converter in STRICT:
            assert converted["additionalProperties"] is False
            assert sorted(converted["required"]) == sorted(schema["properties"])
        else:
            assert sorted(converted.get("required", [])) == sorted(schema.get("required", []))


def test_every_argument_has_one_type_and_nothing_that_few_readers_know(tools: List[Json]) -> None:
    known = {"type", "description", "enum", "pattern", "minimum", "maximum", "default"}
    for tool in tools:
        for name, rule in tool["inputSchema"]["properties"].items():
            assert rule["type"] in ("string", "integer", "boolean") and rule["description"], (
                name,
                rule,
            )
            assert set(rule) <= known, (name, rule)


# --- llama.cpp ------------------------------------------------------------------------------------

#: What a pattern may be made of, so that common/json-schema-to-grammar.cpp makes a grammar of it
#: that src/llama-grammar.cpp can parse and that stays within a JSON string. A literal: the
#: converter unescapes these characters and hands on any other escape, of which the grammar knows
#: few; a lone } or ] it reads for ever. A quote or a backslash, also as part of "." or of a negated
#: class, would end the string or begin an escape in it.
LITERAL = r'(?:[^\x00-\x1f\\"^$.|?*+(){}\[\]]|\\[\^$.|?*+(){}\[\]])'
CLASS = r'(?:\[(?!\^)(?:[^\x00-\x1f\\"\[\]]|\\[\[\]])+\])'
TIMES = r"(?:[*+?]|\{[0-9]+(?:,[0-9]*)?\})"
ITEMS = f"(?:(?:{LITERAL}|{CLASS}){TIMES}?|[|])*"
#: The most that a grammar may say something is repeated (MAX_REPETITION_THRESHOLD).
MOST = 1999


def llama_cpp_can(pattern: str) -> bool:
    """Whether llama.cpp turns a pattern into a grammar; if not, it answers 400 to every request."""
    if not re.fullmatch(r"\^.*[^\\]\$", pattern, re.DOTALL):
        return False  # not anchored, which is an error
    if any(int(most) > MOST for most in re.findall(r"[{,]([0-9]+)", pattern)):
        return False
    body, before = pattern[1:-1], ""
    while (
        body != before
    ):  # from the innermost group outwards; (? is look-around, or older than it knows
        before, body = body, re.sub(rf"(?<!\\)\((?!\?){ITEMS}\)", "x", body)
    return re.fullmatch(ITEMS, body) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}$",
        "^([0-9a-f]{8}|)$",
        "^(ab|c(d|e)+)?$",
        "^[A-Za-z0-9][A-Za-z0-9._:/@+~=-]*$",
        r"^a\.b$",
    ],
)
def test_a_pattern_that_llama_cpp_can(pattern: str) -> None:
    assert llama_cpp_can(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\S",
        "^a",
        "a$",
        r"^a\$",
        r"^\d+$",
        r"^[\w-]+$",
        r"^\S$",
        r"^a\bc$",
        "^(?=a)b$",
        "^(?:a)$",
        "^.*$",
        '^[^"]*$',
        r"^C:\\$",
        "^a}$",
        "^(a$",
        "^a)$",
        "^a**$",
        "^+$",
        "^[a$",
        "^a$|^b$",
        "^a{0,2000}$",
        r"^(/|[A-Za-z]:[\\/]|\\\\)",
    ],
)
def test_a_pattern_that_llama_cpp_cannot(pattern: str) -> None:
    assert not llama_cpp_can(pattern)


def test_llama_cpp_can_make_a_grammar_of_every_pattern(tools: List[Json]) -> None:
    patterns = {
        (tool["name"], name): rule["pattern"]
        for tool in tools
        for name, rule in tool["inputSchema"]["properties"].items()
        if "pattern" in rule
    }
    assert {key: pattern for key, pattern in patterns.items() if not llama_cpp_can(pattern)} == {}
