"""An agent of openai-agents, which gives up on a call after 5 s; prints what its model saw.

Run by the framework's virtual environment: `impatient_agent.py {"command": ..., "args": ...,
"env": ..., "steps": [[TOOL, ARGUMENTS, AGAIN], ...]}`. The model is a script: it calls one tool
after the other. `SESSION` in an argument becomes the last session id that it saw. If AGAIN is not
empty, the call is repeated until the model has seen that text. Everything else is the framework's,
its limit for a call too.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Any, Dict, List

from agents import Agent, Model, ModelResponse, Runner, Usage, set_tracing_disabled
from agents.mcp import MCPServerStdio
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
#: Times that a call is repeated; only a fault needs them all.
TIMES = 20


class Scripted(Model):
    def __init__(self, steps: List[Any]) -> None:
        self.steps, self.seen, self.times = steps, [], 0
        self.step = 0

    async def get_response(self, *, input: Any, **more: Any) -> Any:
        items = [] if isinstance(input, str) else input
        results = [item["output"] for item in items if item.get("type") == "function_call_output"]
        self.seen = [text if isinstance(text, str) else json.dumps(text) for text in results]
        if self.seen:
            again, self.times = self.steps[self.step][2], self.times + 1
            if not again or again in self.seen[-1] or self.times == TIMES:
                self.step, self.times = self.step + 1, 0
        if self.step == len(self.steps):
            text = ResponseOutputText(type="output_text", text="Done.", annotations=[])
            output: Any = ResponseOutputMessage(
                id="m", type="message", role="assistant", status="completed", content=[text]
            )
        else:
            tool, arguments, _ = self.steps[self.step]
            told = re.findall(UUID, "\n".join(self.seen))
            output = ResponseFunctionToolCall(
                type="function_call",
                name=tool,
                arguments=json.dumps(arguments).replace("SESSION", told[-1] if told else "SESSION"),
                call_id=f"call_{len(self.seen)}",
            )
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *rest: Any, **more: Any) -> Any:
        raise NotImplementedError


async def converse(order: Dict[str, Any]) -> Dict[str, Any]:
    set_tracing_disabled(True)
    model = Scripted(order["steps"])
    params: Any = {key: order[key] for key in ("command", "args", "env")}
    async with MCPServerStdio(params=params) as server:
        agent = Agent(name="agent", model=model, mcp_servers=[server])
        await Runner.run(agent, "Begin.", max_turns=TIMES * len(order["steps"]))
    return {"seen": model.seen}


def main() -> None:
    # What the framework prints is not the answer.
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    json.dump(asyncio.run(converse(json.loads(sys.argv[1]))), answer)
    answer.close()


if __name__ == "__main__":
    main()
