"""`tailor serve` on a port that the system chooses."""
import os
import re
import subprocess
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("TAILOR_BUILD_DIR", ROOT / "build" / "release"))
MODEL = "smollm2-135m-instruct"


class Server:
    """`tailor serve` with the given arguments, on a store of its own where they name none; ends with the block."""

    def __init__(self, *arguments):
        self.place = tempfile.TemporaryDirectory(prefix="tailor-contract-")
        if "--data" not in arguments:
            arguments = (*arguments, "--data", str(Path(self.place.name) / "data"))
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
        self.process = subprocess.Popen([BUILD / "bin" / "tailor", "serve", *arguments, "--port", "0"], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True, env=environment)
        self.errors = []
        self.reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True)
        self.reader.start()
        found = re.search(r"http://\S+", self.process.stdout.readline())
        if not found:
            self.process.wait(30)
            self.reader.join(30)
            self.place.cleanup()
            raise RuntimeError("the server did not start: " + "".join(self.errors))
        self.url = found.group().rstrip("/")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        alive = self.process.poll() is None
        self.process.terminate()
        self.process.wait(60)
        self.place.cleanup()
        if not alive:
            raise RuntimeError("the server ended by itself: " + "".join(self.errors))


def made_by_unit_tests(name, test):
    """A model or packages that this test leaves in the build directory."""
    made = BUILD / "test-models" / name
    if not made.exists():
        subprocess.run([BUILD / "tailor_serve_test", "--gtest_brief=1", f"--gtest_filter={test}"], check=True,
                       env={**os.environ, "TAILOR_BUILD_DIR": str(BUILD)})
    return made


def tiny_model():
    """A GGUF file with weights of 32 bits."""
    return made_by_unit_tests("tiny-llama.gguf", "ApiModels.ListAndOne")


def model_with_tools():
    """The same with a chat template that has a place for tools."""
    return made_by_unit_tests("tiny-tools.gguf", "ToolCalls.TheFormatIsReadFromTheTemplate")


def small_packages():
    """A directory with the packages rows (labels), tags and spans."""
    return made_by_unit_tests("packages", "OpenApi.AnswersOfPackagesAreDescribed")
