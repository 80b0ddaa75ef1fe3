"""llama-server and llama-bench, the peers of the serving benchmarks, from the source that Tailor's own llama.cpp is built from."""
import shutil

from . import build, pins, unpack

FLAGS = ("-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON",
         "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_CURL=OFF", "-DGGML_NATIVE=ON")
PROGRAMS = ("llama-server", "llama-bench")


def provide(cache, jobs):
    def install(source, objects, out):
        (out / "bin").mkdir()
        for name in PROGRAMS:
            shutil.copy2(objects / "bin" / name, out / "bin" / name)
        shutil.copy2(source / "LICENSE", out / "LICENSE")

    return build.provide(
        cache, jobs, pins.LLAMA, "llama-server", {"flags": " ".join(FLAGS), "compiler": build.compiler("native")},
        lambda directory: unpack.llama_source(cache, directory, whole=True),
        lambda source: ["-S", str(source), *FLAGS],
        install, PROGRAMS, ", about ten CPU minutes")
