"""Reference values for src/infer: next-token logits of SmolLM2 and embeddings of MiniLM.

Run:    TAILOR_MODELS_DIR=... python tests/golden/infer_golden.py
Needs:  torch, transformers, gguf, sentence-transformers
Writes: tests/golden/data/infer_logits.json   the GGUF file's weights dequantised to f32 by transformers
        tests/golden/data/infer_minilm.json   sentence-transformers, normalised, six digits
"""

import json
import os
import pathlib

import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForCausalLM, AutoTokenizer

DATA = pathlib.Path(__file__).parent / "data"
MODELS = pathlib.Path(os.environ["TAILOR_MODELS_DIR"])

PROMPTS = [
    "The capital of France is",
    "Classify the customer's message.\nMessage: My card has not arrived yet\nLabel:",
    "Once upon a time",
    "def add(a, b):\n    return",
    "I was charged twice for the same transfer, 25.30 €, on 3 May. What happened?",
]

TEXTS = [
    "Where is my viewing appointment?",
    "The heating in flat 12 has been cold since Monday.",
    "I am still waiting on my card",
    "my top-up didn't go through!!",
    "Könnten Sie mir bitte die Unterlagen schicken?",
    "ok",
    "",
    "Is the two-bedroom house on Elm Street still available, and may we bring our dog?",
    "Please cancel my contract at the end of the month.",
    "HELLO???",
    "The estate agent never called back. " * 20,
    "1234567890 0815 +49 30 1234-56",
    "price: $1,250.00 / month (incl. bills)",
    "日本語のテキスト",
    "naïve café, résumé, coöperate",
    "Can I pay the deposit in two instalments?",
    "I want to sell my flat. How much is it worth?",
    "a b c d e f g h i j k l m n o p",
    "https://example.com/listing?id=42&lang=en",
    "The quick brown fox jumps over the lazy dog.",
]


def logits():
    folder, name = MODELS / "smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager").eval()
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            out = model(torch.tensor([ids])).logits[0, -1].double()
        # The 32 highest, and 32 spread over the vocabulary.
        chosen = out.topk(32).indices.tolist() + [i * (len(out) // 32) for i in range(32)]
        rows.append({"prompt": prompt, "tokens": ids, "log_sum_exp": round(out.logsumexp(0).item(), 6),
                     "logits": [[i, round(out[i].item(), 6)] for i in chosen]})
    (DATA / "infer_logits.json").write_text(json.dumps({"prompts": rows}, ensure_ascii=False, indent=None) + "\n")


def embeddings():
    model = SentenceTransformer(str(MODELS / "all-minilm-l6-v2"), device="cpu")
    vectors = model.encode(TEXTS, normalize_embeddings=True)
    rows = [{"text": t, "vector": [round(float(x), 6) for x in v]} for t, v in zip(TEXTS, vectors)]
    (DATA / "infer_minilm.json").write_text(json.dumps({"texts": rows}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    DATA.mkdir(exist_ok=True)
    embeddings()
    logits()
