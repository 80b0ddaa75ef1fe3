"""Reference logits of tiny decoders under adapters in PEFT's own layout.

Run:    python tests/golden/peft_adapter_golden.py
Writes: tests/golden/data/peft_adapters.json
Needs:  torch, transformers, peft, numpy, safetensors

Each case is a model of decoder_family_golden.py with an adapter that PEFT made and saved: `config` is its
adapter_config.json, `tensors` lists [name, shape, shift] as in its adapter_model.safetensors, tensor i being
shift + 0.2 * Rng(seed, i).normal(). `logits` are those after the last two tokens of the model's text. "all_<family>" are
adapters of all linear layers, one of each family.
"""

import json
import math
import pathlib
import tempfile

import numpy as np
import peft
import torch
from counter_rng import Rng
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

import decoder_family_golden as family

SEED = 77
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SAVED = ["lm_head", "embed_tokens"]
CASES = {
    "llama": ("llama", LoraConfig(r=4, lora_alpha=8, target_modules=LLAMA, task_type="CAUSAL_LM")),
    "llama_patterns": ("llama", LoraConfig(r=4, lora_alpha=8, use_rslora=True, rank_pattern={"q_proj": 2},
                                           alpha_pattern={"layers.1.mlp.down_proj": 3}, target_modules=LLAMA,
                                           task_type="CAUSAL_LM")),
    "llama_dora": ("llama", LoraConfig(r=4, lora_alpha=8, use_dora=True, target_modules=LLAMA, task_type="CAUSAL_LM")),
    "llama_saved": ("llama", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=SAVED,
                                        task_type="CAUSAL_LM")),
    "llama_ia3": ("llama", IA3Config(target_modules=["k_proj", "v_proj", "down_proj"],
                                     feedforward_modules=["down_proj"], task_type="CAUSAL_LM")),
    "qwen2_bias": ("qwen2", LoraConfig(r=4, lora_alpha=8, bias="lora_only", target_modules=["q_proj", "v_proj"],
                                       task_type="CAUSAL_LM")),
    "gpt2": ("gpt2", LoraConfig(r=4, lora_alpha=8, fan_in_fan_out=True, target_modules=["c_attn", "mlp.c_proj"],
                                task_type="CAUSAL_LM")),
    "gptneox": ("gptneox", LoraConfig(r=4, lora_alpha=8, target_modules=["query_key_value", "dense"],
                                      task_type="CAUSAL_LM")),
}
FAMILIES = ["llama", "llama_yarn", "llama_longrope", "mistral", "qwen2", "qwen3", "qwen3_variant", "gemma2", "gemma3", "phi3",
            "phi3_variant", "gpt2", "gptneox", "gptneox_variant", "falcon", "falcon_new", "bloom", "mpt"]
CASES |= {f"all_{name}": (name, LoraConfig(r=3, lora_alpha=6, fan_in_fan_out=name == "gpt2", target_modules="all-linear",
                                           task_type="CAUSAL_LM")) for name in FAMILIES}


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits[0, -2:].numpy()


def save_with_numbers(model, config, folder, seed, deviation):
    """Has PEFT save an adapter of the model and gives it numbers that a test can make again: [name, shape, shift] of
    every tensor, and adapter_config.json."""
    get_peft_model(model, config).save_pretrained(folder)
    saved = load_file(folder / "adapter_model.safetensors")
    tensors, values = [], {}
    for i, key in enumerate(sorted(saved)):
        # Lengths, scales and norms stand about one; DoRA's lengths are always positive.
        shift = 1.0 if key.endswith(("magnitude_vector", "ia3_l")) else 0.0
        shape = list(saved[key].shape)
        tensors.append([key, shape, shift])
        numbers = shift + deviation * Rng(seed, i).normal(math.prod(shape))
        values[key] = torch.tensor(numbers.astype(np.float32).reshape(shape))
    save_file(values, folder / "adapter_model.safetensors")
    return tensors, json.loads((folder / "adapter_config.json").read_text())


def golden(name, base, config):
    model_class, model_config, _ = family.cases()[base]
    model, _, _, _ = family.made(base, model_class, model_config)
    tokens = json.loads((family.DATA / f"decoder_family_{base}.json").read_text())["tokens"]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tensors, written = save_with_numbers(model, config, folder, SEED, 0.2)
        fresh, _, _, _ = family.made(base, model_class, model_config)
        before = logits_of(fresh, tokens)
        loaded = peft.PeftModel.from_pretrained(fresh, folder).eval()
        logits = logits_of(loaded, tokens)
        merged = logits_of(loaded.merge_and_unload(), tokens)
    assert np.abs(logits - merged).max() < 1e-4, name
    assert np.abs(logits - before).max() > 0.1, name
    keep = {k: sorted(v) if k == "target_modules" else v for k, v in written.items() if v not in (None, [], {}, False)}
    return {"base": base, "config": keep, "tensors": tensors, "logits": family.rounded(logits, 7)}


def main():
    torch.set_num_threads(1)
    cases = {name: golden(name, *case) for name, case in CASES.items()}
    out = {"made_by": f"tests/golden/peft_adapter_golden.py, peft {peft.__version__}", "seed": SEED, "cases": cases}
    file = family.DATA / "peft_adapters.json"
    file.write_text(json.dumps(out, separators=(",", ":")) + "\n")
    print(file.stat().st_size, {n: c["config"].keys() for n, c in cases.items()})


if __name__ == "__main__":
    main()
