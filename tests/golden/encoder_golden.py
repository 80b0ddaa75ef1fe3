"""Reference losses and gradients of encoder tuning, from transformers and PEFT.

Run:    python tests/golden/encoder_golden.py [MINILM_DIRECTORY]
Writes: tests/golden/data/encoder_golden.json         losses of 20 steps, gradient norms
        tests/golden/data/encoder_golden.safetensors  gradients of the first step, embeddings after the last
        tests/golden/data/encoder_minilm.json         the same losses on all-MiniLM-L6-v2, where its directory is given
Needs:  torch, transformers, peft, safetensors, numpy; tokenizers for MiniLM.

A tiny BERT takes its weights, its rows and the run's order and first values from counter_rng.py, as
src/tune/encoder_golden_test.cpp does; nothing but the results is stored.
"""

import json
import math
import pathlib
import sys

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, get_linear_schedule_with_warmup

from counter_rng import Rng, _mix

DATA = pathlib.Path(__file__).parent / "data"
LABELS, STEPS, BATCH, SEED = 5, 20, 6, 3
INITIAL_STREAM, HEAD_STREAM, ORDER_STREAM = 1, 2, 3  # src/tune/head.h
TINY = dict(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
            max_position_embeddings=40, type_vocab_size=2, layer_norm_eps=1e-12)
LAYER = ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
         "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]


def tiny_state():
    """All tensors in a fixed order; tensor i comes from Rng(1, i)."""
    d, f = TINY["hidden_size"], TINY["intermediate_size"]
    shapes = {"embeddings.word_embeddings.weight": (TINY["vocab_size"], d),
              "embeddings.position_embeddings.weight": (TINY["max_position_embeddings"], d),
              "embeddings.token_type_embeddings.weight": (2, d),
              "embeddings.LayerNorm.weight": (d,), "embeddings.LayerNorm.bias": (d,)}
    for layer in range(TINY["num_hidden_layers"]):
        for module in LAYER:
            out, inner = (f, d) if module == "intermediate.dense" else (d, f) if module == "output.dense" else (d, d)
            name = f"encoder.layer.{layer}.{module}"
            shapes[name + ".weight"] = (d,) if module.endswith("LayerNorm") else (out, inner)
            shapes[name + ".bias"] = (out,)
    state = {}
    for i, (name, shape) in enumerate(shapes.items()):
        values = 0.2 * Rng(1, i).normal(math.prod(shape)).reshape(shape)
        if name.endswith("LayerNorm.weight"):
            values = values + 1
        state[name] = torch.tensor(values.astype(np.float32))
    return state


def tiny_rows():
    """40 rows of 2 to 13 ids from 1 to 79: unused words are tested too, and 0 is the padding word, which BertModel freezes."""
    rng = Rng(2, 0)
    lengths = 2 + rng.below(12, 40)
    return [((1 + rng.below(79, int(n))).tolist(), int(rng.below(LABELS, 1)[0])) for n in lengths]


def batches(n, seed, batch_size, steps):
    """src/tune/data_order.h."""
    out, epoch = [], 0
    while len(out) < steps:
        order = Rng(seed ^ int(_mix(epoch)), ORDER_STREAM).shuffle(list(range(n)))
        out += [order[i:i + batch_size] for i in range(0, n, batch_size)]
        epoch += 1
    return out[:steps]


class Classifier(torch.nn.Module):
    """Mean over the real tokens of a BertModel, then a linear head."""

    def __init__(self, encoder, width, labels, seed):
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(width, labels)
        with torch.no_grad():
            values = 0.02 * Rng(seed, HEAD_STREAM).normal(labels * width).reshape(labels, width)
            self.head.weight.copy_(torch.tensor(values.astype(np.float32)))
            self.head.bias.zero_()

    def forward(self, rows):
        longest = max(len(r) for r in rows)
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
        mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).float()
        return self.head((hidden * weight).sum(1) / weight.sum(1))


def train(model, rows, order, rate, head_rate, decay, warmup, smoothing):
    groups = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        plain = name.endswith("bias") or "LayerNorm" in name
        groups.append(dict(params=[p], lr=head_rate if name.startswith("head") else rate, weight_decay=0.0 if plain else decay))
    optimiser = torch.optim.AdamW(groups, lr=rate)
    schedule = get_linear_schedule_with_warmup(optimiser, math.ceil(warmup * len(order)), len(order))
    losses, norms, first = [], [], {}
    for batch in order:
        logits = model([rows[i][0] for i in batch])
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([rows[i][1] for i in batch]), label_smoothing=smoothing)
        optimiser.zero_grad()
        loss.backward()
        if not first:
            first = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return losses, norms, first


def add_lora(encoder, seed, r, alpha, targets, layers):
    """PEFT's adapter with first values of A from Rng(seed, INITIAL_STREAM), in the order layer, module."""
    model = get_peft_model(encoder, LoraConfig(r=r, lora_alpha=alpha, lora_dropout=0.0, target_modules=targets))
    rng = Rng(seed, INITIAL_STREAM)
    modules = dict(model.named_modules())
    for layer in range(layers):
        for module in LAYER:
            part = modules.get(f"base_model.model.encoder.layer.{layer}.{module}")
            if part is None or not hasattr(part, "lora_A"):
                continue
            a = part.lora_A["default"].weight
            bound = 1 / math.sqrt(a.shape[1])
            values = ((2 * rng.uniform(a.numel()) - 1) * bound).reshape(a.shape)
            with torch.no_grad():
                a.copy_(torch.tensor(values.astype(np.float32)))
    return model


def tiny():
    rows, results, tensors = tiny_rows(), {}, {}
    order = batches(len(rows), SEED, BATCH, STEPS)
    settings = dict(rate=5e-3, head_rate=1e-2, decay=0.05, warmup=0.1, smoothing=0.0)
    cases = {"full": settings, "full_smoothed": dict(settings, smoothing=0.1), "lora": settings, "lora_partial": settings}
    for case, values in cases.items():
        encoder = BertModel(BertConfig(**TINY, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0), add_pooling_layer=False)
        encoder.load_state_dict(tiny_state(), strict=True)
        if case == "lora":
            encoder = add_lora(encoder, SEED, 4, 8, ["query", "key", "value", "dense"], TINY["num_hidden_layers"])
        if case == "lora_partial":  # one module of the joint product, so that the columns in it are tested
            encoder = add_lora(encoder, SEED, 4, 8, ["key", "intermediate.dense"], TINY["num_hidden_layers"])
        model = Classifier(encoder, TINY["hidden_size"], LABELS, SEED)
        losses, norms, first = train(model, rows, order, **values)
        results[case] = {"losses": losses, "gradient_norms": norms, **values}
        if case in ("full", "lora"):
            for name, grad in first.items():
                tensors[f"{case}.{name.removeprefix('encoder.').removeprefix('base_model.model.')}"] = grad.contiguous()
        if case == "full":
            tensors["final.embeddings.word_embeddings.weight"] = encoder.embeddings.word_embeddings.weight.detach().clone()
            tensors["final.embeddings.position_embeddings.weight"] = encoder.embeddings.position_embeddings.weight.detach().clone()
    DATA.mkdir(exist_ok=True)
    (DATA / "encoder_golden.json").write_text(json.dumps(results, indent=1) + "\n")
    save_file(tensors, DATA / "encoder_golden.safetensors")
    print(json.dumps({k: v["losses"][::5] for k, v in results.items()}))


SENTENCES = """I am still waiting for my card|0
When will the new card arrive?|0
The tracking number of my card does not work|0
Can I have my bank card sent to another address?|0
My parcel with the card was returned to you|0
How long does delivery of a card take in Europe?|0
What is the exchange rate for dollars today|1
Why was I charged a different rate than the one you show?|1
Do you add a markup when I pay in foreign currency?|1
How do you decide on the rates?|1
The conversion of my payment looks wrong|1
Is the weekend rate worse|1
Please help me close my account|2
I want to delete everything you have on me|2
How do I leave and take my money with me?|2
Cancel my membership from the end of the month, please|2
I don't need this account any more|2
my pin is blocked, what now|3
I typed the wrong PIN three times at a cash machine and now nothing works at all, can you unblock it quickly?|3
How can I change the code of my card|3
where do I see my PIN?|3
forgot passcode|3
Is it possible to pick a new number code myself?|3
unblock|3"""


def minilm(directory):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
    tokenizer.no_padding()
    rows = []
    for line in SENTENCES.splitlines():
        text, label = line.rsplit("|", 1)
        rows.append((tokenizer.encode(text).ids, int(label)))
    state = {k: v for k, v in load_file(f"{directory}/model.safetensors").items() if not k.startswith("pooler") and "position_ids" not in k}
    results = {"rows": [r[0] for r in rows], "labels": [r[1] for r in rows]}
    cases = {"full": dict(rate=2e-4, head_rate=2e-3), "lora": dict(rate=2e-3, head_rate=2e-3)}
    for case, rates in cases.items():
        config = BertConfig.from_pretrained(directory, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        encoder = BertModel(config, add_pooling_layer=False)
        encoder.load_state_dict(state, strict=True)
        if case == "lora":
            encoder = add_lora(encoder, SEED, 8, 16, ["query", "key", "value", "dense"], config.num_hidden_layers)
        model = Classifier(encoder, config.hidden_size, 4, SEED)
        values = dict(rates, decay=0.01, warmup=0.1, smoothing=0.0)
        losses, norms, _ = train(model, rows, batches(len(rows), SEED, 8, STEPS), **values)
        results[case] = {"losses": losses, "gradient_norms": norms, **values}
    (DATA / "encoder_minilm.json").write_text(json.dumps(results) + "\n")
    print(results["full"]["losses"][::5], results["lora"]["losses"][::5])


if __name__ == "__main__":
    torch.manual_seed(0)
    tiny()
    if len(sys.argv) > 1:
        minilm(sys.argv[1])
