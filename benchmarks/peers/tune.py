"""Training with transformers and PEFT on the rows, in the order and from the first values that tailor-tune has.

    python benchmarks/peers/tune.py tokens encoder[-held]|decoder[-held]|long-N DATA_DIR MODEL_DIR OUT.safetensors ROWS
    python benchmarks/peers/tune.py order TOKENS.safetensors STEPS BATCH
    python benchmarks/peers/tune.py train METHOD MODEL_DIR TOKENS.safetensors STEPS BATCH THREADS

`tokens`: Banking77's training rows as labelled texts (encoder) or as "instruction, message, answer" (decoder), in the
token file that tailor-tune reads (-held: rows of eight labels, a tenth of them each for validation and test); or (long-N) the documents of corpus.jsonl one after the other, cut into rows of N
tokens that are all learnt. `order`: the rows of so many steps, their tokens, and their tokens when a batch is padded to its
longest row. `train` pads to the longest row of a batch, attends with SDPA, and prints a line of
JSON; the first two steps are not timed. METHOD: full, upper-layers (two), head, lora (r = 16, all linear layers).
Needs torch, transformers, peft, gguf, safetensors.
"""

import csv
import json
import os
import random
import resource
import sys
import time
from pathlib import Path

import numpy as np

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WARM_UP = 2
UPPER = 2
PROMPT = "Classify the intent of the customer message.\nMessage: {}\nIntent:"


def tokenizer_of(sort, model_dir):
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(model_dir, **({} if sort.startswith("encoder") else {"gguf_file": GGUF}))


def write_tokens(sort, data_dir, model_dir, out, n):
    from safetensors.numpy import save_file
    tokenizer = tokenizer_of(sort, model_dir)
    with open(os.path.join(data_dir, "train.csv"), newline="", encoding="utf-8") as f:
        examples = [(r["text"], r["label"]) for r in csv.DictReader(f)]
    labels = sorted({label for _, label in examples})
    held = sort.endswith("-held")
    sort = sort.split("-")[0]
    if held:
        labels = labels[:8]
        examples = [example for example in examples if example[1] in labels]
    random.seed(0)
    random.shuffle(examples)
    answer = lambda label: tokenizer(" " + label).input_ids + [tokenizer.eos_token_id]
    tokens, mask, offsets = [], [], [0]
    for text, label in examples[:n]:
        if sort == "encoder":
            tokens += tokenizer(text).input_ids
        else:
            prompt, reply = tokenizer(PROMPT.format(text)).input_ids, answer(label)
            tokens += prompt + reply
            mask += [0] * len(prompt) + [1] * len(reply)
        offsets.append(len(tokens))
    count = len(offsets) - 1
    tensors = {"tokens": np.array(tokens, np.int32), "offsets": np.array(offsets, np.int64),
               "labels": np.array([labels.index(l) for _, l in examples[:n]], np.int32),
               "parts": np.array([{8: 1, 9: 2}.get(i % 10, 0) if held else 0 for i in range(count)], np.uint8), "row_ids": np.arange(count, dtype=np.int64)}
    if sort == "decoder":
        replies = [answer(label) for label in labels]
        tensors |= {"loss_mask": np.array(mask, np.uint8), "label_tokens": np.array(sum(replies, []), np.int32),
                    "label_offsets": np.cumsum([0] + [len(r) for r in replies])}
    save_file(tensors, out, metadata={"format": "tailor-tokens", "version": "1", "n_labels": str(len(labels)),
                                      "vocab_size": str(len(tokenizer))})
    print(f"{count} rows, {len(tokens)} tokens, mean {len(tokens) / count:.1f}")


def write_long(length, data_dir, model_dir, out, n):
    from safetensors.numpy import save_file
    tokenizer = tokenizer_of("decoder", model_dir)
    tokens = []
    with open(os.path.join(data_dir, "corpus.jsonl"), encoding="utf-8") as f:
        for line in f:
            tokens += tokenizer(json.loads(line)["text"]).input_ids + [tokenizer.eos_token_id]
            if len(tokens) >= n * length:
                break
    n = min(n, len(tokens) // length)
    save_file({"tokens": np.array(tokens[:n * length], np.int32), "offsets": np.arange(n + 1, dtype=np.int64) * length,
               "labels": np.full(n, -1, np.int32), "parts": np.zeros(n, np.uint8), "row_ids": np.arange(n, dtype=np.int64),
               "loss_mask": np.ones(n * length, np.uint8)}, out,
              metadata={"format": "tailor-tokens", "version": "1", "n_labels": "0", "vocab_size": str(len(tokenizer))})
    print(f"{n} rows of {length} tokens")


def golden():
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "golden"))


def order(file, steps, batch_size):
    from safetensors.numpy import load_file
    golden()
    from encoder_golden import batches
    lengths = np.diff(load_file(file)["offsets"])
    read = [[int(i) for i in batch] for batch in batches(len(lengths), 0, batch_size, steps)]
    print(json.dumps({"order": sum(read, []), "tokens": int(sum(lengths[b].sum() for b in read)),
                      "padded": int(sum(len(b) * lengths[b].max() for b in read))}))


def encoder_task(method, model_dir, tokens, labels):
    from transformers import AutoModel
    from encoder_golden import Classifier, LAYER, add_lora
    encoder = AutoModel.from_pretrained(model_dir, attn_implementation="sdpa")
    config = encoder.config
    for dropout in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(config, dropout, 0.0)
    encoder = AutoModel.from_pretrained(model_dir, config=config, attn_implementation="sdpa", add_pooling_layer=False)
    if method == "lora":
        encoder = add_lora(encoder, 0, 16, 32, [m for m in LAYER if "LayerNorm" not in m], config.num_hidden_layers)
    first = config.num_hidden_layers - UPPER
    for name, p in encoder.named_parameters():
        layer = int(name.split("layer.")[1].split(".")[0]) if "layer." in name else -1
        if method == "head" or (method == "upper-layers" and layer < first):
            p.requires_grad_(False)
    model = Classifier(encoder, config.hidden_size, int(labels.max()) + 1, 0)
    import torch
    return model, lambda batch: torch.nn.functional.cross_entropy(model([tokens[i] for i in batch]), torch.tensor(labels[batch].astype(np.int64)))


def decoder_task(method, model_dir, tokens, masks):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(model_dir, gguf_file=GGUF, dtype=torch.float32, attn_implementation="sdpa")
    model.config.use_cache = False
    layers = model.config.num_hidden_layers
    if method == "lora":
        from decoder_golden import MODULES, set_lora
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM",
                                                 target_modules=[p.split(".")[1] for _, p, _ in MODULES]))
        set_lora(model, 0, layers)
    if method == "upper-layers":
        for name, p in model.named_parameters():
            p.requires_grad_(".layers." in name and int(name.split(".layers.")[1].split(".")[0]) >= layers - UPPER)

    def loss(batch):
        longest = max(len(tokens[i]) for i in batch)
        ids, labels, attention = torch.zeros((3, len(batch), longest), dtype=torch.long)
        labels[:] = -100
        for at, i in enumerate(batch):
            n = len(tokens[i])
            ids[at, :n] = torch.tensor(tokens[i])
            labels[at, :n] = torch.where(torch.tensor(masks[i]) > 0, ids[at, :n], -100)
            attention[at, :n] = 1
        return model(input_ids=ids, attention_mask=attention, labels=labels).loss

    return model, loss


def train(method, model_dir, file, steps, batch_size, threads):
    import torch
    from safetensors.numpy import load_file
    golden()
    from encoder_golden import batches
    torch.set_num_threads(threads)
    data = load_file(file)
    split = lambda values: [values[a:b].tolist() for a, b in zip(data["offsets"], data["offsets"][1:])]
    tokens = split(data["tokens"])
    decoder = "loss_mask" in data
    model, loss_of = decoder_task(method, model_dir, tokens, split(data["loss_mask"])) if decoder else \
        encoder_task(method, model_dir, tokens, data["labels"])
    matrices = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    vectors = [p for p in model.parameters() if p.requires_grad and p.ndim == 1]
    rate = 2e-4 if method == "lora" else 2e-5
    optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}], lr=rate)
    model.train()
    losses, seen, wall, cpu = [], 0, 0.0, 0.0
    for step, batch in enumerate(batches(len(tokens), 0, batch_size, steps)):
        if step == WARM_UP:
            wall, cpu, seen = time.perf_counter(), time.process_time(), 0
        loss = loss_of(batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(matrices + vectors, 1.0)
        optimiser.step()
        losses.append(loss.item())
        seen += sum(len(tokens[i]) for i in batch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done = (steps - WARM_UP) * batch_size
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        loss_of(batch).backward()
    print(json.dumps({"examples_per_cpu_second": done / cpu, "examples_per_second": done / wall, "tokens_per_second": seen / wall,
                      "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "losses": losses,
                      "gflop_a_step": counter.get_total_flops() / 1e9, "cpu_seconds_a_step": cpu / (steps - WARM_UP)}))


if __name__ == "__main__":
    if sys.argv[1] == "tokens":
        sort, *places = sys.argv[2:6]
        if sort.startswith("long-"):
            write_long(int(sort[5:]), *places, int(sys.argv[6]))
        else:
            write_tokens(sort, *places, int(sys.argv[6]))
    elif sys.argv[1] == "order":
        order(sys.argv[2], *(int(word) for word in sys.argv[3:5]))
    else:
        train(*sys.argv[2:5], *(int(word) for word in sys.argv[5:8]))
