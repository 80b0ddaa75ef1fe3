"""Reference for fold() and duplicate_key() of src/text/unicode: Python's unicodedata.

Run:    python tests/golden/text_folding.py
Writes: tests/golden/data/text_folding.json   [{"text": ..., "nfc": ..., "fold": ..., "key": ...}, ...]
"""
import json
import pathlib
import unicodedata

TEXTS = [
    "Hello World", "Straße", "STRASSE", "ﬁne oﬀer", "Ｆｕｌｌ　ｗｉｄｔｈ １２３", "cafe\u0301", "café", "İstanbul", "ǅ", "Ω Ω", "½ m²",
    "x\u00ady\u200bz", "A\u00a0B\u2003C", "don\u2019t \u201cstop\u201d \u2013 now", "ΣΊΣΥΦΟΣ", "각\u1112\u1161\u11ab", "日本語　テキスト ｶﾞ",
    "tab\there\r\nand  there ", "①②", "ﷺ", "né̈e", "👍🏽 ok", "Ａ\u0301", "\ufeffmark",
]
PLAIN = {**{c: "'" for c in "\u2018\u2019\u201b\u02bc"}, **{c: '"' for c in "\u201c\u201d\u201f"},
         **{chr(c): "-" for c in [*range(0x2010, 0x2016), 0x2212]}}
IGNORABLE = {"\u00ad", "\u200b", "\u200c", "\u200d", "\ufeff", "\ufe0f"}


def fold(text):
    text = "".join(c for c in text if c not in IGNORABLE)
    for _ in range(2):
        text = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", text).casefold())
    return "".join(PLAIN.get(c, c) for c in text)


rows = [{"text": t, "nfc": unicodedata.normalize("NFC", t), "fold": fold(t), "key": " ".join(fold(t).split())} for t in TEXTS]
path = pathlib.Path(__file__).parent / "data" / "text_folding.json"
path.write_text(json.dumps(rows, ensure_ascii=True, indent=0) + "\n")
