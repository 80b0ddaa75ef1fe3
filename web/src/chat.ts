/** A conversation with a model that answers with text. */

import { announce, StreamAnnouncer } from "./announce.ts";
import { ApiFault, sentence, stream, type Message, type Model, type Usage } from "./api.ts";
import { button, make } from "./dom.ts";
import { showMarkdown } from "./render.ts";
import type { Settings } from "./settings.ts";

const kFinish: Record<string, string> = {
  length: "It ended at the most tokens",
  content_filter: "It was cut by a filter",
};

/** One answer of the model, on the page. */
interface Answer {
  element: HTMLElement;
  thoughts: HTMLElement;
  body: HTMLElement;
  note: HTMLElement;
  actions: HTMLElement;
}

export class Chat {
  readonly element: HTMLElement;
  private readonly log = make("div", { class: "log", attributes: { role: "log", "aria-live": "off", "aria-label": "Conversation", tabindex: "0" } });
  private readonly empty = make("p", { class: "notice" });
  private readonly input = make("textarea", { id: "message", attributes: { rows: "2", placeholder: "Write a message", "aria-describedby": "keys", spellcheck: "true" } });
  private readonly send = button("Send", () => void this.submit(), { class: "primary" });
  private readonly stop = button("Stop", () => this.running?.abort(), { class: "danger" });
  private readonly fresh = button("New conversation", () => this.clear());
  private messages: Message[] = [];
  private running: AbortController | null = null;

  constructor(
    private model: Model,
    private readonly settings: Settings,
    private readonly onDenied: () => void,
  ) {
    const label = make("label", { class: "unseen" }, "Message");
    label.htmlFor = "message";
    this.stop.hidden = true;
    this.fresh.disabled = true;
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.submit();
    });
    this.input.addEventListener("input", () => this.fit());
    this.element = make("section", { class: "chat", attributes: { "aria-label": "Chat" } }, this.log,
      make("div", { class: "composer" }, label, this.input,
        make("div", { class: "row" }, make("p", { class: "hint", id: "keys" }, "Enter sends, Shift+Enter begins a line, Esc stops"), this.fresh, this.stop, this.send)));
    this.log.append(this.empty);
    this.use(model);
  }

  /** Goes on with another model; what was said stays. */
  use(model: Model): void {
    this.running?.abort();
    this.model = model;
    const chat = model.capabilities.includes("chat");
    this.empty.textContent = chat
      ? `Ask ${model.id} something. Nothing that you write here is stored by this page.`
      : `${model.id} has no form for conversations: it goes on with the text that you write.`;
    this.settings.useSystem(chat);
  }

  focus(): void {
    this.input.focus();
  }

  /** Esc. True: there was something to stop. */
  escape(): boolean {
    if (this.running === null) return false;
    this.running.abort();
    return true;
  }

  private clear(): void {
    this.running?.abort();
    this.messages = [];
    this.log.replaceChildren(this.empty);
    this.fresh.disabled = true;
    announce("New conversation");
    this.focus();
  }

  private async submit(): Promise<void> {
    const text = this.input.value;
    if (text.trim() === "" || this.running) return;
    if (this.refuse()) return;
    this.empty.remove();
    this.messages.push({ role: "user", content: text });
    const body = make("div", { class: "text plain" }, text);
    this.log.append(make("article", { class: "said user", attributes: { "aria-label": "You" } },
      make("h2", {}, "You"), body, make("div", { class: "actions" }, copyButton(() => text))));
    this.input.value = "";
    this.fit();
    this.fresh.disabled = false;
    await this.answer();
  }

  /** Tells of a setting that is out of its range. */
  private refuse(): boolean {
    const wrong = this.settings.wrong();
    wrong?.reportValidity();
    return wrong !== null;
  }

  private async regenerate(answer: Answer): Promise<void> {
    if (this.running || this.refuse()) return;
    if (this.messages.at(-1)?.role === "assistant") this.messages.pop();
    answer.element.remove();
    this.input.focus();
    await this.answer();
  }

  private async answer(): Promise<void> {
    const control = new AbortController();
    this.busy(control);
    for (const old of this.log.querySelectorAll(".again")) old.remove();
    const answer = this.place();
    const history: Message[] = this.settings.systemPrompt
      ? [{ role: "system", content: this.settings.systemPrompt }, ...this.messages] : this.messages;
    const announcer = new StreamAnnouncer();
    announce("The answer is being written");
    const begin = performance.now();
    let text = "", thoughts = "", finish = "", fault = "";
    let first = 0;
    let usage: Usage | null = null;
    let drawn = 0;
    const draw = () => {
      drawn = 0;
      const follow = this.atEnd();
      if (thoughts !== "") answer.thoughts.hidden = false;
      answer.thoughts.lastElementChild!.textContent = thoughts;
      showMarkdown(answer.body, text);
      if (follow) this.scroll();
    };
    try {
      for await (const part of stream(this.model, history, this.settings.sampling(), control.signal)) {
        if (part.thought) {
          first ||= performance.now();
          thoughts += part.thought;
          drawn ||= requestAnimationFrame(draw);
        }
        if (part.text) {
          first ||= performance.now();
          text += part.text;
          announcer.push(part.text);
          drawn ||= requestAnimationFrame(draw);
        }
        finish = part.finish ?? finish;
        usage = part.usage ?? usage;
      }
    } catch (error) {
      if (control.signal.aborted) finish = "stopped";
      else if (error instanceof ApiFault) {
        fault = error.message;
        if (error.status === 401) this.onDenied();
      } else fault = sentence(String(error));
    }
    const end = performance.now();
    if (drawn) cancelAnimationFrame(drawn);
    draw();
    answer.element.removeAttribute("aria-busy");
    if (this.running === control) this.idle();
    if (!answer.element.isConnected) return; // a new conversation has begun
    if (text !== "") this.messages.push({ role: "assistant", content: text });
    else if (!fault) answer.body.append(make("p", { class: "hint" }, empty(finish, thoughts)));
    if (fault) answer.body.append(make("p", { class: "fault", attributes: { role: "alert" } }, fault));
    answer.note.replaceChildren(...notes(finish, first ? first - begin : 0, first ? end - first : 0, usage));
    if (text !== "") answer.actions.append(copyButton(() => text));
    answer.actions.append(button("Regenerate", () => void this.regenerate(answer), { class: "again" }));
    announcer.finish(finish === "stopped" ? "Stopped." : "End of the answer.");
    this.scroll();
  }

  private place(): Answer {
    const thoughts = make("details", { class: "thoughts" }, make("summary", {}, "What the model thought"), make("div", { class: "thought plain" }));
    thoughts.hidden = true;
    const body = make("div", { class: "text" });
    const note = make("p", { class: "note" });
    const actions = make("div", { class: "actions" });
    const element = make("article", { class: "said model", attributes: { "aria-label": this.model.id, "aria-busy": "true" } },
      make("h2", {}, this.model.id), thoughts, body, note, actions);
    this.log.append(element);
    this.scroll();
    return { element, thoughts, body, note, actions };
  }

  private busy(control: AbortController): void {
    this.running = control;
    this.send.hidden = true;
    this.stop.hidden = false;
  }

  private idle(): void {
    const had = document.activeElement === this.stop;
    this.running = null;
    this.send.hidden = false;
    this.stop.hidden = true;
    if (had) this.focus(); // the focus does not vanish with the button
  }

  private fit(): void {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(this.input.scrollHeight + 2, 240)}px`;
  }

  private atEnd(): boolean {
    return this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 48;
  }

  private scroll(): void {
    this.log.scrollTop = this.log.scrollHeight;
  }
}

function empty(finish: string, thoughts: string): string {
  if (thoughts !== "") return "The model thought, and did not come to an answer.";
  return finish === "stopped" ? "Stopped before it began." : "The answer is empty.";
}

function notes(finish: string, first: number, rest: number, usage: Usage | null): string[] {
  const out: string[] = [];
  if (finish === "stopped") out.push("Stopped");
  else if (kFinish[finish]) out.push(kFinish[finish]);
  if (first > 0) out.push(`first token after ${duration(first)}`);
  if (usage) {
    // The first token's time is the prompt's; the others' is the rate.
    if (usage.completion_tokens > 1 && rest > 0) out.push(`${((usage.completion_tokens - 1) / (rest / 1000)).toFixed(1)} tokens/s`);
    out.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
  }
  return [out.join(" · ")];
}

export function duration(milliseconds: number): string {
  if (milliseconds < 10) return `${milliseconds.toFixed(1)} ms`;
  return milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

function copyButton(text: () => string): HTMLButtonElement {
  const element = button("Copy", () => {
    // The clipboard is for secure pages: https, or this machine's own address.
    const done = navigator.clipboard?.writeText(text()) ?? Promise.reject(new Error("no clipboard"));
    done.then(
      () => say("Copied"),
      () => say("Could not copy"),
    );
  });
  const say = (word: string) => {
    element.textContent = word;
    announce(word);
    setTimeout(() => (element.textContent = "Copy"), 1500);
  };
  return element;
}
