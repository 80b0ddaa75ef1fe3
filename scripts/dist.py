"""Builds the release archive: build/dist/tailor-VERSION-linux-x86_64.tar.gz, with its SHA-256 beside it.

It runs on any x86-64-v2 processor with glibc 2.36 or newer and holds every library but glibc. The same files
pack to the same bytes: names are sorted, dates are $SOURCE_DATE_EPOCH, else the last commit's.

Run: python3 scripts/dist.py [--jobs N] [--skip-setup]
"""
import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE / "scripts"))

import dist_licences  # noqa: E402
from tailor_setup.cache import Cache  # noqa: E402
from tailor_setup.errors import SetupError  # noqa: E402

BUILD = TREE / "build" / "dist"
VERSION = (TREE / "VERSION").read_text().strip()
NAME = f"tailor-{VERSION}-linux-x86_64"
# Of glibc, which belongs to the system: the loader that starts the program must be of the same build.
GLIBC = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libresolv.so.2", "libmvec.so.1", "ld-linux-x86-64.so.2"}
DOCUMENTS = ("README.md", "LICENSE", "NOTICE", "VERSION", "docs/DEPLOY.md", "docs/SERVE.md", "docs/MONITORING.md", "docs/SECURITY.md",
             "docs/HOWTO.md", "docs/MIGRATE_FROM_OPENAI.md", "docs/BUILD.md", "docs/MODELS.md", "docs/PACKAGE.md", "docs/RESULT.md", "docs/EVENTS.md",
             "docs/TUNE.md", "docs/TUNE_JOB.md", "docs/TUNE_CHECKS.md", "docs/CONFIG.md", "docs/BENCHMARKS.md", "docs/DECISIONS.md", "docs/DEPENDENCIES.md",
             "docs/SERVE_CHECKS.md", "docs/SECURITY_CHECKLIST.md", "docs/images/report.png", "examples/serve.yaml", "deploy/tailor.service", "deploy/serve.yaml",
             "deploy/kubernetes.yaml", "deploy/Dockerfile")


def run(*words, **more):
    subprocess.run([str(w) for w in words], check=True, **more)


def build(deps, jobs):
    log = TREE / "build" / "dist-configure.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "w") as file:
        done = subprocess.run(["cmake", "--preset", "dist", f"-DTAILOR_DEPS_DIR={deps}", f"-DTAILOR_LLAMA_DIR={deps}/dist/llama.cpp",
                               f"-DTAILOR_XGRAMMAR_DIR={deps}/dist/xgrammar"], cwd=TREE, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode != 0:
        raise SetupError(f"CMake failed; its output is in {log}")
    run("cmake", "--build", BUILD, "--parallel", jobs, "--target", "tailor")


def needed(files, places):
    """Libraries that `files` load, by the name under which they are asked for; glibc's are left out."""
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(map(str, places)))
    found = {}
    for file in files:
        text = subprocess.run(["ldd", str(file)], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
        for name, path in re.findall(r"^\s*(\S+) => (\S+)", text, re.MULTILINE):
            if path == "not":
                raise SetupError(f"{file.name} needs {name}, which is not here")
            if name not in GLIBC:
                found[name] = Path(path).resolve()
    return found


def stage(deps, out):
    """The directory that becomes the archive."""
    shutil.rmtree(out, ignore_errors=True)
    libraries = out / "lib" / "tailor"
    libraries.mkdir(parents=True)
    (out / "bin").mkdir()
    shutil.copyfile(BUILD / "bin" / "tailor", out / "bin" / "tailor")
    llama = (deps / "dist" / "llama.cpp").resolve()
    variants = sorted((llama / "lib").glob("libggml-cpu-*.so"))
    if len(variants) < 2:
        raise SetupError(f"{llama} holds no variants of the processor's backend; run scripts/setup.sh --dist")
    loaded = needed([BUILD / "bin" / "tailor", *variants], [llama / "lib"])
    for name, path in {**loaded, **{v.name: v.resolve() for v in variants}}.items():
        shutil.copyfile(path, libraries / name)
    ours = {out / "bin" / "tailor", *(libraries / name for name, path in loaded.items() if llama in path.parents), *(libraries / v.name for v in variants)}
    for file in sorted(ours):
        run("strip", "--strip-unneeded", file)
    for file in [out / "bin" / "tailor", *libraries.iterdir()]:
        file.chmod(0o755)
    for name in DOCUMENTS:
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(TREE / name, target)
    system = [path for path in loaded.values() if llama not in path.parents]
    dist_licences.write(out, system, llama, (deps / "dist" / "xgrammar").resolve(), VERSION, epoch())


def epoch():
    """Seconds since 1970 that every file of the archive is dated with."""
    if named := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(named)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=TREE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else 0


def pack(directory, archive, date):
    """A tar file whose bytes depend on names, contents and executable bits alone."""
    def plain(member):
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = date
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with open(archive, "wb") as file, gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in [directory, *sorted(directory.rglob("*"))]:
            tar.add(path, arcname=str(path.relative_to(directory.parent)), recursive=False, filter=plain)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", default="1")
    parser.add_argument("--skip-setup", action="store_true", help="what scripts/setup.sh --dist makes is there")
    arguments = parser.parse_args()
    try:
        if not arguments.skip_setup:
            done = subprocess.run([TREE / "scripts" / "setup.sh", "--dist", "--jobs", arguments.jobs], check=False)
            if done.returncode != 0:
                return done.returncode
        deps = Cache(Cache.default_root()).deps
        build(deps, arguments.jobs)
        stage(deps, BUILD / NAME)
    except SetupError as error:
        print(f"dist: {error}.", file=sys.stderr)
        return 4
    except subprocess.CalledProcessError as error:
        print(f"dist: `{' '.join(map(str, error.cmd[:2]))}` failed.", file=sys.stderr)
        return 4
    archive = BUILD / f"{NAME}.tar.gz"
    pack(BUILD / NAME, archive, epoch())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (BUILD / f"{archive.name}.sha256").write_text(f"{digest}  {archive.name}\n")
    print(f"[dist] {archive.relative_to(TREE)}: {archive.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
