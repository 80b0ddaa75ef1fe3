/** What the page asks of the server, on its own origin alone. */

import { EventReader } from "./events.ts";

export interface Model {
  id: string;
  parent: string | null;
  capabilities: string[];
  max_model_len?: number;
  labels?: string[];
  meta?: { method?: string; base_model?: string };
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Sampling {
  temperature?: number;
  top_p?: number;
  max_tokens?: number;
  seed?: number;
  stop?: string[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
}

export interface Neighbour {
  text: string;
  label: string;
  similarity: number;
}

export interface Classification {
  label?: string | null;
  labels?: string[];
  value?: number;
  confidence?: number;
  abstained?: boolean;
  probabilities?: Record<string, number>;
  neighbours?: Neighbour[]; // of servers and packages that have them
}

/** A sentence for the person, and the status where an answer came at all. */
export class ApiFault extends Error {
  constructor(
    message: string,
    readonly status = 0,
  ) {
    super(message);
  }
}

const kKey = "tailor.key";
let key = sessionStorage.getItem(kKey) ?? "";

export function useKey(fresh: string): void {
  key = fresh;
  if (fresh) sessionStorage.setItem(kKey, fresh);
  else sessionStorage.removeItem(kKey);
}
export function hasKey(): boolean {
  return key !== "";
}

export async function models(): Promise<Model[]> {
  const answer = await ask("/v1/models");
  return ((await json(answer)) as { data: Model[] }).data;
}

export async function classify(
  model: string,
  text: string,
  signal: AbortSignal,
): Promise<{ answer: Classification; milliseconds: number }> {
  const answer = await ask("/v1/classify", { model, input: text }, signal);
  const body = (await json(answer)) as { data: Classification[]; milliseconds: number };
  const first = body.data[0];
  if (!first) throw new ApiFault("The server's answer holds no classification.");
  return { answer: first, milliseconds: body.milliseconds };
}

export interface StreamPart {
  text?: string;
  finish?: string;
  usage?: Usage;
}

/** The parts of an answer as they come. Ends when the answer is complete; throws ApiFault where it is not. */
export async function* stream(
  model: Model,
  messages: Message[],
  sampling: Sampling,
  signal: AbortSignal,
): AsyncGenerator<StreamPart> {
  const chat = model.capabilities.includes("chat");
  const answer = await ask(
    chat ? "/v1/chat/completions" : "/v1/completions",
    {
      model: model.id,
      ...(chat ? { messages } : { prompt: messages.at(-1)?.content ?? "" }),
      ...sampling,
      ...(sampling.seed === undefined ? {} : { batch_invariant: true }), // the same answer, whatever else is computed
      stream: true,
      stream_options: { include_usage: true },
    },
    signal,
  );
  if (answer.body === null) throw new ApiFault("The server's answer is empty.");
  const reader = answer.body.getReader();
  const events = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      for (const data of events.push(value)) {
        if (data === "[DONE]") return;
        yield part(data);
      }
    }
  } catch (error) {
    if (error instanceof ApiFault || signal.aborted) throw error;
    throw new ApiFault("The connection broke before the answer was complete.");
  } finally {
    reader.cancel().catch(() => {});
  }
  throw new ApiFault("The connection ended before the answer was complete.");
}

interface Chunk {
  choices?: { text?: string; delta?: { content?: string | null }; finish_reason?: string | null }[];
  usage?: Usage | null;
  error?: { message?: string };
}

function part(data: string): StreamPart {
  let chunk: Chunk;
  try {
    chunk = JSON.parse(data) as Chunk;
  } catch {
    throw new ApiFault("The server sent something that is no JSON.");
  }
  if (chunk.error) throw new ApiFault(sentence(chunk.error.message ?? "the server could not go on"));
  const choice = chunk.choices?.[0];
  const text = choice?.delta?.content ?? choice?.text;
  return {
    ...(text ? { text } : {}),
    ...(choice?.finish_reason ? { finish: choice.finish_reason } : {}),
    ...(chunk.usage ? { usage: chunk.usage } : {}),
  };
}

async function ask(path: string, body?: object, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {};
  if (key) headers["Authorization"] = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET",
      headers,
      ...(body ? { body: JSON.stringify(body) } : {}),
      ...(signal ? { signal } : {}),
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiFault("The server cannot be reached. Is it still running?");
  }
  if (!answer.ok) throw await fault(answer);
  return answer;
}

async function fault(answer: Response): Promise<ApiFault> {
  const wait = answer.headers.get("Retry-After");
  const later = wait && /^\d+$/.test(wait) ? ` Try again in ${wait} s.` : "";
  try {
    const body = (await answer.json()) as { error?: { message?: string } };
    if (body.error?.message) return new ApiFault(sentence(body.error.message) + later, answer.status);
  } catch {
    // said below
  }
  return new ApiFault(`The server answered with status ${answer.status}.${later}`, answer.status);
}

async function json(answer: Response): Promise<unknown> {
  try {
    return await answer.json();
  } catch {
    throw new ApiFault("The server's answer is no JSON.");
  }
}

export function sentence(text: string): string {
  const trimmed = text.trim();
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? "" : ".");
}
