"""The release archive as its users have it: in a root directory that holds the archive and glibc's loader and nothing else,
read-only, as a user without rights; and on a processor without AVX (qemu-user-static).

Run: python3 scripts/test_dist.py [--totals FILE] [ARCHIVE]      root; `make dist` first
"""
import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TREE / "scripts"))

import dist  # noqa: E402
import test_totals  # noqa: E402
from tailor_setup.cache import Cache  # noqa: E402

ARCHIVE = dist.BUILD / f"{dist.NAME}.tar.gz"
MODELS = Cache.default_root() / "deps" / "models"
NOBODY = "65534:65534"
QEMU = shutil.which("qemu-x86_64-static")
# What the loader and C library of the archive's promise are; everything else must come out of it.
SYSTEM = ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6")


class Root:
    """An empty root with the archive at /opt/tailor. Its tree is read-only but for /data; /proc and four devices are there."""

    def __init__(self, place, archive):
        self.place = place
        for name in ("proc", "dev", "data", "models", "lib64", "lib/x86_64-linux-gnu", "opt/tailor", "etc"):
            (place / name).mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-xzf", archive, "--strip-components=1", "-C", place / "opt/tailor"], check=True)
        for name in SYSTEM:
            shutil.copy2(f"/lib/x86_64-linux-gnu/{name}", place / ("lib64" if name.startswith("ld-") else "lib/x86_64-linux-gnu") / name)
        if QEMU:
            shutil.copy2(QEMU, place / "qemu")
        shutil.copytree(MODELS, place / "models", dirs_exist_ok=True)
        shutil.copy2(TREE / "examples/estate-agency/inquiries.csv", place / "models/inquiries.csv")
        os.chown(place / "data", 65534, 65534)
        place.chmod(0o755)

    def words(self, *words, cpu=None):
        """The command in a mount namespace of its own: nothing of the machine is seen, and nothing has to be unmounted."""
        emulated = ["/qemu", "-cpu", cpu] if cpu else []
        mounts = (f'mount --bind "{self.place}" "{self.place}" && mount -t proc proc "{self.place}/proc" && '
                  f'mount -t tmpfs -o mode=755 tmpfs "{self.place}/dev" && '
                  f'for d in null zero urandom; do cp -a /dev/$d "{self.place}/dev/$d"; done && '
                  f'mount --bind "{self.place}/data" "{self.place}/data" && mount -o remount,bind,ro "{self.place}" && '
                  f'exec setpriv --no-new-privs chroot --userspec={NOBODY} "{self.place}" "$@"')
        return ["unshare", "--mount", "sh", "-c", mounts, "sh", *emulated, "/opt/tailor/bin/tailor", *map(str, words)]

    def environment(self, cpu):
        out = {"TAILOR_DATA": "/data/store", "TAILOR_CACHE": "/data/cache", "TAILOR_MODELS_DIR": "/models", "TMPDIR": "/data", "PATH": os.environ["PATH"]}
        if cpu:
            out.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="1000")  # else it starts itself again, which qemu leaves to the real processor
        return out

    def run(self, *words, cpu=None):
        return subprocess.run(self.words(*words, cpu=cpu), env=self.environment(cpu), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)

    @contextlib.contextmanager
    def serve(self, *words, cpu=None, before=None):
        """(address, process) of a server; it must end well. `before` is called in its process."""
        server = subprocess.Popen(self.words("serve", *words, "--port", "0", cpu=cpu), env=self.environment(cpu), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  text=True, preexec_fn=before)
        try:
            line = server.stdout.readline()
            address = re.search(r"http://\S+", line)
            if not address:
                raise AssertionError(f"it did not begin: {line} {server.stderr.read()}")
            yield address[0], server
            server.terminate()
            if server.wait(120) != 0:
                raise AssertionError(f"exit code {server.returncode}: {server.stderr.read()}")
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
            server.stdout.close()
            server.stderr.close()


def ask(address, path, body=None, timeout=600):
    request = urllib.request.Request(address + path, data=None if body is None else json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read())


def chat(address, tokens):
    return ask(address, "/v1/chat/completions", {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": tokens, "temperature": 0})


def loaded(server):
    """Names of the shared libraries that a process has mapped."""
    return {Path(path).name for path in re.findall(r"\s(/\S+\.so[.0-9]*)$", Path(f"/proc/{server.pid}/maps").read_text(), re.MULTILINE)}


def deny_write_execute():
    """As MemoryDenyWriteExecute of the unit does, with the kernel's own means: Linux 6.3. Programs started later inherit it."""
    PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
    return ctypes.CDLL(None, use_errno=True).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0


def can_deny_write_execute():
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_dist; sys.exit(not test_dist.deny_write_execute())"
    return subprocess.run([sys.executable, "-B", "-c", code, str(TREE / "scripts")], check=False).returncode == 0


class Archive(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="tailor-dist-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        cls.root = Root(Path(cls.temporary.name), ARCHIVE)
        cls.tree = cls.root.place / "opt/tailor"

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def variant(self, server):
        return sorted(name for name in loaded(server) if name.startswith("libggml-cpu-"))

    def test_holds_every_library_but_glibc(self):
        for file in [self.tree / "bin/tailor", *(self.tree / "lib/tailor").iterdir()]:
            text = subprocess.run(["readelf", "-d", file], stdout=subprocess.PIPE, text=True, check=True).stdout
            for name in re.findall(r"\(NEEDED\).*\[(.+)\]", text):
                self.assertTrue(name in SYSTEM or (self.tree / "lib/tailor" / name).is_file(), f"{file.name} needs {name}")
            self.assertNotIn("RUNPATH", text, file.name)
            stack = subprocess.run(["readelf", "-lW", file], stdout=subprocess.PIPE, text=True, check=True).stdout
            self.assertRegex(stack, r"GNU_STACK.* RW ", file.name)  # MemoryDenyWriteExecute of the unit

    def test_names_no_place_of_the_machine_that_built_it(self):
        for file in [self.tree / "bin/tailor", *(self.tree / "lib/tailor").glob("lib[lg]*ma*.so*")]:
            content = file.read_bytes()
            for place in (str(TREE), str(Cache.default_root())):
                self.assertFalse(place.encode() in content, f"{file.name} names {place}")

    def test_has_its_papers(self):
        for name in ("README.md", "LICENSE", "LICENSES/SOURCES.txt", "LICENSES/llama.cpp.txt", "examples/serve.yaml", "deploy/tailor.service"):
            self.assertTrue((self.tree / name).is_file(), name)
        listed = json.loads((self.tree / "sbom.spdx.json").read_text())
        known = {package["SPDXID"] for package in listed["packages"]}
        for relation in listed["relationships"]:
            self.assertIn(relation["relatedSpdxElement"], known)
        self.assertEqual(sum(p["name"] == "libssl3" for p in listed["packages"]), 1)
        digest, name = (ARCHIVE.parent / (ARCHIVE.name + ".sha256")).read_text().split()
        self.assertEqual((digest, name), (hashlib.sha256(ARCHIVE.read_bytes()).hexdigest(), ARCHIVE.name))

    def test_packs_to_the_same_bytes_again(self):
        again = self.root.place.parent / (self.root.place.name + ".tar.gz")
        self.addCleanup(lambda: again.unlink(missing_ok=True))
        os.utime(dist.BUILD / dist.NAME / "README.md", (1, 1))
        dist.pack(dist.BUILD / dist.NAME, again, dist.epoch())
        self.assertEqual(hashlib.sha256(again.read_bytes()).hexdigest(), hashlib.sha256(ARCHIVE.read_bytes()).hexdigest())

    def test_says_its_version(self):
        done = self.root.run("--version")
        self.assertEqual((done.returncode, done.stdout.strip()), (0, dist.VERSION), done.stderr)

    def test_serves_a_model_of_its_own_directory_and_of_no_other(self):
        begin = time.monotonic()
        with self.root.serve("--model", "smollm2-135m-instruct") as (address, server):
            ready = time.monotonic() - begin
            self.assertEqual(ask(address, "/readyz")["status"], "ok")
            answer = chat(address, 8)
            self.assertEqual(answer["usage"]["completion_tokens"], 8)
            variant = self.variant(server)
            self.assertEqual(len(variant), 1)
            print(f"  {variant[0]}, ready after {ready:.2f} s, said {answer['choices'][0]['message']['content']!r}", flush=True)
            for name, path in re.findall(r"\s(/\S*/)(\S+\.so[.0-9]*)$", Path(f"/proc/{server.pid}/maps").read_text(), re.MULTILINE):
                self.assertTrue("/opt/tailor/lib/tailor/" in name or path in SYSTEM, name + path)
            # Without rights, and with nothing of its memory for others.
            status = Path(f"/proc/{server.pid}/status").read_text()
            self.assertRegex(status, r"Uid:\s+65534\s+65534")
            self.assertRegex(status, r"NoNewPrivs:\s+1")
            self.assertEqual(os.stat(f"/proc/{server.pid}/maps").st_uid, 0)  # not dumpable

    def test_needs_no_memory_that_is_written_and_run(self):
        if not can_deny_write_execute():
            self.skipTest("this kernel cannot deny it (Linux 6.3)")
        with self.root.serve("--model", "smollm2-135m-instruct", before=deny_write_execute) as (address, _):
            self.assertEqual(chat(address, 2)["usage"]["completion_tokens"], 2)

    def test_fits_predicts_and_serves_the_package(self):
        fitted = self.root.run("fit", "/models/inquiries.csv", "--text", "message", "--label", "intent", "--methods", "tfidf,features", "--budget", "60s",
                               "--out", "/data/run", "--quiet")
        self.assertEqual(fitted.returncode, 0, fitted.stderr)
        predicted = self.root.run("predict", "/data/run/package", "where is my viewing appointment?", "--json")
        self.assertEqual(predicted.returncode, 0, predicted.stderr)
        with self.root.serve("/data/run/package") as (address, _):
            got = ask(address, "/v1/classify", {"input": "where is my viewing appointment?"})
            self.assertIn(got["data"][0]["label"], predicted.stdout)

    def test_says_so_where_no_backend_is_left(self):
        kept = self.root.place / "kept"
        kept.mkdir()
        variants = list((self.tree / "lib/tailor").glob("libggml-cpu-*.so"))
        self.assertGreater(len(variants), 10)
        try:
            for file in variants:
                file.rename(kept / file.name)
            done = self.root.run("serve", "--model", "smollm2-135m-instruct", "--port", "0")
        finally:
            for file in kept.iterdir():
                file.rename(self.tree / "lib/tailor" / file.name)
            kept.rmdir()
        self.assertEqual(done.returncode, 4)
        self.assertIn("/opt/tailor/lib/tailor: there is no libggml-cpu-*.so that this processor can run", done.stderr)

    @unittest.skipUnless(QEMU, "qemu-x86_64-static is missing: apt-get install qemu-user-static")
    def test_runs_on_a_processor_without_avx(self):
        with self.root.serve("--model", "smollm2-135m-instruct", cpu="Nehalem") as (address, server):
            self.assertEqual(self.variant(server), ["libggml-cpu-sse42.so"])
            self.assertEqual(chat(address, 2)["usage"]["completion_tokens"], 2)

    @unittest.skipUnless(QEMU, "qemu-x86_64-static is missing: apt-get install qemu-user-static")
    def test_embeds_on_a_processor_without_avx(self):
        with self.root.serve("--model", "all-minilm-l6-v2", cpu="Nehalem") as (address, _), self.root.serve("--model", "all-minilm-l6-v2") as (here, _):
            body = {"input": ["where is my viewing appointment?"]}
            old, new = (ask(a, "/v1/embeddings", body)["data"][0]["embedding"] for a in (address, here))
            self.assertGreater(sum(a * b for a, b in zip(old, new)), 0.9999)

    @unittest.skipUnless(QEMU, "qemu-x86_64-static is missing: apt-get install qemu-user-static")
    def test_an_older_processor_is_told_so(self):
        done = self.root.run("--version", cpu="core2duo")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("ISA level", done.stderr)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is missing")
    def test_the_unit_is_one_that_systemd_takes(self):
        unit = Path(self.temporary.name + "-unit")
        self.addCleanup(shutil.rmtree, unit, True)
        unit.mkdir()
        text = (self.tree / "deploy/tailor.service").read_text().replace("/opt/tailor/bin/tailor", str(self.tree / "bin/tailor"))
        (unit / "tailor.service").write_text(text)
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit / "tailor.service"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual((done.returncode, [line for line in done.stdout.splitlines() if "tailor.service" in line]), (0, []), done.stdout)
        done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit / "tailor.service"], stdout=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--totals", help="file to which 'passed failed skipped' is added")
    parser.add_argument("--only", help="names of tests that hold this")
    parser.add_argument("archive", nargs="?", type=Path, default=ARCHIVE)
    arguments = parser.parse_args()
    globals()["ARCHIVE"] = arguments.archive
    reason = "" if os.geteuid() == 0 else "a chroot needs root"
    reason = reason or ("" if arguments.archive.is_file() else f"{arguments.archive} is absent: make dist")
    if reason:
        print(f"SKIPPED the release archive: {reason}")
        return test_totals.tell("dist", 0, 0, 1, arguments.totals)
    return test_totals.run_case(Archive, "dist", arguments.only, arguments.totals)


if __name__ == "__main__":
    sys.exit(main())
