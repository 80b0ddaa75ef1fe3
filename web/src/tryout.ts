/** A form to try a label package with. */

import { announce } from "./announce.ts";
import { ApiFault, classify, sentence, type Classification, type Model, type Neighbour } from "./api.ts";
import { duration } from "./chat.ts";
import { button, make } from "./dom.ts";

const kShown = 8; // labels, before "Show all"

export class Tryout {
  readonly element: HTMLElement;
  private readonly input = make("textarea", { id: "text", attributes: { rows: "5", "aria-describedby": "keys", spellcheck: "true" } });
  private readonly result = make("div", { class: "result", attributes: { "aria-live": "off" } });
  private readonly submit = make("button", { class: "primary" }, "Classify");
  private running: AbortController | null = null;

  constructor(
    private readonly model: Model,
    private readonly onDenied: () => void,
  ) {
    const label = make("label", {}, "Text");
    label.htmlFor = "text";
    const form = make("form", {}, label, this.input,
      make("div", { class: "row" }, make("p", { class: "hint", id: "keys" }, "Enter classifies, Shift+Enter begins a line, Esc stops"), this.submit));
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
    this.input.focus();
  }

  escape(): boolean {
    if (this.running === null) return false;
    this.running.abort();
    return true;
  }

  private async run(): Promise<void> {
    const text = this.input.value;
    if (text.trim() === "") return;
    this.running?.abort(); // the newest text counts
    const control = new AbortController();
    this.running = control;
    this.result.setAttribute("aria-busy", "true");
    const begin = performance.now();
    try {
      const { answer, milliseconds } = await classify(this.model.id, text, control.signal);
      const waited = performance.now() - begin;
      this.result.replaceChildren(...shown(answer, `computed in ${duration(milliseconds)}, answered after ${duration(waited)}`));
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
}

function about(model: Model): string {
  const parts: string[] = [];
  if (model.meta?.method) parts.push(`method ${model.meta.method}`);
  if (model.meta?.base_model) parts.push(`on ${model.meta.base_model}`);
  if (model.labels) parts.push(`${model.labels.length} ${model.labels.length === 1 ? "label" : "labels"}`);
  return parts.join(" · ");
}

function shown(answer: Classification, time: string): HTMLElement[] {
  const out: HTMLElement[] = [make("p", { class: "verdict" }, ...verdict(answer)), make("p", { class: "note" }, time)];
  const chosen = new Set(answer.labels ?? (typeof answer.label === "string" ? [answer.label] : []));
  if (answer.probabilities) out.push(bars(answer.probabilities, chosen));
  if (answer.neighbours && answer.neighbours.length > 0) out.push(neighbours(answer.neighbours));
  return out;
}

function verdict(answer: Classification): (string | HTMLElement)[] {
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

function neighbours(list: Neighbour[]): HTMLElement {
  return make("div", { class: "neighbours" }, make("h3", {}, "Nearest training rows"),
    make("ol", {}, ...list.map((n) => make("li", {}, make("p", { class: "plain" }, n.text),
      make("p", { class: "note" }, `${n.label} · similarity ${n.similarity.toFixed(2)}`)))));
}

function percent(p: number): string {
  return `${(100 * p).toFixed(1)} %`;
}
