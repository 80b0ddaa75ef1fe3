"""llama-server and llama-bench, the peers of the serving benchmarks, from the source that Tailor's own llama.cpp is built from."""
import shutil

from . import build, pins, unpack

FLAGS = ("-DBUILD_SHARED_LIBS=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON",
         "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_CURL=OFF")
PROGRAMS = ("llama-server", "llama-bench")
# By the name under which they are linked: for this machine, and for one that has AVX2 alone (what TAILOR_MAX_ISA=avx2 is compared with).
BUILDS = {"llama-server": ("-DGGML_NATIVE=ON",), "llama-server-avx2": ("-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON")}


def provide(cache, jobs, name="llama-server"):
    flags = (*FLAGS, *BUILDS[name])

    def install(source, objects, out):
        (out / "bin").mkdir()
        for name in PROGRAMS:
            shutil.copy2(objects / "bin" / name, out / "bin" / name)
        shutil.copy2(source / "LICENSE", out / "LICENSE")

    return build.provide(
        cache, jobs, pins.LLAMA, name, {"flags": " ".join(flags), "compiler": build.compiler("native")},
        lambda directory: unpack.llama_source(cache, directory, whole=True),
        lambda source: ["-S", str(source), *flags],
        install, PROGRAMS, ", about ten CPU minutes")
