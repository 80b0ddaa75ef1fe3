"""Reference embeddings of tiny encoders under adapters in PEFT's own layout.

Run:    python tests/golden/peft_encoder_golden.py
Writes: tests/golden/data/peft_encoders.json
Needs:  torch, transformers, peft, numpy, safetensors

Bases are those of encoder_family_golden.py, and a BERT with DistilBERT's vocabulary whose tensors are listed under
"bert". Each case has an adapter that PEFT made and saved: `config` is its adapter_config.json, `tensors` lists [name,
shape, shift] as in its adapter_model.safetensors, tensor i being shift + 0.1 * Rng(seed, i).normal(). `vectors` are
means over the last hidden states of the first texts of tokenizer_golden.json, divided by their length, with the adapter
beside the model; `left_out` what stands behind the encoder.
"""

import json
import pathlib
import tempfile

import numpy as np
import peft
import torch
from encoder_family_golden import HEADS, INNER, LAYERS, POSITIONS, WIDTH, fill
from peft import IA3Config, LoraConfig, PeftModel
from peft_adapter_golden import save_with_numbers
from transformers import AutoConfig, AutoModel, BertConfig, BertForSequenceClassification, BertModel

DATA = pathlib.Path(__file__).parent / "data"
SEED, TEXTS, BERT_SEED = 79, 8, 24
FAMILIES = json.loads((DATA / "encoder_family.json").read_text())
LAST = {"bert": "distilbert"}  # whose ids the texts have
SEQUENCE_LORA = dict(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_CLS")
CASES = {
    "bert_classifier": ("bert", BertForSequenceClassification, LoraConfig(**SEQUENCE_LORA)),
    "bert_dora": ("bert", BertModel, LoraConfig(r=4, lora_alpha=8, use_dora=True, rank_pattern={"query": 2},
                                                target_modules=["query", "value", "dense"])),
    "distilbert": ("distilbert", None, LoraConfig(r=4, lora_alpha=8, use_rslora=True,
                                                  target_modules=["q_lin", "v_lin", "lin1", "lin2"])),
    "roberta_bias": ("roberta", None, LoraConfig(r=4, lora_alpha=8, bias="lora_only", target_modules=["query", "key"])),
    "roberta_ia3": ("roberta", None, IA3Config(target_modules=r".*\.(self\.key|self\.value|\d+\.output\.dense)",
                                               feedforward_modules=r".*\.\d+\.output\.dense")),
    "modernbert": ("modernbert", None, LoraConfig(r=4, lora_alpha=8, target_modules=["Wqkv", "Wi", "Wo"])),
}


def base(family, model_class):
    """The model with its numbers; the names of the bare encoder's tensors."""
    if family == "bert":
        words = len(FAMILIES["distilbert"]["vocab"])
        config = BertConfig(vocab_size=words, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
                            num_attention_heads=HEADS, max_position_embeddings=POSITIONS, num_labels=3)
        model = model_class(config).eval()
        inner = model.bert if hasattr(model, "bert") else model
        bare = BertModel(config, add_pooling_layer=False)
        names = fill(bare, BERT_SEED)
        inner.load_state_dict(bare.state_dict(), strict=False)
        return model, inner, names
    files = FAMILIES[family]["files"]
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "config.json").write_text(json.dumps(files["config.json"]))
        config = AutoConfig.from_pretrained(folder)
    options = {"add_pooling_layer": False} if family == "roberta" else {}
    model = AutoModel.from_config(config, attn_implementation="eager", **options).eval()
    names = fill(model, FAMILIES[family]["seed"])
    assert names == FAMILIES[family]["tensor_names"], family
    return model, model, names


def vectors(model, family):
    rows = FAMILIES[LAST.get(family, family)]["ids"][:TEXTS]
    out = []
    for row in rows:
        row = row[:POSITIONS - 1] + row[-1:] if len(row) > POSITIONS else row
        with torch.no_grad():
            states = model(input_ids=torch.tensor([row]), attention_mask=torch.ones(1, len(row), dtype=torch.long))
        mean = states.last_hidden_state[0].double().mean(0)
        out.append((mean / mean.norm()).numpy())
    return np.array(out)


def inner_of(adapted):
    model = adapted.base_model.model
    return model.bert if hasattr(model, "bert") else model


def golden(name, family, model_class, config):
    model, inner, _ = base(family, model_class)
    before = vectors(inner, family)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tensors, written = save_with_numbers(model, config, folder, SEED, 0.1)
        fresh, _, names = base(family, model_class)
        loaded = PeftModel.from_pretrained(fresh, folder).eval()
        beside = vectors(inner_of(loaded), family)
        merged = loaded.merge_and_unload()
        folded = vectors(merged.bert if hasattr(merged, "bert") else merged, family)
    assert np.abs(beside - folded).max() < 1e-5, name
    assert np.abs(beside - before).max() > 0.02, name
    keep = {k: sorted(v) if isinstance(v, list) else v for k, v in written.items()
            if v not in (None, [], {}, False) and k not in ("auto_mapping", "base_model_name_or_path")}
    outside = sorted({t[0].split("base_model.model.")[1].split(".lora_")[0] for t in tensors
                      if ".pooler." in t[0] or ".classifier." in t[0]})
    print(name, np.abs(beside - before).max(), outside)
    return {"base": family, "config": keep, "tensors": tensors, "left_out": outside,
            "vectors": [[round(x, 7) for x in row] for row in beside.tolist()]}


def main():
    torch.set_num_threads(1)
    _, _, names = base("bert", BertModel)
    cases = {name: golden(name, *case) for name, case in CASES.items()}
    bert = {"config": {"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu", "layer_norm_eps": 1e-12,
                       "vocab_size": len(FAMILIES["distilbert"]["vocab"]), "hidden_size": WIDTH, "type_vocab_size": 2,
                       "intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
                       "max_position_embeddings": POSITIONS}, "seed": BERT_SEED, "tensor_names": names}
    out = {"made_by": f"tests/golden/peft_encoder_golden.py, peft {peft.__version__}", "seed": SEED, "bert": bert, "cases": cases}
    (DATA / "peft_encoders.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
