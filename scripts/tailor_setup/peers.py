"""The virtual environment in which golden scripts and peers of benchmarks run. Never needed by `make test`."""
import hashlib
import subprocess
import sys
from pathlib import Path

from . import system
from .cache import say
from .errors import SetupError

LISTS = [Path(__file__).resolve().parents[1] / name for name in ("peers.txt", "peers-models.txt")]


def provide(cache):
    place, stamp = cache.root / "peers", cache.root / "peers" / ".setup"
    key = hashlib.sha256(b"".join(p.read_bytes() for p in LISTS)).hexdigest()
    if stamp.is_file() and stamp.read_text() == key:
        return "is there"
    try:
        import ensurepip  # noqa: F401  (Debian keeps it in python3-venv)
    except ImportError:
        system.install(("python3-venv",))
    # Environments do not move (their scripts name their place), so this one is made where it stays and stamped when done.
    say(f"  making {place}; this fetches about 3 GB")
    run([sys.executable, "-m", "venv", str(place)], "python3 -m venv failed")
    pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    run([*pip, "-r", str(LISTS[0])], "pip could not install scripts/peers.txt")
    run([*pip, "--no-deps", "-r", str(LISTS[1])], "pip could not install scripts/peers-models.txt")
    stamp.write_text(key)
    return "made"


def run(command, sentence):
    if subprocess.run(command, check=False).returncode != 0:
        raise SetupError(f"{sentence}: see its messages above; check the network and pip's settings, then run the same command again")
