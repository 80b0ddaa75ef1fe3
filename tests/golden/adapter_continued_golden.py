"""Adapters that are gone on with, and rows of single tokens that are trained beside an adapter: PEFT's own numbers.

Run:    python tests/golden/adapter_continued_golden.py
Writes: tests/golden/data/adapter_continued.json         of each case the job's method and settings, adapter_config.json
                                                         of the start, losses, gradient norms, answers
        tests/golden/data/adapter_continued.safetensors  "case/start/tensor": adapter_model.safetensors of the start;
                                                         "case/tensor": what is saved after the last step
Needs:  torch, transformers, peft, safetensors, numpy.

A start is an adapter that PEFT made and saved, its numbers drawn from counter_rng.py as in peft_adapter_golden.py, and
loaded by PeftModel.from_pretrained(…, is_trainable=True). Models, rows and steps are those of decoder_methods_golden.py
and encoder_methods_golden.py.
"""

import json
import math
import pathlib
import tempfile

import numpy as np
import torch
from counter_rng import Rng
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import decoder_methods_golden as decoder
import encoder_methods_golden as encoder
from decoder_golden import LAYERS, MODULES, batch_loss, rows, set_lora, tiny_model
from encoder_golden import LABELS, SEED as ENCODER_SEED, TINY, Classifier, batches, tiny_rows
from tuning_steps import adapter_files, parameter_groups, store, train

SEED = 78
PROJECTIONS = [p.split(".")[1] for _, p, _ in MODULES]
TOKENS = [rows()[0]["tokens"][0], rows()[0]["tokens"][5], 90, 127]  # of all prompts, of one, of an answer, of none
TABLES = {"embed_tokens": TOKENS, "lm_head": TOKENS}
QUERY_VALUE = r"(.*\.)?encoder\.layer\.\d+\.attention\.self\.(query|value)"


def started(base, config, folder):
    """The adapter of PEFT's own file with other numbers, loaded to be trained; its config and tensors."""
    get_peft_model(base(), config).save_pretrained(folder)
    saved = load_file(folder / "adapter_model.safetensors")
    values = {}
    for i, key in enumerate(sorted(saved)):
        shift, scale = (1.0, 0.1) if key.endswith("magnitude_vector") else (0.0, 0.2)
        numbers = shift + scale * Rng(SEED, i).normal(math.prod(saved[key].shape))
        values[key] = torch.tensor(numbers.astype(np.float32).reshape(saved[key].shape))
    save_file(values, folder / "adapter_model.safetensors", {"format": "pt"})
    written = json.loads((folder / "adapter_config.json").read_text())
    model = PeftModel.from_pretrained(base(), folder, is_trainable=True)
    keep = {k: v for k, v in written.items() if v not in (None, [], {}, False)}
    if isinstance(keep["target_modules"], list):
        keep["target_modules"] = sorted(keep["target_modules"])  # PEFT writes a set
    return model, keep, values


def decoder_cases():
    """Name -> settings of the job, base, PEFT's configuration, whether it is a start."""
    lora = lambda **more: LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, task_type="CAUSAL_LM",
                                     **({"target_modules": PROJECTIONS} | more))
    untied, tied = lambda: tiny_model(False), lambda: tiny_model(True)
    whole = ["embed_tokens", "lm_head"]
    rate = dict(learning_rate=5e-3)
    yield "lora", rate, untied, lora(), True
    yield "some-modules", rate, untied, lora(use_rslora=True, target_modules=["q_proj", "down_proj"], layers_to_transform=[1]), True
    yield "dora", rate, untied, lora(use_dora=True), True
    yield "whole", dict(learning_rate=1e-3, epsilon=1e-4), untied, lora(modules_to_save=whole), True
    yield "rows", rate, untied, lora(trainable_token_indices=TABLES), True
    yield "rows-tied", rate, tied, lora(trainable_token_indices=TOKENS), True
    yield "new-rows", rate | dict(lora=decoder.ADAPTER | dict(trained_tokens=TOKENS)), untied, lora(trainable_token_indices=TABLES), False
    yield "new-rows-tied", rate | dict(lora=decoder.ADAPTER | dict(trained_tokens=TOKENS)), tied, lora(trainable_token_indices=TOKENS), False


def matrices(name, p):
    return p.ndim == 2


def decoders(results, tensors):
    prompts = [r["tokens"] for r in rows()]
    order = batches(decoder.TRAINED, decoder.SEED, decoder.BATCH, decoder.STEPS)
    answered = [{"tokens": p + decoder.ANSWERS[i % 3], "learnt": len(decoder.ANSWERS[i % 3])} for i, p in enumerate(prompts)]
    for name, own, base, config, start in decoder_cases():
        settings = decoder.COMMON | own
        case = {"method": "lora", "settings": settings, "tied": base is not None and "tied" in name}
        with tempfile.TemporaryDirectory() as folder:
            if start:
                model, case["start"], values = started(base, config, pathlib.Path(folder))
                tensors[name] = {f"start/{k}": v for k, v in values.items()}
            else:
                model, values = get_peft_model(base(), config), None
                set_lora(model, decoder.SEED, LAYERS)
                tensors[name] = {}
        model.train()
        optimiser = torch.optim.AdamW(parameter_groups(model, settings, matrices), eps=settings.get("epsilon", 1e-8))
        case["losses"], case["gradient_norms"] = train(model, optimiser, order, lambda b: batch_loss(model, [answered[i] for i in b]))
        model.eval()
        case["probabilities"] = [p for t in prompts[decoder.TRAINED:] for p in decoder.label_probabilities(model, t)]
        case["adapter_config"], trained = adapter_files(model)
        tensors[name] |= trained
        results[name] = case


def encoders(results, tensors):
    data = tiny_rows()
    order = batches(len(data), ENCODER_SEED, encoder.BATCH, encoder.STEPS)
    tested = [data[len(data) - 1 - i][0] for i in range(encoder.TESTED)]
    for name, more in (("encoder-lora", {"target_modules": ["query", "key", "value", "dense"]}),
                       ("encoder-dora", {"target_modules": QUERY_VALUE, "use_dora": True})):
        settings = encoder.COMMON | dict(learning_rate=5e-3)
        with tempfile.TemporaryDirectory() as folder:
            adapted, start, values = started(encoder.bert, LoraConfig(r=2, lora_alpha=4, lora_dropout=0.0, **more), pathlib.Path(folder))
        model = Classifier(adapted, TINY["hidden_size"], LABELS, ENCODER_SEED)
        optimiser = torch.optim.AdamW(parameter_groups(model, settings, encoder.matrices))
        loss_of = lambda batch: torch.nn.functional.cross_entropy(model([data[i][0] for i in batch]), torch.tensor([data[i][1] for i in batch]))
        losses, norms = train(model, optimiser, order, loss_of)
        with torch.no_grad():
            probabilities = torch.softmax(model(tested), dim=-1).flatten().tolist()
        config, trained = adapter_files(model.encoder)
        results[name] = {"method": "lora", "settings": settings, "start": start, "losses": losses, "gradient_norms": norms,
                         "probabilities": probabilities, "adapter_config": config}
        tensors[name] = {**{f"start/{k}": v for k, v in values.items()}, **trained,
                         "head.weight": model.head.weight, "head.bias": model.head.bias}


def main():
    results, tensors = {}, {}
    decoders(results, tensors)
    encoders(results, tensors)
    store("adapter_continued", results, tensors)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    main()
