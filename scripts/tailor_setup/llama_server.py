"""llama-server and llama-bench, the peers of the serving benchmarks, from the source that Tailor's own llama.cpp is built from."""
import os
import shutil
import subprocess

from . import pins, unpack
from .cache import remove, say
from .errors import SetupError
from .llama import compiler, last_error

FLAGS = ("-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON",
         "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_CURL=OFF", "-DGGML_NATIVE=ON")
PROGRAMS = ("llama-server", "llama-bench")


def provide(cache, jobs):
    inputs = {"sha256": pins.LLAMA.sha256, "flags": " ".join(FLAGS), "compiler": compiler(True)}
    entry = cache.entry(f"llama-server-{pins.LLAMA.version}", inputs)
    if entry.is_dir():
        return entry, False
    work = cache.build / entry.name  # kept when interrupted, so that the build goes on where it stopped
    source, objects = work / "source", work / "objects"
    if not source.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        fresh = cache.work_directory("llama-server-source")
        unpack.llama_source(cache, fresh, whole=True)
        os.rename(fresh, source)
    environment = dict(os.environ, GIT_CEILING_DIRECTORIES=str(work))
    log = work / "build.log"
    say(f"  building with {jobs} jobs, about ten CPU minutes; log: {log}")
    with open(log, "w") as file:
        for command in (["cmake", "-G", "Ninja", "-S", str(source), "-B", str(objects), "-DCMAKE_BUILD_TYPE=Release", *FLAGS],
                        ["cmake", "--build", str(objects), "--parallel", str(jobs), "--target", *PROGRAMS]):
            if subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False, pass_fds=cache.held).returncode != 0:
                raise SetupError(f"llama-server did not build: {last_error(log)}; the whole output is in {log}")
    out = cache.work_directory("llama-server")
    (out / "bin").mkdir()
    for name in PROGRAMS:
        shutil.copy2(objects / "bin" / name, out / "bin" / name)
    shutil.copy2(source / "LICENSE", out / "LICENSE")
    cache.publish(out, entry, {"made_from": {str(pins.LLAMA): pins.LLAMA.sha256}, **inputs})
    remove(work)
    return entry, True
