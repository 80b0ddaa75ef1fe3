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

export interface NearRow {
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
  nearest?: NearRow[]; // training rows, where the package holds them
}

/** Places count as JavaScript counts. */
export interface Entity {
  label: string;
  text: string;
  start: number;
  end: number;
  score: number;
}
export interface Tags {
  entities?: Entity[];
  words?: Entity[];
}
export interface Extract {
  answer: string | null;
  start: number | null;
  end: number | null;
  score: number;
}

export interface Timed<T> {
  answer: T;
  milliseconds: number;
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

/** `nearest`: so many training rows as well; 0 of models that show none. */
export function classify(model: string, text: string, nearest: number, signal: AbortSignal): Promise<Timed<Classification>> {
  return first("/v1/classify", { model, input: text, ...(nearest > 0 ? { nearest } : {}) }, signal);
}

export function tag(model: string, text: string, signal: AbortSignal): Promise<Timed<Tags>> {
  return first("/v1/tag", { model, input: text, offsets: "utf16" }, signal);
}

export function extract(model: string, question: string, context: string, signal: AbortSignal): Promise<Timed<Extract>> {
  return first("/v1/extract", { model, question, context, offsets: "utf16" }, signal);
}

async function first<T>(path: string, request: object, signal: AbortSignal): Promise<Timed<T>> {
  const body = (await json(await ask(path, request, signal))) as { data: T[]; milliseconds: number };
  const answer = body.data[0];
  if (!answer) throw new ApiFault("The server's answer is empty.");
  return { answer, milliseconds: body.milliseconds };
}

export interface StreamPart {
  text?: string;
  thought?: string;
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
  choices?: { text?: string; delta?: { content?: string | null; reasoning_content?: string | null }; finish_reason?: string | null }[];
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
    ...(choice?.delta?.reasoning_content ? { thought: choice.delta.reasoning_content } : {}),
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
