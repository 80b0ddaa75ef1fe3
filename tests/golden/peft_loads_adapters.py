"""Adapter directories of tailor-tune in PEFT: loads each and holds its answers against those of the program.

Run:    python tests/golden/peft_loads_adapters.py build/release/tailor-tune       by hand; writes nothing
Needs:  torch, transformers, peft, safetensors, numpy, gguf; `tailor` beside the program.

Trains the cases of encoder_methods.json and decoder_methods.json that have PEFT's layout, and the low-rank ones of
encoder_objectives.json (DistilBERT, RoBERTa), puts the adapter on the base with PeftModel.from_pretrained, and compares
the probabilities of the test rows; of encoders also the merged weights, of the families also what export_hugging_face
writes, as AutoModel.from_pretrained reads it. Of every family of decoders (decoder_family_golden.py) a low-rank adapter,
with DoRA's lengths and with rows of single tokens, loses as much on a text as the program says. What runs without PEFT is
src/tune/decoder_family_adapters_test.cpp, by the same adapters as files.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import torch
from peft import PeftModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModel
from safetensors.numpy import load_file, save_file

import decoder_family_golden as decoder_families_golden
import decoder_golden
import decoder_methods_golden as decoder
import encoder_methods_golden as encoder
import encoder_objectives_golden as families
import peft_adapter_golden
from encoder_golden import LABELS, SEED, TINY, Classifier, tiny_rows, tiny_state

DATA = pathlib.Path(__file__).parent / "data"


def write_tokens(path, rows, labels, tested, vocabulary, answers=()):
    offsets = lambda parts: np.cumsum([0] + [len(p) for p in parts]).astype(np.int64)
    flat = lambda parts: np.array([t for p in parts for t in p], np.int32)
    tensors = {"tokens": flat(rows), "offsets": offsets(rows), "labels": np.array(labels, np.int32),
               "parts": np.array([0] * (len(rows) - tested) + [2] * tested, np.uint8),
               "row_ids": np.arange(len(rows), dtype=np.int64)}
    if answers:
        tensors |= {"label_tokens": flat(answers), "label_offsets": offsets(answers)}
    metadata = {"format": "tailor-tokens", "version": "1", "n_labels": str(max(labels) + 1), "vocab_size": str(vocabulary)}
    save_file(tensors, path, metadata)


def train(program, directory, case, method, task, seed, base, **more):
    job = {"format": "tailor-tune-job", "version": 1, "task": task, "method": method, "base": base, "tokens": "tokens.safetensors",
           "out": "out", "seed": seed, "settings": case["settings"], "export_merged": True} | more
    (directory / "job.json").write_text(json.dumps(job))
    subprocess.run([program, directory / "job.json"], check=True, stdout=subprocess.DEVNULL)
    return load_file(directory / "out" / "test_predictions.safetensors")["probabilities"]


def encoder_case(program, directory, method, case):
    rows = tiny_rows()
    rows += [rows[-1 - i] for i in range(encoder.TESTED)]
    write_tokens(directory / "tokens.safetensors", [r[0] for r in rows], [r[1] for r in rows], encoder.TESTED, TINY["vocab_size"])
    save_file({k: v.numpy() for k, v in tiny_state().items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(TINY | {"model_type": "bert", "hidden_act": "gelu"}))
    expected = train(program, directory, case, method, "sequence-classification", SEED, ".")
    model = Classifier(PeftModel.from_pretrained(encoder.bert(), directory / "out"), TINY["hidden_size"], LABELS, SEED)
    head = load_file(directory / "out" / "weights.safetensors")
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(head["head.weight"]))
        model.head.bias.copy_(torch.tensor(head["head.bias"]))
        seen = torch.softmax(model([r[0] for r in rows[-encoder.TESTED:]]), dim=-1).numpy()
    for name, values in model.encoder.merge_and_unload().state_dict().items():
        if name.startswith("encoder.") and name.endswith(".weight") and "LayerNorm" not in name:
            np.testing.assert_allclose(head[encoder.gguf_name(name)], values.numpy(), atol=1e-5, err_msg=name)
    return expected, seen


def family_case(program, directory, method, case):
    rows = [([i + 1 for i in ids], label) for ids, label in tiny_rows()]
    rows += [rows[-1 - i] for i in range(families.TESTED)]
    write_tokens(directory / "tokens.safetensors", [r[0] for r in rows], [r[1] for r in rows], families.TESTED, families.WORDS)
    base = families.model_of(case["family"])
    save_file({k: v.numpy() for k, v in families.state_of(case["family"]).items()}, directory / "model.safetensors")
    base.config.save_pretrained(directory)
    expected = train(program, directory, case, method, case["task"], SEED, ".", export_hugging_face=True)
    adapted = PeftModel.from_pretrained(base, directory / "out")
    model = families.Pooled(adapted, case["family"], LABELS, False).eval()
    head = load_file(directory / "out" / "weights.safetensors")
    tested = [r[0] for r in rows[-families.TESTED:]]
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(head["head.weight"]))
        model.head.bias.copy_(torch.tensor(head["head.bias"]))
        seen = torch.softmax(model(tested), dim=-1).numpy()
        whole = AutoModel.from_pretrained(directory / "out" / "huggingface")
        model.encoder = whole.eval()
        written = torch.softmax(model(tested), dim=-1).numpy()
    np.testing.assert_allclose(written, expected, atol=1e-5)
    for name, values in adapted.merge_and_unload().state_dict().items():
        if not name.endswith("position_embeddings.weight") and not name.startswith("pooler"):  # padding's rows are 0
            np.testing.assert_allclose(whole.state_dict()[name].numpy(), values.numpy(), atol=1e-5, err_msg=name)
    return expected, seen


def write_gguf(path):
    c = decoder_golden
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(c.LAYERS)
    writer.add_embedding_length(c.HIDDEN)
    writer.add_feed_forward_length(c.FFN)
    writer.add_head_count(c.HEADS)
    writer.add_head_count_kv(c.KV_HEADS)
    writer.add_context_length(256)
    writer.add_layer_norm_rms_eps(c.EPS)
    writer.add_rope_freq_base(c.BASE)
    for name, values in c.gguf_tensors().items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def decoder_case(program, directory, method, case):
    rows = [r["tokens"] for r in decoder_golden.rows()]
    write_tokens(directory / "tokens.safetensors", rows, [i % 3 for i in range(len(rows))], len(rows) - decoder.TRAINED,
                 decoder_golden.VOCAB, decoder.ANSWERS)
    write_gguf(directory / "base.gguf")
    expected = train(program, directory, case, method, "causal-lm-labels", decoder.SEED, "base.gguf")
    model = PeftModel.from_pretrained(decoder_golden.tiny_model(False), directory / "out").eval()
    return expected, np.array([decoder.label_probabilities(model, r) for r in rows[decoder.TRAINED:]])


def decoder_families(program, name):
    """Losses of rows after some steps, by the program and by PEFT."""
    model_class, config, _ = decoder_families_golden.cases()[name]
    base, _, _, _ = decoder_families_golden.made(name, model_class, config)
    rows = [decoder_families_golden.Rng(5, i).below(decoder_families_golden.VOCAB, 12).tolist() for i in range(10)]
    ids = rows[0][3:6]
    for method, lora in (("lora", {"trained_tokens": ids}), ("dora", {})):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            base.save_pretrained(folder / "hf")
            (folder / "hf" / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
            subprocess.run([pathlib.Path(program).with_name("tailor"), "models", "import", folder / "hf", "--out",
                            folder / "base.gguf", "--type", "f32"], check=True, stdout=subprocess.DEVNULL)
            write_tokens(folder / "tokens.safetensors", rows, [-1] * 10, 4, base.config.vocab_size)
            job = {"format": "tailor-tune-job", "version": 1, "task": "causal-lm", "method": method, "base": "base.gguf",
                   "tokens": "tokens.safetensors", "out": "out", "seed": 3,
                   "settings": {"max_steps": 4, "batch_size": 3, "learning_rate": 0.02, "warmup_ratio": 0, "lora": {"r": 3, **lora}}}
            (folder / "job.json").write_text(json.dumps(job))
            subprocess.run([program, folder / "job.json"], check=True, stdout=subprocess.DEVNULL)
            expected = load_file(folder / "out" / "test_predictions.safetensors")["losses"]
            fresh, _, _, _ = decoder_families_golden.made(name, model_class, config)
            model = PeftModel.from_pretrained(fresh, folder / "out").eval()
            seen = []
            for row in rows[6:]:
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([row])).logits[0]
                seen.append(float(torch.nn.functional.cross_entropy(logits[:-1].double(), torch.tensor(row[1:]), reduction="sum")))
        worst = float(np.abs(expected - np.array(seen)).max())
        print(f"{name} {method:5} largest difference of a row's loss {worst:.1e}")
        assert worst < 1e-3, name


def byte_tokenizer():
    """A tokenizer that the importer takes; no text is read."""
    vocab = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    return {"version": "1.0", "added_tokens": [], "normalizer": None, "post_processor": None, "truncation": None, "padding": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": []}}


def main(program):
    for name in peft_adapter_golden.FAMILIES:
        decoder_families(program, name)
    for name, run in (("encoder_methods", encoder_case), ("encoder_objectives", family_case), ("decoder_methods", decoder_case)):
        for method, case in json.loads((DATA / f"{name}.json").read_text()).items():
            family_lora = case.get("task") == "sequence-classification" and case["method"] == "lora"
            if "adapter_config" not in case and not (name == "encoder_objectives" and family_lora):
                continue
            if case.get("method", method) == "distill":  # learns from a teacher that only its own test has
                continue
            with tempfile.TemporaryDirectory() as directory:
                expected, seen = run(program, pathlib.Path(directory), case.get("method", method), case)
            worst = float(np.abs(expected - seen).max())
            print(f"{name} {method:16} largest difference {worst:.1e}")
            assert worst < 1e-5, method


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(str(pathlib.Path(sys.argv[1]).resolve()))
