"""What all parts of scripts/bench.py share: the run's directory, programs, peers and data."""
import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("TAILOR_CACHE") or Path.home() / ".cache" / "tailor")
MODELS = Path(os.environ.get("TAILOR_MODELS_DIR") or CACHE / "deps" / "models")
MINILM, SMOLLM2 = MODELS / "all-minilm-l6-v2", MODELS / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PEERS = TREE / "benchmarks" / "peers"
THREADS = str(len(os.sched_getaffinity(0)))


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


class Bench:
    def __init__(self, arguments):
        self.build, self.data, self.smoke, self.minutes = arguments.build, arguments.data, arguments.smoke, arguments.minutes
        # By commit: an interrupted benchmark goes on, and figures of another version are not taken for this one's.
        self.out = TREE / "build" / ("bench-smoke" if self.smoke else f"bench-{commit()}")
        if self.smoke:
            shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True, exist_ok=True)
        self.python = CACHE / "peers" / "bin" / "python"

    def run(self, command, quiet=False, accept=(0,)):
        """Runs a command, shown as one would type it; its last line of output."""
        return self.output(command, quiet, accept)[-1]

    def output(self, command, quiet=False, accept=(0,)):
        """The same; all lines of output."""
        print("$ " + " ".join(str(c).replace(str(TREE) + "/", "") for c in command), flush=True)
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, cwd=TREE, check=False)
        if done.returncode not in accept:
            raise Failed(f"{Path(str(command[0])).name} ended with {done.returncode}")
        lines = done.stdout.strip().splitlines() or [""]
        if not quiet:
            print("  " + lines[-1], flush=True)
        return lines

    def peer(self, command):
        """The same of a peer; None in a smoke run, which has none."""
        return None if self.smoke else self.run([self.python, *command])

    def program(self, name):
        path = self.build / "benchmarks" / f"bench_{name}"
        if not path.exists():
            raise Skipped(f"bench_{name} is not built")
        return path

    def rows(self, part="train"):
        """(text, label) of Banking77, or of the example in a smoke run."""
        source, text, label = (TREE / "examples/estate-agency/inquiries.csv", "message", "intent") if self.smoke else \
            (self.data / "banking77" / f"{part}.csv", "text", "label")
        with open(source, newline="", encoding="utf-8") as file:
            rows = [(" ".join(r[text].split()), r[label]) for r in csv.DictReader(file)]
        return rows[:24] if self.smoke else rows

    def lines(self, name, values):
        path = self.out / name
        path.write_text("".join(v + "\n" for v in values), encoding="utf-8")
        return path

    def fit(self, name, arguments, budget, seed=0):
        """A run of `tailor fit`; its result.json. A finished one is not run again."""
        out = self.out / f"fit-{name}"
        if not (out / "result.json").exists():
            resume = (out / "run.json").exists()
            command = ["--resume", out] if resume else [*arguments, "--budget", budget, "--seed", str(seed), "--out", out]
            self.run([self.build / "bin" / "tailor", "fit", *command, "--quiet"], quiet=True)
        return json.loads((out / "result.json").read_text())

    def imported(self, stem, suffix):
        """A model as `fit` imported it into the cache."""
        self.import_models()
        found = sorted((CACHE / "imported").glob(f"{stem}-*-{suffix}.gguf"))
        if not found:
            raise Failed(f"no {stem} in {CACHE / 'imported'}: `tailor fit` has not imported it")
        return found[-1]

    def import_models(self):
        example = [TREE / "examples/estate-agency/inquiries.csv", "--text", "message", "--label", "intent"]
        self.fit("import", [*example, "--method", "features" if self.smoke else "features,zero-shot"], "1m" if self.smoke else "4m")


def commit():
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, text=True, check=False).stdout.strip() or "unknown"

