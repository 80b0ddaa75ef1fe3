"""The page of `tailor serve`: web/ built with Vite, as one C++ file that holds its files.

Building it needs Node.js (the machine's, else the pinned one of PyPI) and the npm registry. Where they cannot be had the
program is built with a plain page instead. What is built is kept by the hash of web/, so this costs nothing when nothing
changed."""
import gzip
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess

from . import pins, system, unpack
from .build import TREE
from .cache import remove, say
from .download import Fetch, cached
from .errors import SetupError

SOURCE = TREE / "web"
TESTS = TREE / "tests" / "web"
OLDEST_NODE = ((20, 19), (22, 12))  # what Vite runs with: the first of 20, and any from the second on
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".json": "application/json", ".woff2": "font/woff2"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
INSTALL = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
           "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000"]


class Absent(Exception):
    """Why the page cannot be built here."""


def provide(cache):
    """The entry with page_files.cpp, and whether it was built just now. Raises Absent."""
    files = sources(SOURCE)
    entry = cache.entry("web", {"files": {str(p.relative_to(SOURCE)): digest(p) for p in files}, "recipe": 1})
    if entry.is_dir():
        return entry, False
    node = provide_node(cache)
    tools = provide_packages(cache, node, "web-tools", SOURCE)
    work = cache.work_directory("web")
    for path in files:
        target = work / "source" / path.relative_to(SOURCE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    os.symlink(tools / "node_modules", work / "source" / "node_modules")
    run(cache, node, [str(tools / "node_modules/vite/bin/vite.js"), "build", "--logLevel", "warn", "--outDir", str(work / "dist")],
        work / "source", "the page did not build", SetupError)
    out = cache.work_directory("web")
    (out / "page_files.cpp").write_text(embedded(work / "dist"))
    shutil.copytree(work / "dist", out / "dist")  # for reading only
    cache.publish(out, entry, {"made_from": "web/"})
    remove(work)
    return entry, True


def provide_tests(cache):
    """Where the packages of tests/web are; linked beside the tests, where Node looks for them. A browser, too."""
    if not any(shutil.which(name) for name in BROWSERS):
        system.install(pins.WEB_TEST_PACKAGES)
    try:
        tools = provide_packages(cache, provide_node(cache), "web-tests", TESTS)
    except Absent as reason:
        raise SetupError(f"the page's tests cannot run here: {reason}") from reason
    place = TESTS / "node_modules"
    if not (place.is_symlink() and os.readlink(place) == str(tools / "node_modules")):
        remove(place)
        os.symlink(tools / "node_modules", place)
    return tools


def sources(directory):
    return sorted(p for p in directory.rglob("*") if p.is_file() and not {"node_modules", "dist"} & set(p.relative_to(directory).parts))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def provide_node(cache):
    """The program `node`, with npm beside it."""
    own = shutil.which("node")
    if own and shutil.which("npm") and new_enough(own):
        return own
    if platform.machine() != "x86_64":
        raise Absent("Node.js 20.19 or newer with npm is missing, and the pinned one is for x86_64")
    if cached(cache, pins.NODE) is None:
        say(f"  fetching {pins.NODE} (61 MB), because this machine has no Node.js that is new enough")
        try:
            Fetch(cache).all([pins.NODE])
        except SetupError as error:
            raise Absent(f"Node.js 20.19 or newer is missing, and {error}") from error
    entry = unpack.node(cache)
    cache.link("node", entry)
    return str(entry / "bin" / "node")


def new_enough(node):
    try:
        text = subprocess.run([node, "--version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    except OSError:
        return False
    found = re.match(r"v(\d+)\.(\d+)", text)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    return version >= OLDEST_NODE[1] or OLDEST_NODE[0] <= version < (21, 0)


def provide_packages(cache, node, name, source):
    """node_modules as the lock file of `source` has it: exact versions with their hashes; no script of theirs is run."""
    entry = cache.entry(name, {n: digest(source / n) for n in ("package.json", "package-lock.json")})
    if not entry.is_dir():
        say(f"  fetching the npm packages of {source.relative_to(TREE)}")
        out = cache.work_directory(name)
        for file in ("package.json", "package-lock.json"):
            shutil.copy2(source / file, out / file)
        beside = os.path.join(os.path.dirname(node), "..", "lib", "node_modules", "npm", "bin", "npm-cli.js")
        npm = [beside] if node != shutil.which("node") else [os.path.realpath(shutil.which("npm"))]
        run(cache, node, [*npm, *INSTALL], out, "npm could not fetch them", Absent)
        cache.publish(out, entry, {"made_from": str(source.relative_to(TREE))})
    cache.link(name, entry)
    return entry


def run(cache, node, words, directory, sentence, failure):
    environment = dict(os.environ, PATH=os.path.dirname(node) + os.pathsep + os.environ.get("PATH", ""), NODE_ENV="production",
                       NO_UPDATE_NOTIFIER="1")
    done = subprocess.run([node, *words], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, errors="replace", check=False, pass_fds=cache.held)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        named = [line for line in lines if re.match(r"npm (error|ERR!) (?!code|errno|syscall|A complete)|error", line)]
        raise failure(f"{sentence}: {(named or lines or ['it said nothing'])[0]}")


def embedded(dist):
    """C++ source of page_files(); the same bytes for the same files."""
    arrays, rows = [], []
    for number, path in enumerate(sorted(p for p in dist.rglob("*") if p.is_file())):
        kind = TYPES.get(path.suffix)
        if kind is None:
            raise SetupError(f"{path.name}: scripts/tailor_setup/web.py knows no content type for {path.suffix}")
        name = "/" + str(path.relative_to(dist))
        body = path.read_bytes()
        packed = gzip.compress(body, 9, mtime=0)
        packed = packed if len(packed) < len(body) else b""
        arrays.append(array(f"kBody{number}", body))
        arrays.append(array(f"kGzip{number}", packed))
        url = json.dumps("/" if name == "/index.html" else name)
        tag = hashlib.sha256(body).hexdigest()[:20]
        rows.append(f'    {{{url}, "{kind}", "{tag}", text(kBody{number}, {len(body)}), text(kGzip{number}, {len(packed)})}},')
    if not any(row.lstrip().startswith('{"/",') for row in rows):
        raise SetupError("the built page has no index.html")
    return "\n".join([
        "// Made by scripts/tailor_setup/web.py from web/.", '#include "serve/page.h"', "", "namespace tailor {", "namespace {", *arrays,
        "std::string_view text(const unsigned char* bytes, std::size_t size) { return {reinterpret_cast<const char*>(bytes), size}; }",
        "}  // namespace", "", "std::span<const PageFile> page_files() {", "  static const PageFile kFiles[] = {", *rows, "  };",
        "  return kFiles;", "}", "", "}  // namespace tailor", ""])


def array(name, data):
    lines = [",".join(str(b) for b in data[i:i + 40]) for i in range(0, len(data), 40)] or ["0"]
    return f"const unsigned char {name}[] = {{\n" + ",\n".join(lines) + "};"
