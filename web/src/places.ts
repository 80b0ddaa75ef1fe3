/** Pieces of a text that an answer points to. */

import type { Entity } from "./api.ts";
import { make } from "./dom.ts";

/** The text with the pieces marked; `entities` from left to right. */
export function marked(text: string, entities: Entity[]): HTMLElement {
  const out = make("p", { class: "marked" });
  let at = 0;
  for (const entity of entities) {
    out.append(text.slice(at, entity.start));
    out.append(make("mark", {}, text.slice(entity.start, entity.end), entity.label ? make("small", {}, ` ${entity.label}`) : null));
    at = entity.end;
  }
  out.append(text.slice(at));
  return out;
}

export function entityTable(caption: string, piece: string, entities: Entity[]): HTMLElement {
  const head = (text: string, style: string) => make("th", { class: style, attributes: { scope: "col" } }, text);
  return make("table", { class: "entities" }, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, head(piece, ""), head("Label", ""), head("Probability", "number"))),
    make("tbody", {}, ...entities.map((entity) => make("tr", {}, make("th", { attributes: { scope: "row" } }, entity.text), make("td", {}, entity.label),
      make("td", { class: "number" }, percent(entity.score))))));
}

export function percent(p: number): string {
  return `${(100 * p).toFixed(1)} %`;
}
