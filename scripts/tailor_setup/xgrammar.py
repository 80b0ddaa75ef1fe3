"""XGrammar's C++ core as a static library, built by cmake/xgrammar from the pinned source."""
import shutil

from . import build, pins, unpack

RECIPE = build.TREE / "cmake" / "xgrammar"


def provide(cache, march, jobs):
    """`march`: as the compiler's -march has it; empty: its own choice."""
    def install(source, objects, out):
        (out / "lib").mkdir()
        shutil.copy2(objects / "libxgrammar.a", out / "lib" / "libxgrammar.a")
        shutil.copytree(source / "include", out / "include")
        shutil.copytree(source / "3rdparty" / "dlpack" / "include" / "dlpack", out / "include" / "dlpack")
        for name in ("LICENSE", "NOTICE"):
            shutil.copy2(source / name, out / name)
        shutil.copy2(source / "3rdparty" / "dlpack" / "LICENSE", out / "LICENSE.dlpack")
        picojson = (source / "3rdparty" / "picojson" / "picojson.h").read_text()
        (out / "LICENSE.picojson").write_text(picojson[:picojson.index("*/") + 3])  # it stands in the header alone

    return build.provide(
        cache, jobs, pins.XGRAMMAR, "xgrammar",
        {"recipe": build.digest(RECIPE / "CMakeLists.txt", RECIPE / "log.cc"), "march": march, "compiler": build.compiler(march)},
        lambda directory: unpack.xgrammar_source(cache, directory),
        lambda source: ["-S", str(RECIPE), f"-DXGRAMMAR_SOURCE={source}", f"-DTAILOR_MARCH={march}"],
        install)
