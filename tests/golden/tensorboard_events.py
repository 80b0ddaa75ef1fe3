"""Records of TensorBoard event files, made by TensorBoard's own messages and record writer; for src/fit/tensorboard.

Run:    python tests/golden/tensorboard_events.py
Needs:  tensorboard
Writes: tests/golden/data/tensorboard_events.json
"""
import io
import json
import pathlib

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

TIME = 1700000000.25


class Kept(io.BytesIO):
    def close(self):
        pass


def framed(event):
    file = Kept()
    RecordWriter(file).write(event.SerializeToString())
    return file.getvalue().hex()


def scalars(step, values):
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values])
    return {"kind": "scalars", "time": TIME, "step": step, "values": values,
            "hex": framed(Event(wall_time=TIME, step=step, summary=summary))}


def main():
    records = [
        {"kind": "version", "time": TIME, "hex": framed(Event(wall_time=TIME, file_version="brain.Event:2"))},
        scalars(1, [["train/loss", 2.5], ["train/learning_rate", 2e-4], ["train/grad_norm", 0.0]]),
        scalars(0, [["eval/loss", 1.0]]),
        scalars(300, [["eval/loss", 0.1234567], ["eval/accuracy", 1.0], ["e" * 200, -3e38]]),
        scalars(2**40 + 5, [["train/loss", 1e-30]]),
        {"kind": "restart", "time": TIME, "step": 129,
         "hex": framed(Event(wall_time=TIME, step=129, session_log=SessionLog(status=SessionLog.START)))},
    ]
    file = pathlib.Path(__file__).parent / "data" / "tensorboard_events.json"
    file.write_text(json.dumps({"records": records}, indent=1) + "\n")


if __name__ == "__main__":
    main()
