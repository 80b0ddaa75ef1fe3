import { ended, events, expect, kText, open, say, test, words } from "./page.ts";

test("an answer streams, and its figures are shown", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("Most tokens").fill("48");
  const seen = page.evaluate(
    () =>
      new Promise<number>((resolve) => {
        // How often the answer's text changed.
        let changes = 0;
        new MutationObserver(() => {
          const answer = document.querySelector(".said.model");
          if (answer?.getAttribute("aria-busy") && answer.querySelector(".text")?.textContent) changes++;
          if (answer && !answer.getAttribute("aria-busy")) resolve(changes);
        }).observe(document.body, { childList: true, subtree: true, attributes: true, characterData: true });
      }),
  );
  await say(page, "Tell me a very long story about the sea, in forty chapters."); // an answer of one word does not stream
  const answer = await ended(page);
  expect(await seen).toBeGreaterThan(2);
  await expect(answer.locator(".note")).toContainText(/first token after [\d.]+ m?s · [\d.]+ tokens\/s · \d+ \+ \d+ tokens/);
  await expect(page.getByRole("status")).toContainText("End of the answer.");
  await expect(page.getByLabel("Message", { exact: true })).toBeFocused();
});

test("Esc stops, and what came is kept", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("Most tokens").fill("4000");
  await say(page, "Tell me a very long story about the sea, in forty chapters.");
  await expect(page.locator(".said.model .text p").first()).not.toBeEmpty();
  await page.keyboard.press("Escape");
  const answer = await ended(page);
  await expect(answer.locator(".note")).toContainText("Stopped");
  await expect(answer.locator(".text")).not.toBeEmpty();
  await expect(page.getByRole("button", { name: "Send" })).toBeVisible();
});

test("the Stop button stops, and the focus goes back to the message", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("Most tokens").fill("4000");
  await say(page, "Tell me a very long story about the sea, in forty chapters.");
  await page.getByRole("button", { name: "Stop" }).focus();
  await page.keyboard.press("Enter");
  await expect((await ended(page)).locator(".text")).not.toBeEmpty(); // at least the word that it was stopped
  await expect(page.getByLabel("Message", { exact: true })).toBeFocused();
});

test("a seed gives the same answer again", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("Most tokens").fill("24");
  await page.getByLabel("Seed").fill("7");
  await say(page, "Name a fruit.");
  const first = await (await ended(page)).locator(".text").innerText();
  await page.getByRole("button", { name: "Regenerate" }).click();
  await expect(page.locator("[aria-busy]")).toHaveCount(0);
  await expect((await ended(page)).locator(".text")).toHaveText(first, { useInnerText: true });
  await expect(page.getByRole("article", { name: kText })).toHaveCount(1);
});

test("settings and the conversation so far are what is asked", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("System prompt").fill("Be brief.");
  await page.getByLabel("Temperature").fill("0");
  await page.getByLabel("Top p").fill("0.9");
  await page.getByLabel("Most tokens").fill("8");
  await page.getByLabel("Stop at").fill("END\n###");
  await say(page, "First");
  const answer = await (await ended(page)).locator(".text").textContent();
  const asked = page.waitForRequest("**/v1/chat/completions");
  await say(page, "Second");
  const body = (await asked).postDataJSON();
  await ended(page);
  expect(body).toMatchObject({ model: kText, temperature: 0, top_p: 0.9, max_tokens: 8, stop: ["END", "###"], stream: true });
  expect(body.messages.map((m: { role: string }) => m.role)).toEqual(["system", "user", "assistant", "user"]);
  expect(body.messages[0].content).toBe("Be brief.");
  expect(answer).not.toBe("");
  expect("seed" in body).toBe(false);
});

test("a setting out of its range is not sent", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("Temperature").fill("3");
  await say(page, "Hello");
  await expect(page.getByLabel("Temperature")).toBeFocused();
  await expect(page.getByRole("article")).toHaveCount(0);
  await expect(page.getByLabel("Message", { exact: true })).toHaveValue("Hello");
});

test("Shift+Enter begins a line, Enter on nothing sends nothing", async ({ page }) => {
  await open(page, kText);
  const message = page.getByLabel("Message", { exact: true });
  await message.press("Enter");
  await message.pressSequentially("one");
  await message.press("Shift+Enter");
  await message.pressSequentially("two");
  await expect(message).toHaveValue("one\ntwo");
  await expect(page.getByRole("article")).toHaveCount(0);
});

test("a new conversation forgets the old one", async ({ page }) => {
  await open(page, kText);
  await page.getByLabel("Most tokens").fill("4");
  await say(page, "Hello");
  await ended(page);
  await page.getByRole("button", { name: "New conversation" }).click();
  await expect(page.getByRole("article")).toHaveCount(0);
  const asked = page.waitForRequest("**/v1/chat/completions");
  await say(page, "Again");
  expect((await asked).postDataJSON().messages).toHaveLength(1);
  await ended(page);
});

test("an answer is copied as it was written", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ contentType: "text/event-stream", body: events(words("**bold** `x`")) + "data: [DONE]\n\n" }));
  await open(page, kText);
  await say(page, "Hello");
  await (await ended(page)).getByRole("button", { name: "Copy" }).click();
  await expect(page.getByRole("status")).toHaveText("Copied");
  expect(await page.evaluate(() => navigator.clipboard.readText())).toBe("**bold** `x`");
});

test("what a model thinks stands apart, folded, and is not sent again", async ({ page }) => {
  const thought = { choices: [{ index: 0, delta: { reasoning_content: "It is <b>polite</b>.", reasoning: "It is <b>polite</b>." }, finish_reason: null }] };
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ contentType: "text/event-stream", body: events(thought, words("Hello!")) + "data: [DONE]\n\n" }));
  await open(page, kText);
  await say(page, "Hello");
  const answer = await ended(page);
  await expect(answer.locator(".text")).toHaveText("Hello!");
  await expect(answer.locator(".thought")).toBeHidden();
  await answer.getByText("What the model thought").click();
  await expect(answer.locator(".thought")).toHaveText("It is <b>polite</b>.");
  const asked = page.waitForRequest("**/v1/chat/completions");
  await say(page, "Why?");
  expect(JSON.stringify((await asked).postDataJSON())).not.toContain("polite");
});

test("a model that only thinks has given no answer", async ({ page }) => {
  const thought = { choices: [{ index: 0, delta: { reasoning_content: "Hmm" }, finish_reason: "length" }] };
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ contentType: "text/event-stream", body: events(thought) + "data: [DONE]\n\n" }));
  await open(page, kText);
  await say(page, "Hello");
  await expect((await ended(page)).locator(".text")).toContainText("did not come to an answer");
});

test("what a model writes is text, never markup", async ({ page }) => {
  const text = "<img src=x onerror=\"document.title='bad'\"><script>document.title='bad'</script>\n\n" +
    "![a](https://example.org/a.png) [b](javascript:alert(1))\n\n```html\n<b>code</b>\n```\n- **one**\n- *two*\n";
  await page.route("**/v1/chat/completions", (route) =>
    route.fulfill({ contentType: "text/event-stream", body: events(words(text)) + "data: [DONE]\n\n" }));
  await open(page, kText);
  await say(page, "<b>mine</b>");
  const answer = await ended(page);
  await expect(answer.locator("img, script, a, b")).toHaveCount(0);
  await expect(answer.locator("pre code")).toHaveText("<b>code</b>");
  await expect(answer.locator("li")).toHaveCount(2);
  await expect(answer.locator("li strong")).toHaveText("one");
  await expect(answer.locator(".text")).toContainText("<img src=x onerror=");
  await expect(page.getByRole("article", { name: "You" }).locator(".text")).toHaveText("<b>mine</b>");
  await expect(page).not.toHaveTitle("bad");
});

test.describe("failures", () => {
  test.use({ quiet: /Failed to load resource|ERR_/ });

  test("what the API refuses is told as a sentence", async ({ page }) => {
    await open(page, kText);
    await say(page, "word ".repeat(20_000));
    await expect((await ended(page)).getByRole("alert")).toContainText(/\d+ tokens.*\.$/);
  });

  test("a stream that breaks off is not taken for the whole", async ({ page }) => {
    await page.route("**/v1/chat/completions", (route) =>
      route.fulfill({ contentType: "text/event-stream", body: events(words("Half of")) }));
    await open(page, kText);
    await say(page, "Hello");
    const answer = await ended(page);
    await expect(answer.getByRole("alert")).toHaveText("The connection ended before the answer was complete.");
    await expect(answer.locator(".text")).toContainText("Half of");
  });

  test("an error within a stream is told", async ({ page }) => {
    await page.route("**/v1/chat/completions", (route) =>
      route.fulfill({ contentType: "text/event-stream", body: events(words("Half"), { error: { message: "the engine stopped" } }) }));
    await open(page, kText);
    await say(page, "Hello");
    await expect((await ended(page)).getByRole("alert")).toHaveText("The engine stopped.");
  });

  test("a full server's Retry-After is told", async ({ page }) => {
    await page.route("**/v1/chat/completions", (route) =>
      route.fulfill({ status: 503, headers: { "Retry-After": "2" }, json: { error: { message: "the queue is full" } } }));
    await open(page, kText);
    await say(page, "Hello");
    await expect((await ended(page)).getByRole("alert")).toHaveText("The queue is full. Try again in 2 s.");
  });

  test("a server that is gone is told, and asked again", async ({ page }) => {
    await page.route("**/v1/models", (route) => route.abort(), { times: 1 });
    await page.goto("/");
    await expect(page.getByRole("alert")).toHaveText("The server cannot be reached. Is it still running?");
    await page.getByRole("button", { name: "Try again" }).click();
    await expect(page.getByLabel("Model", { exact: true })).toBeEnabled();
  });
});
