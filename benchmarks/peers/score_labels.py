"""The usual evaluation-harness way of scoring labels: prompt + label decoded once per label, F32, batches of 16.

Run:    python score_labels.py --model DIR --gguf FILE --labels labels.json --texts texts.txt --limit 4 --threads 2
Prints one JSON line. Examples per CPU-second is what bench_score_labels prints.
"""

import argparse
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


@torch.no_grad()
def score(model, tokenizer, prompt, labels, batch_size):
    """log p(label | prompt) of each label, longest first so that padding is small."""
    context = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    requests = []
    for i, label in enumerate(labels):
        whole = tokenizer(prompt + " " + label, add_special_tokens=False)["input_ids"]
        requests.append((i, whole, len(whole) - len(context)))
    requests.sort(key=lambda r: -len(r[1]))
    scores = [0.0] * len(labels)
    for first in range(0, len(requests), batch_size):
        batch = requests[first:first + batch_size]
        longest = max(len(r[1]) for r in batch) - 1
        inputs = torch.zeros(len(batch), longest, dtype=torch.long)
        mask = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, (_, whole, _) in enumerate(batch):
            inputs[row, :len(whole) - 1] = torch.tensor(whole[:-1])
            mask[row, :len(whole) - 1] = 1
        log_p = torch.log_softmax(model(inputs, attention_mask=mask).logits, dim=-1)
        for row, (i, whole, n) in enumerate(batch):
            at = torch.arange(len(whole) - 1 - n, len(whole) - 1)
            scores[i] = log_p[row, at, torch.tensor(whole[-n:])].sum().item()
    return scores


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--gguf", default=None)
    parser.add_argument("--labels", required=True)
    parser.add_argument("--texts", required=True)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--scores", help="write the scores as JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    extra = {"gguf_file": args.gguf} if args.gguf else {}
    tokenizer = AutoTokenizer.from_pretrained(args.model, **extra)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, **extra).eval()
    labels = [label.replace("_", " ") for label in json.load(open(args.labels))]
    texts = [line.rstrip("\n") for line in open(args.texts)][:args.limit]
    prompts = [f"Classify the customer's message.\nMessage: {' '.join(t.split())}\nLabel:" for t in texts]
    score(model, tokenizer, prompts[0], labels[:16], args.batch_size)  # warm-up
    cpu, wall = cpu_seconds(), time.time()
    scores = [score(model, tokenizer, p, labels, args.batch_size) for p in prompts]
    cpu, wall = cpu_seconds() - cpu, time.time() - wall
    print(json.dumps({"examples": len(texts), "labels": len(labels), "cpu_seconds": round(cpu, 3), "wall_seconds": round(wall, 3),
                      "examples_per_cpu_second": round(len(texts) / cpu, 4)}))
    if args.scores:
        json.dump(scores, open(args.scores, "w"))


if __name__ == "__main__":
    main()
