/**
 * A small part of Markdown as a tree: fenced code, headings, lists, paragraphs; code, strong and emphasis within.
 * Everything else stays the text it is. No links and no images: what a model writes shall not lead away from here.
 */

export type Inline = { kind: "text" | "code" | "strong" | "em"; text: string };
export type Block =
  | { kind: "p" | "heading"; inlines: Inline[] }
  | { kind: "code"; text: string; language: string }
  | { kind: "ul" | "ol"; items: Inline[][]; start: number };

const kFence = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const kItem = /^ {0,5}(?:([-*+])|(\d{1,9})[.)]) +(.*)$/;
const kHeading = /^ {0,3}#{1,6} +(.*?)(?: +#+)?$/;

export function parseMarkdown(text: string): Block[] {
  const out: Block[] = [];
  let paragraph: string[] = [];
  const flush = () => {
    if (paragraph.length > 0) out.push({ kind: "p", inlines: parseInline(paragraph.join("\n")) });
    paragraph = [];
  };
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    const fence = kFence.exec(line);
    if (fence) {
      flush();
      const close = new RegExp(`^ {0,3}${fence[1]![0] === "`" ? "`" : "~"}{${fence[1]!.length},} *$`);
      const code: string[] = [];
      while (++at < lines.length && !close.test(lines[at]!)) code.push(lines[at]!);
      out.push({ kind: "code", text: code.join("\n"), language: fence[2] ?? "" }); // unclosed: still being written
      continue;
    }
    const heading = kHeading.exec(line);
    const item = kItem.exec(line);
    if (line.trim() === "") {
      flush();
    } else if (heading) {
      flush();
      out.push({ kind: "heading", inlines: parseInline(heading[1]!) });
    } else if (item) {
      flush();
      const kind = item[1] ? "ul" : "ol";
      const last = out.at(-1);
      if (last && last.kind === kind) last.items.push(parseInline(item[3]!));
      else out.push({ kind, items: [parseInline(item[3]!)], start: Number(item[2] ?? 1) });
    } else {
      paragraph.push(line);
    }
  }
  flush();
  return out;
}

export function parseInline(text: string): Inline[] {
  const out: Inline[] = [];
  const pattern = /(`+)([^`]+?)\1(?!`)|\*\*(?!\s)([^*]+?)(?<!\s)\*\*|(?<![\w*])\*(?![\s*])([^*\n]+?)(?<!\s)\*(?![\w*])/g;
  let end = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > end) out.push({ kind: "text", text: text.slice(end, found.index) });
    if (found[2] !== undefined) out.push({ kind: "code", text: found[2] });
    else if (found[3] !== undefined) out.push({ kind: "strong", text: found[3] });
    else out.push({ kind: "em", text: found[4]! });
    end = found.index + found[0].length;
  }
  if (end < text.length) out.push({ kind: "text", text: text.slice(end) });
  return out;
}
