"""The parts of scripts/bench.py that train, or prepare it: speed beside a peer, the roof of the machine, the way from texts to tokens."""
import contextlib
import json
import os
import shutil

from bench_base import MINILM, PEERS, SMOLLM2, THREADS, Failed, Skipped

PROFILE = "TAILOR_TUNE_PROFILE"
LONG = 512            # tokens of a packed row
MANY_ROWS = 1_000_000


def tokens_of(bench, sort, rows):
    """The token file of a training, made once."""
    model = MINILM if sort.startswith("encoder") else SMOLLM2.parent
    data = bench.data / ("docs_18f_handbook" if sort.startswith("long") else "banking77")
    if not data.is_dir():
        raise Skipped(f"{data} is not there")
    tokens = bench.out / f"{sort}-{rows}.safetensors"
    if not tokens.exists():
        bench.run([bench.python, PEERS / "tune.py", "tokens", sort, data, model, tokens, rows])
    return tokens


@contextlib.contextmanager
def environment(**values):
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def ours(bench, name, sort, method, steps, tokens, batch, **settings):
    """result.json of a training by tailor-tune."""
    program = bench.build / "bin" / "tailor-tune"
    if not program.exists():
        raise Skipped("tailor-tune is not built")
    encoder, out = sort.startswith("encoder"), bench.out / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    rate = 2e-4 if "lora" in method else 2e-5
    heads = {} if not encoder else {"dropout": 0} if method == "contrastive" else {"head_learning_rate": rate, "dropout": 0}
    task = "sequence-classification" if encoder else "causal-lm" if sort.startswith("long") else "causal-lm-labels"
    job = {"format": "tailor-tune-job", "version": 1, "method": method, "task": task, "base": str(MINILM if encoder else SMOLLM2),
           "tokens": str(tokens), "out": str(out), "seed": 0, "threads": int(THREADS), "evaluate_every_epochs": 0,
           "settings": {"max_steps": steps, "batch_size": batch, "learning_rate": rate, "schedule": "constant", "warmup_ratio": 0,
                        "weight_decay": 0.01, **heads, **settings}}
    (out / "job.json").write_text(json.dumps(job, indent=1))
    bench.run([program, out / "job.json"], quiet=True)
    return json.loads((out / "result.json").read_text())


def theirs(bench, sort, method, tokens, steps, batch):
    """The line that transformers and PEFT print for the same training."""
    model = MINILM if sort == "encoder" else SMOLLM2.parent
    return json.loads(bench.run([bench.python, PEERS / "tune.py", "train", method, model, tokens, steps, batch, THREADS], quiet=True))


def apart(mine, peers):
    return max(abs(a - b) for a, b in zip(mine["losses"], peers["losses"]))


def needs_peers(bench):
    if bench.smoke:
        raise Skipped("its rows are made by the peer's tokenizer (`make peers`, then `make bench`)")


def train(bench, name, sort, method, steps, peer_steps, rows, batch, peer_method=None, **settings):
    """A training by tailor-tune and by the peer on the same rows in the same order; their figures, examples a CPU-second."""
    needs_peers(bench)
    tokens = tokens_of(bench, sort, rows)
    mine = ours(bench, name, sort, method, steps, tokens, batch, **settings)
    peer = theirs(bench, sort, peer_method or method, tokens, peer_steps, batch)
    speed = mine["examples"] / mine["process_cpu_seconds" if method == "head" else "cpu_seconds"]
    print(f"  {name}: {speed:.2f} examples a CPU second, {mine['peak_memory_bytes'] / 2**20:.0f} MB; peer {peer['examples_per_cpu_second']:.2f}, "
          f"{peer['peak_mb']:.0f} MB => {speed / peer['examples_per_cpu_second']:.2f} x, {mine['peak_memory_bytes'] / 2**20 / peer['peak_mb']:.2f} "
          f"of the memory; losses at most {apart(mine, peer):.1e} apart", flush=True)
    return mine, peer


def peak(bench):
    """GFLOPS of large f32 products by the libtorch that tailor-tune links: on the clock, and a CPU second."""
    found = json.loads(bench.run([bench.program("gemm_peak"), "--threads", THREADS], quiet=True))
    print(f"  f32 products of {found['size']} x {found['size']}: {found['gflops']:.0f} GFLOPS on {THREADS} threads, "
          f"{found['gflops_per_cpu_second']:.0f} a CPU second", flush=True)
    return found


def show_roofline(name, result, roof):
    profile, steps = result["profile"], result["profile"]["steps"]
    kernels = profile["kernels"]
    flops, moved = (sum(k[what] for k in kernels.values()) for what in ("flops", "bytes"))
    a_second = flops / 1e9 / profile["seconds"]
    a_cpu_second = flops / 1e9 / result["cpu_seconds"]
    print(f"  {name}: {flops / steps / 1e9:.1f} GFLOP and {moved / steps / 2**20:.0f} MB a step; {a_second:.1f} GFLOPS = "
          f"{a_second / roof['gflops']:.0%} of the peak; {a_cpu_second:.1f} a CPU second = {a_cpu_second / roof['gflops_per_cpu_second']:.0%}")
    rest = profile["seconds"] - sum(k["seconds"] for k in kernels.values())
    for kernel, k in sorted(kernels.items(), key=lambda item: -item[1]["seconds"]):
        seconds = max(k["seconds"], 1e-9)
        print(f"    {kernel:<20} {k['seconds'] / profile['seconds']:6.1%} of the time, {k['flops'] / flops:6.1%} of the FLOPs, "
              f"{k['flops'] / 1e9 / seconds:6.1f} GFLOPS, {k['bytes'] / 1e9 / seconds:5.1f} GB/s, {k['calls'] // steps} calls a step")
    print(f"    {'all else':<20} {rest / profile['seconds']:6.1%}")


def order_of(bench, tokens, steps, batch):
    """The rows that a training of so many steps reads, in order, their tokens, and the same padded."""
    return json.loads(bench.run([bench.python, PEERS / "tune.py", "order", tokens, steps, batch], quiet=True))


def show_avoided(bench, name, tokens, result, steps, batch):
    padded = order_of(bench, tokens, steps, batch)
    print(f"  {name}: rows have {padded['tokens']} tokens, {result['computed_tokens']} are computed ({result['computed_tokens'] / padded['tokens']:.0%}); "
          f"padded to the longest of a batch they are {padded['padded']} ({padded['padded'] / padded['tokens']:.0%})", flush=True)


def roofline(bench):
    """FLOPs, bytes and time of a training step by kernel, against the machine's own f32 products; tokens that are not computed."""
    needs_peers(bench)
    roof = peak(bench)
    with environment(**{PROFILE: "1"}):
        for name, sort, method, steps, rows, batch in (("roofline-smollm2-lora", "decoder", "lora", 24, 1200, 8),
                                                       ("roofline-smollm2-full", "decoder", "full", 12, 1200, 8),
                                                       ("roofline-minilm-full", "encoder", "full", 60, 10000, 32)):
            tokens = tokens_of(bench, sort, rows)
            result = ours(bench, name, sort, method, steps, tokens, batch)
            show_roofline(name, result, roof)
            show_avoided(bench, name, tokens, result, steps, batch)
    again = peak(bench)
    if abs(again["gflops"] / roof["gflops"] - 1) > 0.1:
        print("  the peak moved by more than a tenth: something else runs on this machine")


def long_rows(bench):
    """LoRA of SmolLM2-135M on packed rows of 512 tokens without a shared prefix, batch 4; peer: transformers + PEFT."""
    needs_peers(bench)
    roof = peak(bench)
    with environment(**{PROFILE: "1"}):
        mine, peer = train(bench, "long-lora", f"long-{LONG}", "lora", 6, 5, 64, 4)
    share = peer["gflop_a_step"] / peer["cpu_seconds_a_step"] / roof["gflops_per_cpu_second"]
    print(f"  the peer computes {peer['gflop_a_step']:.0f} GFLOP a step at {share:.0%} of the peak a CPU second")
    show_roofline("ours", mine, roof)


def llama_finetune(bench):
    """Full tuning of SmolLM2-135M, a step for every row of 512 tokens, all of them predicted; peer: llama.cpp's own training."""
    needs_peers(bench)
    steps, tokens = 6, tokens_of(bench, f"long-{LONG + 1}", 64)
    mine = ours(bench, "finetune-full", "long", "full", steps, tokens, 1)
    order = order_of(bench, tokens, steps, 1)["order"]
    peer = json.loads(bench.run([bench.program("llama_finetune"), "--model", SMOLLM2, "--tokens", tokens, "--work", bench.out, "--threads", THREADS,
                                 "--order", *order], quiet=True))
    speed = steps * LONG / mine["cpu_seconds"]
    print(f"  finetune-full: {speed:.1f} tokens a CPU second, {mine['peak_memory_bytes'] / 2**20:.0f} MB; llama.cpp {peer['tokens_per_cpu_second']:.1f}, "
          f"{peer['peak_mb']:.0f} MB => {speed / peer['tokens_per_cpu_second']:.2f} x; losses at most {apart(mine, peer):.1e} apart", flush=True)


# Method, batch, steps, settings: as many steps as show the time of later epochs where it differs.
ESTIMATED = {
    "encoder-held": [(method, batch, steps, {}) for method in ("full", "lora", "contrastive") for batch, steps in ((8, 60), (32, 40), (128, 20))] + [
        (method, 32, 40, {}) for method in ("dora", "bitfit", "ia3", "adapter-houlsby")] + [("upper-layers", 32, 80, {}), ("head", 32, 400, {})],
    "decoder-held": [("lora", batch, 20, {}) for batch in (1, 4, 8, 16)] + [
        ("lora", 16, 16, {"micro_batch_tokens": 160}), ("lora", 8, 20, {"lora": {"r": 64}}), ("upper-layers", 8, 72, {}), ("full", 8, 14, {})] + [
        (method, 8, 16, {}) for method in ("qlora", "dora", "pissa", "layernorm", "ia3", "adapter-pfeiffer", "prompt-tuning")]}


def estimates(bench):
    """What tailor-tune says of memory before the first step and of time after ten, beside what thirty trainings take."""
    needs_peers(bench)
    off = []
    for sort, runs in ESTIMATED.items():
        tokens = tokens_of(bench, sort, 1000 if sort.startswith("encoder") else 240)
        for method, batch, steps, settings in runs:
            result = ours(bench, "estimates", sort, method, steps, tokens, batch, **settings)
            said = result["estimates"]
            memory = said["peak_memory_bytes"] / result["peak_memory_bytes"] - 1
            time = said["training_seconds"] / result["wall_seconds"] - 1
            off.append((memory, time))
            print(f"  {sort.split('-')[0]} {method} batch {batch} {settings or ''}: {result['peak_memory_bytes'] / 2**20:.0f} MB, said {memory:+.1%}; "
                  f"{result['wall_seconds']:.1f} s, said {time:+.1%}", flush=True)
    print(f"  {len(off)} trainings: memory {min(m for m, _ in off):+.1%} to {max(m for m, _ in off):+.1%} (wanted 0 to +10 %: "
          f"{sum(0 <= m <= 0.1 for m, _ in off)}), time {min(t for _, t in off):+.1%} to {max(t for _, t in off):+.1%} (wanted -20 to +20 %: "
          f"{sum(abs(t) <= 0.2 for _, t in off)})", flush=True)


def many_rows(bench, n):
    """`n` short rows: Banking77's texts again and again, with one word replaced and, in every tenth, a number that is new."""
    path = bench.out / f"rows-{n}.tsv"
    if path.exists():
        return path
    rows = bench.rows()
    labels = {label: i for i, label in enumerate(sorted({label for _, label in rows}))}
    words = sorted({word for text, _ in rows for word in text.split()})
    with open(path, "w", encoding="utf-8") as file:
        for i in range(n):
            text, label = rows[i % len(rows)]
            if i >= len(rows):
                parts = text.split()
                parts[i % len(parts)] = words[i * 2654435761 % len(words)]
                text = " ".join(parts) + (f" {i:07d}" if i % 10 == 0 else "")
            file.write(f"{labels[label]}\t{text}\n")
    return path


def tokenise(bench):
    """Short labelled rows to the file that training reads; peer: `datasets` map with a fast tokenizer, in its faster setting."""
    count = 2000 if bench.smoke else MANY_ROWS
    labels = bench.out / "labels.json"
    labels.write_text(json.dumps(sorted({label for _, label in bench.rows()})))
    encoder = ("MiniLM", ["--model", bench.imported("all-minilm-l6-v2", "f16")], ["--tokenizer", MINILM])
    decoder = ("SmolLM2 prompts", ["--model", SMOLLM2, "--labels", labels], ["--tokenizer", SMOLLM2.parent, "--gguf", SMOLLM2.name])
    for name, model, peer_model in (encoder, decoder):
        figures = {}
        for n in (count // 4, count):
            rows, out = many_rows(bench, n), bench.out / "tokenised.safetensors"
            figures[n] = json.loads(bench.run([bench.program("tokenise_rows"), *model, "--rows", rows, "--out", out, "--threads", THREADS], quiet=True))
        mine = figures[count]
        print(f"  {name}: {mine['rows_per_second']:.0f} rows a second, {mine['rows_per_cpu_second']:.0f} a CPU second; memory beyond the model: "
              f"{figures[count // 4]['memory_mb']:.1f} MB for {count // 4} rows, {mine['memory_mb']:.1f} MB for {count}", flush=True)
        if bench.smoke:
            continue
        peers = []
        for processes in (0, 2):
            line = bench.run([bench.python, PEERS / "tokenise_rows.py", *peer_model, "--rows", many_rows(bench, count), "--out", bench.out / "arrow",
                              "--processes", processes, "--compare", bench.out / "tokenised.safetensors"], quiet=True)
            peers.append(json.loads(line))
            print(f"    datasets, {processes or 'no'} processes: {peers[-1]['rows_per_second']} rows a second, {peers[-1]['rows_per_cpu_second']} a CPU second, "
                  f"{peers[-1]['differing']} of {count} rows differ", flush=True)
        print(f"  => {mine['rows_per_second'] / max(p['rows_per_second'] for p in peers):.1f} x on the clock, "
              f"{mine['rows_per_cpu_second'] / max(p['rows_per_cpu_second'] for p in peers):.1f} x a CPU second", flush=True)
        if any(p["differing"] for p in peers):
            raise Failed("the tokens differ from the peer's")
