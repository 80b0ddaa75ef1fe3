"""llama.cpp as static libraries, built by cmake/llama.cpp from the pinned source."""
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from . import pins, unpack
from .cache import remove, say
from .errors import SetupError

TREE = Path(__file__).resolve().parents[2]
RECIPE = TREE / "cmake" / "llama.cpp" / "CMakeLists.txt"
BACKEND_HEADER = "ggml-backend-impl.h"  # of backends that live outside of ggml, as ours for attention does
LIBRARIES = ("libllama.a", "libggml.a", "libggml-cpu.a", "libggml-base.a")


def compiler(native):
    """What the object code depends on beside the source: the compiler and the processor it compiles for."""
    program = os.environ.get("CXX", "c++").split()
    march = ["-march=native"] if native else []
    try:
        done = subprocess.run([*program, *march, "-dM", "-E", "-x", "c++", os.devnull], stdout=subprocess.PIPE, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"the C++ compiler `{program[0]}` does not run ({error}); install build-essential or set CXX") from error
    return hashlib.sha256(done.stdout).hexdigest()


def provide(cache, native, jobs):
    inputs = {"sha256": pins.LLAMA.sha256, "recipe": hashlib.sha256(RECIPE.read_bytes()).hexdigest(), "native": native,
              "compiler": compiler(native), "headers": BACKEND_HEADER}
    entry = cache.entry(f"llama.cpp-{pins.LLAMA.version}", inputs)
    if entry.is_dir():
        return entry, False
    work = cache.build / entry.name  # kept when interrupted, so that the build goes on where it stopped
    source, objects = work / "source", work / "objects"
    if not source.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        fresh = cache.work_directory("llama-source")
        unpack.llama_source(cache, fresh)
        os.rename(fresh, source)
    environment = dict(os.environ, GIT_CEILING_DIRECTORIES=str(work))  # it would report the commit of a repository above it
    log = work / "build.log"
    say(f"  building with {jobs} jobs; log: {log}")
    with open(log, "w") as file:
        for command in (["cmake", "-G", "Ninja", "-S", str(RECIPE.parent), "-B", str(objects), "-DCMAKE_BUILD_TYPE=Release",
                         f"-DLLAMA_SOURCE={source}", f"-DTAILOR_NATIVE={'ON' if native else 'OFF'}"],
                        ["cmake", "--build", str(objects), "--parallel", str(jobs), "--target", "tailor_llama"]):
            if subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False, pass_fds=cache.held).returncode != 0:
                raise SetupError(f"llama.cpp did not build: {last_error(log)}; the whole output is in {log}")
    out = cache.work_directory("llama.cpp")
    (out / "lib").mkdir()
    for name in LIBRARIES:
        shutil.copy2(next(objects.rglob(name)), out / "lib" / name)
    (out / "include").mkdir()
    for header in [*(source / "include").glob("*.h"), *(source / "ggml" / "include").glob("*.h"), source / "ggml" / "src" / BACKEND_HEADER]:
        shutil.copy2(header, out / "include" / header.name)
    shutil.copy2(source / "LICENSE", out / "LICENSE")
    cache.publish(out, entry, {"made_from": {str(pins.LLAMA): pins.LLAMA.sha256}, **inputs})
    remove(work)
    return entry, True


def last_error(log):
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")
