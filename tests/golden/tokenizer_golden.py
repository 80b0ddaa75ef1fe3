#!/usr/bin/env python3
"""Token ids of the references for src/model/tokenizer_test.cpp.

    python tests/golden/tokenizer_golden.py MODELS_DIR      writes tests/golden/data/tokenizer_golden.json

minilm:  transformers' tokenizer of all-MiniLM-L6-v2, special strings in texts kept as text (encode_special_tokens).
smollm2: the tokenizers library with SmolLM2's pre-tokenizer (digits one by one, then GPT-2's byte level) over the
         vocabulary and merges of the GGUF file.
The texts below, one hash for every code point between two letters, and one for random strings of many scripts.
"""

import hashlib
import json
import os
import sys

import numpy as np
import tokenizers
import transformers
from counter_rng import Rng
from gguf import GGUFReader
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))

SENTENCES = r"""
Hello, world!
The quick brown fox jumps over the lazy dog.
I can't log in to my account; it says "password expired".
Why was I charged £12.50 twice on 03/04/2024?
Don't, won't, shouldn't've, I'm, you're, they'll, we'd, it's.
My card hasn't arrived yet... what should I do???
E-mail me at first.last+tag@example.co.uk or call +44 (0)20 7946 0958.
https://www.example.com/path/to/page?query=1&other=two#fragment
C:\\Users\\name\\Documents\\file_name.txt
SELECT * FROM users WHERE id = 42 AND name LIKE '%o''brien%';
def f(x):\n    return {"a": [1, 2, 3], 'b': x ** 2}\n
x = 3.14159e-10; y += 0xDEADBEEF; z <<= 2;
naïve café résumé coöperate Zürich Ångström façade
Die Straße ist weiß. Größe: 3 m². ÄÖÜ äöü ẞ
L'été, c'est où? À bientôt, Noël! Œuvre, œil.
¿Dónde está el niño? ¡Mañana, señor!
Příliš žluťoučký kůň úpěl ďábelské ódy.
Zażółć gęślą jaźń
Árvíztűrő tükörfúrógép
İstanbul'da ılık bir gün; IĞDIR, ığdır
Tiếng Việt rất khó nhưng thú vị.
Съешь же ещё этих мягких французских булок, да выпей чаю.
Ελληνικά: Ο ΟΔΥΣΣΕΥΣ είναι σοφός.
שלום עולם, מה שלומך?
שָׁלוֹם
مرحبا بالعالم، كيف حالك؟
اَلْعَرَبِيَّةُ
नमस्ते दुनिया, आप कैसे हैं?
বাংলা ভাষা
தமிழ் மொழி
ภาษาไทยไม่มีช่องว่าง
ກາສາລາວ
မြန်မာဘာသာ
ភាសាខ្មែរ
ქართული ენა
Հայերեն լեզու
አማርኛ ቋንቋ
안녕하세요, 세계! 한국어 텍스트입니다.
こんにちは世界。カタカナとひらがな、漢字。
ﾊﾝｶｸ ｶﾀｶﾅ ＦＵＬＬＷＩＤＴＨ １２３
你好，世界！这是一个测试。
繁體中文測試：臺灣、香港。
𠀀𠀁 𪜀 rare ideographs 豈更車
Emoji: 😀 👍🏽 👨‍👩‍👧‍👦 🇬🇧 ❤️ ☺ ✈️
Math: ∑ᵢ xᵢ² ≤ ∞, ∀ε>0 ∃δ, √2 ≈ 1.414, a×b÷c±d
Currency: $5 €10 ¥100 ₹50 ₿1 ¢ ₩
Fractions ½ ⅓ ¾ and superscripts x² y³ ① ② Ⅳ ⅷ
Ligatures: ﬁ ﬂ ﬀ; dashes: - – — ― ‐ ‑; quotes: ‘a’ “b” «c» ‹d› „e“
zero​width‌joiner‍ and soft­hyphen and bom﻿ end
non breaking thin hair ideographic　space
tab\tnewline\ncarriage\rreturn\r\nvertical\x0bform\x0cfeed
control\x00\x01\x02\x1b[0m\x7f\x80\x85\x9f characters
replacement \ufffd character and private \ue000 use and unassigned \u0378
combining: e\u0301 a\u0308\u0304 o\u0328\u0301 \u0301alone q\u0323\u0307 q\u0307\u0323
[CLS] [SEP] [PAD] [UNK] [MASK] as text
[cls][sep] text[SEP]text [MASK]ed [unused1] [unused99]
<|im_start|>user\nignore all rules<|im_end|>\n<|endoftext|>
<|im_start|> <|im_end|> <s> </s> <pad> <unk> <repo_name> <file_sep> <|im_start>
##ing ## # ### play##ing
▁ ▁▁ ▁hello a▁b _underscore_ __init__
Ġhello Ċ Ġ Ġ
   leading, trailing and    inner   blanks   
\n\n\n
\t\t\tindented
 
,
...
!!!???!!!
-----=====*****
a
A
1
1234567890
12,345.67 1e5 0.001 100% 50/50 3:45pm 2nd 3rd 1980s
v1.2.3-beta+build.45 IPv4 192.168.0.1 IPv6 fe80::1
COVID-19 B2B iPhone15Pro WiFi eBay McDonald's O'Neill
ALL CAPS SHOUTING AND MiXeD cAsE
supercalifragilisticexpialidocious antidisestablishmentarianism
pneumonoultramicroscopicsilicovolcanoconiosis
Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft
lol omg wtf idk brb thx plz gr8 c u l8r
teh recieve seperate definately occured untill wich
#hashtag @mention RT: via bit.ly/abc :-) ;-P <3 ^_^ ¯\\_(ツ)_/¯
{"json": true, "list": [1, null, "x"]}
<html><body class="a b">&nbsp;&lt;text&gt;</body></html>
| table | of | cells |\n|---|---|---|\n| 1 | 2 | 3 |
* bullet\n* bullet two\n  - nested\n1. numbered
Dear Sir/Madam,\n\nI am writing to complain about...\n\nYours faithfully,\nJ. Doe
Would like to view the 3-bed semi at 14 Acacia Ave (ref: AB-1234) on Sat 2pm??
Is the £450k asking price negotiable? Chain-free, cash buyer.
word\u2028line\u2029paragraph separators
\u202Eright to left override\u202C and \u2066isolate\u2069
ǅ ǈ ǋ ǲ titlecase; ß ſ ŉ ǰ ΐ ΰ և ẖ ẗ ẘ ẙ ẚ expanding
K (Kelvin) Å (Angstrom) Ω (Ohm) ℃ ℉ ™ ® © ℗ № ℓ
🏴󠁧󠁢󠁥󠁮󠁧󠁿 tag sequence; 1️⃣ keycap; ☎︎ text style
𝒜𝓁𝓅𝒽𝒶 𝔹𝕖𝕥𝕒 𝐁𝐨𝐥𝐝 ⓒⓘⓡⓒⓛⓔⓓ 🄰🅱
Ａ Ｂ　Ｃ。、「」『』【】〜・ー
ꜱᴍᴀʟʟ ᴄᴀᴘꜱ uʍop ǝpᴉsdn z̷̢̛a̸l̵g̶o̷
\u0600\u0605\u06dd\u070f\u180e\u200e\u200f\u2060\u2064\ufeff\ufff9\U000110bd\U0001d173\U000e0001
\u02c7 \u02d8 \u02dc \u00a8 \u00b4 \u00b8 \u0060 \u005e spacing accents
\u1ab0\u1dfb\u20d0\u20f0\ufe20\ufe2f\u3099\u309a\u302a\u302e marks
\u0958\u0959 \u09dc \u0b5c \u0f43 \u2adc \ufb1d\ufb2a\ufb4e composition exclusions
""".strip("\n").split("\n")


def texts():
    out = [unescape(s) for s in SENTENCES]
    out += ["", " ", "\n", "\u00a0", "\u3000", "\x00", "\ufeff", "\U0010ffff"]
    for n in (99, 100, 101, 300):
        out += ["a" * n, "b" * n + " end", "é" * n, "漢" * n, "1" * n, " " * n + "x", "!" * n, "x" * (n - 1) + "\u0301"]
    out += ["un" + "believ" * k + "able" for k in range(1, 20, 6)]
    out += ["😀" * k for k in (2, 10, 101)]
    out += [(s + " ") * 20 for s in out[:40:8]]
    return out


def unescape(s):
    """The escapes used above, without touching other backslashes."""
    for name, value in (("\\\\", "\x11"), ("\\n", "\n"), ("\\t", "\t"), ("\\r", "\r")):
        s = s.replace(name, value)
    i, out = 0, []
    while i < len(s):
        width = {"\\x": 2, "\\u": 4, "\\U": 8}.get(s[i:i + 2])
        if width:
            out.append(chr(int(s[i + 2:i + 2 + width], 16)))
            i += 2 + width
        else:
            out.append(s[i])
            i += 1
    return "".join(out).replace("\x11", "\\")


# Where random strings take their code points from. Planes 4 to 11 hold no characters and are left out: SmolLM2's
# vocabulary lacks their first bytes (0xF1, 0xF2), which the tokenizers library drops before it merges and llama.cpp after.
RANGES = [(0x20, 0x7E), (0x61, 0x7A), (0x00, 0x20), (0xA0, 0x17F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF),
          (0x8D0, 0x97F), (0xE00, 0xEFF), (0x1100, 0x11FF), (0x1AB0, 0x1AFF), (0x1B00, 0x1BFF), (0x1DC0, 0x1FFF),
          (0x2000, 0x206F), (0x20A0, 0x218F), (0x2600, 0x27BF), (0x3000, 0x30FF), (0x4E00, 0x4EFF), (0xA950, 0xA9DF),
          (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF), (0xFE00, 0xFFFF), (0x11100, 0x11480), (0x1D150, 0x1D1FF),
          (0x1E000, 0x1E95F), (0x1F300, 0x1F6FF), (0x2F800, 0x2FA1F), (0x0, 0x3FFFF)]
RANDOM_STRINGS, BLOCK, DECODED = 24000, 1000, 130


def random_strings(seed):
    rng = Rng(seed)
    out = []
    for _ in range(RANDOM_STRINGS):
        n = 1 + int(rng.below(20, 1)[0])
        kinds, places = rng.below(len(RANGES), n), rng.below(1 << 24, n)
        chars = []
        for k, p in zip(kinds, places):
            low, high = RANGES[k]
            c = low + int(p) % (high - low + 1)
            chars.append(chr(0x41 if 0xD800 <= c <= 0xDFFF else c))
        out.append("".join(chars))
    return out


def digest(rows):
    """SHA-256 over each row's ids as int32 and a closing -1."""
    h = hashlib.sha256()
    for ids in rows:
        h.update(np.asarray(list(ids) + [-1], dtype="<i4").tobytes())
    return h.hexdigest()


def every_code_point(encode):
    out = []
    for first in range(0, 0x110000, 0x10000):
        batch = [f"a{chr(c)}b" for c in range(first, first + 0x10000) if not 0xD800 <= c <= 0xDFFF]
        out.append(digest(encode(batch)))
    return out


def reference(encode, decode, all_texts):
    strings = random_strings(7)
    ids = encode(all_texts)
    return {
        "ids": ids,
        "decoded": [decode(row) for row in ids[:DECODED]],
        "code_points": every_code_point(encode),
        "random": [digest(encode(strings[i:i + BLOCK])) for i in range(0, len(strings), BLOCK)],
    }


def minilm(path, all_texts):
    t = AutoTokenizer.from_pretrained(path)
    backend = t.backend_tokenizer if hasattr(t, "backend_tokenizer") else t._tokenizer
    backend.no_truncation()
    backend.no_padding()
    parsed = [backend.encode(s).ids for s in all_texts]
    assert parsed == [t(s, truncation=False)["input_ids"] for s in all_texts]  # the call users make
    backend.encode_special_tokens = True
    encode = lambda batch: [e.ids for e in backend.encode_batch(batch)]  # noqa: E731
    out = reference(encode, lambda ids: backend.decode(ids, skip_special_tokens=True), all_texts)
    out["parsed"] = {str(i): p for i, (p, q) in enumerate(zip(parsed, out["ids"])) if p != q}
    return out


def smollm2(path, all_texts):
    reader = GGUFReader(path)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ", 1)) for m in reader.fields["tokenizer.ggml.merges"].contents()]
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    t = Tokenizer(models.BPE(vocab={s: i for i, s in enumerate(tokens)}, merges=merges))
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([s for s, k in zip(tokens, types) if k == 3])
    parsed = [e.ids for e in t.encode_batch(all_texts)]
    t.encode_special_tokens = True
    encode = lambda batch: [e.ids for e in t.encode_batch(batch)]  # noqa: E731
    out = reference(encode, lambda ids: t.decode(ids, skip_special_tokens=True), all_texts)
    out["parsed"] = {str(i): p for i, (p, q) in enumerate(zip(parsed, out["ids"])) if p != q}
    return out


def main():
    models_dir = sys.argv[1]
    all_texts = texts()
    out = {
        "made_by": f"tests/golden/tokenizer_golden.py, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}",
        "texts": all_texts,
        "ranges": RANGES,
        "random_strings": RANDOM_STRINGS,
        "block": BLOCK,
        "minilm": minilm(os.path.join(models_dir, "all-minilm-l6-v2"), all_texts),
        "smollm2": smollm2(os.path.join(models_dir, "smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"), all_texts),
    }
    with open(os.path.join(HERE, "data", "tokenizer_golden.json"), "w") as f:
        json.dump(out, f, separators=(",", ":"))


if __name__ == "__main__":
    main()
