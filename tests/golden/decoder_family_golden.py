"""Reference logits, losses and gradients of tiny decoders of every family, from transformers in f32.

Run:    python tests/golden/decoder_family_golden.py [name ...]
Writes: tests/golden/data/decoder_family_<name>.json
Needs:  torch, transformers, numpy, safetensors

No weights are stored: `tensors` lists [name, shape, scale, shift] in the order of the random streams, tensor i being
shift + scale * Rng(seed, i).normal() (counter_rng.py; src/model/test_decoder_family.h makes the same). Names, shapes
and config.json are those of transformers' own save_pretrained().

`tokens` is one text; `logits` are those after each of its tokens, [tokens, vocabulary]. `loss` is the mean cross
entropy of each token given those before it (the first has none). `gradients` holds d loss / d tensor in Hugging
Face's layout: all values, or of the embeddings the rows named in `embedding_rows`; `gradient_norms` are of all tensors
(Frobenius). Some variants of a family have logits and loss alone. `long` is a text
beyond the original context of a model with two sets of rotary factors, with its loss.
"""

import json
import math
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors import safe_open
from transformers import (BloomConfig, BloomForCausalLM, FalconConfig, FalconForCausalLM, Gemma2Config,
                          Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, GPT2Config, GPT2LMHeadModel,
                          GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig,
                          MistralForCausalLM, MptConfig, MptForCausalLM, Phi3Config, Phi3ForCausalLM, Qwen2Config,
                          Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

from counter_rng import Rng

DATA = pathlib.Path(__file__).parent / "data"
VOCAB, HIDDEN, INNER, LAYERS, HEADS, KV_HEADS = 288, 32, 64, 2, 4, 2
POSITIONS, TOKENS, LONG = 64, 14, 300
IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
SIZES = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
         "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": POSITIONS, **IDS}
NEOX = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "max_position_embeddings": POSITIONS, **IDS}
FALCON = {"vocab_size": VOCAB, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
          "max_position_embeddings": POSITIONS, "alibi": False, "bias": False, "parallel_attn": True, **IDS}


def rope(kind="default", base=10000.0, **more):
    return {"rope_type": kind, "rope_theta": base, **more}


def cases():
    """Name -> (model class, configuration, tensors whose gradients are kept; none: a variant)."""
    standard = ["layers.0.self_attn.q_proj.weight", "layers.1.self_attn.k_proj.weight",
                "layers.1.self_attn.v_proj.weight", "layers.0.self_attn.o_proj.weight",
                "layers.1.mlp.down_proj.weight", "layers.1.input_layernorm.weight", "model.norm.weight", "embed_tokens"]
    return {
        "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, rms_norm_eps=1e-5, rope_parameters=rope(base=50000.0)),
                  standard),
        "llama_variant": (LlamaForCausalLM,
                          LlamaConfig(**SIZES, head_dim=16, attention_bias=True, mlp_bias=True,
                                      tie_word_embeddings=True, rope_parameters=rope(
                                          "llama3", 500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                          original_max_position_embeddings=16)), []),
        "llama_yarn": (LlamaForCausalLM,
                       LlamaConfig(**SIZES, rms_norm_eps=1e-5, rope_parameters=rope(
                           "yarn", 10000.0, factor=4.0, original_max_position_embeddings=16, attention_factor=0.8)),
                       standard),
        "llama_longrope": (LlamaForCausalLM,
                           LlamaConfig(**{**SIZES, "max_position_embeddings": 1024}, rms_norm_eps=1e-5,
                                       rope_parameters=rope("longrope", original_max_position_embeddings=256,
                                                            short_factor=[1.0, 1.1, 1.25, 1.5],
                                                            long_factor=[1.5, 2.0, 4.0, 8.0], attention_factor=1.3)),
                           standard),
        "mistral": (MistralForCausalLM, MistralConfig(**SIZES, head_dim=8, sliding_window=None, rope_parameters=rope(
            "linear", 10000.0, factor=2.0)), []),
        "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, tie_word_embeddings=True, rope_parameters=rope(base=1e6)),
                  standard[:6] + ["layers.0.self_attn.q_proj.bias", "layers.0.self_attn.v_proj.bias",
                                  "model.norm.weight", "embed_tokens"]),
        "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, head_dim=16, rope_parameters=rope(base=1e6)),
                  standard + ["layers.0.self_attn.q_norm.weight", "layers.1.self_attn.k_norm.weight"]),
        "qwen3_variant": (Qwen3ForCausalLM,
                          Qwen3Config(**SIZES, head_dim=8, tie_word_embeddings=True, rope_parameters=rope(
                              "yarn", 10000.0, factor=4.0, original_max_position_embeddings=16)), standard[:-1]),
        "gemma2": (Gemma2ForCausalLM,
                   Gemma2Config(**SIZES, head_dim=16, query_pre_attn_scalar=16, sliding_window=5,
                                attn_logit_softcapping=2.0, final_logit_softcapping=5.0, rope_parameters=rope()),
                   standard + ["layers.0.post_feedforward_layernorm.weight"]),
        "gemma3": (Gemma3ForCausalLM,
                   Gemma3TextConfig(**SIZES, head_dim=16, query_pre_attn_scalar=16, sliding_window=5,
                                    layer_types=["sliding_attention", "full_attention"], rope_parameters={
                                        "sliding_attention": rope(base=10000.0),
                                        "full_attention": rope("linear", 1e6, factor=8.0)}),
                   standard + ["layers.0.self_attn.q_norm.weight", "layers.0.pre_feedforward_layernorm.weight"]),
        "phi3": (Phi3ForCausalLM,
                 Phi3Config(**SIZES, original_max_position_embeddings=POSITIONS,
                            rope_parameters=rope(partial_rotary_factor=1.0)),
                 ["layers.0.self_attn.qkv_proj.weight", "layers.1.self_attn.o_proj.weight",
                  "layers.1.mlp.down_proj.weight", "layers.0.input_layernorm.weight", "model.norm.weight",
                  "embed_tokens"]),
        "phi3_variant": (Phi3ForCausalLM,
                         Phi3Config(**{**SIZES, "max_position_embeddings": 1024}, original_max_position_embeddings=256,
                                    rope_parameters=rope("longrope", partial_rotary_factor=0.5,
                                                         original_max_position_embeddings=256,
                                                         short_factor=[1.0, 1.25], long_factor=[2.0, 5.0])),
                         ["layers.0.self_attn.qkv_proj.weight", "layers.1.self_attn.o_proj.weight",
                          "layers.0.input_layernorm.weight", "embed_tokens"]),
        "gpt2": (GPT2LMHeadModel,
                 GPT2Config(vocab_size=VOCAB, n_embd=HIDDEN, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS,
                            **IDS),
                 ["h.0.attn.c_attn.weight", "h.1.attn.c_attn.bias", "h.1.attn.c_proj.weight", "h.0.mlp.c_proj.bias",
                  "h.1.ln_1.weight", "h.0.ln_2.bias", "ln_f.weight", "wpe", "wte"]),
        "gptneox": (GPTNeoXForCausalLM,
                    GPTNeoXConfig(**NEOX, rope_parameters=rope(partial_rotary_factor=0.5)),
                    ["layers.0.attention.query_key_value.weight", "layers.1.attention.query_key_value.bias",
                     "layers.1.attention.dense.weight", "layers.1.mlp.dense_4h_to_h.weight",
                     "layers.0.input_layernorm.weight", "layers.0.post_attention_layernorm.bias", "embed_in"]),
        "gptneox_variant": (GPTNeoXForCausalLM,
                            GPTNeoXConfig(**NEOX, use_parallel_residual=False, tie_word_embeddings=True,
                                          rope_parameters=rope(base=20000.0, partial_rotary_factor=1.0)), []),
        "falcon": (FalconForCausalLM, FalconConfig(**FALCON, new_decoder_architecture=False, multi_query=True),
                   ["h.0.self_attention.query_key_value.weight", "h.1.self_attention.dense.weight",
                    "h.1.input_layernorm.weight", "h.1.input_layernorm.bias", "ln_f.weight", "word_embeddings"]),
        "falcon_new": (FalconForCausalLM,
                       FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=KV_HEADS,
                                    tie_word_embeddings=False),
                       ["h.0.self_attention.query_key_value.weight", "h.1.self_attention.dense.weight",
                        "h.1.ln_attn.weight", "h.1.ln_mlp.weight", "ln_f.weight", "word_embeddings"]),
        "bloom": (BloomForCausalLM, BloomConfig(vocab_size=VOCAB, hidden_size=HIDDEN, n_layer=LAYERS, n_head=HEADS,
                                                **IDS),
                  ["h.0.self_attention.query_key_value.weight", "h.1.self_attention.query_key_value.bias",
                   "h.1.self_attention.dense.weight", "h.0.mlp.dense_4h_to_h.bias", "h.1.input_layernorm.weight",
                   "word_embeddings_layernorm.weight", "ln_f.weight", "word_embeddings.weight"]),
        "mpt": (MptForCausalLM, MptConfig(vocab_size=VOCAB, d_model=HIDDEN, n_layers=LAYERS, n_heads=HEADS,
                                          max_seq_len=POSITIONS, **IDS),
                ["blocks.0.attn.Wqkv.weight", "blocks.1.attn.out_proj.weight", "blocks.1.ffn.down_proj.weight",
                 "blocks.0.norm_1.weight", "norm_f.weight", "wte"]),
    }


def scale_and_shift(name, gemma):
    last = name.split(".")[-2]
    if name.endswith(".weight") and ("norm" in last or last.startswith("ln_")):
        return 0.1, 0.0 if gemma else 1.0
    return (0.1, 0.0) if name.endswith(".bias") else (0.2, 0.0)


def saved_names(model, folder):
    """What transformers writes: names and shapes in the weights file, and config.json."""
    model.save_pretrained(folder)
    with safe_open(folder / "model.safetensors", "pt") as f:
        names = sorted((n, list(f.get_slice(n).get_shape())) for n in f.keys())
    return names, json.loads((folder / "config.json").read_text())


def rounded(values, digits):
    return [float(f"{x:.{digits}g}") for x in np.asarray(values, dtype=np.float64).reshape(-1)]


def seed_of(name):
    return 40 + len(name)


def made(name, model_class, config):
    """The model with its numbers, its parameters by the names of its file, the list of its tensors, config.json."""
    config._attn_implementation = "eager"
    model = model_class(config).eval().float()
    with tempfile.TemporaryDirectory() as a:
        names, saved = saved_names(model, pathlib.Path(a))
    parameters = dict(model.named_parameters())
    if "embed_out.weight" in dict(names):  # GPT-NeoX's name in files; transformers renames it when it loads
        parameters["embed_out.weight"] = parameters.pop("lm_head.weight")
    tensors = []
    with torch.no_grad():
        for i, (tensor, shape) in enumerate(names):
            scale, shift = scale_and_shift(tensor, name.startswith("gemma"))
            tensors.append([tensor, shape, scale, shift])
            values = shift + scale * Rng(seed_of(name), i).normal(math.prod(shape))
            parameters[tensor].copy_(torch.tensor(values.astype(np.float32).reshape(shape)))
    return model, parameters, tensors, saved


def golden(name, model_class, config, kept):
    model, parameters, tensors, saved = made(name, model_class, config)
    names, seed = [(t[0], t[1]) for t in tensors], seed_of(name)
    covered = {id(parameters[t]) for t, _ in names}
    assert all(id(p) in covered for p in parameters.values()), "a parameter is not saved"
    tokens = Rng(seed, 900).below(VOCAB, TOKENS).tolist()
    tokens[5] = tokens[2]  # a repetition
    ids = torch.tensor([tokens])
    logits = model(input_ids=ids).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    loss.backward()
    out = {"made_by": f"tests/golden/decoder_family_golden.py, transformers {transformers.__version__}",
           "config": saved, "seed": seed, "tensors": tensors, "tokens": tokens, "loss": float(loss.detach()),
           "logits": rounded(logits.detach().numpy(), 7)}
    original = getattr(config, "rope_parameters", None) or {}
    if original.get("rope_type") == "longrope":
        with torch.no_grad():
            text = Rng(seed, 901).below(VOCAB, LONG)
            row = torch.tensor([text.tolist()])
            out["long"] = {"tokens": text.tolist(), "loss": float(torch.nn.functional.cross_entropy(
                model(input_ids=row).logits[0, :-1], row[0, 1:]))}
    if kept:
        grads = {t: parameters[t].grad for t, _ in names}
        out["gradient_norms"] = {t: float(f"{float(g.double().norm()):.7g}") for t, g in grads.items()}
        out["embedding_rows"] = sorted(set(tokens))[:4] + [3]
        out["gradients"] = {}
        for t, g in grads.items():
            if not any(k in t for k in kept) and not t.startswith(("lm_head", "embed_out")):
                continue
            table = any(t.endswith(e + ".weight") for e in ("embed_tokens", "wte", "word_embeddings", "embed_in",
                                                            "lm_head", "embed_out"))
            g = g[out["embedding_rows"]] if table else g
            g = g[:TOKENS + 1] if t.endswith("wpe.weight") else g
            out["gradients"][t] = rounded(g.numpy(), 6)
        assert len(out["gradients"]) >= len(kept), (name, list(out["gradients"]))
    return out


def main():
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    for name, (model_class, config, kept) in cases().items():
        if wanted and name not in wanted:
            continue
        result = golden(name, model_class, config, kept)
        file = DATA / f"decoder_family_{name}.json"
        file.write_text(json.dumps(result, separators=(",", ":")) + "\n")
        print(name, file.stat().st_size, result["loss"])


if __name__ == "__main__":
    main()
