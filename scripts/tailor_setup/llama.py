"""llama.cpp from the pinned source: static libraries for this machine, or shared ones that choose among processors at run time."""
import shutil

from . import build, pins, unpack

RECIPE = build.TREE / "cmake" / "llama.cpp" / "CMakeLists.txt"
VARIANTS_RECIPE = build.TREE / "cmake" / "llama.cpp-variants" / "CMakeLists.txt"
BACKEND_HEADER = "ggml-backend-impl.h"  # of backends that live outside of ggml, as ours for attention and products does
LIBRARIES = ("libllama.a", "libggml.a", "libggml-cpu.a", "libggml-base.a")


def provide(cache, native, jobs):
    def install(source, objects, out):
        (out / "lib").mkdir()
        for name in LIBRARIES:
            shutil.copy2(next(objects.rglob(name)), out / "lib" / name)
        headers_and_licence(source, out)

    return build.provide(
        cache, jobs, pins.LLAMA, "llama.cpp",
        {"recipe": build.digest(RECIPE), "native": native, "compiler": build.compiler("native" if native else ""),
         "headers": BACKEND_HEADER},
        lambda directory: unpack.llama_source(cache, directory),
        lambda source: ["-S", str(RECIPE.parent), f"-DLLAMA_SOURCE={source}", f"-DTAILOR_NATIVE={'ON' if native else 'OFF'}"],
        install, ["tailor_llama"])


def provide_variants(cache, jobs):
    """lib/: libllama, libggml, libggml-base, and a libggml-cpu-* for each kind of processor."""
    def install(source, objects, out):
        (out / "lib").mkdir()
        for library in sorted((objects / "bin").glob("*.so*")):
            shutil.copy2(library, out / "lib" / library.name, follow_symlinks=False)
        headers_and_licence(source, out)

    return build.provide(
        cache, jobs, pins.LLAMA, "llama.cpp-variants", {"recipe": build.digest(VARIANTS_RECIPE), "compiler": build.compiler(),
                                                              "headers": BACKEND_HEADER},
        lambda directory: unpack.llama_source(cache, directory),
        lambda source: ["-S", str(VARIANTS_RECIPE.parent), f"-DLLAMA_SOURCE={source}"],
        install, ["tailor_llama"], ", about ten CPU minutes")


def headers_and_licence(source, out):
    (out / "include").mkdir()
    for header in [*(source / "include").glob("*.h"), *(source / "ggml" / "include").glob("*.h"), source / "ggml" / "src" / BACKEND_HEADER]:
        shutil.copy2(header, out / "include" / header.name)
    shutil.copy2(source / "LICENSE", out / "LICENSE")
