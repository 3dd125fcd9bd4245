"""A conversation through an agent framework's own MCP client; prints what its model saw, as JSON.

Run by the framework's virtual environment: `framework_clients.py {"framework": ..., "fill": [...],
...}`; prints one object. The model is a script, and everything else is the framework's: how it
shows the tools, what it does with the arguments on their way to the server, and what it makes of
the result. One conversation for each way in "fill" to deal with optional arguments:

    "nothing"   leave them out
    "null"      null for each that the framework shows
    "empty"     "" for each that the framework shows and where it lets one pass
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Any, Callable, Dict, List, Optional

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TOOL = "codex_chat"
#: Seconds for the limits that a framework has of its own; only a fault reaches it.
BOUND = 60

Json = Dict[str, Any]


class Script:
    """The model: calls codex_chat, then again with the session id found in the result, then ends.

    `seen` has the text of each result as the framework's model is given it.
    """

    def __init__(self, fill: str) -> None:
        self.fill = fill
        self.tools: List[str] = []
        self.seen: List[str] = []

    def arguments(self, schema: Json, results: List[Any]) -> Optional[Json]:
        """The arguments of the next call, None at the end; `results` has those of calls so far."""
        self.seen = [text if isinstance(text, str) else json.dumps(text) for text in results]
        if len(self.seen) >= 2:
            return None
        given: Json = {"prompt": "Two." if self.seen else "One."}
        if self.seen:
            found = re.search(UUID, self.seen[0])
            if found is None:  # a model that sees no id cannot go on
                return None
            given["session_id"] = found.group()
        for name, rule in schema["properties"].items():
            if name not in given and self.fill == "null":
                given[name] = None
            elif name not in given and self.fill == "empty":
                self.leave_empty(given, name, rule)
        return given

    def leave_empty(self, given: Json, name: str, rule: Json) -> None:
        """Gives "" for the argument; a framework that lets none pass replaces this."""
        given[name] = ""

    def told(self) -> Json:
        return {"tools": self.tools, "seen": self.seen}


# --- openai-agents --------------------------------------------------------------------------------


async def openai_agents(order: Json, script: Script) -> None:
    from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
    from agents.mcp import MCPServerStdio
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseOutputText,
    )

    class Scripted(Model):
        async def get_response(self, *, input: Any, tools: Any, **more: Any) -> Any:
            script.tools = [tool.name for tool in tools]
            schema = next(tool.params_json_schema for tool in tools if tool.name == TOOL)
            items = [] if isinstance(input, str) else input
            results = [
                item["output"] for item in items if item.get("type") == "function_call_output"
            ]
            arguments = script.arguments(schema, results)
            if arguments is None:
                text = ResponseOutputText(type="output_text", text="Done.", annotations=[])
                output: Any = ResponseOutputMessage(
                    id="m", type="message", role="assistant", status="completed", content=[text]
                )
            else:
                output = ResponseFunctionToolCall(
                    type="function_call",
                    name=TOOL,
                    arguments=json.dumps(arguments),
                    call_id=f"call_{len(results)}",
                )
            return ModelResponse(output=[output], usage=Usage(), response_id=None)

        def stream_response(self, *rest: Any, **more: Any) -> Any:
            raise NotImplementedError

    set_tracing_disabled(True)
    # In strict mode every argument is required: there models fill in what they would leave out.
    config: Any = {"convert_schemas_to_strict": script.fill != "nothing"}
    params: Any = {key: order[key] for key in ("command", "args", "env")}
    async with MCPServerStdio(params=params, client_session_timeout_seconds=BOUND) as server:
        agent = Agent(name="agent", model=Scripted(), mcp_servers=[server], mcp_config=config)
        await Runner.run(agent, "Begin.")


# --- pydantic-ai ----------------------------------------------------------------------------------


async def pydantic_ai(order: Json, script: Script) -> None:
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai import Agent
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
    from pydantic_ai.models.function import FunctionModel

    def model(messages: Any, info: Any) -> Any:
        script.tools = [tool.name for tool in info.function_tools]
        tool = next(tool for tool in info.function_tools if tool.name == TOOL)
        parts = [part for message in messages for part in message.parts]
        # What the adapters of real models put into their request.
        results = [
            part.model_response_str() if part.part_kind == "tool-return" else part.model_response()
            for part in parts
            if part.part_kind in ("tool-return", "retry-prompt")
        ]
        arguments = script.arguments(tool.parameters_json_schema, results)
        return ModelResponse(
            parts=[TextPart("Done.") if arguments is None else ToolCallPart(TOOL, arguments)]
        )

    transport = StdioTransport(order["command"], order["args"], env=order["env"])
    async with MCPToolset(transport) as toolset:
        await Agent(FunctionModel(model), toolsets=[toolset]).run("Begin.")


# --- CrewAI ---------------------------------------------------------------------------------------


def crewai(order: Json, script: Script) -> None:
    from crewai import Agent, BaseLLM, Crew, Task
    from crewai_tools import MCPServerAdapter
    from mcp import StdioServerParameters

    class Scripted(BaseLLM):
        def call(self, messages: Any, *rest: Any, **more: Any) -> Any:
            steps = [str(m["content"]) for m in messages if m["role"] == "assistant"]
            results = [step.partition("\nObservation: ")[2] for step in steps]
            arguments = script.arguments(schema, results)
            if arguments is None:
                return "Thought: I now know the final answer\nFinal Answer: Done."
            return f"Thought: I ask.\nAction: {TOOL}\nAction Input: {json.dumps(arguments)}"

        def supports_function_calling(self) -> bool:
            return False

    def leave_empty(given: Json, name: str, rule: Json) -> None:
        kinds = [kind for kind in rule.get("anyOf", [rule]) if kind["type"] == "string"]
        if any("enum" not in kind and re.search(kind.get("pattern", ""), "") for kind in kinds):
            given[name] = ""  # CrewAI itself refuses what is not as the schema says

    script.leave_empty = leave_empty  # type: ignore[method-assign]
    server = StdioServerParameters(command=order["command"], args=order["args"], env=order["env"])
    with MCPServerAdapter(server, connect_timeout=BOUND) as tools:
        script.tools = [tool.name for tool in tools]
        schema = next(tool for tool in tools if tool.name == TOOL).args_schema.model_json_schema()
        agent = Agent(
            role="agent",
            goal="an answer",
            backstory="none",
            tools=list(tools),
            llm=Scripted(model="scripted"),
        )
        task = Task(description="Begin.", expected_output="An answer.", agent=agent)
        Crew(agents=[agent], tasks=[task]).kickoff()


# --- LangChain's adapters, and mcp-use, which stands on LangChain ---------------------------------


def langchain_model(script: Script) -> Any:
    """A chat model of LangChain that does what the script says."""
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, ToolMessage, convert_to_openai_messages
    from langchain_core.outputs import ChatGeneration, ChatResult
    from langchain_core.utils.function_calling import convert_to_openai_tool

    class Scripted(BaseChatModel):
        shown: Any = None

        @property
        def _llm_type(self) -> str:
            return "scripted"

        def bind_tools(self, tools: Any, **more: Any) -> Any:
            self.shown = [convert_to_openai_tool(tool)["function"] for tool in tools]
            return self

        def _generate(self, messages: Any, *rest: Any, **more: Any) -> Any:
            script.tools = [tool["name"] for tool in self.shown]
            schema = next(tool["parameters"] for tool in self.shown if tool["name"] == TOOL)
            results = [
                convert_to_openai_messages(message)["content"]
                for message in messages
                if isinstance(message, ToolMessage)
            ]
            arguments = script.arguments(schema, results)
            calls = []
            if arguments is not None:
                calls = [{"name": TOOL, "args": arguments, "id": f"call_{len(results)}"}]
            reply = AIMessage(content="" if calls else "Done.", tool_calls=calls)
            return ChatResult(generations=[ChatGeneration(message=reply)])

    return Scripted()


async def langchain(order: Json, script: Script) -> None:
    from langchain.agents import create_agent
    from langchain_mcp_adapters.client import MultiServerMCPClient

    server: Any = {key: order[key] for key in ("command", "args", "env")}
    client = MultiServerMCPClient({"codex": dict(server, transport="stdio")})
    agent = create_agent(langchain_model(script), await client.get_tools())
    await agent.ainvoke({"messages": [{"role": "user", "content": "Begin."}]})


async def mcp_use(order: Json, script: Script) -> None:
    from mcp_use import MCPAgent, MCPClient

    def leave_empty(given: Json, name: str, rule: Json) -> None:
        # A whole number has to be one, a truth value, too.
        if not re.search("integer|boolean", json.dumps(rule)):
            given[name] = ""

    script.leave_empty = leave_empty  # type: ignore[method-assign]
    server = {key: order[key] for key in ("command", "args", "env")}
    client = MCPClient.from_dict({"mcpServers": {"codex": server}})
    try:
        await MCPAgent(llm=langchain_model(script), client=client, max_steps=10).run("Begin.")
    finally:
        await client.close_all_sessions()


# --- smolagents -----------------------------------------------------------------------------------


def smolagents(order: Json, script: Script) -> None:
    from mcp import StdioServerParameters
    from smolagents import MCPClient, ToolCallingAgent
    from smolagents.models import (
        ChatMessage,
        ChatMessageToolCall,
        ChatMessageToolCallFunction,
        MessageRole,
        Model,
    )

    class Scripted(Model):
        def generate(
            self,
            messages: Any,
            stop_sequences: Any = None,
            response_format: Any = None,
            tools_to_call_from: Any = None,
            **more: Any,
        ) -> Any:
            script.tools = [tool.name for tool in tools_to_call_from if tool.name != "final_answer"]
            tool = next(tool for tool in tools_to_call_from if tool.name == TOOL)
            results = []
            for message in messages:
                if message.role == MessageRole.TOOL_RESPONSE:
                    text = "\n".join(part["text"] for part in message.content)
                    results.append(re.sub(r"^Observation:\n", "", text))
            arguments = script.arguments({"properties": tool.inputs}, results)
            name, given = TOOL, arguments
            if arguments is None:
                name, given = "final_answer", {"answer": "Done."}
            function = ChatMessageToolCallFunction(name=name, arguments=given)
            call = ChatMessageToolCall(
                id=f"call_{len(results)}", type="function", function=function
            )
            return ChatMessage(role=MessageRole.ASSISTANT, content="", tool_calls=[call])

    def leave_empty(given: Json, name: str, rule: Json) -> None:
        # required, and checked by type
        given[name] = {"integer": 60000, "boolean": False}.get(rule["type"], "")

    script.leave_empty = leave_empty  # type: ignore[method-assign]
    server = StdioServerParameters(command=order["command"], args=order["args"], env=order["env"])
    with MCPClient(server, structured_output=False) as tools:
        ToolCallingAgent(tools=tools, model=Scripted(), max_steps=4, verbosity_level=0).run(
            "Begin."
        )


# --- google-adk -----------------------------------------------------------------------------------


async def google_adk(order: Json, script: Script) -> None:
    from google.adk.agents import LlmAgent
    from google.adk.models import BaseLlm, LlmResponse
    from google.adk.runners import InMemoryRunner
    from google.adk.tools.mcp_tool.mcp_session_manager import StdioConnectionParams
    from google.adk.tools.mcp_tool.mcp_toolset import McpToolset
    from google.genai import types
    from mcp import StdioServerParameters

    class Scripted(BaseLlm):
        async def generate_content_async(self, request: Any, stream: bool = False) -> Any:
            declared = [d for tool in request.config.tools for d in tool.function_declarations]
            script.tools = [declaration.name for declaration in declared]
            shown = next(declaration for declaration in declared if declaration.name == TOOL)
            schema = shown.parameters_json_schema or shown.parameters.model_dump()
            results = [
                part.function_response.response
                for content in request.contents
                for part in content.parts or []
                if part.function_response
            ]
            arguments = script.arguments(schema, results)
            if arguments is None:
                part = types.Part(text="Done.")
            else:
                part = types.Part(function_call=types.FunctionCall(name=TOOL, args=arguments))
            yield LlmResponse(content=types.Content(role="model", parts=[part]))

    server = StdioServerParameters(command=order["command"], args=order["args"], env=order["env"])
    toolset = McpToolset(
        connection_params=StdioConnectionParams(server_params=server, timeout=BOUND)
    )
    agent = LlmAgent(name="agent", model=Scripted(model="scripted"), tools=[toolset])
    runner = InMemoryRunner(agent=agent, app_name="app")
    session = await runner.session_service.create_session(app_name="app", user_id="user")
    begin = types.Content(role="user", parts=[types.Part(text="Begin.")])
    try:
        async for _ in runner.run_async(user_id="user", session_id=session.id, new_message=begin):
            pass
    finally:
        await toolset.close()


FRAMEWORKS: Dict[str, Callable[[Json, Script], Any]] = {
    "openai-agents": openai_agents,
    "pydantic-ai": pydantic_ai,
    "crewai": crewai,
    "mcp-use": mcp_use,
    "smolagents": smolagents,
    "langchain": langchain,
    "google-adk": google_adk,
}


def converse(order: Json, fill: str) -> Json:
    """One conversation; what went wrong in it is told, too."""
    script = Script(fill)
    try:
        running = FRAMEWORKS[order["framework"]](order, script)
        if running is not None:
            asyncio.run(running)
    except Exception as problem:
        return dict(script.told(), problem=f"{type(problem).__name__}: {problem}")
    return script.told()


def main() -> None:
    order = json.loads(sys.argv[1])
    # What frameworks print is not the answer.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    json.dump({fill: converse(order, fill) for fill in order["fill"]}, answer)
    answer.close()


if __name__ == "__main__":
    main()
