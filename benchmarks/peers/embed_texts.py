"""Texts embedded per CPU-second by sentence-transformers (PyTorch), its own length sorting on.

Run:    python embed_texts.py --model DIR --texts texts.txt --limit 2000 --threads 1
Prints one JSON line; what bench_embed_texts prints, for the peer.
"""

import argparse
import json
import resource
import time

import numpy as np
import torch
from sentence_transformers import SentenceTransformer


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compare", help="raw f32 vectors of bench_embed_texts: the lowest cosine is printed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = SentenceTransformer(args.model, device="cpu")
    texts = [line.rstrip("\n") for line in open(args.texts)][:args.limit]
    model.encode(texts[:64])  # warm-up
    best, wall = float("inf"), 0.0
    for _ in range(args.repeats):
        cpu, start = cpu_seconds(), time.time()
        vectors = model.encode(texts, batch_size=args.batch_size, normalize_embeddings=True)
        cpu, seconds = cpu_seconds() - cpu, time.time() - start
        if cpu < best:
            best, wall = cpu, seconds
    result = {"texts": len(texts), "cpu_seconds": round(best, 3), "wall_seconds": round(wall, 3), "texts_per_cpu_second": round(len(texts) / best, 1)}
    if args.compare:
        other = np.fromfile(args.compare, dtype=np.float32).reshape(vectors.shape)
        result["lowest_cosine"] = round(float((other * vectors).sum(1).min()), 6)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
