// The openai client of npm against a server: node openai.mjs URL MODEL. Needs `openai` in node_modules above.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Say hello in one word." }];

const models = await client.models.list();
assert.equal(models.data[0].id, model);
assert.equal((await client.models.retrieve(model)).object, "model");

const chat = await client.chat.completions.create({ model, messages, max_tokens: 8, temperature: 0, seed: 1, batch_invariant: true });
assert.ok(chat.choices[0].message.content);
assert.equal(chat.usage.total_tokens, chat.usage.prompt_tokens + chat.usage.completion_tokens);
assert.ok(chat._request_id);

let text = "", usage;
const stream = await client.chat.completions.create({
  model, messages, max_tokens: 8, temperature: 0, seed: 1, batch_invariant: true, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
assert.equal(text, chat.choices[0].message.content);
assert.equal(usage.completion_tokens, chat.usage.completion_tokens);

const helper = client.chat.completions.stream({ model, messages, max_tokens: 8, temperature: 0, seed: 1, batch_invariant: true });
assert.equal(await helper.finalContent(), text);

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const place = await client.chat.completions.create({
  model, messages: [{ role: "user", content: "Name a city." }], max_tokens: 60, temperature: 0,
  response_format: { type: "json_schema", json_schema: { name: "place", strict: true, schema } },
});
if (place.choices[0].finish_reason === "stop") assert.deepEqual(Object.keys(JSON.parse(place.choices[0].message.content)), ["city"]);

const coded = await client.embeddings.create({ model, input: ["a red house", "a blue car"] });
const floats = await client.embeddings.create({ model, input: ["a red house", "a blue car"], encoding_format: "float" });
assert.equal(coded.data.length, 2);
assert.ok(coded.data[1].embedding.every((v, i) => Math.abs(v - floats.data[1].embedding[i]) < 1e-3));

const completion = await client.completions.create({ model, prompt: "The capital of France is", max_tokens: 4, logprobs: 1 });
assert.equal(completion.choices[0].logprobs.tokens.length, completion.usage.completion_tokens);

await assert.rejects(client.chat.completions.create({ model: "nonesuch", messages }), OpenAI.NotFoundError);
await assert.rejects(client.chat.completions.create({ model, messages: [{ role: "wizard", content: "x" }] }),
                     (error) => error instanceof OpenAI.BadRequestError && error.param === "messages[0].role" && Boolean(error.requestID));
console.log("ok");
