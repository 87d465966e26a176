// What Vercel's `ai` makes of the edge, with its provider for OpenAI and the one for whatever is compatible.

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { raised, tell } from "./told.mjs";

const { OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
const openai = createOpenAI(); // reads both by itself
const compatible = createOpenAICompatible({
  name: "trunkline",
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const models = { compatible: (id) => compatible(id), chat: (id) => openai.chat(id), responses: (id) => openai(id) };
const prompt = "hi";

async function plain(kind, id) {
  const { text, finishReason, usage } = await generateText({ model: models[kind](id), prompt });
  return { text, finishReason, usage };
}

async function stream(kind, id) {
  const result = streamText({ model: models[kind](id), prompt });
  const pieces = [];
  for await (const piece of result.textStream) pieces.push(piece);
  return { pieces, text: await result.text, usage: await result.usage };
}

/** The loop of `ai`: it calls the function by itself and asks again with what it returned. */
async function tools(kind, id) {
  const cities = [];
  const get_weather = tool({
    description: "The weather in a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => (cities.push(city), "sunny"),
  });
  const options = { model: models[kind](id), prompt, tools: { get_weather }, stopWhen: stepCountIs(3) };
  const { text, steps } = await generateText(options);
  const streamed = streamText(options);
  return { text, steps: steps.length, streamed: await streamed.text, cities };
}

async function parse(kind, id) {
  const schema = z.object({ name: z.enum(["ada", "bob"]), old: z.boolean() });
  const { output } = await generateText({ model: models[kind](id), prompt, output: Output.object({ schema }) });
  return schema.safeParse(output).success;
}

async function thinks(kind, id) {
  const { text, reasoningText } = await generateText({ model: models[kind](id), prompt: "think" });
  return { text, reasoningText };
}

async function error(kind, id) {
  return raised(() => generateText({ model: models[kind](id), prompt }));
}

async function broken(kind, id) {
  const errors = [];
  let heard = "";
  const onError = ({ error }) => errors.push(error.message);
  const result = streamText({ model: models[kind](id), prompt, onError });
  for await (const piece of result.textStream) heard += piece;
  return { heard, errors, finishReason: await result.finishReason };
}

await tell(plain, stream, tools, parse, thinks, error, broken);
