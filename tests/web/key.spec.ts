import { expect, kText, open, test } from "./page.ts";

test.use({ quiet: /Failed to load resource/ });

test.beforeEach(async ({ page }) => {
  await page.route("**/v1/models", (route) =>
    route.request().headers()["authorization"] === "Bearer right" ? route.continue()
      : route.fulfill({ status: 401, json: { error: { message: "a key is needed" } } }));
});

test("the page asks for the key, refuses a wrong one, and keeps it in this tab alone", async ({ page }) => {
  await page.goto("/");
  const dialog = page.getByRole("dialog", { name: "API key" });
  await expect(dialog.getByLabel("Key", { exact: true })).toBeFocused();
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await expect(dialog.getByRole("alert")).toHaveText("The server does not take that key.");
  await dialog.getByLabel("Key", { exact: true }).fill("right");
  await page.keyboard.press("Enter");
  await expect(dialog).toBeHidden();
  await expect(page.getByLabel("Model", { exact: true })).toBeEnabled();
  expect(await page.evaluate(() => Object.values({ ...localStorage }).concat(document.cookie).join())).not.toContain("right");
  await open(page, kText); // a reload keeps it
  await page.getByRole("button", { name: "Forget key" }).click();
  await expect(dialog).toBeVisible();
  expect(await page.evaluate(() => sessionStorage.length)).toBe(0);
});

test("a closed dialog can be opened again", async ({ page }) => {
  await page.goto("/");
  await expect(page.getByRole("dialog")).toBeVisible();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Enter a key" }).click();
  await expect(page.getByRole("dialog")).toBeVisible();
});
