"""Texts to tokens on disk with `datasets` and a fast tokenizer of `tokenizers`, as training scripts do it.

Run:    python tokenise_rows.py --tokenizer DIR [--gguf FILE] --rows rows.tsv --out DIR --processes 2 --compare tokens.safetensors
Rows as bench_tokenise_rows reads them. Reading the rows into Arrow is not timed. Without --gguf the texts, with it
"instruction, message, answer's cue" as bench_tokenise_rows makes it. --processes 0: one process whose tokenizer has threads
of its own. --compare: rows whose tokens differ from those of a token file are counted, which is not timed; a prompt may end
earlier there, where the label begins. Prints one JSON line.
"""

import argparse
import json
import os
import resource
import shutil
import time

PROMPT = "Classify the customer's message.\nMessage: {}\nLabel:"  # of `tailor tune`


def usage():
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def differing(rows, file):
    import numpy as np
    from safetensors.numpy import load_file
    ours = load_file(file)
    column = rows.data.table.column("input_ids").combine_chunks()
    theirs, begins = column.values.to_numpy(), column.offsets.to_numpy().astype(np.int64)
    lengths, their_lengths = np.diff(ours["offsets"]), np.diff(begins)
    cut = int((their_lengths - lengths).max())
    if len(lengths) != len(their_lengths) or cut > 4:
        return max(len(lengths), len(their_lengths))
    wrong = their_lengths - lengths != cut
    row = np.repeat(np.arange(len(lengths)), lengths)
    place = np.minimum(begins[row] + np.arange(len(row)) - ours["offsets"][row], len(theirs) - 1)
    wrong[row[theirs[place] != ours["tokens"]]] = True
    return int(wrong.sum())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--gguf")
    parser.add_argument("--rows", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--compare", required=True)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if arguments.processes == 0 else "false"
    os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets
    from transformers import AutoTokenizer
    datasets.disable_progress_bars()
    datasets.disable_caching()

    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer, **({"gguf_file": arguments.gguf} if arguments.gguf else {}))
    labels, texts = [], []
    with open(arguments.rows, encoding="utf-8", newline="\n") as file:
        for line in file:
            label, text = line.rstrip("\n").split("\t", 1)
            labels.append(int(label))
            texts.append(text)
    shutil.rmtree(arguments.out, ignore_errors=True)
    datasets.Dataset.from_dict({"text": texts, "label": labels}).save_to_disk(arguments.out + "/rows")
    del labels, texts
    rows = datasets.load_from_disk(arguments.out + "/rows")

    def encoded(batch):
        texts = [PROMPT.format(t) for t in batch["text"]] if arguments.gguf else batch["text"]
        return {"input_ids": tokenizer(texts, truncation=True, max_length=256, return_attention_mask=False,
                                       return_token_type_ids=False)["input_ids"]}

    cpu, wall = usage(), time.perf_counter()
    tokens = rows.map(encoded, batched=True, remove_columns=["text"], num_proc=arguments.processes or None,
                      cache_file_name=arguments.out + "/tokens.arrow")
    wall, cpu = time.perf_counter() - wall, usage() - cpu
    n = len(tokens)
    print(json.dumps({"rows": n, "cpu_seconds": round(cpu, 2), "wall_seconds": round(wall, 2), "rows_per_cpu_second": round(n / cpu),
                      "rows_per_second": round(n / wall), "differing": differing(tokens, arguments.compare)}))


if __name__ == "__main__":
    main()
