import argparse
import os
import platform
import shutil
import signal
import sys
import time

from . import build, clients, llama, llama_server, peers, pins, system, unpack, web, xgrammar
from .cache import Cache, human, remove, say, warn
from .download import Fetch, cached
from .errors import SetupError
from .jobs import jobs

STAGES = ("system", "fetch", "llama", "xgrammar", "web", "torch")
ENVIRONMENT_FAULT = 4
DIST_MARCH = "x86-64-v2"


class Stage:
    """Prints a stage's seconds: wall clock, and CPU seconds of what it ran."""

    def __init__(self, name):
        self.name = name
        self.note = ""

    def __enter__(self):
        self.begin, self.cpu = time.monotonic(), cpu_seconds()
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            seconds, cpu = time.monotonic() - self.begin, cpu_seconds() - self.cpu
            spent = f", {cpu:.0f} s of CPU time" if cpu >= 10 else ""
            say(f"[setup] {self.name}: {self.note} ({seconds:.1f} s{spent})")


def cpu_seconds():
    times = os.times()
    return times.children_user + times.children_system + times.user + times.system


def set_up(arguments, cache):
    skip = set(arguments.skip)
    native = os.environ.get("TAILOR_NATIVE", "ON").upper() not in ("OFF", "0", "NO", "FALSE")
    torch = "torch" not in skip
    if torch and platform.machine() != "x86_64":
        say(f"[setup] libtorch: left out, because the pinned wheel is for x86_64 and this is {platform.machine()}; "
            "docs/BUILD.md tells how to use your own")
        torch = False

    if "system" not in skip:
        with Stage("system packages") as stage:
            stage.note = system.install()

    wanted = [pins.SMOLLM2, pins.MINILM]
    if "llama" not in skip:
        wanted.append(pins.LLAMA)
    if "xgrammar" not in skip:
        wanted.append(pins.XGRAMMAR)
    if torch:
        wanted += [pins.TORCH, pins.CUPTI, pins.CUDART, *(pins.CUDA if arguments.cuda else ())]
    if "fetch" not in skip:
        for again in (True, False):
            with Stage("fetching") as stage:
                stage.note = fetch(cache, wanted)
            try:
                with Stage("unpacking") as stage:
                    stage.note = unpack_all(cache, torch, arguments.cuda)
                break
            except unpack.Damaged as damaged:
                pin = damaged.args[0]
                if not (unpack.drop_damaged(cache, pin) and again):
                    raise SetupError(f"the download of {pin} does not unpack; is the disk of {cache.root} in order?") from damaged
                say(f"  {pin} was damaged in the cache; fetching it again")
    if "llama" not in skip:
        with Stage("llama.cpp") as stage:
            entry, built = llama.provide(cache, native, arguments.jobs or jobs(gigabytes_each=1.0))
            cache.link("llama.cpp", entry)
            stage.note = "built" if built else "is there"
    if "xgrammar" not in skip:
        with Stage("XGrammar") as stage:
            entry, built = xgrammar.provide(cache, build.march_of(native), arguments.jobs or jobs(gigabytes_each=1.0))
            cache.link("xgrammar", entry)
            stage.note = "built" if built else "is there"
    if "web" not in skip:
        with Stage("page") as stage:
            stage.note = provide_page(cache)


def set_up_dist(arguments, cache):
    """What `make dist` links instead: for any x86-64-v2 processor, beside what this machine's own build uses."""
    if platform.machine() != "x86_64":
        raise SetupError(f"the archive is for x86-64, and this is {platform.machine()}")
    if "system" not in arguments.skip:
        with Stage("system packages") as stage:
            stage.note = system.install()
    with Stage("fetching") as stage:
        stage.note = fetch(cache, [pins.LLAMA, pins.XGRAMMAR])
    workers = arguments.jobs or jobs(gigabytes_each=1.0)
    for name, link, make in (("llama.cpp for all processors", "dist/llama.cpp", lambda: llama.provide_variants(cache, workers)),
                             ("XGrammar for all processors", "dist/xgrammar", lambda: xgrammar.provide(cache, DIST_MARCH, workers))):
        with Stage(name) as stage:
            entry, built = make()
            cache.link(link, entry)
            stage.note = "built" if built else "is there"
    if "web" not in arguments.skip:
        with Stage("page") as stage:
            stage.note = provide_page(cache)


def provide_page(cache):
    """The one stage that may fail: everything but the page at / works without it."""
    try:
        entry, built = web.provide(cache)
    except web.Absent as reason:
        remove(cache.deps / "web")  # of other sources than these
        say(f"  the server will show a plain page: {reason}")
        return "left out"
    cache.link("web", entry)
    return "built" if built else "is there"


def fetch(cache, wanted):
    missing = [p for p in wanted if cached(cache, p) is None]
    if not missing:
        return f"all {len(wanted)} files are there"
    size = sum(p.bytes for p in missing)
    free, needed = shutil.disk_usage(cache.root).free, size + 1_200_000_000
    if free < needed:
        raise SetupError(f"{cache.root} has {human(free)} free, set-up needs {human(needed)}; free some space or set TAILOR_CACHE to "
                         "another disk")
    count = f"{len(missing)} file{'s' if len(missing) > 1 else ''}, {human(size)}"
    say(f"  fetching {count}: " + ", ".join(str(p) for p in missing))
    Fetch(cache).all(missing)
    return count


def unpack_all(cache, torch, cuda):
    changed = [cache.link("models/all-minilm-l6-v2", unpack.minilm(cache)),
               cache.link("models/smollm2-135m-instruct", unpack.smollm2(cache))]
    if torch:
        changed.append(cache.link("libtorch", unpack.libtorch(cache, cuda)))
    return "done" if any(changed) else "done before"


def report_disk(cache):
    downloads, used, unused = cache.sizes()
    more = f"; older versions {human(unused)} (`scripts/setup.sh --prune` deletes them)" if unused else ""
    say(f"[setup] disk: downloads {human(downloads)}, libraries and models {human(used)} in {cache.root}{more}")


def prune(cache):
    for entry in cache.unused():
        remove(entry)
        say(f"deleted {entry.name}")


def main():
    parser = argparse.ArgumentParser(prog="scripts/setup.sh", description="Makes a Debian 12 machine ready to build Tailor. "
                                     "Environment: TAILOR_CACHE (default ~/.cache/tailor), TAILOR_NATIVE=OFF for any x86-64 with AVX2.")
    parser.add_argument("--skip", action="append", default=[], choices=STAGES, help="leave out a stage (may be repeated)")
    parser.add_argument("--cuda", action="store_true", help="libtorch with its CUDA half and NVIDIA's libraries (about 2 GB more to "
                        "fetch, 4 GB on disk), for builds with -DTAILOR_TORCH_CUDA=ON")
    parser.add_argument("--jobs", type=int, default=0, help="compiler processes at once (default: by cores and memory)")
    parser.add_argument("--peers", action="store_true", help="make the virtual environment of golden scripts and benchmarks instead")
    parser.add_argument("--web-tests", action="store_true", help="fetch what tests/web needs instead: Playwright, axe and TypeScript of "
                        "the npm registry, Debian's Chromium")
    parser.add_argument("--clients", action="store_true", help="make the environments of the clients that the server is tested with instead")
    parser.add_argument("--dist", action="store_true", help="build what `make dist` links instead: llama.cpp and XGrammar for any "
                        "x86-64-v2 processor")
    parser.add_argument("--prune", action="store_true", help="delete versions in the cache that are no longer used, and stop")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    begin = time.monotonic()
    cache = Cache(Cache.default_root())
    try:
        cache.open()
        with cache.lock():
            if arguments.prune:
                prune(cache)
            elif arguments.peers:
                with Stage("peers") as stage:
                    stage.note = peers.provide(cache)
                Fetch(cache).all([pins.LLAMA])
                for name in llama_server.BUILDS:
                    with Stage(name) as stage:
                        entry, built = llama_server.provide(cache, arguments.jobs or jobs(gigabytes_each=1.0), name)
                        cache.link(name, entry)
                        stage.note = "built" if built else "is there"
            elif arguments.web_tests:
                with Stage("page's tests") as stage:
                    stage.note = f"packages in {web.provide_tests(cache)}"
            elif arguments.dist:
                set_up_dist(arguments, cache)
            elif arguments.clients:
                with Stage("clients") as stage:
                    stage.note = clients.provide(cache)
            else:
                set_up(arguments, cache)
                report_disk(cache)
    except SetupError as error:
        warn(f"{error}.")
        return ENVIRONMENT_FAULT
    except KeyboardInterrupt:
        warn("interrupted; the same command goes on from here")
        return 130
    except OSError as error:
        warn(f"{error.filename or cache.root}: {error.strerror}.")
        return ENVIRONMENT_FAULT
    say(f"[setup] ready after {time.monotonic() - begin:.1f} s")
    return 0


sys.exit(main())
