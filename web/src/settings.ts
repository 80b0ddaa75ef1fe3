/** The settings of an answer. An empty field leaves it to the server. */

import type { Sampling } from "./api.ts";
import { make } from "./dom.ts";

interface NumberField {
  name: "temperature" | "top_p" | "max_tokens" | "seed";
  label: string;
  hint: string;
  least: number;
  most: number;
  step: number | "any";
}

const kFields: NumberField[] = [
  { name: "temperature", label: "Temperature", hint: "0 to 2. 0: always the likeliest token", least: 0, most: 2, step: "any" },
  { name: "top_p", label: "Top p", hint: "0 to 1. Only the likeliest tokens of this share", least: 0, most: 1, step: "any" },
  { name: "max_tokens", label: "Most tokens", hint: "Of an answer", least: 1, most: 1_048_576, step: 1 },
  { name: "seed", label: "Seed", hint: "A whole number; the same one gives the same answer", least: 0, most: Number.MAX_SAFE_INTEGER, step: 1 },
];

export class Settings {
  readonly element: HTMLElement;
  private readonly system = make("textarea", { id: "system", attributes: { rows: "4", spellcheck: "true" } });
  private readonly stop = make("textarea", { id: "stop", attributes: { rows: "2", "aria-describedby": "stop-hint", spellcheck: "false" } });
  private readonly inputs = new Map<NumberField["name"], HTMLInputElement>();
  private readonly systemPart: HTMLElement;

  constructor() {
    this.systemPart = make("div", { class: "field" }, label("system", "System prompt"), this.system);
    const fields = kFields.map((field) => {
      const input = make("input", {
        id: field.name,
        attributes: {
          type: "number", min: String(field.least), max: String(field.most), step: String(field.step),
          inputmode: "decimal", autocomplete: "off", placeholder: "default", "aria-describedby": `${field.name}-hint`,
        },
      });
      this.inputs.set(field.name, input);
      return make("div", { class: "field" }, label(field.name, field.label), input, hint(`${field.name}-hint`, field.hint));
    });
    this.element = make("div", { class: "settings" },
      make("h2", {}, "Settings"), this.systemPart, ...fields,
      make("div", { class: "field" }, label("stop", "Stop at"), this.stop, hint("stop-hint", "One text a line; the answer ends before it")));
  }

  /** Completions have no system prompt. */
  useSystem(used: boolean): void {
    this.systemPart.hidden = !used;
  }

  get systemPrompt(): string {
    return this.systemPart.hidden ? "" : this.system.value.trim();
  }

  /** The first field with a value out of its range, for the person to mend; null: all are well. */
  wrong(): HTMLInputElement | null {
    for (const input of this.inputs.values()) if (!input.checkValidity()) return input;
    return null;
  }

  sampling(): Sampling {
    const out: Sampling = {};
    for (const [name, input] of this.inputs) if (input.value !== "") out[name] = input.valueAsNumber;
    const stop = this.stop.value.split("\n").filter((line) => line !== "");
    if (stop.length > 0) out.stop = stop;
    return out;
  }
}

function label(target: string, text: string): HTMLLabelElement {
  const element = make("label", {}, text);
  element.htmlFor = target;
  return element;
}

function hint(id: string, text: string): HTMLElement {
  return make("p", { class: "hint", id }, text);
}
