// The parts that need no browser.
import { expect, test } from "@playwright/test";
import { EventReader } from "../../web/src/events.ts";
import { parseInline, parseMarkdown } from "../../web/src/markdown.ts";

test("events are the same, however their bytes are cut", () => {
  const bytes = new TextEncoder().encode(': keep-alive\n\ndata: {"a":"ä€😀"}\r\n\r\nevent: x\ndata:one\ndata: two\n\nid: 3\n\rdata: [DONE]\n\n');
  const wanted = ['{"a":"ä€😀"}', "one\ntwo", "[DONE]"];
  for (let size = 1; size <= bytes.length; size++) {
    const reader = new EventReader();
    const seen: string[] = [];
    for (let at = 0; at < bytes.length; at += size) seen.push(...reader.push(bytes.slice(at, at + size)));
    expect(seen, `pieces of ${size}`).toEqual(wanted);
  }
});

test("an event without its empty line is not told", () => {
  expect(new EventReader().push(new TextEncoder().encode("data: half\n"))).toEqual([]);
});

test("blocks of Markdown", () => {
  expect(parseMarkdown("# Title #\ntext\nmore\n\n```py\na = 1\n\n# no heading\n```\n1. one\n2) two\n- x\n").map((b) => b.kind))
    .toEqual(["heading", "p", "code", "ol", "ul"]);
  expect(parseMarkdown("~~~\nunclosed")).toEqual([{ kind: "code", text: "unclosed", language: "" }]);
  expect(parseMarkdown("````\n```\n````")).toEqual([{ kind: "code", text: "```", language: "" }]);
  expect(parseMarkdown("")).toEqual([]);
});

test("marks within a line, and what only looks like them", () => {
  expect(parseInline("a **b** `**c**` *d*").map((i) => [i.kind, i.text]))
    .toEqual([["text", "a "], ["strong", "b"], ["text", " "], ["code", "**c**"], ["text", " "], ["em", "d"]]);
  for (const plain of ["2 * 3 * 4", "a*b*c", "** no **", "`open", "snake_case_name"]) expect(parseInline(plain)).toEqual([{ kind: "text", text: plain }]);
});

test("long texts are parsed in time that grows with their length", () => {
  for (const text of ["*".repeat(50_000), "`".repeat(50_000), "**a".repeat(20_000), "# ".repeat(30_000), " ".repeat(100_000)]) parseMarkdown(text);
});
