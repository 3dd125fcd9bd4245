"""A client of the MCP Python SDK 1.x that gives up on a call after five seconds, without a cancel.

Run by the virtual environment of SDK 1.x: `impatient_client.py {"command": ..., "args": ...,
"env": ..., "chat": TOOL, "sessions": TOOL, "prompt": ...}`. It sends the prompt, gives up on it,
and looks for the answer without having been told a session id. Prints what it was told, as JSON.
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any, Dict

import anyio
import mcp
from mcp.client.stdio import StdioServerParameters, stdio_client

LIMIT = datetime.timedelta(seconds=5)


async def main(order: Dict[str, Any]) -> Dict[str, Any]:
    told: Dict[str, Any] = {"first": "answered", "looks": []}
    server = StdioServerParameters(command=order["command"], args=order["args"], env=order["env"])
    async with stdio_client(server) as (reader, writer):
        async with mcp.ClientSession(reader, writer, read_timeout_seconds=LIMIT) as session:
            await session.initialize()
            try:
                await session.call_tool(order["chat"], {"prompt": order["prompt"]})
            except mcp.McpError as error:
                told["first"] = str(error)
            listed = (await session.call_tool(order["sessions"], {})).structuredContent
            told["listed"] = listed["sessions"]
            wanted = {"session_id": told["listed"][0]["session_id"], "wait_ms": 3000}
            while len(told["looks"]) < 20:
                look = (await session.call_tool(order["sessions"], wanted)).structuredContent
                told["looks"].append(look)
                if look["state"] != "running":
                    break
    return told


if __name__ == "__main__":
    print(json.dumps(anyio.run(main, json.loads(sys.argv[1]))))
