"""Fetching through `pip download`, so that the user's own index settings, proxies and certificates hold."""
import hashlib
import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .cache import remove, say
from .errors import SetupError

TRIES = 3
# The libraries are for the program, not for this Python: one build of each wheel, whatever Python runs the set-up.
WHEEL_FLAGS = ["--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none",
               *(word for minor in range(28, 16, -1) for word in ("--platform", f"manylinux_2_{minor}_x86_64")),  # pip takes none but those named
               "--platform", "manylinux2014_x86_64"]
OFFLINE = re.compile(r"NewConnectionError|Name or service not known|name resolution|Failed to resolve|NameResolutionError|Network is unreachable|Connection refused|"
                     r"No route to host|ConnectTimeout|timed out|ProxyError|Max retries exceeded|connection broken|SSLError|"
                     r"Errno -[235]\b", re.IGNORECASE)


def cached(cache, pin):
    """The verified file, or None."""
    directory = cache.downloads / pin.sha256
    files = [f for f in directory.iterdir() if f.is_file()] if directory.is_dir() else []
    return files[0] if len(files) == 1 else None


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def forget(cache, pin):
    remove(cache.downloads / pin.sha256)


class Fetch:
    """Fetches several pins at once. stop() ends the pip processes it started."""

    def __init__(self, cache):
        self.cache = cache
        self.children = set()
        self.guard = threading.Lock()
        self.wake = threading.Event()
        self.tries_told = 0

    @property
    def stopped(self):
        return self.wake.is_set()

    def all(self, pins):
        pool = ThreadPoolExecutor(max_workers=4)
        jobs = [pool.submit(self.one, pin) for pin in sorted(pins, key=lambda p: -p.bytes)]
        try:
            failures = [error for error in (job.exception() for job in jobs) if error is not None]
        except BaseException:
            self.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        unknown = [f for f in failures if not isinstance(f, SetupError)]
        if unknown:
            raise unknown[0]
        if failures:
            raise failures[0] if len(failures) == 1 else SetupError(merge([str(f) for f in failures]))

    def one(self, pin):
        if cached(self.cache, pin):
            return
        reason = ""
        for attempt in range(TRIES):
            if self.stopped:
                return
            work = self.cache.work_directory("fetch-" + pin.name)
            try:
                reason = self.attempt(pin, work)
            finally:
                remove(work)
            if not reason:
                return
            if attempt + 1 < TRIES:
                self.pause(attempt, reason)
        raise SetupError(f"could not fetch {pin}: {reason}")

    def pause(self, attempt, reason):
        """Waits before the next try; says so once, however many files fail together."""
        with self.guard:
            first, self.tries_told = attempt >= self.tries_told, max(self.tries_told, attempt + 1)
        if first and not self.stopped:
            say(f"  try {attempt + 1} of {TRIES} failed ({reason.split(';')[0]})")
        self.wake.wait(2.0 * (attempt + 1))

    def attempt(self, pin, work):
        """'' on success, else the reason."""
        out, temporary = work / "out", work / "tmp"
        temporary.mkdir()
        environment = dict(os.environ, TMPDIR=str(temporary))  # /tmp may be too small for libtorch
        # pip's own cache would keep a second copy of every file.
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check",
                   "--no-input", "--progress-bar", "off", "--retries", "1", "-d", str(out)]
        if pin.source:
            # pip asks a source distribution for its metadata, for which it would fetch and run the package's build tools.
            # source_metadata/ answers in their place: nothing is run, nothing else is fetched.
            hooks = str(Path(__file__).parent / "source_metadata")
            environment["PYTHONPATH"] = hooks + os.pathsep + environment.get("PYTHONPATH", "")
            command += ["--no-build-isolation", "--no-binary", pin.name]
        else:
            command += WHEEL_FLAGS
        code, text = self.pip([*command, str(pin)], environment)
        if code != 0:
            return explain(text, code)
        files = list(out.iterdir())
        if len(files) != 1:
            return f"pip downloaded {len(files)} files where one was expected"
        seen = sha256_of(files[0])
        if seen != pin.sha256:
            return (f"the file's SHA-256 is {seen}, expected {pin.sha256}; the file was deleted, because the package index or "
                    "something on the way changed it")
        forget(self.cache, pin)
        place = work / "verified"
        place.mkdir()
        os.rename(files[0], place / files[0].name)
        os.rename(place, self.cache.downloads / pin.sha256)
        return ""

    def pip(self, command, environment):
        with self.guard:
            if self.stopped:
                return 1, ""
            child = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, errors="replace", pass_fds=self.cache.held)
            self.children.add(child)
        text, _ = child.communicate()
        with self.guard:
            self.children.discard(child)
        return child.returncode, text

    def stop(self):
        with self.guard:
            self.wake.set()
            for child in self.children:
                child.terminate()


def explain(text, code):
    if "No module named pip" in text:
        return "python3 has no pip; install it with: apt-get install python3-pip"
    if "No space left on device" in text:
        return "the disk is full; free some space or set TAILOR_CACHE to another disk"
    if OFFLINE.search(text):
        return ("the package index cannot be reached; check the network and pip's settings (`pip config list`), then run the same "
                "command again: what is fetched already is kept")
    if "No matching distribution found" in text:
        return ("the package index has no such file; check pip's settings (`pip config list`): an index of your own must "
                "mirror this version")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or [f"pip ended with {code} and said nothing"])[-1]


def merge(messages):
    """Several failures with the same reason become one sentence."""
    reasons = {}
    for message in messages:
        what, _, reason = message.removeprefix("could not fetch ").partition(": ")
        reasons.setdefault(reason, []).append(what)
    return "; ".join(f"could not fetch {', '.join(what)}: {reason}" for reason, what in reasons.items())
