"""The cache outside the tree.

    $TAILOR_CACHE (default ~/.cache/tailor)
      downloads/<sha256>/<file>   verified downloads; a file stands here only after its hash was checked
      store/<name>-<key>/         unpacked or built; the key is a hash of everything that went in
      deps/                       links into store/: llama.cpp, xgrammar, libtorch, models/<name>; CMake's TAILOR_DEPS_DIR
      deps/dist/                  the same of `make dist`: llama.cpp, xgrammar
      build/                      llama.cpp and XGrammar while they are being built; deleted afterwards
      tmp/                        work in progress; emptied by the next set-up
      peers/                      virtual environment of `make peers`

Things are made in tmp/ and renamed into place, so a set-up killed at any moment leaves no half state.
"""
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .errors import SetupError

MANIFEST = ".setup.json"


class Cache:
    def __init__(self, root):
        self.root = Path(root)
        self.downloads = self.root / "downloads"
        self.store = self.root / "store"
        self.deps = self.root / "deps"
        self.build = self.root / "build"
        self.tmp = self.root / "tmp"
        self.held = ()  # the lock's descriptor, for pass_fds

    @staticmethod
    def default_root():
        named = os.environ.get("TAILOR_CACHE")
        return Path(named).absolute() if named else Path.home() / ".cache" / "tailor"

    def open(self):
        """Makes the directories and checks that they can be written."""
        try:
            for directory in (self.downloads, self.store, self.deps / "models", self.deps / "dist", self.tmp):
                directory.mkdir(parents=True, exist_ok=True)
            (self.tmp / "probe").write_text("x")
        except OSError as error:
            raise SetupError(f"cannot write to the cache {self.root} ({error.strerror}); "
                             "set TAILOR_CACHE to a directory you may write to") from error

    @contextlib.contextmanager
    def lock(self):
        """One set-up at a time; a second one waits. The system releases the lock of a killed one.

        Programs started meanwhile inherit it (pass_fds=held): where they outlive a killed set-up, the next one waits for them.
        """
        with open(self.root / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print("setup: another set-up is at work in this cache; waiting for it", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            for left in self.tmp.iterdir():  # of a set-up that was killed
                remove(left)
            self.held = (file.fileno(),)
            try:
                yield
            finally:
                self.held = ()

    def work_directory(self, name):
        return Path(tempfile.mkdtemp(prefix=name + "-", dir=self.tmp))

    def entry(self, name, inputs):
        """Where the result of `inputs` (anything JSON can write) belongs."""
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
        return self.store / f"{name}-{key}"

    def publish(self, work, entry, described):
        """Renames a finished directory into the store."""
        size = tree_bytes(work)
        (work / MANIFEST).write_text(json.dumps({**described, "bytes": size}, indent=1) + "\n")
        os.chmod(work, 0o755)  # mkdtemp made it private
        os.rename(work, entry)
        return entry

    def link(self, link, target):
        """Points deps/<link> at `target` in one step; what a person put there by hand is replaced. True if changed."""
        place = self.deps / link
        text = os.path.relpath(target, place.parent)
        if place.is_symlink() and os.readlink(place) == text:
            return False
        fresh = self.tmp / ("link-" + place.name)
        remove(fresh)
        os.symlink(text, fresh)
        if place.is_dir() and not place.is_symlink():
            os.rename(place, self.tmp / ("old-" + place.name))
        os.replace(fresh, place)
        remove(self.tmp / ("old-" + place.name))
        return True

    def linked(self):
        """Store entries that deps/ points at."""
        out = set()
        for place in [*self.deps.iterdir(), *(self.deps / "models").iterdir(), *(self.deps / "dist").iterdir()]:
            if place.is_symlink():
                with contextlib.suppress(ValueError):
                    out.add(self.store / place.resolve().relative_to(self.store.resolve()).parts[0])
        return out

    def unused(self):
        return sorted(set(self.store.iterdir()) - self.linked())

    def sizes(self):
        """Bytes by kind, from the manifests: no walk over ten thousand headers."""
        downloads = sum(f.stat().st_size for d in self.downloads.iterdir() if d.is_dir() for f in d.iterdir())
        return downloads, sum(entry_bytes(e) for e in self.linked()), sum(entry_bytes(e) for e in self.unused())


def entry_bytes(entry):
    try:
        return json.loads((entry / MANIFEST).read_text())["bytes"]
    except (OSError, ValueError, KeyError):
        return 0


def tree_bytes(directory):
    return sum(f.lstat().st_size for f in Path(directory).rglob("*") if not f.is_dir())


def remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def human(size):
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def say(text):
    print(text, flush=True)


def warn(text):
    print("setup: " + text, file=sys.stderr, flush=True)
