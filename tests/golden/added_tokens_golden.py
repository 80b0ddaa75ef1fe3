"""Tokens that are added to a decoder, by transformers: ids of texts, first values of the new rows.

Run:    python tests/golden/added_tokens_golden.py
Writes: tests/golden/data/added_tokens.json
Needs:  torch, transformers, tokenizers, numpy

`ids`: the tokenizers of decoder_tokenizer.json (GPT-2's pre-tokenizer, and LLaMA's pieces) with TOKENS added, as
tokenizer.add_tokens() does of AddedToken(normalized=False). `models`: of decoder_family_golden.py, after
resize_token_embeddings(vocabulary + 3): how far its new rows are from the mean of the old ones.
"""

import json
import pathlib
import tempfile

import torch
import transformers
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

import decoder_family_golden as family

DATA = pathlib.Path(__file__).parent / "data"
TOKENS = ["<part>", "</part>", "<part", "Zürich-1"]  # one is the beginning of another
TEXTS = ["a <part> b</part> c", "<part><part>x", "no token <par t>", "in Zürich-1 and Zürich-12, not Zürich",
         "end <part>", "<part", "A</part>B", "\n<part>\n</part>\n", "<part>1</part>"]
MODELS = ("llama", "qwen3", "gpt2")


def added(tokenizer):
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in TOKENS])
    return tokenizer


def ids():
    kept = json.loads((DATA / "decoder_tokenizer.json").read_text())
    plain = kept["byte_level"]["tokenizer"] | {"pre_tokenizer": kept["byte_level"]["cases"]["gpt-2"]["pre_tokenizer"]}
    byte_level = added(Tokenizer.from_str(json.dumps(plain)))
    with tempfile.TemporaryDirectory() as folder:
        for name, value in kept["pieces"]["llama"]["files"].items():
            pathlib.Path(folder, name).write_text(json.dumps(value))
        pieces = added(AutoTokenizer.from_pretrained(folder))
    return {"byte_level": [byte_level.encode(t).ids for t in TEXTS], "pieces": [pieces(t)["input_ids"] for t in TEXTS]}


def model(name):
    model_class, config, _ = family.cases()[name]
    made, _, _, _ = family.made(name, model_class, config)
    words = made.get_input_embeddings().weight.detach().clone()
    output = made.get_output_embeddings().weight.detach().clone()
    made.resize_token_embeddings(len(words) + 3)
    tied = made.get_input_embeddings().weight is made.get_output_embeddings().weight
    far = 0.0
    with torch.no_grad():
        for table, old in ((made.get_input_embeddings().weight, words), (made.get_output_embeddings().weight, output)):
            far = max(far, float((table[len(old):] - old.mean(0)).abs().max()))
    return {"tied": tied, "from_the_mean": far}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    out = {"made_by": f"tests/golden/added_tokens_golden.py, transformers {transformers.__version__}", "tokens": TOKENS,
           "texts": TEXTS, "ids": ids(), "models": {name: model(name) for name in MODELS}}
    for name, values in out["models"].items():
        print(name, values["tied"], values["from_the_mean"])
    (DATA / "added_tokens.json").write_text(json.dumps(out, separators=(",", ":"), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
