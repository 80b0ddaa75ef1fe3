"""Serving under strain: overload, clients that go or dawdle, models replaced under load, an hour of everything."""
import json
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from bench_base import TREE, Failed, Skipped
from bench_serving import Server, llama, load, ours, q4_0

PORT = 18620


def http(server, method, path, body=None, key=None, timeout=120):
    """Status and JSON (or text) of one request."""
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def metrics(server, key=None):
    """Sums by the name of a metric."""
    out = {}
    for line in http(server, "GET", "/metrics", key=key)[1].splitlines():
        if not line.startswith("#"):
            name, value = re.match(r"([^{ ]+)(?:{.*})? (\S+)", line).groups()
            out[name] = out.get(name, 0) + float(value)
    return out


def descriptors(server):
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@contextmanager
def scratch():
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as directory:
        yield Path(directory)


class Served:
    """A server of a file of settings with keys, labels, vectors and text; replaced packages and adapters are at hand."""

    def __init__(self, bench, directory, settings="", keyed=True):
        self.bench, self.directory, self.data = bench, directory, directory / "data"
        self.tailor = bench.build / "bin" / "tailor"
        self.adapters = directory / "adapters"
        bench.run([bench.program("make_adapters"), q4_0(bench), self.adapters, 2], quiet=True)
        example = [TREE / "examples/estate-agency/inquiries.csv", "--text", "message", "--label", "intent", "--method", "features"]
        for seed in range(2):
            bench.fit(f"labels-{seed}", example, "4m", seed)
            package = bench.out / f"fit-labels-{seed}" / "package"
            bench.run([self.tailor, "packages", "add", package, "--name", "support", "--data", self.data, *(["--promote"] if seed == 0 else [])], quiet=True)
        self.key = keyed and bench.run([self.tailor, "keys", "create", "--name", "load", "--scope", "infer,admin,metrics", "--data", self.data], quiet=True).strip()
        (directory / "serve.yaml").write_text(f"""listen: 127.0.0.1:{PORT}
data: {self.data}
adapters_root: {self.adapters}
models:
  - {{name: small, model: {q4_0(bench)}, adapters: [{{name: polite, path: {self.adapters / 'adapter-0.gguf'}}}]}}
  - {{name: support, stored: support}}
{settings}""")

    def server(self):
        return Server([self.tailor, "serve", "--config", self.directory / "serve.yaml", "--no-request-log"], PORT, self.bench.out / "chaos.log", path="/livez")

    def models(self):
        return ["--chat-models", "small,polite", "--label-model", "support", "--vector-model", "small", *(["--key", self.key] if self.key else [])]


def storm(bench, server, more, quiet=False):
    line = bench.run([bench.program("serve_storm"), server.port, *more], quiet=True, accept=(0, 1))
    result = json.loads(line)
    if not quiet:
        print(f"  {result['good']} good ({result['good_per_second']:.1f}/s, {result['tokens_per_second']:.1f} tokens/s), {result['refused']} refused, "
              f"{result['late']} late, {result['aborted']} aborted, {result['failed']} failed {result['failure'][:300]}", flush=True)
    return result


def overload(bench):
    """Four times as many requests as can be answered: goodput beside the peak, and how soon and how the others are refused."""
    model = q4_0(bench)
    with scratch() as directory:
        config = directory / "serve.yaml"
        config.write_text(f"listen: 127.0.0.1:{PORT}\ndata: {directory}/data\nmodels: [{{name: small, model: {model}}}]\n"
                          f"limits: {{connections_per_address: 4096, waiting_time: {'1s' if bench.smoke else '30s'}}}\n")
        command = [bench.build / "bin" / "tailor", "serve", "--config", config, "--no-request-log"]
        small = ["--shared", 20, "--own", 10, "--answer", 8] if bench.smoke else []
        span = ["--seconds", 3, "--warm", 1] if bench.smoke else ["--seconds", 60, "--warm", 30]
        peak = None
        with Server(command, PORT, bench.out / "overload.log") as server:
            for at_once in (8,) if bench.smoke else (16, 64, 128, 256):
                found = storm(bench, server, ["--at-once", at_once, *span, *small])
                peak = max(peak or found, found, key=lambda r: r["tokens_per_second"])
            rate = 4 * peak["good_per_second"]
            deadline = 20 if bench.smoke else 60
            span = ["--seconds", 6, "--warm", 3] if bench.smoke else ["--seconds", 120, "--warm", 75]
            got = storm(bench, server, ["--rate", rate, "--deadline", deadline, "--addresses", 64, *span, *small])
            after = metrics(server)
    share = got["tokens_per_second"] / peak["tokens_per_second"]
    print(f"  => peak {peak['tokens_per_second']:.1f} tokens/s; at {rate:.1f} requests/s, each given up after {deadline} s: {got['tokens_per_second']:.1f} tokens/s "
          f"({share:.2f} x the peak), late {got['late']}; refused {got['refused']}: p50 {got['refusal_p50_ms']:.1f} ms, p95 {got['refusal_p95_ms']:.1f} ms, "
          f"most {got['refusal_max_ms']:.1f} ms, {got['refused_with_retry_after']} with Retry-After ({got['retry_after_least']} to {got['retry_after_most']} s); "
          f"answers {got['statuses']}; drained at {after['tailor_drain_tokens_per_second']:.0f} estimated tokens/s", flush=True)
    if got["refused_with_retry_after"] != got["refused"]:
        raise Failed("a refusal without Retry-After")


def settled(server, key):
    """Waits until nothing runs; what is held then."""
    for _ in range(300):
        now = metrics(server, key)
        if now["tailor_requests_running"] + now["tailor_requests_waiting"] + now["tailor_texts_waiting"] == 0 and now["tailor_http_connections"] <= 1:
            break
        time.sleep(0.1)
    resident, anonymous = server.memory()
    return {"descriptors": descriptors(server), "running": now["tailor_requests_running"], "waiting": now["tailor_requests_waiting"] + now["tailor_texts_waiting"],
            "connections": now["tailor_http_connections"], "resident": resident, "anonymous": anonymous, "kept": now["tailor_kept_prefix_bytes"] + now["tailor_kv_cache_bytes"]}


def aborts(bench):
    """10,000 clients that go at a random byte of their request or its answer, in five rounds: what each leaves behind."""
    rounds, many = (2, 150) if bench.smoke else (5, 2000)
    with scratch() as directory:
        served = Served(bench, directory)
        mix = ["--at-once", 16, "--seconds", 3600, "--shared", 100, "--own", 20, "--answer", 32,
               "--mix", "chat=4,whole=2,completion=1,classify=2,embeddings=2,models=1", *served.models()]
        with served.server() as server:
            storm(bench, server, [*mix, "--aborts", many // 3])
            found, failed = [settled(server, served.key)], 0
            print(f"  before: {left(found[0])}", flush=True)
            for seed in range(rounds):
                failed += storm(bench, server, [*mix, "--aborts", many, "--seed", seed + 2])["failed"]
                found.append(settled(server, served.key))
                print(f"  after {(seed + 1) * many}: {left(found[-1])}", flush=True)
            health = storm(bench, server, [*mix, "--requests", 20], quiet=True)
    grown = others(found[-1]) - others(found[-2])
    print(f"  => {rounds * many} aborts: descriptors {found[-1]['descriptors'] - found[0]['descriptors']:+d}, memory but for keys and values {grown / 1e6:+.1f} MB "
          f"in the last round; {failed} failed; 20 requests afterwards: {health['good']} good", flush=True)
    if any(f["running"] or f["waiting"] or f["descriptors"] > found[0]["descriptors"] for f in found) or failed or health["failed"]:
        raise Failed("something was left behind, or failed")
    if not bench.smoke and grown > 0.02 * others(found[-2]):
        raise Failed("memory still grows")


def others(found):
    """Resident memory without keys and values, which have budgets (a lane's grow by doubling)."""
    return found["resident"] - found["kept"]


def left(found):
    return (f"{found['descriptors']} descriptors, {found['running']:.0f} running, {found['waiting']:.0f} waiting, {found['resident'] / 1e6:.0f} MB resident, "
            f"{others(found) / 1e6:.0f} MB without {found['kept'] / 1e6:.0f} MB of keys and values")


def slow_clients(bench):
    """1,000 slow connections of slowhttptest (heads, bodies, reading): the p99 of clients that are not slow."""
    count = 100 if bench.smoke else 1000
    with scratch() as directory:
        served = Served(bench, directory, "limits: {connections_per_address: 4096}\n", keyed=False)
        healthy = ["--at-once", 4, "--seconds", 2 if bench.smoke else 6, "--mix", "models=1,classify=1", "--own", 12, *served.models()]
        with served.server() as server:
            url = f"http://127.0.0.1:{server.port}"
            storm(bench, server, healthy, quiet=True)
            before = storm(bench, server, healthy)
            slow = {"heads": ["-H", "-u", url + "/v1/models"], "bodies": ["-B", "-s", "8192", "-f", "application/json", "-u", url + "/v1/classify"],
                    "reading": ["-X", "-k", "8", "-w", "1", "-y", "2", "-z", "1", "-n", "3", "-u", url + "/openapi.json"]}
            for name, more in slow.items():
                command = ["slowhttptest", "-c", count, "-r", count, "-l", 20, "-i", 3, "-p", 5, *more]
                try:
                    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                except FileNotFoundError as error:
                    raise Skipped("slowhttptest is not installed") from error
                try:
                    opened = 0
                    for _ in range(50):
                        opened = max(opened, metrics(server)["tailor_http_connections"])
                        if opened >= 0.95 * count:
                            break
                        time.sleep(0.05)
                    during = storm(bench, server, healthy)
                    left = metrics(server)["tailor_http_connections"]
                finally:
                    process.terminate()
                    process.wait()
                ratios = ", ".join(f"{kind} p99 {before['kinds'][kind]['p99_ms']:.2f} -> {during['kinds'][kind]['p99_ms']:.2f} ms" for kind in before["kinds"])
                print(f"  => slow {name}: {opened:.0f} connections open, {left:.0f} at the end; {ratios}; failed {during['failed']}", flush=True)
                if during["failed"]:
                    raise Failed("a healthy client's request failed")


class Swapper:
    """Replaces packages and an adapter of a server, each time by the next of three ways, until it is told to stop."""

    def __init__(self, served, server, pause=0.0, most=None):
        self.served, self.server, self.pause, self.most = served, server, pause, most
        self.seconds, self.failed = [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()

    def version(self):
        models = http(self.server, "GET", "/v1/models", key=self.served.key)[1]["data"]
        return str(next(m for m in models if m["id"] == "support")["meta"]["version"])

    def ask(self, path, body):
        status, answer = http(self.server, "POST", path, body, self.served.key)
        if status != 200:
            raise Failed(f"{path}: {status} {answer}")

    def promote(self, version):
        subprocess.run([self.served.tailor, "packages", "promote", "support", version, "--data", self.served.data], check=True, stdout=subprocess.DEVNULL)
        self.server.process.send_signal(signal.SIGHUP)
        for _ in range(1200):
            if self.version() == version:
                return
            time.sleep(0.05)
        raise Failed(f"version {version} was not taken up")

    def swap(self, number):
        which = number // 3 % 2
        if number % 3 == 0:
            self.ask("/v1/admin/models", {"name": "support", "package": f"support@{which + 1}"})
            self.ask("/v1/admin/models", {"name": "support", "package": "support"})  # in production, which is followed
        elif number % 3 == 1:
            self.promote("21"[which])
        else:
            self.ask("/v1/load_lora_adapter", {"lora_name": "polite", "lora_path": f"adapter-{1 - which}.gguf", "base_model_name": "small", "load_inplace": True})

    def run(self):
        number = 0
        while not self.stopping.wait(self.pause) and (self.most is None or number < self.most):
            begin = time.monotonic()
            try:
                self.swap(number)
            except (Failed, OSError, subprocess.CalledProcessError) as error:
                self.failed.append(repr(error))
            self.seconds.append(time.monotonic() - begin)
            number += 1


def swap(bench):
    """Packages and adapters replaced under load, over HTTP and by promoting with SIGHUP: not one request may fail."""
    many = 6 if bench.smoke else 60
    with scratch() as directory:
        served = Served(bench, directory)
        with served.server() as server:
            with Swapper(served, server, most=many) as swapper:
                results = []
                while swapper.thread.is_alive() or not results:
                    results.append(storm(bench, server, ["--at-once", 8, "--seconds", 3 if bench.smoke else 20, "--shared", 50, "--own", 20, "--answer", 24,
                                                         "--mix", "chat=3,whole=1,classify=4,embeddings=1,models=1", *served.models()]))
    failed = sum(r["failed"] + r["refused"] + r["late"] for r in results)
    print(f"  => {len(swapper.seconds)} replacements, {statistics.median(swapper.seconds):.2f} s each, {len(swapper.failed)} failed {swapper.failed[:2]}; "
          f"{sum(r['good'] for r in results)} requests meanwhile, {failed} failed", flush=True)
    if failed or swapper.failed:
        raise Failed("a request or a replacement failed")


def adapters(bench):
    """Chats that each name one of eight adapters; peer: llama-server with the same files, chosen for each request."""
    model, count = q4_0(bench), 2 if bench.smoke else 8
    directory = bench.out / "adapters"
    bench.run([bench.program("make_adapters"), model, directory, count], quiet=True)
    files = [directory / f"adapter-{i}.gguf" for i in range(count)]
    names = [f"a{i}" for i in range(count)]
    for n, requests in ((2, 4),) if bench.smoke else ((16, 64), (64, 128)):
        mine, peers = [], []
        for _ in range(1 if bench.smoke else 2):
            with ours(bench, model, more=[x for name, file in zip(names, files) for x in ("--adapter", f"{name}={file}")]) as server:
                mine.append(load(bench, server, n, requests, ["--models", ",".join(names)]))
            if bench.smoke:
                return
            loras = [x for file in files for x in ("--lora", file)]
            for more in (["-c", n * 1024], ["-c", n * 1024, "--kv-unified"]):
                with llama(bench, model, n, [*more, *loras, "--lora-init-without-apply"]) as server:
                    peers.append(load(bench, server, n, requests, ["--lora-count", ",".join(str(i) for i in range(count))]))
        ratio = max(m["tokens_per_second"] for m in mine) / max(p["tokens_per_second"] for p in peers)
        print(f"  => {n} chats over {count} adapters: {ratio:.2f} x llama-server's best tokens/s", flush=True)


def prefix(bench):
    """16 chats at once with 1,000 words in common, to a server that has not seen them: tokens of prompts that were computed; peer: llama-server."""
    n, shared = (4, 200) if bench.smoke else (16, 1000)
    model, own = q4_0(bench), 20

    def run(server):
        line = bench.run([bench.program("serve_load"), server.port, "--chats", n, "--requests", n, "--shared", shared, "--own", own, "--answer", 8, "--warm", 0], quiet=True)
        r = json.loads(line)
        computed = r["prompt_tokens"] - r["cached_tokens"]
        least = shared + n * (r["prompt_tokens"] / n - shared)
        print(f"  prompts {r['prompt_tokens']} tokens, of these computed {computed} (once what is shared, and the rest: about {least:.0f}); "
              f"first token p95 {r['first_token_p95_ms']:.0f} ms, all after {r['seconds']:.1f} s", flush=True)
        return computed

    with ours(bench, model) as server:
        mine = run(server)
    if not bench.smoke:
        with llama(bench, model, n, ["-c", n * 2048]) as server:
            print(f"  => {mine} tokens beside llama-server's {run(server)}", flush=True)


def slope(values):
    """Of a line through values at 0, 1, 2, …, by least squares."""
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    return sum((i - middle) * (v - mean) for i, v in enumerate(values)) / max(1e-9, sum((i - middle) ** 2 for i in range(n)))


def soak(bench):
    """Everything at once for --minutes: chats, texts, labels, vectors, clients that go, replacements; memory, descriptors and throughput a minute."""
    minutes, span = (3, 4) if bench.smoke else (bench.minutes, 60)
    with scratch() as directory:
        served = Served(bench, directory)
        command = [bench.program("serve_storm"), PORT, "--at-once", 12, "--seconds", minutes * span, "--every", span, "--abort-share", 0.1, "--shared", 100, "--own", 20,
                   "--answer", 32, "--mix", "chat=4,whole=2,completion=2,classify=3,embeddings=2,models=1", *served.models()]
        rows = []
        with served.server() as server, Swapper(served, server, pause=span / 4) as swapper:
            process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
            try:
                for line in process.stdout:
                    r = json.loads(line)
                    if len(rows) == minutes:
                        break
                    resident, anonymous = server.memory()
                    told = metrics(server, served.key)
                    caches = told["tailor_kv_cache_bytes"] + told["tailor_kept_prefix_bytes"]  # these have their own bounds, and grow when there is use for them
                    rows.append({"good": r["good_per_second"], "tokens": r["tokens_per_second"], "resident": resident / 1e6, "anonymous": anonymous / 1e6, "beside": (anonymous - caches) / 1e6,
                                 "descriptors": descriptors(server), "failed": r["failed"] + r["refused"] + r["late"]})
                    print(f"  {len(rows):3d}: {r['good_per_second']:.1f} good/s, {r['tokens_per_second']:.1f} tokens/s, {r['aborted']} aborted, {rows[-1]['failed']} failed "
                          f"{r['failure'][:200]}; {resident / 1e6:.0f} MB resident, {anonymous / 1e6:.0f} MB anonymous, {rows[-1]['beside']:.0f} beside caches, {rows[-1]['descriptors']} descriptors", flush=True)
            finally:
                process.terminate()
                process.wait()
    late = rows[len(rows) // 4:]  # after the first quarter, in which caches fill
    change = {key: 100 * slope([r[key] for r in late]) * len(late) / max(1e-9, statistics.mean(r[key] for r in late)) for key in ("resident", "anonymous", "beside", "tokens", "descriptors")}
    failed = sum(r["failed"] for r in rows)
    print(f"  => after the first quarter resident memory {change['resident']:+.1f} %, anonymous {change['anonymous']:+.1f} %, beside keys and values {change['beside']:+.1f} %, tokens/s {change['tokens']:+.1f} %, "
          f"descriptors {change['descriptors']:+.1f} %; {len(swapper.seconds)} replacements, {len(swapper.failed)} failed {swapper.failed[:2]}; {failed} requests failed", flush=True)
    if failed or swapper.failed:
        raise Failed("a request or a replacement failed")
    if not bench.smoke and (change["beside"] > 5 or change["tokens"] < -10):
        raise Failed("memory or throughput is not flat")


PARTS = {"overload": overload, "aborts": aborts, "slow-clients": slow_clients, "swap": swap, "adapters": adapters, "prefix": prefix, "soak": soak}
SMOKE = tuple(PARTS)
