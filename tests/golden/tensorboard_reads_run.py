"""Reads a run of `tailor tune` with TensorBoard's own reader and holds it against train_log.jsonl.

Run:    python tests/golden/tensorboard_reads_run.py runs/lora       by hand, and by a test where tensorboard is there
Needs:  tensorboard
"""
import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

TAGS = {"train/loss": ("step", "loss"), "train/learning_rate": ("step", "learning_rate"),
        "train/grad_norm": ("step", "gradient_norm"), "eval/loss": ("evaluation", "loss"),
        "eval/accuracy": ("evaluation", "accuracy"), "eval/macro_f1": ("evaluation", "macro_f1")}


def as_f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def main():
    run = Path(sys.argv[1])
    log = [json.loads(line) for line in (run / "train_log.jsonl").read_text().splitlines()]
    files = sorted((run / "tensorboard").iterdir())
    seen = {}
    for file in files:
        for record in RawEventFileLoader(str(file)).Load():
            event = Event.FromString(record)
            for value in event.summary.value:
                seen.setdefault((value.tag, event.step), []).append(value.simple_value)
    twice = [key for key, values in seen.items() if len(values) > 1]
    assert not twice, f"written twice: {twice[:5]}"
    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    tags = set(reader.Tags()["scalars"])
    for tag, (kind, key) in TAGS.items():
        wanted = [(e["step"], as_f32(e[key])) for e in log
                  if e["event"] == kind and isinstance(e.get(key), (int, float)) and math.isfinite(e[key])]
        if tag not in tags and tag.startswith("eval/"):
            continue  # without validation rows, or texts, whose only metric is the loss
        got = [(e.step, e.value) for e in reader.Scalars(tag)]
        assert got == wanted, f"{tag}: {got[:3]} … against {wanted[:3]} …, {len(got)} and {len(wanted)} points"
        print(f"{tag}: {len(got)} points")
    print(f"train/tokens_per_second: {len(reader.Scalars('train/tokens_per_second'))} points")
    print(f"{len(files)} file(s): as train_log.jsonl says, no step twice")


if __name__ == "__main__":
    main()
