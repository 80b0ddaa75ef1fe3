// What the tests share: the page on its server, watched for what it must never do.
import { expect, test as base, type Page } from "@playwright/test";

export const kText = process.env["TAILOR_TEXT_MODEL"] ?? "smollm2-135m-instruct";
export const kLabels = process.env["TAILOR_LABEL_MODEL"] ?? "labels";
export const kRows = process.env["TAILOR_ROWS_MODEL"] ?? "rows"; // a label package that holds its training rows

/** `quiet`: console messages that a test provokes. */
export const test = base.extend<{ quiet: RegExp | null }>({
  quiet: [null, { option: true }],
  page: async ({ page, baseURL, quiet }, use) => {
    const bad: string[] = [];
    page.on("request", (request) => {
      if (new URL(request.url()).origin !== new URL(baseURL!).origin) bad.push(`request to ${request.url()}`);
    });
    page.on("pageerror", (error) => bad.push(`error: ${error.message}`));
    page.on("console", (message) => {
      const text = message.text();
      if (["error", "warning"].includes(message.type()) && !quiet?.test(text)) bad.push(text);
    });
    await use(page);
    expect(bad).toEqual([]);
  },
});
export { expect };

export async function open(page: Page, model: string): Promise<void> {
  await page.goto("/");
  await expect(page.getByLabel("Model", { exact: true })).toBeEnabled();
  await page.getByLabel("Model", { exact: true }).selectOption(model);
}

export async function say(page: Page, text: string): Promise<void> {
  await page.getByLabel("Message", { exact: true }).fill(text);
  await page.getByLabel("Message", { exact: true }).press("Enter");
}

/** Waits for the last answer to end. */
export async function ended(page: Page) {
  await expect(page.getByRole("button", { name: "Regenerate" })).toBeVisible();
  return page.getByRole("article", { name: kText }).last();
}

export function events(...chunks: object[]): string {
  return chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
}
export function words(text: string): object {
  return { choices: [{ index: 0, delta: { content: text }, finish_reason: null }] };
}

/** The Tab key begins at the top of the page. */
export async function beginAtTop(page: Page): Promise<void> {
  await page.evaluate(() => {
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
  });
}
