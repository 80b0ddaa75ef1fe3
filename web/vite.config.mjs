import { defineConfig } from "vite";

// `npm run dev` shows the page with a server that runs already: TAILOR_SERVER, or its usual address.
const server = process.env.TAILOR_SERVER ?? "http://127.0.0.1:8080";

export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // the page's security policy knows files, no inline code
    modulePreload: false,
    reportCompressedSize: false,
  },
  // The server takes requests of its own origin's pages alone.
  server: { proxy: { "/v1": { target: server, changeOrigin: true, headers: { origin: new URL(server).origin } } } },
});
