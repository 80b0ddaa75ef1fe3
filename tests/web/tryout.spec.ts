import type { Page } from "@playwright/test";
import { expect, kLabels, kRows, open, test } from "./page.ts";

test("a label package answers with all its probabilities, the likeliest first", async ({ page }) => {
  await open(page, kLabels);
  const answered = page.waitForResponse("**/v1/classify");
  await page.getByLabel("Text", { exact: true }).fill("Could we view the flat on Thursday?");
  await page.keyboard.press("Enter");
  const { label, confidence, probabilities } = (await (await answered).json()).data[0];
  await expect(page.locator(".verdict")).toHaveText(`Label ${label} with ${(100 * confidence).toFixed(1)} %`);
  await expect(page.getByRole("status")).toHaveText(`Label ${label} with ${(100 * confidence).toFixed(1)} %`);
  await expect(page.locator(".note").first()).toHaveText(/computed in [\d.]+ m?s, answered after [\d.]+ m?s/);
  const names = Object.keys(probabilities).sort((a, b) => probabilities[b] - probabilities[a]);
  const rows = page.getByRole("table", { name: "Probabilities" }).getByRole("rowheader");
  expect(await rows.allTextContents()).toEqual(names.slice(0, 8));
  await page.getByRole("button", { name: `Show all ${names.length}` }).click();
  expect(await rows.allTextContents()).toEqual(names);
  await expect(page.getByRole("row", { name: label })).toHaveClass("chosen");
});

const answers: [string, object, string][] = [
  ["an abstention", { label: null, confidence: 0.31, abstained: true, probabilities: { a: 0.31, b: 0.29 } }, "No answer: the likeliest label, at 31.0 %, is below what this package asks for"],
  ["several labels", { labels: ["a", "c"], probabilities: { a: 0.9, b: 0.2, c: 0.8 } }, "Labels a, c"],
  ["none of several labels", { labels: [], probabilities: { a: 0.1 } }, "No label is likely enough"],
  ["a number", { value: 12.5 }, "Value 12.5000"],
];
for (const [name, answer, verdict] of answers) {
  test(`${name} is told`, async ({ page }) => {
    await page.route("**/v1/classify", (route) => route.fulfill({ json: { data: [answer], milliseconds: 1.5 } }));
    await open(page, kLabels);
    await page.getByLabel("Text", { exact: true }).fill("Hello");
    await page.getByRole("button", { name: "Classify" }).click();
    await expect(page.locator(".verdict")).toHaveText(verdict);
    await expect(page.locator("tr.chosen")).toHaveCount("labels" in answer ? (answer.labels as string[]).length : 0);
    await expect(page.getByText("Nearest training rows")).toHaveCount(0);
  });
}

test("the nearest training rows of a package that holds them", async ({ page }) => {
  await open(page, kRows);
  const answered = page.waitForResponse("**/v1/classify");
  await page.getByLabel("Text", { exact: true }).fill("Could we view the flat on Thursday?");
  await page.keyboard.press("Enter");
  const { nearest } = (await (await answered).json()).data[0];
  expect(nearest).toHaveLength(5);
  const list = page.getByRole("region", { name: "Nearest training rows" }).getByRole("listitem");
  await expect(list).toHaveText(nearest.map((row: { text: string; label: string; similarity: number }) =>
    `${row.text}${row.label} · similarity ${row.similarity.toFixed(2)}`));
  for (let i = 1; i < nearest.length; i++) expect(nearest[i].similarity).toBeLessThanOrEqual(nearest[i - 1].similarity);
});

test("a package without training rows is not asked for them", async ({ page }) => {
  await open(page, kLabels);
  const asked = page.waitForRequest("**/v1/classify");
  await page.getByLabel("Text", { exact: true }).fill("Hello");
  await page.keyboard.press("Enter");
  expect((await asked).postDataJSON()).toEqual({ model: kLabels, input: "Hello" });
  await expect(page.locator(".verdict")).toBeVisible();
  await expect(page.getByText("Nearest training rows")).toHaveCount(0);
});

test("a training row is shown as text", async ({ page }) => {
  const nearest = [{ text: "<i>see the flat</i>", label: "viewing", similarity: 0.912 }];
  await page.route("**/v1/classify", (route) => route.fulfill({ json: { data: [{ label: "a", confidence: 1, nearest }], milliseconds: 1 } }));
  await open(page, kLabels);
  await page.getByLabel("Text", { exact: true }).fill("Hello");
  await page.getByRole("button", { name: "Classify" }).click();
  await expect(page.getByRole("heading", { name: "Nearest training rows" })).toBeVisible();
  await expect(page.locator(".nearest li")).toHaveText("<i>see the flat</i>viewing · similarity 0.91");
});

/** The page with one model of this capability; what it answers at `path`. */
async function openWith(page: Page, capability: string, path: string, answer: object): Promise<void> {
  await page.route("**/v1/models", (route) => route.fulfill({ json: { data: [{ id: "words", parent: null, capabilities: [capability], meta: { method: "full" } }] } }));
  await page.route(`**${path}`, (route) => route.fulfill({ json: { data: [answer], milliseconds: 2 } }));
  await page.goto("/");
}

test("entities are marked in the text, and listed", async ({ page }) => {
  const entities = [{ label: "person", text: "Zoë", start: 3, end: 6, score: 0.98 }, { label: "place", text: "<b>Oslo", start: 10, end: 17, score: 0.5 }];
  await openWith(page, "tag", "/v1/tag", { entities });
  const asked = page.waitForRequest("**/v1/tag");
  await page.getByLabel("Text", { exact: true }).fill("😀 Zoë in <b>Oslo.");
  await page.keyboard.press("Enter");
  expect((await asked).postDataJSON()).toEqual({ model: "words", input: "😀 Zoë in <b>Oslo.", offsets: "utf16" });
  await expect(page.locator(".verdict")).toHaveText("2 places found");
  await expect(page.getByRole("status")).toHaveText("2 places found");
  await expect(page.locator(".marked")).toHaveText("😀 Zoë person in <b>Oslo place.");
  await expect(page.locator("mark")).toHaveText(["Zoë person", "<b>Oslo place"]);
  await expect(page.getByRole("table", { name: "What was found" }).getByRole("row")).toHaveText(["TextLabelProbability", "Zoëperson98.0 %", "<b>Osloplace50.0 %"]);
});

test("no entity, and tags of words", async ({ page }) => {
  await openWith(page, "tag", "/v1/tag", { entities: [] });
  await page.getByLabel("Text", { exact: true }).fill("Hello");
  await page.getByRole("button", { name: "Find" }).click();
  await expect(page.locator(".verdict")).toHaveText("Nothing was found");
  await page.route("**/v1/tag", (route) => route.fulfill({ json: { data: [{ words: [{ label: "NOUN", text: "Hello", start: 0, end: 5, score: 1 }] }], milliseconds: 1 } }));
  await page.getByRole("button", { name: "Find" }).click();
  await expect(page.getByRole("table", { name: "Tags of words" }).getByRole("rowheader")).toHaveText(["Hello"]);
});

test("a question is answered from the text", async ({ page }) => {
  await openWith(page, "extract", "/v1/extract", { answer: "Oslo", start: 11, end: 15, score: 0.75 });
  await expect(page.getByLabel("Question")).toBeFocused();
  await page.keyboard.type("Where is Ada?");
  await page.keyboard.press("Enter"); // there is no text yet
  await expect(page.getByLabel("Text", { exact: true })).toBeFocused();
  const asked = page.waitForRequest("**/v1/extract");
  await page.keyboard.type("Ada is in: Oslo.");
  await page.keyboard.press("Enter");
  expect((await asked).postDataJSON()).toEqual({ model: "words", question: "Where is Ada?", context: "Ada is in: Oslo.", offsets: "utf16" });
  await expect(page.locator(".verdict")).toHaveText("Answer Oslo with 75.0 %");
  await expect(page.locator("mark")).toHaveText("Oslo");
  await page.route("**/v1/extract", (route) => route.fulfill({ json: { data: [{ answer: null, start: null, end: null, score: 0.9, no_answer: true }], milliseconds: 1 } }));
  await page.getByRole("button", { name: "Answer" }).click();
  await expect(page.locator(".verdict")).toHaveText("No answer stands in this text, with 90.0 %");
});

test.describe(() => {
  test.use({ quiet: /Failed to load resource/ });
  test("a failure is told as a sentence", async ({ page }) => {
    await page.route("**/v1/classify", (route) => route.fulfill({ status: 400, json: { error: { message: "'input' is too long" } } }));
    await open(page, kLabels);
    await page.getByLabel("Text", { exact: true }).fill("Hello");
    await page.getByRole("button", { name: "Classify" }).click();
    await expect(page.getByRole("alert")).toHaveText("'input' is too long.");
  });
});
