"""What others make of the tools' schemas; prints it as one JSON object.

Run by the reader's virtual environment: `schema_readers.py {"reader": ..., "tools": [...], ...}`.
An engine compiles a tool's schema to the grammar that a model's output is held to, and says of each
sample (arguments as JSON text) whether a model could write it. A converter turns the schema into
what a framework shows its model.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import sys
import types
from typing import Any, Callable, Dict

Json = Dict[str, Any]
#: The texts that a model could write.
Accepts = Callable[[str], bool]


# --- engines --------------------------------------------------------------------------------------


def llguidance(schema: Json) -> Accepts:
    from llguidance import LLMatcher, LLTokenizer

    tokenizer = LLTokenizer("byte")
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    failed, problems = LLMatcher.validate_grammar_with_warnings(grammar, tokenizer)
    if failed or problems:
        raise ValueError("; ".join(problems))

    def accepts(text: str) -> bool:
        matcher = LLMatcher(tokenizer, grammar)
        tokens = list(text.encode())
        return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()

    return accepts


@functools.lru_cache(maxsize=None)
def enter_xgrammar() -> None:
    """Lets modules of xgrammar be imported without its __init__.

    That imports torch and transformers (gigabytes), for what happens after the compilation.
    """
    spec = importlib.util.find_spec("xgrammar")
    assert spec is not None and spec.submodule_search_locations is not None
    package = types.ModuleType("xgrammar")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["xgrammar"] = package
    absent: Any = types.ModuleType("transformers")
    absent.PreTrainedTokenizerBase = absent.PreTrainedTokenizerFast = type("Absent", (), {})
    sys.modules["transformers"] = absent
    importlib.import_module("xgrammar.load_binding")


def xgrammar(schema: Json) -> Accepts:
    enter_xgrammar()
    from xgrammar.base import _core
    from xgrammar.compiler import GrammarCompiler
    from xgrammar.tokenizer_info import TokenizerInfo

    tokens = [bytes([value]) for value in range(1, 256)] + ["</s>"]
    compiler = GrammarCompiler(TokenizerInfo(tokens, stop_token_ids=[255]))
    grammar = compiler.compile_json_schema(json.dumps(schema))

    def accepts(text: str) -> bool:
        matcher = _core.GrammarMatcher(grammar._handle, None, False, -1, None)
        return matcher.accept_string(text, False) and matcher.is_completed()

    return accepts


def outlines_core(schema: Json) -> Accepts:
    from outlines_core import Guide, Index, Vocabulary, json_schema

    # The token of a byte is its value, that of the end 256.
    tokens: Any = {bytes([value]): [value] for value in range(256)}
    index = Index(json_schema.build_regex_from_schema(json.dumps(schema)), Vocabulary(256, tokens))

    def accepts(text: str) -> bool:
        guide = Guide(index)
        for token in text.encode():
            if not guide.accepts_tokens([token]):
                return False
            guide.advance(token, return_tokens=False)
        return 256 in guide.get_tokens()

    return accepts


ENGINES: Dict[str, Callable[[Json], Accepts]] = {
    "llguidance": llguidance,
    "xgrammar": xgrammar,
    "outlines-core": outlines_core,
}

# --- converters -----------------------------------------------------------------------------------


def openai_agents_strict(tool: Json) -> Json:
    from agents.strict_schema import ensure_strict_json_schema

    return ensure_strict_json_schema(tool["inputSchema"], _reject_open_objects=True)


def pydantic_ai_openai_strict(tool: Json) -> Json:
    from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer

    return OpenAIJsonSchemaTransformer(tool["inputSchema"], strict=True).walk()


def pydantic_ai_gemini(tool: Json) -> Json:
    from pydantic_ai.profiles.google import GoogleJsonSchemaTransformer

    return GoogleJsonSchemaTransformer(tool["inputSchema"]).walk()


def pydantic_ai_gemini_openapi(tool: Json) -> Json:
    from pydantic_ai.profiles.google import GoogleOpenAPISchemaTransformer

    return GoogleOpenAPISchemaTransformer(tool["inputSchema"]).walk()


def lowered(schema: Any) -> Any:
    """A schema of Gemini's, whose types are in capitals, in the words of JSON Schema."""
    plain = schema.model_dump(mode="json", exclude_none=True)
    for rule in [plain, *plain["properties"].values()]:
        rule["type"] = rule["type"].lower()
    return plain


def google_genai(tool: Json) -> Json:
    from google.genai._mcp_utils import _filter_to_supported_schema
    from google.genai.types import JSONSchema, Schema

    known = JSONSchema(**_filter_to_supported_schema(tool["inputSchema"]))
    return lowered(
        Schema.from_json_schema(json_schema=known, raise_error_on_unsupported_field=True)
    )


def google_adk(tool: Json) -> Json:
    from google.adk.tools._gemini_schema_util import _to_gemini_schema

    return lowered(_to_gemini_schema(tool["inputSchema"]))


def langchain_tool(tool: Json) -> Any:
    from langchain_mcp_adapters.tools import convert_mcp_tool_to_langchain_tool
    from mcp.types import Tool

    nowhere: Any = {"transport": "stdio", "command": "none", "args": []}
    return convert_mcp_tool_to_langchain_tool(None, Tool(**tool), connection=nowhere)


def langchain_openai(tool: Json) -> Json:
    from langchain_core.utils.function_calling import convert_to_openai_tool

    return convert_to_openai_tool(langchain_tool(tool))["function"]["parameters"]


def langchain_openai_strict(tool: Json) -> Json:
    from langchain_core.utils.function_calling import convert_to_openai_tool

    return convert_to_openai_tool(langchain_tool(tool), strict=True)["function"]["parameters"]


CONVERTERS: Dict[str, Callable[[Json], Json]] = {
    "openai-agents, strict": openai_agents_strict,
    "pydantic-ai, OpenAI strict": pydantic_ai_openai_strict,
    "pydantic-ai, Gemini": pydantic_ai_gemini,
    "pydantic-ai, Gemini's OpenAPI": pydantic_ai_gemini_openapi,
    "google-genai": google_genai,
    "google-adk": google_adk,
    "langchain, OpenAI": langchain_openai,
    "langchain, OpenAI strict": langchain_openai_strict,
}


def read(order: Json, tool: Json) -> Json:
    """What the reader makes of one tool."""
    try:
        if order["reader"] in ENGINES:
            accepts = ENGINES[order["reader"]](tool["inputSchema"])
            return {"accepted": [text for text in order["samples"][tool["name"]] if accepts(text)]}
        return {"schema": CONVERTERS[order["reader"]](tool)}
    except Exception as problem:
        return {"problem": f"{type(problem).__name__}: {problem}"}


def main() -> None:
    order = json.loads(sys.stdin.read())
    print(json.dumps({tool["name"]: read(order, tool) for tool in order["tools"]}))


if __name__ == "__main__":
    main()
