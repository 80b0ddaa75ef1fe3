import { expect, kLabels, open, test } from "./page.ts";

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

test("nearest training rows are shown where the server tells them", async ({ page }) => {
  const neighbours = [{ text: "<i>see the flat</i>", label: "viewing", similarity: 0.912 }];
  await page.route("**/v1/classify", (route) => route.fulfill({ json: { data: [{ label: "a", confidence: 1, neighbours }], milliseconds: 1 } }));
  await open(page, kLabels);
  await page.getByLabel("Text", { exact: true }).fill("Hello");
  await page.getByRole("button", { name: "Classify" }).click();
  await expect(page.getByRole("heading", { name: "Nearest training rows" })).toBeVisible();
  await expect(page.locator(".neighbours li")).toHaveText("<i>see the flat</i>viewing · similarity 0.91");
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
