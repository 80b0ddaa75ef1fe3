"""What is built with CMake from a pinned source, and kept in the store by the hash of all that went in."""
import hashlib
import os
import platform
import subprocess
from pathlib import Path

from .cache import remove, say
from .errors import SetupError

TREE = Path(__file__).resolve().parents[2]


def compiler(march=""):
    """What the object code depends on beside the source: the compiler and the processor it compiles for."""
    program = os.environ.get("CXX", "c++").split()
    try:
        done = subprocess.run([*program, *([f"-march={march}"] if march else []), "-dM", "-E", "-x", "c++", os.devnull],
                              stdout=subprocess.PIPE, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"the C++ compiler `{program[0]}` does not run ({error}); install build-essential or set CXX") from error
    return hashlib.sha256(done.stdout).hexdigest()


def march_of(native):
    """-march of code for this processor, or for any with AVX2."""
    return "native" if native else "x86-64-v3" if platform.machine() == "x86_64" else ""


def digest(*files):
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def provide(cache, jobs, pin, name, inputs, take_source, configure, install, targets=(), note=""):
    """The entry of `name`, and whether it was built just now.

    inputs       what beside the pin's hash makes it another entry
    take_source  (directory): unpacks the source there
    configure    (source): CMake's words; the source may be asked for by a recipe of ours
    install      (source, objects, out): what is kept
    """
    inputs = {"sha256": pin.sha256, **inputs}
    entry = cache.entry(f"{name}-{pin.version}", inputs)
    if entry.is_dir():
        return entry, False
    work = cache.build / entry.name  # kept when interrupted, so that the build goes on where it stopped
    source, objects = work / "source", work / "objects"
    if not source.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        fresh = cache.work_directory(f"{name}-source")
        take_source(fresh)
        os.rename(fresh, source)
    environment = dict(os.environ, GIT_CEILING_DIRECTORIES=str(work))  # it would report the commit of a repository above it
    log = work / "build.log"
    say(f"  building with {jobs} jobs{note}; log: {log}")
    with open(log, "w") as file:
        for command in (["cmake", "-G", "Ninja", "-B", str(objects), "-DCMAKE_BUILD_TYPE=Release", *configure(source)],
                        ["cmake", "--build", str(objects), "--parallel", str(jobs), *(["--target", *targets] if targets else [])]):
            if subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False, pass_fds=cache.held).returncode != 0:
                raise SetupError(f"{name} did not build: {last_error(log)}; the whole output is in {log}")
    out = cache.work_directory(name)
    install(source, objects, out)
    cache.publish(out, entry, {"made_from": {str(pin): pin.sha256}, **inputs})
    remove(work)
    return entry, True


def last_error(log):
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no output")
