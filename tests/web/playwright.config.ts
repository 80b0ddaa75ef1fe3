import { existsSync } from "node:fs";
import { defineConfig } from "@playwright/test";

// scripts/test_web.py starts the servers and names them here.
const browsers = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const executablePath = process.env["TAILOR_CHROMIUM"] ?? browsers.find(existsSync);

export default defineConfig({
  testDir: ".",
  outputDir: process.env["TAILOR_WEB_OUT"] ?? "../../build/web-tests/traces",
  fullyParallel: false,
  workers: 1,
  forbidOnly: true,
  timeout: 90_000,
  expect: { timeout: 30_000 },
  reporter: [["list"]],
  use: {
    baseURL: process.env["TAILOR_SERVER"] ?? "http://127.0.0.1:8080",
    launchOptions: { ...(executablePath ? { executablePath } : {}), args: ["--no-sandbox", "--disable-dev-shm-usage"] },
    trace: "retain-on-failure",
  },
});
