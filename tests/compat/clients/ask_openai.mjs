// What OpenAI's own client for Node makes of the edge. Base URL and key are its environment's.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { raised, tell } from "./told.mjs";

const client = new OpenAI();
const messages = [{ role: "user", content: "hi" }];
const weather = {
  name: "get_weather",
  description: "The weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};
const tools = [{ type: "function", function: weather }];
const Fact = z.object({ name: z.enum(["ada", "bob"]), old: z.boolean() });

async function plain(model) {
  const whole = await client.chat.completions.create({ model, messages });
  const models = [];
  for await (const one of client.models.list()) models.push(one.id);
  return {
    text: whole.choices[0].message.content,
    finish: whole.choices[0].finish_reason,
    usage: whole.usage,
    request_id: whole._request_id,
    models,
    model: (await client.models.retrieve(model)).id,
  };
}

async function stream(model) {
  const options = { model, messages, stream_options: { include_usage: true } };
  const chunks = [];
  for await (const chunk of await client.chat.completions.create({ ...options, stream: true })) chunks.push(chunk);
  const final = await client.chat.completions.stream(options).finalChatCompletion();
  return {
    text: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    usage: chunks.at(-1).usage,
    final: final.choices[0].message.content,
    final_usage: final.usage,
  };
}

async function calls(model) {
  const options = { model, tools };
  const { message } = (await client.chat.completions.create({ ...options, messages })).choices[0];
  const streamed = (await client.chat.completions.stream({ ...options, messages }).finalChatCompletion()).choices[0];
  const [call] = message.tool_calls;
  const turns = [...messages, message, { role: "tool", tool_call_id: call.id, content: "sunny" }];
  const answer = await client.chat.completions.create({ ...options, messages: turns });
  const added = streamed.message.tool_calls[0];
  return {
    called: [call.function.name, call.function.arguments],
    streamed: [added.function.name, added.function.arguments],
    finish: streamed.finish_reason,
    text: answer.choices[0].message.content,
  };
}

/** The client's own loop: it calls the function by itself and asks again with what it returned. */
async function runs(model) {
  const cities = [];
  const get_weather = { ...weather, parse: JSON.parse, function: ({ city }) => (cities.push(city), "sunny") };
  const runner = client.chat.completions.runTools({ model, messages, tools: [{ type: "function", function: get_weather }] });
  return { text: await runner.finalContent(), cities };
}

async function parse(model) {
  const response_format = zodResponseFormat(Fact, "fact");
  const parsed = await client.chat.completions.parse({ model, messages, response_format });
  const streamed = await client.chat.completions.stream({ model, messages, response_format }).finalChatCompletion();
  return [parsed, streamed].map((one) => Fact.safeParse(one.choices[0].message.parsed).success);
}

async function error(model, body) {
  return raised(() => client.chat.completions.create({ model, messages: body ? 3 : messages }));
}

async function broken(model) {
  let heard = "";
  const told = await raised(async () => {
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
      heard += chunk.choices[0].delta.content ?? "";
  });
  return { ...told, heard };
}

async function retried(model) {
  return (await client.chat.completions.create({ model, messages })).choices[0].message.content;
}

/** Ask until an answer has to be waited for, as a key's limit by the minute makes one. */
async function hurried(model) {
  for (let asked = 0; asked < 200; asked++) {
    const began = performance.now();
    const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
    const seconds = (performance.now() - began) / 1000;
    if (seconds > 0.9) return { asked, seconds, status: response.status, text: data.choices[0].message.content };
  }
  return { asked: 200 };
}

/** The lengths of two vectors, which this client asks for in base64 by itself. */
async function embeddings(model) {
  const made = await client.embeddings.create({ model, input: ["one", "two"], dimensions: 5 });
  return { lengths: made.data.map((one) => one.embedding.length), tokens: made.usage.total_tokens };
}

async function responses(model) {
  const options = { model, input: "hi", store: false };
  const whole = await client.responses.create(options);
  const events = [];
  for await (const event of await client.responses.create({ ...options, stream: true })) events.push(event);
  const helper = client.responses.stream({ model, input: "hi", text: { format: zodTextFormat(Fact, "fact") } });
  const { output_parsed } = await helper.finalResponse();
  return {
    text: whole.output_text,
    streamed: events.map((event) => (event.type === "response.output_text.delta" ? event.delta : "")).join(""),
    last: events.at(-1).type,
    usage: events.at(-1).response.usage,
    parsed: Fact.safeParse(output_parsed).success,
  };
}

await tell(plain, stream, calls, runs, parse, error, broken, retried, hurried, embeddings, responses);
