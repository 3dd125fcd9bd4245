// A conversation through the AI SDK's own MCP client; the order, the answer and the script of the model are
// those of framework_clients.py. The packages are those of the folder in "packages".
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const UUID = /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
const TOOL = "codex_chat";
const order = JSON.parse(process.argv[2]);
const from = createRequire(join(order.packages, "package.json"));
const load = (name) => import(pathToFileURL(from.resolve(name)));

const { generateText, stepCountIs } = await load("ai");
const { MockLanguageModelV4 } = await load("ai/test");
const { createMCPClient } = await load("@ai-sdk/mcp");
const { Experimental_StdioMCPTransport } = await load("@ai-sdk/mcp/mcp-stdio");

async function converse(fill) {
  const told = { tools: [], seen: [] };
  const answer = async ({ prompt, tools }) => {
    told.tools = tools.map((tool) => tool.name);
    const shown = tools.find((tool) => tool.name === TOOL).inputSchema;
    // What the adapters of real models put into their request.
    told.seen = prompt
      .filter((message) => message.role === "tool")
      .flatMap((message) => message.content)
      .map(({ output }) => (typeof output.value === "string" ? output.value : JSON.stringify(output.value)));
    const found = told.seen.length ? told.seen[0].match(UUID) : [undefined];
    const base = { usage: { inputTokens: {}, outputTokens: {} }, warnings: [] };
    if (told.seen.length >= 2 || !found) {
      return { ...base, finishReason: { unified: "stop" }, content: [{ type: "text", text: "Done." }] };
    }
    const given = told.seen.length ? { prompt: "Two.", session_id: found[0] } : { prompt: "One." };
    if (fill !== "nothing") {
      for (const name of Object.keys(shown.properties)) {
        given[name] ??= fill === "null" ? null : "";
      }
    }
    const call = { type: "tool-call", toolCallId: `call_${told.seen.length}`, toolName: TOOL };
    const content = [{ ...call, input: JSON.stringify(given) }];
    return { ...base, finishReason: { unified: "tool-calls" }, content };
  };
  const server = { command: order.command, args: order.args, env: order.env };
  const client = await createMCPClient({ transport: new Experimental_StdioMCPTransport(server) });
  try {
    const model = new MockLanguageModelV4({ doGenerate: answer });
    await generateText({ model, prompt: "Begin.", tools: await client.tools(), stopWhen: stepCountIs(5) });
  } catch (problem) {
    told.problem = String(problem);
  } finally {
    await client.close();
  }
  return told;
}

const answers = {};
for (const fill of order.fill) {
  answers[fill] = await converse(fill);
}
console.log(JSON.stringify(answers));
