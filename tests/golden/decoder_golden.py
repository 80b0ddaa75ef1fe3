"""Reference numbers for the llama-family decoder: transformers and PEFT in f32.

    python tests/golden/decoder_golden.py [MODELS_DIR]      writes tests/golden/data/decoder_*.json

tiny:    a LlamaForCausalLM whose weights come from the counter generator in GGUF's layout (the C++ test writes the same
         numbers to a GGUF file): logits, LoRA gradients at random A and B, and the losses of 20 AdamW steps.
smollm2: next-token logits of SmolLM2-135M-Instruct as dequantised by transformers (needs MODELS_DIR).
"""

import json
import os
import sys

import numpy as np
import torch
from counter_rng import Rng
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, FFN, EPS, BASE = 128, 32, 2, 4, 2, 64, 1e-5, 10000.0
HEAD_DIM = HIDDEN // HEADS
SEED, RANK, ALPHA = 11, 4, 8
MODULES = [("attn_q", "self_attn.q_proj", HEADS), ("attn_k", "self_attn.k_proj", KV_HEADS), ("attn_v", "self_attn.v_proj", 0),
           ("attn_output", "self_attn.o_proj", 0), ("ffn_gate", "mlp.gate_proj", 0), ("ffn_up", "mlp.up_proj", 0),
           ("ffn_down", "mlp.down_proj", 0)]
SHAPES = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN), "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
          "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (FFN, HIDDEN), "ffn_up": (FFN, HIDDEN), "ffn_down": (HIDDEN, FFN)}


def gguf_tensors():
    """Name -> array, in the order of their random streams (0, 1, ...)."""
    tensors, stream = {}, 0

    def add(name, shape, norm=False):
        nonlocal stream
        values = Rng(SEED, stream).normal(int(np.prod(shape)))
        values = 1 + 0.1 * values if norm else 0.2 * values
        tensors[name] = values.astype(np.float32).reshape(shape)
        stream += 1

    add("token_embd.weight", (VOCAB, HIDDEN))
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_norm.weight", (HIDDEN,), norm=True)
        for name, _, _ in MODULES[:4]:
            add(f"blk.{layer}.{name}.weight", SHAPES[name])
        add(f"blk.{layer}.ffn_norm.weight", (HIDDEN,), norm=True)
        for name, _, _ in MODULES[4:]:
            add(f"blk.{layer}.{name}.weight", SHAPES[name])
    add("output_norm.weight", (HIDDEN,), norm=True)
    add("output.weight", (VOCAB, HIDDEN))
    return tensors


def to_hf(rows, heads):
    """GGUF keeps the pairs of the rotary embedding side by side, Hugging Face half a head apart."""
    if heads == 0:
        return rows
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def to_gguf(rows, heads):
    if heads == 0:
        return rows
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def tiny_model(tied):
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS,
                         num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, rms_norm_eps=EPS, rope_theta=BASE,
                         max_position_embeddings=256, tie_word_embeddings=tied, attn_implementation="eager")
    config.rope_parameters = {"rope_type": "default", "rope_theta": BASE}
    model = LlamaForCausalLM(config)
    t = gguf_tensors()
    state = {"model.embed_tokens.weight": t["token_embd.weight"], "model.norm.weight": t["output_norm.weight"]}
    state["lm_head.weight"] = t["token_embd.weight"] if tied else t["output.weight"]
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        state[p + "input_layernorm.weight"] = t[f"blk.{layer}.attn_norm.weight"]
        state[p + "post_attention_layernorm.weight"] = t[f"blk.{layer}.ffn_norm.weight"]
        for name, path, heads in MODULES:
            state[f"{p}{path}.weight"] = to_hf(t[f"blk.{layer}.{name}.weight"], heads)
    model.load_state_dict({k: torch.tensor(np.ascontiguousarray(v)) for k, v in state.items()})
    return model


def rows():
    """Twelve rows: five tokens in common, a message of their own, an answer of two or three tokens that is learnt."""
    rng = Rng(SEED, 900)
    prefix = rng.below(VOCAB, 5).tolist()
    result = []
    for i in range(12):
        message = rng.below(VOCAB, 3 + int(rng.below(9, 1)[0])).tolist()
        if i % 4 == 1:  # begins as the row before it
            message = result[-1]["tokens"][5:7] + message
        answer = rng.below(VOCAB, 2 + i % 2).tolist()
        result.append({"tokens": prefix + message + answer, "learnt": len(answer)})
    return result


def batch_loss(model, batch):
    longest = max(len(r["tokens"]) for r in batch)
    ids = torch.zeros((len(batch), longest), dtype=torch.long)
    labels = torch.full((len(batch), longest), -100)
    attention = torch.zeros((len(batch), longest), dtype=torch.long)
    for i, r in enumerate(batch):
        n = len(r["tokens"])
        ids[i, :n] = torch.tensor(r["tokens"])
        attention[i, :n] = 1
        labels[i, n - r["learnt"]: n] = torch.tensor(r["tokens"][n - r["learnt"]:])
    return model(input_ids=ids, attention_mask=attention, labels=labels).loss


def with_lora(model, seed, random_b=False):
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, task_type="CAUSAL_LM",
                                             target_modules=[p.split(".")[1] for _, p, _ in MODULES]))
    set_lora(model, seed, LAYERS, random_b)
    return model


def set_lora(model, seed, layers, random_b=False):
    """A as LoraAdapters::attach() makes it; B zero, or drawn from stream 9000 + 7 layer + module."""
    with torch.no_grad():
        for layer, index, module, heads in lora_layers(model, layers):
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            bound = 1.0 / np.sqrt(a.shape[1])
            values = (2 * Rng(seed, 7000 + 7 * layer + index).uniform(a.numel()) - 1) * bound
            a.copy_(torch.tensor(values.astype(np.float32).reshape(a.shape)))
            if random_b:
                values = 0.1 * Rng(seed, 9000 + 7 * layer + index).normal(b.numel())
                b.copy_(torch.tensor(np.ascontiguousarray(to_hf(values.astype(np.float32).reshape(b.shape), heads))))


def lora_layers(model, layers):
    for layer in range(layers):
        block = model.base_model.model.model.layers[layer]
        heads = model.base_model.model.config.num_attention_heads
        kv_heads = model.base_model.model.config.num_key_value_heads
        for index, (name, path, rotated) in enumerate(MODULES):
            part, module = path.split(".")
            count = {"attn_q": heads, "attn_k": kv_heads}.get(name, 0) if rotated else 0
            yield layer, index, getattr(getattr(block, part), module), count


def rounded(array, digits=9):
    return [float(f"{x:.{digits}g}") for x in np.asarray(array, dtype=np.float64).reshape(-1)]


def tiny():
    torch.manual_seed(0)
    data = rows()
    out = {"rows": data}
    for tied in (False, True):
        model = tiny_model(tied)
        with torch.no_grad():
            out["logits_tied" if tied else "logits"] = [
                rounded(model(input_ids=torch.tensor([r["tokens"]])).logits[0, -1].numpy(), 7) for r in data[:3]]

    model = with_lora(tiny_model(False), 5, random_b=True)
    loss = batch_loss(model, data[:4])
    loss.backward()
    loss = loss.detach()
    grads = {}
    for layer, index, module, heads in lora_layers(model, LAYERS):
        name = f"blk.{layer}.{MODULES[index][0]}"
        grads[name + ".lora_a"] = rounded(module.lora_A["default"].weight.grad.numpy(), 7)
        grads[name + ".lora_b"] = rounded(to_gguf(module.lora_B["default"].weight.grad.numpy(), heads), 7)
    out["gradients"] = {"loss": float(loss), "values": grads}

    model = with_lora(tiny_model(False), 5)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.01)
    losses = []
    for step in range(20):
        batch = data[4 * (step % 3): 4 * (step % 3) + 4]
        loss = batch_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    out["losses"] = losses
    # The trained adapter as PEFT saves it: names and shapes of all tensors, values of those that are permuted.
    state = get_peft_model_state_dict(model)
    out["peft_shapes"] = {k: list(v.shape) for k, v in state.items()}
    out["peft_values"] = {k: rounded(v.numpy(), 7) for k, v in state.items()
                          if "layers.1." in k and ("q_proj.lora_B" in k or "k_proj.lora_B" in k)}
    with open(os.path.join(HERE, "data", "decoder_tiny.json"), "w") as f:
        json.dump(out, f)


def smollm2(models):
    path = os.path.join(models, "smollm2-135m-instruct")
    model = AutoModelForCausalLM.from_pretrained(path, gguf_file="SmolLM2-135M-Instruct.Q4_1.gguf", dtype=torch.float32,
                                                 attn_implementation="eager")
    rng = Rng(SEED, 901)
    # "The capital of France is" and fifty random tokens (positions that matter to the rotary embedding).
    prompts = [[504, 3575, 282, 4649, 314], rng.below(49152, 50).tolist()]
    out = {"prompts": prompts, "answers": []}
    for p in prompts:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([p])).logits[0, -1].double()
        ids = torch.topk(logits, 8).indices.tolist() + list(range(0, 49152, 997))
        out["answers"].append({"ids": ids, "logits": rounded(logits[ids].numpy(), 8),
                               "logsumexp": float(torch.logsumexp(logits, 0))})
    with open(os.path.join(HERE, "data", "decoder_smollm2.json"), "w") as f:
        json.dump(out, f)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tiny()
    if len(sys.argv) > 1:
        smollm2(sys.argv[1])
