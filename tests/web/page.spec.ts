import AxeBuilder from "@axe-core/playwright";
import { beginAtTop, ended, expect, kRows, kText, open, say, test } from "./page.ts";

const kSizes = { desk: { width: 1280, height: 800 }, phone: { width: 360, height: 740 } };

for (const colorScheme of ["light", "dark"] as const) {
  for (const [size, viewport] of Object.entries(kSizes)) {
    test.describe(`${colorScheme}, ${size}`, () => {
      test.use({ colorScheme, viewport });

      test("no fault of accessibility, nothing wider than the screen", async ({ page }) => {
        const check = async () => {
          const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
          expect(violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html).join(" ")}`)).toEqual([]);
          expect(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)).toBeLessThanOrEqual(0);
        };
        await open(page, kRows);
        await page.getByLabel("Text", { exact: true }).fill("Could we view the flat on Thursday?");
        await page.keyboard.press("Enter");
        await expect(page.getByRole("heading", { name: "Nearest training rows" })).toBeVisible();
        await check();
        await page.getByLabel("Model", { exact: true }).selectOption(kText);
        if (size === "phone") await page.getByRole("button", { name: "Settings" }).click();
        await page.getByLabel("Most tokens").fill("12");
        await check();
        if (size === "phone") {
          await page.keyboard.press("Escape");
          await expect(page.getByRole("button", { name: "Settings" })).toBeFocused();
        }
        await say(page, "Hello");
        await ended(page);
        await check();
      });
    });
  }
}

test("the theme is chosen, and kept", async ({ page }) => {
  await open(page, kText);
  const background = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const theme = page.getByRole("button", { name: /^Theme/ });
  await expect(theme).toHaveText("Theme: system");
  await theme.click();
  const light = await background();
  await theme.click();
  await expect(theme).toHaveText("Theme: dark");
  expect(await background()).not.toBe(light);
  await page.reload();
  await expect(theme).toHaveText("Theme: dark");
  expect(await background()).not.toBe(light);
});

test("everything is reached with the Tab key, and the focus is seen", async ({ page }) => {
  await open(page, kText);
  await beginAtTop(page);
  const seen: string[] = [];
  for (let press = 0; press < 16; press++) {
    await page.keyboard.press("Tab");
    const [name, outline] = await page.evaluate(() => {
      const at = document.activeElement as HTMLElement;
      return [at === document.body ? "" : at.id || at.textContent || at.className, getComputedStyle(at).outlineStyle];
    });
    if (name === "" || seen[0] === name) break; // once around
    expect(outline, name).not.toBe("none");
    seen.push(name!);
  }
  for (const wanted of ["model", "settings-toggle", "theme", "message", "Send", "system", "temperature", "stop"]) expect(seen).toContain(wanted);
});

test("the skip link leads to the content", async ({ page }) => {
  await open(page, kText);
  await beginAtTop(page);
  await page.keyboard.press("Tab");
  await expect(page.getByRole("link", { name: "Skip to the content" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("main")).toBeFocused();
});

test("models stand in groups, and one that answers with vectors says so", async ({ page }) => {
  const model = (id: string, capabilities: string[], more: object = {}) => ({ id, parent: null, capabilities, ...more });
  await page.route("**/v1/models", (route) =>
    route.fulfill({ json: { data: [
      model("base", ["chat", "completions"]), model("encoder", ["embeddings"]), model("raw", ["completions"]),
      model("support", ["chat", "completions"], { parent: "base" }), model("intents", ["classify"], { meta: { method: "head" } }),
    ] } }));
  await page.goto("/");
  const select = page.getByLabel("Model", { exact: true });
  await expect(select.locator("optgroup")).toHaveCount(3);
  expect(await select.locator("optgroup").evaluateAll((all) => all.map((g) => (g as HTMLOptGroupElement).label))).toEqual(["Base models", "Adapters of base", "Packages"]);
  await select.selectOption("encoder");
  await expect(page.getByRole("main")).toHaveText("encoder answers with vectors. Ask it at /v1/embeddings.");
  await select.selectOption("raw");
  await expect(page.getByLabel("System prompt")).toBeHidden();
});

test("a model without a form for conversations goes on with the text", async ({ page }) => {
  await page.route("**/v1/models", (route) => route.fulfill({ json: { data: [{ id: kText, parent: null, capabilities: ["completions"] }] } }));
  await page.goto("/");
  await page.getByLabel("Most tokens").fill("6");
  const asked = page.waitForRequest("**/v1/completions");
  await say(page, "Once upon a time");
  expect((await asked).postDataJSON().prompt).toBe("Once upon a time");
  await expect((await ended(page)).locator(".text p")).not.toBeEmpty();
});
