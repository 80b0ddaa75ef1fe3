"""Token ids of decoders' tokenizers: byte-level BPE under every pre-tokenizer that is imported, and SentencePiece BPE.

Run:    python tests/golden/decoder_tokenizer_golden.py
Writes: tests/golden/data/decoder_tokenizer.json
Needs:  tokenizers, transformers, sentencepiece, and those of tokenizer_golden.py

byte_level: one tokenizer.json (Falcon has its own), and for each pre-tokenizer its JSON (as the library writes it), the model's
            ignore_merges and the ids of `texts`. Special strings in texts are parsed, as transformers does.
pieces:     a SentencePiece model (base64) of the library itself, the files that transformers makes of it as a Llama
            and as a Gemma tokenizer, and the ids of `texts` from each (BOS included where the tokenizer adds it).
The trainers are deterministic for a version; what is stored already stays.
"""

import base64
import json
import pathlib
import tempfile

import sentencepiece
import tokenizers
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizers.pre_tokenizers import ByteLevel, Digits, Punctuation, Split
from transformers import AutoTokenizer

from tokenizer_golden import texts as many_texts

OUT = pathlib.Path(__file__).parent / "data" / "decoder_tokenizer.json"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN = (rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*|\p{{N}}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+{ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*{ENDINGS}"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"

TEXTS = ["Hello, world!", "I can't, won't and SHOULDN'T've; we'll see it's Fine.", " leading and trailing ",
         "tabs\tand\nnew\n\nlines\r\n  end", "1 12 123 1234 12345 3.14 1,000,000", "a  b   c    d", "naïve café Zürich Straße",
         "Съешь же ещё этих мягких булок", "日本語のテキストと漢字。", "emoji 😀👍🏽 and ❤️", "x = [1, 2]; y != {z: 'q'} // #!",
         "CamelCase HTTPServer iPhone15Pro", "", " ", "\n", "The quick brown fox jumps over the lazy dog. " * 2,
         "<|im_start|>user\nHi<|im_end|>\n", "call <tool> now", "e\u0301 is not \u00e9", "مرحبا بالعالم، كيف حالك؟",
         "What is the weather like today? Is it raining...", "£12.50 – “quoted” text—dash", "I've been, IT'S 'quoted'"]


def pre(*steps):
    return steps[0] if len(steps) == 1 else pre_tokenizers.Sequence(list(steps))


def split(pattern):
    return Split(Regex(pattern), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)


CASES = {
    "gpt-2": (pre(ByteLevel(add_prefix_space=False)), False),
    "smollm": (pre(Digits(individual_digits=True), ByteLevel(add_prefix_space=False)), False),
    "falcon": (pre(Punctuation("contiguous"), ByteLevel(add_prefix_space=False), Digits(individual_digits=False),
                   Split(Regex("[0-9][0-9][0-9]"), "isolated")), False),
    "bloom": (pre(*split(BLOOM)), False),
    "qwen2": (pre(*split(QWEN2)), False),
    "llama-bpe": (pre(*split(LLAMA3)), True),
    "smaug-bpe": (pre(*split(LLAMA3)), False),
    "tekken": (pre(*split(TEKKEN)), True),
    "gpt-4o": (pre(*split(GPT4O)), False),
}


def trained(step):
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = step
    tok.decoder = decoders.ByteLevel()
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=ByteLevel.alphabet(), show_progress=False,
                                  special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tok.train_from_iterator(many_texts() + TEXTS, trainer)
    tok.add_tokens(["<tool>"])
    return json.loads(tok.to_str())


def byte_level(kept):
    """Falcon has a vocabulary of its own: llama.cpp's pattern keeps a blank before a number, where Falcon's splits, and
    both agree because no token of a vocabulary that was trained so joins the two."""
    shared = kept["tokenizer"] if kept else trained(ByteLevel(add_prefix_space=False))
    cases = {}
    for name, (step, ignore_merges) in CASES.items():
        own = None
        if name == "falcon":
            own = kept["cases"][name].get("tokenizer") if kept else None
            own = own or trained(step)
        tok = Tokenizer.from_str(json.dumps(own or shared))
        tok.pre_tokenizer = step
        changed = json.loads(tok.to_str())
        changed["model"]["ignore_merges"] = ignore_merges
        tok = Tokenizer.from_str(json.dumps(changed))
        cases[name] = {"pre_tokenizer": changed["pre_tokenizer"], "ignore_merges": ignore_merges,
                       "ids": [tok.encode(t).ids for t in TEXTS], **({"tokenizer": own} if own else {})}
    return {"tokenizer": shared, "cases": cases}


def train_pieces(folder):
    latin = [t for t in many_texts() if all(ord(c) < 0x250 for c in t) and len(t) < 2000]
    (folder / "text.txt").write_text("\n".join(latin + TEXTS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "m"), model_type="bpe", vocab_size=620,
        character_coverage=0.99, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=True,
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True, num_threads=1)
    return (folder / "m.model").read_bytes()


def converted(model, settings):
    """The files transformers makes of a tokenizer.model, and its ids."""
    with tempfile.TemporaryDirectory() as a:
        folder = pathlib.Path(a)
        (folder / "tokenizer.model").write_bytes(model)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        tok = AutoTokenizer.from_pretrained(folder)
        with tempfile.TemporaryDirectory() as b:
            tok.save_pretrained(b)
            files = {p.name: json.loads(p.read_text()) for p in sorted(pathlib.Path(b).glob("*.json"))}
        return {"files": files, "ids": [tok(t)["input_ids"] for t in TEXTS]}


def pieces(kept):
    with tempfile.TemporaryDirectory() as a:
        model = base64.b64decode(kept) if kept else train_pieces(pathlib.Path(a))
    own = sentencepiece.SentencePieceProcessor(model_proto=model)
    common = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {"model": base64.b64encode(model).decode(),
            "ids": [own.encode(t) for t in TEXTS],
            "llama": converted(model, {**common, "tokenizer_class": "LlamaTokenizer"})}


def main():
    kept = json.loads(OUT.read_text()) if OUT.exists() else None
    out = {
        "made_by": f"tests/golden/decoder_tokenizer_golden.py, tokenizers {tokenizers.__version__}, "
                   f"transformers {transformers.__version__}, sentencepiece {sentencepiece.__version__}",
        "texts": TEXTS,
        "byte_level": byte_level(kept and kept["byte_level"]),
        "pieces": pieces(kept and kept["pieces"]["model"]),
    }
    OUT.write_text(json.dumps(out, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(OUT.stat().st_size)


if __name__ == "__main__":
    main()
