/** A parsed text as elements. */

import { make } from "./dom.ts";
import { parseMarkdown, type Block, type Inline } from "./markdown.ts";

/** Shows `text` in `place`. Blocks that did not change stay, so that a selection survives while more is written. */
export function showMarkdown(place: HTMLElement, text: string): void {
  const blocks = parseMarkdown(text);
  const known = [...place.children] as HTMLElement[];
  blocks.forEach((block, index) => {
    const mark = JSON.stringify(block);
    const old = known[index];
    if (old && marks.get(old) === mark) return;
    const fresh = element(block);
    marks.set(fresh, mark);
    if (old) old.replaceWith(fresh);
    else place.append(fresh);
  });
  for (const old of known.slice(blocks.length)) old.remove();
}

const marks = new WeakMap<HTMLElement, string>();

function element(block: Block): HTMLElement {
  switch (block.kind) {
    case "p":
      return make("p", {}, ...inlines(block.inlines));
    case "heading": // a heading of the answer is none of the page
      return make("p", { class: "heading" }, ...inlines(block.inlines));
    case "code":
      return make("pre", { attributes: { tabindex: "0", "aria-label": block.language ? `Code, ${block.language}` : "Code", role: "group" } },
        make("code", {}, block.text));
    case "ul":
      return make("ul", {}, ...block.items.map((item) => make("li", {}, ...inlines(item))));
    case "ol": {
      const list = make("ol", {}, ...block.items.map((item) => make("li", {}, ...inlines(item))));
      list.start = block.start;
      return list;
    }
  }
}

function inlines(list: Inline[]): Node[] {
  return list.map((part) => (part.kind === "text" ? document.createTextNode(part.text) : make(part.kind, {}, part.text)));
}
