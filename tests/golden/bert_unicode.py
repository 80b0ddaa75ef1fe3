#!/usr/bin/env python3
"""Makes src/model/bert_unicode_data.inc: what the tokenizers library's BertNormalizer and BertPreTokenizer do to each
Unicode code point, as tables. Their Unicode versions differ from ICU's and from llama.cpp's; taking the answers from the
library itself makes our WordPiece tokenizer equal to it.

Run: python tests/golden/bert_unicode.py > src/model/bert_unicode_data.inc      (needs: tokenizers)
"""
import unicodedata

import tokenizers
from tokenizers import normalizers, pre_tokenizers


def bert(**on):
    flags = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**flags, **on})


def ranges(code_points):
    out = []
    for c in code_points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def print_ranges(name, comment, code_points):
    print(f"// {comment}")
    print(f"constexpr CodePointRange {name}[] = {{")
    cells = [f"{{0x{a:X}, 0x{b:X}}}," for a, b in ranges(code_points)]
    for i in range(0, len(cells), 6):
        print("    " + " ".join(cells[i:i + 6]))
    print("};")


def print_map(name, comment, mapping):
    """code point -> up to 4 code points; the entries are sorted."""
    print(f"// {comment}")
    print(f"constexpr CodePointMapping {name}[] = {{")
    cells = []
    for c, text in sorted(mapping.items()):
        assert 1 <= len(text) <= 4, hex(c)
        cells.append(f"{{0x{c:X}, {{" + ", ".join(f"0x{ord(t):X}" for t in text) + "}},")
    for i in range(0, len(cells), 4):
        print("    " + " ".join(cells[i:i + 4]))
    print("};")


def main():
    clean, strip, lower = bert(clean_text=True), bert(strip_accents=True), bert(lowercase=True)
    nfd, pre = normalizers.NFD(), pre_tokenizers.BertPreTokenizer()
    removed, blank, white, punctuation = [], [], [], []
    stripped, lowered, marks, mark_starters, survivors = {}, {}, [], [], []
    for c in range(0x110000):
        if 0xD800 <= c <= 0xDFFF:
            continue
        ch = chr(c)
        r = clean.normalize_str(ch)
        assert r in ("", " ", ch)
        if r == "":
            removed.append(c)
        elif r == " ":
            blank.append(c)
        pieces = [p for p, _ in pre.pre_tokenize_str("a" + ch + "a")]
        if pieces == ["a", "a"]:
            white.append(c)
        elif pieces == ["a", ch, "a"]:
            punctuation.append(c)
        else:
            assert pieces == ["a" + ch + "a"]
        s = strip.normalize_str(ch)
        # Whether canonical ordering moves this mark: U+0334 has class 1, the lowest.
        moves = nfd.normalize_str(ch + "\u0334") == "\u0334" + ch
        if s == "":
            (marks if moves or nfd.normalize_str("\u0301" + ch) != "\u0301" + ch or unicodedata.combining(ch)
             else mark_starters).append(c)
        elif s != ch and not 0xAC00 <= c <= 0xD7A3:
            stripped[c] = s
        if s == ch and moves:
            survivors.append((c, unicodedata.combining(ch)))
        low = lower.normalize_str(ch)
        if low != ch:
            lowered[c] = low
    print(f"// Made by tests/golden/bert_unicode.py with tokenizers {tokenizers.__version__}; do not edit.")
    print_ranges("kRemoved", "clean_text drops these.", removed)
    print_ranges("kBlank", "clean_text turns these into a blank.", blank)
    print_ranges("kWhite", "These separate words.", white)
    print_ranges("kPunctuation", "These are words of their own.", punctuation)
    print_ranges("kMarks", "strip_accents drops these; canonical ordering may move them.", marks)
    print_ranges("kMarkStarters", "strip_accents drops these; they end a run of marks.", mark_starters)
    print_map("kStripped", "strip_accents: canonical decomposition without marks (Hangul syllables are computed).", stripped)
    print_map("kLowered", "lowercase.", lowered)
    print("// Marks that strip_accents keeps, with their canonical combining class.")
    print("constexpr CombiningClass kKeptMarks[] = {")
    for i in range(0, len(survivors), 8):
        print("    " + " ".join(f"{{0x{c:X}, {k}}}," for c, k in survivors[i:i + 8]))
    print("};")


if __name__ == "__main__":
    main()
