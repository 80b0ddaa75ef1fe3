/** A form to try a package with: labels, tags of words, or answers that stand in a text. */

import { announce } from "./announce.ts";
import { ApiFault, classify, extract, sentence, tag, type Classification, type Extract, type Model, type NearRow, type Tags } from "./api.ts";
import { duration } from "./chat.ts";
import { button, make } from "./dom.ts";
import type { Use } from "./models.ts";
import { entityTable, marked, percent } from "./places.ts";

const kShown = 8; // labels, before "Show all"
const kNearest = 5; // training rows

const kForms = {
  labels: { verb: "Classify", hint: "Enter classifies, Shift+Enter begins a line, Esc stops" },
  tags: { verb: "Find", hint: "Enter finds, Shift+Enter begins a line, Esc stops" },
  spans: { verb: "Answer", hint: "Enter answers, Shift+Enter begins a line, Esc stops" },
};

export class Tryout {
  readonly element: HTMLElement;
  private readonly question = make("input", { id: "question", attributes: { type: "text", autocomplete: "off", spellcheck: "true" } });
  private readonly input = make("textarea", { id: "text", attributes: { rows: "5", "aria-describedby": "keys", spellcheck: "true" } });
  private readonly result = make("div", { class: "result", attributes: { "aria-live": "off" } });
  private running: AbortController | null = null;

  constructor(
    private readonly model: Model,
    private readonly use: Exclude<Use, "text" | "none">,
    private readonly onDenied: () => void,
  ) {
    const words = kForms[use];
    const form = make("form", {}, ...(use === "spans" ? [labelled("Question", this.question), this.question] : []), labelled("Text", this.input), this.input,
      make("div", { class: "row" }, make("p", { class: "hint", id: "keys" }, words.hint), make("button", { class: "primary" }, words.verb)));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.run();
    });
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.run();
    });
    this.element = make("section", { class: "tryout", attributes: { "aria-label": "Try it" } },
      make("h2", {}, `Try ${model.id}`), make("p", { class: "hint" }, about(model)), form, this.result);
  }

  focus(): void {
    (this.use === "spans" ? this.question : this.input).focus();
  }

  escape(): boolean {
    if (this.running === null) return false;
    this.running.abort();
    return true;
  }

  private async run(): Promise<void> {
    const missing = [this.use === "spans" ? this.question : this.input, this.input].find((field) => field.value.trim() === "");
    if (missing) return missing.focus();
    this.running?.abort(); // the newest text counts
    const control = new AbortController();
    this.running = control;
    this.result.setAttribute("aria-busy", "true");
    const begin = performance.now();
    try {
      const { milliseconds, show } = await this.ask(control.signal);
      const waited = performance.now() - begin;
      this.result.replaceChildren(...show(make("p", { class: "note" }, `computed in ${duration(milliseconds)}, answered after ${duration(waited)}`)));
      announce(this.result.querySelector(".verdict")?.textContent ?? "");
    } catch (error) {
      if (control.signal.aborted) return;
      const message = error instanceof ApiFault ? error.message : sentence(String(error));
      this.result.replaceChildren(make("p", { class: "fault", attributes: { role: "alert" } }, message));
      if (error instanceof ApiFault && error.status === 401) this.onDenied();
    } finally {
      if (this.running === control) {
        this.running = null;
        this.result.removeAttribute("aria-busy");
      }
    }
  }

  /** The answer as elements around the note that tells its time. */
  private async ask(signal: AbortSignal): Promise<{ milliseconds: number; show: (note: HTMLElement) => HTMLElement[] }> {
    const text = this.input.value;
    if (this.use === "tags") {
      const { answer, milliseconds } = await tag(this.model.id, text, signal);
      return { milliseconds, show: (note) => shownTags(answer, text, note) };
    }
    if (this.use === "spans") {
      const { answer, milliseconds } = await extract(this.model.id, this.question.value, text, signal);
      return { milliseconds, show: (note) => shownExtract(answer, text, note) };
    }
    const nearest = this.model.capabilities.includes("nearest") ? kNearest : 0;
    const { answer, milliseconds } = await classify(this.model.id, text, nearest, signal);
    return { milliseconds, show: (note) => shownLabels(answer, note) };
  }
}

function labelled(text: string, field: HTMLElement): HTMLElement {
  const label = make("label", {}, text);
  label.htmlFor = field.id;
  return label;
}

function about(model: Model): string {
  const parts: string[] = [];
  if (model.meta?.method) parts.push(`method ${model.meta.method}`);
  if (model.meta?.base_model) parts.push(`on ${model.meta.base_model}`);
  if (model.labels) parts.push(`${model.labels.length} ${model.labels.length === 1 ? "label" : "labels"}`);
  return parts.join(" · ");
}

function verdict(...said: (string | HTMLElement)[]): HTMLElement {
  return make("p", { class: "verdict" }, ...said);
}

function shownTags(answer: Tags, text: string, note: HTMLElement): HTMLElement[] {
  if (!answer.entities) return [verdict(`${answer.words?.length ?? 0} words`), note, entityTable("Tags of words", "Word", answer.words ?? [])];
  if (answer.entities.length === 0) return [verdict("Nothing was found"), note];
  const count = answer.entities.length;
  return [verdict(`${count} ${count === 1 ? "place" : "places"} found`), note, marked(text, answer.entities), entityTable("What was found", "Text", answer.entities)];
}

function shownExtract(answer: Extract, text: string, note: HTMLElement): HTMLElement[] {
  if (answer.answer === null || answer.start === null || answer.end === null)
    return [verdict(make("strong", {}, "No answer"), ` stands in this text, with ${percent(answer.score)}`), note];
  return [verdict("Answer ", make("strong", {}, answer.answer), ` with ${percent(answer.score)}`), note,
    marked(text, [{ label: "", text: answer.answer, start: answer.start, end: answer.end, score: answer.score }])];
}

function shownLabels(answer: Classification, note: HTMLElement): HTMLElement[] {
  const out: HTMLElement[] = [verdict(...label(answer)), note];
  const chosen = new Set(answer.labels ?? (typeof answer.label === "string" ? [answer.label] : []));
  if (answer.probabilities) out.push(bars(answer.probabilities, chosen));
  if (answer.nearest && answer.nearest.length > 0) out.push(nearRows(answer.nearest));
  return out;
}

function label(answer: Classification): (string | HTMLElement)[] {
  if (answer.value !== undefined) return ["Value ", make("strong", {}, answer.value.toPrecision(6))];
  if (answer.labels) return answer.labels.length > 0 ? ["Labels ", make("strong", {}, answer.labels.join(", "))] : ["No label is likely enough"];
  if (answer.abstained || answer.label == null)
    return [make("strong", {}, "No answer"), `: the likeliest label, at ${percent(answer.confidence ?? 0)}, is below what this package asks for`];
  return ["Label ", make("strong", {}, answer.label), ` with ${percent(answer.confidence ?? 0)}`];
}

function bars(probabilities: Record<string, number>, chosen: Set<string>): HTMLElement {
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const body = make("tbody");
  const row = ([label, p]: [string, number]) => {
    const fill = make("span", { class: "fill" });
    fill.style.width = `${(100 * p).toFixed(2)}%`;
    return make("tr", chosen.has(label) ? { class: "chosen" } : {}, make("th", { attributes: { scope: "row" } }, ...breakable(label)),
      make("td", { class: "bar", attributes: { "aria-hidden": "true" } }, fill), make("td", { class: "number" }, percent(p)));
  };
  body.append(...sorted.slice(0, kShown).map(row));
  const table = make("table", { class: "bars" }, make("caption", {}, "Probabilities"),
    make("colgroup", {}, make("col", { class: "name" }), make("col"), make("col", { class: "share" })),
    make("thead", { class: "unseen" }, make("tr", {}, make("th", { attributes: { scope: "col" } }, "Label"),
      make("td", { attributes: { "aria-hidden": "true" } }), make("th", { attributes: { scope: "col" } }, "Probability"))), body);
  const out = make("div", {}, table);
  if (sorted.length > kShown) {
    const more = button(`Show all ${sorted.length}`, () => {
      body.append(...sorted.slice(kShown).map(row));
      more.remove();
      table.tabIndex = -1;
      table.focus();
    });
    out.append(more);
  }
  return out;
}

/** A label that may be broken after its underscores and the like. */
function breakable(label: string): Node[] {
  return label.split(/(?<=[_./-])/).flatMap((piece, index) => (index > 0 ? [make("wbr"), document.createTextNode(piece)] : [document.createTextNode(piece)]));
}

function nearRows(rows: NearRow[]): HTMLElement {
  const heading = make("h3", { id: "nearest" }, "Nearest training rows");
  return make("section", { class: "nearest", attributes: { "aria-labelledby": "nearest" } }, heading,
    make("ol", {}, ...rows.map((row) => make("li", {}, make("p", { class: "plain" }, row.text),
      make("p", { class: "note" }, `${row.label} · similarity ${row.similarity.toFixed(2)}`)))));
}
