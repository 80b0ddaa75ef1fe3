"""Reference ids and embeddings of a tiny DistilBERT, a tiny RoBERTa and a tiny ModernBERT, from transformers.

Run:    python tests/golden/encoder_family_golden.py
Writes: tests/golden/data/encoder_family.json
Needs:  torch, transformers, tokenizers, numpy, gguf

The vocabularies are trained here on the texts of tokenizer_golden.py and stored, with transformers' own config.json and
tokenizer files. The weights come from counter_rng.py, as src/model/test_encoder_family.h makes them: the tensors in
the order of `tensor_names`, tensor i from Rng(seed, i). Texts are those of tokenizer_golden.json, in that order; `ids`
are of the whole text, special strings kept as text; `vectors` are means over the last hidden states of all tokens of
the text cut to the model's positions, divided by their length.
"""

import json
import math
import pathlib
import tempfile

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import AddedToken, BertWordPieceTokenizer, ByteLevelBPETokenizer, Tokenizer, decoders, models
from tokenizers import normalizers, pre_tokenizers, processors, trainers
from transformers import (AutoTokenizer, DistilBertConfig, DistilBertModel, DistilBertTokenizer, ModernBertConfig,
                          ModernBertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel, RobertaTokenizer)

from counter_rng import Rng
from tokenizer_golden import reference, texts

OUT = pathlib.Path(__file__).parent / "data" / "encoder_family.json"
EMBEDDED = 60  # texts with a reference vector
WIDTH, INNER, LAYERS, HEADS, POSITIONS = 32, 64, 2, 4, 48
WINDOW = 12  # of ModernBERT: a token sees 6 tokens to either side, most texts are longer


def fill(model, seed):
    """Fills the tensors in the order of the state dict; returns their names and shapes."""
    state = model.state_dict()
    for i, (name, tensor) in enumerate(state.items()):
        values = 0.2 * Rng(seed, i).normal(math.prod(tensor.shape)).reshape(tuple(tensor.shape))
        if "norm" in name.lower() and name.endswith(".weight"):
            values = values + 1
        state[name] = torch.tensor(values.astype(np.float32))
    model.load_state_dict(state, strict=True)
    return [[name, list(tensor.shape)] for name, tensor in state.items()]


def vectors(model, ids, last):
    rows = []
    for row in ids[:EMBEDDED]:
        cut = row if len(row) <= POSITIONS else row[:POSITIONS - 1] + [last]
        with torch.no_grad():
            states = model(input_ids=torch.tensor([cut]), attention_mask=torch.ones(1, len(cut), dtype=torch.long))
        mean = states.last_hidden_state[0].double().mean(0)
        rows.append([round(x, 6) for x in (mean / mean.norm()).tolist()])
    return rows


def tokens_of(tokenizer, all_texts):
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    parsed = [backend.encode(s).ids for s in all_texts]
    backend.encode_special_tokens = True
    encode = lambda batch: [e.ids for e in backend.encode_batch(batch)]  # noqa: E731
    out = reference(encode, lambda ids: backend.decode(ids, skip_special_tokens=True), all_texts)
    out["code_points"] = out["code_points"][:1]
    out["parsed"] = {str(i): p for i, (p, q) in enumerate(zip(parsed, out["ids"])) if p != q}
    return out


def saved(folder, thing):
    """What save_pretrained writes, JSON files by name. vocab.json is left out: tokenizer.json holds the same."""
    thing.save_pretrained(folder)
    return {p.name: json.loads(p.read_text()) for p in sorted(folder.glob("*.json")) if p.name != "vocab.json"}


def word_pieces(all_texts):
    """The trainer breaks ties at random, so a vocabulary that is stored already stays."""
    if OUT.exists():
        return json.loads(OUT.read_text())["distilbert"]["vocab"]
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(all_texts, vocab_size=500, min_frequency=2, limit_alphabet=180)
    return [w for w, _ in sorted(trainer.get_vocab().items(), key=lambda item: item[1])]


def distilbert(all_texts, folder):
    words = word_pieces(all_texts)
    (folder / "vocab.txt").write_text("".join(w + "\n" for w in words))
    tokenizer = DistilBertTokenizer.from_pretrained(folder)
    config = DistilBertConfig(vocab_size=len(words), dim=WIDTH, hidden_dim=INNER, n_layers=LAYERS, n_heads=HEADS,
                              max_position_embeddings=POSITIONS, architectures=["DistilBertModel"])
    model = DistilBertModel(config).eval()
    names = fill(model, 21)
    tokens = tokens_of(tokenizer, all_texts)
    return {"vocab": words, "files": saved(folder, config), "tensor_names": names, "seed": 21, **tokens,
            "vectors": vectors(model, tokens["ids"], tokenizer.sep_token_id)}


def roberta(all_texts, folder):
    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(all_texts, vocab_size=600, min_frequency=2,
                                special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    trainer.save_model(str(folder))  # vocab.json, merges.txt
    plain = RobertaTokenizer.from_pretrained(folder)
    with_space = RobertaTokenizer.from_pretrained(folder, add_prefix_space=True)
    tokens = tokens_of(plain, all_texts)
    tokenizer_files = saved(folder, plain)
    # The same ids from tokenizer.json.
    assert tokens_of(AutoTokenizer.from_pretrained(folder), all_texts[:30])["ids"] == tokens["ids"][:30]
    # Eight rows of the embedding have no token, as in models that pad it.
    config = RobertaConfig(vocab_size=608, hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
                           num_attention_heads=HEADS, max_position_embeddings=POSITIONS + 2, type_vocab_size=1,
                           layer_norm_eps=1e-5, architectures=["RobertaModel"])
    model = RobertaModel(config, add_pooling_layer=False).eval()
    names = fill(model, 22)
    spaced = tokens_of(with_space, all_texts)["ids"]
    return {"files": {**tokenizer_files, **saved(folder, config)}, "tensor_names": names, "seed": 22, **tokens,
            "with_prefix_space": spaced[:40], "vectors": vectors(model, tokens["ids"], 2)}


def modernbert(all_texts, folder):
    """The tokenizer is built as that of the published models: NFC, GPT-2's pattern, and besides the special tokens some
    added ones that are part of a text, among them runs of blanks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(all_texts, trainers.BpeTrainer(
        vocab_size=600, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (4, 3, 2)])
    tokenizer.add_tokens([AddedToken("|||EMAIL_ADDRESS|||", normalized=True)])
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    tokenizer.add_special_tokens([AddedToken(n, normalized=False) for n in names])
    tokenizer.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken(f"[unused{i}]", normalized=True) for i in range(3)])
    ids = {n: tokenizer.token_to_id(n) for n in names}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
                                   pad_token="[PAD]", mask_token="[MASK]", clean_up_tokenization_spaces=False)
    config = ModernBertConfig(vocab_size=tokenizer.get_vocab_size() + 4, hidden_size=WIDTH, intermediate_size=INNER,
                              num_hidden_layers=4, num_attention_heads=HEADS, max_position_embeddings=POSITIONS,
                              local_attention=WINDOW, pad_token_id=ids["[PAD]"], bos_token_id=ids["[CLS]"],
                              eos_token_id=ids["[SEP]"], cls_token_id=ids["[CLS]"], sep_token_id=ids["[SEP]"],
                              classifier_pooling="mean", architectures=["ModernBertModel"])
    model = ModernBertModel(config).eval()
    tensor_names = fill(model, 23)
    tokens = tokens_of(fast, all_texts)
    files = saved(folder, fast)
    pairs = fast.backend_tokenizer
    return {"files": {**files, **saved(folder, config)}, "tensor_names": tensor_names, "seed": 23, **tokens,
            "pair": pairs.encode("one two", "three").ids, "vectors": vectors(model, tokens["ids"], ids["[SEP]"])}


def main():
    all_texts = texts()
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b, \
            tempfile.TemporaryDirectory() as c:
        out = {
            "made_by": f"tests/golden/encoder_family_golden.py, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}",
            "distilbert": distilbert(all_texts, pathlib.Path(a)),
            "roberta": roberta(all_texts, pathlib.Path(b)),
            "modernbert": modernbert(all_texts, pathlib.Path(c)),
        }
    OUT.write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
