"""XGrammar's C++ core as a static library, built by cmake/xgrammar from the pinned source."""
import hashlib
import os
import shutil
import subprocess

from . import pins, unpack
from .cache import remove, say
from .errors import SetupError
from .llama import TREE, compiler, last_error

RECIPE = TREE / "cmake" / "xgrammar"


def provide(cache, native, jobs):
    recipe = b"".join((RECIPE / name).read_bytes() for name in ("CMakeLists.txt", "log.cc"))
    inputs = {"sha256": pins.XGRAMMAR.sha256, "recipe": hashlib.sha256(recipe).hexdigest(), "native": native, "compiler": compiler(native)}
    entry = cache.entry(f"xgrammar-{pins.XGRAMMAR.version}", inputs)
    if entry.is_dir():
        return entry, False
    work = cache.build / entry.name  # kept when interrupted, so that the build goes on where it stopped
    source, objects = work / "source", work / "objects"
    if not source.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        fresh = cache.work_directory("xgrammar-source")
        unpack.xgrammar_source(cache, fresh)
        os.rename(fresh, source)
    log = work / "build.log"
    say(f"  building with {jobs} jobs; log: {log}")
    with open(log, "w") as file:
        for command in (["cmake", "-G", "Ninja", "-S", str(RECIPE), "-B", str(objects), "-DCMAKE_BUILD_TYPE=Release",
                         f"-DXGRAMMAR_SOURCE={source}", f"-DTAILOR_NATIVE={'ON' if native else 'OFF'}"],
                        ["cmake", "--build", str(objects), "--parallel", str(jobs)]):
            if subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, pass_fds=cache.held).returncode != 0:
                raise SetupError(f"XGrammar did not build: {last_error(log)}; the whole output is in {log}")
    out = cache.work_directory("xgrammar")
    (out / "lib").mkdir()
    shutil.copy2(objects / "libxgrammar.a", out / "lib" / "libxgrammar.a")
    shutil.copytree(source / "include", out / "include")
    shutil.copytree(source / "3rdparty" / "dlpack" / "include" / "dlpack", out / "include" / "dlpack")
    for name in ("LICENSE", "NOTICE"):
        shutil.copy2(source / name, out / name)
    shutil.copy2(source / "3rdparty" / "dlpack" / "LICENSE", out / "LICENSE.dlpack")
    cache.publish(out, entry, {"made_from": {str(pins.XGRAMMAR): pins.XGRAMMAR.sha256}, **inputs})
    remove(work)
    return entry, True
