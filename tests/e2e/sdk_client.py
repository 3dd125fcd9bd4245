"""A conversation through the MCP Python SDK; prints what a user of it sees, as one JSON object.

Run by the virtual environment of the SDK, 1.x or 2.x: `sdk_client.py {"mode": ..., ...}`. It uses
nothing but what both have, and what each calls a thing by its own name.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any, AsyncIterator, Dict, List

import anyio
import mcp
from mcp.client.stdio import StdioServerParameters, stdio_client


@contextlib.asynccontextmanager
async def connect(
    mode: str, server: StdioServerParameters, told: Dict[str, Any]
) -> AsyncIterator[Any]:
    """A connected client, and in `told` the revision it speaks."""
    if hasattr(mcp, "Client"):
        who = mcp.types.Implementation(name="sdk", version="2")
        async with mcp.Client(server, mode=mode, client_info=who) as client:
            told["revision"] = client.protocol_version
            yield client
    else:
        async with stdio_client(server) as (reader, writer):
            async with mcp.ClientSession(reader, writer) as session:
                told["revision"] = (await session.initialize()).protocolVersion
                yield session


def plain(result: Any) -> Dict[str, Any]:
    """A tool result as it went over the wire."""
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


async def main(order: Dict[str, Any]) -> Dict[str, Any]:
    told: Dict[str, Any] = {"cancelled": False}
    progress: List[str] = []
    running = anyio.Event()

    async def on_progress(done: float, total: Any, message: Any) -> None:
        progress.append(message)

    async def until_it_runs(done: float, total: Any, message: Any) -> None:
        if message.startswith("Running"):
            running.set()

    server = StdioServerParameters(command=order["command"], args=order["args"], env=order["env"])
    async with connect(order["mode"], server, told) as client:
        told["tools"] = [tool.name for tool in (await client.list_tools()).tools]
        first = plain(
            await client.call_tool(
                order["chat"],
                {"prompt": "One.\nMODEL:RUN sleep 2\nMODEL:SAY First."},
                progress_callback=on_progress,
            )
        )
        assert not first.get("isError"), first
        told["first"] = first
        session = {"session_id": first["structuredContent"]["session_id"]}
        told["second"] = plain(
            await client.call_tool(order["chat"], dict(session, prompt="Two.\nMODEL:SAY Second."))
        )
        told["error"] = plain(await client.call_tool(order["chat"], {"promt": "Oh."}))

        async with anyio.create_task_group() as group:

            async def long_call() -> None:
                await client.call_tool(
                    order["chat"],
                    dict(session, prompt="MODEL:RUN sleep 303"),
                    progress_callback=until_it_runs,
                )

            group.start_soon(long_call)
            with anyio.fail_after(60):
                await running.wait()
            group.cancel_scope.cancel()
        told["cancelled"] = True
        if order[
            "goes_on"
        ]:  # an SDK that tells the server of the cancel can use the session at once
            told["third"] = plain(
                await client.call_tool(
                    order["chat"],
                    dict(session, prompt="Three.\nMODEL:SAY Third.", timeout_ms=30000),
                )
            )
    return dict(told, progress=progress)


if __name__ == "__main__":
    print(json.dumps(anyio.run(main, json.loads(sys.argv[1]))))
