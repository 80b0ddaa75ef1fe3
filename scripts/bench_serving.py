"""Serving: `tailor serve` beside llama-server, the same model file, one after the other under the same load."""
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from bench_base import CACHE, SMOLLM2, THREADS, TREE, Failed, Skipped

# One that has what we have: the products of our own may be kept to AVX2.
LLAMA = CACHE / "deps" / ("llama-server-avx2" if os.environ.get("TAILOR_MAX_ISA") == "avx2" else "llama-server") / "bin"
LOADS = ((1, 6), (4, 16), (16, 64), (64, 128))  # chats, requests
SHARED, OWN, ANSWER = 500, 40, 64
SHORT_WAITS = {"GOMP_SPINCOUNT": "1000"}  # threads sleep after microseconds, as ours do: often faster beside a client on the same cores


class Server:
    """A server of ours or a peer's on a free port of this machine; ended when the block is left."""

    def __init__(self, command, port, log, environment=None, path="/health"):
        self.command, self.port, self.log, self.path = [str(c) for c in command], port, log, path
        self.environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | (environment or {})

    def __enter__(self):
        settings = "".join(f"{k}={v} " for k, v in self.environment.items() if k.startswith(("OMP_", "GOMP_")))
        print("$ " + settings + " ".join(self.command).replace(str(TREE) + "/", "").replace(str(CACHE), "~/.cache/tailor"), flush=True)
        self.begin = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=open(self.log, "w"), stderr=subprocess.STDOUT, cwd=TREE, env=self.environment)
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.path}", timeout=1):
                    self.ready_after = time.monotonic() - self.begin
                    return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.02)
        raise Failed(f"{self.command[0]} did not start; see {self.log}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self):
        """Resident bytes, and those of them that are not pages of files."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        at = lambda name: int(re.search(rf"{name}:\s+(\d+)", status).group(1)) * 1024
        return at("VmRSS"), at("RssAnon")


def q4_0(bench):
    """The default model in blocks that llama.cpp repacks, so that both servers run at their best."""
    made = bench.out / "smollm2-q4_0.gguf"
    if not made.exists():
        bench.run([bench.build / "bin" / "tailor", "models", "quantize", SMOLLM2, "--type", "q4_0", "--out", made], quiet=True)
    return made


def ours(bench, model, port=18610, more=()):
    return Server([bench.build / "bin" / "tailor", "serve", "--model", model, "--port", port, "--data", bench.out / "serve-data", *more], port,
                  bench.out / "serve.log")


def llama(bench, model, chats, more=(), port=18611, environment=None):
    if not (LLAMA / "llama-server").exists():
        raise Skipped("llama-server is not built: `make peers`")
    return Server([LLAMA / "llama-server", "-m", model, "--port", port, "-t", THREADS, "-np", chats, *more], port, bench.out / "llama-server.log",
                  environment)


def load(bench, server, chats, requests, more=()):
    line = bench.run([bench.program("serve_load"), server.port, "--chats", chats, "--requests", requests, "--shared", SHARED, "--own", OWN,
                      "--answer", ANSWER, *more], quiet=True)
    result = json.loads(line)
    print(f"  {result['tokens_per_second']:.1f} tokens/s; first token p50 {result['first_token_p50_ms']:.0f} ms, p95 {result['first_token_p95_ms']:.0f} ms; "
          f"between tokens p50 {result['between_tokens_p50_ms']:.0f} ms, p95 {result['between_tokens_p95_ms']:.0f} ms; failed {result['failed']}", flush=True)
    return result


def chats(bench):
    """Concurrent chats that share a system prompt of 500 tokens, tokens/s and first token; peer: llama-server in four settings, the best of each."""
    model = q4_0(bench)
    loads = LOADS if not bench.smoke else ((1, 2),)
    for n, requests in loads:
        rounds = []
        for _ in range(1 if bench.smoke else 2):
            with ours(bench, model) as server:
                mine = load(bench, server, n, requests)
            peers = []
            if not bench.smoke:
                cells = str(n * 1024)
                for more, waits in (((), {}), ((), SHORT_WAITS), (("--kv-unified",), SHORT_WAITS), (("-fa", "off"), SHORT_WAITS)):
                    with llama(bench, model, n, ("-c", cells, *more), environment=waits) as server:
                        peers.append(load(bench, server, n, requests))
            rounds.append((mine, peers))
        if bench.smoke:
            return
        best = lambda results, key, pick: pick(r[key] for r in results)
        speed = best([m for m, _ in rounds], "tokens_per_second", max) / max(best(p, "tokens_per_second", max) for _, p in rounds)
        first = best([m for m, _ in rounds], "first_token_p95_ms", min) / min(best(p, "first_token_p95_ms", min) for _, p in rounds)
        print(f"  => {n} chats: {speed:.2f} x llama-server's best tokens/s; first token p95 {first:.2f} x its best", flush=True)


def one_stream(bench):
    """One stream's decoding beside llama-bench on the same file and threads; what idles, and how soon it is ready."""
    model = q4_0(bench)
    with ours(bench, model) as server:
        resident, anonymous = server.memory()
        size = model.stat().st_size
        print(f"  ready after {server.ready_after:.2f} s; resident {resident / 1e6:.0f} MB, model file {size / 1e6:.0f} MB, "
              f"anonymous {anonymous / 1e6:.0f} MB", flush=True)
        line = bench.run([bench.program("serve_load"), server.port, "--chats", 1, "--requests", 1 if bench.smoke else 4, "--shared", 0, "--own", 8,
                          "--answer", 16 if bench.smoke else 128], quiet=True)
    mine = 1000 / json.loads(line)["between_tokens_p50_ms"]
    print(f"  {mine:.1f} tokens/s by the time between tokens", flush=True)
    if bench.smoke:
        return
    if not (LLAMA / "llama-bench").exists():
        raise Skipped("llama-bench is not built: `make peers`")
    waits = os.environ.pop("OMP_WAIT_POLICY", None)  # at its default it is fastest
    out = bench.output([LLAMA / "llama-bench", "-m", model, "-t", THREADS, "-p", "0", "-n", "128", "-r", "3", "-o", "json"], quiet=True)
    if waits is not None:
        os.environ["OMP_WAIT_POLICY"] = waits
    peer = json.loads("\n".join(out))[0]["avg_ts"]
    print(f"  llama-bench {peer:.1f} tokens/s  => {mine / peer:.2f} x", flush=True)


def small_requests(bench):
    """GET /v1/models with a key, over 64 connections that stay open, wrk on the other core."""
    tailor, data = bench.build / "bin" / "tailor", bench.out / "keyed-data"
    key = bench.run([tailor, "keys", "create", "--name", "wrk", "--data", data], quiet=True).strip()
    with Server([tailor, "serve", "--model", SMOLLM2, "--port", 18610, "--data", data, "--no-request-log"], 18610, bench.out / "serve.log", path="/livez") as server:
        for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {0})
        command = ["taskset", "-c", "1", "wrk", "-t1", "-c64", "-d2s" if bench.smoke else "-d10s", "--latency", "-H", f"Authorization: Bearer {key}",
                   f"http://127.0.0.1:{server.port}/v1/models"]
        try:
            out = "\n".join(bench.output(command, quiet=True))
        except FileNotFoundError as error:
            raise Skipped("wrk is not installed") from error
    if "Non-2xx" in out:
        raise Failed("not every answer was 200")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)
    p99 = re.search(r"99%\s+(\S+)", out).group(1)
    print(f"  {rate} requests/s, p99 {p99}", flush=True)
