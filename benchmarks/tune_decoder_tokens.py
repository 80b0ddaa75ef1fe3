"""Banking77 as "instruction, message, answer" in a token file, and what PEFT makes of the same rows.

    python benchmarks/tune_decoder_tokens.py tokens DATA_DIR MODEL_DIR OUT.safetensors [ROWS]
    python benchmarks/tune_decoder_tokens.py peft   DATA_DIR MODEL_DIR STEPS THREADS

`tokens` writes what bench_tune_decoder_lora reads. `peft` trains LoRA r=16 on all linear layers with transformers + PEFT
(padding to the longest row, SDPA) from the same first values of A, batch 8, and prints every loss. The rows stand in
the same order in both. Needs torch, transformers, peft, gguf, safetensors.
"""

import csv
import os
import random
import resource
import sys
import time

import numpy as np

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
BATCH = 8


def rows(data_dir):
    with open(os.path.join(data_dir, "train.csv"), newline="", encoding="utf-8") as f:
        examples = [(r["text"], r["label"]) for r in csv.DictReader(f)]
    labels = sorted({label for _, label in examples})
    random.seed(0)
    random.shuffle(examples)
    return examples, labels


def encode(tokenizer, text, label):
    prompt = tokenizer("Classify the intent of the customer message.\nMessage: " + text + "\nIntent:").input_ids
    return prompt, answer(tokenizer, label)


def answer(tokenizer, label):
    return tokenizer(" " + label).input_ids + [tokenizer.eos_token_id]


def write_tokens(data_dir, model_dir, out, n):
    from safetensors.numpy import save_file
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model_dir, gguf_file=GGUF)
    examples, labels = rows(data_dir)
    tokens, mask, offsets = [], [], [0]
    for text, label in examples[:n]:
        prompt, reply = encode(tokenizer, text, label)
        tokens += prompt + reply
        mask += [0] * len(prompt) + [1] * len(reply)
        offsets.append(len(tokens))
    count = len(offsets) - 1
    label_tokens, label_offsets = [], [0]
    for label in labels:
        label_tokens += answer(tokenizer, label)
        label_offsets.append(len(label_tokens))
    save_file({"tokens": np.array(tokens, np.int32), "offsets": np.array(offsets, np.int64),
               "labels": np.array([labels.index(l) for _, l in examples[:n]], np.int32),
               "parts": np.zeros(count, np.uint8), "row_ids": np.arange(count, dtype=np.int64),
               "loss_mask": np.array(mask, np.uint8), "label_tokens": np.array(label_tokens, np.int32),
               "label_offsets": np.array(label_offsets, np.int64)}, out,
              metadata={"format": "tailor-tokens", "version": "1", "n_labels": str(len(labels)),
                        "vocab_size": str(len(tokenizer))})
    print(f"{count} rows, {len(tokens)} tokens, mean {len(tokens) / count:.1f}")


def train_peft(data_dir, model_dir, steps, threads):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/golden"))
    from decoder_golden import MODULES, set_lora
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(model_dir, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(model_dir, gguf_file=GGUF, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    layers = model.config.num_hidden_layers
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM",
                                             target_modules=[p.split(".")[1] for _, p, _ in MODULES]))
    set_lora(model, 0, layers)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-4, weight_decay=0.01)
    data = [encode(tokenizer, *e) for e in rows(data_dir)[0][:steps * BATCH]]
    model.train()
    wall = cpu = None
    for step in range(steps):
        if step == 2:
            wall, cpu = time.perf_counter(), time.process_time()
        batch = data[step * BATCH:(step + 1) * BATCH]
        longest = max(len(p) + len(r) for p, r in batch)
        ids = torch.full((BATCH, longest), tokenizer.eos_token_id)
        labels = torch.full((BATCH, longest), -100)
        attention = torch.zeros((BATCH, longest), dtype=torch.long)
        for i, (p, r) in enumerate(batch):
            n = len(p) + len(r)
            ids[i, :n] = torch.tensor(p + r)
            labels[i, len(p):n] = torch.tensor(r)
            attention[i, :n] = 1
        loss = model(input_ids=ids, attention_mask=attention, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.6f}", flush=True)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = (steps - 2) * BATCH
    print(f"peft: {done / wall:.2f} examples/s, {done / cpu:.3f} examples/CPU-s, "
          f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1] == "tokens":
        write_tokens(*sys.argv[2:5], int(sys.argv[5]) if len(sys.argv) > 5 else None)
    else:
        train_peft(*sys.argv[2:4], int(sys.argv[4]), int(sys.argv[5]))
